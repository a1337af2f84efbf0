"""Steps of a delete: together exactly the window's days, none above the limit unless it is a single day."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.planning.deletes import delete_steps, droppable
from include.scorecard_backfill.sql import Slice

PART = Slice("acme_voice", "acme", "voice", date(2026, 1, 1), date(2026, 2, 1))
NAME = ("acme_voice", "scorecard")
volumes = st.dictionaries(
    st.integers(0, 30).map(lambda n: (PART.start + timedelta(days=n)).isoformat()), st.integers(0, 50), max_size=31
)


@given(volumes, st.integers(1, 400))
def test_steps_cover_the_days_and_end_with_the_whole_range(days: dict[str, int], limit: int) -> None:
    steps = delete_steps([("scorecard", PART)], {NAME: days}, limit)
    with_rows = sorted(day for day, rows in days.items() if rows)
    if not with_rows:
        assert steps == []
        return
    *chunks, sweep = steps
    assert sweep.part == PART
    assert sweep.chunk == 0
    if sum(days.values()) <= limit or len(with_rows) == 1:
        assert chunks == []
    else:
        assert [step.part.start.isoformat() for step in chunks] == with_rows
        assert all(step.part.end - step.part.start == timedelta(days=1) for step in chunks)
        assert [step.chunk for step in chunks] == list(range(1, len(chunks) + 1))
        assert {(step.part.customer_id, step.part.profile_id) for step in chunks} == {("acme", "voice")}


def test_a_table_without_rows_is_not_touched() -> None:
    steps = delete_steps([("scorecard", PART), ("score", PART)], {NAME: {"2026-01-03": 5}}, 10)
    assert [step.table for step in steps] == ["scorecard"]


def row(**changes: Any) -> dict[str, Any]:
    return {"host": "ch-0", "partition_id": "202601", "rows": 10, "foreign_rows": 0} | changes


def size(size_bytes: int, partition: str = "202601") -> dict[str, Any]:
    return {"host": "ch-0", "partition_id": partition, "bytes": size_bytes}


def test_partitions_are_dropped_only_when_nothing_else_is_in_them() -> None:
    assert droppable([row()], [size(5)], ["202601"], ["ch-0"], 10) == ""
    assert "3 rows outside" in droppable([row(foreign_rows=3)], [size(5)], ["202601"], ["ch-0"], 10)
    assert "bytes > 10" in droppable([row()], [size(11)], ["202601"], ["ch-0"], 10)
    assert droppable([row()], [size(11, "202512")], ["202601"], ["ch-0"], 10) == ""
    assert "not in system.clusters" in droppable([row(host="other")], [], ["202601"], ["ch-0"], 10)
