"""Half-open windows of whole UTC days: parse, months, split, cut.

Every range here starts at 00:00 UTC of its first day and ends at 00:00 UTC of the day after its last one:
the start is included, the end is not. Two windows that touch (`a.end == b.start`) neither overlap nor leave a
gap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Literal, assert_never
from zoneinfo import ZoneInfo

FixedMode = Literal["month", "10d", "5d", "1d"]
WindowMode = Literal["auto", "month", "10d", "5d", "1d"]

CUT_DAYS = 10
"""Days of the first cut of a window that was too big; the second cut is single days. Both worked."""

_ISO_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ONE_DAY = timedelta(days=1)


class WindowError(ValueError):
    """A date or a range of dates is not usable; the text names the value and what would be right."""


def parse_day(value: object, field: str = "date") -> date:
    """One UTC day from text of the form YYYY-MM-DD, and nothing else.

    >>> parse_day("2026-02-01")
    datetime.date(2026, 2, 1)

    Raises:
        WindowError: other forms ('2026-2-1', '01/02/2026', with a time), no text, or no day of the calendar.
    """
    if not isinstance(value, str) or _ISO_DAY.fullmatch(value) is None:
        raise WindowError(f"{field}: {value!r} is not a date; write it as YYYY-MM-DD, for example '2026-02-01'.")
    try:
        return date.fromisoformat(value)
    except ValueError as error:
        raise WindowError(
            f"{field}: {value!r} is not a day of the calendar ({error}); write it as YYYY-MM-DD."
        ) from error


@dataclass(frozen=True, slots=True, order=True)
class DateRange:
    """Whole UTC days from `start` (inclusive) to `end` (exclusive); never empty; sorts by start, then end.

    >>> january = DateRange(date(2026, 1, 1), date(2026, 2, 1))
    >>> january.days, january.label
    (31, '2026-01-01..2026-02-01')

    Raises:
        WindowError: an end that is a datetime, or start not before end.
    """

    start: date
    end: date

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("end", self.end)):
            if not isinstance(value, date) or isinstance(value, datetime):
                raise WindowError(f"{name}: {value!r} is not a plain date; windows are whole UTC days.")
        if self.start >= self.end:
            raise WindowError(
                f"start {self.start} is not before end {self.end}; the end is exclusive, "
                f"one day is {self.start}..{_next_day_text(self.start)}."
            )

    @classmethod
    def parse(cls, start: object, end: object) -> DateRange:
        """A range from two texts of the form YYYY-MM-DD, end exclusive.

        >>> DateRange.parse("2026-01-01", "2026-01-11").days
        10
        """
        return cls(parse_day(start, "start"), parse_day(end, "end"))

    @classmethod
    def from_label(cls, label: str) -> DateRange:
        """The range whose `label` this is.

        >>> DateRange.from_label("2026-01-01..2026-01-11") == DateRange.parse("2026-01-01", "2026-01-11")
        True
        """
        start, separator, end = label.partition("..")
        if not separator:
            raise WindowError(f"label: {label!r} is not a window; write it as YYYY-MM-DD..YYYY-MM-DD.")
        return cls.parse(start, end)

    @property
    def days(self) -> int:
        """Number of UTC days, at least 1."""
        return (self.end - self.start).days

    @property
    def label(self) -> str:
        """`<first day>..<day after the last>`, both as YYYY-MM-DD."""
        return f"{self.start.isoformat()}..{self.end.isoformat()}"

    @property
    def is_whole_months(self) -> bool:
        """True if the range is made of complete calendar months only.

        >>> DateRange.parse("2026-01-01", "2026-03-01").is_whole_months
        True
        """
        return self.start.day == 1 and self.end.day == 1

    def dates(self) -> Iterator[date]:
        """Every day of the range, oldest first."""
        return (self.start + timedelta(days=offset) for offset in range(self.days))

    def overlaps(self, other: DateRange) -> bool:
        """True if both share at least one day; ranges that only touch do not overlap."""
        return self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        return self.label


def previous_month(run_after: datetime, zone: ZoneInfo) -> DateRange:
    """The calendar month before the one in which `run_after` lies, as seen in `zone`.

    Only the choice of the month uses the zone; the window itself is made of UTC days.

    >>> previous_month(datetime(2026, 3, 2, 6, tzinfo=ZoneInfo("UTC")), ZoneInfo("UTC")).label
    '2026-02-01..2026-03-01'

    Raises:
        WindowError: `run_after` carries no zone, so that its day is unknown.
    """
    if run_after.tzinfo is None or run_after.utcoffset() is None:
        raise WindowError(f"run_after: {run_after.isoformat()} has no time zone; give an aware datetime.")
    end = run_after.astimezone(zone).date().replace(day=1)
    return DateRange((end - _ONE_DAY).replace(day=1), end)


def split_fixed(whole: DateRange, mode: FixedMode) -> tuple[DateRange, ...]:
    """Windows of a fixed length, oldest first; the last one may be shorter.

    "1d", "5d" and "10d" count from the start of the range; "month" cuts at the first of each month.

    >>> [part.label for part in split_fixed(DateRange.parse("2026-01-25", "2026-02-03"), "month")]
    ['2026-01-25..2026-02-01', '2026-02-01..2026-02-03']
    >>> [part.days for part in split_fixed(DateRange.parse("2026-01-01", "2026-02-01"), "10d")]
    [10, 10, 10, 1]
    """
    if mode == "month":
        return _split_months(whole)
    if mode == "10d":
        return _split_days(whole, 10)
    if mode == "5d":
        return _split_days(whole, 5)
    if mode == "1d":
        return _split_days(whole, 1)
    assert_never(mode)


def split_by_volume(
    whole: DateRange, per_day: Mapping[date, int], target: int, *, cut_at_months: bool
) -> tuple[DateRange, ...]:
    """The fewest windows of whole days that hold at most `target` conversations each, oldest first.

    A day above `target` is a window of its own: nothing is ever cut below a day. Days without conversations
    join the window before them, or the one after, and stand in a window of their own only between two days
    above `target` (or if nothing else is there). Days that `per_day` does not name hold 0; days outside of
    `whole` are ignored.

    >>> volumes = {date(2026, 1, 1): 300, date(2026, 1, 2): 100, date(2026, 1, 4): 900}
    >>> whole = DateRange.parse("2026-01-01", "2026-01-06")
    >>> [part.label for part in split_by_volume(whole, volumes, 400, cut_at_months=False)]
    ['2026-01-01..2026-01-04', '2026-01-04..2026-01-05', '2026-01-05..2026-01-06']

    Args:
        whole: the range to cut; the union of the result is exactly this.
        per_day: conversations per UTC day.
        target: conversations a window may hold, at least 1.
        cut_at_months: also cut at the first of each month, so that whole monthly partitions stay whole.

    Raises:
        WindowError: `target` below 1, or a negative number of conversations.
    """
    if target < 1:
        raise WindowError(f"target: {target} conversations is not a size for a window; give at least 1.")
    for day in whole.dates():
        if per_day.get(day, 0) < 0:
            raise WindowError(f"per_day: {per_day[day]} conversations on {day}; a volume is 0 or more.")
    spans = _split_months(whole) if cut_at_months else (whole,)
    return tuple(part for span in spans for part in _fill(span, per_day, target))


def cut_smaller(window: DateRange) -> tuple[DateRange, ...]:
    """The parts in which a window that was too big is tried again, oldest first; () if it cannot be cut.

    More than 10 days: parts of 10 days. 2 to 10 days: single days. One day: ().

    >>> [part.days for part in cut_smaller(DateRange.parse("2026-01-01", "2026-02-01"))]
    [10, 10, 10, 1]
    >>> len(cut_smaller(DateRange.parse("2026-01-01", "2026-01-11")))
    10
    >>> cut_smaller(DateRange.parse("2026-01-01", "2026-01-02"))
    ()
    """
    if window.days > CUT_DAYS:
        return _split_days(window, CUT_DAYS)
    return _split_days(window, 1) if window.days > 1 else ()


def union(parts: Iterable[DateRange]) -> tuple[DateRange, ...]:
    """The same days as the fewest ranges, oldest first; ranges that overlap or touch are joined.

    >>> [part.label for part in union([DateRange.parse("2026-01-03", "2026-01-04"),
    ...                                DateRange.parse("2026-01-01", "2026-01-03")])]
    ['2026-01-01..2026-01-04']
    """
    merged: list[DateRange] = []
    for part in sorted(parts):
        if merged and part.start <= merged[-1].end:
            merged[-1] = DateRange(merged[-1].start, max(merged[-1].end, part.end))
        else:
            merged.append(part)
    return tuple(merged)


def gaps(whole: DateRange, parts: Iterable[DateRange]) -> tuple[DateRange, ...]:
    """The days of `whole` that no part holds, oldest first.

    >>> [gap.label for gap in gaps(DateRange.parse("2026-01-01", "2026-01-05"),
    ...                            [DateRange.parse("2026-01-02", "2026-01-03")])]
    ['2026-01-01..2026-01-02', '2026-01-03..2026-01-05']
    """
    found: list[DateRange] = []
    position = whole.start
    for part in union(parts):
        if position < part.start and position < whole.end:
            found.append(DateRange(position, min(part.start, whole.end)))
        position = max(position, part.end)
    if position < whole.end:
        found.append(DateRange(position, whole.end))
    return tuple(found)


def overlaps(parts: Iterable[DateRange]) -> tuple[DateRange, ...]:
    """The days that more than one part holds, joined, oldest first; () if no two parts overlap.

    >>> [shared.label for shared in overlaps([DateRange.parse("2026-01-01", "2026-01-05"),
    ...                                       DateRange.parse("2026-01-04", "2026-01-09")])]
    ['2026-01-04..2026-01-05']
    """
    shared: list[DateRange] = []
    position: date | None = None
    for part in sorted(parts):
        if position is not None and part.start < position:
            shared.append(DateRange(part.start, min(part.end, position)))
        position = part.end if position is None else max(position, part.end)
    return union(shared)


def covers_exactly(whole: DateRange, parts: Iterable[DateRange]) -> bool:
    """True if the parts hold every day of `whole` exactly once and no day outside, in any order.

    >>> january = DateRange.parse("2026-01-01", "2026-02-01")
    >>> covers_exactly(january, split_fixed(january, "5d")), covers_exactly(january, [])
    (True, False)
    """
    ordered = sorted(parts)
    if not ordered or ordered[0].start != whole.start or ordered[-1].end != whole.end:
        return False
    return all(before.end == after.start for before, after in pairwise(ordered))


def _split_days(whole: DateRange, days: int) -> tuple[DateRange, ...]:
    starts = range(0, whole.days, days)
    return tuple(
        DateRange(
            whole.start + timedelta(days=offset),
            whole.start + timedelta(days=min(offset + days, whole.days)),
        )
        for offset in starts
    )


def _split_months(whole: DateRange) -> tuple[DateRange, ...]:
    cuts = [whole.start, *(day for day in whole.dates() if day.day == 1 and day != whole.start), whole.end]
    return tuple(DateRange(start, end) for start, end in pairwise(cuts))


def _fill(span: DateRange, per_day: Mapping[date, int], target: int) -> tuple[DateRange, ...]:
    """Fill from the oldest day on; a window is closed before the day that would take it above the target."""
    cuts = [span.start]
    held = 0
    for day in span.dates():
        volume = per_day.get(day, 0)
        # A window that holds a day above the target is full, even for a day with nothing in it.
        if day != cuts[-1] and (held + volume > target):
            cuts.append(day)
            held = 0
        held += volume
    return tuple(DateRange(start, end) for start, end in pairwise([*cuts, span.end]))


def _next_day_text(day: date) -> str:
    return (day + _ONE_DAY).isoformat() if day < date.max else "(no later day)"
