"""Steps of a delete: together exactly the window's days, none above the limit unless it is a single day."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
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


HOSTS = ("ch-1", "ch-2")
CLEAN: dict[str, list[tuple[str, int, int]]] = {"ch-1": [("202601", 5, 0)], "ch-2": []}


def size(value: int, partition: str = "202601") -> dict[str, Any]:
    return {"host": "ch-1", "partition_id": partition, "bytes": value}


def why(
    held: dict[str, list[tuple[str, int, int]]], sizes: list[dict[str, Any]], hosts: tuple[str, ...] = HOSTS
) -> str:
    return droppable(held, sizes, ["202601"], hosts, 10)


def test_a_partition_is_dropped_only_when_nothing_else_is_in_it_anywhere() -> None:
    assert why(CLEAN, [size(5)]) == ""
    assert why(CLEAN, [size(11, "202512")]) == ""
    assert "on ch-2 holds 3 rows outside" in why({**CLEAN, "ch-2": [("202601", 5, 3)]}, [size(5)])
    assert "bytes > 10" in why(CLEAN, [size(11)])


def test_rows_of_the_window_in_another_partition_are_not_left_behind() -> None:
    found = why({**CLEAN, "ch-2": [("202601", 5, 0), ("202602", 2, 0)]}, [size(5)])
    assert found == "2 rows of the window lie in partition 202602 on ch-2 (a key in another zone)"


@pytest.mark.parametrize("hosts", [(), ("ch-1",), ("ch-1", "ch-2", "ch-3"), ("ch-1", "ch-3")])
def test_hosts_that_did_not_answer_hold_everything(hosts: tuple[str, ...]) -> None:
    assert "what the partitions hold is known of 2 of" in why(CLEAN, [], hosts)
