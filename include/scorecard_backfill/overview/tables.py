"""The plan and the report as tables with totals; every number comes from the rows of the windows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date

from include.scorecard_backfill.overview.facts import Planned, RunFacts
from include.scorecard_backfill.overview.model import PlanRow, PlanTable, ReportRow, ReportTable, WindowRow
from include.scorecard_backfill.overview.rows import sum_numbers

ALL = "all"
"""Name of the total's row."""


def plan_table(facts: RunFacts) -> PlanTable:
    """Return the plan by customer, in the order of admission."""
    planned = [w.window for w in (facts.passes[0] if facts.passes else ())]
    by_customer: dict[str, list[Planned]] = defaultdict(list)
    for window in planned:
        by_customer[window.customer_id].append(window)
    rows = tuple(_plan_row(customer, listed) for customer, listed in by_customer.items())
    return PlanTable(
        rows=rows,
        total=_plan_total(rows),
        tables=tuple(sorted({t for row in rows for t in row.rows})),
        hash=facts.plan_hash or "",
        mode=str(facts.run.get("mode") or ""),
        notes=tuple(facts.plan_notes),
    )


def _plan_row(customer: str, windows: Sequence[Planned]) -> PlanRow:
    rows: dict[str, int] = defaultdict(int)
    for window in windows:
        for table, count in window.rows.items():
            rows[table] += count
    return PlanRow(
        customer=customer,
        databases=tuple(dict.fromkeys(d for w in windows for d in w.databases)),
        windows=len(windows),
        start=min(w.start for w in windows),
        end=max(w.end for w in windows),
        days=sum((date.fromisoformat(w.end) - date.fromisoformat(w.start)).days for w in windows),
        conversations=sum(w.conversations for w in windows),
        rows=dict(sorted(rows.items())),
    )


def _plan_total(customers: Sequence[PlanRow]) -> PlanRow:
    rows: dict[str, int] = defaultdict(int)
    for one in customers:
        for table, count in one.rows.items():
            rows[table] += count
    return PlanRow(
        customer=ALL,
        databases=(),
        windows=sum(one.windows for one in customers),
        start=min((one.start for one in customers), default=""),
        end=max((one.end for one in customers), default=""),
        days=sum(one.days for one in customers),
        conversations=sum(one.conversations for one in customers),
        rows=dict(sorted(rows.items())),
    )


def report_table(rows: Iterable[WindowRow]) -> ReportTable:
    """Return what was done by customer, by name; only verified windows of the plan count."""
    planned = [r for r in rows if not r.part_of]
    by_customer: dict[str, list[WindowRow]] = defaultdict(list)
    for row in planned:
        by_customer[row.customer].append(row)
    customers = tuple(_report_row(customer, listed) for customer, listed in sorted(by_customer.items()))
    total = ReportRow(
        customer=ALL,
        windows=len(planned),
        verified=sum(one.verified for one in customers),
        tables=sum_numbers(one.tables for one in customers),
    )
    return ReportTable(rows=customers, total=total, tables=tuple(total.tables))


def _report_row(customer: str, rows: Sequence[WindowRow]) -> ReportRow:
    done = [r for r in rows if r.state == "verified"]
    return ReportRow(
        customer=customer, windows=len(rows), verified=len(done), tables=sum_numbers(r.tables for r in done)
    )
