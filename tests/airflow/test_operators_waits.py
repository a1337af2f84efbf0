"""What a worker does when a wait wakes it, and that a settled window is left alone by every stage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from backfill import jobmaker
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.hooks.kubernetes import KubernetesJobs
from backfill.operators import reindex as reindex_module
from backfill.operators.common import RunStore, StageError
from backfill.operators.delete import DeleteOperator, SendsDeletes
from backfill.operators.reindex import ReindexOperator
from backfill.operators.waits import (
    AdmitOperator,
    VerifyOperator,
    WaitMutationsOperator,
    WaitWorkflowsOperator,
    limit,
)
from backfill.triggers.base import DEADLINE_MARGIN_SECONDS
from backfill.triggers.job import JobTrigger
from backfill.triggers.mutations import MutationsTrigger
from backfill.triggers.quiet import QuietTrigger
from backfill.triggers.verify import VerifyTrigger
from backfill.triggers.workflows import WorkflowsTrigger
from include.scorecard_backfill import names
from include.scorecard_backfill.ownership import ANNOTATION_OWNER
from tests.kit.waits import (
    KEY,
    NAME,
    VERIFIED,
    cluster,
    context,
    deferral,
    deleted,
    window,
)

__all__ = ["cluster"]

Json = dict[str, Any]
Xcoms = dict[tuple[str, str], Any]

SETTLED: dict[str, Xcoms] = {
    "verified": {("windows.verify", "return_value"): {0: json.dumps(json.dumps(VERIFIED))}},
    "cut": {("replan", "cut"): [KEY]},
}
FAIL: Json = {"action": "fail", "record": {"key": KEY, "status": "failed", "cause": "stalled", "reason": "12 parts"}}


def operator(stage: str) -> Any:
    """A stage's operator, as the DAG file makes it."""
    if stage == "delete":
        return DeleteOperator(task_id="delete", cluster=NAME, window=window())
    if stage == "reindex":
        return ReindexOperator(task_id="reindex", cluster=NAME, window=window())
    classes: Json = {"wait_mutations": WaitMutationsOperator, "wait_workflows": WaitWorkflowsOperator}
    return (classes | {"verify": VerifyOperator})[stage](task_id=stage, cluster=NAME, group="windows")


@pytest.fixture
def no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every way to a server."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a server was asked")

    monkeypatch.setattr(BackfillClickHouse, "__init__", refuse)
    monkeypatch.setattr(KubernetesJobs, "for_worker", refuse)
    monkeypatch.setattr(reindex_module, "TemporalHook", refuse)


@pytest.mark.parametrize("how", SETTLED)
@pytest.mark.parametrize("stage", ["delete", "reindex", "wait_mutations", "wait_workflows", "verify"])
def test_a_cleared_window_that_is_settled_is_left_alone(stage: str, how: str, cluster: str, no_servers: None) -> None:
    made, task = operator(stage), context(f"windows.{stage}", dict(SETTLED[how]))
    events: Json = {
        "wait_mutations": {"action": "resend", "deleted": deleted()},
        "wait_workflows": {"action": "reindex", "window": window(), "attempt": 1},
        "verify": {"action": "reindex", "window": window(), "attempt": 1},
    }
    result = made.resume(task, event=events[stage]) if stage in events else made.execute(task)
    assert (result["key"], result["status"]) == (KEY, how)


def test_a_delete_that_is_left_alone_keeps_the_counts_before(cluster: str, no_servers: None) -> None:
    task = context("windows.delete", dict(SETTLED["verified"]))
    RunStore(task).set("before", deleted()["before"])
    result = operator("delete").execute(task)
    assert result["rows_before"] == {"scorecard": 100}
    assert result["sent"] == []


def test_what_another_window_has_reached_settles_nothing(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ReindexOperator, "ensure_job", lambda self, ctx, window, *_: asked.append(window["key"]))
    others: Xcoms = {
        ("windows.verify", "return_value"): {0: VERIFIED | {"key": "another"}, 1: VERIFIED},
        ("replan", "cut"): ["another"],
    }
    operator("reindex").execute(context("windows.reindex", others))
    assert asked == [KEY]


@pytest.mark.parametrize("stage", ["wait_mutations", "wait_workflows", "verify"])
def test_a_failure_is_final_and_leaves_its_record(stage: str, cluster: str) -> None:
    task = context(f"windows.{stage}")
    with pytest.raises(AirflowFailException, match=r"stalled: 12 parts\. Clear this task for a new try"):
        operator(stage).resume(task, event=FAIL)
    assert task["ti"].xcoms[f"windows.{stage}", "return_value"] == FAIL["record"]


