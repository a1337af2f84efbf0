"""What the sender of a window's DELETE sends, waits for, finds there already, or ends with."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.execution_time.context import NEVER_EXPIRE
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from backfill.deleting import deleter, sender, turn
from backfill.deleting.sender import DeleteSender, Order
from backfill.hooks.clickhouse_errors import DdlAnswer
from backfill.kit.refusal import Refusal
from backfill.kit.stages import StageError
from backfill.kit.store import FAILED, GENERATION, name_of
from include.scorecard_backfill import life
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.records import Database, Failure, KeptStep, Numbers, Sent, Stage, TableDays
from include.scorecard_backfill.verdicts.mutations import Mutation
from tests.kit.house import HOSTS, KEY, House, mutation
from tests.kit.waits import NAME, cluster, configure, context, deleted, window

__all__ = ["cluster"]

Json = dict[str, Any]
BOTH = frozenset({"node-1", "node-2"})
TAKEN = ("node-1", "node-2")
MAYBE = KeptStep(state="sending", at=5.0, answered=True).to_json()
DAYS = {"2026-01-05": 60, "2026-01-07": 0, "2026-01-09": 50}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_SECONDS", "REFUSED_SECONDS"):
        monkeypatch.setattr(deleter, name, 0.0)
    for name in ("LOOK_TRIES", "REFUSED_TRIES"):
        monkeypatch.setattr(deleter, name, 1)


@dataclass
class Site:
    """A sender, its servers and what its task keeps."""

    house: House
    sender: DeleteSender
    context: Json

    @property
    def store(self) -> Any:
        return self.context["task_state_store"]

    @property
    def sent(self) -> list[str]:
        """The statements that have left."""
        return [text for kind, text in (one for one in self.house.asked if isinstance(one, tuple)) if kind == "send"]

    def keep(self, value: Json, *, generation: int = 1, chunk: int = 0, drop: str = "") -> None:
        """Let the store hold what is known of a step."""
        step = f"sent:acme_voice.scorecard:{generation}.{chunk}{drop}"
        self.store.set(name_of(step, KEY), value, retention=NEVER_EXPIRE)

    def kept(self, name: str) -> Any:
        """What is kept of the window."""
        return self.store.get(name_of(name, KEY))


def site(
    monkeypatch: pytest.MonkeyPatch,
    house: House | None = None,
    stage: Stage = "delete",
    others: Json | None = None,
    **limits: Any,
) -> Site:
    """A sender whose hook is a ClickHouse from memory."""
    house = House() if house is None else house
    delete = {
        "drop_partition": False, "max_rows_per_mutation": 1_000, "max_partition_bytes": 10**9,
        "max_own_unfinished_mutations": 3,
    }  # fmt: skip
    house.config = SimpleNamespace(
        cluster="conversations", max_unfinished_foreign_mutations=2, delete=SimpleNamespace(**delete | limits)
    )
    house.topology = lambda: list(HOSTS)  # type: ignore[attr-defined]

    def hook(config: ClusterConfig) -> House:
        assert config.name == NAME
        return house

    monkeypatch.setattr(sender, "BackfillClickHouse", hook)
    monkeypatch.setattr(turn, "state_now", lambda ti: "running")
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", lambda **_: {"manual__1": dict(others or {})})
    made = DeleteSender(BaseOperator(task_id="delete"), NAME, stage)
    # Airflow's own logger writes to its task's log, which no test sees.
    monkeypatch.setattr(made, "log", logging.getLogger(__name__))
    return Site(house, made, context("windows.delete"))


def order(*, generation: int = 1, drop: bool = False, resent: Any = None, tables: Any = (), **facts: Any) -> Order:
    names = tables or ("scorecard",)
    rows = {day: Numbers(rows=n) for day, n in DAYS.items()}
    both = (Database(name="acme_voice", profile_id="voice", tables=tuple(names)),)
    counted = tuple(TableDays(database="acme_voice", table=name, days=rows) for name in names)
    return Order(window(databases=both), counted, generation, None, drop, life.Facts(**facts), resent)


def deferred(found: Site, asked: Order) -> Json:
    """What the trigger is told with which sending must end."""
    with pytest.raises(TaskDeferred) as raised:
        found.sender.send(found.context, asked)
    assert raised.value.method_name == "resume"
    told = raised.value.trigger.serialize()[1]
    return dict(told)


def test_a_statement_for_each_table_is_sent_once_and_who_took_it_is_kept(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = site(monkeypatch)
    records = found.sender.send(found.context, order(tables=("score", "scorecard")))
    assert [(r.table, r.accepted) for r in records] == [
        ("score", tuple(sorted(BOTH))),
        ("scorecard", tuple(sorted(BOTH))),
    ]
    assert ["`score`" in text for text in found.sent] == [True, False]
    assert found.sender.send(found.context, order(tables=("score", "scorecard"))) == records
    assert len(found.sent) == 2


def test_what_the_hosts_show_is_recorded_and_not_sent(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = site(monkeypatch, House(listed=[[mutation(created=7), mutation("node-2", created=9)]]))
    (record,) = found.sender.send(found.context, order())
    assert (record.at, record.accepted, found.sent) == (7.0, ("node-1", "node-2"), [])


def test_what_was_found_done_by_a_count_was_taken_by_every_host(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Finished mutations are not listed for ever: no row is left, and nobody knows of the statement any more.
    found = site(monkeypatch)
    found.keep(MAYBE)
    monkeypatch.setattr(deleter.Deleter, "seen", lambda *_: "done")
    (record,) = found.sender.send(found.context, order())
    assert (record.at, record.accepted, found.sent) == (5.0, ("node-1", "node-2"), [])


def test_days_are_sent_one_after_the_other_and_each_is_waited_for(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(
        tmp_path, monkeypatch, waits={"first_poll_after_seconds": 7}, clickhouse={"mutation_deadline_seconds": 900}
    )
    working = mutation(chunk=1)
    found = site(monkeypatch, House(listed=[[], [working]]), max_rows_per_mutation=100)
    began = time.time()
    with pytest.raises(TaskDeferred) as raised:
        found.sender.send(found.context, order())
    told = raised.value.trigger.serialize()[1]
    assert raised.value.timeout is not None
    assert raised.value.timeout.total_seconds() >= 900
    assert len(found.sent) == 1
    assert f"'backfill:{KEY}:1.1'" in found.sent[0]
    assert (told["cluster"], told["key"], told["table"]) == (NAME, KEY, ["acme_voice", "scorecard"])
    assert (told["generation"], told["chunk"], sorted(told["accepted"])) == (1, 1, sorted(BOTH))
    assert began <= told["at"]
    assert told["at"] + 7 <= told["not_before"] <= time.time() + 7


def test_a_day_that_is_done_everywhere_is_not_waited_for(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = site(monkeypatch, max_rows_per_mutation=100)
    (record,) = found.sender.send(found.context, order())
    marks = [text.split("'backfill:")[1].split("'")[0] for text in found.sent]
    assert marks == [f"{KEY}:1.1", f"{KEY}:1.2", f"{KEY}:1"]
    # One record of all steps, with the time of the first.
    kept = [found.kept(f"sent:acme_voice.scorecard:1.{chunk}")["at"] for chunk in (1, 2, 0)]
    assert record.at == min(kept)


@pytest.mark.parametrize(
    ("listed", "limits", "named"),
    [
        ([mutation(key="f" * 16, table=name, mutation_id=name) for name in "abc"], {}, "3 of our mutations"),
        ([mutation(key="", command="(MODIFY COLUMN a String)")], {}, "another ALTER of acme_voice.scorecard"),
    ],
    ids=["enough of ours", "one alters the table"],
)
def test_a_step_waits_for_room_without_anything_being_sent(
    listed: list[Mutation],
    limits: Json,
    named: str,
    cluster: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = site(monkeypatch, House(listed=[listed]), **limits)
    caplog.set_level(logging.INFO)
    told = deferred(found, order())
    assert (told["chunk"], told["accepted"], told["at"]) == (0, [], 0.0)
    assert found.sent == []
    assert [name for name in found.store.values if "sent:" in name] == []
    assert named in caplog.text


def test_room_that_a_window_before_this_one_may_take_at_this_moment_is_none(
    cluster: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    others = [mutation(key="f" * 16, table=name) for name in "ab"]
    found = site(monkeypatch, House(listed=[others]), others={"windows.delete_3": "running"})
    found.context["ti"].map_index = 4
    caplog.set_level(logging.INFO)
    deferred(found, order())
    assert found.sent == []
    assert "2 of our mutations are unfinished, and 1 windows before this one are sending (limit 3)" in caplog.text


def test_who_sends_is_asked_before_the_look_that_shows_what_was_sent(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    found = site(monkeypatch, House(listed=[[]]))
    look = found.house.mutations

    def mutations() -> list[Mutation]:
        asked.append("mutations")
        return look()

    def ahead(self: turn.Turn) -> int:
        asked.append("states")
        return 0

    monkeypatch.setattr(found.house, "mutations", mutations)
    monkeypatch.setattr(turn.Turn, "ahead", ahead)
    found.sender.send(found.context, order())
    assert asked[:2] == ["states", "mutations"]


def test_below_the_limit_there_is_room(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [mutation(key="f" * 16, table=name) for name in "ab"]
    found = site(monkeypatch, House(listed=[others]))
    found.sender.send(found.context, order())
    assert len(found.sent) == 1


def test_too_many_mutations_of_others_refuse_the_step(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [mutation(key="", mutation_id=f"mutation_{n}.txt") for n in range(3)]
    found = site(monkeypatch, House(listed=[others]))
    with pytest.raises(StageError, match="3 unfinished mutations of others"):
        found.sender.send(found.context, order())
    assert found.sent == []


def test_a_delete_that_nobody_has_ends_the_task_until_a_person_clears_it(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = site(monkeypatch, House(counted={"node-1": {"2026-01-05": 3}}), stage="wait_mutations")
    found.keep(MAYBE)
    with pytest.raises(Refusal, match="no host has a trace of it"):
        found.sender.send(found.context, order(resent=deleted(generation=1)))
    assert found.sent == []
    kept = Failure.from_json(found.kept(FAILED))
    assert (kept.key, kept.stage, kept.cause, kept.generation) == (KEY, "wait_mutations", "delete_unknown", 1)
    assert kept.reason.startswith("acme_voice.scorecard")
    assert kept.what_to_do
    assert kept.deleted == deleted(generation=1)

    # A clear of it sends the next generation, which is kept before it leaves.
    noted: list[Any] = []
    found.house.on_send = lambda: noted.append(found.kept(GENERATION))
    (record,) = found.sender.send(found.context, order(left="delete"))
    assert noted == [2]
    assert found.house.waited_for == [HOSTS]
    assert f"'backfill:{KEY}:2'" in found.sent[-1]
    assert record.accepted == ("node-1", "node-2")


def test_a_failure_of_a_later_generation_keeps_which_one_it_is(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = site(monkeypatch, House(counted={"node-1": {"2026-01-05": 3}}))
    found.keep(MAYBE, generation=3)
    with pytest.raises(Refusal):
        found.sender.send(found.context, order(generation=3, resent=deleted(generation=2)))
    kept = Failure.from_json(found.kept(FAILED))
    assert (kept.generation, kept.deleted) == (3, deleted(generation=3))


def test_without_a_record_a_failure_keeps_none(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = site(monkeypatch, House(counted={"node-1": {"2026-01-05": 3}}))
    found.keep(MAYBE)
    with pytest.raises(Refusal):
        found.sender.send(found.context, order())
    assert Failure.from_json(found.kept(FAILED)).deleted is None


def test_rows_that_were_written_since_are_not_deleted_by_a_clear(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = site(monkeypatch, House(counted={"node-1": {"2026-01-05": 3}}))
    found.keep(MAYBE)
    with pytest.raises(Refusal, match="rows were written again"):
        found.sender.send(found.context, order(left="delete", written=True))
    assert found.sent == []


def test_hosts_that_never_took_it_get_the_next_generation_by_a_clear(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = mutation("node-1", is_done=True)
    found = site(monkeypatch, House(listed=[[done]]))
    found.sender.send(found.context, order())
    assert found.sent == []
    found.sender.send(found.context, order(left="delete"))
    assert [f"'backfill:{KEY}:2'" in text for text in found.sent] == [True]


def test_where_every_host_has_done_it_a_clear_sends_nothing(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = [mutation(name, is_done=True) for name in sorted(BOTH)]
    found = site(monkeypatch, House(listed=[done]))
    found.sender.send(found.context, order(left="delete"))
    assert found.sent == []


def test_what_is_not_known_is_looked_at_by_the_next_try(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = site(monkeypatch)
    monkeypatch.setattr(deleter.Deleter, "seen", lambda *_: "unknown")
    with pytest.raises(StageError, match="the next try looks again"):
        found.sender.send(found.context, order())
    assert found.sent == []
    assert found.kept(FAILED) is None


def test_partitions_that_a_host_refuses_to_drop_are_deleted_by_rows(
    cluster: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = site(monkeypatch, drop_partition=True)
    house: Any = found.house
    house.partition_keys = lambda *_: ["toYYYYMM(scorecard_time)"]
    house.held_partitions = lambda *_: {"node-1": [("202601", 110, 0)], "node-2": []}
    house.rows = lambda *_: []
    answers = [DdlAnswer("done", frozenset({"node-1"}), errors={"node-2": "359: too large"}), house.answer]
    house.on_send = lambda: setattr(house, "answer", answers.pop(0))
    (record,) = found.sender.send(found.context, order(drop=True))
    assert ["DROP PARTITION" in text for text in found.sent] == [True, False]
    assert (record.partitions, record.accepted) == ((), ("node-1", "node-2"))
    assert "359: too large; what is left of it is deleted by rows" in caplog.text
    assert found.house.waited_for == [HOSTS, HOSTS]


def test_the_bytes_of_partitions_decide_and_why_is_said(
    cluster: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    found = site(monkeypatch, drop_partition=True, max_partition_bytes=10)
    house: Any = found.house
    keys = house.partition_keys = Mock(return_value=["toYYYYMM(scorecard_time)"])
    held = house.held_partitions = Mock(return_value={"node-1": [("202601", 110, 0)], "node-2": []})
    sizes = house.rows = Mock(return_value=[{"host": "node-1", "partition_id": "202601", "bytes": 11}])
    found.sender.send(found.context, order(drop=True))
    assert ["DROP PARTITION" in text for text in found.sent] == [False]
    assert "acme_voice.scorecard is deleted by mutation" in caplog.text
    keys.assert_called_once_with("acme_voice", "scorecard")
    (table, _, wanted, hosts), _ = held.call_args
    assert (table, wanted, list(hosts)) == ("scorecard", ("202601",), HOSTS)
    assert all(text in sizes.call_args[0][0] for text in ("'conversations'", "'acme_voice'", "'scorecard'"))


def test_the_first_time_and_the_last_hosts_make_the_record(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = site(monkeypatch, max_rows_per_mutation=100)
    for chunk, at, hosts in ((1, 30.0, BOTH), (2, 20.0, BOTH), (0, 40.0, {"node-1"})):
        kept = KeptStep(state="sent", at=at, accepted=tuple(sorted(hosts)))
        found.keep(kept.to_json(), chunk=chunk)
    (record,) = found.sender.send(found.context, order())
    assert record == Sent(database="acme_voice", table="scorecard", at=20.0, accepted=("node-1",))
    assert found.sent == []
