"""The health gate: closes above one value, opens below another, and does not take unknown for well."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.config import HealthConfig, Hysteresis
from include.scorecard_backfill.verdicts.health import FREE_DISK, MEASURES, Gate, Reading, judge

CONFIG = HealthConfig(
    unfinished_mutations=Hysteresis(stop_above=10, resume_below=5),
    active_parts=None,
    replication_queue=None,
    running_workflows=None,
    min_free_disk_bytes=0,
)


def look(value: int, before: Gate) -> Gate:
    return judge({"unfinished_mutations": Reading(value, "ch-1")}, CONFIG, before)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=50))
def test_hysteresis(values: list[int]) -> None:
    gate, closed = Gate({}), False
    for value in values:
        gate = look(value, gate)
        closed = value > 10 or (closed and value >= 5)
        assert gate.open is not closed


def test_the_sentence_names_value_host_and_limit() -> None:
    gate = look(11, Gate({}))
    assert gate.text == "11 unfinished mutations on ch-1 (more than 10)"
    assert look(7, gate).text == "7 unfinished mutations on ch-1 (goes on below 5)"


def test_a_missing_reading_closes_the_gate() -> None:
    gate = judge({}, HealthConfig(), Gate({}))
    assert set(gate.closed) == set(MEASURES)


def test_least_free_disk() -> None:
    config = HealthConfig(
        unfinished_mutations=None,
        active_parts=None,
        replication_queue=None,
        running_workflows=None,
        min_free_disk_bytes=100,
    )
    assert judge({FREE_DISK: Reading(100, "ch-1")}, config, Gate({})).open
    assert "ch-1" in judge({FREE_DISK: Reading(99, "ch-1")}, config, Gate({})).text
