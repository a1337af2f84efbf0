"""Cutting what was too big: the same days, smaller, each with the rows that it had before the first delete."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.names import window_key
from include.scorecard_backfill.planning.plan import Window, plan_hash
from include.scorecard_backfill.planning.replan import cut, too_big
from include.scorecard_backfill.planning.windows import DateRange, covers_exactly
from include.scorecard_backfill.verdicts.causes import SIZE


def window(start: str = "2026-01-01", end: str = "2026-02-01", **changes: Any) -> dict[str, Any]:
    return {
        "key": window_key(cluster="demo", run_id="run1", customer_id="acme", start=start, end=end),
        "cluster": "demo",
        "customer_id": "acme",
        "start": start,
        "end": end,
        "mode": "cleanup",
        "databases": [{"name": "acme_voice", "profile_id": "voice", "tables": ["score", "scorecard"]}],
        "conversations": 1_000,
        "rows": {"scorecard": 10},
        "part_of": "",
        "before": {},
        "label": f"acme {start}..{end}",
        **changes,
    }


def failure(key: str, cause: str, status: str = "failed") -> dict[str, str]:
    return {"key": key, "cause": cause, "status": status}


def deleted(**days: int) -> dict[str, Any]:
    """The delete stage's result with these rows of `scorecard`, days written as d20260101."""
    listed = {f"{name[1:5]}-{name[5:7]}-{name[7:]}": rows for name, rows in days.items()}
    return {"before": [{"database": "acme_voice", "table": "scorecard", "days": listed}]}


def ranges(parts: list[dict[str, Any]]) -> list[DateRange]:
    return [DateRange.parse(part["start"], part["end"]) for part in parts]


@pytest.mark.parametrize("cause", sorted(SIZE))
def test_windows_that_were_too_big_are_cut_in_plan_order(cause: str) -> None:
    windows = [window(), window("2026-02-01", "2026-03-01"), window("2026-03-01", "2026-03-02")]
    failures = [failure(w["key"], cause) for w in reversed(windows)]
    # A single day is never cut.
    assert too_big(windows, failures) == windows[:2]


@pytest.mark.parametrize(
    "cause", ["", "canceled", "terminated", "workflow_failed", "lost_rows", "killed", "too_few_workflows"]
)
def test_other_causes_are_not_cured_by_a_smaller_size(cause: str) -> None:
    assert too_big([window()], [failure(window()["key"], cause)]) == []


def test_only_failures_of_known_windows_count() -> None:
    one = window()
    assert too_big([one], []) == []
    assert too_big([one], [failure("f" * 16, "heartbeat_timeout"), {}]) == []
    assert too_big([one], [failure(one["key"], "heartbeat_timeout", status="verified")]) == []


VOLUMES = st.dictionaries(st.integers(0, 60), st.integers(0, 500), max_size=12)


@given(st.dates(date(2023, 12, 1), date(2028, 3, 1)), st.integers(2, 60), VOLUMES, VOLUMES)
def test_parts_are_the_same_days_with_their_own_rows(
    start: date, days: int, one: dict[int, int], two: dict[int, int]
) -> None:
    whole = DateRange(start, start + timedelta(days=days))
    old = window(str(whole.start), str(whole.end))

    def listed(rows: dict[int, int]) -> dict[str, int]:
        return {str(start + timedelta(days=day)): n for day, n in rows.items() if day < days}

    result = {
        "before": [
            {"database": "acme_voice", "table": "scorecard", "days": listed(one)},
            {"database": "acme_chat", "table": "scorecard", "days": listed(two)},
            {"database": "acme_chat", "table": "score", "days": listed(one)},
        ]
    }
    parts = cut(old, result, "run1")
    assert len(parts) > 1
    assert covers_exactly(whole, ranges(parts))
    assert all(part.days <= 10 for part in ranges(parts))
    assert all(part["part_of"] == old["key"] for part in parts)
    assert len({part["key"] for part in parts} | {old["key"]}) == len(parts) + 1
    first, second = sum(listed(one).values()), sum(listed(two).values())
    assert sum(part["before"]["acme_voice"]["scorecard"] for part in parts) == first
    assert sum(part["before"]["acme_chat"]["scorecard"] for part in parts) == second
    assert sum(part["rows"]["scorecard"] for part in parts) == first + second
    assert sum(part["rows"]["score"] for part in parts) == first
    assert abs(sum(part["conversations"] for part in parts) - old["conversations"]) <= len(parts) / 2
    assert parts == cut(old, result, "run1")
    for part in parts:
        if DateRange.parse(part["start"], part["end"]).days > 1:
            again = cut(part, result, "run1")
            assert all(single.days == 1 for single in ranges(again))
            assert covers_exactly(DateRange.parse(part["start"], part["end"]), ranges(again))
            for database, tables in part["before"].items():
                for table, rows in tables.items():
                    assert sum(single["before"][database][table] for single in again) == rows
            assert abs(sum(single["conversations"] for single in again) - part["conversations"]) <= len(again) / 2


@given(st.integers(2, 60))
def test_parts_are_records_of_the_plan(days: int) -> None:
    end = str(date(2026, 1, 1) + timedelta(days=days))
    parts = cut(window(end=end), {}, "run1")
    for part in json.loads(json.dumps(parts)):
        assert Window.from_json(part).to_json() == part
    assert plan_hash(parts) == plan_hash(json.loads(json.dumps(parts)))


def test_evenly_filled_windows_are_cut_into_ten_days() -> None:
    rows = {f"d202601{day:02d}": 10 for day in range(1, 32)}
    assert [part.days for part in ranges(cut(window(), deleted(**rows), "run1"))] == [10, 10, 10, 1]


def test_a_part_that_would_hold_more_than_half_means_single_days() -> None:
    assert [part.days for part in ranges(cut(window(), deleted(d20260101=51, d20260115=49), "run1"))] == [1] * 31
    assert len(cut(window(), deleted(d20260101=50, d20260115=50), "run1")) == 4
    # Without counts the share is that of the days: 10 of 15 are too many.
    assert [part.days for part in ranges(cut(window(end="2026-01-16"), {}, "run1"))] == [1] * 15


def test_ten_days_and_less_are_cut_into_single_days() -> None:
    assert [part.days for part in ranges(cut(window(end="2026-01-11"), {}, "run1"))] == [1] * 10


def test_a_part_says_what_it_is() -> None:
    part = cut(window(end="2026-01-03"), deleted(d20260101=30, d20260102=10), "run1")[0]
    assert part["label"] == "acme 2026-01-01..2026-01-02"
    assert part["key"] == window_key(
        cluster="demo", run_id="run1", customer_id="acme", start="2026-01-01", end="2026-01-02"
    )
    assert (part["conversations"], part["rows"]) == (750, {"scorecard": 30})
    assert part["before"] == {"acme_voice": {"scorecard": 30}}