@pytest.mark.parametrize("event", [None, {}, {"action": "dance"}, {"status": "error", "message": "trigger timeout"}])
@pytest.mark.parametrize("stage", ["wait_mutations", "wait_workflows", "verify"])
def test_an_event_that_nobody_knows_is_no_success(stage: str, event: Any, cluster: str) -> None:
    with pytest.raises(AirflowFailException, match="unexpected event"):
        operator(stage).resume(context(f"windows.{stage}"), event=event)


@pytest.mark.parametrize("stage", ["wait_mutations", "wait_workflows", "verify"])
def test_a_wait_does_not_run_on_a_worker(stage: str, cluster: str) -> None:
    with pytest.raises(AirflowFailException, match="runs in the triggerer only"):
        operator(stage).execute(context(f"windows.{stage}"))


class Jobs:
    """Stands for the Kubernetes API: Jobs by name."""

    def __init__(self) -> None:
        self.stored: dict[str, Json] = {}
        self.created: list[str] = []

    def __call__(self, config: Any) -> Jobs:
        self.config = config.kubernetes
        return self

    def add(self, attempt: int, condition: str = "") -> Json:
        """Store a Job of the window."""
        labels = {names.LABEL_WINDOW: KEY, names.LABEL_ATTEMPT: str(attempt)}
        conditions = [{"type": condition, "status": "True"}] if condition else []
        name = f"reindex-a{attempt}"
        metadata = {"name": name, "uid": name, "labels": labels, "creationTimestamp": "2026-02-01T00:00:00Z"}
        self.stored[name] = {"metadata": metadata, "status": {"conditions": conditions}}
        return self.stored[name]

    async def jobs(self, selector: str = "") -> list[Json]:
        """All Jobs."""
        return list(self.stored.values())

    async def pods(self, selector: str = "") -> list[Json]:
        """No pod of an earlier attempt still ends."""
        return []

    async def cronjob(self) -> Json:
        """The CronJob."""
        return {}

    async def adopt_job(self, name: str, owner: Any) -> Json:
        """Its owner is changed."""
        self.stored[name]["metadata"]["annotations"] = {ANNOTATION_OWNER: owner.text}
        return self.stored[name]

    async def create_job(self, manifest: Json) -> Json:
        """Store a new one."""
        self.created.append(manifest["metadata"]["name"])
        return self.add(manifest["attempt"])


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """A Kubernetes API without Jobs, and a Temporal without open workflows."""
    made = Jobs()

    async def none_open(*args: Any) -> list[str]:
        return []

    def manifest(cronjob: Json, request: Any) -> Json:
        return {"metadata": {"name": f"reindex-a{request.attempt}"}, "attempt": request.attempt}

    monkeypatch.setattr(KubernetesJobs, "for_worker", made)
    monkeypatch.setattr(jobmaker, "build_job", manifest)
    monkeypatch.setattr(jobmaker, "changed_window", lambda job, request: [])
    monkeypatch.setattr(reindex_module, "open_since", none_open)
    monkeypatch.setattr(reindex_module, "open_ids", none_open)
    monkeypatch.setattr(reindex_module, "override_text", lambda cluster: None)
    return made


def running(stage: str, xcoms: Xcoms | None = None) -> Json:
    """A task of a run whose plan is this one window."""
    plan: Xcoms = {("plan", "return_value"): [window()], ("plan", "run"): {"max_parallel": 4, "sources": {}}}
    task = context(f"windows.{stage}", plan | (xcoms or {}))
    task["ti"].get_task_states = lambda **_: {}
    return task


@pytest.mark.parametrize("stage", ["wait_workflows", "verify"])
def test_a_cleared_failure_makes_the_job_of_the_next_attempt_and_waits_again(
    stage: str, cluster: str, jobs: Jobs
) -> None:
    jobs.add(1, "Complete")
    made, task = operator(stage), running(stage)
    found = deferral(made.resume, task, event={"action": "reindex", "window": window(), "attempt": 1})
    assert jobs.created == ["reindex-a2"]
    assert isinstance(found.trigger, JobTrigger)
    assert (found.trigger.attempt, found.method_name) == (2, "job_ended")

    ended: Json = {"key": KEY, "outcome": "complete", "attempt": 2, "job_name": "reindex-a2", "workflow_ids": ["w-2"]}
    waiting = deferral(made.job_ended, task, event=ended, window=window())
    assert isinstance(waiting.trigger, WorkflowsTrigger)
    assert waiting.trigger.reindexed["workflow_ids"] == ["w-2"]
    assert waiting.trigger.then == ("verify" if stage == "verify" else "")
    assert waiting.method_name == "resume"


