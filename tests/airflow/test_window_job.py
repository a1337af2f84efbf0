"""What a worker does when a wait wakes it, and that a settled window is left alone by every stage."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from backfill.deleting.sender import DeleteSender
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.hooks.kubernetes import KubeCallError, KubernetesJobs
from backfill.kit.stages import StageError, limit
from backfill.kit.store import COUNTED, FAILED, WindowStore
from backfill.kit.wait import DEADLINE_MARGIN_SECONDS
from backfill.operators import wait_mutations
from backfill.operators.admit import AdmitOperator
from backfill.operators.delete import DeleteOperator
from backfill.operators.reindex import ReindexOperator
from backfill.operators.verify import VerifyOperator
from backfill.operators.wait_mutations import WaitMutationsOperator
from backfill.operators.wait_workflows import WaitWorkflowsOperator
from backfill.reindexing import gate, jobmaker, window_job
from backfill.triggers.job import JobTrigger
from backfill.triggers.mutations import MutationsTrigger
from backfill.triggers.quiet import QuietTrigger
from backfill.triggers.verify import VerifyTrigger
from backfill.triggers.workflows import ClosedTrigger, WorkflowsTrigger
from include.scorecard_backfill import names
from include.scorecard_backfill.ownership import ANNOTATION_OWNER, Owner, StaleError
from include.scorecard_backfill.records import (
    ClosedEvent,
    Counted,
    FailEvent,
    Failure,
    JobEvent,
    Reindexed,
    ReindexEvent,
    ResendEvent,
    WorkflowsClosed,
)
from include.scorecard_backfill.verdicts.causes import what_to_do
from tests.kit.store import AssetState
from tests.kit.waits import KEY, NAME, VERIFIED, assets, cluster, context, deferral, deleted, window

__all__ = ["assets", "cluster"]

Json = dict[str, Any]
Xcoms = dict[tuple[str, str], Any]

RUN: Json = {"max_parallel": 4, "sources": {}}
CLOSED = WorkflowsClosed(key=KEY, status="completed", attempt=3, workflow_ids=("w-1",))

SETTLED: dict[str, Xcoms] = {
    "verified": {("windows.verify", "return_value"): {0: json.dumps(json.dumps(VERIFIED.to_json()))}},
    "cut": {("replan", "cut"): [KEY]},
}
STOOD_STILL = Failure(key=KEY, stage="wait_workflows", cause="deadline", reason="12 parts", what_to_do="Look at it.")
FAILED_ONCE = Failure(key=KEY, stage="reindex", cause="job_failed", reason="r", attempt=1)
AGAIN = ReindexEvent(window=window(), attempt=1)


def operator(stage: str) -> Any:
    """A stage's operator, as the DAG file makes it."""
    if stage == "delete":
        return DeleteOperator(task_id="delete", cluster=NAME, window=window().to_json())
    if stage == "reindex":
        return ReindexOperator(task_id="reindex", cluster=NAME, window=window().to_json())
    classes: Json = {"wait_mutations": WaitMutationsOperator, "wait_workflows": WaitWorkflowsOperator}
    return (classes | {"verify": VerifyOperator})[stage](task_id=stage, cluster=NAME, group="windows")


def job_event(**fields: Any) -> JobEvent:
    """The end of the Job of attempt 2."""
    made = JobEvent(key=KEY, job_name="reindex-a2", attempt=2, made_at=1.0, outcome="complete", workflow_ids=("w-2",))
    return made.model_copy(update=fields)


@pytest.fixture
def no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every way to a server."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a server was asked")

    monkeypatch.setattr(BackfillClickHouse, "__init__", refuse)
    monkeypatch.setattr(KubernetesJobs, "for_worker", refuse)
    monkeypatch.setattr(window_job, "TemporalHook", refuse)


