"""Sizes that were learned: smaller after a failure by size, never above the cluster's target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.planning.learned import Customer, Outcome, dump_learned, learn, parse_learned, target_of

outcomes = st.lists(
    st.builds(
        Outcome,
        customer_id=st.sampled_from(["acme", "globex"]),
        conversations=st.integers(0, 2_000_000),
        minutes=st.floats(0, 2_000, allow_nan=False),
        cause=st.sampled_from(["", "heartbeat_timeout", "start_to_close_timeout", "deadlock", "canceled"]),
    ),
    max_size=20,
)


@given(outcomes, st.integers(1, 1_000_000), st.integers(1, 1_000))
def test_a_target_is_at_least_one_and_never_above_the_clusters(
    listed: list[Outcome], target: int, minutes: int
) -> None:
    for customer in learn({}, listed).values():
        size, why = target_of(customer, target, minutes)
        assert 1 <= size <= target
        assert bool(why) is (size < target)


@given(outcomes)
def test_what_was_learned_survives_the_variable(listed: list[Outcome]) -> None:
    known = learn({}, listed)
    assert parse_learned(dump_learned(known)) == known


def test_half_of_what_was_too_big() -> None:
    known = learn({}, [Outcome("globex", 1_300_000, cause="heartbeat_timeout")])
    assert target_of(known["globex"], 400_000, 360)[0] == 400_000
    known = learn(known, [Outcome("globex", 400_000, cause="start_to_close_timeout")])
    size, why = target_of(known["globex"], 400_000, 360)
    assert size == 200_000
    assert "400,000" in why


def test_a_larger_window_that_was_verified_lifts_the_bound() -> None:
    known = learn({}, [Outcome("globex", 300_000, cause="heartbeat_timeout"), Outcome("globex", 350_000, minutes=100)])
    assert known["globex"].too_big == 0
    assert known["globex"].done == 350_000


def test_what_is_not_size_teaches_nothing() -> None:
    assert learn({}, [Outcome("globex", 300_000, cause="canceled")])["globex"] == Customer()


def test_a_slow_customer_gets_windows_that_fit_the_time() -> None:
    known = learn({}, [Outcome("initech", 10_000, minutes=100)])
    assert target_of(known["initech"], 400_000, 360) == (34_200, "100 conversations per minute, 360 minutes a window")


def test_newest_speed_weighs_forty_percent() -> None:
    known = learn({}, [Outcome("initech", 1_000, minutes=10), Outcome("initech", 2_000, minutes=10)])
    assert known["initech"].per_minute == pytest.approx(140.0)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"acme": {"speed": 3}}',
        "{",
        "[" * 100_000,
        "9" * 5_000,
        '{"acme": {"per_minute": "fast"}}',
        '{"acme": {"too_big": "1"}}',
        '{"acme": {"too_big": 1.5}}',
        '{"acme": {"done": -1}}',
        '{"acme": {"done": true}}',
        '{"acme": {"per_minute": NaN}}',
        '{"acme": {"per_minute": Infinity}}',
        '{"acme": [1]}',
    ],
    ids=lambda text: text[:40],
)
def test_a_text_that_is_not_ours_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (JSONDecodeError is one)
        parse_learned(text)
