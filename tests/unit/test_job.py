"""The Job of a window: the CronJob's template, narrowed to one customer and range, and valid for Kubernetes."""

from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from include.scorecard_backfill import names
from include.scorecard_backfill.job import (
    ANNOTATION_CONTAINER,
    INSTANTIATE_ANNOTATION,
    JobError,
    JobRequest,
    build_job,
    suspended,
    window_selector,
)
from include.scorecard_backfill.jobtemplate.rules import ENV_CLEAN_UP, WINDOW_ENV
from include.scorecard_backfill.ownership import ANNOTATION_OWNER

CRONJOB: dict[str, Any] = yaml.safe_load("""
apiVersion: batch/v1
kind: CronJob
metadata: {name: cron-batch-reindex-conversations, namespace: cresta-cron, uid: abc}
spec:
  schedule: "0 3 * * *"
  suspend: true
  concurrencyPolicy: Forbid
  jobTemplate:
    metadata:
      labels: {app: reindex}
      annotations: {team: data}
    spec:
      backoffLimit: 6
      parallelism: 1
      ttlSecondsAfterFinished: 60
      selector: {matchLabels: {app: reindex}}
      manualSelector: true
      template:
        metadata:
          labels: {app: reindex, pod: "yes"}
        spec:
          restartPolicy: Never
          serviceAccountName: reindex
          containers:
            - name: reindex
              image: registry.example/reindex:1
              env:
                - {name: REINDEX_START_TIME, value: "2020-01-01T00:00:00Z"}
                - {name: RUN_ONLY_FOR_CUSTOMER_IDS, value: "globex,initech"}
                - {name: LOG_LEVEL, value: info}
                - name: PASSWORD
                  valueFrom: {secretKeyRef: {name: postgres, key: password}}
            - {name: sidecar, image: registry.example/sidecar:1}
""")


def request(**changes: Any) -> JobRequest:
    base: dict[str, Any] = {
        "key": "0123456789abcdef",
        "cluster": "demo",
        "run_id": "manual__2026-03-01T00:00:00+00:00",
        "customer_id": "acme",
        "start": "2026-01-01",
        "end": "2026-02-01",
        "attempt": 1,
        "ttl_seconds": 604_800,
        "deadline_seconds": 3_600,
    }
    return JobRequest(**base | changes)


def cronjob(path: str = "", value: Any = None) -> dict[str, Any]:
    """The CronJob, with one value of its jobTemplate.spec replaced (dotted path; numbers are places)."""
    result = copy.deepcopy(CRONJOB)
    if path:
        node: Any = result["spec"]["jobTemplate"]["spec"]
        *way, last = path.split(".")
        for part in way:
            node = node[int(part)] if part.isdigit() else node[part]
        node[int(last) if last.isdigit() else last] = value
    return result


def env_of(job: dict[str, Any], container: int = 0) -> dict[str, Any]:
    listed = job["spec"]["template"]["spec"]["containers"][container]["env"]
    assert len({item["name"] for item in listed}) == len(listed)
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in listed}


def test_the_job_is_one_window_of_one_customer() -> None:
    job = build_job(CRONJOB, request())
    assert env_of(job) == {
        "LOG_LEVEL": "info",
        "PASSWORD": {"secretKeyRef": {"name": "postgres", "key": "password"}},
        "REINDEX_START_TIME": "2026-01-01T00:00:00Z",
        "REINDEX_END_TIME": "2026-02-01T00:00:00Z",
        "RUN_ONLY_FOR_CUSTOMER_IDS": "acme",
        ENV_CLEAN_UP: "false",
    }
    assert {name: env_of(job, 1)[name] for name in WINDOW_ENV} == {name: env_of(job)[name] for name in WINDOW_ENV}


def test_the_job_is_made_once_kept_to_be_read_and_belongs_to_nobody() -> None:
    job = build_job(CRONJOB, request())
    spec = job["spec"]
    assert (spec["backoffLimit"], spec["completions"], spec["parallelism"]) == (0, 1, 1)
    assert "suspend" not in spec
    assert (spec["ttlSecondsAfterFinished"], spec["activeDeadlineSeconds"]) == (604_800, 3_600)
    assert "ownerReferences" not in job["metadata"]
    assert not {"selector", "manualSelector"} & set(spec)
    ours = {INSTANTIATE_ANNOTATION: "manual", ANNOTATION_CONTAINER: "reindex"}
    assert job["metadata"]["annotations"] == {"team": "data", **ours}
    owned = build_job(CRONJOB, request(owner="manual__1/windows.reindex/3/1/1"))
    assert owned["metadata"]["annotations"][ANNOTATION_OWNER] == "manual__1/windows.reindex/3/1/1"
    assert spec["template"]["spec"]["serviceAccountName"] == "reindex"


def test_job_and_pods_carry_the_labels_of_the_window_beside_the_templates() -> None:
    wanted = request(customer_id="acme eu", attempt=3)
    job = build_job(CRONJOB, wanted)
    assert job["metadata"]["labels"] == {"app": "reindex", **wanted.labels}
    assert job["spec"]["template"]["metadata"]["labels"] == {"app": "reindex", "pod": "yes", **wanted.labels}
    assert wanted.labels[names.LABEL_WINDOW] == wanted.key
    assert wanted.labels[names.LABEL_ATTEMPT] == "3"
    assert window_selector(wanted.key) == f"{names.LABEL_WINDOW}={wanted.key}"


