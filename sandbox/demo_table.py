"""The demo's reckoning: where the windows are, the table of rows, and the comparison with the truth. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.airflow_api import TaskState
from sandbox.data.truth import TableTruth

GROUPS = ("windows", "smaller_windows", "single_days")
BATCH = re.compile(r"windows_\d+")
"""Further batches of the first group."""
STAGES = ("admit", "delete", "wait_mutations", "reindex", "wait_workflows", "verify")
VERIFIED = "verified"
FAILED = "failed"
PASSED = ("success", "skipped")
BROKEN = ("failed", "upstream_failed")
HEADER = ("customer", "windows", "table", "before", "after", "removed", "expected", "")
FIRST_NUMBER = 3

Truth = Mapping[str, Mapping[str, TableTruth]]
Report = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """Rows of one customer and table; reported is None for what the report does not have."""

    customer_id: str
    table: str
    windows: str
    reported: TableTruth | None
    removed: int | None
    expected: TableTruth | None

    @property
    def right(self) -> bool:
        """True if the report has exactly the true counts, and its difference is the difference."""
        return self.reported is not None and self.reported == self.expected and self.removed == self.expected.removed


def window_places(tasks: Iterable[TaskState], group: str) -> Counter[str]:
    """Count the windows of a task group and its batches by the place each is at: a stage, `verified` or `failed`.

    Instances without a map index are the scheduler's placeholders of a group that is not mapped yet.
    """
    stages: dict[tuple[str, int], dict[str, str | None]] = {}
    for task in tasks:
        own, _, stage = task.task_id.rpartition(".")
        if task.map_index >= 0 and BATCH.sub("windows", own) == group:
            stages.setdefault((own, task.map_index), {})[stage] = task.state
    return Counter(_place(states) for states in stages.values())


def _place(states: Mapping[str, str | None]) -> str:
    for stage in STAGES:
        state = states.get(stage)
        if state in BROKEN:
            return FAILED
        if state not in PASSED:
            return stage
    return VERIFIED


def progress_line(tasks: Sequence[TaskState]) -> str:
    """Return one line with the windows at each place, in the order of the stages; empty before there are windows."""
    texts = []
    for group in GROUPS:
        places = window_places(tasks, group)
        if places:
            counts = [f"{place} {places[place]}" for place in (*STAGES, VERIFIED, FAILED) if places[place]]
            texts.append(f"{group.replace('_', ' ')} ({places.total()}): {', '.join(counts)}")
    return "; ".join(texts)


def compare(report: Report, truth: Truth) -> list[Row]:
    """Return a row for each customer and table of the report or of the truth.

    A customer that only one of the two knows is a row too, and not a right one.
    """
    rows = []
    reported = {customer["customer_id"]: customer for customer in report["customers"]}
    for name in sorted({*reported, *truth}):
        customer = reported.get(name, {"windows": 0, "verified": 0, "tables": {}})
        expected = truth.get(name, {})
        for table in sorted({*customer["tables"], *expected}):
            numbers = customer["tables"].get(table)
            rows.append(
                Row(
                    customer_id=name,
                    table=table,
                    windows=f"{customer['verified']}/{customer['windows']}",
                    reported=TableTruth(numbers["before"], numbers["after"]) if numbers else None,
                    removed=numbers["removed"] if numbers else None,
                    expected=expected.get(table),
                )
            )
    return rows


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Return the rows as an aligned table with a line of totals for each table."""
    cells = [HEADER, *(_cells(row) for row in rows), *_totals(rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADER))]
    lines = ["  ".join(_aligned(line, widths)).rstrip() for line in cells]
    return [lines[0], "  ".join("-" * width for width in widths).rstrip(), *lines[1:]]


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    numbers = range(FIRST_NUMBER, len(HEADER) - 1)
    return [
        text.rjust(width) if column in numbers else text.ljust(width)
        for column, (text, width) in enumerate(zip(line, widths, strict=True))
    ]


def _cells(row: Row) -> tuple[str, ...]:
    before, after = (row.reported.before, row.reported.after) if row.reported else (None, None)
    wanted = row.expected.removed if row.expected else None
    numbers = (before, after, row.removed, wanted)
    return (row.customer_id, row.windows, row.table, *(_number(n) for n in numbers), "ok" if row.right else "WRONG")


def _totals(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    lines = []
    for table in sorted({row.table for row in rows}):
        listed = [row for row in rows if row.table == table]
        reported = [row.reported for row in listed if row.reported]
        numbers = (
            sum(r.before for r in reported),
            sum(r.after for r in reported),
            sum(row.removed or 0 for row in listed),
            sum(row.expected.removed for row in listed if row.expected),
        )
        verdict = "ok" if all(row.right for row in listed) else "WRONG"
        lines.append(("all", "", table, *(_number(n) for n in numbers), verdict))
    return lines


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def problems(report: Report, rows: Sequence[Row]) -> list[str]:
    """Return what keeps a run from being right, as sentences; [] when everything is.

    A report without windows is not right: the generator's customers all have rows in the month.
    """
    found = []
    if not report["planned"]:
        found.append("the run planned no window")
    if report["verified"] != report["planned"]:
        found.append(f"{report['planned'] - report['verified']} of {report['planned']} windows are not verified")
        found += [
            f"{window['label']}: {window['status']} {window['note']}".rstrip()
            for window in report["windows"]
            if window["status"] != VERIFIED
        ]
    if not rows:
        found.append("neither report nor truth has a customer with rows")
    found += [
        f"{row.customer_id}, table {row.table}: the report has {_shown(row.reported, row.removed)},"
        f" the truth {_shown(row.expected, row.expected.removed if row.expected else None)}"
        for row in rows
        if not row.right
    ]
    return found


def _shown(counts: TableTruth | None, removed: int | None) -> str:
    return "nothing" if counts is None else f"{counts.before} before, {counts.after} after, {removed} removed"