@pytest.mark.parametrize(
    ("stage", "how"),
    [*((s, h) for s in ("delete", "reindex", "wait_mutations", "wait_workflows") for h in SETTLED), ("verify", "cut")],
)
def test_a_cleared_window_that_is_settled_is_left_alone(stage: str, how: str, cluster: str, no_servers: None) -> None:
    made, task = operator(stage), context(f"windows.{stage}", dict(SETTLED[how]))
    resend = ResendEvent(deleted=deleted(), generation=2).to_json()
    events: Json = {"wait_mutations": resend, "wait_workflows": AGAIN.to_json(), "verify": AGAIN.to_json()}
    result = made.resume(task, event=events[stage]) if stage in events else made.execute(task)
    assert (result["key"], result["status"]) == (KEY, how)


def test_what_another_window_has_reached_settles_nothing(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(window_job.WindowJob, "ensure", lambda self, ctx, window, *_: asked.append(window.key))
    another = VERIFIED.model_copy(update={"key": "another"})
    others: Xcoms = {
        ("windows.verify", "return_value"): {0: another.to_json(), 1: VERIFIED.to_json()},
        ("replan", "cut"): ["another"],
    }
    operator("reindex").execute(context("windows.reindex", others))
    assert asked == [KEY]


@pytest.mark.parametrize("stage", ["reindex", "wait_workflows", "verify"])
def test_a_failure_is_final_and_leaves_its_record(stage: str, cluster: str) -> None:
    task = context(f"windows.{stage}")
    with pytest.raises(AirflowFailException, match=r"deadline: 12 parts\nLook at it\."):
        operator(stage).resume(task, event=FailEvent(failure=STOOD_STILL).to_json())
    kept = STOOD_STILL.model_copy(update={"stage": stage})
    assert Failure.from_json(task["ti"].xcoms[f"windows.{stage}", "return_value"]) == kept
    assert Failure.from_json(WindowStore(task, window()).get(FAILED)) == kept


@pytest.mark.parametrize("event", [None, {}, {"kind": "dance"}, {"status": "error", "message": "trigger timeout"}])
@pytest.mark.parametrize("stage", ["wait_mutations", "reindex", "wait_workflows", "verify"])
def test_an_event_that_nobody_knows_is_no_success(stage: str, event: Any, cluster: str) -> None:
    with pytest.raises((AirflowFailException, ValueError), match="an event is wanted"):
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
        self.refused: KubeCallError | StaleError | None = None

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
        if self.refused:
            raise self.refused
        return list(self.stored.values())

    async def pods(self, selector: str = "") -> list[Json]:
        """No pod of an earlier attempt still ends."""
        return []

    async def cronjob(self) -> Json:
        """The CronJob."""
        return {}

    async def adopt_job(self, name: str, owner: Owner) -> Json:
        """Its owner is changed."""
        self.stored[name]["metadata"]["annotations"] = {ANNOTATION_OWNER: owner.text}
        return self.stored[name]

    async def create_job(self, manifest: Json) -> Json:
        """Store a new one."""
        self.created.append(manifest["metadata"]["name"])
        return self.add(manifest["attempt"])


class Temporal:
    """Stands for a Temporal with these open workflows of the window."""

    def __init__(self, *_: Any) -> None:
        """Whatever the product's classes take."""

    async def connect(self, namespace: str) -> Temporal:
        """A client."""
        return self

    def open_query(self) -> str:
        """Of the open workflows."""
        return ""

    async def list_ids(self, query: str) -> list[str]:
        """None is open."""
        return []


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
    monkeypatch.setattr(gate, "open_of_window", none_open)
    monkeypatch.setattr(window_job, "TemporalHook", Temporal)
    monkeypatch.setattr(window_job, "Workflows", Temporal)
    monkeypatch.setattr(window_job, "override_text", lambda cluster: None)
    return made


def running(stage: str, xcoms: Xcoms | None = None) -> Json:
    """A task of a run whose plan is this one window."""
    plan: Xcoms = {("plan", "return_value"): [window().to_json()], ("plan", "run"): dict(RUN)}
    task = context(f"windows.{stage}", plan | (xcoms or {}))
    task["ti"].get_task_states = lambda **_: {}
    return task


@pytest.mark.parametrize("stage", ["wait_workflows", "verify"])
def test_a_cleared_failure_makes_the_job_of_the_next_attempt_and_waits_again(
    stage: str, cluster: str, jobs: Jobs
) -> None:
    jobs.add(1, "Complete")
    task = running(stage)
    found = deferral(operator(stage).resume, task, event=AGAIN.to_json())
    assert jobs.created == ["reindex-a2"]
    assert isinstance(found.trigger, JobTrigger)
    assert (found.trigger.given["attempt"], found.method_name) == (2, "resume")
    # Another process goes on, with nothing but what the database kept.
    kept = json.loads(json.dumps(found.kwargs))
    waiting = deferral(operator(stage).resume, task, event=job_event().to_json(), **kept)
    assert type(waiting.trigger) is (ClosedTrigger if stage == "verify" else WorkflowsTrigger)
    assert waiting.trigger.given["reindexed"]["workflow_ids"] == ["w-2"]
    assert waiting.method_name == "resume"


def test_a_good_end_is_the_record_that_the_next_stage_works_by(cluster: str, jobs: Jobs) -> None:
    found = deferral(operator("reindex").execute, running("reindex"))
    result = operator("reindex").resume(running("reindex"), event=job_event().to_json(), **(found.kwargs or {}))
    assert (result["kind"], result["attempt"], result["workflow_ids"]) == ("reindexed", 2, ["w-2"])
    assert result["window"]["key"] == KEY


def test_the_reindex_task_hands_its_result_to_the_trigger_and_a_later_stage_does_not(cluster: str, jobs: Jobs) -> None:
    task, counted = running("reindex"), Counted(key=KEY, now=(), before=(), server_time=7.0)
    WindowStore(task, window()).set(COUNTED, counted.to_json())
    given = deferral(operator("reindex").execute, task).trigger.given
    record = Reindexed.from_json(json.loads(json.dumps(given["reindexed"])))
    assert (record.key, record.window.key, record.status, record.attempt) == (KEY, KEY, "reindexed", 1)
    assert (record.job_name, record.job_uid, record.made_at) == ("reindex-a1", "reindex-a1", given["made_at"])
    assert record.counted == counted
    again = deferral(operator("wait_workflows").resume, running("wait_workflows"), event=AGAIN.to_json())
    assert again.trigger.given["reindexed"] is None


def test_no_job_is_made_beside_open_workflows_of_an_earlier_attempt(
    cluster: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one_open(*args: Any) -> list[str]:
        return ["w-1"]

    jobs.add(1, "Failed")
    monkeypatch.setattr(gate, "open_of_window", one_open)
    task = running("reindex")
    WindowStore(task, window()).set(FAILED, FAILED_ONCE.to_json())
    found = deferral(operator("reindex").execute, task)
    assert isinstance(found.trigger, QuietTrigger)
    assert jobs.created == []


@pytest.mark.parametrize("stage", ["wait_workflows", "verify"])
def test_a_job_that_a_killed_worker_had_made_is_adopted_and_not_made_twice(
    stage: str, cluster: str, jobs: Jobs
) -> None:
    jobs.add(1, "Complete")
    deferral(operator(stage).resume, running(stage), event=AGAIN.to_json())
    # The worker died before Airflow knew that it had deferred: the same event again.
    again = deferral(operator(stage).resume, running(stage), event=AGAIN.to_json())
    assert jobs.created == ["reindex-a2"]
    assert again.trigger.given["job_name"] == "reindex-a2"


def test_verify_counts_again_after_the_workflows_of_its_own_reindex(cluster: str) -> None:
    event = ClosedEvent(closed=CLOSED).to_json()
    found = deferral(operator("verify").resume, context("windows.verify"), event=event)
    assert isinstance(found.trigger, VerifyTrigger)
    assert found.trigger.given["attempt"] == 3
    assert found.trigger.given["workflow_ids"] == list(CLOSED.workflow_ids) != []


def test_a_cleared_wait_for_mutations_sends_the_next_generation_and_waits_for_it(
    cluster: str, assets: AssetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[Any] = []

    def send(self: DeleteSender, ctx: Any, order: Any) -> Any:
        orders.append(order)
        return deleted().sent

    monkeypatch.setattr(DeleteSender, "send", send)
    monkeypatch.setattr(wait_mutations, "approval", lambda *_: ("same", ""))
    task = context("windows.wait_mutations", params={"overlap": True})
    event = ResendEvent(deleted=deleted(), generation=2).to_json()
    found = deferral(operator("wait_mutations").resume, task, event=event)
    # What came back since must not be taken with the partition.
    assert [(order.generation, order.drop) for order in orders] == [(2, False)]
    assert isinstance(found.trigger, MutationsTrigger)
    assert found.trigger.given["deleted"]["generation"] == 2
    assert found.timeout is not None


@pytest.mark.parametrize("stage", ["wait_mutations", "wait_workflows", "verify"])
def test_airflows_own_time_out_comes_after_the_deadline_of_the_wait(stage: str, cluster: str) -> None:
    assert limit(100).total_seconds() == 100 + DEADLINE_MARGIN_SECONDS
    args = operator(stage).start_trigger_args
    assert args.timeout.total_seconds() > DEADLINE_MARGIN_SECONDS
    assert args.next_method == "resume"


def test_waiting_for_a_slot_has_no_deadline(cluster: str) -> None:
    made = AdmitOperator(task_id="admit", cluster=NAME, group="windows")
    assert made.start_trigger_args is not None
    assert made.start_trigger_args.timeout is None


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"outcome": "failed", "log_tail": ("ERROR: deadlock detected (SQLSTATE 40P01)",)}, "tried again"),
        ({"outcome": "unknown", "cause": "outage"}, "looks at the Job's real state"),
    ],
)
def test_a_job_failure_that_a_repetition_may_cure_is_left_to_airflows_retries(
    event: Json, text: str, cluster: str, jobs: Jobs
) -> None:
    ended = job_event(message="m", **event).to_json()
    with pytest.raises(StageError, match=text) as failed:
        operator("reindex").resume(running("reindex"), event=ended, window=window().to_json())
    assert not isinstance(failed.value, AirflowFailException)


