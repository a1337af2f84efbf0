"""One JSON route for each look. Who looks is checked for everybody; what is seen is made once for all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.dag import DagModel
from fastapi import APIRouter, HTTPException, Query, Response, status
from sqlalchemy import select
from sqlalchemy.orm import Session

from backfill.api.access import OurDag, cluster_of, rights
from backfill.api.cache import AnswerCache
from backfill.api.memory import memory_of
from backfill.api.missed import missed_slots
from backfill.api.past import Newest, newest_runs, past_runs
from backfill.api.read import read_debts, run_facts
from backfill.settings import DAG_ID_PREFIX, cluster_config
from include.scorecard_backfill.overview import Overview, overview
from include.scorecard_backfill.overview.export import KINDS, exported
from include.scorecard_backfill.overview.history import ClusterLine, Clusters, history_of
from include.scorecard_backfill.overview.missed import Missed, missed_view
from include.scorecard_backfill.planning.schedule import MissedSlot

router = APIRouter()
answers = AnswerCache()

RunId = Annotated[str, Query(max_length=250)]


def run_overview(session: SessionDep, dag_id: str, run_id: str) -> Overview:
    """Return the read model of a run. Answers 404 when there is none."""
    facts = run_facts(session, dag_id, run_id)
    if facts is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"DAG {dag_id} has no run {run_id}.")
    return overview(facts, datetime.now(UTC), memory_of(dag_id, run_id).rows)


def packed(content: bytes) -> Response:
    """Return JSON that is packed already."""
    headers = {"Content-Encoding": "gzip", "Cache-Control": "no-store", "Vary": "Accept-Encoding"}
    return Response(content, media_type="application/json", headers=headers)


@router.get("/run")
def look_at_run(dag_id: OurDag, run_id: RunId, session: SessionDep) -> Response:
    """Return how far a run is."""
    return packed(
        answers.get(("run", dag_id, run_id), lambda: run_overview(session, dag_id, run_id).model_dump_json().encode())
    )


@router.get("/me")
def look_at_me(dag_id: OurDag, user: GetUserDep) -> dict[str, bool]:
    """Return which actions the person may take on this DAG."""
    return rights(dag_id, user)


@router.get("/dag")
def look_at_dag(dag_id: OurDag, session: SessionDep) -> Response:
    """Return the runs of a DAG and each customer's last one."""

    def make() -> bytes:
        cluster, now = cluster_of(dag_id), datetime.now(UTC)
        paused = session.scalar(select(DagModel.is_paused).where(DagModel.dag_id == dag_id))
        view = history_of(
            dag_id,
            cluster,
            past_runs(session, dag_id),
            read_debts(session, cluster),
            now,
            missed=missed_of(missed_slots(session, [dag_id], now), dag_id),
            paused=bool(paused),
        )
        return view.model_dump_json().encode()

    return packed(answers.get(("dag", dag_id), make))


@router.get("/clusters")
def look_at_clusters(session: SessionDep, user: GetUserDep) -> Response:
    """Return all clusters that the person may see, each with its newest run."""
    permitted = get_auth_manager().get_authorized_dag_ids(user=user, method="GET", session=session)
    ours = frozenset(dag_id for dag_id in permitted if dag_id.startswith(DAG_ID_PREFIX))
    # People with the same rights share an answer; nobody gets the answer of somebody who may see more.
    return packed(answers.get(("clusters", ours), lambda: clusters(session, ours).model_dump_json().encode()))


def clusters(session: Session, dag_ids: frozenset[str]) -> Clusters:
    """Return the clusters of these DAGs."""
    now = datetime.now(UTC)
    missed = missed_slots(session, dag_ids, now)
    return Clusters(
        made_at=now,
        clusters=tuple(_cluster(session, one, missed_of(missed, one.dag_id)) for one in newest_runs(session, dag_ids)),
    )


def missed_of(missed: Mapping[str, MissedSlot], dag_id: str) -> Missed | None:
    """Return what is said of a DAG's missed slot, None when it has none."""
    return missed_view(cluster_config(cluster_of(dag_id)), missed[dag_id]) if dag_id in missed else None


def _cluster(session: Session, newest: Newest, missed: Missed | None) -> ClusterLine:
    line = ClusterLine(
        dag_id=newest.dag_id,
        cluster=cluster_of(newest.dag_id),
        paused=newest.paused,
        next_run=newest.next_run,
        missed=missed,
    )
    facts = run_facts(session, newest.dag_id, newest.run_id) if newest.run_id else None
    if facts is None:
        return line
    view = overview(facts, datetime.now(UTC), memory_of(newest.dag_id, newest.run_id).rows)
    return line.model_copy(
        update={
            "run_id": view.run_id,
            "state": view.state,
            "headline": view.headline,
            "started": view.started,
            "counts": view.counts,
            "attention": view.attention,
        }
    )


@router.get("/export")
def export(
    dag_id: OurDag,
    run_id: RunId,
    session: SessionDep,
    kind: Annotated[str, Query(pattern="^(csv|json|md)$")],
) -> Response:
    """Return a run as a file: the windows as CSV, everything as JSON, plan and report as Markdown."""
    text = exported(run_overview(session, dag_id, run_id), kind)
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in f"{dag_id}_{run_id}")
    headers = {"Content-Disposition": f'attachment; filename="{name}.{kind}"', "Cache-Control": "no-store"}
    return Response(text, media_type=KINDS[kind], headers=headers)
