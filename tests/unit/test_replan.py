"""Cutting what was too big: the same days, smaller, each with the rows that it had before the first delete."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.names import window_key
from include.scorecard_backfill.planning.replan import cut, too_big
from include.scorecard_backfill.planning.windows import DateRange, covers_exactly
from include.scorecard_backfill.records import Counted, Failure, Numbers, TableDays, Window
from include.scorecard_backfill.verdicts.causes import SIZE
from tests.kit import build
from tests.kit.build import counted, failure, window

MONTH = window(days=31)


def days(rows: dict[int, int], database: str = "acme_voice", table: str = "scorecard",
         start: date = build.START) -> TableDays:  # fmt: skip
    """Rows of a table by day number."""
    listed = {str(start + timedelta(days=n)): Numbers(rows=r, conversations=r, ids=r) for n, r in rows.items()}
    return TableDays(database=database, table=table, days=listed)


def ranges(parts: Sequence[Window]) -> list[DateRange]:
    return [part.range for part in parts]


@pytest.mark.parametrize("cause", sorted(SIZE))
def test_windows_that_were_too_big_are_cut_in_plan_order(cause: str) -> None:
    windows = [MONTH, window(31, 28), window(59, 1)]
    failures = [failure(w, cause) for w in reversed(windows)]
    # A single day is never cut.
    assert too_big(windows, failures) == windows[:2]


@pytest.mark.parametrize(
    "cause", ["new", "canceled", "terminated", "workflow_failed", "lost_rows", "killed", "too_few_workflows"]
)
def test_other_causes_are_not_cured_by_a_smaller_size(cause: str) -> None:
    assert too_big([MONTH], [failure(MONTH, cause)]) == []


def test_only_failures_of_known_windows_count() -> None:
    assert too_big([MONTH], []) == []
    other = Failure(key="f" * 16, stage="wait_workflows", cause="heartbeat_timeout", reason="why")
    assert too_big([MONTH], [other]) == []


VOLUMES = st.dictionaries(st.integers(0, 60), st.integers(0, 500), max_size=12)


@given(st.integers(-700, 800), st.integers(2, 60), VOLUMES, VOLUMES)
def test_parts_are_the_same_days_with_their_own_rows(
    start: int, length: int, one: dict[int, int], two: dict[int, int]
) -> None:
    old = window(start, length)

    def listed(rows: dict[int, int], database: str, table: str) -> TableDays:
        return days({n: r for n, r in rows.items() if n < length}, database, table, old.start)

    first = listed(one, "acme_voice", "scorecard")
    tables = (first, listed(two, "acme_chat", "scorecard"), listed(one, "acme_chat", "score"))
    whole = counted(old, *tables)
    parts = cut(old, whole, "run1")
    assert len(parts) > 1
    assert covers_exactly(old.range, ranges(parts))
    assert all(part.range.days <= 10 for part in parts)
    assert all(part.part_of == old.key for part in parts)
    assert len({part.key for part in parts} | {old.key}) == len(parts) + 1
    _carry_every_day(parts, tables)
    assert sum(part.rows["scorecard"] for part in parts) == first.rows + tables[1].rows
    assert sum(part.rows["score"] for part in parts) == first.rows
    assert abs(sum(part.conversations for part in parts) - old.conversations) <= len(parts) / 2
    assert parts == cut(old, whole, "run1")
    for part in parts:
        if part.range.days > 1:
            again = cut(part, whole, "run1")
            assert all(single.range.days == 1 for single in again)
            assert covers_exactly(part.range, ranges(again))
            _carry_every_day(again, part.before)
            assert abs(sum(single.conversations for single in again) - part.conversations) <= len(again) / 2


def _carry_every_day(parts: Sequence[Window], tables: Sequence[TableDays]) -> None:
    """Each day's numbers of the first count are in exactly one part, unchanged."""
    for table in tables:
        found = [(day, n) for part in parts for t in part.before if t.name == table.name for day, n in t.days.items()]
        assert sorted(found, key=lambda f: f[0]) == sorted(table.days.items())
    for part in parts:
        assert all(part.start <= date.fromisoformat(day) < part.end for t in part.before for day in t.days)


@given(st.integers(2, 60))
def test_parts_are_records_of_the_plan(length: int) -> None:
    old = window(days=length, order="reindex_first")
    for part in cut(old, counted(old), "run1"):
        assert Window.from_json(json.loads(json.dumps(part.to_json()))) == part
        assert (part.order, part.mode, part.databases) == (old.order, old.mode, old.databases)


def test_evenly_filled_windows_are_cut_into_ten_days() -> None:
    evenly = counted(MONTH, days(dict.fromkeys(range(31), 10)))
    assert [part.days for part in ranges(cut(MONTH, evenly, "run1"))] == [10, 10, 10, 1]


def test_a_part_that_would_hold_more_than_half_means_single_days() -> None:
    assert [p.days for p in ranges(cut(MONTH, counted(MONTH, days({0: 51, 14: 49})), "run1"))] == [1] * 31
    assert len(cut(MONTH, counted(MONTH, days({0: 50, 14: 50})), "run1")) == 4
    # Without counts the share is that of the days: 10 of 15 are too many.
    fifteen = window(days=15)
    assert [part.days for part in ranges(cut(fifteen, counted(fifteen), "run1"))] == [1] * 15


def test_ten_days_and_less_are_cut_into_single_days() -> None:
    ten = window(days=10)
    assert [part.days for part in ranges(cut(ten, counted(ten), "run1"))] == [1] * 10


def test_a_part_is_judged_by_the_count_before_the_first_delete_and_not_by_what_is_there_now() -> None:
    two = window(days=2)
    before = Counted(key=two.key, now=(days({}),), before=(days({0: 30, 1: 10}),), server_time=0.0)
    part = cut(two, before, "run1")[0]
    assert part.label == "acme 2026-01-01..2026-01-02"
    assert part.key == window_key(
        cluster="demo", run_id="run1", customer_id="acme", start="2026-01-01", end="2026-01-02", plan=two.key
    )
    assert (part.conversations, part.rows) == (750, {"scorecard": 30})
    assert part.before == (days({0: 30}),)
