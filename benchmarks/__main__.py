"""`make bench`: timings as ratios within one run, because machines differ. Nothing here decides a test."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.operators.plan import read_inventory
from benchmarks.many_databases import many_databases
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.verdicts.admission import Limits, Phase, Slot, survey

JANUARY = DateRange.parse("2026-01-01", "2026-02-01")


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """Return the shortest of some runs, in seconds."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def planning() -> None:
    """Compare the inventory of ten databases with that of a hundred: queries are constant, so time grows slowly."""
    measured = {}
    for count in (10, 100):
        with tempfile.TemporaryDirectory() as folder, many_databases(Path(folder), count):
            hook = BackfillClickHouse(ClusterConfig.model_validate({"name": "many"}))
            measured[count] = seconds(lambda hook=hook: read_inventory(hook, JANUARY))  # type: ignore[misc]
    ratio = measured[100] / measured[10]
    print(f"inventory: 10 databases {measured[10]:.2f} s, 100 databases {measured[100]:.2f} s, ratio {ratio:.1f}")


def admission() -> None:
    """Compare one survey that all windows share with one survey for each window."""
    phases: list[Phase] = ["running"] * 10 + ["waiting"] * 1_990
    slots = [Slot(f"customer-{number % 95}", phase) for number, phase in enumerate(phases)]
    limits = Limits(10, 1, max_failures=10)

    def shared() -> None:
        seen = survey(slots, limits)
        for index in range(len(slots)):
            seen.judge(index)

    def each() -> None:
        for index in range(0, len(slots), 100):
            survey(slots, limits).judge(index)

    once, sample = seconds(shared), seconds(each, 1)
    ratio = sample * 100 / once
    print(f"admission of 2,000 windows: shared survey {once * 1_000:.1f} ms, a survey for each: {ratio:.0f} times that")


if __name__ == "__main__":
    admission()
    planning()
