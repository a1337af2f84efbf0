"""The waits for mutations look by look: what ends them, what they count, and what an unfinished resend goes on with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit.debts import DebtBook
from backfill.kit.look import Done, Failed, Look, Wait, Wake
from backfill.settings import cluster_config
from backfill.triggers import mutations
from backfill.triggers.chunk import ChunkTrigger
from backfill.triggers.mutations import MutationsTrigger
from include.scorecard_backfill import sql
from include.scorecard_backfill.config.rules import condition_of
from include.scorecard_backfill.records import Failure, GoEvent, MutationsGone, ResendEvent, Sent
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.mutations import Mutation
from tests.kit.build import debt
from tests.kit.store import AssetState
from tests.kit.waits import BEFORE, KEY, NAME, Left, assets, cluster, configure, deleted, left, placed, window

__all__ = ["assets", "cluster", "left"]

Json = dict[str, Any]

HOSTS = (Host("node-1-1", 1), Host("node-2-1", 2))
BOTH = ("node-1-1", "node-2-1")
TABLE = ("acme_voice", "scorecard")
WRITTEN = {"clickhouse": {"written_columns": {"scorecard": {"column": "updated_at"}}}}


def mutation(host: str, marker: str = f"{KEY}:1", **fields: Any) -> Mutation:
    """A DELETE of ours on one host, which is done."""
    command = f"DELETE WHERE 'backfill:{marker}' != ''"
    base: Json = {"is_done": True, "parts_to_do": 0, "fail_reason": "", "is_killed": False, "created": 5}
    return Mutation(host, *TABLE, "m1", command, **base | fields)


class House:
    """What ClickHouse shows, and what was counted."""

    def __init__(self) -> None:
        self.listed: list[Mutation] = []
        self.rows: dict[str, dict[str, int]] = {"node-1-1": {}, "node-2-1": {}}
        self.queued: list[str] = []
        self.counted: list[Any] = []
        self.asked: list[tuple[str, ...]] = []


@pytest.fixture
def house(cluster: str, left: Left, assets: AssetState, monkeypatch: pytest.MonkeyPatch) -> House:
    """A cluster of two hosts on which the DELETE was accepted."""
    made = House()

    def host_counts(self: Any, parts: Any, hosts: Any) -> Any:
        assert hosts == HOSTS
        made.counted += parts
        return [made.rows for _ in parts]

    def queued(self: Any, *needles: str) -> list[str]:
        made.asked.append(needles)
        return made.queued

    monkeypatch.setattr(BackfillClickHouse, "topology", lambda self: HOSTS)
    monkeypatch.setattr(BackfillClickHouse, "mutations", lambda self: list(made.listed))
    monkeypatch.setattr(BackfillClickHouse, "host_counts", host_counts)
    monkeypatch.setattr(BackfillClickHouse, "queued_ddl", queued)
    left["windows.delete", "return_value"] = deleted(sent=(sent(),))
    return made


def sent(**fields: Any) -> Sent:
    """A statement that both hosts have taken."""
    base = Sent(database="acme_voice", table="scorecard", at=datetime.now(UTC).timestamp(), accepted=BOTH)
    return base.model_copy(update=fields)


def run(trigger: Any, task_id: str, times: int, each: Callable[[int], None] | None = None) -> list[Look]:
    """As many looks of one task, one after the other; ``each`` is called before a look with its number."""

    async def look() -> list[Look]:
        trigger.args = trigger.model.model_validate(trigger.given)
        trigger.config = cluster_config(NAME)
        placed(trigger, task_id)
        if isinstance(trigger, MutationsTrigger):
            await trigger._find_window()
        await trigger.prepare()
        found = []
        for number in range(times):
            if each:
                each(number)
            found.append(await trigger.look())
        return found

    return asyncio.run(look())


def waited(times: int = 1, **args: Any) -> Look:
    """The last of so many looks of wait_mutations."""
    return run(MutationsTrigger(cluster=NAME, group="windows", **args), "windows.wait_mutations", times)[-1]


def failure(found: Look) -> Failure:
    """The failure of a look."""
    assert isinstance(found, Failed), found
    return found.failure


def text(found: Look) -> str:
    """The reason of a wait."""
    assert isinstance(found, Wait), found
    return found.text


GONE = MutationsGone(key=KEY, status="gone", generation=1, hosts=BOTH)


def test_done_everywhere_and_no_row_left_is_the_end(house: House) -> None:
    house.listed = [mutation("node-1-1"), mutation("node-2-1")]
    found = waited()
    assert isinstance(found, Done)
    assert (found.result, found.why) == (GONE, "done on every host, no row is left")
    ((_, part),) = window().slices()
    assert house.counted == [("scorecard", part, "")]


def test_a_host_that_works_is_waited_for_and_nothing_is_counted(house: House) -> None:
    house.listed = [mutation("node-1-1", is_done=False, parts_to_do=4), mutation("node-2-1")]
    assert "4 parts to do on node-1-1" in text(waited())
    assert house.counted == []


def test_what_others_change_of_the_table_is_named_beside_it(house: House) -> None:
    other = mutation("node-2-1", is_done=False)
    command = "MODIFY COLUMN grade UInt8"
    house.listed = [mutation("node-1-1", is_done=False), replace(other, command=command),
                    replace(other, table="score", command=command)]  # fmt: skip
    _, *named = text(waited()).split("; ")
    assert named == [f"another ALTER of acme_voice.scorecard is unfinished on node-2-1: {command}"]


def test_a_mutation_that_goes_on_failing_is_for_a_person(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(mutations, "time", SimpleNamespace(monotonic=lambda: now[0], time=lambda: 0.0))
    house.listed = [mutation("node-1-1", is_done=False, fail_reason="disk full"), mutation("node-2-1")]

    def each(number: int) -> None:
        now[0] = 1_000.0 + 0.5 * number

    trigger = MutationsTrigger(cluster=NAME, group="windows")
    first, second, third = run(trigger, "windows.wait_mutations", 3, each)
    assert "(disk full)" in text(first)
    assert isinstance(second, Wait)
    found = failure(third)
    assert (found.cause, found.reason) == (
        "fail_reason", "the mutation on acme_voice.scorecard fails on node-1-1: disk full",
    )  # fmt: skip


KILLED = "the mutation on acme_voice.scorecard was killed on node-1-1; rows may remain"


@pytest.mark.parametrize("overlap", [False, True])
def test_a_killed_mutation_fails_only_when_no_host_works_on_it_any_more(
    house: House, left: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlap: bool
) -> None:
    configure(tmp_path, monkeypatch, **WRITTEN)
    if overlap:
        choose_overlap(left)
    house.listed = [mutation("node-1-1", is_killed=True, is_done=False), mutation("node-2-1", is_done=False)]
    if not overlap:
        assert text(waited()) == KILLED
    house.listed[1] = mutation("node-2-1")
    found = failure(waited())
    assert (found.cause, found.reason, found.generation) == ("killed", KILLED, 1)
    assert house.counted == []


def test_a_host_that_never_took_it_fails_only_when_no_other_works_on_it_any_more(house: House, left: Left) -> None:
    left["windows.delete", "return_value"] = deleted(sent=(sent(accepted=("node-1-1",), at=5.0),))
    house.listed = [mutation("node-1-1", is_done=False)]
    assert "not picked up by node-2-1 within 300 s" in text(waited())
    house.listed = [mutation("node-1-1")]
    found = failure(waited())
    assert found.cause == "not_picked_up"
    assert "not picked up by node-2-1 within 300 s" in found.reason


def test_only_tables_that_were_sent_are_counted_and_only_old_rows_of_them(
    house: House, left: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"tables": ["scorecard", "score"], **WRITTEN["clickhouse"]}
    configure(tmp_path, monkeypatch, clickhouse=fields)
    databases = [one.model_copy(update={"tables": ("scorecard", "score")}) for one in window().databases]
    of = window(databases=tuple(databases))
    left["plan", "return_value"] = [of.to_json()]
    left["windows.delete", "return_value"] = deleted(window=of, sent=(sent(),), bound=1_770_000_000.0)
    assert isinstance(waited(), Done)
    (part,) = (part for table, part in of.slices() if table == "scorecard")
    condition = condition_of(cluster_config(NAME).clickhouse, "scorecard", 1_770_000_000.0)
    assert condition
    assert house.counted == [("scorecard", part, condition)]


@pytest.mark.parametrize(("after", "ends"), [(299.0, False), (300.0, True)])
def test_rows_that_stay_are_a_failure_only_after_a_while(
    house: House, monkeypatch: pytest.MonkeyPatch, after: float, ends: bool
) -> None:
    now = [1_000.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], time=lambda: 0.0)
    monkeypatch.setattr(mutations, "time", clock)
    house.rows = {"node-1-1": {"2026-01-05": 1, "2026-01-06": 2}, "node-2-1": {}}

    def each(number: int) -> None:
        now[0] = 1_000.0 + (after if number == 2 else number)

    trigger = MutationsTrigger(cluster=NAME, group="windows")
    first, second, third = run(trigger, "windows.wait_mutations", 3, each)
    assert text(first) == text(second) == "3 rows of acme_voice.scorecard left on node-1-1"
    if not ends:
        assert isinstance(third, Wait)
        return
    found = failure(third)
    assert (found.cause, found.reason) == ("rows_left", "3 rows of acme_voice.scorecard left on node-1-1")
    assert (found.generation, found.deleted) == (1, trigger._deleted)


def test_a_replica_that_has_not_answered_is_waited_for_and_is_no_row_left(house: House) -> None:
    house.rows = {"node-1-1": {}}
    assert text(waited(3)) == "no count from node-2-1"


def choose_overlap(left: Left) -> None:
    """Let the run go on while the mutations work."""
    left["plan", "run"] = {"max_parallel": 2, "sources": {}, "overlap": True}


def test_overlap_goes_on_when_every_host_has_it_and_old_rows_can_be_told(
    house: House, left: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose_overlap(left)
    house.listed = [mutation("node-1-1", is_done=False, parts_to_do=4), mutation("node-2-1")]
    # Without a column that tells old rows from new ones it is not used.
    assert isinstance(waited(), Wait)
    configure(tmp_path, monkeypatch, **WRITTEN)
    found = waited()
    assert isinstance(found, Done)
    assert found.result == GONE.model_copy(update={"status": "overlap"})
    assert house.counted == []
    left["windows.delete", "return_value"] = deleted(sent=(sent(accepted=("node-1-1",)),))
    house.listed = [mutation("node-1-1", is_done=False, parts_to_do=4)]
    assert "not on node-2-1 yet" in text(waited())


def test_an_unknown_host_of_a_dropped_partition_has_its_turn_when_nothing_is_queued(house: House, left: Left) -> None:
    dropped = sent(accepted=("node-1-1",), partitions=("202601", "202602"))
    left["windows.delete", "return_value"] = deleted(sent=(dropped,))
    house.queued = ["node-2-1"]
    assert "not on node-2-1 yet" in text(waited())
    assert house.asked == [tuple(sql.drop_partition_needles(*TABLE, "202601"))]
    house.queued, house.asked = [], []
    assert isinstance(waited(), Done)
    assert house.asked == [tuple(sql.drop_partition_needles(*TABLE, one)) for one in ("202601", "202602")]
    left["windows.delete", "return_value"] = deleted(sent=(sent(partitions=("202601",)),))
    house.asked = []
    assert isinstance(waited(), Done)
    assert house.asked == []


def before(cause: str, generation: int = 2) -> Failure:
    """How an earlier try ended while it sent the DELETE again."""
    again = deleted(generation=generation, sent=())
    return Failure(
        key=KEY, stage="wait_mutations", cause=cause, reason="r", generation=generation, deleted=again
    )  # fmt: skip


def test_a_resend_that_was_not_finished_goes_on_or_begins_anew(house: House, left: Left) -> None:
    DebtBook(NAME).announce([KEY])
    DebtBook(NAME).write(debt(window(), BEFORE))
    left["windows.wait_mutations", "return_value"] = before("outage")
    found = waited()
    assert isinstance(found, Wake)
    assert found.event == GoEvent(key=KEY, why="the DELETE is not sent whole")
    assert found.why == "the DELETE is not sent whole"
    left["windows.wait_mutations", "return_value"] = before("killed")
    found = waited()
    assert isinstance(found, Wake)
    assert found.event == ResendEvent(deleted=deleted(generation=2, sent=()), generation=3)


@pytest.mark.parametrize("cause", ["killed", "outage", "would_delete_new_rows"])
def test_a_resend_that_was_not_finished_takes_no_rows_that_another_run_has_had_written(
    house: House, left: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    left["windows.wait_mutations", "return_value"] = before(cause)
    refused = failure(waited())
    assert (refused.cause, refused.generation) == ("would_delete_new_rows", 2)
    assert refused.reason == "an earlier try ended before it had sent the whole DELETE again"
    # Where old rows can be told from new ones, only these go.
    configure(tmp_path, monkeypatch, **WRITTEN)
    assert isinstance(waited(), Wake)


def chunk(times: int = 1, **args: Any) -> Look:
    """The last of so many looks for the next step of a DELETE."""
    given = {"cluster": NAME, "key": KEY, "table": TABLE, "generation": 2, "accepted": ("node-1-1",)} | args
    return run(ChunkTrigger(**given), "windows.delete", times)[-1]


def test_a_step_goes_when_the_one_before_is_done_on_every_host(house: House) -> None:
    step: Json = {"chunk": 3, "at": datetime.now(UTC).timestamp()}
    assert "not on node-2-1 yet" in text(chunk(**step))
    mine = f"{KEY}:2.3"
    house.listed = [mutation("node-1-1", mine), mutation("node-2-1", mine, is_done=False, parts_to_do=6)]
    assert "6 parts to do on node-2-1" in text(chunk(**step))
    house.listed = [mutation("node-1-1", mine, is_killed=True, is_done=False), mutation("node-2-1", mine)]
    found = failure(chunk(**step))
    assert (found.cause, found.generation, found.key) == ("killed", 2, KEY)
    house.listed = [mutation("node-1-1", mine), mutation("node-2-1", mine)]
    go = chunk(**step)
    assert isinstance(go, Wake)
    assert go.event == GoEvent(key=KEY, why="the next step may be sent")
    # Other steps of the same window say nothing of this one.
    house.listed = [mutation(host, f"{KEY}:2.2") for host in BOTH]
    assert "not on node-2-1 yet" in text(chunk(**step))


def test_few_of_ours_work_at_a_time(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(tmp_path, monkeypatch, clickhouse={"delete": {"max_own_unfinished_mutations": 2}})
    other = {"is_done": False, "parts_to_do": 1}

    def ours(number: int, **fields: Any) -> list[Mutation]:
        return [replace(mutation(host, **other | fields), table=f"t{number}") for host in BOTH]

    house.listed = [*ours(1), *ours(2)]
    assert text(chunk()) == "2 of our mutations are unfinished (limit 2)"
    house.listed = [*ours(1), *ours(2, is_killed=True), *ours(3, is_done=True)]
    assert isinstance(chunk(), Wake)
