"""What a run did: results joined by window key, totals per customer."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from include.scorecard_backfill.debts import Debt
from include.scorecard_backfill.foreign import ForeignJson
from include.scorecard_backfill.names import LABEL_WINDOW
from include.scorecard_backfill.plural import number_of
from include.scorecard_backfill.records import Deleted, Failure, Proof, Verified, Window
from include.scorecard_backfill.records.report import (
    CustomerRow,
    LiveJob,
    MissingRow,
    Report,
    Sums,
    WindowRow,
    WindowStatus,
)
from include.scorecard_backfill.spoiled import Spoiled
from include.scorecard_backfill.verdicts.jobs import job_outcome

VERIFIED: Final = "verified"
NO_FAILURE: Final = (
    "Clear what has failed of it. If nothing of it is red, somebody has marked a stage by hand: reset the window (tab"
    " Backfill, or python -m backfill reset)."
)
DELETED_NOT_REINDEXED: Final = "deleted, not yet reindexed"
NOT_PROVEN: Final = "reindexed, not proven complete"
"""The reindex has ended and verify did not find what should be there; rows may be missing, doubled or stale."""
FAILED: Final = "failed"
NOT_STARTED: Final = "not started"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the windows of a run ended, each stage's records joined by their keys and never by position.

    ``parts`` are windows that were cut from others. ``debts`` are those of the cluster that are still open, ``spoiled``
    those that cannot be read. ``begun``
    are keys of windows of which a statement was sent, also when their delete stage has failed half-way.
    """

    windows: Sequence[Window]
    parts: Sequence[Window] = ()
    verified: Sequence[Verified] = ()
    deleted: Sequence[Deleted] = ()
    failures: Sequence[Failure] = ()
    debts: Sequence[Debt] = ()
    spoiled: Sequence[Spoiled] = ()
    begun: frozenset[str] = field(default_factory=frozenset)


def _owing(outcome: Outcome) -> set[str]:
    return {*(debt.window for debt in outcome.debts), *(one.window for one in outcome.spoiled)}


def build_report(outcome: Outcome) -> Report:
    """Return the report of how the windows ended.

    A window that was cut is verified when every one of its parts is; a part may have been cut, too.
    """
    done = {r.key: r for r in outcome.verified if r.status == VERIFIED and r.proof is not None}
    parts_of: dict[str, list[Window]] = defaultdict(list)
    for part in outcome.parts:
        parts_of[part.part_of].append(part)
    reasons = {f.key: f for f in outcome.failures}
    begun = outcome.begun | {d.key for d in outcome.deleted if d.sent} | _owing(outcome)
    rows = [_window_row(w, _smallest(w.key, parts_of, done), done, reasons, begun) for w in outcome.windows]
    count = sum(row.status == VERIFIED for row in rows)
    customers = _by_customer(rows)
    return Report(
        planned=len(rows),
        verified=count,
        complete=count == len(rows),
        accounted=all(r.proof.accounted for r in done.values() if r.proof),
        windows=tuple(rows),
        customers=tuple(customers),
        total=_sum_tables(c.tables for c in customers),
        missing=tuple(_missing([*outcome.windows, *outcome.parts], outcome.verified)),
        unwritten=tuple(_unwritten(done.values())),
        debts=(*(debt.text for debt in outcome.debts), *(f"{s.text}. {s.remedy}" for s in outcome.spoiled)),
    )


def _unwritten(results: Iterable[Verified]) -> list[str]:
    """Return each reason why writing again is not proven, with the number of windows that it is about."""
    counted = Counter(doubt for r in results if r.proof is not None for doubt in r.proof.unwritten)
    return [f"{doubt} ({number_of(count, 'window')})" for doubt, count in sorted(counted.items())]


def unwatched(windows: Iterable[Window], jobs: Iterable[ForeignJson], verified: Container[str]) -> list[LiveJob]:
    """Return live Jobs of windows that have not been verified, when no task waits any more.

    Airflow tells nobody when a deferred task is ended while no triggerer runs its trigger, so that its Job lives on.
    """
    labels = {w.key: w.label for w in windows}
    found = []
    for job in jobs:
        key = (job["metadata"].get("labels") or {}).get(LABEL_WINDOW)
        if key in labels and key not in verified and not job_outcome(job).final:
            found.append(LiveJob(label=labels[key], job=job["metadata"]["name"]))
    return sorted(found, key=lambda row: row.job)


