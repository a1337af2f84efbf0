"""What a cluster owes, and writing a debt off: by a person, with a reason, in Airflow's audit log."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.asset import AssetModel
from airflow.models.asset_state_store import AssetStateStoreModel
from airflow.models.dagrun import DagRun
from airflow.utils.state import State
from fastapi import APIRouter, Depends, HTTPException, status
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from backfill.api.access import OurDag, cluster_of, requires_override
from backfill.api.actions import Asked, Done, audit
from backfill.api.looks import answers
from backfill.kit.debts import INDEX, PREFIX, WRITTEN_OFF, DebtIndexError, cluster_asset, index_of, key_of
from include.scorecard_backfill.names import digest
from include.scorecard_backfill.overview.owed import OwedLine, OwedList, owed_line
from include.scorecard_backfill.overview.results import PAID
from include.scorecard_backfill.records import RecordError, plain

router = APIRouter()


class WriteOff(Asked):
    """Write a debt off. ``key`` and ``digest`` are those of the line that the person was shown."""

    key: str = Field(min_length=1, max_length=64)
    digest: str = Field(min_length=1, max_length=64)
    reason: str = Field(min_length=3, max_length=500)


@router.get("/debts")
def look_at_debts(dag_id: OurDag, session: SessionDep) -> OwedList:
    """Return every open debt of a cluster, and its index when that cannot be read."""
    cluster = cluster_of(dag_id)
    stored = _stored(session, cluster)
    found = [owed_line(key.removeprefix(PREFIX), row.value) for key, row in stored.items() if key.startswith(PREFIX)]
    lines = [line for line in (*found, _index_line(cluster, stored)) if line is not None]
    return OwedList(cluster=cluster, debts=tuple(sorted(lines, key=lambda line: (line.label, line.key))))


@router.post("/actions/write-off", dependencies=[Depends(requires_override)])
def write_off(dag_id: OurDag, body: WriteOff, session: SessionDep, user: GetUserDep) -> Done:
    """Call a debt settled that nobody will ever pay; it is kept beside, with the person's name and reason.

    No run may be under way: it may hand the debt over at this moment. Of the index only its text is lost.
    """
    cluster = cluster_of(dag_id)
    line = _shown(session, dag_id, body)
    stored = _stored(session, cluster)
    row = stored[INDEX if body.key == INDEX else key_of(body.key)]
    before, now = row.value, datetime.now(UTC)
    note = {"by": user.get_name(), "at": now.isoformat(), "reason": body.reason, "stored": before}
    session.merge(
        AssetStateStoreModel(asset_id=row.asset_id, key=f"{WRITTEN_OFF}{body.key}", value=json.dumps(note),
                             updated_at=now, last_updated_by_kind="api")
    )  # fmt: skip
    row.value, row.updated_at, row.last_updated_by_kind = _settled(body.key, stored), now, "api"
    audit(session, user, "backfill_write_off", dag_id, None, {"key": body.key, "label": line.label, **note})
    answers.forget()
    if body.key == INDEX:
        return Done(done=f"The index of the debts of {cluster} was made anew from those that are stored.")
    return Done(done=f"The debt of {line.label} ({body.key}) is written off; no plan takes its days in any more.")


def _shown(session: Session, dag_id: str, body: WriteOff) -> OwedLine:
    """Return the line that the person was shown. Answers 409 when it is another one by now, or a run is under way."""
    cluster = cluster_of(dag_id)
    going = session.scalar(
        select(DagRun.run_id).where(DagRun.dag_id == dag_id, DagRun.state.in_(State.unfinished_dr_states))
    )
    if going:
        raise HTTPException(
            status.HTTP_409_CONFLICT,
            f"Run {going} of {cluster} has not ended: it may pay its debts or hand them over. Wait until it has ended.",
        )
    listed = {line.key: line for line in look_at_debts(dag_id, session).debts}
    line = listed.get(body.key)
    if line is None or line.digest != body.digest:
        raise HTTPException(
            status.HTTP_409_CONFLICT,
            f"{cluster} has no open debt {body.key} as you were shown it: it was paid or changed. Look again.",
        )
    return line


def _settled(key: str, stored: dict[str, AssetStateStoreModel]) -> str:
    if key != INDEX:
        return PAID
    owing = [name.removeprefix(PREFIX) for name, row in stored.items() if name.startswith(PREFIX) and row.value != PAID]
    return json.dumps(sorted(owing))


def _stored(session: Session, cluster: str) -> dict[str, AssetStateStoreModel]:
    rows = session.scalars(
        select(AssetStateStoreModel)
        .join(AssetModel, AssetModel.id == AssetStateStoreModel.asset_id)
        .where(AssetModel.name == cluster_asset(cluster).name)
    )
    return {row.key: row for row in rows if row.key == INDEX or row.key.startswith(PREFIX)}


def _index_line(cluster: str, stored: dict[str, AssetStateStoreModel]) -> OwedLine | None:
    if (row := stored.get(INDEX)) is None:
        return None
    try:
        found = plain(row.value)
    except RecordError:
        found = row.value
    try:
        index_of(cluster, found)
    except DebtIndexError as error:
        return OwedLine(key=INDEX, label="index of the debts", text=str(error), digest=digest(row.value))
    return None
