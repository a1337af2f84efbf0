"""What finished and failed windows say about a customer, and how large its next windows should be.

The figures of the smoothing are those of GitLab's batched background migrations: a moving average with weight 0.4 for
the newest measurement, and 95 % of the time that a window may take. Sizes only ever shrink below the cluster's own
target, which is the largest that is known to work.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from include.scorecard_backfill.jsontext import from_text
from include.scorecard_backfill.verdicts.causes import SIZE

MOST = 1e15
"""Beyond every number of conversations; inf and NaN are not numbers of them."""

WEIGHT = 0.4
"""Weight of the newest throughput in the moving average."""

TIME_SHARE = 0.95
"""Share of the time that a window may take which is planned for."""


@dataclass(frozen=True, slots=True)
class Customer:
    """What is known about one customer.

    ``per_minute``: conversations per minute of one window (0: not known). ``too_big``: conversations of the smallest
    window that failed because of its size (0: none). ``done``: conversations of the largest verified window.
    """

    per_minute: float = 0.0
    too_big: int = 0
    done: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one window ended: its conversations, the minutes of its reindex (0: not known), the cause of a failure."""

    customer_id: str
    conversations: int
    minutes: float = 0.0
    cause: str = ""


def parse_learned(text: str | None) -> dict[str, Customer]:
    """Return what a JSON text holds, by customer id; {} for None. Raises ValueError for anything else than our JSON."""
    if not text:
        return {}
    raw: Any = from_text(text)
    if not isinstance(raw, dict):
        raise ValueError(f"learned sizes: {type(raw).__name__} instead of an object of customers")
    try:
        learned = {customer: Customer(**fields) for customer, fields in raw.items()}
    except TypeError as error:
        raise ValueError(f"learned sizes: {error}") from None
    for customer, one in learned.items():
        for name, value in asdict(one).items():
            whole = name != "per_minute"
            if (
                isinstance(value, bool)
                or not isinstance(value, int if whole else int | float)
                or not 0 <= value <= MOST
            ):
                raise ValueError(f"learned sizes: {customer}: {name}: {str(value)[:50]!r} is not such a number")
    return learned


def dump_learned(learned: Mapping[str, Customer]) -> str:
    """Return the JSON text of :func:`parse_learned`."""
    return json.dumps({customer: asdict(value) for customer, value in sorted(learned.items())}, indent=1)


def learn(known: Mapping[str, Customer], outcomes: Iterable[Outcome]) -> dict[str, Customer]:
    """Return what is known after these outcomes. A larger window that was verified lifts an older bound."""
    result = dict(known)
    for outcome in outcomes:
        if outcome.conversations <= 0:
            continue
        result[outcome.customer_id] = _after(result.get(outcome.customer_id, Customer()), outcome)
    return result


def _after(old: Customer, outcome: Outcome) -> Customer:
    size = outcome.conversations
    if outcome.cause in SIZE:
        return Customer(old.per_minute, min(size, old.too_big or size), old.done)
    if outcome.cause:
        return old
    speed = old.per_minute
    if outcome.minutes > 0:
        newest = min(size / outcome.minutes, MOST)
        speed = round(WEIGHT * newest + (1 - WEIGHT) * speed, 1) if speed else round(newest, 1)
    too_big = 0 if old.too_big and size >= old.too_big else old.too_big
    return Customer(speed, too_big, max(size, old.done))


def target_of(customer: Customer | None, target: int, window_minutes: int) -> tuple[int, str]:
    """Return conversations that a window of the customer may hold, and why it is less than ``target`` ('' if not).

    ``window_minutes``: how long the reindex of a window should take at most.
    """
    if customer is None:
        return target, ""
    best, why = target, ""
    half = max(1, customer.too_big // 2)
    if customer.too_big and half < best:
        best, why = half, f"a window of {customer.too_big:,} conversations was too big"
    if customer.per_minute:
        in_time = max(1, int(min(best, customer.per_minute * window_minutes * TIME_SHARE)))
        if in_time < best:
            best, why = (
                in_time,
                f"{customer.per_minute:,.0f} conversations per minute, {window_minutes} minutes a window",
            )
    return best, why
