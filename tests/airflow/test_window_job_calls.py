"""What a worker hands over when it waits for a window's Job, and what the end of a Job makes it do."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from backfill.hooks.kubernetes import KubeCallError
from backfill.kit.stages import StageError
from backfill.kit.store import FAILED, MADE, WindowStore
from backfill.reindexing import again
from backfill.reindexing import window_job as module
from backfill.reindexing.jobmaker import JobMaker
from backfill.reindexing.window_job import JOB_MARGIN_SECONDS, JUDGED
from backfill.settings import cluster_config
from backfill.slots import stage_ids
from backfill.triggers.job import JobTrigger
from backfill.triggers.quiet import QuietTrigger
from backfill.triggers.room import RoomTrigger
from include.scorecard_backfill.job import JobRequest
from include.scorecard_backfill.ownership import ANNOTATION_OWNER, End, Leave, Owner
from include.scorecard_backfill.records import Failure, GoEvent, MadeJob
from include.scorecard_backfill.verdicts.base import failed, ok, wait
from tests.airflow.test_window_job import AGAIN, Jobs, job_event, jobs, operator, running
from tests.kit.waits import KEY, NAME, cluster, configure, deferral, window

__all__ = ["cluster", "jobs"]

Json = dict[str, Any]

CREATED = 1_769_904_000.0
"""Of the Jobs that the stand-in stores."""

LIMITS = {
    "deadline_seconds": 1_000, "queue_timeout_seconds": 200, "outage_seconds": 700, "container": "main",
    "ttl_seconds_after_finished": 3_600, "extra_env": {"LEVEL": "debug"},
}  # fmt: skip


@pytest.fixture
def limits(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that are told from each other, and a clock that stands still at 500."""
    configure(
        tmp_path, monkeypatch, kubernetes=LIMITS, waits={"first_poll_after_seconds": 7},
        temporal={"deadline_seconds": 5_000},
    )  # fmt: skip
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: 500.0))


def behind(seconds: float) -> timedelta:
    """Airflow's own time-out behind a limit."""
    return timedelta(seconds=seconds + JOB_MARGIN_SECONDS)


@pytest.mark.usefixtures("limits")
def test_a_deferred_task_knows_its_very_job(jobs: Jobs) -> None:
    task = running("reindex")
    me = Owner("manual__1", "windows.reindex", 0, 1, 1)
    jobs.add(1)["metadata"]["annotations"] = {ANNOTATION_OWNER: me.text}
    found = deferral(operator("reindex").execute, task)
    assert isinstance(found.trigger, JobTrigger)
    given = found.trigger.given
    assert (given["cluster"], given["key"], given["job_name"], given["uid"]) == (NAME, KEY, "reindex-a1", "reindex-a1")
    # Adopted: the counter says how often it was taken over.
    assert given["owner"] == "manual__1/windows.reindex/0/1/2"
    assert (given["attempt"], given["made_at"], given["not_before"]) == (1, CREATED, 507.0)
    assert (found.method_name, found.kwargs, found.timeout) == (
        "resume", {"window": window().to_json()}, behind(1_900),
    )  # fmt: skip
    kept = MadeJob.from_json(WindowStore(task, window()).get(MADE))
    assert (kept.attempt, kept.made_at) == (1, CREATED)
    assert jobs.created == []


@pytest.mark.usefixtures("limits")
def test_a_job_that_names_no_owner_is_nobodys(jobs: Jobs) -> None:
    jobs.add(1, "Complete")
    assert deferral(operator("reindex").execute, running("reindex")).trigger.given["owner"] == ""


