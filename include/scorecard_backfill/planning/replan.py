"""Failed windows that a smaller size cures, cut: ten days, then days; days at once where ten would be too big again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from include.scorecard_backfill import names
from include.scorecard_backfill.planning.windows import DateRange, cut_smaller, split_fixed
from include.scorecard_backfill.records import Counted, Failure, TableDays, Window
from include.scorecard_backfill.verdicts.causes import cause_of


def too_big(windows: Sequence[Window], failures: Iterable[Failure]) -> list[Window]:
    """Return the windows that failed because of their size and that are longer than a day, in plan order.

    A wait reports a failure only when no workflow of the attempt is open any more, so what is returned may be cut.
    """
    causes = {failure.key: failure.cause for failure in failures}
    return [w for w in windows if w.key in causes and cause_of(causes[w.key]).size and w.range.days > 1]


def cut(window: Window, counted: Counted, run_id: str) -> list[Window]:
    """Return the parts of a window; each carries ``part_of`` and the numbers before of its own days.

    ``counted`` is the count of the window that was planned, also for a part that is cut again: only then nothing had
    been deleted. A part deletes its days again, because the failed attempt may have written half of them.
    """
    parts = cut_smaller(window.range)
    if any(_share(counted.before, part, window.range) > 0.5 for part in parts):
        # Half of what was too big may be too big again; nothing is smaller than a day.
        parts = split_fixed(window.range, "1d")
    return [_part(window, part, counted.before, run_id) for part in parts]


def _share(before: Iterable[TableDays], part: DateRange, whole: DateRange) -> float:
    """Return the share of a window's rows that are in a part of it, by days when no row was counted."""
    tables = [table.within(whole.start, whole.end) for table in before]
    total = sum(table.rows for table in tables)
    inside = sum(table.within(part.start, part.end).rows for table in tables)
    return inside / total if total else part.days / whole.days


def _part(window: Window, part: DateRange, before: Sequence[TableDays], run_id: str) -> Window:
    inside = tuple(table.within(part.start, part.end) for table in before)
    rows: dict[str, int] = {}
    for table in inside:
        rows[table.table] = rows.get(table.table, 0) + table.rows
    share = _share(before, part, window.range)
    return window.model_copy(
        update={
            "key": names.window_key(
                cluster=window.cluster,
                run_id=run_id,
                customer_id=window.customer_id,
                start=part.start.isoformat(),
                end=part.end.isoformat(),
                plan=window.key,
            ),
            "start": part.start,
            "end": part.end,
            "conversations": round(window.conversations * share),
            "rows": rows,
            "part_of": window.key,
            "before": inside,
        }
    )
