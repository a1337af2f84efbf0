"""A slot of the schedule that started nothing: it is said, and a button starts exactly that one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.serialized_dag import SerializedDagModel
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from fastapi import FastAPI
from sqlalchemy import delete, select, update

from backfill.api import looks
from backfill.settings import cluster_config
from include.scorecard_backfill.planning.schedule import previous_slot
from include.scorecard_backfill.planning.windows import previous_month
from tests.airflow.page.conftest import person
from tests.kit.airflow_home import ROOT
from tests.kit.page_story import BUNDLE

CLUSTER = "sandbox-west"
SCHEDULED = f"scorecard_backfill__{CLUSTER}"
CONFIG = cluster_config(CLUSTER)
SLOT = previous_slot(str(CONFIG.schedule.cron), CONFIG.schedule.zone, datetime.now(UTC) - CONFIG.schedule.grace)
DAYS = previous_month(SLOT, CONFIG.schedule.zone)
LONG_AGO = SLOT - timedelta(days=1)


@pytest.fixture
def scheduled(fresh: FastAPI) -> Iterator[FastAPI]:
    """A DAG with a schedule, not paused, that was there before its last slot."""
    bag = DagBag(dag_folder=ROOT / "dags" / "scorecard_backfill.py", bundle_name=BUNDLE)
    with create_session() as session:
        session.merge(DagModel(dag_id=SCHEDULED, bundle_name=BUNDLE, is_stale=False, is_paused=False))
        session.flush()
        made = LazyDeserializedDAG.from_dag(bag.dags[SCHEDULED])
        SerializedDagModel.write_dag(made, bundle_name=BUNDLE, session=session)
        session.flush()
        session.execute(update(DagVersion).where(DagVersion.dag_id == SCHEDULED).values(created_at=LONG_AGO))
    yield fresh
    with create_session() as session:
        for run in session.scalars(select(DagRun).where(DagRun.dag_id == SCHEDULED)):
            session.delete(run)
        session.flush()
        for model in (SerializedDagModel, DagVersion, DagModel):
            session.execute(delete(model).where(model.dag_id == SCHEDULED))


def ran(run_id: str, kind: str, after: datetime, **conf: Any) -> None:
    """Write a run into Airflow's database."""
    with create_session() as session:
        session.add(DagRun(dag_id=SCHEDULED, run_id=run_id, run_type=kind, state=DagRunState.SUCCESS, run_after=after,
                           conf=conf))  # fmt: skip
    looks.answers.forget()


async def said(app: FastAPI) -> Any:
    async with person(app, "viewer") as client:
        history = (await client.get("/dag", params={"dag_id": SCHEDULED})).json()
        lines = (await client.get("/clusters")).json()["clusters"]
    assert history["missed"] == next(line["missed"] for line in lines if line["dag_id"] == SCHEDULED)
    return history["missed"]


async def press(app: FastAPI, slot: str, role: str = "user") -> tuple[int, Any]:
    async with person(app, role, "mary") as client:
        answer = await client.post("/actions/start-slot", params={"dag_id": SCHEDULED}, json={"slot": slot})
    return answer.status_code, answer.json()


async def test_a_missed_slot_is_said_with_its_month_and_started_once(scheduled: FastAPI) -> None:
    missed = await said(scheduled)
    assert datetime.fromisoformat(missed["slot"]) == SLOT
    assert missed["days"] == [DAYS.start.isoformat(), DAYS.end.isoformat()]
    assert f"{DAYS.start:%B %Y} was not done by schedule" in missed["what"]
    assert (missed["mode"], missed["whom"]) == ("reindex", "tyrell")

    assert (await press(scheduled, missed["slot"], "viewer"))[0] == 403
    status, answer = await press(scheduled, missed["slot"])
    assert status == 200, answer
    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.dag_id == SCHEDULED)).one()
        assert (run.run_id, run.state, run.run_type) == (answer["run_id"], "queued", "manual")
        assert run.triggering_user_name == "mary"
        assert run.conf == CONFIG.schedule.conf_for(DAYS)
        entry = session.scalars(select(Log).where(Log.event == "backfill_start_slot")).one()
        assert (entry.owner, json.loads(entry.extra or "")["slot"]) == ("mary", SLOT.isoformat())
        session.delete(entry)

    assert await said(scheduled) is None
    assert (await press(scheduled, missed["slot"]))[0] == 409
    with create_session() as session:
        assert len(session.scalars(select(DagRun).where(DagRun.dag_id == SCHEDULED)).all()) == 1


async def test_only_the_slot_that_was_shown_is_started(scheduled: FastAPI) -> None:
    status, answer = await press(scheduled, (SLOT - timedelta(days=365)).isoformat())
    assert (status, "not missed any more" in answer["detail"]) == (409, True)


async def test_a_paused_dag_says_so_and_starts_nothing(scheduled: FastAPI) -> None:
    with create_session() as session:
        session.execute(update(DagModel).where(DagModel.dag_id == SCHEDULED).values(is_paused=True))
    status, answer = await press(scheduled, SLOT.isoformat())
    assert (status, "Unpause it first" in answer["detail"]) == (409, True)
    async with person(scheduled, "viewer") as client:
        assert (await client.get("/dag", params={"dag_id": SCHEDULED})).json()["paused"]
    with create_session() as session:
        assert session.scalar(select(DagRun.id).where(DagRun.dag_id == SCHEDULED)) is None


MONTH = {"start_date": DAYS.start.isoformat(), "end_date": DAYS.end.isoformat()}


@pytest.mark.parametrize(
    ("kind", "after", "conf", "missed"),
    [
        ("scheduled", SLOT, {}, False),
        ("scheduled", SLOT - timedelta(days=31), {}, True),
        ("manual", SLOT + timedelta(days=2), {"customers": ["tyrell", "acme"], **MONTH}, False),
        ("manual", SLOT + timedelta(days=2), {"all_customers": True, "mode": "cleanup", **MONTH}, False),
        ("manual", SLOT + timedelta(days=2), {"customers": ["tyrell"], "dry_run": True, **MONTH}, True),
        ("manual", SLOT + timedelta(days=2), {"customers": ["acme"], **MONTH}, True),
        ("manual", SLOT + timedelta(days=2), {"customers": ["tyrell"], **MONTH, "end_date": "2025-12-03"}, True),
        ("manual", SLOT + timedelta(days=2), {"customers": "refused", **MONTH}, True),
        ("manual", SLOT - timedelta(days=2), {"customers": ["tyrell"], **MONTH}, True),
    ],
)
async def test_what_makes_up_for_a_slot(
    scheduled: FastAPI, kind: str, after: datetime, conf: dict[str, Any], missed: bool
) -> None:
    ran("somebody__1", kind, after, **conf)
    assert (await said(scheduled) is not None) == missed


async def test_a_slot_before_the_dags_first_appearance_was_not_missed(scheduled: FastAPI) -> None:
    with create_session() as session:
        late = SLOT + timedelta(seconds=1)
        session.execute(update(DagVersion).where(DagVersion.dag_id == SCHEDULED).values(created_at=late))
    looks.answers.forget()
    assert await said(scheduled) is None