def _missing(windows: Iterable[Window], results: Iterable[Verified]) -> list[MissingRow]:
    """Return for each window and table with a snapshot what did not come back: meant to go apart from missing."""
    labels = {w.key: w.label for w in windows}
    return [
        MissingRow(key=r.key, label=labels.get(r.key, r.key), table=f"{m.database}.{m.table}", meant=m.meant,
                   count=m.count, ids=m.ids)
        for r in results
        if r.proof is not None
        for m in r.proof.missing
    ]  # fmt: skip


def _smallest(key: str, parts_of: Mapping[str, Sequence[Window]], done: Container[str]) -> list[Window]:
    """Return the parts of a window that decide about it: those that were not cut again, or were verified anyway."""
    found: list[Window] = []
    for part in parts_of.get(key, ()):
        smaller = [] if part.key in done else _smallest(part.key, parts_of, done)
        found += smaller or [part]
    return found


def _window_row(
    window: Window,
    parts: Sequence[Window],
    done: Mapping[str, Verified],
    reasons: Mapping[str, Failure],
    begun: frozenset[str],
) -> WindowRow:
    if window.key in done:
        return _row(window, VERIFIED, _tables([done[window.key]]))
    if parts:
        return _cut_row(window, parts, done, reasons, window.key in begun or any(p.key in begun for p in parts))
    return _open_row(window, reasons.get(window.key), begun)


def _row(
    window: Window, status: WindowStatus, tables: dict[str, Sums] | None = None, note: str = "", what_to_do: str = ""
) -> WindowRow:
    return WindowRow(
        key=window.key,
        customer_id=window.customer_id,
        start=window.start.isoformat(),
        end=window.end.isoformat(),
        label=window.label,
        status=status,
        tables=tables or {},
        note=note,
        what_to_do=what_to_do,
    )


def _cut_row(
    window: Window,
    parts: Sequence[Window],
    done: Mapping[str, Verified],
    reasons: Mapping[str, Failure],
    begun: bool,
) -> WindowRow:
    note = f"cut into {len(parts)}"
    broken = [p for p in parts if p.key not in done]
    if not broken:
        return _row(window, VERIFIED, _tables(done[p.key] for p in parts), note)
    why = "; ".join(f"{p.label}: {reasons[p.key].text if p.key in reasons else 'not finished'}" for p in broken[:5])
    first = next((reasons[p.key] for p in broken if p.key in reasons), None)
    note = f"{note}, {len(broken)} of them not verified: {why}"
    status = _unfinished(begun, *(reasons.get(p.key) for p in broken))
    return _row(window, status, note=note, what_to_do=first.what_to_do if first else "")


def _unfinished(begun: bool, *failures: Failure | None) -> WindowStatus:
    """Return the status of a window that is not verified; what is least far decides where parts are in several."""
    if not begun:
        return FAILED
    return NOT_PROVEN if all(f is not None and f.stage == "verify" for f in failures) else DELETED_NOT_REINDEXED


def _open_row(window: Window, failure: Failure | None, begun: frozenset[str]) -> WindowRow:
    begins = window.key in begun
    status: WindowStatus = _unfinished(begins, failure) if failure or begins else NOT_STARTED
    if failure is None:
        return _row(window, status, what_to_do=NO_FAILURE if begins else "")
    return _row(window, status, note=f"{failure.stage}: {failure.text}", what_to_do=failure.what_to_do)


def _tables(results: Iterable[Verified]) -> dict[str, Sums]:
    proofs: list[Proof] = [r.proof for r in results if r.proof is not None]
    return _sum_tables(
        {t.table: Sums(before=t.before, meant=t.meant or 0, after=t.after, removed=t.removed, short=t.short)}
        for proof in proofs
        for t in proof.tables
    )


def _by_customer(rows: Iterable[WindowRow]) -> list[CustomerRow]:
    grouped: dict[str, list[WindowRow]] = defaultdict(list)
    for row in rows:
        grouped[row.customer_id].append(row)
    return [
        CustomerRow(
            customer_id=customer,
            windows=len(listed),
            verified=sum(r.status == VERIFIED for r in listed),
            start=min(r.start for r in listed),
            end=max(r.end for r in listed),
            tables=_sum_tables(r.tables for r in listed if r.status == VERIFIED),
        )
        for customer, listed in sorted(grouped.items())
    ]


def _sum_tables(items: Iterable[Mapping[str, Sums]]) -> dict[str, Sums]:
    total: dict[str, Sums] = defaultdict(Sums)
    for tables in items:
        for table, numbers in tables.items():
            total[table] += numbers
    return dict(sorted(total.items()))
