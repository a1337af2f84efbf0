"""The loop that every wait shares: deadline, outages, errors, what is said, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.triggers.base import TaskFailedEvent, TaskSuccessEvent, TriggerEvent
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError
from temporalio.service import RPCError, RPCStatusCode

from backfill.kit import wait as base
from backfill.kit.look import Done, Failed, Look, Wait, Wake, wait
from backfill.kit.wait import WaitArgs, WaitTrigger
from backfill.slots import Place
from include.scorecard_backfill.records import Failure, GoEvent
from tests.kit.waits import NAME, cluster, events, only_event, placed, window

__all__ = ["cluster"]


class Probe(WaitTrigger[WaitArgs]):
    """Looks at a list of answers: looks, errors to raise, or functions to call. The last one stays."""

    path = "tests.airflow.test_waits_base.Probe"
    stage = "verify"
    model = WaitArgs
    patience: ClassVar[float] = 600.0

    def __init__(self, cluster: str = NAME, *answers: Any, **kwargs: Any) -> None:
        super().__init__(cluster=cluster, **kwargs)
        self.answers = list(answers)
        self.looks = 0

    @property
    def poll_seconds(self) -> float:
        return 0.001

    @property
    def outage_seconds(self) -> float:
        return self.patience

    async def look(self) -> Look:
        self.looks += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            answer = answer()
        if isinstance(answer, BaseException):
            raise answer
        look: Look = answer
        return look


class WorkerProbe(Probe):
    fails_on_worker = True


def ok(why: str) -> Done:
    """A look that ends the task well."""
    return Done({"key": "k"}, why)


def failed(cause: str, reason: str, **fields: Any) -> Failed:
    """A look that ends the task badly."""
    return Failed(Failure(key="w", stage="verify", cause=cause, reason=reason, **fields))


def failure(event: Any) -> Failure:
    """The failure that a worker is woken for."""
    assert event.payload["kind"] == "fail_event"
    return Failure.from_json(event.payload["failure"])


GONE = ConnectionError("connection reset by peer")
PASSING = [
    GONE,
    OperationalError("HTTPDriver for http://127.0.0.1 returned response code 503"),
    RPCError("down", RPCStatusCode.UNAVAILABLE, b""),
    RPCError("Timeout expired", RPCStatusCode.CANCELLED, b""),
    TimeoutError(),
]


async def test_ok_ends_the_task_with_its_result(cluster: str) -> None:
    event = await only_event(Probe(NAME, wait("not yet"), ok("done")))
    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms == {"return_value": {"key": "k"}}


async def test_a_failure_ends_the_task_or_goes_to_a_worker_where_airflow_would_repeat_it(cluster: str) -> None:
    look = failed("killed", "somebody killed it")
    event = await only_event(Probe(NAME, look, key="w"))
    assert isinstance(event, TaskFailedEvent)
    assert event.xcoms == {"return_value": look.failure.to_json()}
    event = await only_event(WorkerProbe(NAME, look, key="w"))
    assert type(event) is TriggerEvent
    assert failure(event) == look.failure


async def test_what_a_failure_leaves_to_its_retry_is_in_its_record(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkerProbe, "left", lambda self: {"attempt": 3})
    found = failure(await only_event(WorkerProbe(NAME, ZeroDivisionError("x"))))
    assert (found.attempt, found.stage) == (3, "verify")
    assert found.what_to_do


async def test_a_wake_wakes_the_worker_with_its_event(cluster: str) -> None:
    go = GoEvent(key="w", why="act")
    event = await only_event(Probe(NAME, Wake(go, "act")))
    assert type(event) is TriggerEvent
    assert event.payload == go.to_json()


@pytest.mark.parametrize("error", PASSING, ids=lambda e: type(e).__name__)
async def test_an_outage_that_passes_is_waited_for(cluster: str, error: Exception) -> None:
    probe = Probe(NAME, error, error, error, ok("back"))
    assert isinstance(await only_event(probe), TaskSuccessEvent)
    assert probe.looks == 4


@pytest.mark.parametrize(
    ("code", "cause"), [(516, "access_denied"), (497, "access_denied"), (193, "access_denied"), (60, "error")]
)
async def test_an_account_that_is_not_accepted_is_named_by_its_connection(code: int, cause: str, cluster: str) -> None:
    error = DatabaseError(f"Code: {code}. DB::Exception: admin: no", code=code)
    record = failure(await only_event(WorkerProbe(NAME, error)))
    assert (record.cause, f"'clickhouse_{NAME}'" in record.reason) == (cause, cause == "access_denied")


async def test_an_outage_that_lasts_is_a_failure_with_its_length(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerProbe, "patience", 0.05)
    record = failure(await only_event(WorkerProbe(NAME, GONE)))
    assert record.cause == "outage"
    assert record.reason == "unreachable for 0 s: ConnectionError: connection reset by peer"


async def test_outages_do_not_add_up(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def later(answer: Any) -> Callable[[], Any]:
        def step() -> Any:
            now[0] += 6
            return answer

        return step

    class Clock:
        monotonic = staticmethod(lambda: now[0])
        time = staticmethod(time.time)

    monkeypatch.setattr(base, "time", Clock)
    monkeypatch.setattr(Probe, "patience", 10.0)
    # Two failures six seconds apart, a good look, two more: never ten seconds in a row.
    answers = [later(GONE), later(GONE), later(wait("fine")), later(GONE), later(GONE), later(ok("done"))]
    assert isinstance(await only_event(Probe(NAME, *answers)), TaskSuccessEvent)
    failure = await only_event(Probe(NAME, later(GONE)))
    assert isinstance(failure, TaskFailedEvent)


async def test_an_error_that_nobody_knows_fails_at_once_with_its_text(cluster: str) -> None:
    probe = WorkerProbe(NAME, ZeroDivisionError("division by zero"), ok("never"))
    record = failure(await only_event(probe))
    assert (record.cause, record.reason) == ("error", "ZeroDivisionError: division by zero")
    assert probe.looks == 1


async def test_a_missing_connection_is_named_with_where_it_is_missing(cluster: str) -> None:
    record = failure(await only_event(WorkerProbe(NAME, AirflowNotFoundException("no temporal_waits"))))
    assert record.cause == "configuration"
    assert "missing in the triggerer" in record.reason
    assert "no temporal_waits" in record.reason


async def test_what_must_stop_the_triggerer_is_not_caught(cluster: str) -> None:
    class Stop(BaseException):
        pass

    with pytest.raises(Stop):
        await events(Probe(NAME, Stop()))


async def test_a_cluster_that_is_gone_from_the_configuration_is_a_clear_failure(cluster: str) -> None:
    record = failure(await only_event(WorkerProbe("removed", ok("never"))))
    assert record.cause == "configuration"
    assert "'removed' has no usable file" in record.reason
    assert "needs its cluster file until it has ended" in record.reason


async def test_records_that_cannot_be_read_are_a_clear_failure(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Any) -> None:
        raise ValueError("the reindex stage left no result")

    monkeypatch.setattr(WorkerProbe, "prepare", broken)
    record = failure(await only_event(WorkerProbe(NAME, ok("never"))))
    assert record.cause == "configuration"
    assert "left no result" in record.reason


def restarted(end: datetime | None, *answers: Any) -> WorkerProbe:
    """A trigger as another triggerer makes it, with the task's absolute time-out set by it."""
    _, kwargs = WorkerProbe(NAME, *answers, key="w").serialize()
    assert "timeout_after" not in kwargs
    probe = WorkerProbe(kwargs.pop("cluster"), *answers, **kwargs)
    probe.timeout_after = end
    return probe


