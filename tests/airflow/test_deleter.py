"""A generation that is sent anew waits for earlier ones that a node still executes, and only for these."""

from __future__ import annotations

import logging
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from backfill.deleting.deleter import Deleter, DropRefusedError
from backfill.hooks.clickhouse_errors import DdlAnswer, classify_ddl_error
from backfill.kit.stages import StageError
from backfill.kit.store import RunStore
from include.scorecard_backfill import sql
from include.scorecard_backfill.planning.deletes import Step
from include.scorecard_backfill.verdicts.counts import Host
from tests.kit.store import Store

KEY = "0123456789abcdef"
NAMES = sql.Names("scorecard_time", "customer_id", "profile_id", "conversation_id")
PART = sql.Slice("acme_voice", "acme", "voice", date(2026, 1, 1), date(2026, 2, 1))


def statement(generation: int, *, table: str = "scorecard", key: str = KEY, chunk: int = 0) -> str:
    """A DELETE as the nodes list it."""
    return sql.delete_statement(
        cluster="conversations", table=table, part=PART, names=NAMES, key=key, generation=generation, chunk=chunk
    )


def drop(table: str) -> str:
    """A DROP PARTITION as the nodes list it."""
    return sql.drop_partition_statement(
        cluster="conversations", database="acme_voice", table=table, partition_id="202601"
    )


def send(generation: int, *running: str) -> list[str]:
    """Send the step of a generation while node-1 executes these statements, and return what was sent."""
    sent: list[str] = []

    def send_ddl(text: str, hosts: Any) -> Any:
        sent.append(text)
        return SimpleNamespace(outcome="done", errors={}, hosts=("node-1",), text="")

    def running_ddl(*needles: str) -> list[str]:
        texts = [text.replace("`", "") for text in running]
        return ["node-1"] if any(all(needle in text for needle in needles) for text in texts) else []

    store = RunStore({"task_state_store": Store()})
    config = SimpleNamespace(cluster="conversations")
    hook: Any = SimpleNamespace(config=config, names=NAMES, send_ddl=send_ddl, running_ddl=running_ddl)
    deleter = Deleter(hook, [Host("node-1", 1)], store, logging.getLogger(__name__), KEY, generation, lambda: None)
    deleter.send(Step("scorecard", PART))
    return sent


@pytest.mark.parametrize(
    "running", [statement(1), statement(2), statement(1, table="score"), statement(2, chunk=4), drop("scorecard")]
)
def test_it_waits_for_an_earlier_one(running: str) -> None:
    with pytest.raises(StageError, match="node-1 still executes an earlier DELETE"):
        send(3, running)


@pytest.mark.parametrize(
    "running",
    [statement(3, table="score"), statement(3, chunk=1), statement(13), statement(1, key="f" * 16), drop("score")],
)
def test_it_does_not_wait_for_its_own_generation_or_for_other_windows(running: str) -> None:
    assert send(3, running) == [statement(3)]


def test_the_first_one_has_nothing_to_wait_for() -> None:
    assert send(1, statement(13), drop("scorecard")) == [statement(1)]


TOO_LARGE = "There was an error on [node-2:9000]: Code: 359. DB::Exception: Not dropped (TOO_LARGE)"


def dropping(answer: DdlAnswer) -> tuple[Deleter, Step]:
    """A step that drops a partition, and what the server answers to it."""
    hook: Any = SimpleNamespace(
        config=SimpleNamespace(cluster="conversations"),
        names=NAMES,
        send_ddl=lambda text, hosts: answer,
        running_ddl=lambda *needles: [],
    )
    hosts = [Host("node-1", 1), Host("node-2", 2)]
    store = RunStore({"task_state_store": Store()})
    deleter = Deleter(hook, hosts, store, logging.getLogger(__name__), KEY, 1, lambda: None)
    return deleter, Step("scorecard", PART, kind="drop", partitions=("202601",))


