"""The runs of a cluster over time, each customer's last run, and all clusters at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from include.scorecard_backfill.config.fields import Frozen
from include.scorecard_backfill.overview.facts import DebtFact
from include.scorecard_backfill.overview.missed import Missed
from include.scorecard_backfill.overview.model import Attention, Counts
from include.scorecard_backfill.params.chosen import Chosen


@dataclass(frozen=True, slots=True)
class PastCustomer:
    """What a report says of a customer; ``removed``: rows by table."""

    customer_id: str
    verified: int
    windows: int
    removed: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PastReport:
    """What the history shows of a report; ``removed``: rows by table of all verified windows."""

    planned: int = 0
    complete: bool = False
    customers: Sequence[PastCustomer] = ()
    removed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run as Airflow remembers it. ``run`` is None before it has a plan; ``report``: what its report left.

    ``answer`` is the one to the plan's question, '' when none was given; ``asking``: it is being asked now.
    """

    run_id: str
    state: str
    started: datetime | None = None
    ended: datetime | None = None
    asked_by: str = ""
    run: Chosen | None = None
    report: PastReport = field(default_factory=PastReport)
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
    """What a cluster's DAG has done, and what it owes. ``missed``: the last slot of its schedule, if nobody did it.

    ``paused``: Airflow starts no run of it, whoever asks.
    """

    dag_id: str
    cluster: str
    made_at: datetime
    runs: tuple[RunLine, ...]
    customers: tuple[CustomerLine, ...]
    debts: tuple[DebtLine, ...] = ()
    missed: Missed | None = None
    paused: bool = False


class ClusterLine(Frozen):
    """A cluster and its newest run. ``next_run``: of the schedule, None when there is none.

    ``missed``: the last slot of the schedule, if it started nothing and nobody has made up for it.
    """

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
    missed: Missed | None = None


class Clusters(Frozen):
    """All clusters that the person may see."""

    made_at: datetime
    clusters: tuple[ClusterLine, ...]


def history_of(
    dag_id: str,
    cluster: str,
    runs: Sequence[PastRun],
    debts: Sequence[DebtFact],
    now: datetime,
    *,
    missed: Missed | None = None,
    paused: bool = False,
) -> DagHistory:
    """Return the history. ``runs`` are the newest first."""
    customers: dict[str, CustomerLine] = {}
    for run in runs:
        for listed in run.report.customers:
            if listed.verified and listed.customer_id not in customers:
                customers[listed.customer_id] = _customer(run, listed)
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
        missed=missed,
        paused=paused,
    )


def _line(run: PastRun) -> RunLine:
    took = (run.ended - run.started).total_seconds() / 60 if run.started and run.ended else None
    return RunLine(
        run_id=run.run_id,
        mode=_mode(run),
        days=run.run.days if run.run else None,
        customers=len(run.report.customers),
        removed=run.report.removed,
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
    if run.run is None:
        return "refused"
    if run.run.dry_run:
        return "dry run"
    if not run.report.planned:
        return "nothing to do" if run.state == "success" else "incomplete"
    return "complete" if run.report.complete else "incomplete"


def _customer(run: PastRun, listed: PastCustomer) -> CustomerLine:
    return CustomerLine(
        customer=listed.customer_id,
        mode=_mode(run),
        ended=run.ended,
        days=run.run.days if run.run else None,
        removed=listed.removed,
        verified=listed.verified,
        windows=listed.windows,
        run_id=run.run_id,
    )


def _mode(run: PastRun) -> str:
    return run.run.mode or "" if run.run else ""


def past_report(found: Mapping[str, Any]) -> PastReport:
    """Return what the history shows of a report's JSON, also of one that an earlier release has left."""
    return PastReport(
        planned=int(found.get("planned") or 0),
        complete=bool(found.get("complete")),
        customers=tuple(
            PastCustomer(
                customer_id=str(listed["customer_id"]),
                verified=int(listed.get("verified") or 0),
                windows=int(listed.get("windows") or listed.get("verified") or 0),
                removed=_removed(listed.get("tables") or {}),
            )
            for listed in found.get("customers") or ()
        ),
        removed=_removed(found.get("total") or {}),
    )


def _removed(tables: Mapping[str, Any]) -> dict[str, int]:
    return {table: int(n.get("removed") or 0) for table, n in sorted(tables.items())}