def test_what_a_template_says_of_its_pods_is_theirs_and_not_shared_with_it() -> None:
    told = copy.deepcopy(CRONJOB)
    meta = told["spec"]["jobTemplate"]["spec"]["template"]["metadata"]
    meta |= {"annotations": {"team": "data"}, "finalizers": ["example.com/kept"], "name": "fixed", "uid": "1"}
    pod = build_job(told, request())["spec"]["template"]["metadata"]
    assert set(pod) == {"labels", "annotations", "finalizers"}
    assert (pod["annotations"], pod["finalizers"]) == ({"team": "data"}, ["example.com/kept"])
    pod["annotations"].clear()
    pod["finalizers"].clear()
    assert (meta["annotations"], meta["finalizers"]) == ({"team": "data"}, ["example.com/kept"])
    meta |= {"annotations": None, "finalizers": []}
    assert set(build_job(told, request())["spec"]["template"]["metadata"]) == {"labels"}


def test_a_job_without_labels_and_annotations_of_its_template_has_ours() -> None:
    bare = copy.deepcopy(CRONJOB)
    del bare["spec"]["jobTemplate"]["metadata"]
    job = build_job(bare, request())
    assert job["metadata"]["labels"] == request().labels
    assert job["metadata"]["annotations"] == {INSTANTIATE_ANNOTATION: "manual", ANNOTATION_CONTAINER: "reindex"}


def test_the_cronjob_is_not_changed() -> None:
    before = copy.deepcopy(CRONJOB)
    job = build_job(CRONJOB, request())
    job["spec"]["template"]["spec"]["containers"][0]["env"].clear()
    assert before == CRONJOB


def test_more_environment_is_added_but_never_over_the_windows() -> None:
    extra = {"REINDEX_MODE": "process", "LOG_LEVEL": "debug", "RUN_ONLY_FOR_CUSTOMER_IDS": "", "REINDEX_END_TIME": "x"}
    env = env_of(build_job(CRONJOB, request(extra_env=extra)))
    assert (env["REINDEX_MODE"], env["LOG_LEVEL"]) == ("process", "debug")
    assert (env["RUN_ONLY_FOR_CUSTOMER_IDS"], env["REINDEX_END_TIME"]) == ("acme", "2026-02-01T00:00:00Z")


@pytest.mark.parametrize("customer", ["", " ", "\t", "acme,globex", ",", "acme ", " acme", "acme\n"])
def test_a_customer_id_that_would_widen_the_job_is_refused(customer: str) -> None:
    with pytest.raises(JobError, match="an empty value means every customer"):
        build_job(CRONJOB, request(customer_id=customer))


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        ("template.spec.containers", [], "there is no container"),
        ("template.spec", None, "there is no container"),
        ("template", None, "there is no container"),
        ("parallelism", 0, "parallelism is 0"),
        ("parallelism", -1, "parallelism is -1"),
        ("template.spec.containers.0.env.2.value", "{{ ds }}", "LOG_LEVEL still holds a template expression"),
    ],
)
def test_a_template_that_cannot_serve_is_refused_by_name(path: str, value: Any, part: str) -> None:
    with pytest.raises(JobError) as caught:
        build_job(cronjob(path, value), request())
    assert part in str(caught.value)
    assert "CronJob cron-batch-reindex-conversations" in str(caught.value)


@pytest.mark.parametrize("bad", [{}, {"spec": {}}, {"spec": {"jobTemplate": None}}, {"spec": {"jobTemplate": {}}}])
def test_a_cronjob_without_template_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(JobError, match=r"spec\.jobTemplate\.spec is missing"):
        build_job(bad, request())


def test_sparse_templates_are_filled() -> None:
    spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b", "env": None}]}}}
    job = build_job({"metadata": {"name": "c"}, "spec": {"jobTemplate": {"metadata": None, "spec": spec}}}, request())
    assert set(env_of(job)) == {*WINDOW_ENV, ENV_CLEAN_UP}
    assert job["metadata"]["labels"] == request().labels
    assert build_job(cronjob("parallelism", None), request())["spec"]["parallelism"] == 1


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters=","), min_size=1, max_size=90)


@settings(max_examples=15)
@given(TEXTS, TEXTS, st.integers(1, 99), st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), TEXTS))
def test_whatever_the_customer_is_called_kubernetes_takes_the_job(
    customer: str, run_id: str, attempt: int, extra: dict[str, str]
) -> None:
    wanted = request(customer_id=customer, run_id=run_id, attempt=attempt, extra_env=extra)
    job = build_job(CRONJOB, wanted)
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    assert job == build_job(CRONJOB, wanted)
    assert job["metadata"]["name"] == wanted.name
    assert env_of(job)["RUN_ONLY_FOR_CUSTOMER_IDS"] == customer


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [(CRONJOB, True), ({"spec": {"suspend": False}}, False), ({"spec": None}, False), ({}, False)],
)
def test_a_suspended_cronjob_is_seen(manifest: dict[str, Any], expected: bool) -> None:
    assert suspended(manifest) is expected
