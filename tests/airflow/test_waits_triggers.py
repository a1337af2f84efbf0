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
from typing import Any

import pytest
from airflow.models.trigger import Trigger
from airflow.sdk import BaseHook, Variable
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import TaskFailedEvent, TaskSuccessEvent

from backfill import settings
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.triggers.admit import AdmitTrigger
from backfill.triggers.base import WaitTrigger
from backfill.triggers.chunk import ChunkTrigger
from backfill.triggers.job import JobTrigger
from backfill.triggers.mutations import MutationsTrigger
from backfill.triggers.quiet import QuietTrigger
from backfill.triggers.verify import VerifyTrigger
from backfill.triggers.workflows import WorkflowsTrigger
from include.scorecard_backfill.verdicts.counts import Host
from tests.kit.clock import Clock, clock
from tests.kit.waits import (
    KEY,
    NAME,
    VERIFIED,
    cluster,
    deleted,
    only_event,
    reindexed,
    window,
)

__all__ = ["clock", "cluster"]

Json = dict[str, Any]
SLOT: Json = {"dag_id": "d", "run_id": "r", "run": {"max_parallel": 2}, "index": 0, "windows": []}


def admit(**fields: Any) -> AdmitTrigger:
    """A window's admission as Airflow renders it."""
    rendered: Json = {"map_index": "0", "customers": '["acme"]', "verified": "null",
                      "run_record": json.dumps({"max_parallel": 2, "sources": {}})}  # fmt: skip
    return AdmitTrigger(cluster=NAME, dag_id="d", run_id="r", group="windows", **(rendered | fields))


TRIGGERS: list[WaitTrigger] = [
    admit(),
    ChunkTrigger(cluster=NAME, key=KEY, table=["acme_voice", "scorecard"], generation=1, chunk=0, accepted=[], at=0.0),
    MutationsTrigger(cluster=NAME, key=KEY, deleted=deleted(), previous="null", overlap="False", not_before=1.5),
    JobTrigger(cluster=NAME, key=KEY, job_name="reindex-acme-1", attempt=1, made_at=time.time()),
    QuietTrigger(cluster=NAME, key=KEY, window=window(), since=0.0, slot=SLOT),
    WorkflowsTrigger(cluster=NAME, key=KEY, reindexed=reindexed(1, "w-1"), then="verify"),
    VerifyTrigger(cluster=NAME, deleted=deleted(), waited={"attempt": 1}, attempt=2),
]
each_trigger = pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda t: type(t).__name__)


def test_every_trigger_of_the_package_is_looked_at_here() -> None:
    modules = ("admit", "base", "chunk", "job", "mutations", "quiet", "verify", "workflows")
    found = set()
    for name in modules:
        module = importlib.import_module(f"backfill.triggers.{name}")
        found |= {c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, WaitTrigger)}
    assert {c for c in found if "path" in vars(c)} == {type(trigger) for trigger in TRIGGERS}


@each_trigger
def test_a_trigger_goes_through_the_database_unchanged(trigger: WaitTrigger) -> None:
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
def test_a_trigger_carries_no_secret(trigger: WaitTrigger) -> None:
    text = json.dumps(trigger.serialize()).lower()
    assert not [word for word in ("password", "pass-word", "token", "conn_id", "/tmp", "/home") if word in text]


@each_trigger
def test_what_only_a_worker_may_repeat_is_ended_by_a_worker(trigger: WaitTrigger) -> None:
    # Airflow repeats a failure that a trigger reports when the task has retries; admit has none, and the triggers that
    # a worker defers to always wake it.
    assert trigger.fails_on_worker or isinstance(trigger, AdmitTrigger | QuietTrigger | JobTrigger)


def failure(event: Any) -> Json:
    """The record of a failure, whoever is to end the task with it."""
    found: Any = (event.xcoms or {})["return_value"] if isinstance(event, TaskFailedEvent) else event.payload
    return dict(found.get("record") or found)


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
    trigger: WaitTrigger, cluster: str, watch: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch()
    monkeypatch.setattr(type(trigger), "outage_seconds", 0.3)
    record = failure(await only_event(type(trigger)(**trigger.serialize()[1])))
    if isinstance(trigger, AdmitTrigger):
        # Only a triggerer can answer what the states of the run are; the question was asked outside the loop.
        assert "SUPERVISOR_COMMS" in record["reason"]
    else:
        assert record["cause"] == "outage", record


