"""One JSON route for each look. Who looks is checked for everybody; what is seen is made once for all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, HTTPException, Query, Response, status

from backfill.api.access import OurDag, rights
from backfill.api.cache import AnswerCache
from backfill.api.read import run_facts
from include.scorecard_backfill.overview import Overview, overview
from include.scorecard_backfill.overview.export import KINDS, exported

router = APIRouter()
answers = AnswerCache()

RunId = Annotated[str, Query(max_length=250)]


def run_overview(session: SessionDep, dag_id: str, run_id: str) -> Overview:
    """Return the read model of a run. Answers 404 when there is none."""
    facts = run_facts(session, dag_id, run_id)
    if facts is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"DAG {dag_id} has no run {run_id}.")
    return overview(facts, datetime.now(UTC))


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
