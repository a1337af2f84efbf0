"""The generator: deterministic, within its range, with the shares and edges it promises."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.data.generate import APPEAL, DAY_MS, day_ms, day_of, generate, months
from sandbox.data.source import iso_utc, parse_utc
from sandbox.data.spec import (
    PRESETS,
    ClusterSpec,
    ProfileSpec,
    SpecError,
    database_name,
    preset_spec,
    rates_spec,
)

DAYS = st.dates(date(2023, 11, 1), date(2026, 12, 31))


@given(DAYS, st.integers(1, 400))
def test_months_cover_the_range_without_gap_or_overlap(first: date, length: int) -> None:
    end = first + timedelta(days=length)
    parts = list(months(first, end))
    assert parts[0][0] == first
    assert parts[-1][1] == end
    assert all(left[1] == right[0] for left, right in pairwise(parts))
    assert all((start.year, start.month) == (last.year, last.month) for start, last in _last_days(parts))


def _last_days(parts: list[tuple[date, date]]) -> list[tuple[date, date]]:
    return [(start, end - timedelta(days=1)) for start, end in parts]


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(2, 80), DAYS, st.integers(1, 70))
def test_conversations_lie_in_the_range_and_touch_both_ends(
    seed: int, per_month: int, first: date, length: int
) -> None:
    end = first + timedelta(days=length)
    profile = ProfileSpec("acme", "voice", per_month)
    spec = ClusterSpec("c", seed, (profile,), first_day=first, end_day=end)
    starts = [c.started_ms for c in generate(spec, profile)]
    assert all(s is not None and day_ms(first) <= s < day_ms(end) for s in starts)
    for start, stop in months(first, end):
        inside = [s for s in starts if s is not None and day_ms(start) <= s < day_ms(stop)]
        assert min(inside) == day_ms(start)
        assert len(inside) == 1 or max(inside) == day_ms(stop) - 1


def test_same_spec_gives_same_records_and_another_seed_others() -> None:
    spec = preset_spec("sandbox-west", seed=5)
    profile = spec.profiles[1]
    assert list(generate(spec, profile)) == list(generate(preset_spec("sandbox-west", seed=5), profile))
    assert list(generate(spec, profile)) != list(generate(preset_spec("sandbox-west", seed=6), profile))


def test_a_month_does_not_depend_on_the_other_months() -> None:
    profile = ProfileSpec("wayne", "voice", 50)
    long = ClusterSpec("c", 3, (profile,))
    short = ClusterSpec("c", 3, (profile,), first_day=date(2026, 1, 1), end_day=date(2026, 2, 1))
    january = [c for c in generate(long, profile) if c.started_ms and day_of(c.started_ms).month == 1]
    assert january == list(generate(short, profile))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_keep_their_promises(name: str) -> None:
    spec = preset_spec(name, seed=1, scale=0.3)
    ids: set[str] = set()
    cards = appeals = older = 0
    for profile in spec.profiles:
        for conversation in generate(spec, profile):
            assert 1 <= len(conversation.scorecards) <= 2
            for card in conversation.scorecards:
                assert card.time_ms == conversation.started_ms
                assert 2 <= len(card.scores) <= 5
                assert card.scorecard_id not in ids
                ids.add(card.scorecard_id)
                cards += 1
                appeals += card.scorecard_type == APPEAL
                older += card.has_older_version
    assert 0.08 < appeals / cards < 0.12
    assert 0 < older / cards < 0.05


def test_presets_hold_the_telling_customers() -> None:
    east = preset_spec("sandbox-east", seed=1)
    customers = {profile.customer_id for profile in east.profiles}
    assert len(customers) >= 8
    assert {"acme", "acme-sandbox", "globex.eu"} <= customers
    assert [p.profile_id for p in east.profiles if p.customer_id == "acme"] == ["voice", "chat"]
    databases = [p.database for name in PRESETS for p in preset_spec(name, 1).profiles]
    assert len(set(databases)) == len(databases)
    assert "globex_eu_voice_1" in databases


def test_hundred_databases_are_cheap() -> None:
    spec = rates_spec("many", {f"customer-{n:03d}": 31 for n in range(100)})
    assert sum(len(list(generate(spec, profile))) for profile in spec.profiles) == 3100


def test_stragglers_start_before_the_month_or_are_missing() -> None:
    spec = rates_spec("late", {"acme": 10}, stragglers=4)
    month = day_ms(spec.first_day), day_ms(spec.end_day)
    late = [c for c in generate(spec, spec.profiles[0]) if c.started_ms is None or c.started_ms < month[0]]
    assert [c.started_ms is None for c in late] == [True, False, True, False]
    assert all(month[0] <= card.time_ms < month[1] for c in late for card in c.scorecards)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: preset_spec("sandbox-north", 1), "'sandbox-north'"),
        (lambda: preset_spec("sandbox-east", 1, scale=0), "scale is 0"),
        (lambda: rates_spec("x", {"acme": -1}), "per_month of 'acme' is -1"),
        (lambda: rates_spec("x", {"acme": 1}, end_day=date(2026, 1, 1)), "must be after first_day"),
        (lambda: rates_spec("x", {"acme": 1, "acme/voice": 2}), "twice"),
        (lambda: ClusterSpec("x", 1, (), appeal_share=1.5), "appeal_share is 1.5"),
        (lambda: ClusterSpec("x", 1, (), stragglers=-1), "stragglers is -1"),
    ],
)
def test_bad_specs_name_the_value(make: object, part: str) -> None:
    assert callable(make)
    with pytest.raises(SpecError, match=part):
        make()


@given(st.text(max_size=20), st.text(max_size=20))
def test_database_names_are_plain_and_keep_their_length(customer: str, profile: str) -> None:
    name = database_name(customer, profile)
    assert len(name) == len(customer) + len(profile) + 1
    assert all(char == "_" or (char.isascii() and char.isalnum()) for char in name)


@given(st.integers(0, 4_000_000_000_000), st.integers(0, 4_000_000_000_000))
def test_times_survive_the_store_and_keep_their_order(left: int, right: int) -> None:
    assert parse_utc(iso_utc(left)) == left
    assert (iso_utc(left) < iso_utc(right)) == (left < right)
    assert day_ms(day_of(left)) <= left < day_ms(day_of(left)) + DAY_MS


def test_a_time_without_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="no UTC offset"):
        parse_utc("2026-01-01T00:00:00")
