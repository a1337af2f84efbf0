"""What a cluster owes, debt by debt, as a person sees it who may write one off."""

from __future__ import annotations

from include.scorecard_backfill.config.fields import Frozen
from include.scorecard_backfill.names import digest
from include.scorecard_backfill.overview.results import PAID
from include.scorecard_backfill.spoiled import Spoiled, read_debt


class OwedLine(Frozen):
    """One debt. ``key``: of the window that owes it; ``digest``: of exactly what is stored, by which it is written off.

    ``remedy``: what to do about one that cannot be read, '' for the others.
    """

    key: str
    label: str
    text: str
    digest: str
    remedy: str = ""


class OwedList(Frozen):
    """All debts of a cluster that are open, by label."""

    cluster: str
    debts: tuple[OwedLine, ...]


def owed_line(window: str, value: str) -> OwedLine | None:
    """Return the line of a stored debt (JSON text), None for one that was paid."""
    if value == PAID:
        return None
    debt = read_debt(window, value)
    remedy = debt.remedy if isinstance(debt, Spoiled) else ""
    return OwedLine(key=window, label=debt.label, text=debt.text, digest=digest(value), remedy=remedy)
