"""Whatever a CronJob's template says: its Job runs one pod, once, with our window, or it is refused with a path."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes_asyncio import client as api

from include.scorecard_backfill import jobtemplate
from include.scorecard_backfill.job import ANNOTATION_CONTAINER, JobError, build_job, container_of
from include.scorecard_backfill.jobtemplate.fields import FIELDS
from include.scorecard_backfill.jobtemplate.page import page
from include.scorecard_backfill.jobtemplate.rules import DEFAULT_CONTAINER, ENV_CLEAN_UP, QUEUE_NAME, WINDOW_ENV
from tests.unit.test_job import CRONJOB, cronjob, request

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
PODS = "spec.jobTemplate.spec.template.spec"

LEVELS = {
    "metadata": api.V1ObjectMeta,
    "spec": api.V1JobSpec,
    "spec.template": api.V1PodTemplateSpec,
    "spec.template.metadata": api.V1ObjectMeta,
    "spec.template.spec": api.V1PodSpec,
    "spec.template.spec.containers[]": api.V1Container,
    "spec.template.spec.initContainers[]": api.V1Container,
}


SCHEMAS = {
    "metadata": "objectmeta-meta-v1",
    "spec": "jobspec-batch-v1",
    "spec.template": "podtemplatespec-v1",
    "spec.template.metadata": "objectmeta-meta-v1",
    "spec.template.spec": "podspec-v1",
    "spec.template.spec.containers[]": "container-v1",
    "spec.template.spec.initContainers[]": "container-v1",
}


def problem(path: str, value: Any, base: Json | None = None) -> str:
    """The refusal of the template with this value."""
    with pytest.raises(JobError) as caught:
        build_job(base or cronjob(path, value), request())
    return str(caught.value)


@pytest.mark.parametrize("level", LEVELS)
def test_every_field_of_the_api_is_decided(level: str) -> None:
    known = {field.name for field in FIELDS if field.level == level}
    assert set(LEVELS[level].attribute_map.values()) - known == set()
    assert len({field.path for field in FIELDS}) == len(FIELDS)


@pytest.mark.parametrize("level", LEVELS)
def test_every_field_of_the_table_is_one_of_the_api(level: str) -> None:
    """Of some version: a cluster may be older or newer than the client."""
    files = (Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema").glob(f"*/{SCHEMAS[level]}.json")
    known = {name for file in files for name in json.loads(file.read_text())["properties"]}
    assert {field.name for field in FIELDS if field.level == level} - known == set()


def test_the_page_is_fresh() -> None:
    assert (ROOT / "docs" / "job-template.md").read_text() == page(), (
        "run python -m include.scorecard_backfill.jobtemplate.page > docs/job-template.md"
    )


@pytest.mark.parametrize("field", [f for f in FIELDS if f.treatment == "refused"], ids=lambda f: f.path)
def test_a_refused_field_is_refused_by_its_path(field: Any) -> None:
    path = field.path.removeprefix("spec.").replace("containers[]", "containers.0").replace("initContainers.0", "")
    if "initContainers[]" in field.path:
        base = cronjob("template.spec.initContainers", [{"name": "wait", "image": "b", field.name: [{"action": "x"}]}])
        said = problem("", None, base)
    else:
        said = problem(path, [{"any": "thing"}])
    assert f"spec.jobTemplate.{field.path}".replace("[]", "[0]") in said


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        ("notYetInvented", 1, "spec.jobTemplate.spec.notYetInvented: this field is not known here"),
        ("template.spec.notYetInvented", "x", f"{PODS}.notYetInvented: this field is not known"),
        ("template.spec.containers.0.notYetInvented", 1, f"{PODS}.containers[0].notYetInvented: this field is not"),
        ("completionMode", "Indexed", "spec.jobTemplate.spec.completionMode is Indexed"),
        ("managedBy", "kueue.x-k8s.io/multikueue", "spec.jobTemplate.spec.managedBy is kueue.x-k8s.io/multikueue"),
        ("suspend", True, "spec.jobTemplate.spec.suspend is true and the template names no queue"),
        ("parallelism", 0, "spec.jobTemplate.spec.parallelism is 0"),
        ("template.spec.containers.1.restartPolicy", "Always", f"{PODS}.containers[1].restartPolicy is Always"),
        ("template.spec.initContainers", [{"name": "i", "image": "b", "restartPolicy": "OnFailure"}],
         f"{PODS}.initContainers[0].restartPolicy is OnFailure"),
        ("template.spec.initContainers", [{"name": "i", "image": "b", "command": ["run", "{{ ds }}"]}],
         f"{PODS}.initContainers[0].command[1] still holds a template expression"),
        ("template.spec.containers.0.args", ["--day={{ ds }}"], f"{PODS}.containers[0].args[0] still holds"),
        ("template.spec.containers.0.args", ["{% if x %}"], "args[0] still holds a template expression"),
        ("template.spec.containers.0.args", ["--customers=globex"], "args[0] has an option of its own for the window"),
        ("template.spec.containers.0.args", ["--customer-id", "globex"], "(--customer-id)"),
        ("template.spec.containers.0.args", ["--start-time=2020-01-01T00:00:00Z"], "args[0]"),
        ("template.spec.containers.0.args", ["-end", "5"], "args[0] has an option of its own"),
        ("template.spec.containers.0.args", ["run", "2020-01-01"], "args[1] names the day 2020-01-01"),
        ("template.spec.containers.0.command", ["sh", "-c", "unset RUN_ONLY_FOR_CUSTOMER_IDS; run"],
         "command[2] names RUN_ONLY_FOR_CUSTOMER_IDS otherwise than by its value"),
        ("template.spec.containers.0.command", ["env", "REINDEX_END_TIME=2020-01-01T00:00:00Z", "run"],
         "command[1] names REINDEX_END_TIME"),
        ("template.spec.containers.0.args", ["run", "2020/01/01"], "args[1] names the day 2020/01/01"),
        ("template.spec.containers.0.command", ["/usr/bin/env", "-i", "run"],
         "command[0] starts the program without the Job's variables"),
        ("template.spec.containers.0.command", ["sh", "-c", "exec env - PATH=/bin run"],
         "command[2] starts the program without the Job's variables"),
        ("template.spec.containers.0.env.2.value", "--since 3d", "env[2]: environment LOG_LEVEL has an option"),
        ("template.spec.containers.0.env.2.value", "REINDEX_START_TIME=x", "environment LOG_LEVEL names REINDEX_START"),
    ],
)  # fmt: skip
def test_what_would_undo_the_promise_is_refused_by_its_path(path: str, value: Any, part: str) -> None:
    assert part in problem(path, value)


@pytest.mark.parametrize(
    "args",
    [
        ["--start=$(REINDEX_START_TIME)", "--end", "$(REINDEX_END_TIME)"],
        ["sh", "-c", 'exec run --customers "$RUN_ONLY_FOR_CUSTOMER_IDS" --start ${REINDEX_START_TIME}'],
        ["--api-version=2023-10-16", "--log-format", "json", "--customer-service-url=http://x"],
        ["--from-file=/etc/config", "--restart"],
        ["/usr/bin/env", "LOG=debug", "run", "-i", "in.txt", "--env", "-"],
    ],
)
def test_arguments_that_use_our_variables_or_mean_something_else_are_kept(args: list[str]) -> None:
    job = build_job(cronjob("template.spec.containers.0.args", args), request())
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == args


def test_all_that_is_wrong_is_said_at_once() -> None:
    base = cronjob("completionMode", "Indexed")
    base["spec"]["jobTemplate"]["spec"]["template"]["spec"]["ephemeralContainers"] = [{"name": "debug"}]
    said = problem("", None, base)
    assert "completionMode" in said
    assert "ephemeralContainers" in said


def test_what_is_changed_is_said() -> None:
    base = cronjob("completions", 3)
    spec = base["spec"]["jobTemplate"]["spec"]
    spec["podFailurePolicy"] = {"rules": [{"action": "Ignore", "onPodConditions": []}]}
    spec["template"]["spec"]["restartPolicy"] = "OnFailure"
    spec["template"]["spec"]["containers"][0]["env"].append({"name": ENV_CLEAN_UP, "value": "true"})
    said = " ".join(jobtemplate.changes(base["spec"]["jobTemplate"]))
    for part in ("spec.completions is 3", "podFailurePolicy", "restartPolicy is OnFailure", f"{ENV_CLEAN_UP} is set"):
        assert part in said
    job = build_job(base, request())
    env = {item["name"]: item.get("value") for item in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env[ENV_CLEAN_UP] == "false"
    assert jobtemplate.changes(CRONJOB["spec"]["jobTemplate"]) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("template.spec.restartPolicy", "OnFailure"),
        ("completionMode", "Indexed"),
        ("podFailurePolicy", {"rules": [{"action": "Ignore"}]}),
        ("managedBy", "queue.example.com/other"),
        ("completions", None),
    ],
)
def test_what_admission_may_not_make_of_a_job(path: str, value: Any) -> None:
    sent = build_job(CRONJOB, request())
    answer = copy.deepcopy(sent)
    answer["spec"]["completionMode"] = "NonIndexed"
    assert jobtemplate.undone(sent, answer, poll_seconds=10) == []
    node = answer["spec"]
    *way, last = path.split(".")
    for part in way:
        node = node[part]
    node[last] = value
    (said,) = jobtemplate.undone(sent, answer, poll_seconds=10)
    assert f"sets spec.{path} to {value}" in said


def test_a_queue_keeps_its_suspend() -> None:
    base = cronjob("suspend", True)
    base["spec"]["jobTemplate"]["metadata"]["labels"][QUEUE_NAME] = "batch"
    assert build_job(base, request())["spec"]["suspend"] is True


def test_the_program_never_deletes_by_itself_whatever_a_config_map_or_its_image_says() -> None:
    base = cronjob("template.spec.containers.0.envFrom", [{"configMapRef": {"name": "reindex-defaults"}}])
    for container in build_job(base, request())["spec"]["template"]["spec"]["containers"]:
        assert {"name": ENV_CLEAN_UP, "value": "false"} in container["env"]


def test_the_template_s_own_word_for_its_main_container_is_taken() -> None:
    base = cronjob("template.metadata.annotations", {DEFAULT_CONTAINER: "sidecar"})
    assert container_of(build_job(base, request())) == "sidecar"
    assert container_of(build_job(base, request(container="reindex"))) == "reindex"
    base = cronjob("template.metadata.annotations", {DEFAULT_CONTAINER: "gone"})
    assert container_of(build_job(base, request())) == "reindex"


def test_our_container_is_the_first_of_the_template_or_the_named_one() -> None:
    job = build_job(CRONJOB, request())
    injected = copy.deepcopy(job)
    injected["spec"]["template"]["spec"]["containers"].insert(0, {"name": "proxy", "image": "p"})
    assert container_of(job) == container_of(injected) == "reindex"
    assert container_of(build_job(CRONJOB, request(container="sidecar"))) == "sidecar"
    job["metadata"]["annotations"].pop(ANNOTATION_CONTAINER)
    assert container_of(job) == "reindex"
    with pytest.raises(JobError, match=r"no container 'other' \(kubernetes\.container\), only reindex, sidecar"):
        build_job(CRONJOB, request(container="other"))


@pytest.mark.parametrize(("customer", "sent"), [("a$(B)", "a$$(B)"), ("a$$b", "a$$$$b"), ("a$b", "a$b")])
def test_a_customer_id_is_never_expanded(customer: str, sent: str) -> None:
    job = build_job(CRONJOB, request(customer_id=customer))
    env = {item["name"]: item.get("value") for item in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["RUN_ONLY_FOR_CUSTOMER_IDS"] == sent


def test_variables_of_the_template_can_use_the_windows() -> None:
    base = cronjob("template.spec.containers.0.env", [{"name": "RANGE", "value": "$(REINDEX_START_TIME)..x"}])
    env = build_job(base, request())["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [item["name"] for item in env].index("REINDEX_START_TIME") < [item["name"] for item in env].index("RANGE")


# Property: any template

WORDS = st.sampled_from(
    ["run", "--customers=globex", "--start", "2020-01-01", "{{ ds }}", "$(REINDEX_START_TIME)", "-v", "reindex",
     "REINDEX_END_TIME=x", "$RUN_ONLY_FOR_CUSTOMER_IDS", "--since=1d", "--end=$(REINDEX_END_TIME)"]
)  # fmt: skip
ENV_NAMES = st.sampled_from([*sorted(WINDOW_ENV), ENV_CLEAN_UP, "LOG_LEVEL", "JOB_COMPLETION_INDEX", "ARGS"])
ENV = st.lists(
    st.one_of(
        st.fixed_dictionaries({"name": ENV_NAMES, "value": WORDS}),
        st.fixed_dictionaries({"name": ENV_NAMES, "valueFrom": st.just({"secretKeyRef": {"name": "a", "key": "b"}})}),
    ),
    max_size=4,
)
COUNTERS = itertools.count()
CONTAINER = st.fixed_dictionaries(
    {"name": st.builds(lambda: f"c{next(COUNTERS)}"), "image": st.just("registry.example/a:1")},
    optional={
        "command": st.lists(WORDS, max_size=3),
        "args": st.lists(WORDS, max_size=3),
        "env": ENV,
        "envFrom": st.just([{"secretRef": {"name": "all"}, "prefix": "REINDEX_"}]),
        "restartPolicy": st.sampled_from(["Always", "OnFailure", "Never"]),
        "restartPolicyRules": st.just([{"action": "Restart"}]),
        "resources": st.just({}),
    },
)
JOB_SPEC = st.fixed_dictionaries(
    {
        "template": st.fixed_dictionaries(
            {
                "spec": st.fixed_dictionaries(
                    {"containers": st.lists(CONTAINER, min_size=1, max_size=3)},
                    optional={
                        "initContainers": st.lists(CONTAINER, max_size=2),
                        "ephemeralContainers": st.just([{"name": "debug"}]),
                        "restartPolicy": st.sampled_from(["Never", "OnFailure"]),
                        "activeDeadlineSeconds": st.integers(1, 10),
                        "futureField": st.just(True),
                    },
                )
            },
            optional={
                "metadata": st.fixed_dictionaries(
                    {},
                    optional={
                        "labels": st.just({"app": "x", "controller-uid": "1", "batch.kubernetes.io/job-name": "y"}),
                        "generateName": st.just("x-"),
                    },
                )
            },
        )
    },
    optional={
        "completions": st.one_of(st.none(), st.integers(0, 5)),
        "parallelism": st.one_of(st.none(), st.integers(-1, 5)),
        "completionMode": st.sampled_from(["NonIndexed", "Indexed"]),
        "backoffLimit": st.integers(0, 9),
        "backoffLimitPerIndex": st.integers(0, 9),
        "maxFailedIndexes": st.integers(1, 9),
        "podFailurePolicy": st.just({"rules": [{"action": "Ignore"}]}),
        "successPolicy": st.just({"rules": [{"succeededCount": 1}]}),
        "podReplacementPolicy": st.sampled_from(["Failed", "TerminatingOrFailed"]),
        "managedBy": st.sampled_from(["kubernetes.io/job-controller", "example.com/other"]),
        "manualSelector": st.booleans(),
        "selector": st.just({"matchLabels": {"app": "x"}}),
        "suspend": st.booleans(),
        "ttlSecondsAfterFinished": st.integers(0, 9),
        "activeDeadlineSeconds": st.integers(1, 9),
        "futureField": st.just("x"),
    },
)
TEMPLATE = st.fixed_dictionaries(
    {"spec": JOB_SPEC},
    optional={"metadata": st.just({"labels": {QUEUE_NAME: "q"}, "name": "n", "generateName": "g-"})},
)


def pods_of(spec: Json) -> int:
    """How many pods a Job's controller makes at most, if every one of them fails in turn."""
    at_once = spec["parallelism"] if spec.get("completions") is None else min(spec["parallelism"], spec["completions"])
    ignored = any(rule["action"] == "Ignore" for rule in (spec.get("podFailurePolicy") or {}).get("rules", []))
    return 99 if ignored else max(at_once, spec.get("completions") or 0) + spec["backoffLimit"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(TEMPLATE)
def test_any_template_gives_one_pod_once_with_our_window_or_a_path(template: Json) -> None:
    before = copy.deepcopy(template)
    manifest = {"metadata": {"name": "c"}, "spec": {"jobTemplate": template}}
    said, job = "", {}
    try:
        job = build_job(manifest, request())
    except JobError as error:
        said = str(error)
    assert template == before
    if not job:
        assert "spec.jobTemplate." in said
        return
    spec = job["spec"]
    pod = spec["template"]["spec"]
    assert pods_of(spec) == 1
    assert pod["restartPolicy"] == "Never"
    assert spec.get("completionMode", "NonIndexed") == "NonIndexed"
    assert spec.get("managedBy", "kubernetes.io/job-controller") == "kubernetes.io/job-controller"
    assert not {"selector", "manualSelector", "futureField", "backoffLimitPerIndex", "successPolicy"} & set(spec)
    assert not spec.get("suspend") or QUEUE_NAME in job["metadata"]["labels"]
    assert set(job["metadata"]) == {"name", "labels", "annotations"}
    assert set(spec["template"]["metadata"]["labels"]) == {*request().labels, *(("app",) if "metadata" in
            template["spec"]["template"] and "labels" in template["spec"]["template"]["metadata"] else ())}  # fmt: skip
    for is_init, container in [*((True, c) for c in pod.get("initContainers") or []),
                               *((False, c) for c in pod["containers"])]:  # fmt: skip
        check_container(container, is_init)


def check_container(container: Json, is_init: bool) -> None:
    """It runs once, and every way to learn a window leads to ours."""
    assert container.get("restartPolicy", "Never") in (("Never", "Always") if is_init else ("Never",))
    assert "restartPolicyRules" not in container
    ours = {"REINDEX_START_TIME": "2026-01-01T00:00:00Z", "REINDEX_END_TIME": "2026-02-01T00:00:00Z",
            "RUN_ONLY_FOR_CUSTOMER_IDS": "acme"}  # fmt: skip
    for name, value in ours.items():
        assert [item for item in container["env"] if item["name"] == name] == [{"name": name, "value": value}]
    deciding = [item["value"] for item in container["env"] if item["name"] == ENV_CLEAN_UP]
    assert deciding in ([], ["false"])
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    words += [item.get("value", "") for item in container["env"] if item["name"] not in {*ours, ENV_CLEAN_UP}]
    text = " ".join(words)
    assert not any(part in text for part in ("{{", "globex", "=x", "--since"))
