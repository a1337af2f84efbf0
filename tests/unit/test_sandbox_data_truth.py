"""The truth against a plain simulation of delete and reindex on the same records."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.data.generate import APPEAL, Conversation, Scorecard, day_ms, generate
from sandbox.data.spec import ClusterSpec, ProfileSpec, preset_spec, rates_spec
from sandbox.data.truth import (
    TABLES,
    ProfileTruth,
    RangeTruth,
    TableTruth,
    by_customer,
    profile_truth,
    read_truth,
    truth,
    write_truth,
)

FIRST, END = date(2025, 12, 1), date(2026, 3, 1)
RANGES = st.tuples(st.integers(0, 89), st.integers(1, 90)).map(
    lambda pair: (FIRST + timedelta(days=pair[0]), min(END, FIRST + timedelta(days=sum(pair))))
)


def simulate(conversations: Iterable[Conversation], start: date, end: date) -> tuple[list[Scorecard], ...]:
    """Scorecards in the window before, and after a DELETE by scorecard_time and a reindex by conversation."""
    low, high = day_ms(start), day_ms(end)
    rows = [(c.started_ms, card) for c in conversations for card in c.scorecards]
    before = [card for _, card in rows if low <= card.time_ms < high]
    written = [
        card
        for started, card in rows
        if started is not None and low <= started < high and card.scorecard_type != APPEAL
    ]
    return before, [card for card in written if low <= card.time_ms < high]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 12), st.integers(0, 6), RANGES)
def test_truth_equals_the_simulation(seed: int, per_month: int, stragglers: int, window: tuple[date, date]) -> None:
    profile = ProfileSpec("acme", "voice", per_month)
    spec = ClusterSpec("c", seed, (profile,), stragglers=stragglers)
    before, after = simulate(generate(spec, profile), *window)
    (row,) = truth(spec, *window)
    assert row.scorecard == TableTruth(len(before), len(after))
    assert row.score == TableTruth(sum(len(c.scores) for c in before), sum(len(c.scores) for c in after))


@settings(max_examples=30, deadline=None)
@given(RANGES, st.integers(1, 89))
def test_days_of_a_range_add_up_without_stragglers(window: tuple[date, date], cut: int) -> None:
    spec = rates_spec("sum", {"acme": 20}, first_day=FIRST, end_day=END)
    middle = min(window[0] + timedelta(days=cut), window[1])
    parts = (window, (window[0], middle), (middle, window[1]))
    (whole,), (left,), (right,) = (truth(spec, *part) for part in parts)
    for table in TABLES:
        assert left.table(table) + right.table(table) == whole.table(table)
    assert left.conversations + right.conversations == whole.conversations


def test_removed_rows_are_exactly_the_appeals_without_stragglers() -> None:
    spec = preset_spec("sandbox-east", seed=4, scale=0.3)
    for profile, row in zip(spec.profiles, truth(spec, date(2026, 1, 1), date(2026, 2, 1)), strict=True):
        before, _ = simulate(generate(spec, profile), date(2026, 1, 1), date(2026, 2, 1))
        appeals = [card for card in before if card.scorecard_type == APPEAL]
        assert row.scorecard.removed == len(appeals)
        assert row.score.removed == sum(len(card.scores) for card in appeals)


def test_customers_with_two_profiles_are_summed() -> None:
    rows = [
        RangeTruth("acme", "voice", "acme_voice", 1, TableTruth(5, 4), TableTruth(9, 8)),
        RangeTruth("acme", "chat", "acme_chat", 1, TableTruth(2, 1), TableTruth(3, 3)),
        RangeTruth("hooli", "chat", "hooli_chat", 1, TableTruth(1, 1), TableTruth(1, 1)),
    ]
    assert by_customer(rows) == {
        "acme": {"scorecard": TableTruth(7, 5), "score": TableTruth(12, 11)},
        "hooli": {"scorecard": TableTruth(1, 1), "score": TableTruth(1, 1)},
    }


def test_unknown_table_is_an_error() -> None:
    row = RangeTruth("a", "v", "a_v", 0, TableTruth(0, 0), TableTruth(0, 0))
    with pytest.raises(KeyError):
        row.table("scorecard_score")


def test_json_keeps_everything(tmp_path: Path) -> None:
    spec = rates_spec("json", {"acme": 40, "globex.eu/voice-1": 20}, stragglers=5)
    truths: tuple[ProfileTruth, ...] = tuple(profile_truth(p, generate(spec, p)) for p in spec.profiles)
    path = tmp_path / "truth" / "json.json"
    write_truth(path, spec, truths)
    assert read_truth(path) == truths
    assert [p.total(spec.first_day, spec.end_day) for p in read_truth(path)] == list(
        truth(spec, spec.first_day, spec.end_day)
    )
