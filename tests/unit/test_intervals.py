"""Pauses between two looks of a wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.intervals import pause

LONGEST = st.floats(0.2, 600)


@pytest.mark.parametrize(
    ("waited", "longest", "expected"),
    [
        (0, 10, 2),  # a fifth at first
        (20, 10, 2),
        (50, 10, 5),  # then a tenth of the time waited
        (100, 10, 10),
        (3_600, 10, 10),  # never longer than the configured interval
        (0, 30, 6),
        (0, 3, 1),  # not more than a look a second ...
        (0, 0.5, 0.5),  # ... unless it is configured so
        (0, 600, 30),  # what takes a minute is not seen two minutes later
        (1_000, 600, 100),
        (86_400, 600, 600),
    ],
)
def test_pauses(waited: float, longest: float, expected: float) -> None:
    assert pause(waited, longest) == pytest.approx(expected)


@given(st.floats(0, 10_000_000), LONGEST)
def test_no_pause_exceeds_the_interval_and_none_is_a_busy_loop(waited: float, longest: float) -> None:
    assert min(1.0, longest) <= pause(waited, longest) <= longest


@given(st.floats(0, 1), LONGEST)
def test_an_end_is_seen_within_a_tenth_of_the_work_or_half_a_minute(share: float, longest: float) -> None:
    # A week; where looks are frequent some thousand of them: from ten intervals on each pause is the same.
    work, looked = share * min(7 * 86_400, 3_000 * longest), 0.0
    while looked < work:
        looked += pause(looked, longest)
    assert looked - work <= max(0.1 * work, 30.0) + 1e-6


@given(st.floats(0, 1_000_000), st.floats(0, 1_000_000), LONGEST)
def test_pauses_do_not_become_shorter(one: float, other: float, longest: float) -> None:
    first, later = sorted((one, other))
    assert pause(first, longest) <= pause(later, longest)
