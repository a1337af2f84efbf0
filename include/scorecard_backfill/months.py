"""Which months of which customers a run has verified: what Airflow's asset events say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any

from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.records.base import Part
from include.scorecard_backfill.report import VERIFIED


class VerifiedMonth(Part):
    """``days`` verified of ``of`` days that the month has, from start to end (exclusive); ``whole``: all of them."""

    customer: str
    month: str
    start: str
    end: str
    days: int
    of: int
    whole: bool


def verified_months(report: Mapping[str, Any]) -> list[VerifiedMonth]:
    """Return one entry for each customer and calendar month of which this run has verified days, in their order.

    A month of which the run has a window that is not verified is left out: what is announced must hold for everything
    that was planned of it.
    """
    verified: dict[tuple[str, str], set[date]] = defaultdict(set)
    spoiled: set[tuple[str, str]] = set()
    for row in report.get("windows") or ():
        for day in _days(str(row["start"]), str(row["end"])):
            at = (str(row["customer_id"]), f"{day:%Y-%m}")
            if row["status"] == VERIFIED:
                verified[at].add(day)
            else:
                spoiled.add(at)
    return [_entry(*at, verified[at]) for at in sorted(set(verified) - spoiled)]


def is_complete(report: Mapping[str, Any]) -> bool:
    """Return True for the report of a run that has verified all that it has planned."""
    return bool(report.get("complete"))


def _days(start: str, end: str) -> Iterable[date]:
    days = DateRange(date.fromisoformat(start), date.fromisoformat(end))
    return (days.start + timedelta(days=n) for n in range(days.days))


def _entry(customer: str, month: str, days: set[date]) -> VerifiedMonth:
    first = date.fromisoformat(f"{month}-01")
    of = ((first + timedelta(days=31)).replace(day=1) - first).days
    return VerifiedMonth(
        customer=customer,
        month=month,
        start=min(days).isoformat(),
        end=(max(days) + timedelta(days=1)).isoformat(),
        days=len(days),
        of=of,
        whole=len(days) == of,
    )