@pytest.mark.parametrize(("outcome", "cause"), [("gone", "job_gone"), ("refused", "access_denied"), ("failed", "x")])
def test_a_job_failure_for_good_leaves_its_record_and_says_the_remedy_on_a_line_of_its_own(
    outcome: str, cause: str, cluster: str, jobs: Jobs
) -> None:
    task = running("reindex")
    ended = job_event(outcome=outcome, cause=cause, message="why", do="do this").to_json()
    with pytest.raises(AirflowFailException, match=rf"{cause}: Job reindex-a2: why\nDo this\."):
        operator("reindex").resume(task, event=ended, window=window().to_json())
    left = Failure.from_json(task["ti"].xcoms["windows.reindex", "return_value"])
    assert (left.cause, left.attempt, left.what_to_do) == (cause, 2, "Do this.")


def test_a_job_failure_without_a_remedy_of_its_own_says_that_of_its_cause(cluster: str, jobs: Jobs) -> None:
    ended = job_event(outcome="gone", cause="job_gone", message="why").to_json()
    task = running("reindex")
    with pytest.raises(AirflowFailException) as failed:
        operator("reindex").resume(task, event=ended, window=window().to_json())
    assert str(failed.value).endswith(f"\n{what_to_do('job_gone')}")
    assert Failure.from_json(task["ti"].xcoms["windows.reindex", "return_value"]).what_to_do == what_to_do("job_gone")