@pytest.mark.parametrize("naive", [False, True])
async def test_the_deadline_is_absolute_and_a_restart_does_not_move_it(cluster: str, naive: bool) -> None:
    end = datetime.now(UTC) + timedelta(seconds=base.DEADLINE_MARGIN_SECONDS + 0.8)
    given = end.replace(tzinfo=None) if naive else end
    first = asyncio.create_task(events(restarted(given, wait("hours to go"))))
    done, _ = await asyncio.wait([first], timeout=0.1)
    assert not done
    first.cancel()
    record = failure(await only_event(restarted(given, wait("hours to go"))))
    assert record.cause == "deadline"
    # The moment at which the wait gives up, not Airflow's own time-out behind it.
    given_up = end - timedelta(seconds=base.DEADLINE_MARGIN_SECONDS)
    assert f"not decided by {given_up:%Y-%m-%d %H:%M:%S} UTC" in record.reason
    # What it waited for is part of the message.
    assert "hours to go" in record.reason
    assert datetime.now(UTC) < end, "the wait must end before Airflow's own time-out does"


async def test_a_deadline_passed_while_nobody_looked_is_told_after_a_look(cluster: str) -> None:
    past = datetime.now(UTC) - timedelta(hours=1)
    assert isinstance(await only_event(restarted(past, ok("it was done long ago"))), TaskSuccessEvent)
    probe = restarted(past, wait("not done"))
    assert failure(await only_event(probe)).cause == "deadline"
    assert probe.looks == 1


async def test_an_outage_does_not_outlast_the_deadline(cluster: str) -> None:
    record = failure(await only_event(restarted(datetime.now(UTC), GONE)))
    assert record.cause == "deadline"
    assert "connection reset" in record.reason


async def test_without_a_time_out_there_is_no_deadline(cluster: str) -> None:
    assert isinstance(await only_event(restarted(None, wait("one"), wait("two"), ok("done"))), TaskSuccessEvent)


@pytest.mark.parametrize("probe", [Probe, WorkerProbe])
async def test_a_failure_comes_not_before_its_time(cluster: str, probe: type[Probe]) -> None:
    moment = time.time() + 0.3
    assert not isinstance(await only_event(probe(NAME, failed("killed", "no"), not_before=moment)), TaskSuccessEvent)
    assert time.time() >= moment


async def test_a_success_does_not_wait_for_its_time_since_no_late_event_changes_it(cluster: str) -> None:
    in_an_hour = time.time() + 3600
    event = await asyncio.wait_for(only_event(Probe(NAME, ok("done"), not_before=in_an_hour)), 60)
    assert isinstance(event, TaskSuccessEvent)


