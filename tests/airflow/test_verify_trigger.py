"""verify look by look: what it waits for, by what it says that a window is proven, and what it fails by."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit.debts import DebtBook
from backfill.kit.look import Done, Failed, Look, Wait, Wake
from backfill.settings import cluster_config
from backfill.triggers import verify as module
from backfill.triggers.verify import VerifyTrigger
from include.scorecard_backfill.records import (
    Deleted,
    Failure,
    MissingRows,
    MutationsGone,
    ReindexEvent,
    Verified,
    Window,
    WorkflowsClosed,
)
from include.scorecard_backfill.verdicts.census import Census, TableCensus, Tally
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.mutations import Mutation
from tests.kit.build import debt
from tests.kit.store import AssetState
from tests.kit.waits import (
    BEFORE,
    KEY,
    NAME,
    VERIFIED,
    Left,
    assets,
    cluster,
    configure,
    deleted,
    left,
    placed,
    window,
)

__all__ = ["assets", "cluster", "left"]

Json = dict[str, Any]

HOSTS = (Host("node-1-1", 1), Host("node-2-1", 2))
DAY = "2026-01-05"
CARDS = ("acme_voice", "scorecard")
WRITTEN = {"clickhouse": {"written_columns": {"scorecard": {"column": "updated_at"}}}}
TIME = datetime.fromtimestamp(1_770_000_000, UTC)
WORKFLOW = "reindexconversations-acme-voice-00000000-0000-0000-0000-000000000001"


def tally(rows: int, meant: int | None = 0) -> Tally:
    """What is there of one day, like the count before for the same number of rows."""
    return Tally(rows, rows // 2, rows, meant, 7 if rows else 0)


def census(rows: int = 90, unsettled: str = "", old: int = 0) -> Census:
    """A count of the window; ``old``: rows that are not proven to be written since the Job."""
    new = {DAY: tally(rows - old)} if rows > old else {}
    table = TableCensus({DAY: tally(rows)}, tally(rows), {}, new, Tally(), {DAY: tally(old)} if old else {}, Tally())
    return Census(unsettled, {CARDS: table})


class House:
    """What ClickHouse shows, and what it was asked."""

    def __init__(self) -> None:
        self.counts: list[Any] = [census()]
        self.spooled: list[str] = []
        self.stale: list[str] = []
        self.listed: list[Mutation] = []
        self.missing: tuple[MissingRows, ...] = ()
        self.asked: list[Any] = []
        self.copies: list[Any] = []


@pytest.fixture
def house(cluster: str, left: Left, assets: AssetState, monkeypatch: pytest.MonkeyPatch) -> House:
    """A cluster where 90 of 100 rows are there again and 10 were meant to go."""
    made = House()

    def count(self: Any, parts: Any, hosts: Any, since: Any = None) -> Census:
        assert hosts == HOSTS
        made.asked.append(("census", parts, since))
        return made.counts.pop(0) if len(made.counts) > 1 else made.counts[0]

    def stale(self: Any, of: Deleted, hosts: Any, *, proven_gone: bool) -> list[str]:
        assert hosts == HOSTS
        made.asked.append(("stale", of, proven_gone))
        return made.stale

    def spooled(self: Any, of: Window, hosts: Any) -> list[str]:
        assert (of.key, hosts) == (KEY, HOSTS)
        return made.spooled

    class Copies:
        def __init__(self, hook: Any, hosts: Any) -> None:
            assert isinstance(hook, BackfillClickHouse)
            assert hosts == HOSTS

        def missing(self, of: Window, snapshots: Any) -> Any:
            made.copies.append((of.key, snapshots))
            return made.missing

    async def hosts(self: Any) -> Any:
        return HOSTS

    monkeypatch.setattr(VerifyTrigger, "hosts", hosts)
    monkeypatch.setattr(BackfillClickHouse, "census", count)
    monkeypatch.setattr(BackfillClickHouse, "stale_rows", stale)
    monkeypatch.setattr(BackfillClickHouse, "drain_spool", spooled)

    def mutations(self: Any) -> list[Mutation]:
        made.asked.append("mutations")
        return made.listed

    monkeypatch.setattr(BackfillClickHouse, "mutations", mutations)
    monkeypatch.setattr(module, "Snapshots", Copies)
    left["windows.delete", "return_value"] = deleted()
    left["windows.wait_mutations", "return_value"] = MutationsGone(key=KEY, status="gone", generation=1)
    left["windows.wait_workflows", "return_value"] = WorkflowsClosed(
        key=KEY, status="completed", attempt=1, workflow_ids=(WORKFLOW,)
    )
    book = DebtBook(NAME)
    book.announce([KEY])
    book.write(debt(window(), BEFORE))
    return made


def looks(times: int = 2, **args: Any) -> list[Look]:
    """As many looks of the task one after the other."""

    async def look() -> list[Look]:
        made: VerifyTrigger = placed(VerifyTrigger(cluster=NAME, group="windows", **args), "windows.verify")
        made.args = made.model.model_validate(made.given)
        made.config = cluster_config(NAME)
        await made._find_window()
        await made.prepare()
        return [await made.look() for _ in range(times)]

    return asyncio.run(look())


def end(times: int = 2, **args: Any) -> Look:
    """The last of them; those before must wait."""
    *before, last = looks(times, **args)
    assert all(isinstance(one, Wait) for one in before), before
    return last


def failure(found: Look) -> Failure:
    """The failure of a look."""
    assert isinstance(found, Failed), found
    assert (found.failure.key, found.failure.stage, found.failure.attempt) == (KEY, "verify", 1)
    return found.failure


def verified(found: Look) -> Verified:
    """The result of a look that has proven the window."""
    assert isinstance(found, Done), found
    assert isinstance(found.result, Verified)
    return found.result


def text(found: Look) -> str:
    """The reason of a wait."""
    assert isinstance(found, Wait), found
    return found.text


def test_two_equal_looks_prove_a_window_and_pay_its_debt(house: House) -> None:
    first, second = looks()
    assert text(first) == "counts must be equal in two looks in a row: acme_voice.scorecard=90"
    found = verified(second)
    assert (found.key, found.status) == (KEY, "verified")
    proof = found.proof
    assert proof is not None
    (table,) = proof.tables
    assert (table.before, table.after, table.meant) == (100, 90, 10)
    assert (proof.hosts, proof.statements, proof.workflows) == (("node-1-1", "node-2-1"), 1, 1)
    assert (proof.accounted, proof.missing, proof.unwritten) == (True, (), ())
    assert DebtBook(NAME).open().owing == []
    parts = list(window().slices())
    assert house.asked == [("census", parts, None), ("census", parts, None), ("stale", deleted(), True)]


def test_a_window_names_the_reindex_that_brought_its_rows_back(house: House, left: Left) -> None:
    found = verified(end())
    assert (found.attempt, found.workflow_ids) == (1, (WORKFLOW,))
    # One that this task has made itself.
    found = verified(end(attempt=2, workflow_ids=["second"]))
    assert (found.attempt, found.workflow_ids) == (2, ("second",))
    assert found.proof is not None
    assert found.proof.workflows == 1
    # An earlier try has made the second one, and left no ids: those of the first one are not its.
    left["windows.verify", "return_value"] = before("lost_rows", attempt=2)
    found = verified(end())
    assert (found.attempt, found.workflow_ids) == (2, ())


def test_counts_that_change_are_counted_again(house: House) -> None:
    house.counts = [census(89), census(90), census(unsettled="two replicas differ"), census(90)]
    one, two, three, four = looks(4)
    assert text(one).endswith("=89")
    assert text(two).endswith("=90")
    assert text(three) == "two replicas differ"
    # A look that told nothing is none in between.
    assert verified(four)


def test_rows_on_their_way_are_waited_for_before_anything_is_counted(house: House) -> None:
    house.spooled = ["node-1-1 has 3 files"]
    (found,) = looks(1)
    assert text(found) == "node-1-1 has 3 files"
    assert house.asked == []


def test_books_that_do_not_balance_fail_with_their_line(house: House) -> None:
    house.counts = [census(60)]
    found = failure(end())
    assert found.cause == "lost_rows"
    assert "acme_voice.scorecard" in found.reason
    assert DebtBook(NAME).open().owing == [KEY]


def before(cause: str, attempt: int = 1) -> Failure:
    """How the task has ended before it was cleared."""
    return Failure(key=KEY, stage="verify", cause=cause, reason="r", attempt=attempt)


def test_cleared_after_that_it_asks_for_a_new_reindex(house: House, left: Left) -> None:
    house.counts = [census(60)]
    left["windows.verify", "return_value"] = before("lost_rows")
    found = end()
    assert isinstance(found, Wake)
    assert found.event == ReindexEvent(window=window(), attempt=1)
    assert found.why.startswith("it had failed before the task was cleared: a new reindex: acme_voice.scorecard")
    # Once another attempt has been made, the failure is one of the past.
    assert isinstance(end(attempt=2), Failed)
    left["windows.verify", "return_value"] = before("lost_rows").model_copy(update={"key": "another"})
    assert failure(end()).cause == "lost_rows"


def test_rows_from_before_are_named_and_fail_the_window(house: House) -> None:
    house.stale = ["7 rows of acme_voice.scorecard on node-2-1 should be gone"]
    found = failure(end())
    assert (found.cause, found.reason) == ("stale_rows", house.stale[0])


def test_in_overlap_verify_proves_the_mutations_itself(house: House, left: Left) -> None:
    left["windows.wait_mutations", "return_value"] = MutationsGone(key=KEY, status="overlap", generation=1)

    def mutation(host: str, **fields: Any) -> Mutation:
        command = f"DELETE WHERE 'backfill:{KEY}:1' != ''"
        base: Json = {"is_done": True, "parts_to_do": 0, "fail_reason": "", "is_killed": False}
        return Mutation(host, *CARDS, "1", command, 1_770_000_000, **base | fields)

    house.listed = [mutation("node-1-1"), mutation("node-2-1", is_done=False)]
    assert text(end()) == "the mutations are not proven done on every host"
    assert ("stale", deleted(), False) in house.asked
    house.listed = [mutation("node-1-1"), mutation("node-2-1")]
    assert verified(end())
    house.listed = [mutation("node-1-1"), mutation("node-2-1", is_done=False, is_killed=True)]
    found = failure(end())
    assert (found.cause, found.reason) == ("killed_late", "the mutation was killed after the reindex had begun")


def test_mutations_that_are_proven_done_and_windows_without_any_are_not_asked_about(house: House, left: Left) -> None:
    verified(end())
    left["windows.wait_mutations", "return_value"] = None
    left["windows.delete", "return_value"] = deleted(sent=())
    found = verified(end()).proof
    assert found is not None
    assert found.statements == 0
    assert "mutations" not in house.asked


def missing(count: int, *ids: str) -> MissingRows:
    """Rows of a copy that are not in the table any more."""
    return MissingRows(database="acme_voice", table="scorecard", meant=10, count=count, ids=ids)


def test_rows_of_a_copy_that_did_not_come_back_are_named(house: House, left: Left) -> None:
    left["windows.delete", "return_value"] = deleted(snapshots=("acme_voice.copy",))
    house.missing = (missing(2, "a", "b"), missing(0))
    found = verified(end()).proof
    assert found is not None
    assert found.missing == house.missing
    assert house.copies == [(KEY, ("acme_voice.copy",))]
    house.counts = [census(60)]
    lines = failure(end()).reason
    assert lines.endswith("; acme_voice.scorecard: 2 rows of the snapshot, such as a, b")
    assert "0 rows of the snapshot" not in lines


def reindex(left: Left, *ids: str, **fields: Any) -> Window:
    """Make the window one of mode reindex, which deletes nothing."""
    of = window(mode="reindex", **fields)
    left["windows.delete", "return_value"] = deleted(window=of, status="counted", sent=())
    left["windows.wait_workflows", "return_value"] = WorkflowsClosed(
        key=KEY, status="completed", attempt=1, workflow_ids=ids or (WORKFLOW,)
    )
    return of


def test_without_a_delete_nothing_is_stale_and_what_was_written_again_is_told_by_time(
    house: House, left: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, **WRITTEN)
    of = reindex(left)
    house.counts = [census(100)]
    found = verified(end()).proof
    assert found is not None
    assert found.unwritten == ()
    assert house.asked == [("census", list(of.slices()), TIME)] * 2
    house.counts = [census(100, old=90)]
    wrong = failure(end())
    assert wrong.cause == "not_reindexed"
    assert f"rows of {DAY} were not written again" in wrong.reason


def test_without_a_written_column_it_is_not_proven_that_rows_were_written_again(house: House, left: Left) -> None:
    reindex(left)
    house.counts = [census(100)]
    found = verified(end()).proof
    assert found is not None
    assert found.unwritten == ("scorecard: the cluster's file names no written_columns for it",)


def test_a_profile_that_had_no_work_owes_no_row_written_again(
    house: House, left: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, **WRITTEN)
    reindex(left, WORKFLOW.replace("voice", "chat"))
    house.counts = [census(100, old=100)]
    found = verified(end()).proof
    assert found is not None
    assert found.unwritten == ("acme_voice: the reindexer had no work for its profile",)
    # Without any workflow nothing is proven of anybody.
    left["windows.wait_workflows", "return_value"] = WorkflowsClosed(key=KEY, status="completed", attempt=1)
    assert failure(end()).cause == "not_reindexed"


def test_a_change_of_what_is_old_alone_is_a_change(
    house: House, left: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, **WRITTEN)
    reindex(left)
    house.counts = [census(100, old=5), census(100), census(100)]
    assert [type(one) for one in looks(3)] == [Wait, Wait, Done]


def test_a_count_that_was_never_made_bounds_nothing(house: House, left: Left) -> None:
    reindex(left)
    left["windows.delete", "return_value"] = deleted(
        window=window(mode="reindex"), status="counted", sent=(), counted=None
    )
    house.counts = [census(0)]
    looks(1)
    assert house.asked[0][2] is None


def test_a_window_that_is_settled_ends_as_it_is(house: House, left: Left) -> None:
    left["windows.verify", "return_value"] = VERIFIED
    (found,) = looks(1)
    assert verified(found) == VERIFIED
    left["windows.verify", "return_value"] = None
    left["replan", "cut"] = [KEY]
    (found,) = looks(1)
    assert verified(found) == Verified(key=KEY, status="cut")
    assert house.asked == []


def test_a_window_of_other_days_is_counted_in_its_own(house: House, left: Left) -> None:
    of = window(start=date(2026, 1, 3), end=date(2026, 1, 9))
    left["windows.delete", "return_value"] = deleted(window=of)
    looks(1)
    assert house.asked == [("census", list(of.slices()), None)]
