"""A Job look by look: what ends its wait, what its pods' lines are worth, and when it is ended for good."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.triggers.base import TriggerEvent

from backfill.hooks.kubernetes import KubeCallError
from backfill.kit.look import Done, Look, Wait, Wake
from backfill.kit.poll import SharedPoll
from backfill.settings import cluster_config
from backfill.triggers import job as module
from backfill.triggers.job import EVENT_LINES, MAX_IDS, TAIL_LINES, JobTrigger
from include.scorecard_backfill.job import ANNOTATION_CONTAINER
from include.scorecard_backfill.ownership import End, Leave, Owner
from include.scorecard_backfill.records import FailEvent, Failure, JobEvent
from include.scorecard_backfill.verdicts import jobwait
from tests.kit.waits import KEY, NAME, cluster, configure, placed, reindexed

__all__ = ["cluster"]

Json = dict[str, Any]

ME = Owner("manual__1", "windows.reindex", 0, 1, 1)
GONE_REMEDY = "Find out who deleted it, then clear this task: it makes a new Job"


NOW = datetime(2026, 3, 2, 7, tzinfo=UTC)


class Clock(datetime):
    """Moved by the test."""

    moment = NOW

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        """Return the moment."""
        assert tz is UTC
        return cls.moment


def ago(seconds: float) -> str:
    """A time of the API."""
    return (NOW - timedelta(seconds=seconds)).isoformat()


def job(*conditions: Json, age: float = 5, **status: Any) -> Json:
    """The Job that is waited for."""
    return {
        "metadata": {
            "name": "reindex-a2", "uid": "u-2", "creationTimestamp": ago(age),
            "annotations": {ANNOTATION_CONTAINER: "reindex"},
        },
        "status": {"conditions": list(conditions), **status},
    }  # fmt: skip


COMPLETE = {"type": "Complete", "status": "True", "reason": "Done", "message": "all pods"}
FAILED = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "a pod failed"}


def pod(name: str = "p-1", phase: str = "Running", **states: Any) -> Json:
    """A pod with the states of its containers."""
    listed = [{"name": container, "image": "i:1", "state": state} for container, state in states.items()]
    return {"metadata": {"name": name, "uid": f"u-{name}"}, "status": {"phase": phase, "containerStatuses": listed}}


RUNS: Json = {"running": {"startedAt": "x"}}
ENDED: Json = {"terminated": {"exitCode": 0}}
NO_IMAGE: Json = {"waiting": {"reason": "ErrImagePull"}}


def created(workflow_id: str) -> str:
    """The line that the program logs for a workflow."""
    return f"Created reindex conversations job: name=jobs/{workflow_id}x, execution_id={workflow_id}, cluster=c"


class Api:
    """Jobs, pods, logs and events as a test tells them; an error is raised."""

    def __init__(self) -> None:
        self.listed: Any = []
        self.alone: Json | None = None
        self.found: Any = []
        self.logs: dict[str, Any] = {}
        self.told: Any = []
        self.ended: list[Any] = []
        self.decided: Any = End("reindex-a2", {})
        self.asked: list[Any] = []

    def _said(self, what: Any, *asked: Any) -> Any:
        self.asked.append(asked)
        if isinstance(what, Exception):
            raise what
        return what

    async def jobs(self, selector: str) -> Any:
        return self._said(self.listed, "jobs", selector)

    async def job(self, name: str) -> Any:
        return self._said(self.alone, "job", name)

    async def pods(self, selector: str) -> Any:
        return self._said(self.found, "pods", selector)

    async def pod_log(self, name: str, container: str) -> Any:
        return self._said(self.logs[name], "log", name, container)

    async def events(self, uid: str) -> Any:
        return self._said(self.told, "events", uid)

    async def end_job(self, *args: Any) -> Any:
        self.ended.append(args)
        return self.decided


@pytest.fixture
def api(cluster: str, monkeypatch: pytest.MonkeyPatch) -> Api:
    """An API without anything; every look asks it afresh."""
    made = Api()
    monkeypatch.setattr(Clock, "moment", NOW)
    monkeypatch.setattr(module, "datetime", Clock)
    monkeypatch.setattr(module, "KubernetesJobs", lambda config: made)
    monkeypatch.setattr(module, "shared_poll", SharedPoll)
    return made


def trigger(**fields: Any) -> JobTrigger:
    """The wait for attempt 2."""
    given: Json = {"cluster": NAME, "key": KEY, "job_name": "reindex-a2", "attempt": 2, "made_at": 7.5, "uid": "u-2",
                   "owner": ME.text}  # fmt: skip
    made: JobTrigger = placed(JobTrigger(**given | fields), "windows.reindex")
    made.args = made.model.model_validate(made.given)
    made.config = cluster_config(NAME)
    return made


def looks(wait: JobTrigger, times: int = 1) -> list[Look]:
    """As many looks one after the other."""

    async def look() -> list[Look]:
        await wait.prepare()
        return [await wait.look() for _ in range(times)]

    return asyncio.run(look())


def look(wait: JobTrigger | None = None) -> Look:
    """One look."""
    return looks(wait or trigger())[0]


def event(found: Look) -> JobEvent:
    """The event that wakes a worker, which names what was waited for."""
    assert isinstance(found, Wake)
    made = found.event
    assert isinstance(made, JobEvent)
    assert found.why == made.message
    assert (made.key, made.job_name, made.attempt, made.uid) == (KEY, "reindex-a2", 2, "u-2")
    assert (made.owner, made.made_at) == (ME.text, 7.5)
    return made


def test_what_is_shown_is_the_job_that_is_waited_for(api: Api) -> None:
    assert trigger().shown() == {"job": "reindex-a2", "attempt": 2}


def test_a_job_that_is_in_no_list_and_does_not_exist_is_gone(api: Api) -> None:
    found = event(look())
    assert (found.outcome, found.cause, found.do) == ("gone", "job_gone", GONE_REMEDY)
    assert found.message == "it does not exist any more (deleted, or its TTL ended)"
    assert api.asked == [("jobs", f"scorecard-backfill/cluster={NAME}"), ("job", "reindex-a2")]


def test_a_job_that_only_its_own_answer_knows_is_waited_for(api: Api) -> None:
    api.listed, api.alone = [job() | {"metadata": {"name": "another"}}], job()
    assert isinstance(look(), Wait)


def test_another_job_of_the_name_is_not_ours(api: Api) -> None:
    other = job()
    other["metadata"]["uid"] = "u-3"
    api.listed = [other]
    found = event(look())
    assert (found.outcome, found.cause, found.message) == ("gone", "job_gone", "another Job has its name now")
    # A wait of an earlier release knows no uid.
    assert isinstance(look(trigger(uid="")), Wait)


def refusal(status: int, detail: str = "no") -> KubeCallError:
    """An error of the API."""
    return KubeCallError(f"cannot: {status}", status, "Forbidden", detail)


def test_a_right_that_is_missing_is_for_a_person_and_what_passes_is_waited_for(api: Api) -> None:
    api.listed = refusal(403)
    found = event(look())
    assert (found.outcome, found.cause, found.message) == ("refused", "access_denied", "cannot: 403")
    assert found.do == "Give this account the right, then clear this task"
    api.listed = refusal(503)
    with pytest.raises(KubeCallError):
        look()


def test_a_good_end_wakes_a_worker_with_what_the_pods_have_printed(api: Api) -> None:
    api.listed = [job(COMPLETE, completionTime="2026-03-02T06:00:00+00:00")]
    api.found = [pod("p-1"), pod("p-2")]
    api.logs = {"p-1": [created("w-1"), "x" * 600], "p-2": []}
    found = event(look())
    assert (found.outcome, found.cause, found.message) == ("complete", "Done", "all pods")
    assert found.ended_at == datetime(2026, 3, 2, 6, tzinfo=UTC).timestamp()
    assert (found.workflow_ids, found.resources) == (("w-1",), {"w-1": "jobs/w-1x"})
    assert found.log_tail == (f"p-1: {created('w-1')}", f"p-1: {'x' * 500}", "p-2: the log is empty")
    assert ("pods", "job-name=reindex-a2") in api.asked
    assert ("log", "p-1", "reindex") in api.asked


def test_a_good_end_without_a_message_is_said_all_the_same(api: Api) -> None:
    api.listed = [job({"type": "Complete", "status": "True"})]
    found = event(look())
    assert found.message == "finished"
    assert found.log_tail == ("the pods are gone, there is no log to read",)


def test_a_good_end_is_the_stages_result_where_nothing_else_is_to_be_done(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.listed = [job(COMPLETE, completionTime="2026-03-02T06:00:00+00:00")]
    api.found, api.logs = [pod()], {"p-1": [created("w-1"), created("w-2")]}
    wait = trigger(reindexed=reindexed(2).to_json())
    said: list[str] = []
    monkeypatch.setattr(wait.log, "info", lambda text, *args: said.append(text % args))
    found = look(wait)
    assert isinstance(found, Done)
    ended_at = datetime(2026, 3, 2, 6, tzinfo=UTC).timestamp()
    assert found.result == reindexed(
        2, "w-1", "w-2", ended_at=ended_at, resources={"w-1": "jobs/w-1x", "w-2": "jobs/w-2x"}
    )
    assert found.why == "Job reindex-a2 (attempt 2) is complete, 2 workflows"
    assert f"pod log | p-1: {created('w-1')}" in said


def test_a_failure_says_what_its_pods_say(api: Api) -> None:
    api.listed = [job(FAILED)]
    api.found = [pod(phase="Failed", reindex={"terminated": {"exitCode": 137, "reason": "OOMKilled"}})]
    api.logs = {"p-1": [created("w-1"), "the last words"]}
    found = event(look())
    assert (found.outcome, found.cause, found.workflow_ids) == ("failed", "oom_killed", ("w-1",))
    assert found.message == (
        "pod p-1: container reindex ended with exit code 137 (OOMKilled); its last line: the last words"
        " (BackoffLimitExceeded: a pod failed)"
    )
    assert found.do.startswith("raise resources.limits.memory")
    assert found.log_tail[-1] == "p-1: the last words"


def test_pods_that_cannot_be_read_change_no_outcome(api: Api) -> None:
    api.listed, api.found = [job(COMPLETE)], refusal(403)
    found = event(look())
    assert found.outcome == "complete"
    assert found.log_tail == ("the pods cannot be listed: KubeCallError: cannot: 403",)
    api.found = [pod("p-1"), pod("p-2")]
    api.logs = {"p-1": refusal(400), "p-2": [created("w-2")]}
    found = event(look())
    assert found.log_tail == (
        "p-1: the log cannot be read: KubeCallError: cannot: 400", f"p-2: {created('w-2')}",
    )  # fmt: skip
    assert found.workflow_ids == ("w-2",)


@pytest.mark.parametrize(("pods", "each"), [(1, TAIL_LINES), (3, TAIL_LINES), (4, 30), (200, 1)])
def test_so_many_lines_travel_and_no_more(api: Api, pods: int, each: int) -> None:
    api.listed = [job(COMPLETE)]
    api.found = [pod(f"p-{n}") for n in range(pods)]
    api.logs = {f"p-{n}": [f"line {i}" for i in range(60)] for n in range(pods)}
    lines = event(look()).log_tail
    assert len(lines) == min(EVENT_LINES, pods * each)
    assert lines[-1] == f"p-{pods - 1}: line 59"
    assert lines[-each] == f"p-{pods - 1}: line {60 - each}"


def test_so_many_workflows_travel_and_no_more(api: Api) -> None:
    api.listed, api.found = [job(COMPLETE)], [pod()]
    api.logs = {"p-1": [created(f"w-{n}") for n in range(MAX_IDS + 1)]}
    found = event(look())
    assert found.workflow_ids == tuple(f"w-{n}" for n in range(MAX_IDS))
    assert set(found.resources) == set(found.workflow_ids)


def test_a_job_that_runs_is_waited_for_without_its_events(api: Api) -> None:
    api.listed, api.found = [job(age=30, active=1)], [pod(reindex=RUNS)]
    found = look()
    assert isinstance(found, Wait)
    assert found.text == "Job reindex-a2: 1 active, 1 pods"
    assert "events" not in [asked[0] for asked in api.asked]


WARNING = {"type": "Warning", "reason": "FailedScheduling", "message": "no node fits", "lastTimestamp": "2026"}


@pytest.mark.parametrize(("age", "is_asked"), [(10, False), (10.5, True)])
def test_the_events_of_a_job_that_does_not_start_are_asked_for(api: Api, age: float, is_asked: bool) -> None:
    api.listed, api.found, api.told = [job(age=age)], [pod("p-1", "Pending"), pod("p-2", "Pending")], [WARNING]
    assert isinstance(look(), Wait)
    asked = [one[1] for one in api.asked if one[0] == "events"]
    # Of the Job and of its first pod: a Job with many pods is not asked about in as many calls.
    assert asked == ["u-2", "u-p-1"] * is_asked


def test_a_short_patience_for_the_start_asks_for_events_earlier(
    api: Api, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, kubernetes={"startup_timeout_seconds": 10})
    api.listed, api.found, api.told = [job(age=5)], [pod(phase="Pending")], [WARNING]
    assert isinstance(look(), Wait)
    assert ("events", "u-2") not in api.asked
    api.listed = [job(age=5.5)]
    assert isinstance(look(), Wait)
    assert ("events", "u-2") in api.asked
    api.listed, api.logs = [job(age=10.5)], {"p-1": ["a line"]}
    found = event(look())
    assert (found.outcome, found.cause) == ("timeout", "cannot_start")
    assert found.message == (
        "no pod of Job reindex-a2 has started within 10 s (1 pods exist); FailedScheduling: no node fits"
    )
    assert found.do == "remove what holds it back, then clear this task"
    api.told = refusal(403)
    assert event(look()).message.endswith("see the namespace's quota, nodes and events")


def test_a_pull_that_goes_on_failing_is_given_its_time_over_all_looks(
    api: Api, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, kubernetes={"pull_error_grace_seconds": 60})
    api.listed, api.logs = [job()], {"p-1": ["a line"]}

    async def story() -> list[Look]:
        wait = trigger()
        await wait.prepare()
        found = []
        for state in (NO_IMAGE, NO_IMAGE, RUNS, NO_IMAGE, NO_IMAGE, NO_IMAGE):
            api.found = [pod(phase="Pending", reindex=state)]
            found.append(await wait.look())
            monkeypatch.setattr(Clock, "moment", Clock.moment + timedelta(seconds=30))
        return found

    *waits, last = asyncio.run(story())
    assert all(isinstance(one, Wait) for one in waits), waits
    found = event(last)
    assert (found.outcome, found.cause) == ("timeout", "cannot_start")
    assert found.message == "pod p-1: image i:1: ErrImagePull"
    assert found.log_tail == ("p-1: a line",)


def test_who_outlived_the_program_is_remembered_when_the_pods_are_gone(
    api: Api, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, kubernetes={"deadline_seconds": 60})

    async def story() -> tuple[Look, Look]:
        wait = trigger()
        await wait.prepare()
        api.listed, api.found = [job(age=30)], [pod(reindex=ENDED, mesh=RUNS)]
        first = await wait.look()
        api.listed, api.found = [job({**FAILED, "reason": "DeadlineExceeded", "message": "late"})], []
        return first, await wait.look()

    first, second = asyncio.run(story())
    assert isinstance(first, Wait)
    assert first.text.endswith("container reindex has ended, mesh still runs")
    found = event(second)
    assert (found.outcome, found.cause) == ("failed", "sidecar_left")
    assert "mesh still runs and keeps the pod alive (DeadlineExceeded: late)" in found.message


def test_a_failure_of_the_wait_itself_is_an_end_that_nobody_knows(api: Api) -> None:
    failed = FailEvent(failure=Failure(key=KEY, stage="reindex", cause="outage", reason="no answer", what_to_do=""))
    made = JobEvent.from_json(trigger()._plain(TriggerEvent(failed.to_json())).payload)
    assert (made.outcome, made.cause, made.message) == ("unknown", "outage", "no answer")
    for other in (TriggerEvent({"kind": "dance"}), TriggerEvent(made.to_json())):
        assert trigger()._plain(other) is other


def test_an_image_beside_the_program_is_held_against_it_only_when_the_program_has_ended(
    api: Api, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, kubernetes={"pull_error_grace_seconds": 60})
    api.listed = [job()]

    async def story() -> list[Look]:
        wait = trigger()
        await wait.prepare()
        found = []
        for state in (RUNS, ENDED):
            api.found = [pod(reindex=state, mesh=NO_IMAGE)]
            found.append(await wait.look())
            monkeypatch.setattr(Clock, "moment", Clock.moment + timedelta(seconds=90))
        return found

    assert [type(one) for one in asyncio.run(story())] == [Wait, Wait]


@pytest.mark.parametrize("decided", [End("reindex-a2", {}), Leave("it is not ours")])
def test_only_a_person_who_ends_this_try_ends_its_job(api: Api, decided: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    api.decided = decided
    asked: list[Any] = []
    answers = [False, True]

    async def person(ti: Any, log: Any) -> bool:
        asked.append(ti)
        return answers.pop(0)

    monkeypatch.setattr(module, "person_ended_deferred_task", person)
    wait = trigger()
    said: list[str] = []
    monkeypatch.setattr(wait.log, "info", lambda text, *args: said.append(text % args))
    asyncio.run(wait.on_kill())
    assert (api.ended, said) == ([], [])
    asyncio.run(wait.on_kill())
    assert asked == [wait.task_instance] * 2
    assert api.ended == [("reindex-a2", ME, "u-2")]
    assert said == (
        ["Job reindex-a2 was deleted because a person ended its task"] if isinstance(decided, End)
        else ["Job reindex-a2 is left alone: it is not ours"]
    )  # fmt: skip


def test_limits_come_from_the_clusters_file(api: Api, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"deadline_seconds": 61, "startup_timeout_seconds": 62, "pull_error_grace_seconds": 63,
              "queue_timeout_seconds": 64, "outage_seconds": 650, "poll_seconds": 66}  # fmt: skip
    configure(tmp_path, monkeypatch, kubernetes=limits)
    wait = trigger()
    asyncio.run(wait.prepare())
    assert (wait.poll_seconds, wait.outage_seconds) == (66, 650.0)
    assert wait._limits == jobwait.Limits(deadline=61, startup=62, pull_grace=63, queue=64)


def test_a_cancellation_whose_message_was_lost_asks_who_ended_the_task(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[bool] = []

    async def on_kill(self: Any) -> None:
        killed.append(True)

    monkeypatch.setattr(JobTrigger, "on_kill", on_kill)
    api.listed = [job()]

    async def cancelled(*message: str) -> None:
        wait = placed(JobTrigger(**trigger().given), "windows.reindex")

        async def events() -> list[Any]:
            return [one async for one in wait.run()]

        monkeypatch.setattr(wait, "prepare", lambda: (_ for _ in ()).throw(asyncio.CancelledError(*message)))
        with pytest.raises(asyncio.CancelledError):
            await events()

    asyncio.run(cancelled("by a person"))
    assert killed == []
    asyncio.run(cancelled())
    assert killed == [True]
