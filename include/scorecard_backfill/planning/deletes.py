"""In which steps the rows of a window are deleted, so that no single mutation is too large for the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Literal

from include.scorecard_backfill.sql import Slice


@dataclass(frozen=True, slots=True)
class Step:
    """One statement: a DELETE of ``part`` (of the rows for which ``condition`` holds), or dropping ``partitions``.

    ``chunk`` numbers the single days of a large delete from 1; 0 is the whole window. A chunk must be done on every
    host before the next step is sent.
    """

    table: str
    part: Slice
    kind: Literal["delete", "drop"] = "delete"
    chunk: int = 0
    partitions: tuple[str, ...] = ()
    condition: str = ""

    @property
    def name(self) -> tuple[str, str]:
        """(database, local table)."""
        return self.part.database, self.table

    @property
    def label(self) -> str:
        """Short text for a log line."""
        what = f"partitions {', '.join(self.partitions)}" if self.kind == "drop" else "DELETE"
        days = f" {self.part.start}..{self.part.end}" if self.chunk else ""
        return f"{'.'.join(self.name)} {what}{days}"


def delete_steps(
    tables: Iterable[tuple[str, Slice]], days: Mapping[tuple[str, str], Mapping[str, int]], max_rows: int
) -> list[Step]:
    """Return the steps for (local table, slice) pairs; ``days`` are rows by (database, table) and ISO day.

    A table with at most ``max_rows`` rows is one DELETE. A larger one is deleted day by day, days without rows left
    out, and last over the whole range once more, for rows that came in meanwhile. A table without rows has no step.
    """
    steps: list[Step] = []
    for table, part in tables:
        per_day = {day: rows for day, rows in days.get((part.database, table), {}).items() if rows}
        if not per_day:
            continue
        if sum(per_day.values()) > max_rows and len(per_day) > 1:
            steps += [Step(table, _one_day(part, day), chunk=n) for n, day in enumerate(sorted(per_day), start=1)]
        steps.append(Step(table, part))
    return steps


def _one_day(part: Slice, day: str) -> Slice:
    start = date.fromisoformat(day)
    return replace(part, start=start, end=start + timedelta(days=1))


def droppable(
    held: Mapping[str, Sequence[tuple[str, int, int]]],
    sizes: Sequence[Mapping[str, Any]],
    wanted: Sequence[str],
    hosts: Iterable[str],
    max_bytes: int,
) -> str:
    """Return '' when partitions may be dropped, else the sentence why not.

    ``held`` by host: (partition id, rows, foreign rows) of the wanted partitions and of every other one that holds rows
    of the window. ``sizes`` are answers of ``partition_sizes_statement``; ``wanted`` are ids.
    """
    expected = set(hosts)
    if not expected or set(held) != expected:
        return f"what the partitions hold is known of {len(held)} of {len(expected)} hosts"
    for host, partitions in sorted(held.items()):
        for partition, rows, foreign in partitions:
            if partition not in wanted:
                return f"{rows} rows of the window lie in partition {partition} on {host} (a key in another zone)"
            if foreign:
                return f"partition {partition} on {host} holds {foreign} rows outside of the window"
    large = next((s for s in sizes if s["partition_id"] in wanted and int(s["bytes"]) > max_bytes), None)
    if large:
        return f"partition {large['partition_id']} on {large['host']} has {int(large['bytes']):,} bytes > {max_bytes:,}"
    return ""
