"""The runs of a cluster over time, each customer's last run, and all clusters at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from include.scorecard_backfill.config.fields import Frozen
from include.scorecard_backfill.overview.facts import DebtFact
from include.scorecard_backfill.overview.model import Attention, Counts

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run as Airflow remembers it. ``run``: effective parameters; ``report``: what the report left, {} for none.

    ``answer`` is the one to the plan's question, '' when none was given; ``asking``: it is being asked now.
    """

    run_id: str
    state: str
    started: datetime | None = None
    ended: datetime | None = None
    asked_by: str = ""
    run: Json = field(default_factory=dict)
    report: Json = field(default_factory=dict)
    answer: str = ""
    asking: bool = False


class RunLine(Frozen):
    """A run in the history. ``removed``: rows per table; ``minutes``: from start to end, None while it runs."""

    run_id: str
    mode: str
    days: tuple[str, str] | None
    customers: int
    removed: Mapping[str, int]
    started: datetime | None
    ended: datetime | None
    minutes: float | None
    verdict: str
    asked_by: str


class CustomerLine(Frozen):
    """A customer's newest run with verified windows."""

    customer: str
    mode: str
    ended: datetime | None
    days: tuple[str, str] | None
    removed: Mapping[str, int]
    verified: int
    windows: int
    run_id: str


class DebtLine(Frozen):
    """Days that were deleted and are not verified. ``swept``: the rows are there, only the proof is owed."""

    customer: str
    start: str
    end: str
    since: datetime | None
    run_id: str
    swept: bool


class DagHistory(Frozen):
    """What a cluster's DAG has done, and what it owes."""

    dag_id: str
    cluster: str
    made_at: datetime
    runs: tuple[RunLine, ...]
    customers: tuple[CustomerLine, ...]
    debts: tuple[DebtLine, ...] = ()


class ClusterLine(Frozen):
    """A cluster and its newest run. ``next_run``: of the schedule, None when there is none."""

    dag_id: str
    cluster: str
    paused: bool
    next_run: datetime | None
    run_id: str = ""
    state: str = ""
    headline: str = ""
    started: datetime | None = None
    counts: Counts | None = None
    attention: tuple[Attention, ...] = ()


class Clusters(Frozen):
    """All clusters that the person may see."""

    made_at: datetime
    clusters: tuple[ClusterLine, ...]


def history_of(
    dag_id: str, cluster: str, runs: Sequence[PastRun], debts: Sequence[DebtFact], now: datetime
) -> DagHistory:
    """Return the history. ``runs`` are the newest first."""
    customers: dict[str, CustomerLine] = {}
    for run in runs:
        for listed in run.report.get("customers") or ():
            name = str(listed["customer_id"])
            if listed.get("verified") and name not in customers:
                customers[name] = _customer(run, name, listed)
    return DagHistory(
        dag_id=dag_id,
        cluster=cluster,
        made_at=now,
        runs=tuple(_line(run) for run in runs),
        customers=tuple(customers[name] for name in sorted(customers)),
        debts=tuple(
            DebtLine(customer=d.customer_id, start=d.start, end=d.end, since=d.since, run_id=d.run_id, swept=d.swept)
            for d in sorted(debts, key=lambda d: (d.since is None, d.since, d.label))
        ),
    )


def _line(run: PastRun) -> RunLine:
    took = (run.ended - run.started).total_seconds() / 60 if run.started and run.ended else None
    return RunLine(
        run_id=run.run_id,
        mode=str(run.run.get("mode") or ""),
        days=_days(run.run),
        customers=len(run.report.get("customers") or ()),
        removed=_removed(run.report.get("total") or {}),
        started=run.started,
        ended=run.ended,
        minutes=round(took, 1) if took is not None else None,
        verdict=_verdict(run),
        asked_by=run.asked_by,
    )


def _verdict(run: PastRun) -> str:
    """Return the word for how a run stands, the same words as :class:`.model.Overview`'s state."""
    if run.answer == "Reject":
        return "rejected"
    if run.state not in ("success", "failed"):
        return "waiting for approval" if run.asking else "running"
    if not run.run:
        return "refused"
    if run.run.get("dry_run"):
        return "dry run"
    if not run.report.get("planned"):
        return "nothing to do" if run.state == "success" else "incomplete"
    return "complete" if run.report.get("complete") else "incomplete"


def _customer(run: PastRun, name: str, listed: Json) -> CustomerLine:
    return CustomerLine(
        customer=name,
        mode=str(run.run.get("mode") or ""),
        ended=run.ended,
        days=_days(run.run),
        removed=_removed(listed.get("tables") or {}),
        verified=int(listed["verified"]),
        windows=int(listed.get("windows") or listed["verified"]),
        run_id=run.run_id,
    )


def _removed(tables: Json) -> dict[str, int]:
    return {table: int(n.get("removed") or 0) for table, n in sorted(tables.items())}


def _days(run: Json) -> tuple[str, str] | None:
    start, end = run.get("start_date"), run.get("end_date")
    return (str(start), str(end)) if start and end else None
