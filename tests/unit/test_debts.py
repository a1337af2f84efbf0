"""Debts: what was deleted and is not yet proven to be back is owed by somebody, whatever happens in between."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from include.scorecard_backfill.debts import Debt, databases_of, hand_over, outside, owed_by, owed_of
from include.scorecard_backfill.proof import without
from include.scorecard_backfill.records import Database, TableDays, Window
from tests.kit import build
from tests.kit.build import SINCE, debt, table, window

CUSTOMERS = ("acme", "globex")
DAYS = 12


def name_of(customer: str) -> tuple[str, str]:
    return build.database(customer).name, "scorecard"


def rows_of(customer: str, day: int, count: int) -> list[str]:
    return [f"{customer}-{day}-{n}" for n in range(count)]


class Book(RuleBasedStateMachine):
    """Runs that plan, begin, die and verify, one after another, over a store of debts that keeps single writes.

    ``truth`` is what each day held before it was deleted first and not proven to be back since.
    """

    def __init__(self) -> None:
        super().__init__()
        self.store: dict[str, Debt] = {}
        self.truth: dict[tuple[str, str], Any] = {}
        self.there: dict[tuple[str, int], int] = {(c, d): 10 for c in CUSTOMERS for d in range(DAYS)}
        self.windows: dict[str, Window] = {}
        self.handed_over = True
        self.deleted: set[str] = set()
        self.proven: set[str] = set()
        self.run = 0

    @initialize()
    def first(self) -> None:
        self._plan([("acme", 0, DAYS)])

    def _plan(self, wanted: list[tuple[str, int, int]]) -> None:
        self.run += 1
        planned = [window(start, days, customer, f"run{self.run}") for customer, start, days in wanted]
        owed = list(self.store.values())
        self.windows = {w.key: w.model_copy(update={"before": owed_by(w, owed)}) for w in planned}
        self.deleted, self.proven = set(), set()

    def _hand_over(self, writes: int) -> None:
        """Store at most so many single writes, then die."""
        handover = hand_over(list(self.windows.values()), f"run{self.run}", list(self.store.values()))
        steps: list[Any] = [*handover.write, *handover.drop]
        for step in steps[:writes]:
            if isinstance(step, Debt):
                self.store[step.window] = step
            else:
                del self.store[step]
        self.handed_over = writes >= len(steps)

    @rule(
        cuts=st.lists(st.integers(0, DAYS), min_size=2, max_size=4, unique=True).map(sorted),
        customers=st.lists(st.sampled_from(CUSTOMERS), min_size=1, unique=True),
        writes=st.integers(0, 8),
    )
    def plan_anew(self, cuts: list[int], customers: list[str], writes: int) -> None:
        """A new run of some days and customers; it may die at any write."""
        self._plan([(c, a, b - a) for c in customers for a, b in pairwise(cuts)])
        self._hand_over(writes)

    @rule(writes=st.integers(0, 8))
    def plan_again(self, writes: int) -> None:
        """The task `plan` is repeated by Airflow or cleared: the same windows."""
        self._hand_over(writes)

    @precondition(lambda self: self.handed_over)
    @rule(data=st.data(), parts=st.integers(2, 4))
    def cut(self, data: st.DataObject, parts: int) -> None:
        """A window whose delete is done is cut; each part owes its own days."""
        begun = sorted(self.deleted & {k for k, w in self.windows.items() if w.range.days >= parts})
        if not begun:
            return
        old = self.windows.pop(data.draw(st.sampled_from(begun)))
        first = (old.start - build.START).days
        steps = [first, *range(first + 1, first + parts), first + old.range.days]
        made = [window(a, b - a, old.customer_id, f"run{self.run}", part_of=old.key) for a, b in pairwise(steps)]
        known = self.store.get(old.key)
        owed = [known] if known else []
        made = [w.model_copy(update={"before": owed_by(w, owed)}) for w in made]
        self.windows |= {w.key: w for w in made}
        for_parts = hand_over(made, f"run{self.run}", owed)
        for one in for_parts.write:
            self.store[one.window] = one
        for key in for_parts.drop:
            self.store.pop(key)

    @precondition(lambda self: self.handed_over)
    @rule(data=st.data(), left=st.integers(0, 3))
    def delete(self, data: st.DataObject, left: int) -> None:
        """A window counts, promises, and deletes; a killed mutation may leave some rows of each day."""
        if not self.windows:
            return
        one = self.windows[data.draw(st.sampled_from(sorted(self.windows)))]
        # A window that is proven is left alone for the rest of its run.
        if one.key in self.deleted | self.proven:
            return
        first = (one.start - build.START).days
        numbers = range(first, first + one.range.days)
        counts = {n: rows_of(one.customer_id, n, self.there[one.customer_id, n]) for n in numbers}
        now = table(counts, name=name_of(one.customer_id))
        before = without([now], {t.name: t for t in one.before})
        known = self.store.get(one.key)
        since = known.since if known else SINCE + timedelta(hours=self.run)
        self.store[one.key] = debt(one, *before, run_id=known.run_id if known else f"run{self.run}", since=since)
        self.deleted.add(one.key)
        for n in numbers:
            if counts[n]:
                self.truth.setdefault((one.customer_id, build.day(n)), now.days[build.day(n)])
            self.there[one.customer_id, n] = min(left, self.there[one.customer_id, n])

    @precondition(lambda self: self.deleted)
    @rule(data=st.data(), count=st.integers(1, 12))
    def verify(self, data: st.DataObject, count: int) -> None:
        """A window is proven; nobody owes its days any more."""
        key = data.draw(st.sampled_from(sorted(self.deleted)))
        one = self.windows.get(key)
        if one is None:
            return
        self.store.pop(key, None)
        self.deleted.discard(key)
        self.proven.add(key)
        first = (one.start - build.START).days
        for n in range(first, first + one.range.days):
            self.truth.pop((one.customer_id, build.day(n)), None)
            self.there[one.customer_id, n] = count

    @rule(data=st.data(), count=st.integers(0, 12))
    def somebody_writes(self, data: st.DataObject, count: int) -> None:
        """A reindex that failed half-way, or anybody else, changes what is there now."""
        customer = data.draw(st.sampled_from(CUSTOMERS))
        self.there[customer, data.draw(st.integers(0, DAYS - 1))] = count

    @invariant()
    def no_owed_day_is_lost_and_none_has_two_numbers(self) -> None:
        shown: dict[tuple[str, str], list[Any]] = {}
        for one in self.store.values():
            for counted in one.before:
                for day, numbers in counted.days.items():
                    assert one.start <= date.fromisoformat(day) < one.end
                    shown.setdefault((one.customer_id, day), []).append(numbers)
        for place, numbers in self.truth.items():
            assert place in shown, f"nobody owes {place}"
            assert all(found == numbers for found in shown[place]), place

    @invariant()
    def what_a_run_does_not_cover_is_said(self) -> None:
        windows = list(self.windows.values())
        said = {(d.customer_id, day) for d in outside(windows, self.store.values()) for t in d.before for day in t.days}
        for customer, day in self.truth:
            covered = any(w.customer_id == customer and w.start <= date.fromisoformat(day) < w.end for w in windows)
            assert covered != ((customer, day) in said)


Book.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestBook = Book.TestCase


OLD = window(0, 10)
TEN = table({n: [f"{n}-{i}" for i in range(5)] for n in range(10)})
FIRST = debt(OLD, TEN)


def test_a_window_owes_its_days_only() -> None:
    (owed,) = owed_by(window(2, 3, run_id="run2"), [FIRST])
    assert owed.name == TEN.name
    assert owed.days == {build.day(n): TEN.days[build.day(n)] for n in (2, 3, 4)}
    assert owed_by(window(10, 5), [FIRST]) == ()
    assert owed_by(window(0, 10, "globex"), [FIRST]) == ()
    assert owed_by(OLD, []) == ()


def test_of_a_day_that_is_owed_twice_the_earliest_count_is_right() -> None:
    later = debt(OLD, table({3: ["x"], 4: []}), since=SINCE + timedelta(days=1))
    for debts in ([FIRST, later], [later, FIRST]):
        (owed,) = owed_by(OLD, debts)
        assert owed.days == TEN.days
    (owed,) = owed_by(OLD, [debt(OLD, table({3: ["x"]}), since=SINCE - timedelta(days=1)), FIRST])
    assert owed.days[build.day(3)].rows == 1
    assert owed.days[build.day(4)].rows == 5


def test_tables_of_several_debts_are_joined() -> None:
    score = table({1: ["s"]}, name=("acme_voice", "score"))
    chat = table({2: ["c"]}, name=("acme_chat", "scorecard"))
    owed = owed_by(OLD, [debt(OLD, score), debt(window(2, 1), chat), FIRST])
    assert [t.name for t in owed] == [("acme_chat", "scorecard"), ("acme_voice", "score"), TEN.name]


def test_who_takes_a_debt_over_keeps_its_run_and_its_time() -> None:
    new = window(0, 5, run_id="run2")
    taken = owed_of(new, "run2", [FIRST.model_copy(update={"digest": "abc", "order": "reindex_first"})])
    assert taken is not None
    assert (taken.window, taken.run_id, taken.since, taken.digest) == (new.key, "run1", SINCE, "abc")
    assert (taken.start, taken.end, taken.order) == (new.start, new.end, "reindex_first")
    assert [t.within(new.start, new.end) for t in FIRST.before] == list(taken.before)
    assert owed_of(window(20, 5), "run2", [FIRST]) is None


def test_rows_that_were_only_swept_are_a_smaller_debt_than_deleted_ones() -> None:
    swept = FIRST.model_copy(update={"swept": True})
    for debts, expected in (([swept], True), ([swept, FIRST], False), ([FIRST], False)):
        taken = owed_of(window(0, 5, run_id="run2"), "run2", debts)
        assert taken is not None
        assert taken.swept is expected
    assert (
        "swept, not yet verified since 2026-02-03 04:05 UTC (run run1): 50 rows of acme_voice.scorecard" in swept.text
    )
    assert "acme 2026-01-01..2026-01-11: deleted, not yet proven to be back since" in FIRST.text


def test_what_a_plan_covers_in_part_is_cut_down_and_what_it_covers_whole_is_dropped() -> None:
    middle = window(3, 4, run_id="run2")
    part = hand_over([middle], "run2", [FIRST])
    assert [d.window for d in part.write] == [middle.key, OLD.key]
    assert part.drop == ()
    assert list(part.write[1].before[0].days) == [build.day(n) for n in (0, 1, 2, 7, 8, 9)]
    whole = [window(0, 5, run_id="run2"), window(5, 9, run_id="run2")]
    handed = hand_over(whole, "run2", [FIRST])
    assert [d.window for d in handed.write] == [w.key for w in whole]
    assert handed.drop == (OLD.key,)
    assert hand_over([window(0, 10, "globex")], "run2", [FIRST]) == type(handed)((), ())


def test_the_same_plan_again_changes_nothing() -> None:
    new = window(0, 10, run_id="run2")
    (once,) = hand_over([new], "run2", [FIRST]).write
    again = hand_over([new], "run2", [once])
    assert (again.write, again.drop) == ((once,), ())


def test_debts_outside_of_a_plan_are_said_oldest_first() -> None:
    later = debt(window(0, 2, "globex"), since=datetime(2026, 3, 1, tzinfo=UTC)).model_copy(
        update={"before": (table({0: ["a"]}, name=name_of("globex")),)}
    )
    left = outside([window(0, 9, run_id="run2")], [later, FIRST])
    assert [d.customer_id for d in left] == ["acme", "globex"]
    assert list(left[0].before[0].days) == [build.day(9)]
    assert outside([OLD, window(0, 2, "globex")], [later, FIRST]) == ()


def test_databases_of_debtors_are_remembered() -> None:
    chat = Database(name="acme_chat", profile_id="chat", tables=("scorecard",))
    debts = [FIRST, FIRST.model_copy(update={"databases": (chat,)}), debt(window(0, 2, "globex"))]
    assert databases_of(debts) == {
        "acme": (chat, build.database("acme")),
        "globex": (build.database("globex"),),
    }
    assert databases_of([]) == {}


def test_counts_of_a_debt_are_what_a_window_is_judged_by() -> None:
    now = table({0: ["only one left"]})
    (before,) = without([now], {t.name: t for t in owed_by(OLD, [FIRST])})
    assert isinstance(before, TableDays)
    assert before.days == TEN.days
