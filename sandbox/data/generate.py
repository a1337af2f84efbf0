"""Spec -> records. Pure and deterministic: nothing here reads a clock, a file or the network."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random

from sandbox.data.spec import ClusterSpec, ProfileSpec

DAY_MS = 86_400_000
"""Milliseconds of a UTC day."""

APPEAL = "appeal_request"
"""Scorecard type that the new reindex code leaves out."""

ORDINARY = "conversation"
"""Scorecard type that a reindex writes again."""

CRITERIA = ("greeting", "empathy", "compliance", "resolution", "closing")
"""Names of the scored criteria; a scorecard has 2..5 of them."""


@dataclass(frozen=True, slots=True)
class Score:
    """One scored criterion of a scorecard."""

    score_id: str
    criterion: str
    value: float


@dataclass(frozen=True, slots=True)
class Scorecard:
    """One scorecard; time_ms is `scorecard_time` in UTC milliseconds since 1970.

    has_older_version: ClickHouse also holds an older version of this row and of its scores.
    """

    scorecard_id: str
    scorecard_type: str
    time_ms: int
    scores: tuple[Score, ...]
    has_older_version: bool


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation; started_ms in UTC milliseconds, None when the source store does not hold it."""

    conversation_id: str
    started_ms: int | None
    scorecards: tuple[Scorecard, ...]


def day_ms(day: date) -> int:
    """First instant of a UTC day in milliseconds since 1970."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def day_of(time_ms: int) -> date:
    """The UTC day of an instant in milliseconds since 1970."""
    return date(1970, 1, 1) + timedelta(days=time_ms // DAY_MS)


def months(first_day: date, end_day: date) -> Iterator[tuple[date, date]]:
    """The range [first_day, end_day) cut at the month ends, in order, each part half-open."""
    start = first_day
    while start < end_day:
        following = (start.replace(day=1) + timedelta(days=32)).replace(day=1)
        yield start, min(following, end_day)
        start = following


def generate(spec: ClusterSpec, profile: ProfileSpec) -> Iterator[Conversation]:
    """All conversations of one profile in the spec's range, month by month.

    The records of a month depend only on seed, cluster name, profile and month.
    """
    for start, end in months(spec.first_day, spec.end_day):
        key = (spec.seed, spec.name, profile.customer_id, profile.profile_id, start.isoformat())
        rng = Random(repr(key))
        for started_ms in _start_times(rng, profile.per_month, start, end):
            yield _conversation(rng, spec, started_ms)
        for number in range(spec.stragglers):
            yield _straggler(rng, spec, start, end, missing=number % 2 == 0)


def _start_times(rng: Random, per_month: int, start: date, end: date) -> list[int]:
    """Sorted starts in [start, end): the first instant and the last millisecond of the range are taken,
    and every day with two or more conversations has one at 00:00:00.000 and one at 23:59:59.999."""
    days = (end - start).days
    total = -(-per_month * days // calendar.monthrange(start.year, start.month)[1])
    per_day = [0] * days
    for index in ([0, days - 1] + [rng.randrange(days) for _ in range(max(0, total - 2))])[:total]:
        per_day[index] += 1
    times: list[int] = []
    for index, count in enumerate(per_day):
        first = day_ms(start) + index * DAY_MS
        edges = [first, first + DAY_MS - 1][:count]
        if count == 1 and 0 < index == days - 1:
            edges = [first + DAY_MS - 1]
        times += sorted(edges + [first + rng.randrange(DAY_MS) for _ in range(count - len(edges))])
    return times


def _conversation(rng: Random, spec: ClusterSpec, started_ms: int) -> Conversation:
    conversation_id = f"{rng.getrandbits(96):024x}"
    cards = tuple(_scorecard(rng, spec, conversation_id, n, started_ms) for n in range(rng.randint(1, 2)))
    return Conversation(conversation_id, started_ms, cards)


def _straggler(rng: Random, spec: ClusterSpec, start: date, end: date, *, missing: bool) -> Conversation:
    """A conversation that is missing or starts up to 20 days before the month, with one scorecard in it."""
    conversation_id = f"{rng.getrandbits(96):024x}"
    time_ms = day_ms(start) + rng.randrange((end - start).days * DAY_MS)
    started_ms = None if missing else day_ms(start) - 1 - rng.randrange(20 * DAY_MS)
    card = _scorecard(rng, spec, conversation_id, 0, time_ms, scorecard_type=ORDINARY)
    return Conversation(conversation_id, started_ms, (card,))


def _scorecard(
    rng: Random,
    spec: ClusterSpec,
    conversation_id: str,
    number: int,
    time_ms: int,
    scorecard_type: str | None = None,
) -> Scorecard:
    scorecard_id = f"{conversation_id}-{number}"
    kind = scorecard_type or (APPEAL if rng.random() < spec.appeal_share else ORDINARY)
    scores = tuple(Score(f"{scorecard_id}-{n}", CRITERIA[n], rng.randint(0, 100) / 4) for n in range(rng.randint(2, 5)))
    return Scorecard(scorecard_id, kind, time_ms, scores, rng.random() < spec.duplicate_share)
