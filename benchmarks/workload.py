"""The work that is replayed: windows, how long each takes, and the least time in which all of it can be done. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from heapq import heappop, heappush
from random import Random
from typing import Any

REAL_GIANT_DAY_SECONDS = 7_380.0
"""4.2M conversations a month over 31 days at 1,100 a minute: the day of the biggest customer (real-system.md)."""

REAL_WINDOW_SECONDS = (7_200.0, 21_600.0)
"""A window of a large customer took 2 to 6 hours; the windows of all other customers are drawn from it."""

SECOND_GIANT = 2.6 / 4.2
"""The second biggest customer by the biggest."""

SEED = 1
FIRST_DAY = "2026-01-01"
GIANTS = {"acme": 1.0, "globex": SECOND_GIANT}
"""The giants, the biggest first, each by the biggest."""

GIANT_RATE = 1_500
"""Conversations a month of the biggest customer here: enough that every day has some, few enough that writing them is
not what is measured.
"""

REAL_SPREAD = (0.7, 1.4)
"""Conversations a second of a window by what is usual: windows of 400,000 to 460,000 took 2 to 6 hours, one of 640,000
took 3 (real-system.md). So who orders windows by their conversations knows roughly how long they will take.
"""


@dataclass(frozen=True, slots=True)
class Work:
    """One window of the replay: UTC days (end exclusive) of one customer and the seconds that its workflow takes."""

    customer_id: str
    start: str
    end: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Size:
    """How much is replayed: giants of so many single days, other customers of one window, scaled in time.

    ``giant_seconds`` is what one day of the biggest customer takes here.
    """

    giants: int
    days: int
    others: int
    giant_seconds: float
    at_once: int = 10

    @property
    def scale(self) -> float:
        """Seconds here for each second of the real system."""
        return self.giant_seconds / REAL_GIANT_DAY_SECONDS

    @property
    def end(self) -> str:
        """First day after the windows."""
        return f"2026-01-{self.days + 1:02}" if self.days < 31 else "2026-02-01"

    def customers(self) -> list[str]:
        """Return the customers, giants first."""
        return [*list(GIANTS)[: self.giants], *(f"customer{number:02}" for number in range(self.others))]

    def rates(self, seed: int) -> dict[str, int]:
        """Return each customer's conversations a month, which fit what their windows take but for `REAL_SPREAD`."""
        return {
            name: round(GIANT_RATE * GIANTS[name]) if name in GIANTS else self._rate(name, seed)
            for name in self.customers()
        }

    def _rate(self, customer: str, seed: int) -> int:
        days = _seconds_of(customer, FIRST_DAY, self, seed) / self.giant_seconds
        return round(GIANT_RATE * days / self.days * Random(f"{seed}/{customer}").uniform(*REAL_SPREAD))


def drawn(windows: Iterable[Mapping[str, Any]], size: Size, seed: int) -> list[Work]:
    """Give each planned window its seconds: fixed for giants, drawn for the others, the same for the same seed."""
    works = []
    for window in windows:
        customer = window["customer_id"]
        if customer in GIANTS:
            seconds = size.giant_seconds * _days(window["start"], window["end"]) * GIANTS[customer]
        else:
            seconds = _seconds_of(customer, window["start"], size, seed)
        works.append(Work(customer, window["start"], window["end"], round(seconds, 2)))
    return works


def _seconds_of(customer: str, start: str, size: Size, seed: int) -> float:
    return Random(f"{seed}/{customer}/{start}").uniform(*REAL_WINDOW_SECONDS) * size.scale


def planned(size: Size) -> list[Work]:
    """Return the windows as our plan makes them, without asking it: each day of a giant, one window for the others."""
    days = [f"{FIRST_DAY[:-2]}{day:02}" for day in range(1, size.days + 1)]
    ends = [*days[1:], size.end]
    giants = [
        {"customer_id": name, "start": start, "end": end}
        for name in size.customers()[: size.giants]
        for start, end in zip(days, ends, strict=True)
    ]
    others = [{"customer_id": n, "start": days[0], "end": size.end} for n in size.customers()[size.giants :]]
    return drawn([*giants, *others], size, SEED)


def _days(start: str, end: str) -> int:
    return (date.fromisoformat(end) - date.fromisoformat(start)).days


def lower_bound(works: Sequence[Work], at_once: int) -> float:
    """Return the seconds below which nothing can be done: a customer's windows one by one, ``at_once`` in all."""
    chains: dict[str, float] = defaultdict(float)
    for work in works:
        chains[work.customer_id] += work.seconds
    return max(*chains.values(), sum(chains.values()) / at_once, 0.0)


def in_order(works: Sequence[Work], at_once: int) -> float:
    """Return the seconds that the work takes without any overhead, in its order and within both limits.

    Whoever does not know how long a window will take cannot be faster but by luck: the first of the list whose customer
    has none under way takes the next free place.
    """
    now, waiting = 0.0, list(works)
    running: list[tuple[float, str]] = []
    while waiting or running:
        busy = {customer for _, customer in running}
        following = next((work for work in waiting if work.customer_id not in busy), None)
        if following is not None and len(running) < at_once:
            waiting.remove(following)
            heappush(running, (now + following.seconds, following.customer_id))
        else:
            now, _ = heappop(running)
    return now


def fault_rules(works: Iterable[Work]) -> dict[str, Any]:
    """Return the reindexer's faults file that makes each window take its seconds: one batch, that long."""
    rules = [
        {
            "id": f"{work.customer_id}-{work.start}",
            "kind": "slow",
            "customer": work.customer_id,
            "start": work.start,
            "end": work.end,
            "seconds": work.seconds,
        }
        for work in works
    ]
    return {"rules": rules}
