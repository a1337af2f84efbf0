"""A run as a file: windows as CSV, everything as JSON, plan and report as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from include.scorecard_backfill.overview.model import NOTHING_DONE, Numbers, Overview, WindowRow

KINDS: Mapping[str, str] = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "md": "text/markdown; charset=utf-8",
}
"""Kinds of files and their media types."""

FIELDS = ("customer", "start", "end", "state", "stage", "since", "reason", "blocker", "place", "percent",
          "conversations", "attempts", "gone_since", "key")  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters that make a spreadsheet take a cell for a formula (OWASP: CSV injection)."""


def exported(view: Overview, kind: str) -> str:
    """Return the file's text. Raises KeyError for a kind that is none of KINDS."""
    return {"csv": windows_csv, "json": whole_json, "md": markdown}[kind](view)


def whole_json(view: Overview) -> str:
    """Return everything."""
    return view.model_dump_json(indent=1)


def windows_csv(view: Overview) -> str:
    """Return one line for each window and part, with the rows of each table."""
    tables = sorted({t for row in view.windows for t in row.tables})
    figures = [(t, name) for t in tables for name in ("before", "after", "removed")]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*FIELDS, *(f"{table} {name}" for table, name in figures)])
    for row in view.windows:
        numbers = [getattr(row.tables.get(table, Numbers()), name) for table, name in figures]
        writer.writerow([_cell(value) for value in (*_values(row), *numbers)])
    return out.getvalue()


def _values(row: WindowRow) -> Iterable[object]:
    for name in FIELDS:
        value = getattr(row, name)
        yield value.isoformat() if hasattr(value, "isoformat") else value


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def markdown(view: Overview) -> str:
    """Return headline, what needs a person, report and plan."""
    lines = [f"# {view.dag_id} {view.run_id}", "", f"**{view.headline}**", ""]
    for note in view.attention:
        lines += [f"- {note.what}{f' {note.todo}' if note.todo else ''}"]
    # Where nothing was begun, the plan is the report.
    report = [] if view.state in NOTHING_DONE else ["", "## Report", "", *report_lines(view)]
    return "\n".join([*lines, *report, "", "## Plan", "", *plan_lines(view), ""])


def report_lines(view: Overview) -> list[str]:
    """Return the report's Markdown table: rows before, after and removed of each customer and table, with the total."""
    table = view.report
    body = []
    for row in (*table.rows, table.total):
        head = [row.customer, f"{row.verified}/{row.windows}"]
        for name, n in row.tables.items():
            body.append([*head, name, _number(n.before), _number(n.after), _number(n.removed)])
        if not row.tables:
            body.append([*head, "-", "-", "-", "-"])
    return _table(["customer", "verified", "table", "before", "after", "removed"], body)


def plan_lines(view: Overview) -> list[str]:
    """Return the plan's Markdown table with its total; rows are estimates (before FINAL)."""
    table = view.plan
    word = "rows to delete" if table.mode == "cleanup" else "rows"
    head = [
        "customer",
        "windows",
        "from",
        "to (exclusive)",
        "days",
        "conversations",
        *(f"{word}: {t}" for t in table.tables),
    ]
    body = [
        [row.customer, _number(row.windows), row.start, row.end, _number(row.days), _number(row.conversations),
         *(_number(row.rows.get(t, 0)) for t in table.tables)]
        for row in (*table.rows, table.total)
    ]  # fmt: skip
    return _table(head, body)


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(c.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *(line(cells) for cells in body)]


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
