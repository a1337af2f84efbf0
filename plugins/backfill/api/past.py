"""From Airflow's database to the runs of a DAG, and to the newest run of every cluster."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from backfill.kit.xcoms import RESULT, RUN, SUMMARY
from include.scorecard_backfill.overview.history import PastReport, PastRun, past_report
from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.records import RecordError, plain

RUNS = 50
"""Runs in the history: more than a year of a monthly schedule with every run repeated four times."""

DIGESTS = 1_000
"""Digests of ended reports that are kept in memory: 20 clusters x RUNS."""

_digests: OrderedDict[tuple[str, str, datetime], PastReport] = OrderedDict()


class Newest(NamedTuple):
    """A DAG of ours and its newest run; ``run_id`` '' when there is none."""

    dag_id: str
    paused: bool
    next_run: datetime | None
    run_id: str


def past_runs(session: Session, dag_id: str) -> list[PastRun]:
    """Return the newest runs of a DAG, the newest first."""
    columns = (DagRun.run_id, DagRun.state, DagRun.start_date, DagRun.end_date, DagRun.triggering_user_name,
               DagRun.run_type)  # fmt: skip
    listed = session.execute(
        select(*columns).where(DagRun.dag_id == dag_id).order_by(DagRun.run_after.desc(), DagRun.id.desc()).limit(RUNS)
    ).all()
    ids = [row[0] for row in listed]
    parameters = {run_id: _record(v) for run_id, v in _xcoms(session, dag_id, ids, "plan", RUN)}
    reports = _reports(session, dag_id, ids)
    questions = _questions(session, dag_id, ids)
    return [
        PastRun(
            run_id=run_id,
            state=str(state or ""),
            started=started,
            ended=ended,
            asked_by=who or ("the schedule" if str(kind) == "scheduled" else ""),
            run=Chosen.read(parameters[run_id]) if parameters.get(run_id) else None,
            report=reports.get(run_id, PastReport()),
            answer=questions.get(run_id, ("", False))[0],
            asking=questions.get(run_id, ("", False))[1],
        )
        for run_id, state, started, ended, who, kind in listed
    ]


def newest_runs(session: Session, dag_ids: Collection[str]) -> list[Newest]:
    """Return each DAG that Airflow still reads with its newest run, in order of their ids; two queries."""
    dags = session.execute(
        select(DagModel.dag_id, DagModel.is_paused, DagModel.next_dagrun_create_after)
        .where(DagModel.dag_id.in_(dag_ids), DagModel.is_stale.is_(False))
        .order_by(DagModel.dag_id)
    ).all()
    place = func.row_number().over(partition_by=DagRun.dag_id, order_by=(DagRun.run_after.desc(), DagRun.id.desc()))
    ranked = select(DagRun.dag_id, DagRun.run_id, place.label("place")).where(DagRun.dag_id.in_(dag_ids)).subquery()
    found = session.execute(select(ranked.c.dag_id, ranked.c.run_id).where(ranked.c.place == 1)).all()
    runs = {row[0]: row[1] for row in found}
    return [Newest(dag_id, bool(paused), upcoming, runs.get(dag_id, "")) for dag_id, paused, upcoming in dags]


def _xcoms(session: Session, dag_id: str, run_ids: Collection[str], task_id: str, key: str) -> Any:
    return session.execute(
        select(XComModel.run_id, XComModel.value).where(
            XComModel.dag_id == dag_id,
            XComModel.run_id.in_(run_ids),
            XComModel.task_id == task_id,
            XComModel.key == key,
        )
    )


def _reports(session: Session, dag_id: str, run_ids: Collection[str]) -> Mapping[str, PastReport]:
    """Return what the reports left, without their windows; a report that was seen before is not read again.

    Reports of earlier releases have no summary: of those the whole is read, once.
    """
    found = session.execute(
        select(XComModel.run_id, XComModel.key, XComModel.timestamp).where(
            XComModel.dag_id == dag_id,
            XComModel.run_id.in_(run_ids),
            XComModel.task_id == "report",
            XComModel.key.in_([SUMMARY, RESULT]),
        )
    )
    keys: dict[str, str] = {}
    stamps: dict[str, tuple[str, str, datetime]] = {}
    for run_id, key, at in found:
        if keys.get(run_id) != SUMMARY:
            keys[run_id], stamps[run_id] = key, (dag_id, run_id, at)
    for key in (SUMMARY, RESULT):
        missing = [run_id for run_id, stamp in stamps.items() if keys[run_id] == key and stamp not in _digests]
        for run_id, value in _xcoms(session, dag_id, missing, "report", key) if missing else ():
            _digests[stamps[run_id]] = past_report(_record(value))
    while len(_digests) > DIGESTS:
        _digests.popitem(last=False)
    return {run_id: _digests.get(stamp, PastReport()) for run_id, stamp in stamps.items()}


def _questions(session: Session, dag_id: str, run_ids: Collection[str]) -> dict[str, tuple[str, bool]]:
    """Return by run the answer to the plan's question and whether it is being asked."""
    found = session.execute(
        select(TaskInstance.run_id, HITLDetail.chosen_options, HITLDetail.responded_at)
        .join(HITLDetail, TaskInstance.id == HITLDetail.ti_id)
        .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id.in_(run_ids), TaskInstance.task_id == "approve")
    )
    return {run_id: ((options or [""])[0] if at else "", at is None) for run_id, options, at in found}


def _record(value: Any) -> Mapping[str, Any]:
    try:
        found = plain(value)
    except RecordError:
        return {}
    return found if isinstance(found, dict) else {}
