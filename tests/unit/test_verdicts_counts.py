"""Counts before and after, and the verdict itself: unknown is never a number, a band's ends are inside."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.verdicts.base import Verdict, failed, ok, wait
from include.scorecard_backfill.verdicts.counts import Band, Host, empty_days, judge, table_total, totals, unsettled

TABLE, SCORE = ("acme_voice", "scorecard"), ("acme_voice", "score")
HOSTS = [Host("a1", 1), Host("a2", 1), Host("b1", 2), Host("b2", 2)]
BAND = Band(0.7, 1.0)


def decided(before: Any, after: Any, band: Band = BAND, **bands: Band) -> Verdict:
    """The verdict of the second look that counts the same."""
    return judge(before, after, dict(after), bands, band)


def test_a_total_is_one_replica_of_each_shard() -> None:
    assert table_total({"a1": 3, "a2": 3, "b1": 4, "b2": 4}, HOSTS) == 7
    assert table_total({"a1": 3, "a2": 3, "b1": 4, "b2": 4, "stranger": 9}, HOSTS) == 7


@given(st.dictionaries(st.sampled_from([host.name for host in HOSTS]), st.integers(0, 3)))
def test_a_silent_host_or_replicas_that_differ_are_unknown(per_host: dict[str, int]) -> None:
    total = table_total(per_host, HOSTS)
    known = len(per_host) == 4 and per_host["a1"] == per_host["a2"] and per_host["b1"] == per_host["b2"]
    assert total == (per_host["a1"] + per_host["b1"] if known else None)
    assert (totals({TABLE: per_host}, HOSTS) is None) is (total is None)
    assert bool(unsettled({TABLE: per_host}, HOSTS)) is (total is None)


def test_no_host_at_all_is_unknown_and_not_zero() -> None:
    assert table_total({}, []) is None
    assert totals({TABLE: {"a1": 0}}, []) is None
    assert unsettled({TABLE: {"a1": 0}}, [])


def test_what_is_unsettled_is_said() -> None:
    good = {"a1": 1, "a2": 1, "b1": 2, "b2": 2}
    assert unsettled({TABLE: good}, HOSTS) == ""
    assert unsettled({TABLE: good, SCORE: {"a1": 1}}, HOSTS) == "no count of acme_voice.score from a2, b1, b2"
    assert (
        unsettled({TABLE: good | {"b2": 3}}, HOSTS) == "replicas of acme_voice.scorecard differ: a1=1, a2=1, b1=2, b2=3"
    )
    assert totals({TABLE: good, SCORE: {"a1": 1}}, HOSTS) is None
    assert totals(iter_twice := {TABLE: good, SCORE: good}, iter(HOSTS)) == dict.fromkeys(iter_twice, 3)


def test_two_looks_in_a_row_must_agree() -> None:
    assert judge({TABLE: 10}, {TABLE: 9}, None, {}, BAND).state == "wait"
    assert judge({TABLE: 10}, {TABLE: 9}, {TABLE: 8}, {}, BAND).state == "wait"
    assert judge({TABLE: 10}, {TABLE: 9}, {TABLE: 9}, {}, BAND).state == "ok"
    # Even a loss must have settled before it is one.
    assert judge({TABLE: 10}, {TABLE: 0}, {TABLE: 5}, {}, BAND).state == "wait"


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [
        (10, 7, ""),
        (10, 10, ""),
        (10, 6, "lost_rows"),
        (10, 11, "too_many_rows"),
        (10, 0, "lost_rows"),
        (0, 0, ""),
        (0, 5, ""),
    ],
)
def test_the_band_is_inclusive_and_an_empty_window_may_gain(before: int, after: int, cause: str) -> None:
    verdict = decided({TABLE: before}, {TABLE: after})
    assert verdict.cause == cause
    assert verdict.state == ("failed" if cause else "ok")


RATIO = st.integers(0, 1_000).map(lambda n: n / 100)


@given(RATIO, RATIO, st.integers(1, 300).map(lambda n: n * 100), st.integers(-1, 1))
def test_the_ends_of_every_band_are_exact(one: float, two: float, rows: int, off: int) -> None:
    lower, upper = sorted((one, two))
    ends = [int(Fraction(str(lower)) * rows), int(Fraction(str(upper)) * rows)]
    for end in ends:
        after = max(0, end + off)
        inside = ends[0] <= after <= ends[1]
        assert (decided({TABLE: rows}, {TABLE: after}, Band(lower, upper)).state == "ok") is inside


def test_a_table_may_have_a_band_of_its_own() -> None:
    before, after = {TABLE: 100, SCORE: 100}, {TABLE: 90, SCORE: 40}
    assert decided(before, after).text == "acme_voice.score: count 40 < 70% of 100 before"
    assert decided(before, after, score=Band(0.4, 1)).state == "ok"
    both = decided({TABLE: 100, SCORE: 100}, {TABLE: 101, SCORE: 1})
    assert both.cause == "lost_rows"
    assert len(both.reasons) == 2


def test_a_table_that_was_not_counted_is_unknown() -> None:
    with pytest.raises(KeyError):
        decided({TABLE: 10}, {SCORE: 10})


def test_days_that_did_not_come_back_are_named() -> None:
    before = {TABLE: {"2026-01-01": 100, "2026-01-02": 99, "2026-01-03": 500, "2026-01-04": 0}}
    after = {TABLE: {"2026-01-03": 1}}
    assert empty_days(before, after, 100) == ["acme_voice.scorecard: no row of 2026-01-01, 100 before"]
    assert len(empty_days(before, {}, 1)) == 3
    assert len(empty_days(before, {TABLE: {"2026-01-01": 0}}, 100)) == 2


@given(st.dictionaries(st.integers(1, 9).map(lambda n: f"2026-01-0{n}"), st.integers(0, 50)), st.integers(1, 60))
def test_no_day_is_missed_when_everything_came_back(days: dict[str, int], least: int) -> None:
    assert empty_days({TABLE: days}, {TABLE: days}, least) == []
    assert len(empty_days({TABLE: days}, {}, least)) == sum(rows >= least for rows in days.values())


def test_a_verdict_owes_its_reader_a_reason() -> None:
    for make in (wait, lambda: failed("cause"), lambda: failed("", "reason")):
        with pytest.raises(ValueError, match="reason"):
            make()
    assert ok().text == "ok"
    assert wait("a", "b") == Verdict("wait", ("a", "b"))
    assert wait("a", "b").text == "a; b"
    assert (failed("killed", "x").cause, failed("killed", "x").state) == ("killed", "failed")


def test_without_an_upper_end_any_number_of_rows_may_be_added() -> None:
    assert decided({TABLE: 100}, {TABLE: 100_000}, Band(0.7, None)).state == "ok"
    assert decided({TABLE: 100}, {TABLE: 69}, Band(0.7, None)).cause == "lost_rows"
