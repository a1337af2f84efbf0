"""wait_workflows look by look: what it asks, what it takes for this window's, and when it says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from temporalio.service import RPCError, RPCStatusCode

from backfill.hooks.temporal import RefusedError
from backfill.kit.look import Done, Failed, Look, Wait, Wake
from backfill.triggers import workflows as module
from backfill.triggers.workflows import ClosedTrigger, WorkflowsTrigger, customer_ids, open_of_window
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.temporal import TemporalConfig
from include.scorecard_backfill.records import (
    ClosedEvent,
    Database,
    Failure,
    Reindexed,
    ReindexEvent,
    Window,
    WorkflowsClosed,
)
from include.scorecard_backfill.verdicts.workflows import Execution

CONFIG = ClusterConfig(name="demo", temporal=TemporalConfig(settle_seconds=100, clock_skew_seconds=60))
JANUARY = ["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"]
MARCH = ["2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"]
MADE, ENDED, NOW = 10_000.0, 10_060.0, 10_100.0


def wid(profile: str, number: int = 1, customer: str = "acme") -> str:
    return f"reindexconversations-{customer}-{profile}-{UUID(int=number)}"


VOICE, CHAT, OTHER = wid("voice"), wid("chat"), wid("voice", 2)


@dataclass
class Server:
    """What Temporal shows, and what it was asked."""

    described: dict[str, Execution] = field(default_factory=dict)
    listed: list[tuple[str, float]] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    inputs: dict[str, list[object]] = field(default_factory=dict)
    error: Exception | None = None
    asked: list[list[str]] = field(default_factory=list)
    lists: int = 0
    config: TemporalConfig = CONFIG.temporal

    def set(self, workflow_id: str, status: Any, **more: Any) -> None:
        self.described[workflow_id] = Execution(workflow_id, status, run_id="r", **more)
        self.open = {i for i, e in self.described.items() if e.status == "running"}

    async def ids_of_customer(self, customer: str, since: datetime, until: datetime | None = None) -> list[str]:
        assert customer == "acme"
        self.lists += 1
        last = until.timestamp() if until else float("inf")
        return [i for i, started in self.listed if since.timestamp() <= started <= last]

    async def describe_all(self, ids: Iterable[str]) -> dict[str, Execution]:
        if self.error:
            raise self.error
        self.asked.append(list(ids))
        return {i: self.described.get(i, Execution(i, "missing")) for i in self.asked[-1]}

    async def said_at_start(self, workflow_id: str) -> list[object]:
        return self.inputs.get(workflow_id, [])


def window(*profiles: str) -> Window:
    databases = tuple(Database(name=f"acme_{p}", profile_id=p, tables=("scorecard",)) for p in profiles or ("voice",))
    return Window(
        key="k", cluster="demo", customer_id="acme", start=date(2026, 1, 1), end=date(2026, 2, 1), mode="cleanup",
        databases=databases,
    )  # fmt: skip


def reindexed(*ids: str, attempt: int = 1, of: Window | None = None, ended_at: float = ENDED) -> Reindexed:
    return Reindexed(
        key="k", window=of or window(), status="reindexed", attempt=attempt, job_name="j", made_at=MADE,
        ended_at=ended_at, workflow_ids=ids,
    )  # fmt: skip


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()

    async def workflows(_: Any) -> Server:
        return made

    async def open_ids(*_: Any) -> frozenset[str]:
        return frozenset(made.open)

    monkeypatch.setattr(module, "shared_workflows", workflows)
    monkeypatch.setattr(module, "shared_open_ids", open_ids)
    clock = SimpleNamespace(time=lambda: NOW, monotonic=lambda: 0.0)
    monkeypatch.setattr(module, "time", clock)
    made.clock = clock  # type: ignore[attr-defined]
    return made


async def trigger(
    given: Reindexed,
    monkeypatch: pytest.MonkeyPatch,
    previous: Failure | None = None,
    cls: type[WorkflowsTrigger] = WorkflowsTrigger,
    made: Reindexed | None = None,
) -> WorkflowsTrigger:
    """The trigger after its preparation, of a window of the plan and what other stages left.

    ``made``: the attempt that the task has had made itself.
    """
    left: dict[str, Any] = {"windows.reindex": given, "windows.wait_workflows": previous}

    async def record(ti: Any, task_id: str, key: str = "") -> Any:
        return left.get(task_id)

    async def pull(*_: Any) -> Any:
        return None

    monkeypatch.setattr("backfill.kit.xcoms.arecord", record)
    monkeypatch.setattr("backfill.kit.xcoms.apull", pull)
    itself = {"reindexed": made.to_json()} if made else {}
    wait = cls(cluster="demo", group="windows", key="k", **itself)
    wait.args = wait.model.model_validate(wait.given)
    wait.config = CONFIG
    wait.window = given.window
    wait.task_instance = SimpleNamespace(task_id="windows.wait_workflows", map_index=0, run_id="r", dag_id="d")  # type: ignore[assignment]
    await wait.prepare()
    return wait


def text(look: Look) -> str:
    """What a wait or a failure says."""
    assert isinstance(look, (Wait, Failed))
    return look.text if isinstance(look, Wait) else look.failure.reason


async def test_completed_ones_of_every_profile_end_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    both = window("voice", "chat")
    wait = await trigger(reindexed(VOICE, CHAT, of=both, attempt=3), monkeypatch)
    server.set(VOICE, "running", done=3, total=9)
    server.set(CHAT, "completed", started=100, closed=160)
    look = await wait.look()
    assert isinstance(look, Wait)
    assert (look.done, look.total) == (3, 9)
    server.set(VOICE, "completed", started=40, closed=220)
    done = await wait.look()
    assert isinstance(done, Done)
    assert done.result == WorkflowsClosed(
        key="k", status="completed", attempt=3, workflow_ids=(VOICE, CHAT), minutes=3.0, done=3
    )


async def test_the_list_is_not_asked_while_the_log_has_named_everything(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = await trigger(reindexed(VOICE), monkeypatch)
    server.set(VOICE, "running")
    for _ in range(3):
        await wait.look()
    assert server.lists == 0
    server.set(VOICE, "completed")
    assert isinstance(await wait.look(), Done)
    assert server.lists == 1


async def test_one_that_the_log_has_lost_holds_the_verdict_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = await trigger(reindexed(VOICE), monkeypatch)
    server.set(VOICE, "completed")
    server.set(OTHER, "running")
    server.listed = [(VOICE, MADE), (OTHER, MADE)]
    server.inputs[OTHER] = list(JANUARY)
    assert text(await wait.look()).startswith("1 more workflows of this window have appeared")
    assert "1 of 2 workflows open" in text(await wait.look())
    # Once it was shown, a list that hides it takes nothing back.
    server.listed = []
    server.set(OTHER, "failed", cause="deadlock")
    failed = await wait.look()
    assert isinstance(failed, Failed)
    assert failed.failure.cause == "deadlock"
    assert failed.failure.reindexed is not None
    assert failed.failure.reindexed.workflow_ids == (VOICE, OTHER)


@pytest.mark.parametrize(("said", "counts"), [(JANUARY, True), (MARCH, False), ([], False)])
async def test_another_of_the_same_profile_counts_only_when_it_names_these_days(
    server: Server, monkeypatch: pytest.MonkeyPatch, said: list[object], counts: bool
) -> None:
    wait = await trigger(reindexed(VOICE), monkeypatch)
    server.set(VOICE, "completed")
    server.set(OTHER, "running")
    server.listed = [(OTHER, MADE)]
    server.inputs[OTHER] = said
    assert isinstance(await wait.look(), Wait if counts else Done)


@pytest.mark.parametrize(("said", "counts"), [(JANUARY, True), (MARCH, False), ([], True)])
async def test_for_a_profile_that_the_log_does_not_name_only_other_days_are_left_out(
    server: Server, monkeypatch: pytest.MonkeyPatch, said: list[object], counts: bool
) -> None:
    wait = await trigger(reindexed(), monkeypatch)
    server.set(VOICE, "completed")
    server.listed = [(VOICE, MADE)]
    server.inputs[VOICE] = said
    assert isinstance(await wait.look(), Done if counts else Wait)


async def test_a_lacking_profile_is_waited_for_then_proven_or_red(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = window("voice", "chat")
    wait = await trigger(reindexed(VOICE, of=both), monkeypatch)
    server.set(VOICE, "completed")
    server.listed = [(VOICE, MADE)]
    assert "no workflow for profile chat yet" in text(await wait.look())
    server.clock.time = lambda: ENDED + 99  # type: ignore[attr-defined]
    assert isinstance(await wait.look(), Wait)
    server.clock.time = lambda: ENDED + 100  # type: ignore[attr-defined]
    assert isinstance(await wait.look(), Done)


async def test_a_lacking_profile_is_red_once_nothing_is_open(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    both = window("voice", "chat")
    wait = await trigger(reindexed(of=both), monkeypatch)
    server.clock.time = lambda: ENDED + 100  # type: ignore[attr-defined]
    server.set(VOICE, "running")
    server.listed = [(VOICE, MADE)]
    look = await wait.look()
    assert isinstance(look, Wait)
    assert "profile chat" in look.text
    assert "1 of 1 workflows open" in look.text
    server.set(VOICE, "completed")
    failed = await wait.look()
    assert isinstance(failed, Failed)
    assert failed.failure.cause == "too_few_workflows"
    # What a smaller window cures is said first.
    server.set(VOICE, "failed", cause="heartbeat_timeout", failure="HEARTBEAT timeout")
    failed = await wait.look()
    assert isinstance(failed, Failed)
    assert failed.failure.cause == "heartbeat_timeout"
    assert "no workflow for profile chat" in failed.failure.reason


async def test_without_the_jobs_end_the_first_look_begins_the_settling(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = await trigger(reindexed(ended_at=0.0), monkeypatch)
    assert isinstance(await wait.look(), Wait)
    server.clock.monotonic = lambda: 100.0  # type: ignore[attr-defined]
    assert isinstance(await wait.look(), Failed)
    assert server.asked == []


async def test_every_id_is_described_once_more_before_the_verdict(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = window("voice", "chat")
    wait = await trigger(reindexed(VOICE, CHAT, of=both), monkeypatch)
    server.set(VOICE, "completed")
    server.set(CHAT, "running")
    await wait.look()
    await wait.look()
    # In the look in which the last one ends, the first one has been reset, and no list shows it as open yet.
    server.set(CHAT, "completed")
    server.set(VOICE, "running")
    server.open = set()
    look = await wait.look()
    assert set(server.asked[-1]) == {VOICE, CHAT}
    assert isinstance(look, Wait)


async def test_a_listed_one_is_described_at_each_fourth_look_only(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = await trigger(reindexed(VOICE), monkeypatch)
    server.set(VOICE, "running")
    for _ in range(5):
        await wait.look()
    assert server.asked == [[VOICE], [], [], [], [VOICE]]


async def test_what_was_seen_closed_stays_so_when_the_server_forgets_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = window("voice", "chat")
    wait = await trigger(reindexed(VOICE, CHAT, of=both), monkeypatch)
    server.set(VOICE, "completed")
    server.set(CHAT, "running")
    await wait.look()
    del server.described[VOICE]
    server.set(CHAT, "completed")
    assert isinstance(await wait.look(), Done)


async def test_what_was_seen_running_and_is_forgotten_is_red(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = await trigger(reindexed(VOICE), monkeypatch)
    server.set(VOICE, "running")
    await wait.look()
    server.described.clear()
    server.open = set()
    failed = await wait.look()
    assert isinstance(failed, Failed)
    assert failed.failure.cause == "workflows_gone"


DENIED = RPCError("no", RPCStatusCode.PERMISSION_DENIED, b"")


async def test_a_refusal_counts_when_it_comes_twice_in_a_row(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = await trigger(reindexed(VOICE), monkeypatch)
    server.set(VOICE, "running")
    for error in (DENIED, RefusedError("the key has expired")):
        server.error = error
        assert isinstance(await wait.look(), Wait)
        server.error = None
        assert isinstance(await wait.look(), Wait)
    server.error = DENIED
    await wait.look()
    wait._polls = 0
    failed = await wait.look()
    assert isinstance(failed, Failed)
    assert failed.failure.cause == "access_denied"
    assert "connection temporal_demo, namespace ingestion" in failed.failure.reason
    assert failed.failure.attempt == 1


async def test_an_error_that_passes_is_left_to_the_loop(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = await trigger(reindexed(VOICE), monkeypatch)
    server.error = RPCError("away", RPCStatusCode.DATA_LOSS, b"")
    with pytest.raises(RPCError):
        await wait.look()


def failure(cause: str, attempt: int = 1, of: Reindexed | None = None) -> Failure:
    return Failure(key="k", stage="wait_workflows", cause=cause, reason="x", attempt=attempt, reindexed=of)


@pytest.mark.parametrize(
    ("before", "asks"),
    [
        (failure("canceled"), True),
        (failure("too_few_workflows"), True),
        (failure("access_denied"), False),
        (failure("canceled", attempt=2), False),
        (failure("canceled").model_copy(update={"key": "other"}), False),
        (None, False),
    ],
)
async def test_only_a_failure_of_this_very_attempt_has_a_clear_make_a_new_reindex(
    server: Server, monkeypatch: pytest.MonkeyPatch, before: Failure | None, asks: bool
) -> None:
    wait = await trigger(reindexed(VOICE), monkeypatch, before)
    server.set(VOICE, "canceled", cause="canceled")
    look = await wait.look()
    assert isinstance(look, Wake if asks else Failed)
    if isinstance(look, Wake):
        assert isinstance(look.event, ReindexEvent)
        assert (look.event.attempt, look.event.window) == (1, window())


async def test_one_that_a_person_has_reset_after_the_failure_needs_no_new_reindex(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = await trigger(reindexed(VOICE), monkeypatch, failure("canceled"))
    server.set(VOICE, "running")
    assert isinstance(await wait.look(), Wait)
    server.set(VOICE, "completed")
    assert isinstance(await wait.look(), Done)


async def test_the_attempt_that_this_task_made_itself_is_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = await trigger(reindexed(VOICE), monkeypatch, failure("canceled", 2, reindexed(OTHER, attempt=2)))
    server.set(OTHER, "canceled", cause="canceled")
    look = await wait.look()
    assert isinstance(look, Wake)
    assert isinstance(look.event, ReindexEvent)
    assert look.event.attempt == 2
    assert server.asked[-1] == [OTHER]


async def second_attempt(monkeypatch: pytest.MonkeyPatch, *, made_by_itself: bool) -> WorkflowsTrigger:
    """The wait for attempt 2 (VOICE), made at MADE, after the workflow of attempt 1 (OTHER) had failed."""
    first, second = reindexed(OTHER), reindexed(VOICE, attempt=2)
    if made_by_itself:
        return await trigger(first, monkeypatch, failure("workflow_failed", of=first), made=second)
    return await trigger(second, monkeypatch, failure("workflow_failed", of=first))


@pytest.mark.parametrize("made_by_itself", [True, False])
async def test_what_an_earlier_attempt_had_started_a_moment_ago_does_not_decide_about_this_one(
    server: Server, monkeypatch: pytest.MonkeyPatch, made_by_itself: bool
) -> None:
    """A clear that comes at once: the failed workflow began within the skew of the clocks before the new Job."""
    wait = await second_attempt(monkeypatch, made_by_itself=made_by_itself)
    server.listed = [(OTHER, MADE - 59), (VOICE, MADE + 1)]
    server.inputs = {OTHER: [JANUARY]}
    server.set(OTHER, "failed", cause="workflow_failed")
    server.set(VOICE, "completed")
    look = await wait.look()
    assert isinstance(look, Done)
    assert isinstance(look.result, WorkflowsClosed)
    assert (look.result.attempt, look.result.workflow_ids) == (2, (VOICE,))


async def test_one_of_an_earlier_attempt_that_is_open_again_is_waited_for_and_its_end_decides_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = await second_attempt(monkeypatch, made_by_itself=True)
    server.listed = [(OTHER, MADE + 5), (VOICE, MADE + 1)]
    server.inputs = {OTHER: [JANUARY]}
    server.set(VOICE, "completed")
    server.set(OTHER, "running")
    look = await wait.look()
    assert isinstance(look, Wait)
    assert OTHER in look.text
    server.set(OTHER, "failed", cause="workflow_failed")
    assert isinstance(await wait.look(), Done)


async def test_a_task_that_goes_on_is_woken(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = await trigger(reindexed(VOICE), monkeypatch, cls=ClosedTrigger)
    server.set(VOICE, "completed")
    look = await wait.look()
    assert isinstance(look, Wake)
    assert isinstance(look.event, ClosedEvent)
    assert look.event.closed.workflow_ids == (VOICE,)


async def test_the_bounds_of_the_start_are_those_of_the_job_with_the_skew_of_the_clocks(server: Server) -> None:
    long = wid("voice", customer="acme-sandbox")
    server.listed = [
        (wid("voice", 1), MADE - 61), (wid("voice", 2), MADE - 60), (wid("voice", 3), ENDED + 60),
        (wid("voice", 4), ENDED + 61), (long, MADE), (wid("chat"), MADE),
    ]  # fmt: skip
    fake: Any = server
    assert await customer_ids(fake, window(), MADE, ENDED) == [wid("voice", 2), wid("voice", 3)]
    assert await customer_ids(fake, window(), MADE) == [wid("voice", n) for n in (2, 3, 4)]
    server.set(wid("voice", 2), "paused")
    server.set(wid("voice", 3), "unknown")
    server.set(wid("voice", 4), "completed")
    assert await open_of_window(fake, window(), MADE) == [wid("voice", 2), wid("voice", 3)]