def test_a_partition_that_one_shard_refuses_to_drop_is_not_dropped_again() -> None:
    """The other shard has dropped it: what is left must go by rows, and a repetition must know that."""
    deleter, step = dropping(classify_ddl_error(DatabaseError(TOO_LARGE, code=359)))
    with pytest.raises(DropRefusedError, match="TOO_LARGE"):
        deleter.send(step)
    assert deleter.drop_was_refused("scorecard", PART)
    assert deleter.dropped("scorecard", PART) is None


def test_a_partition_that_was_dropped_everywhere_is_known_as_such() -> None:
    deleter, step = dropping(DdlAnswer("done", frozenset({"node-1", "node-2"})))
    assert deleter.send(step).accepted == ("node-1", "node-2")
    assert not deleter.drop_was_refused("scorecard", PART)
    assert deleter.dropped("scorecard", PART) == step


@pytest.mark.parametrize(
    ("kept", "running", "queued", "state"),
    [
        ({}, False, False, "none"),
        ({"state": "sending", "at": 1.0}, False, False, "none"),
        ({"state": "sending", "at": 1.0}, True, False, "maybe"),
        ({"state": "sending", "at": 1.0}, False, True, "maybe"),
        ({"state": "sending", "at": 1.0, "answered": True}, False, False, "maybe"),
        ({"state": "sent", "at": 1.0}, False, False, "taken"),
    ],
)
def test_what_is_known_of_a_step_whose_worker_was_killed(kept: Any, running: bool, queued: bool, state: str) -> None:
    """Without an answer, and never queued: it has not left. After an answer the queue's past proves nothing."""
    asked: list[tuple[str, ...]] = []

    def was_queued(*needles: str) -> bool:
        asked.append(needles)
        return queued

    hook: Any = SimpleNamespace(running_ddl=lambda *n: ["node-1"] * running, was_queued=was_queued)
    store = RunStore({"task_state_store": Store()})
    deleter = Deleter(hook, [Host("node-1", 1)], store, logging.getLogger(__name__), KEY, 1, lambda: None)
    step = Step("scorecard", PART)
    store.set(deleter._store_key(step), kept)
    assert deleter.sent_state(step) == state
    assert asked in ([], [sql.delete_needles("acme_voice", "scorecard", KEY, 1)])


@pytest.mark.parametrize(("table", "state"), [("score", "none"), ("scorecard", "maybe")])
def test_the_delete_of_another_table_of_the_window_is_no_trace_of_this_one(table: str, state: str) -> None:
    """All tables of a window have the same marker: what was sent of one said that the other's was in the queue."""

    def queued(*needles: str) -> bool:
        return all(needle in statement(1, table=table).replace("`", "") for needle in needles)

    hook: Any = SimpleNamespace(running_ddl=lambda *n: [], was_queued=queued)
    store = RunStore({"task_state_store": Store()})
    deleter = Deleter(hook, [Host("node-1", 1)], store, logging.getLogger(__name__), KEY, 1, lambda: None)
    step = Step("scorecard", PART)
    store.set(deleter._store_key(step), {"state": "sending", "at": 1.0})
    assert deleter.sent_state(step) == state


@pytest.mark.parametrize(("seen", "accepted"), [("queued", ()), ("done", ("node-1", "node-2"))])
def test_a_delete_that_is_only_queued_was_taken_by_no_host(seen: Any, accepted: tuple[str, ...]) -> None:
    """With overlap the reindex begins once every host has the DELETE; one in the queue would take the new rows."""
    store = RunStore({"task_state_store": Store()})
    hook: Any = SimpleNamespace(config=SimpleNamespace(cluster="conversations"), names=NAMES)
    hosts = [Host("node-1", 1), Host("node-2", 1)]
    deleter = Deleter(hook, hosts, store, logging.getLogger(__name__), KEY, 1, lambda: None)
    assert deleter.record(Step("scorecard", PART), [], seen).accepted == accepted
