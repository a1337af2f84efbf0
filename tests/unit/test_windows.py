"""Windows of UTC days: parsing, months, splitting, cutting; the rules as properties."""

from __future__ import annotations

import doctest
import pickle
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.planning import windows
from include.scorecard_backfill.planning.windows import (
    DateRange,
    FixedMode,
    WindowError,
    covers_exactly,
    cut_smaller,
    gaps,
    overlaps,
    parse_day,
    previous_month,
    split_by_volume,
    split_fixed,
    union,
)

DAYS = st.dates(date(1999, 12, 1), date(2032, 3, 1))
MODES: st.SearchStrategy[FixedMode] = st.sampled_from(("month", "10d", "5d", "1d"))


@st.composite
def ranges(draw: st.DrawFn, max_days: int = 120) -> DateRange:
    start = draw(DAYS)
    return DateRange(start, start + timedelta(days=draw(st.integers(1, max_days))))


@st.composite
def volumes(draw: st.DrawFn) -> tuple[DateRange, dict[date, int]]:
    whole = draw(ranges(70))
    counts = st.one_of(st.just(0), st.integers(0, 1_000))
    listed = draw(st.lists(counts, min_size=whole.days, max_size=whole.days))
    return whole, dict(zip(whole.dates(), listed, strict=True))


def test_doctests_hold() -> None:
    result = doctest.testmod(windows)
    assert result.attempted > 10
    assert result.failed == 0


@pytest.mark.parametrize(
    "value",
    ["2026-2-1", "2026-02-30", "01/02/2026", "2026-02-01T00:00:00", "2026-02-01 ", "", "20260201",
     "2026-W05-1", "٢٠٢٦-02-01", "2025-02-29", "0000-01-01", None, 20260201,
     date(2026, 2, 1), datetime(2026, 2, 1)],
)  # fmt: skip
def test_other_forms_of_a_date_are_refused_with_value_and_right_form(value: object) -> None:
    with pytest.raises(WindowError) as caught:
        parse_day(value, "start_date")
    assert "start_date" in str(caught.value)
    assert repr(value) in str(caught.value)
    assert "YYYY-MM-DD" in str(caught.value)


@given(DAYS)
def test_every_day_is_read_back_from_its_iso_text(day: date) -> None:
    assert parse_day(day.isoformat()) == day


@pytest.mark.parametrize(("start", "end"), [("2026-01-02", "2026-01-02"), ("2026-01-03", "2026-01-02")])
def test_a_range_is_never_empty(start: str, end: str) -> None:
    with pytest.raises(WindowError, match=f"start {start} is not before end {end}; the end is exclusive"):
        DateRange.parse(start, end)


def test_a_datetime_is_no_day() -> None:
    with pytest.raises(WindowError, match="not a plain date"):
        DateRange(datetime(2026, 1, 1, tzinfo=UTC), date(2026, 1, 2))


def test_last_day_of_the_calendar_gives_an_error_not_a_crash() -> None:
    with pytest.raises(WindowError, match="not before"):
        DateRange(date.max, date.max)


@given(ranges())
def test_range_round_trips_and_is_half_open(whole: DateRange) -> None:
    assert DateRange.from_label(whole.label) == whole
    assert pickle.loads(pickle.dumps(whole)) == whole
    days = list(whole.dates())
    assert len(days) == whole.days == len(set(days))
    assert days[0] == whole.start
    assert days[-1] + timedelta(days=1) == whole.end


def test_label_without_separator_is_refused() -> None:
    with pytest.raises(WindowError, match=r"YYYY-MM-DD\.\.YYYY-MM-DD"):
        DateRange.from_label("2026-01-01")


@pytest.mark.parametrize(
    ("run_after", "zone", "expected"),
    [
        ("2026-03-02T06:00:00+00:00", "UTC", "2026-02-01..2026-03-01"),
        ("2024-03-01T00:00:00+00:00", "UTC", "2024-02-01..2024-03-01"),
        ("2026-01-31T23:59:59+00:00", "UTC", "2025-12-01..2026-01-01"),
        # 00:30 UTC on the first is still the last of the month in New York, and already the first in Sydney.
        ("2026-03-01T00:30:00+00:00", "America/New_York", "2026-01-01..2026-02-01"),
        ("2026-02-28T14:00:00+00:00", "Australia/Sydney", "2026-02-01..2026-03-01"),
        # The night in which the clocks change.
        ("2026-03-29T01:30:00+00:00", "Europe/London", "2026-02-01..2026-03-01"),
    ],
)
def test_previous_month_is_chosen_in_the_zone(run_after: str, zone: str, expected: str) -> None:
    assert previous_month(datetime.fromisoformat(run_after), ZoneInfo(zone)).label == expected


def test_previous_month_needs_an_aware_moment() -> None:
    with pytest.raises(WindowError, match="no time zone"):
        previous_month(datetime(2026, 3, 2), ZoneInfo("UTC"))


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2032, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(("UTC", "America/Los_Angeles", "Australia/Sydney", "Pacific/Kiritimati")),
)
def test_previous_month_is_one_whole_month_that_has_ended(moment: datetime, zone: str) -> None:
    month = previous_month(moment, ZoneInfo(zone))
    local = moment.astimezone(ZoneInfo(zone)).date()
    assert month.is_whole_months
    assert len(split_fixed(month, "month")) == 1
    assert month.end <= local < month.end + timedelta(days=31)


