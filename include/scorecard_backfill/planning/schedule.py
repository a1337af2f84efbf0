"""When a cluster's schedule fires, which month such a run takes, and what was missed.

The slots are those of Airflow 3.3.2 (`airflow/timetables/_cron.py`): the cron line is read on the wall clock of the
zone; a wall time that a change of the clocks leaves out is moved on by the change, one that comes twice is taken the
second time. `tests/airflow/test_timetable.py` compares the two.

A run takes the calendar month before the one of its slot *in the zone*, but works in whole UTC days. East of Greenwich
the month is over on the wall clock hours before its last UTC day is. A schedule with such a slot could only be refused
month after month, so `schedule_problem` refuses the line when the file is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, CroniterError, croniter

from include.scorecard_backfill.planning.windows import DateRange, previous_month

__all__ = [
    "MissedSlot",
    "cron_problem",
    "is_over",
    "late_start",
    "missed_slot",
    "next_slot",
    "over_at",
    "previous_slot",
    "schedule_problem",
    "slots",
]

CRON_FIELDS = 5

YEARS_LOOKED_AT = 2
"""Enough where the line names no weekday: the dates, and so the offsets of the zone, are those of every year."""
YEARS_LOOKED_AT_BY_WEEKDAY = 12
"""Enough for a weekday to meet the first of every month (at most 11 years apart)."""
SLOTS_LOOKED_AT = 400
"""More than a year of daily slots. 24 slots of a monthly line take 5 ms, 400 take 0.06 s, once for line and zone."""
SHORTEST_DISTANCE = timedelta(hours=20)
"""Below a day (23 hours when clocks go forward): each slot takes the same month, so a second one is a typing error."""

# Other schedulers' R and H fields: a value that differs from process to process, or from DAG to DAG.
_RANDOM = re.compile(r"(?<![a-z])[rh](?![a-z])", re.IGNORECASE)


def cron_problem(line: str) -> str:
    """What is wrong with a cron line by itself, or "".

    >>> cron_problem("0 6 2 * *")
    ''
    >>> cron_problem("0 6 2 *")
    'has 4 fields, not the 5 of minute hour day month weekday (0 6 2 * *)'
    """
    fields = line.split()
    if len(fields) != CRON_FIELDS:
        return f"has {len(fields)} fields, not the 5 of minute hour day month weekday (0 6 2 * *)"
    if _RANDOM.search(line):
        return "has a random field (R or H), which would differ from process to process; write a number"
    try:
        croniter(line)
        # Lines such as 0 6 31 2 * are read without an error and never fire.
        croniter(line, datetime(2026, 1, 1)).get_next(datetime)
    except CroniterBadDateError:
        return "names no day that exists, so it would never fire; write for example 0 6 2 * *"
    except (CroniterError, ValueError, KeyError, IndexError) as error:
        return f"cannot be read ({error}); write minute hour day month weekday, for example 0 6 2 * *"
    return ""


def slots(line: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """The moments (UTC) at which the line fires after `after` (aware, exclusive), in order, without an end.

    Lines that fire at every hour are not treated as Airflow does where clocks change; `schedule_problem` refuses them.

    >>> one = next(slots("0 6 2 * *", ZoneInfo("Australia/Sydney"), datetime(2026, 1, 31, tzinfo=UTC)))
    >>> one.isoformat()
    '2026-02-01T19:00:00+00:00'
    """
    # A day earlier: where clocks change, the order of wall times is not that of the moments.
    wall = after.astimezone(zone).replace(tzinfo=None) - timedelta(days=1)
    lines = croniter(line, wall)
    last = after
    while True:
        moment = _moment(lines.get_next(datetime), zone)
        if moment > last:
            last = moment
            yield moment


def next_slot(line: str, zone: ZoneInfo, after: datetime) -> datetime:
    """The first slot (UTC) after `after` (aware, exclusive)."""
    return next(slots(line, zone, after))


def previous_slot(line: str, zone: ZoneInfo, at: datetime) -> datetime:
    """The last slot (UTC) that is not after `at` (aware, inclusive)."""
    wall = at.astimezone(zone).replace(tzinfo=None) + timedelta(days=1)
    lines = croniter(line, wall)
    while True:
        moment = _moment(lines.get_prev(datetime), zone)
        if moment <= at:
            return moment


def _moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """A wall time of the zone as UTC: the second of two, and moved on by the change where clocks leave it out."""
    second = wall.replace(tzinfo=zone, fold=1)
    back = second.astimezone(UTC).astimezone(zone).replace(tzinfo=None)
    return (second if back == wall else second.replace(fold=0)).astimezone(UTC)


def over_at(days: DateRange) -> datetime:
    """The moment (UTC) at which the last UTC day of `days` is over."""
    return datetime(days.end.year, days.end.month, days.end.day, tzinfo=UTC)


def is_over(days: DateRange, moment: datetime) -> bool:
    """True if every UTC day of `days` is over at `moment` (aware): the rule for the days of any run."""
    return over_at(days) <= moment


def schedule_problem(line: str, zone: ZoneInfo, since: date | None = None) -> str:
    """Why a schedule can never work, and what would be right; "" if each of its slots can.

    The slots of the next years are enumerated: each must lie at or after the end, in UTC, of the month it takes, and no
    two may lie within a day.

    Args:
        line: five cron fields.
        zone: the zone of the schedule.
        since: the UTC day from which on slots are looked at; None: the first of this year, so that a file is judged
            alike all year.
    """
    problem = cron_problem(line)
    return problem or _slots_problem(line, zone, since or date(datetime.now(UTC).year, 1, 1))


@lru_cache(maxsize=1_024)
def _slots_problem(line: str, zone: ZoneInfo, since: date) -> str:
    start = datetime(since.year, since.month, since.day, tzinfo=UTC)
    years = YEARS_LOOKED_AT if line.split()[-1] == "*" else YEARS_LOOKED_AT_BY_WEEKDAY
    end = datetime(since.year + years, since.month, 1, tzinfo=UTC)
    seen: list[datetime] = []
    for slot in islice(slots(line, zone, start), SLOTS_LOOKED_AT):
        if slot > end:
            break
        seen.append(slot)
        if len(seen) > 1 and slot - seen[-2] < SHORTEST_DISTANCE:
            return _too_often(line, zone, seen[-2])
    early = [slot for slot in seen if not is_over(previous_month(slot, zone), slot)]
    return _too_early(line, zone, early, len(seen)) if early else ""


def _too_often(line: str, zone: ZoneInfo, slot: datetime) -> str:
    day = slot.astimezone(zone).date()
    one = " ".join(["0", "6", *line.split()[2:]])
    return f"fires more than once on {day} ({zone.key}), each time for the same month; write for example {one}"


def _too_early(line: str, zone: ZoneInfo, early: Sequence[datetime], total: int) -> str:
    first = early[0]
    days = previous_month(first, zone)
    right = earliest_line(line, zone, first.date())
    return (
        f"fires at {_wall(first, zone)}, when {days.start:%B %Y} is not over in UTC until "
        f"{_wall(over_at(days), zone)}: "
        f"{len(early)} of the next {total} runs could only be refused; write {right}, or a day later"
    )


def earliest_line(line: str, zone: ZoneInfo, since: date) -> str:
    """The line with the earliest minute and hour at which the first of a month has begun in UTC, all year round."""
    moments = (datetime(since.year, since.month, 1, tzinfo=UTC) + timedelta(days=n) for n in range(0, 400, 7))
    ahead = max(moment.astimezone(zone).utcoffset() or timedelta() for moment in moments)
    minutes = max(0, -(-int(ahead.total_seconds()) // 60))
    return " ".join([str(minutes % 60), str(minutes // 60), *line.split()[2:]])


def _wall(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M} {zone.key}"


@dataclass(frozen=True, slots=True)
class MissedSlot:
    """The last slot that started nothing.

    Attributes:
        slot: when it would have fired, UTC.
        days: the month that its run would have taken.
        later: the next slot, UTC.
    """

    slot: datetime
    days: DateRange
    later: datetime

    def sentence(self, zone: ZoneInfo) -> str:
        """What a person reads: which slot, which month, and what happens if nobody does anything."""
        return (
            f"The run of {_wall(self.slot, zone)} did not start (the DAG was paused, another run was under way, or the "
            f"scheduler was down), so {self.days.start:%B %Y} was not done by schedule. Nothing makes up for it by "
            f"itself; the next run is due at {_wall(self.later, zone)} and takes the month before it."
        )


def missed_slot(
    line: str | None, zone: ZoneInfo, *, now: datetime, last: datetime | None, since: datetime | None, grace: timedelta
) -> MissedSlot | None:
    """The last slot, if it started nothing; None if it did, is still about to, or cannot be known.

    Args:
        line: the cron line; None = no schedule.
        zone: its zone.
        now: aware.
        last: slot (`run_after`) of the latest scheduled run, aware; None = there is none.
        since: when the schedule came into being (the DAG's first appearance), aware; slots before it were not missed.
            None = not known: then only a slot after `last` counts.
        grace: how late after its slot a run may still start.
    """
    if line is None:
        return None
    slot = previous_slot(line, zone, now - grace)
    known = max((moment for moment in (last, since) if moment is not None), default=None)
    if known is None or slot <= known:
        return None
    return MissedSlot(slot, previous_month(slot, zone), next_slot(line, zone, now))


def late_start(*, slot: datetime, started: datetime, grace: timedelta) -> str:
    """Why a scheduled run that began at `started` for `slot` may not go on; "" if it may. Both aware.

    Unpausing must not start what was due while nobody was looking. The timetable makes no run for an old slot; this is
    for a run that was made from a date which the scheduler had kept, or that waited behind another one.
    """
    late = started - slot
    if late <= grace:
        return ""
    minutes = int(late.total_seconds() // 60)
    return (
        f"This scheduled run was due at {slot:%Y-%m-%d %H:%M} UTC and began {minutes} minutes late, more than the "
        f"{int(grace.total_seconds())} seconds of schedule.grace_seconds: the DAG was paused or the scheduler down. "
        "Nothing was started. Trigger the DAG by hand if the month is still to be done."
    )
