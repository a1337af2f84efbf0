"""What is said of a Job's template, a Job's owner and a run's parameters, whole."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from include.scorecard_backfill import jobtemplate
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.job import JobError, build_job
from include.scorecard_backfill.jobtemplate.fields import BY_PATH
from include.scorecard_backfill.jobtemplate.rules import DEFAULT_CONTAINER, ENV_CLEAN_UP, QUEUE_NAME
from include.scorecard_backfill.names import dns_slug, job_name, label_value, window_key
from include.scorecard_backfill.ownership import (
    ANNOTATION_OWNER,
    End,
    Leave,
    Owner,
    StaleError,
    adoption,
    may_end,
    parse_owner,
)
from include.scorecard_backfill.params.resolve import MAX_RANGE_DAYS, ParamsError, RunParams, effective
from tests.unit.test_job import CRONJOB, request

Json = dict[str, Any]
POD = "spec.jobTemplate.spec.template.spec"
UNKNOWN = (
    "this field is not known here, so nobody has looked at what it does to a Job that must run once; take it out of the"
    " template"
)
WINDOW = (
    "the window comes from REINDEX_START_TIME, REINDEX_END_TIME and RUN_ONLY_FOR_CUSTOMER_IDS only; take it out, or use"
    " $(REINDEX_START_TIME) and the like"
)
EXPRESSION = "; it would reach the program as it is"


def template(container: Json | None = None, pod: Json | None = None, meta: Json | None = None, **spec: Any) -> Json:
    containers = [{"name": "reindex", "image": "i", **(container or {})}]
    pods = {"metadata": meta or {}, "spec": {"containers": containers, **(pod or {})}}
    return {"spec": {"template": pods, **spec}}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, [f"{POD}.containers: there is no container"]),
        (template(), []),
        (template(future=1), [f"spec.jobTemplate.spec.future: {UNKNOWN}"]),
        ({"metadata": {"future": 1}, **template()}, [f"spec.jobTemplate.metadata.future: {UNKNOWN}"]),
        (template(meta={"future": 1}), [f"spec.jobTemplate.spec.template.metadata.future: {UNKNOWN}"]),
        (template(pod={"future": 1}), [f"{POD}.future: {UNKNOWN}"]),
        (template({"future": 1}), [f"{POD}.containers[0].future: {UNKNOWN}"]),
        (template(future=[], other={}, third="", fourth=None), []),
        (template(successPolicy={"rules": [1]}),
         [f"spec.jobTemplate.spec.successPolicy: {BY_PATH['spec.successPolicy'].why}; take it out of the template"]),
        (template(parallelism=0), ["spec.jobTemplate.spec.parallelism is 0: the Job would never start a pod"]),
        (template(parallelism=1, completionMode="NonIndexed", managedBy="kubernetes.io/job-controller"), []),
        (template(completionMode="Indexed"),
         [f"spec.jobTemplate.spec.completionMode is Indexed: it {BY_PATH['spec.maxFailedIndexes'].why}"]),
        (template(managedBy="x/y"),
         ["spec.jobTemplate.spec.managedBy is x/y: another controller makes pods by its own rules"]),
        (template(suspend=True),
         [f"spec.jobTemplate.spec.suspend is true and the template names no queue (label {QUEUE_NAME}): nobody would"
          " start the Job, after its rows are deleted; take suspend out of the template, or add the label"]),
        (template(suspend=True, meta={"labels": {QUEUE_NAME: "q"}}), []),
        (template(suspend=True, meta={"annotations": {QUEUE_NAME: "q"}}), []),
        ({"metadata": {"labels": {QUEUE_NAME: "q"}}, **template(suspend=True)}, []),
        (template({"restartPolicy": "Always"}),
         [f"{POD}.containers[0].restartPolicy is Always: it would start the program again in the same pod"]),
        (template({"restartPolicy": "Never"}, {"initContainers": [{"name": "i", "restartPolicy": "Always"}]}), []),
        (template({"args": ["{{ ds }}"]}),
         [f"{POD}.containers[0].args[0] still holds a template expression ('{{{{ ds }}}}'){EXPRESSION}"]),
        (template({"command": ["x", "${{ a }}"]}),
         [f"{POD}.containers[0].command[1] still holds a template expression ('${{{{ a }}}}'){EXPRESSION}"]),
        (template({"env": [{"name": "A", "value": "{% a %}"}]}),
         [f"{POD}.containers[0].env[0]: environment A still holds a template expression ('{{% a %}}'){EXPRESSION}"]),
        (template({"env": [{"name": "A"}, {"name": "REINDEX_END_TIME", "value": "{{"},
                           {"name": ENV_CLEAN_UP, "value": "{{"}]}), []),
        (template({"env": [{"name": "A", "value": "--since 3d"}]}),
         [f"{POD}.containers[0].env[0]: environment A has an option of its own for the window (--since 3d); only the"
          " Job's own variables may name its window"]),
        (template({"args": ["run", "2020-01-01"]}),
         [f"{POD}.containers[0].args[1] names the day 2020-01-01 ('2020-01-01'): {WINDOW}"]),
        (template({"args": ["--start=5"]}),
         [f"{POD}.containers[0].args[0] has an option of its own for the window (--start) ('--start=5'): {WINDOW}"]),
        (template({"command": ["unset REINDEX_END_TIME; " + "x" * 60]}),
         [f"{POD}.containers[0].command[0] names REINDEX_END_TIME otherwise than by its value ('unset REINDEX_END_TIME;"
          f" {'x' * 33}...'): {WINDOW}"]),
        (template({"command": ["env", "-i", "run"]}),
         [f"{POD}.containers[0].command[0] starts the program without the Job's variables ('env'): {WINDOW}"]),
        (template({"command": ["x" * 60 + "{{"]}),
         [f"{POD}.containers[0].command[0] still holds a template expression ('{'x' * 57}...'){EXPRESSION}"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_template(found: Json, said: list[str]) -> None:
    assert jobtemplate.problems(found) == said


def test_a_container_that_is_not_there_is_named_with_those_that_are() -> None:
    two = template(pod={"containers": [{"name": "a"}, {"name": "b"}]})
    assert jobtemplate.problems(two, "c") == [
        f"{POD}.containers: there is no container 'c' (kubernetes.container), only a, b"
    ]
    assert jobtemplate.problems(two, "b") == []
    for found, configured, name in (
        (two, "", "a"), (two, "b", "b"), ({}, "", ""), ({}, "x", "x"),
        (template(pod=two["spec"]["template"]["spec"], meta={"annotations": {DEFAULT_CONTAINER: "b"}}), "", "b"),
        (template(pod=two["spec"]["template"]["spec"], meta={"annotations": {DEFAULT_CONTAINER: "c"}}), "", "a"),
    ):  # fmt: skip
        assert jobtemplate.program_container(found, configured) == name


def test_what_a_job_does_not_take_over_is_said() -> None:
    found = template({"env": [{"name": ENV_CLEAN_UP, "value": "true"}]}, {"restartPolicy": "OnFailure"}, completions=3,
                     parallelism=2, podFailurePolicy={"rules": ["x" * 60]})  # fmt: skip
    spec = "spec.jobTemplate.spec"
    assert jobtemplate.changes(found) == [
        f"{spec}.completions is 3: {BY_PATH['spec.completions'].why}",
        f"{spec}.parallelism is 2: {BY_PATH['spec.parallelism'].why}",
        f"{spec}.podFailurePolicy is {{'rules': ['{'x' * 45}...: {BY_PATH['spec.podFailurePolicy'].why}",
        f"{POD}.restartPolicy is OnFailure: {BY_PATH['spec.template.spec.restartPolicy'].why}",
        f"{POD}.containers[0].env: {ENV_CLEAN_UP} is set to false: rows are deleted by the plan only",
    ]
    quiet = template({"env": [{"name": "A"}]}, {"restartPolicy": "Never"}, completions=1, parallelism=1)
    assert jobtemplate.changes(quiet) == jobtemplate.changes({}) == []


def test_why_no_job_can_be_made() -> None:
    for cronjob, said in (
        ({}, "CronJob ?: spec.jobTemplate.spec is missing; a Job cannot be made from it"),
        ({"metadata": {"name": "c"}, "spec": {"jobTemplate": {"metadata": {}}}},
         "CronJob c: spec.jobTemplate.spec is missing; a Job cannot be made from it"),
        ({"metadata": {"name": "c"}, "spec": {"jobTemplate": template(parallelism=0, managedBy="x/y")}},
         "CronJob c: spec.jobTemplate.spec.parallelism is 0: the Job would never start a pod;"
         " spec.jobTemplate.spec.managedBy is x/y: another controller makes pods by its own rules"),
    ):  # fmt: skip
        with pytest.raises(JobError) as refused:
            build_job(cronjob, request())
        assert str(refused.value) == said
    for customer in ("", "  ", "a,b", " a", "a "):
        with pytest.raises(JobError) as refused:
            build_job(CRONJOB, request(customer_id=customer))
        assert str(refused.value) == (
            f"customer id {customer!r} cannot be sent in RUN_ONLY_FOR_CUSTOMER_IDS: an empty value means every customer"
            " and a comma means several; give one id"
        )


# -- owner and names ------------------------------------------------------------------------------------------------

ME = Owner("manual__1", "windows.reindex", 3, 2, 1)


def job(owner: str | None = None, **meta: Any) -> Json:
    annotations = {} if owner is None else {ANNOTATION_OWNER: owner}
    return {"metadata": {"name": "j", "uid": "u", "resourceVersion": "7", "annotations": annotations, **meta}}


@pytest.mark.parametrize(
    ("found", "mine", "uid", "why"),
    [
        (None, ME, "", "it does not exist any more"),
        (job(ME.text), ME, "other", "it is another Job of the same name"),
        (job(ME.text, deletionTimestamp="x"), ME, "u", "it is being deleted already"),
        (job(), ME, "u", f"its owner is nobody that is known, not {ME.text}"),
        (job(ME.text), None, "u", f"its owner is {ME.text}, not this one"),
        (job("r/t/0/1/9"), ME, "", f"its owner is r/t/0/1/9, not {ME.text}"),
    ],
)
def test_why_a_job_is_left_alone(found: Json | None, mine: Owner | None, uid: str, why: str) -> None:
    assert may_end(found, mine, uid) == Leave(why)


def test_a_job_is_ended_as_this_very_version_of_it() -> None:
    options = {
        "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
        "preconditions": {"uid": "u", "resourceVersion": "7"},
    }  # fmt: skip
    assert may_end(job(ME.text), ME) == may_end(job(ME.text), ME, "u") == End("j", options)


def test_an_adoption_raises_the_counter_and_a_try_that_is_over_adopts_nothing() -> None:
    def patch(text: str) -> Json:
        return {"metadata": {"resourceVersion": "7", "annotations": {ANNOTATION_OWNER: text}}}

    again = Owner("manual__1", "windows.reindex", 3, 3)
    assert adoption(job(ME.text), again) == patch("manual__1/windows.reindex/3/3/2")
    assert adoption(job(), again) == patch("manual__1/windows.reindex/3/3/1")
    assert adoption(job("other/t/0/9/4"), ME) == patch("manual__1/windows.reindex/3/2/5")
    with pytest.raises(StaleError) as stale:
        adoption(job(ME.text), Owner("manual__1", "windows.reindex", 3, 1))
    assert str(stale.value) == "Job j belongs to try 2 of this task, and this is try 1, which is over: nothing is done"
    for other in (
        Owner("x", "windows.reindex", 3, 1),
        Owner("manual__1", "x", 3, 1),
        Owner("manual__1", "windows.reindex", 4, 1),
    ):
        assert not ME.same_task(other)
        assert adoption(job(ME.text), other)


def test_who_owns_a_job_is_read_from_the_end_of_the_text() -> None:
    assert parse_owner("a/b/windows.reindex/-1/2/3") == Owner("a/b", "windows.reindex", -1, 2, 3)
    for nobody in (None, "", "a/b/c/d/e", "a/1/2/3", "r/t/1/2/x", "r/t/x/2/3"):
        assert parse_owner(nobody) is None
    assert Owner("r", "t", 0, 1).counter == 0


def test_names_keep_what_can_be_kept_and_tell_apart_what_was_changed() -> None:
    assert label_value("a" * 63) == "a" * 63
    long = label_value("a" * 64)
    assert (len(long), long[:54], long[54]) == (63, "a" * 54, "-")
    assert long != label_value("a" * 65)
    assert label_value("acme corp").startswith("acme-corp-")
    assert label_value("-acme").startswith("acme-")
    assert label_value("a" * 53 + "." + "b" * 20).startswith("a" * 53 + "-")
    assert [len(label_value(text)) for text in ("", "é", "--")] == [8, 8, 8]
    assert dns_slug("A--b__c", 4) == "a-b"
    assert job_name(key="k", customer_id="é", start="2026-01-01", attempt=1) == "reindex-20260101-k-a1"
    with pytest.raises(ValueError, match=r"^attempt must be 1 or more, not 0$"):
        job_name(key="k", customer_id="a", start="2026-01-01", attempt=0)
    parts = {"cluster": "c", "run_id": "r", "customer_id": "a", "start": "s", "end": "e"}
    keys = {window_key(**parts), window_key(**parts, plan="p"), *(window_key(**parts | {name: "x"}) for name in parts)}
    assert len(keys) == 7
    assert all(len(key) == 16 for key in keys)


# -- parameters -----------------------------------------------------------------------------------------------------

NOW = datetime(2026, 3, 4, 6, tzinfo=UTC)


def refused(run_type: str = "manual", run_after: datetime = NOW, **sent: Any) -> list[str]:
    given = {"customers": ["acme"], "start_date": "2026-01-01", "end_date": "2026-02-01"} | sent
    with pytest.raises(ParamsError) as caught:
        effective(
            RunParams.read(given),
            run_type=run_type,
            run_after=run_after,
            cluster=ClusterConfig(name="demo"),
            given=given,
        )
    return list(caught.value.problems)


def test_why_parameters_are_refused() -> None:
    assert refused("backfill") == [
        "run_type: 'backfill' (Airflow's own) is not supported, as its parameters may be an older run's; trigger the"
        " DAG"
        " with start_date and end_date instead."
    ]
    assert refused("odd") == [
        "run_type: 'odd' is not one of manual, scheduled, operator_triggered, asset_triggered, asset_materialization;"
        " trigger the DAG by hand."
    ]
    assert refused(all_customers=True) == [
        "customers: ['acme'] are named and all_customers is true; empty customers, or set all_customers to false."
    ]
    assert refused(customers=[]) == [
        "customers: is empty and all_customers is false, so nobody is chosen; name customers, or set all_customers to"
        " true"
        " for everybody."
    ]
    assert refused(customers=["a", "b", "a", " c"]) == [
        "customers: 'a' is named twice (place 3); name it once.",
        "customers: ' c' (place 4) has blanks around it; write 'c'.",
    ]
    assert refused(order="reindex_first") == [
        "order: 'reindex_first' is not allowed by the file of demo; it allows delete_first."
    ]
    assert refused(run_after=datetime(2026, 3, 4)) == [
        "run_after: 2026-03-04T00:00:00 has no time zone; give an aware datetime."
    ]
    assert refused(end_date=None) == [
        "end_date: is empty, but start_date is '2026-01-01'; give both as YYYY-MM-DD, or neither for the previous"
        " month."
    ]
    assert refused(start_date=None) == [
        "start_date: is empty, but end_date is '2026-02-01'; give both as YYYY-MM-DD, or neither for the previous"
        " month."
    ]
    assert refused(start_date="x", end_date="y") == [
        f"{name}: {text!r} is not a date; write it as YYYY-MM-DD, for example '2026-02-01'."
        for name, text in (("start_date", "x"), ("end_date", "y"))
    ]
    assert refused(end_date="2026-01-01") == [
        "end_date: 2026-01-01 is not after start_date 2026-01-01; end_date is exclusive, one day ends on the next."
    ]
    assert refused(start_date="2020-01-01") == [
        f"start_date: 2020-01-01..2026-02-01 has 2223 days; a run takes at most {MAX_RANGE_DAYS}, do it in several"
        " runs."
    ]


def test_where_each_parameter_came_from() -> None:
    def sources(run_type: str = "manual", **sent: Any) -> dict[str, str]:
        params = RunParams.read({"customers": ["acme"], **sent})
        cluster = ClusterConfig(name="demo")
        return dict(effective(params, run_type=run_type, run_after=NOW, cluster=cluster, given=sent).sources)

    empty = sources(mode="cleanup", customers=["acme"])
    assert empty | {} == {
        **dict.fromkeys(empty, "default"), "mode": "form", "customers": "form", "order": "cluster", "window": "cluster",
        "max_parallel": "cluster", "max_failures": "cluster",
    }  # fmt: skip
    dates = sources(mode="cleanup", start_date="2026-01-01", end_date="2026-02-01")
    assert (dates["start_date"], dates["end_date"]) == ("form", "form")
    assert (
        sources(mode="cleanup", dry_run=True)["require_approval"]
        == sources(mode="reindex")["require_approval"]
        == "mode"
    )
    emptied = sources(mode="cleanup", start_date="", end_date="")
    assert (emptied["start_date"], emptied["end_date"]) == ("default", "default")
    due = sources("scheduled")
    assert {name for name, source in due.items() if source == "schedule"} >= {
        "customers", "all_customers", "start_date", "end_date", "mode",
    }  # fmt: skip
