"""Debts: days whose rows were deleted and are not yet proven to be back. A debt outlives its run.

It is written before the first DELETE of a window and paid by the window's verification. Each debt belongs to one window
of one run, which is its only writer; the plan of a later run hands the owed days over to its own windows (one run of a
cluster at a time). Nothing is ever taken away before what replaces it is written: a process that dies in between leaves
a day owed twice, with the same numbers, and never a day that nobody owes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.records import Database, Order, Record, TableDays, Window


class Debt(Record):
    """What a window owes: ``before`` are the numbers of its days before the first DELETE of this debt.

    ``window`` is the key of the window that has to pay it; ``run_id`` and ``since`` are those of the first delete, also
    after it was handed over. ``swept``: order reindex_first, the rows are there and only the proof is owed.
    """

    kind: Literal["debt"] = "debt"
    window: str
    cluster: str
    customer_id: str
    databases: tuple[Database, ...]
    start: date
    end: date
    before: tuple[TableDays, ...]
    run_id: str
    since: datetime
    digest: str = ""
    order: Order = "delete_first"
    swept: bool = False

    @property
    def range(self) -> DateRange:
        """The UTC days, end exclusive."""
        return DateRange(self.start, self.end)

    @property
    def label(self) -> str:
        """Customer and days."""
        return f"{self.customer_id} {self.start}..{self.end}"

    @property
    def text(self) -> str:
        """One sentence for plan, report and page."""
        rows = ", ".join(f"{t.rows:,} rows of {t.database}.{t.table}" for t in self.before)
        what = "swept, not yet verified" if self.swept else "deleted, not yet proven to be back"
        return f"{self.label}: {what} since {self.since:%Y-%m-%d %H:%M} UTC (run {self.run_id}): {rows}"


def owed_by(window: Window, debts: Iterable[Debt]) -> tuple[TableDays, ...]:
    """Return the numbers of a window's days that are owed, by table; of a day owed twice the earliest debt's count."""
    found: dict[tuple[str, str], TableDays] = {}
    for debt in sorted(debts, key=lambda d: d.since, reverse=True):
        if debt.customer_id != window.customer_id or not debt.range.overlaps(window.range):
            continue
        for table in debt.before:
            inside = table.within(window.start, window.end)
            if inside.days:
                known = found.get(inside.name, inside.model_copy(update={"days": {}}))
                found[inside.name] = known.model_copy(update={"days": {**known.days, **inside.days}})
    return tuple(found[name] for name in sorted(found))


def of_windows(windows: Iterable[Window], debts: Iterable[Debt]) -> list[Debt]:
    """Return the debts of any day of these windows: a plan has handed them over to its windows, a cut to parts."""
    days = [(window.customer_id, window.range) for window in windows]
    return [d for d in debts if any(c == d.customer_id and r.overlaps(d.range) for c, r in days)]


def owed_of(window: Window, run_id: str, debts: Sequence[Debt]) -> Debt | None:
    """Return the debt that a window takes over, None when none of its days is owed.

    Its run and time are those of the earliest debt of these days.
    """
    mine = [d for d in debts if d.customer_id == window.customer_id and d.range.overlaps(window.range)]
    before = owed_by(window, mine)
    if not before:
        return None
    first = min(mine, key=lambda d: d.since)
    return Debt(
        window=window.key,
        cluster=window.cluster,
        customer_id=window.customer_id,
        databases=window.databases,
        start=window.start,
        end=window.end,
        before=before,
        run_id=first.run_id or run_id,
        since=first.since,
        digest=first.digest,
        order=first.order,
        swept=all(d.swept for d in mine),
    )


@dataclass(frozen=True, slots=True)
class Handover:
    """How debts go over to the windows of a new plan: written first, then what is left of the old ones, then gone.

    ``write`` are debts to store (new ones, and old ones cut down to the days that no window takes), ``drop`` keys whose
    debt is taken over whole.
    """

    write: tuple[Debt, ...]
    drop: tuple[str, ...]


def hand_over(windows: Sequence[Window], run_id: str, debts: Sequence[Debt]) -> Handover:
    """Return what a plan writes so that each owed day that it covers is owed by its own window."""
    taken = [debt for window in windows if (debt := owed_of(window, run_id, debts)) is not None]
    mine = {debt.window for debt in taken}
    rest: list[Debt] = []
    drop: list[str] = []
    for debt in debts:
        if debt.window in mine:
            continue
        covered = [w.range for w in windows if w.customer_id == debt.customer_id and w.range.overlaps(debt.range)]
        if not covered:
            continue
        left = _uncovered(debt, covered)
        if left is None:
            drop.append(debt.window)
        else:
            rest.append(left)
    return Handover((*taken, *rest), tuple(drop))


def _uncovered(debt: Debt, covered: Iterable[DateRange]) -> Debt | None:
    """Return the debt without the days of the ranges, None when no owed day is left."""
    ranges = list(covered)

    def kept(day: str) -> bool:
        one = date.fromisoformat(day)
        return not any(r.start <= one < r.end for r in ranges)

    tables = tuple(
        t.model_copy(update={"days": {day: n for day, n in t.days.items() if kept(day)}}) for t in debt.before
    )
    if not any(t.days for t in tables):
        return None
    return debt.model_copy(update={"before": tables})


def outside(windows: Iterable[Window], debts: Iterable[Debt]) -> tuple[Debt, ...]:
    """Return the debts of which a plan covers no day or not every day, oldest first."""
    by_customer: dict[str, list[DateRange]] = {}
    for window in windows:
        by_customer.setdefault(window.customer_id, []).append(window.range)
    left = (_uncovered(debt, by_customer.get(debt.customer_id, ())) for debt in debts)
    return tuple(sorted((d for d in left if d is not None), key=lambda d: (d.since, d.label)))


def unpayable(debts: Iterable[Debt], there: Container[str]) -> list[str]:
    """Return a sentence for each debt with a database that is not among those that are there: nobody can pay it."""
    return [
        f"{debt.label} is owed, and its database {one.name} is not on the cluster any more. If it will never come back,"
        f" write the debt off: `python -m backfill write-off {debt.window} --reason …` (docs/runbook.md)"
        for debt in debts
        for one in debt.databases
        if one.name not in there
    ]


def databases_of(debts: Iterable[Debt]) -> Mapping[str, tuple[Database, ...]]:
    """Return the databases of each customer that owes days, also of those whose tables hold no row any more."""
    found: dict[str, dict[str, Database]] = {}
    for debt in debts:
        known = found.setdefault(debt.customer_id, {})
        for database in debt.databases:
            known[database.name] = database
    return {customer: tuple(known[name] for name in sorted(known)) for customer, known in found.items()}