@given(ranges(), MODES)
def test_fixed_windows_cover_the_range_exactly(whole: DateRange, mode: FixedMode) -> None:
    parts = split_fixed(whole, mode)
    assert [day for part in parts for day in part.dates()] == list(whole.dates())
    assert covers_exactly(whole, parts)
    assert parts == split_fixed(whole, mode)
    length = {"month": 31, "10d": 10, "5d": 5, "1d": 1}[mode]
    assert all(part.days <= length for part in parts)
    if mode == "month":
        assert all(part.end.day == 1 for part in parts[:-1])
        assert all(len({(day.year, day.month) for day in part.dates()}) == 1 for part in parts)
    else:
        assert all(part.days == length for part in parts[:-1])


def test_leap_february_is_one_month_of_29_days() -> None:
    assert [part.days for part in split_fixed(DateRange.parse("2024-02-01", "2024-04-01"), "month")] == [
        29,
        31,
    ]


@given(volumes(), st.integers(1, 1_500), st.booleans())
def test_windows_by_volume_cover_exactly_and_respect_the_target(
    given_volumes: tuple[DateRange, dict[date, int]], target: int, cut: bool
) -> None:
    whole, per_day = given_volumes
    parts = split_by_volume(whole, per_day, target, cut_at_months=cut)
    assert [day for part in parts for day in part.dates()] == list(whole.dates())
    assert parts == split_by_volume(whole, dict(reversed(per_day.items())), target, cut_at_months=cut)
    held = [sum(per_day[day] for day in part.dates()) for part in parts]
    assert all(total <= target or part.days == 1 for total, part in zip(held, parts, strict=True))
    if cut:
        assert all(len({(day.year, day.month) for day in part.dates()}) == 1 for part in parts)
    for (before, next_part), (total, next_total) in zip(pairwise(parts), pairwise(held), strict=True):
        month_cut = cut and next_part.start.day == 1
        # Neighbours are apart only since together they are too much, or since a month ends.
        assert month_cut or total + next_total > target, (before, next_part)


def test_zero_days_are_absorbed_and_unnamed_days_count_as_zero() -> None:
    whole = DateRange.parse("2026-01-01", "2026-02-01")
    assert split_by_volume(whole, {date(2026, 1, 15): 400}, 400, cut_at_months=True) == (whole,)
    assert split_by_volume(whole, {}, 1, cut_at_months=True) == (whole,)
    assert split_by_volume(whole, {date(2025, 12, 31): 10**9}, 1, cut_at_months=False) == (whole,)


def test_a_giant_goes_day_by_day() -> None:
    whole = DateRange.parse("2026-01-01", "2026-02-01")
    parts = split_by_volume(whole, dict.fromkeys(whole.dates(), 500_000), 400_000, cut_at_months=True)
    assert [part.days for part in parts] == [1] * 31


def test_cut_at_months_keeps_whole_months_whole() -> None:
    whole = DateRange.parse("2026-01-20", "2026-04-03")
    parts = split_by_volume(whole, dict.fromkeys(whole.dates(), 1), 1_000, cut_at_months=True)
    assert [part.is_whole_months for part in parts] == [False, True, True, False]
    assert split_by_volume(whole, dict.fromkeys(whole.dates(), 1), 1_000, cut_at_months=False) == (whole,)


def test_bad_volumes_are_refused() -> None:
    day = DateRange.parse("2026-01-01", "2026-01-02")
    with pytest.raises(WindowError, match="target: 0"):
        split_by_volume(day, {}, 0, cut_at_months=False)
    with pytest.raises(WindowError, match="-5 conversations on 2026-01-01"):
        split_by_volume(day, {day.start: -5}, 1, cut_at_months=False)


@given(ranges())
def test_cutting_ends_in_single_days_and_never_loses_one(whole: DateRange) -> None:
    parts = cut_smaller(whole)
    if whole.days == 1:
        assert parts == ()
        return
    assert covers_exactly(whole, parts)
    assert len(parts) > 1
    assert all(part.days <= (10 if whole.days > 10 else 1) for part in parts)


@given(st.lists(ranges(20), max_size=8), ranges(60))
def test_union_gaps_and_overlaps_agree_with_sets_of_days(parts: list[DateRange], whole: DateRange) -> None:
    days = [day for part in parts for day in part.dates()]
    assert {day for part in union(parts) for day in part.dates()} == set(days)
    assert all(before.end < after.start for before, after in pairwise(union(parts)))
    missing = set(whole.dates()) - set(days)
    assert {day for gap in gaps(whole, parts) for day in gap.dates()} == missing
    doubled = {day for day in days if days.count(day) > 1}
    assert {day for shared in overlaps(parts) for day in shared.dates()} == doubled
    exact = not missing and not doubled and set(days) <= set(whole.dates())
    assert covers_exactly(whole, parts) is exact


@given(ranges(40), st.data())
def test_a_missing_doubled_or_shifted_part_is_noticed(whole: DateRange, data: st.DataObject) -> None:
    parts = list(split_fixed(whole, data.draw(MODES)))
    index = data.draw(st.integers(0, len(parts) - 1))
    assert not covers_exactly(whole, parts[:index] + parts[index + 1 :])
    assert not covers_exactly(whole, [*parts, parts[index]])
    assert not covers_exactly(DateRange(whole.start, whole.end + timedelta(days=1)), parts)


@given(ranges(30), ranges(30))
def test_overlap_agrees_with_sets_of_days(one: DateRange, other: DateRange) -> None:
    assert one.overlaps(other) is bool(set(one.dates()) & set(other.dates()))
