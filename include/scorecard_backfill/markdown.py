"""Plan and report as a person reads them: in the approval, in a log, on the page's download."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from include.scorecard_backfill.planning.plan import CONVERSATIONS_PER_MINUTE
from include.scorecard_backfill.plural import number_of
from include.scorecard_backfill.records import Window
from include.scorecard_backfill.records.proof import IDS_NAMED
from include.scorecard_backfill.records.report import Report, Sums
from include.scorecard_backfill.report import NOT_STARTED, VERIFIED

NAMED = 20
"""So many windows are named where only the number matters."""


def report_markdown(report: Report) -> str:
    """Return the report: customers, totals, and every window that is not verified with its reason and remedy."""
    lines = [f"**{report.verified} of {report.planned} windows verified**"]
    if report.refused:
        lines = [f"**{report.refused}**"]
    elif report.dry_run:
        lines = ["**Dry run: nothing was changed.** The plan:", "", report.dry_run]
    else:
        lines += ["", *_numbers(report)]
    lines += _missing(report)
    lines += _listed("**Jobs that still run, and that no task waits for** (clearing reindex adopts them):",
                     [f"{r.label}: `{r.job}`" for r in report.running or ()])  # fmt: skip
    if report.running_unknown:
        lines += ["", f"Whether Jobs still run is not known: {report.running_unknown}"]
    lines += _listed("**Not verified:**", [] if report.refused else _not_verified(report))
    lines += _listed("**Not proven to be written again** (the rows are there):", report.unwritten)
    lines += _listed("**Open debts of this cluster** (deleted, not proven to be back):", report.debts)
    return "\n".join(lines)


def _not_verified(report: Report) -> list[str]:
    """Return a line for each window that is not verified; of those that nothing has begun, one for each customer."""
    lines, idle = [], defaultdict(list)
    for row in report.windows:
        if row.status == NOT_STARTED and not row.note and not row.what_to_do:
            idle[row.customer_id].append(row)
        elif row.status != VERIFIED:
            todo = f"\n  What to do: {row.what_to_do}" if row.what_to_do else ""
            lines.append(f"{row.label}: {row.status}{': ' + row.note if row.note else ''}{todo}")
    for customer, rows in idle.items():
        span = f"{min(r.start for r in rows)}..{max(r.end for r in rows)}"
        many = f"{customer} {span}: {number_of(len(rows), 'window')} {NOT_STARTED}"
        lines.append(many if len(rows) > 1 else f"{rows[0].label}: {NOT_STARTED}")
    return lines


def not_verified_in_short(report: Report) -> str:
    """Return how many windows are not verified and which, without their reasons, of many the first ones."""
    rows = [row for row in report.windows if row.status != VERIFIED]
    more = [f"- and {len(rows) - NAMED} more"] if len(rows) > NAMED else []
    lines = [f"- {row.label}: {row.status}" for row in rows[:NAMED]]
    head = f"Not verified: {len(rows)} of {number_of(report.planned, 'window')}. The report above has the reasons."
    return "\n".join([head, *lines, *more])


def _numbers(report: Report) -> list[str]:
    lines = [
        "| customer | windows | table | before | meant to go | after | removed | missing |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for customer in report.customers:
        head = f"{_cell(customer.customer_id)} | {customer.verified}/{customer.windows}"
        if not customer.tables:
            lines.append(f"| {head} | - | - | - | - | - | - |")
        lines += [f"| {head} | {table} | {_row(n)} |" for table, n in customer.tables.items()]
    lines += [f"| **all** | | {table} | {_row(n)} |" for table, n in report.total.items()]
    if not report.accounted:
        lines += ["", "Not accounted for: no predicate says which rows were meant to go (clickhouse.meant_to_go)."]
    return lines


def _row(n: Sums) -> str:
    return " | ".join(f"{rows:,}" for rows in (n.before, n.meant, n.after, n.removed, n.short))


def _missing(report: Report) -> list[str]:
    """Return the rows of snapshots that are missing, by window; of those meant to go only how many they were."""
    lines = [
        f"{m.label}: {m.table}: {m.count:,} missing"
        f"{', such as ' + ', '.join(m.ids[:IDS_NAMED]) if m.ids else ''} ({m.meant:,} more were meant to go)"
        for m in report.missing
        if m.count
    ]
    if meant := 0 if lines else sum(m.meant for m in report.missing):
        return ["", f"Nothing is missing from the snapshots but what was meant to go (rows: {meant:,})."]
    return _listed("**Rows of the snapshots that did not come back:**", lines)


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, "", *(f"- {line}" for line in lines)] if lines else []


def plan_markdown(
    windows: Sequence[Window],
    *,
    digest: str,
    mode: str,
    order: str,
    asked_by: str,
    max_parallel: int,
    statements: Sequence[str],
    notes: Sequence[str] = (),
) -> str:
    """Return the plan as a person approves it: per customer windows, days, volumes, totals, digest, statements."""
    grouped: dict[str, list[Window]] = defaultdict(list)
    for window in windows:
        grouped[window.customer_id].append(window)
    tables = sorted({t for w in windows for t in w.rows})
    word = "rows to delete" if mode == "cleanup" else "rows there now"
    if mode == "cleanup" and order == "reindex_first":
        word = "rows to write again or delete"
    who = f", asked for by {asked_by}" if asked_by else ""
    lines = [
        f"{mode} ({order}): **{number_of(len(windows), 'window')}** of {number_of(len(grouped), 'customer')},"
        f" {hours_text(windows, max_parallel)}{who}",
        "",
        "| customer | databases | windows | from | to (exclusive) | conversations |"
        + "".join(f" {word}: {t} |" for t in tables),
        "|---|---|---:|---|---|---:|" + "---:|" * len(tables),
    ]
    for customer, listed in grouped.items():
        databases = ", ".join(d.name for d in listed[0].databases)
        lines.append(_plan_row(_cell(customer), _cell(databases), listed, tables))
    if len(grouped) > 1:
        lines.append(_plan_row("**all**", "", windows, tables))
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    lines += ["", "Row figures are estimates (before FINAL).", "", f"Digest of what is approved: `{digest}`"]
    if statements:
        lines += ["", "Statements, with the values of the first window:", "", "```sql", *statements, "```"]
    return "\n".join(lines)


def _plan_row(head: str, databases: str, listed: Sequence[Window], tables: Sequence[str]) -> str:
    cells = [
        head,
        databases,
        f"{len(listed):,}",
        str(min(w.start for w in listed)),
        str(max(w.end for w in listed)),
        f"{sum(w.conversations for w in listed):,}",
        *(f"{sum(w.rows.get(t, 0) for w in listed):,}" for t in tables),
    ]
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    """Return a text that stays in its cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|")


def hours_text(windows: Sequence[Window], max_parallel: int) -> str:
    """Return the estimated duration as a range: all windows spread evenly, and the longest customer's chain.

    Based on the measured throughput of one workflow (conversations per minute); deletes are not in it.
    """
    chains: dict[str, int] = defaultdict(int)
    for window in windows:
        chains[window.customer_id] += window.conversations
    longest = max(chains.values(), default=0)
    spread = sum(chains.values()) / max(1, max_parallel)
    low = max(longest, spread) / CONVERSATIONS_PER_MINUTE / 60
    high = (longest + spread) / CONVERSATIONS_PER_MINUTE / 60
    at_once = number_of(max_parallel, "window")
    if high < 1:
        return f"less than an hour of reindexing at {at_once} at once"
    return f"about {low:.1f} to {high:.1f} hours of reindexing at {at_once} at once"
