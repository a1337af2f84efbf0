"""Debts that cannot be read: what they still say, whom they stand in the way of, and what a person can do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date

from include.scorecard_backfill.debts import Debt
from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.records import RecordError, plain
from include.scorecard_backfill.records.base import VERSION

WHAT_TO_DO = (
    "Look at these days on the cluster. If nothing of them is missing, or it will never come back, write the debt off:"
    " `python -m backfill write-off {key} --reason …` (docs/runbook.md). If a later release has written it, plan with"
    " that one."
)


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A stored debt that cannot be read. ``window``: key of the window that owes it.

    ``customer_id`` ('') and ``days`` (None) are known only where a debt of this release's form names them.
    """

    window: str
    why: str
    customer_id: str = ""
    days: DateRange | None = None

    @property
    def label(self) -> str:
        """Customer and days, or that it is not known."""
        if self.days is None:
            return "customer and days not known"
        return f"{self.customer_id} {self.days.start}..{self.days.end}"

    @property
    def text(self) -> str:
        """One sentence for plan, report and page."""
        return f"the debt of window {self.window} ({self.label}) cannot be read: {self.why}"

    @property
    def remedy(self) -> str:
        """What a person can do."""
        return WHAT_TO_DO.format(key=self.window)

    def concerns(self, days: DateRange, customers: Collection[str], *, everybody: bool) -> bool:
        """Return True when a plan of these days and customers may owe it; one that names nothing concerns each."""
        if self.days is None:
            return True
        return days.overlaps(self.days) and (everybody or self.customer_id in customers)


@dataclass(frozen=True, slots=True)
class OpenDebts:
    """Every debt of a cluster that is not paid, oldest first, and those that cannot be read."""

    readable: tuple[Debt, ...] = ()
    spoiled: tuple[Spoiled, ...] = ()

    @property
    def owing(self) -> list[str]:
        """Keys of the windows that owe them."""
        return [*(debt.window for debt in self.readable), *(one.window for one in self.spoiled)]


def read_debt(window: str, value: object) -> Debt | Spoiled:
    """Return what is stored as the debt of a window (its key), whatever it is."""
    try:
        debt = Debt.from_json(value)
        for table in debt.before:
            for day in table.days:
                _day(day)
    except ValueError as error:
        # A RecordError is one.
        return _spoiled(window, value, error)
    if debt.window != window:
        return _spoiled(window, value, ValueError(f"it is one of window {debt.window}"))
    return debt


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a day") from None


def _spoiled(window: str, value: object, error: ValueError) -> Spoiled:
    try:
        found = plain(value)
    except RecordError:
        found = None
    if not isinstance(found, Mapping):
        return Spoiled(window, str(error)[:300])
    if found.get("kind") == "debt" and found.get("v") != VERSION:
        return Spoiled(window, f"its version is {found.get('v')!r}, this release reads {VERSION}")
    named, days = found.get("customer_id"), _days(found)
    if found.get("kind") != "debt" or not isinstance(named, str) or not named or days is None:
        return Spoiled(window, str(error)[:300])
    return Spoiled(window, str(error)[:300], named, days)


def _days(found: Mapping[str, object]) -> DateRange | None:
    try:
        return DateRange(date.fromisoformat(str(found.get("start"))), date.fromisoformat(str(found.get("end"))))
    except ValueError:
        return None
