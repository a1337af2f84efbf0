"""From what stages left as XComs to facts. It reads only what is shown; a record that it cannot read says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from include.scorecard_backfill.overview.facts import DebtFact, Planned, Result, Seen
from include.scorecard_backfill.records import VERSION, RecordError, plain
from include.scorecard_backfill.spoiled import Spoiled, read_debt

PAID = '"paid"'
"""What is stored in the place of a debt that was paid, as JSON."""

FIGURES = ("before", "after", "removed", "meant", "short")


def planned_of(window: Mapping[str, Any]) -> Planned:
    """Return a window from its plan record."""
    return Planned(
        key=window["key"],
        customer_id=window["customer_id"],
        start=window["start"],
        end=window["end"],
        conversations=window.get("conversations") or 0,
        rows=window.get("rows") or {},
        databases=tuple(d["name"] for d in window.get("databases") or ()),
        part_of=window.get("part_of") or "",
        order=window.get("order") or "delete_first",
    )


def result_of(value: object) -> Result | None:
    """Return what a stage left, None for nothing. A record of another release is a failure that says so."""
    try:
        found = plain(value)
    except RecordError as error:
        return Result(status="failed", cause="unreadable", reason=str(error))
    if not isinstance(found, Mapping):
        return None
    version = found.get("v", VERSION)
    if version != VERSION:
        return Result(
            key=str(found.get("key") or ""),
            status="failed",
            cause="unreadable",
            reason=f"its record has version {version}, this release reads {VERSION}",
        )
    cause = str(found.get("cause") or "")
    at = found.get("made_at") or found.get("at")
    sent = found.get("sent") or ()
    if sent:
        at = min(float(one.get("at") or 0) for one in sent) or None
    return Result(
        key=str(found.get("key") or ""),
        status="failed" if found.get("kind") == "failure" else str(found.get("status") or ""),
        cause=cause,
        reason=str(found.get("reason") or ""),
        todo=str(found.get("what_to_do") or ""),
        at=moment(at),
        tables=_tables(found),
        rows_before=_rows_before(found),
        statements=len(sent) or int(found.get("statements") or 0),
        minutes=float(found.get("minutes") or 0),
        attempt=int(found.get("attempt") or (found.get("reindexed") or {}).get("attempt") or 0),
        job_name=str(found.get("job_name") or ""),
        workflow_ids=tuple(found.get("workflow_ids") or (found.get("reindexed") or {}).get("workflow_ids") or ()),
    )


def seen_of(value: object) -> Seen | None:
    """Return what a wait said when it last looked, None for nothing that can be read: it decides nothing."""
    try:
        found = plain(value)
    except RecordError:
        return None
    if not isinstance(found, Mapping):
        return None
    done, total = found.get("done"), found.get("total")
    known = isinstance(done, int) and isinstance(total, int)
    return Seen(
        reason=str(found.get("reason") or ""),
        at=moment(found.get("at")),
        since=moment(found.get("since")),
        done=done if known else None,
        total=total if known else None,
        job_name=str(found.get("job") or ""),
        attempt=int(found.get("attempt") or 0),
    )


def debt_of(window: str, value: object) -> DebtFact | None:
    """Return what is stored as the debt of a window (its key), None for one that was paid.

    One that cannot be read says so: no debt may go unseen, and none may keep the page from being shown.
    """
    if value == PAID:
        return None
    debt = read_debt(window, value)
    if isinstance(debt, Spoiled):
        start, end = (str(debt.days.start), str(debt.days.end)) if debt.days else ("", "")
        return DebtFact(window, debt.customer_id or f"debt {window}: cannot be read", start, end, None,
                        problem=debt.text)  # fmt: skip
    return DebtFact(
        debt.window, debt.customer_id, str(debt.start), str(debt.end), debt.since, debt.run_id, swept=debt.swept
    )


def moment(value: object) -> datetime | None:
    """Return a moment from ISO text or epoch seconds, in UTC; None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC) if value > 0 else None
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _tables(found: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return the rows per table of a verified window, summed over its databases."""
    balances = (found.get("proof") or {}).get("tables")
    if balances is None:
        tables = found.get("tables")
        return {t: dict(n) for t, n in tables.items()} if isinstance(tables, Mapping) else {}
    total: dict[str, dict[str, int]] = defaultdict(dict)
    for balance in balances:
        held = total[balance["table"]]
        for name in FIGURES:
            if (value := balance.get(name)) is not None:
                held[name] = held.get(name, 0) + value
    return dict(total)


def _rows_before(found: Mapping[str, Any]) -> dict[str, int]:
    if isinstance(rows := found.get("rows_before"), Mapping):
        return dict(rows)
    total: dict[str, int] = defaultdict(int)
    for table in (found.get("counted") or {}).get("before") or ():
        total[table["table"]] += sum(day.get("rows") or 0 for day in table["days"].values())
    return dict(total)