async def test_the_guard_sees_a_blocking_call(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = guard_loop(monkeypatch, loops := [])
    await asyncio.to_thread(time.sleep, 0)
    assert blocked == []
    loops.append(threading.get_ident())
    with pytest.raises(BlockingError):
        socket.create_connection(("127.0.0.1", 1))
    assert blocked == ["create_connection"]


NO_SERVERS: list[tuple[str, WaitTrigger]] = [
    ("verified", admit(verified=json.dumps(VERIFIED))),
    ("verified", MutationsTrigger(cluster=NAME, deleted=deleted(), verified=VERIFIED)),
    ("cut", MutationsTrigger(cluster=NAME, deleted=json.dumps(deleted()), cut=json.dumps([KEY]))),
    ("nothing", MutationsTrigger(cluster=NAME, deleted=deleted(sent=[]))),
    ("verified", WorkflowsTrigger(cluster=NAME, reindexed=reindexed(1, "w-1"), verified=json.dumps(VERIFIED))),
    ("cut", WorkflowsTrigger(cluster=NAME, reindexed=reindexed(1, "w-1"), cut=[KEY])),
    ("verified", VerifyTrigger(cluster=NAME, deleted=deleted(), previous=json.dumps(json.dumps(VERIFIED)))),
    ("cut", VerifyTrigger(cluster=NAME, deleted=deleted(), cut=f'["{KEY}"]')),
]


@pytest.mark.parametrize(("status", "trigger"), NO_SERVERS, ids=lambda v: v if isinstance(v, str) else type(v).__name__)
async def test_a_settled_window_that_is_cleared_ends_without_a_look_at_any_server(
    status: str, trigger: WaitTrigger, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> Any:
        raise AssertionError("a server was asked")

    for name in ("connection", "clickhouse", "hosts"):
        monkeypatch.setattr(WaitTrigger, name, refuse)
    event = await only_event(trigger)
    assert isinstance(event, TaskSuccessEvent), event
    assert event.xcoms is not None
    result: Any = event.xcoms["return_value"]
    assert result["key"] == KEY
    if not isinstance(trigger, AdmitTrigger):
        assert result["status"] == status
    if isinstance(trigger, VerifyTrigger) and status == "verified":
        # The report reads this record; a no-op must not lose its numbers.
        assert result == VERIFIED


@pytest.mark.parametrize(
    ("trigger", "text"),
    [
        (MutationsTrigger(cluster=NAME, deleted="null"), "clear it (windows.delete)"),
        (WorkflowsTrigger(cluster=NAME, reindexed="None"), "clear it (reindex)"),
        (VerifyTrigger(cluster=NAME, deleted=""), "clear it (delete)"),
        (admit(map_index="7"), "map index 7 is not in the plan of 1 windows"),
        (admit(customers="null"), "is not in the plan of 0 windows"),
        (admit(customers="{"), "JSONDecodeError"),
    ],
    ids=lambda v: v[:20] if isinstance(v, str) else type(v).__name__,
)
async def test_a_stage_without_its_input_says_what_to_clear(trigger: WaitTrigger, text: str, cluster: str) -> None:
    record = failure(await only_event(trigger))
    assert record["cause"] == "configuration"
    assert text in record["reason"]


async def test_mutations_go_on_with_the_delete_that_an_earlier_try_has_sent_again(cluster: str) -> None:
    newer = deleted(generation=2)
    trigger = MutationsTrigger(
        cluster=NAME, deleted=deleted(), previous={"status": "failed", "cause": "stalled", "deleted": newer}
    )
    trigger.config = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        trigger.prepare()
    assert trigger._deleted["generation"] == 2


@pytest.mark.parametrize("key", ["another", KEY])
async def test_workflows_of_another_window_are_never_taken_over(key: str, cluster: str) -> None:
    newer = reindexed(5, "w-5") | {"key": key}
    trigger = WorkflowsTrigger(
        cluster=NAME, reindexed=reindexed(1, "w-1"), previous={"status": "failed", "reindexed": newer}
    )
    trigger.config = settings.cluster_config(NAME)
    trigger.prepare()
    assert trigger._by_log == (["w-5"] if key == KEY else ["w-1"])


HOSTS = (Host("node-1-1", 1), Host("node-2-1", 2))


async def test_a_thousand_waits_look_at_the_mutations_once_for_each_interval(
    cluster: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
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
    sent = [deleted()["sent"][0] | {"at": time.time()}]
    waits = [MutationsTrigger(cluster=NAME, deleted=deleted(key=f"{n:016x}", sent=sent)) for n in range(1_000)]
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