async def test_a_refused_argument_wakes_its_worker_not_before_its_time_either(cluster: str) -> None:
    moment = time.time() + 0.3
    await only_event(WorkerProbe("no-such-cluster", ok("done"), not_before=moment))
    assert time.time() >= moment


def logged(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of the log, from now on."""
    said: list[str] = []
    monkeypatch.setattr(probe.log, "info", lambda text, *args: said.append(text % args))
    return said


async def test_a_reason_is_said_once_and_again_when_it_changes(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(NAME, wait("a"), wait("a"), wait("a"), wait("b"), wait("b"), ok("done"))
    said = logged(probe, monkeypatch)
    await only_event(probe)
    assert said == ["waiting: a", "waiting: b", "done: done"]


async def test_a_wait_shows_from_time_to_time_that_it_is_alive(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "REPEAT_REASON_SECONDS", 0.0)
    probe = Probe(NAME, wait("a"), wait("a"), wait("a"), ok("done"))
    said = logged(probe, monkeypatch)
    await only_event(probe)
    assert said == ["waiting: a"] * 3 + ["done: done"]


def test_an_argument_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="not_befor"):
        Probe(NAME, not_befor=1)


def test_a_wait_owes_a_reason() -> None:
    assert wait("a", "b").text == "a; b"
    with pytest.raises(ValueError, match="reason"):
        wait()


async def test_a_wait_names_its_window_first_also_when_it_cannot_begin(cluster: str) -> None:
    said: list[str] = []

    class Ear:
        def __getattr__(self, level: str) -> Callable[..., None]:
            return lambda text, *values, **_: said.append(text % values)

    class Spoiled(Probe):
        @property
        def log(self) -> Any:
            return Ear()

        async def places(self) -> list[Place]:
            return [Place("windows", 0, window(customer_id="acme"))]

        async def prepare(self) -> None:
            raise ValueError("what the stage before has left is spoiled")

    one = window(customer_id="acme")
    await only_event(placed(Spoiled(NAME, ok("done"), group="windows"), "windows.verify"))
    assert said[0] == f"window {one.label}, key {one.key}"
    assert "spoiled" in said[1]


class SlowProbe(Probe):
    @property
    def poll_seconds(self) -> float:
        return 30.0


async def test_pauses_grow_with_the_wait(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, slept = [1_000.0], []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    probe = SlowProbe(NAME, *[wait("not yet")] * 40, ok("at last"))
    monkeypatch.setattr("backfill.kit.wait.asyncio.sleep", sleep)
    monkeypatch.setattr("backfill.kit.wait.time.monotonic", lambda: clock[0])
    await events(probe)
    pauses = [seconds for seconds in slept if seconds]
    assert pauses[:10] == [6.0] * 10, "a fifth of the interval at first"
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30.0
    assert 6.0 < pauses[20] < 30.0


class Showing(Probe):
    """Tells the page something of its own, too."""

    def shown(self) -> dict[str, Any]:
        return {"job": "reindex-a2"}


async def test_the_page_is_told_the_reason_and_since_when_it_is_the_same(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = datetime(2026, 3, 2, 6, tzinfo=UTC)
    kept: list[Any] = []

    class Clock(datetime):
        moment = began

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            assert tz is UTC
            return cls.moment

    async def keep(key: str, value: Any, **place: Any) -> None:
        kept.append((key, value, place))

    monkeypatch.setattr(base, "datetime", Clock)
    monkeypatch.setattr(BaseXCom, "aset", keep)
    probe = placed(Showing(NAME, wait("a")), "windows.verify", 4)

    async def show(seconds: float, reason: str, done: int) -> int:
        Clock.moment = began + timedelta(seconds=seconds)
        await probe._show(Wait((reason,), done, 9))
        return len(kept)

    def told(at: float, since: float, reason: str, done: int) -> dict[str, Any]:
        moments = [(began + timedelta(seconds=seconds)).isoformat() for seconds in (at, since)]
        return {"at": moments[0], "since": moments[1], "reason": reason, "done": done, "total": 9, "job": "reindex-a2"}

    assert [await show(0, "a", 1), await show(5, "b", 2), await show(9.9, "b", 3)] == [1, 1, 1]
    assert [await show(10, "b", 3), await show(25, "b", 3), await show(26, "b", 4)] == [2, 2, 3]
    assert [value for _, value, _ in kept] == [told(0, 0, "a", 1), told(10, 5, "b", 3), told(26, 5, "b", 4)]
    place = {"dag_id": probe.ti.dag_id, "task_id": "windows.verify", "run_id": "manual__1", "map_index": 4}
    assert [(key, where) for key, _, where in kept] == [("look", place)] * 3


async def test_a_page_that_cannot_be_told_holds_nothing_up(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(BaseXCom, "aset", refuse)
    await placed(Probe(NAME, wait("a")), "windows.verify")._show(wait("a"))
    # Without a task instance, as in other tests, there is no page.
    await Probe(NAME, wait("a"))._show(wait("a"))