def test_a_cleared_reindex_makes_a_new_attempt_after_a_failure_for_good(cluster: str, jobs: Jobs) -> None:
    jobs.add(1, "Complete")
    task = running("reindex")
    adopted = deferral(operator("reindex").execute, task)
    assert (adopted.trigger.given["attempt"], jobs.created) == (1, [])
    WindowStore(task, window()).set(FAILED, FAILED_ONCE.to_json())
    deferral(operator("reindex").execute, task)
    assert jobs.created == ["reindex-a2"]


def test_an_attempt_whose_workflows_were_judged_is_not_adopted(cluster: str, jobs: Jobs) -> None:
    jobs.add(1, "Complete")
    judged = WorkflowsClosed(key=KEY, status="completed", attempt=1).to_json()
    deferral(operator("reindex").execute, running("reindex", {("windows.wait_workflows", "return_value"): {0: judged}}))
    assert jobs.created == ["reindex-a2"]


@pytest.mark.parametrize(
    ("status", "detail", "cause"),
    [(403, "cannot list", "access_denied"), (404, "no such namespace", "job_refused")],
)
def test_a_refusal_that_a_person_must_mend_is_final(
    status: int, detail: str, cause: str, cluster: str, jobs: Jobs
) -> None:
    jobs.refused = KubeCallError(f"cannot list jobs: {status}", status, "Forbidden", detail)
    with pytest.raises(AirflowFailException, match=f"{cause}: cannot list jobs: {status}"):
        operator("reindex").execute(running("reindex"))


