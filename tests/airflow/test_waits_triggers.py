"""Every trigger: how it travels through the database, that it never blocks the loop, and that settled windows end."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.models.trigger import Trigger
from airflow.sdk import BaseHook, Variable
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import TaskFailedEvent, TaskSuccessEvent

from backfill import settings
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit.poll import SharedPoll
from backfill.kit.wait import WaitTrigger
from backfill.triggers.admit import AdmitTrigger
from backfill.triggers.chunk import ChunkTrigger
from backfill.triggers.job import JobTrigger
from backfill.triggers.mutations import MutationsTrigger
from backfill.triggers.quiet import QuietTrigger
from backfill.triggers.room import RoomTrigger
from backfill.triggers.verify import VerifyTrigger
from backfill.triggers.workflows import ClosedTrigger, WorkflowsTrigger
from include.scorecard_backfill.records import Failure, MutationsGone
from include.scorecard_backfill.verdicts.counts import Host
from tests.kit.clock import Clock, clock
from tests.kit.store import AssetState
from tests.kit.waits import (
    KEY,
    NAME,
    VERIFIED,
    Left,
    assets,
    cluster,
    configure,
    deleted,
    left,
    only_event,
    placed,
    reindexed,
    window,
)

__all__ = ["assets", "clock", "cluster", "left"]

Json = dict[str, Any]
Any_ = WaitTrigger[Any]
IN_GROUP: Json = {"cluster": NAME, "group": "windows"}
REQUEST: Json = {"key": KEY, "cluster": NAME, "run_id": "r", "customer_id": "acme", "start": "2026-01-01",
                 "end": "2026-02-01", "attempt": 1, "ttl_seconds": 3600, "deadline_seconds": 60}  # fmt: skip

TRIGGERS: list[tuple[str, Any_]] = [
    ("windows.admit", AdmitTrigger(**IN_GROUP)),
    ("windows.delete", ChunkTrigger(cluster=NAME, key=KEY, table=["acme_voice", "scorecard"], generation=1)),
    ("windows.wait_mutations", MutationsTrigger(**IN_GROUP, deleted=deleted().to_json(), not_before=1.5)),
    ("windows.reindex", JobTrigger(cluster=NAME, key=KEY, job_name="reindex-acme-1", attempt=1, made_at=time.time())),
    ("windows.reindex", QuietTrigger(cluster=NAME, key=KEY, window=window().to_json(), since=0.0)),
    ("windows.reindex", RoomTrigger(cluster=NAME, key=KEY, request=REQUEST, since=time.time())),
    ("windows.wait_workflows", WorkflowsTrigger(**IN_GROUP, reindexed=reindexed(1, "w-1").to_json())),
    ("windows.verify", ClosedTrigger(**IN_GROUP, reindexed=reindexed(1, "w-1").to_json())),
    ("windows.verify", VerifyTrigger(**IN_GROUP, attempt=2)),
]
each_trigger = pytest.mark.parametrize(("task_id", "trigger"), TRIGGERS, ids=lambda t: type(t).__name__)


def test_every_trigger_of_the_package_is_looked_at_here() -> None:
    modules = ("admit", "chunk", "job", "mutations", "quiet", "room", "verify", "workflows")
    found = set()
    for name in modules:
        module = importlib.import_module(f"backfill.triggers.{name}")
        found |= {c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, WaitTrigger)}
    assert {c for c in found if "path" in vars(c)} == {type(trigger) for _, trigger in TRIGGERS}


@each_trigger
def test_a_trigger_goes_through_the_database_unchanged(task_id: str, trigger: Any_) -> None:
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    # The one canonical path, not in the DAG folder.
    assert module.startswith("backfill.triggers.")
    assert getattr(importlib.import_module(module), name) is type(trigger)
    stored = Trigger._decrypt_kwargs(Trigger.encrypt_kwargs(kwargs))
    again = type(trigger)(**stored)
    assert again.serialize() == (path, kwargs)
    # Only JSON: nothing that a change of Airflow's serde could read in another way.
    assert json.loads(json.dumps(kwargs)) == kwargs


@each_trigger
def test_a_trigger_carries_no_secret(task_id: str, trigger: Any_) -> None:
    text = json.dumps(trigger.serialize()).lower()
    assert not [word for word in ("password", "pass-word", "token", "conn_id", "/tmp", "/home") if word in text]


@each_trigger
def test_what_only_a_worker_may_repeat_is_ended_by_a_worker(task_id: str, trigger: Any_) -> None:
    # Airflow repeats a failure that a trigger reports when the task has retries; admit has none.
    assert trigger.fails_on_worker or isinstance(trigger, AdmitTrigger)


def failure(event: Any) -> Failure:
    """The failure with which a task is to end, whoever ends it."""
    if isinstance(event, TaskFailedEvent):
        return Failure.from_json((event.xcoms or {})["return_value"])
    if event.payload["kind"] == "job_event":
        assert event.payload["outcome"] == "unknown"
        return Failure(key=KEY, stage="reindex", cause=event.payload["cause"], reason=event.payload["message"])
    return Failure.from_json(event.payload["failure"])


class BlockingError(AssertionError):
    """Something waited in the event loop's thread."""