def test_no_job_is_made_beside_open_workflows_of_an_earlier_attempt(
    cluster: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one_open(*args: Any) -> list[str]:
        return ["w-1"]

    jobs.add(1, "Failed")
    monkeypatch.setattr(reindex_module, "open_since", one_open)
    found = deferral(operator("reindex").execute, running("reindex"))
    assert isinstance(found.trigger, QuietTrigger)
    assert jobs.created == []


@pytest.mark.parametrize("stage", ["wait_workflows", "verify"])
def test_a_job_that_a_killed_worker_had_made_is_adopted_and_not_made_twice(
    stage: str, cluster: str, jobs: Jobs
) -> None:
    jobs.add(1, "Complete")
    event = {"action": "reindex", "window": window(), "attempt": 1}
    deferral(operator(stage).resume, running(stage), event=event)
    # The worker died before Airflow knew that it had deferred: the same event again.
    again = deferral(operator(stage).resume, running(stage), event=event)
    assert jobs.created == ["reindex-a2"]
    assert again.trigger.job_name == "reindex-a2"


def test_verify_counts_again_after_the_workflows_of_its_own_reindex(cluster: str) -> None:
    task = context("windows.verify", {("windows.delete", "return_value"): {0: json.dumps(deleted())}})
    found = deferral(operator("verify").resume, task, event={"action": "completed", "attempt": 3})
    assert isinstance(found.trigger, VerifyTrigger)
    assert (found.trigger.attempt, found.trigger.deleted["key"]) == (3, KEY)


def test_a_cleared_wait_for_mutations_sends_the_next_generation_and_waits_for_it(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, bool]] = []

    def send_all(self: Any, ctx: Any, window: Json, before: Any, generation: int, *, drop: bool) -> list[Json]:
        calls.append((generation, drop))
        return deleted()["sent"]

    monkeypatch.setattr(SendsDeletes, "send_all", send_all)
    task = context("windows.wait_mutations", params={"overlap": True})
    found = deferral(operator("wait_mutations").resume, task, event={"action": "resend", "deleted": deleted()})
    # What came back since must not be taken with the partition.
    assert calls == [(2, False)]
    assert isinstance(found.trigger, MutationsTrigger)
    assert found.trigger.deleted["generation"] == 2
    assert found.trigger.overlap == "True"
    assert found.timeout is not None


@pytest.mark.parametrize("stage", ["wait_mutations", "wait_workflows", "verify"])
def test_airflows_own_time_out_comes_after_the_deadline_of_the_wait(stage: str, cluster: str) -> None:
    assert limit(100).total_seconds() == 100 + DEADLINE_MARGIN_SECONDS
    args = operator(stage).start_trigger_args
    assert args.timeout.total_seconds() > DEADLINE_MARGIN_SECONDS
    assert args.next_method == "resume"


def test_waiting_for_a_slot_has_no_deadline(cluster: str) -> None:
    made = AdmitOperator(task_id="admit", cluster=NAME, group="windows", dag_id="d")
    assert made.start_trigger_args is not None
    assert made.start_trigger_args.timeout is None


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"outcome": "failed", "log_tail": ["ERROR: deadlock detected (SQLSTATE 40P01)"]}, "tried again"),
        ({"outcome": "unknown", "log_tail": []}, "looks at the Job's real state"),
    ],
)
def test_a_job_failure_that_a_repetition_may_cure_is_left_to_airflows_retries(
    event: Json, text: str, cluster: str, jobs: Jobs
) -> None:
    whole = {"key": KEY, "job_name": "reindex-a1", "attempt": 1, "cause": "x", "message": "m", **event}
    with pytest.raises(StageError, match=text) as failed:
        operator("reindex").job_ended(running("reindex"), event=whole, window=window())
    assert not isinstance(failed.value, AirflowFailException)


def test_a_window_that_is_not_in_the_plan_makes_no_job(cluster: str, jobs: Jobs) -> None:
    task = running("reindex")
    task["ti"].xcoms["plan", "return_value"] = [window(key="another")]
    with pytest.raises(AirflowFailException, match="is not in the plan of this run"):
        operator("reindex").execute(task)
    assert jobs.created == []