@pytest.mark.usefixtures("limits")
def test_a_job_is_asked_for_with_the_limits_of_the_file(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    async def create(self: Any, request: Any) -> Any:
        asked.append(request)
        return jobs.add(request.attempt)

    monkeypatch.setattr(JobMaker, "create", create)
    deferral(operator("reindex").execute, running("reindex"))
    (request,) = asked
    assert (request.key, request.cluster, request.run_id, request.customer_id) == (KEY, NAME, "manual__1", "acme")
    assert (request.start, request.end, request.attempt) == ("2026-01-01", "2026-02-01", 1)
    assert (request.ttl_seconds, request.deadline_seconds, request.container) == (3_600, 1_000, "main")
    assert request.extra_env == {"LEVEL": "debug"}
    assert request.owner == "manual__1/windows.reindex/0/1/1"


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("stage", ["reindex", "wait_workflows"])
@pytest.mark.parametrize("since", [0.0, 123.0])
def test_a_job_for_which_a_quota_has_no_room_is_waited_for(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, since: float, stage: str
) -> None:
    async def full(manifest: Json) -> Json:
        raise KubeCallError("cannot create", 403, "Forbidden", "exceeded quota: jobs")

    monkeypatch.setattr(jobs, "create_job", full)
    event = GoEvent(key=KEY, why="there is room").to_json()
    kwargs = {"window": window().to_json(), "failed_attempt": 2, "room_since": since}
    found = deferral(operator(stage).resume, running(stage), event=event, **kwargs)
    assert isinstance(found.trigger, RoomTrigger)
    given = found.trigger.given
    assert (given["cluster"], given["key"], given["since"], given["not_before"]) == (NAME, KEY, since or 500.0, 507.0)
    request = given["request"]
    # The trigger makes the same request of it.
    assert asdict(JobRequest(**request)) == request
    assert (request["attempt"], request["extra_env"], request["customer_id"]) == (3, {"LEVEL": "debug"}, "acme")
    assert found.kwargs == kwargs | {"room_since": since or 500.0}
    assert (found.method_name, found.timeout) == ("resume", behind(900))


@pytest.mark.usefixtures("limits")
def test_what_must_end_before_a_new_job_is_waited_for(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*_: Any) -> Any:
        return wait("the CronJob's own Job is running")

    monkeypatch.setattr(module, "may_make_job", busy)
    jobs.add(1, "Failed")
    found = deferral(operator("verify").resume, running("verify"), event=AGAIN.to_json())
    assert isinstance(found.trigger, QuietTrigger)
    given = found.trigger.given
    assert (given["cluster"], given["key"], given["window"]) == (NAME, KEY, window().to_json())
    # Workflows of the attempt before count from its Job on.
    assert (given["since"], given["not_before"]) == (CREATED, 507.0)
    assert found.kwargs == {"window": window().to_json(), "failed_attempt": 1}
    assert (found.method_name, found.timeout) == ("resume", behind(5_000))


@pytest.mark.usefixtures("limits")
def test_a_job_that_may_not_be_made_is_the_windows_failure(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any) -> Any:
        return failed("scheduled_job_running", "it is running")

    monkeypatch.setattr(module, "may_make_job", never)
    task = running("verify")
    with pytest.raises(AirflowFailException, match="scheduled_job_running: it is running"):
        operator("verify").resume(task, event=AGAIN.to_json())
    kept = Failure.from_json(WindowStore(task, window()).get(FAILED))
    assert (kept.stage, kept.attempt) == ("verify", 1)


@pytest.mark.usefixtures("limits")
def test_whether_a_job_may_be_made_is_asked_with_the_facts_of_the_run(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[Any] = []

    class Temporal:
        def __init__(self, *args: Any) -> None:
            self.args = args

        async def connect(self, namespace: str) -> Any:
            connected.append((self.args[0], self.args[1].conn_id, namespace))
            return "client"

        def open_query(self) -> str:
            return "open ones"

        async def list_ids(self, query: str) -> list[str]:
            return [query, str(self.args[0])]

    asked: list[Any] = []

    async def may(config: Any, eyes: Any, ask: Any) -> Any:
        found = await eyes.open_ids(), await eyes.states(), await eyes.override(), await eyes.workflows()
        asked.append((config.name, eyes.jobs, ask, *found))
        return ok("a slot is free")

    monkeypatch.setattr(module, "may_make_job", may)
    monkeypatch.setattr(module, "TemporalHook", Temporal)
    monkeypatch.setattr(module, "Workflows", Temporal)
    monkeypatch.setattr(module, "override_text", lambda name: f"override of {name}")
    states: list[Any] = []
    task = running("reindex")
    task["ti"].xcoms["plan", "run"] = {"max_parallel": 4, "sources": {"max_parallel": "form"}}

    def get_task_states(**asked_for: Any) -> Json:
        states.append(asked_for)
        return {"manual__1": {"windows.reindex_0": "running"}, "another": {}}

    task["ti"].get_task_states = get_task_states
    deferral(operator("reindex").execute, task)
    ((name, client, ask, open_ids, found, override, workflows),) = asked
    assert (name, client, override) == (NAME, jobs, f"override of {NAME}")
    assert open_ids == ["open ones", "client"]
    assert workflows.args[0] == "client"
    assert connected == [(f"temporal_{NAME}", f"temporal_{NAME}", cluster_config(NAME).temporal.namespace)]
    assert found == {"windows.reindex_0": "running"}
    assert states == [{"dag_id": task["ti"].dag_id, "task_ids": stage_ids(), "run_ids": ["manual__1"]}]
    assert (ask.window, ask.since, ask.run.max_parallel) == (window(), 0.0, 4)
    assert [(place.group, place.index, place.window.key) for place in ask.places] == [("windows", 0, KEY)]


def ends(task: Json, **event: Any) -> Exception:
    """The error with which the reindex task ends after this end of its Job."""
    with pytest.raises((AirflowFailException, StageError)) as error:
        operator("reindex").resume(task, event=job_event(**event).to_json(), window=window().to_json())
    return error.value


def test_a_failure_without_a_cause_of_its_own_is_one_of_the_job(cluster: str, jobs: Jobs) -> None:
    task = running("reindex")
    ends(task, outcome="failed", message="it broke")
    kept = Failure.from_json(WindowStore(task, window()).get(FAILED))
    assert (kept.cause, kept.reason, kept.attempt) == ("job_failed", "Job reindex-a2: it broke", 2)
    # A word that is none of the table would have no remedy.
    assert kept.what_to_do
    assert WindowStore(task, window()).get(JUDGED) is None


def test_a_deadlock_is_judged_so_that_its_job_is_not_adopted_again(cluster: str, jobs: Jobs) -> None:
    task = running("reindex")
    error = ends(task, outcome="failed", message="it broke", log_tail=("a", "ERROR: deadlock detected"))
    assert str(error) == "Job reindex-a2: it broke; a database deadlock, tried again"
    assert WindowStore(task, window()).get(JUDGED) == 2
    assert WindowStore(task, window()).get(FAILED) is None
    jobs.add(2, "Failed")
    deferral(operator("reindex").execute, task)
    assert jobs.created == ["reindex-a3"]


@pytest.mark.parametrize(
    ("decided", "said"),
    [(End("reindex-a2", {}), "; the Job was deleted"), (Leave("it is gone"), "; the Job is left alone: it is gone")],
)
def test_a_job_whose_time_is_over_is_ended_by_its_owner(
    cluster: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, decided: Any, said: str
) -> None:
    ended: list[Any] = []

    async def end_job(*args: Any) -> Any:
        ended.append(args)
        return decided

    monkeypatch.setattr(jobs, "end_job", end_job, raising=False)
    owner = Owner("manual__1", "windows.reindex", 0, 1, 1)
    task = running("reindex")
    ends(task, outcome="timeout", cause="job_deadline", message="late", owner=owner.text, uid="u-2", do="look at it")
    kept = Failure.from_json(WindowStore(task, window()).get(FAILED))
    assert (kept.cause, kept.reason, kept.what_to_do) == ("job_deadline", f"Job reindex-a2: late{said}", "Look at it.")
    assert ended == [("reindex-a2", owner, "u-2")]


def test_an_event_of_another_window_is_no_end_of_this_ones_job(cluster: str, jobs: Jobs) -> None:
    event = job_event(key="another").to_json()
    found = deferral(operator("reindex").resume, running("reindex"), event=event, window=window().to_json())
    assert isinstance(found.trigger, JobTrigger)
    assert jobs.created == ["reindex-a1"]


def test_a_good_end_is_recorded_with_everything_that_the_event_tells(cluster: str, jobs: Jobs) -> None:
    event = job_event(uid="u-2", ended_at=9.5, resources={"w-2": "jobs/2"})
    found = operator("reindex").resume(running("reindex"), event=event.to_json(), window=window().to_json())
    assert (found["job_name"], found["job_uid"], found["attempt"]) == ("reindex-a2", "u-2", 2)
    assert (found["made_at"], found["ended_at"], found["status"]) == (1.0, 9.5, "reindexed")
    assert (found["workflow_ids"], found["resources"]) == (["w-2"], {"w-2": "jobs/2"})


@pytest.mark.parametrize("stage", ["wait_workflows", "verify"])
def test_what_comes_behind_a_new_job_is_waited_for_in_its_own_group(
    stage: str, cluster: str, jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, waits={"first_poll_after_seconds": 7})
    monkeypatch.setattr(again, "time", SimpleNamespace(time=lambda: 500.0))
    made = operator(stage)
    made.__dict__["task_id"] = f"smaller_windows.{stage}"
    found = deferral(made.resume, running(stage), event=job_event().to_json(), window=window().to_json())
    given = found.trigger.given
    assert (given["cluster"], given["group"], given["not_before"]) == (NAME, "smaller_windows", 507.0)
    assert given["reindexed"]["attempt"] == 2
    assert found.method_name == "resume"