def guard_loop(monkeypatch: pytest.MonkeyPatch, loops: list[int]) -> list[str]:
    """Refuse in the threads of `loops` what would hold them up; gives the names of what was refused."""
    blocked: list[str] = []

    def guard(target: Any, name: str) -> None:
        real = getattr(target, name)

        def checked(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() in loops:
                blocked.append(name)
                raise BlockingError(f"{name} in the event loop")
            return real(*args, **kwargs)

        monkeypatch.setattr(target, name, checked)

    guard(time, "sleep")
    guard(socket, "create_connection")
    guard(BaseHook, "get_connection")
    guard(Variable, "get")
    guard(RuntimeTaskInstance, "get_task_states")
    return blocked


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Refuse what would hold up the loop from the call on: connecting, sleeping, Airflow's blocking getters."""
    loops: list[int] = []
    blocked = guard_loop(monkeypatch, loops)
    yield lambda: loops.append(threading.get_ident())
    assert blocked == []


@each_trigger
async def test_a_look_never_blocks_the_loop(
    task_id: str,
    trigger: Any_,
    cluster: str,
    left: Left,
    assets: AssetState,
    watch: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left["windows.delete", "return_value"] = deleted()
    watch()
    monkeypatch.setattr(type(trigger), "outage_seconds", 0.3)
    found = failure(await only_event(placed(type(trigger)(**trigger.serialize()[1]), task_id)))
    if isinstance(trigger, AdmitTrigger):
        # Only a triggerer can answer what the states of the run are; the question was asked outside the loop.
        assert "SUPERVISOR_COMMS" in found.reason
    else:
        assert found.cause == "outage", found


async def test_the_guard_sees_a_blocking_call(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = guard_loop(monkeypatch, loops := [])
    await asyncio.to_thread(time.sleep, 0)
    assert blocked == []
    loops.append(threading.get_ident())
    with pytest.raises(BlockingError):
        socket.create_connection(("127.0.0.1", 1))
    assert blocked == ["create_connection"]


CUT = {("replan", "cut"): [KEY]}
DONE = {("windows.verify", "return_value"): VERIFIED}
NO_SERVERS: list[tuple[str, str, type[Any_], Left]] = [
    ("verified", "admit", AdmitTrigger, DONE),
    ("verified", "wait_mutations", MutationsTrigger, DONE),
    ("cut", "wait_mutations", MutationsTrigger, CUT),
    ("nothing", "wait_mutations", MutationsTrigger, {("windows.delete", "return_value"): deleted(sent=())}),
    ("verified", "wait_workflows", WorkflowsTrigger, DONE),
    ("cut", "wait_workflows", WorkflowsTrigger, CUT),
    ("verified", "verify", VerifyTrigger, DONE | {("windows.delete", "return_value"): deleted()}),
    ("cut", "verify", VerifyTrigger, CUT | {("windows.delete", "return_value"): deleted()}),
]


@pytest.mark.parametrize(("status", "stage", "kind", "more"), NO_SERVERS)
async def test_a_settled_window_that_is_cleared_ends_without_a_look_at_any_server(
    status: str, stage: str, kind: type[Any_], more: Left, cluster: str, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> Any:
        raise AssertionError("a server was asked")

    left |= more
    for name in ("connection", "clickhouse", "hosts"):
        monkeypatch.setattr(WaitTrigger, name, refuse)
    trigger = placed(kind(**IN_GROUP), f"windows.{stage}")
    trigger.task_instance.try_number = 2
    event = await only_event(trigger)
    assert isinstance(event, TaskSuccessEvent), event
    assert event.xcoms is not None
    result: Any = event.xcoms["return_value"]
    assert result["key"] == KEY
    if stage != "admit":
        assert result["status"] == status
    if stage == "verify" and status == "verified":
        # The report reads this record; a no-op must not lose its numbers.
        assert result == VERIFIED.to_json()


@pytest.mark.parametrize(
    ("stage", "kind", "index", "text"),
    [
        ("wait_mutations", MutationsTrigger, 0, "clear it (delete)"),
        ("wait_workflows", WorkflowsTrigger, 0, "clear it (reindex)"),
        ("verify", VerifyTrigger, 0, "clear it (delete)"),
        ("admit", AdmitTrigger, 7, "map index 7 is not in the plan of 1 windows"),
    ],
)
async def test_a_stage_without_its_input_says_what_to_clear(
    stage: str, kind: type[Any_], index: int, text: str, cluster: str, left: Left
) -> None:
    found = failure(await only_event(placed(kind(**IN_GROUP), f"windows.{stage}", index)))
    assert found.cause == "configuration"
    assert text in found.reason
    assert found.what_to_do


async def prepared(trigger: Any_, stage: str) -> Any:
    """A trigger that has read what was left."""
    trigger.args = trigger.model.model_validate(trigger.given)
    trigger.config = settings.cluster_config(NAME)
    placed(trigger, f"windows.{stage}")
    await trigger._find_window()
    await trigger.prepare()
    return trigger


async def test_mutations_go_on_with_the_delete_that_an_earlier_try_has_sent_again(cluster: str, left: Left) -> None:
    left["windows.delete", "return_value"] = deleted()
    left["windows.wait_mutations", "return_value"] = Failure(
        key=KEY, stage="wait_mutations", cause="stalled", reason="r", generation=2, deleted=deleted(generation=2)
    )
    trigger = await prepared(MutationsTrigger(**IN_GROUP), "wait_mutations")
    assert trigger._deleted.generation == 2
    assert trigger._left == "look"


@pytest.mark.parametrize("closed", [None, Failure(key=KEY, stage="wait_workflows", cause="canceled", reason="r")])
async def test_a_window_whose_workflows_are_not_proven_closed_is_not_verified(
    closed: Failure | None, cluster: str, left: Left
) -> None:
    # A person has marked wait_workflows as successful: its workflows may still write.
    left["windows.delete", "return_value"] = deleted()
    if closed:
        left["windows.wait_workflows", "return_value"] = closed
    found = failure(await only_event(placed(VerifyTrigger(**IN_GROUP), "windows.verify")))
    assert found.cause == "configuration"
    assert "clear it (wait_workflows) and this task with it" in found.reason


async def test_what_was_waited_for_after_a_resend_is_not_waited_for_again(cluster: str, left: Left) -> None:
    left["windows.delete", "return_value"] = deleted()
    gone = MutationsGone(key=KEY, status="gone", generation=2, hosts=("node-1-1",))
    left["windows.wait_mutations", "return_value"] = gone
    event = await only_event(placed(MutationsTrigger(**IN_GROUP), "windows.wait_mutations"))
    assert event.xcoms == {"return_value": gone.to_json()}


@pytest.mark.parametrize("key", ["another", KEY])
async def test_workflows_of_another_window_are_never_taken_over(key: str, cluster: str, left: Left) -> None:
    left["windows.reindex", "return_value"] = reindexed(1, "w-1")
    left["windows.wait_workflows", "return_value"] = Failure(
        key=key, stage="wait_workflows", cause="canceled", reason="r", attempt=5, reindexed=reindexed(5, "w-5", key=key)
    )
    trigger = await prepared(WorkflowsTrigger(**IN_GROUP), "wait_workflows")
    assert trigger._by_log == (["w-5"] if key == KEY else ["w-1"])
    assert trigger._left == ("reindex" if key == KEY else "")


HOSTS = (Host("node-1-1", 1), Host("node-2-1", 2))


async def test_a_thousand_waits_look_at_the_mutations_once_for_each_interval(
    cluster: str, clock: Clock, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = dict.fromkeys(("topology", "mutations", "connections", "looks"), 0)

    def topology(self: Any) -> Any:
        counts["topology"] += 1
        return HOSTS

    def mutations(self: Any) -> Any:
        counts["mutations"] += 1
        return []

    async def connection(self: Any, conn_id: str) -> Any:
        counts["connections"] += 1
        return BaseHook.get_connection(conn_id)

    async def look(self: MutationsTrigger) -> Any:
        counts["looks"] += 1
        if counts["looks"] % 2_000 == 0:
            two_rounds.set()
        return await original(self)

    two_rounds = asyncio.Event()
    original = MutationsTrigger.look
    monkeypatch.setattr(BackfillClickHouse, "topology", topology)
    monkeypatch.setattr(BackfillClickHouse, "mutations", mutations)
    monkeypatch.setattr(WaitTrigger, "connection", connection)
    monkeypatch.setattr(MutationsTrigger, "look", look)
    sent = (deleted().sent[0].model_copy(update={"at": time.time()}),)
    left["windows.delete", "return_value"] = deleted(sent=sent)
    waits = [placed(MutationsTrigger(**IN_GROUP), "windows.wait_mutations") for _ in range(1_000)]
    tasks = [asyncio.create_task(only_event(wait)) for wait in waits]
    for interval in range(1, 4):
        two_rounds.clear()
        async with asyncio.timeout(60):
            await two_rounds.wait()
        assert (counts["topology"], counts["mutations"]) == (1, interval)
        assert counts["connections"] <= interval + 1
        clock.now += 0.2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_young_wait_takes_no_snapshot_older_than_half_its_own_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, clickhouse={"mutation_poll_seconds": 30})
    ages: list[float] = []

    async def get(self: SharedPoll, key: Any, load: Any, *, max_age: float) -> Any:
        ages.append(max_age)
        return []

    monkeypatch.setattr(SharedPoll, "get", get)
    trigger = MutationsTrigger(**IN_GROUP)
    trigger.args = trigger.model.model_construct(**trigger.given)
    trigger.config = settings.cluster_config(NAME)
    await trigger.mutations()
    trigger._looking_since = time.monotonic() - 3_600
    await trigger.mutations()
    assert ages == [3.0, 15.0]