def test_a_try_that_a_later_one_has_overtaken_makes_no_job(cluster: str, jobs: Jobs) -> None:
    jobs.refused = StaleError("a later try owns it")
    with pytest.raises(AirflowFailException, match="stale_try: a later try owns it"):
        operator("reindex").execute(running("reindex"))
    assert jobs.created == []


def test_what_passes_is_left_to_airflows_retries(cluster: str, jobs: Jobs) -> None:
    jobs.refused = KubeCallError("cannot list jobs: 503", 503, "ServiceUnavailable", "")
    with pytest.raises(KubeCallError):
        operator("reindex").execute(running("reindex"))


def test_two_live_jobs_are_for_a_person(cluster: str, jobs: Jobs) -> None:
    jobs.add(1)
    jobs.add(2)
    with pytest.raises(AirflowFailException, match=r"two_live_jobs: .*reindex-a1, reindex-a2"):
        operator("reindex").execute(running("reindex"))


def test_a_job_that_is_being_deleted_is_not_adopted(cluster: str, jobs: Jobs) -> None:
    jobs.add(1)["metadata"]["deletionTimestamp"] = "2026-02-01T00:00:00Z"
    deferral(operator("reindex").execute, running("reindex"))
    assert jobs.created == ["reindex-a2"]


def test_a_window_that_is_not_in_the_plan_makes_no_job(cluster: str, jobs: Jobs) -> None:
    task = running("reindex")
    task["ti"].xcoms["plan", "return_value"] = [window(key="another").to_json()]
    with pytest.raises(AirflowFailException, match="is not in the plan of this run"):
        operator("reindex").execute(task)
    assert jobs.created == []


@pytest.mark.parametrize("stage", ["reindex", "wait_workflows", "verify"])
def test_a_person_who_ends_a_worker_ends_its_own_job_only(
    stage: str, cluster: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[str, Owner | None]] = []

    async def end_job(name: str, mine: Owner | None, uid: str = "") -> Any:
        ended.append((name, mine))
        return SimpleNamespace(why="it is a test")

    monkeypatch.setattr(jobs, "end_job", end_job, raising=False)
    task, made = running(stage), operator(stage)
    if stage == "reindex":
        deferral(made.execute, task)
    else:
        deferral(made.resume, task, event=AGAIN.to_json())
    for module in ("operators.reindex", "reindexing.again"):
        monkeypatch.setattr(f"backfill.{module}.get_current_context", lambda: task)
    mine = Owner(task["ti"].run_id, f"windows.{stage}", 0, 1, 7)
    (stored,) = jobs.stored.values()
    stored["metadata"]["annotations"] = {ANNOTATION_OWNER: mine.text}
    monkeypatch.setattr(window_job, "person_ended_worker_task", lambda *_: False)
    made.on_kill()
    assert ended == []
    monkeypatch.setattr(window_job, "person_ended_worker_task", lambda *_: True)
    made.on_kill()
    stored["metadata"]["annotations"] = {ANNOTATION_OWNER: Owner(mine.run_id, mine.task_id, 0, 2, 8).text}
    made.on_kill()
    assert ended == [(stored["metadata"]["name"], mine), (stored["metadata"]["name"], None)]


@pytest.mark.parametrize("stage", ["wait_workflows", "verify"])
def test_a_worker_that_has_no_window_yet_has_no_job_to_end(stage: str, cluster: str, no_servers: None) -> None:
    operator(stage).on_kill()
