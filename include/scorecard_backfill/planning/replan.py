"""Failed windows that a smaller size cures, cut: ten days, then days; days at once where ten would be too big again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from include.scorecard_backfill import names
from include.scorecard_backfill.planning.windows import DateRange, cut_smaller, split_fixed
from include.scorecard_backfill.verdicts.causes import SIZE

Json = dict[str, Any]


def too_big(windows: Sequence[Json], failures: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Return the windows whose workflows failed because of their size and that are longer than a day, in plan order.

    A wait reports a failure only when no workflow of the attempt is open any more, so what is returned may be cut.
    """
    causes = {f.get("key"): f.get("cause") for f in failures if f.get("status") == "failed"}
    return [w for w in windows if causes.get(w["key"]) in SIZE and _range(w).days > 1]


def cut(window: Json, deleted: Mapping[str, Any], run_id: str) -> list[Json]:
    """Return the parts of a window, as plan records that carry ``part_of`` and the rows before of their own days.

    ``deleted`` is the delete stage's result of the planned window, its counts per day, also for a part that is cut
    again. A part deletes its days again, because the failed attempt may have written half of them.
    """
    whole = _range(window)
    parts = cut_smaller(whole)
    if any(_share(deleted, part, whole) > 0.5 for part in parts):
        # Half of what was too big may be too big again; nothing is smaller than a day.
        parts = split_fixed(whole, "1d")
    return [_part(window, part, deleted, run_id) for part in parts]


def _share(deleted: Mapping[str, Any], part: DateRange, whole: DateRange) -> float:
    """Return the share of a window's rows that are in a part of it, by days when no row was counted."""
    inside = total = 0
    for item in deleted.get("before", []):
        for text, rows in item["days"].items():
            day = date.fromisoformat(text)
            total += rows if whole.start <= day < whole.end else 0
            inside += rows if part.start <= day < part.end else 0
    return inside / total if total else part.days / whole.days


def _range(window: Mapping[str, Any]) -> DateRange:
    return DateRange(date.fromisoformat(window["start"]), date.fromisoformat(window["end"]))


def _part(window: Json, part: DateRange, deleted: Mapping[str, Any], run_id: str) -> Json:
    start, end = part.start.isoformat(), part.end.isoformat()
    before: dict[str, dict[str, int]] = {}
    for item in deleted.get("before", []):
        inside = sum(rows for day, rows in item["days"].items() if start <= day < end)
        before.setdefault(item["database"], {})[item["table"]] = inside
    rows: dict[str, int] = {}
    for tables in before.values():
        for table, count in tables.items():
            rows[table] = rows.get(table, 0) + count
    share = _share(deleted, part, _range(window))
    return {
        **window,
        "key": names.window_key(
            cluster=window["cluster"], run_id=run_id, customer_id=window["customer_id"], start=start, end=end
        ),
        "start": start,
        "end": end,
        "label": f"{window['customer_id']} {start}..{end}",
        "conversations": round(window["conversations"] * share),
        "rows": rows,
        "part_of": window["key"],
        "before": before,
    }
