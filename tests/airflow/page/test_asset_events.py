"""What Airflow makes of the events that tidy leaves: one for each customer and month, on the cluster's asset."""

from __future__ import annotations

from types import SimpleNamespace

from airflow.api_fastapi.execution_api.datamodels.asset import AssetProfile
from airflow.models.asset import AssetActive, AssetAliasModel, AssetEvent, AssetModel
from airflow.models.taskinstance import TaskInstance
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.sdk.execution_time.task_runner import _serialize_outlet_events
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.orm import Session

from backfill.kit.debts import cluster_asset, verified_alias
from backfill.operators.tidy import TidyOperator
from tests.kit.page_story import DAG, Story

RUN = "manual__events"
CLUSTER = "sandbox-east"


def test_each_month_is_an_event_of_the_clusters_asset(page_app: FastAPI, story: Session) -> None:
    told = Story(story, RUN)
    made = told.task("tidy", "running")
    asset, alias = cluster_asset(CLUSTER), verified_alias(CLUSTER)
    story.add_all([AssetModel(name=asset.name, uri=asset.uri, group="asset"), AssetAliasModel(name=alias.name)])
    story.flush()
    story.add(AssetActive(name=asset.name, uri=asset.uri))
    story.flush()
    rows = [{"customer_id": who, "start": "2025-12-30", "end": "2026-01-02", "status": "verified"}
            for who in ("acme", "globex")]  # fmt: skip
    events = OutletEventAccessors()
    pulled = SimpleNamespace(xcom_pull=lambda **_: {"windows": rows})
    context = {"ti": pulled, "outlet_events": events, "dag_run": SimpleNamespace(run_id=RUN)}
    TidyOperator(task_id="tidy", cluster=CLUSTER)._announce(context)

    ti = story.scalars(select(TaskInstance).where(TaskInstance.id == made)).one()
    TaskInstance.register_asset_changes_in_db(
        ti, [AssetProfile(name=alias.name, type="AssetAlias")], list(_serialize_outlet_events(events)), session=story
    )
    found = story.scalars(select(AssetEvent).where(AssetEvent.source_dag_id == DAG)).all()

    assert sorted((event.extra["customer"], event.extra["month"]) for event in found) == [
        ("acme", "2025-12"), ("acme", "2026-01"), ("globex", "2025-12"), ("globex", "2026-01"),
    ]  # fmt: skip
    assert {event.asset_id for event in found} == {story.scalars(select(AssetModel.id)).one()}
    story.rollback()
