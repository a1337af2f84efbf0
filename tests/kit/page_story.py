"""A run as Airflow's database holds it, written task by task: for tests of the page and for measuring it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from airflow import settings as airflow_settings
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.db import synchronize_log_template
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from sqlalchemy.orm import Session

Json = dict[str, Any]

DAG = "scorecard_backfill__sandbox-east"
OTHER = "somebody_elses_dag"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BUNDLE = "page-tests"
STAGES = ("admit", "delete", "wait_mutations", "reindex", "wait_workflows", "verify")


def make_tables() -> None:
    """Make Airflow's tables, and a DAG of ours and one of somebody else in them."""
    import_all_models()
    Base.metadata.create_all(airflow_settings.get_engine())
    synchronize_log_template()
    with create_session() as session:
        session.merge(DagBundleModel(name=BUNDLE))
        session.flush()
        for dag_id in (DAG, OTHER):
            session.merge(DagModel(dag_id=dag_id, bundle_name=BUNDLE, is_stale=False, is_paused=False))


def window_record(customer: str, start: str = "2026-01-01", end: str = "2026-02-01", **more: Any) -> Json:
    """A window as the plan leaves it."""
    return {
        "kind": "window", "v": 1, "key": f"{customer}-{start}", "cluster": "sandbox-east", "customer_id": customer,
        "start": start, "end": end, "mode": "cleanup", "order": "delete_first",
        "databases": [{"name": f"{customer}_voice", "profile_id": "voice", "tables": ["scorecard"]}],
        "conversations": 1000, "rows": {"scorecard": 100}, "part_of": "", "before": [],
        "label": f"{customer} {start}..{end}", **more,
    }  # fmt: skip


def verified_record(window: Mapping[str, Any]) -> Json:
    """A window's proof."""
    balance = {"database": "db", "table": "scorecard", "before": 100, "meant": 10, "after": 90, "removed": 10,
               "short": 0, "over": 0, "doubled": 0, "moved": 0, "exact": True, "days": {}}  # fmt: skip
    proof = {"tables": [balance], "hosts": [], "statements": 1, "workflows": 1, "accounted": True, "missing": []}
    return {"kind": "verified", "v": 1, "key": window["key"], "status": "verified", "proof": proof}


class Story:
    """Writes a run into the database, task by task."""

    def __init__(self, session: Session, run_id: str, state: str = "running", **fields: Any) -> None:
        self.session = session
        self.run_id = run_id
        run = DagRun(dag_id=DAG, run_id=run_id, run_type="manual", state=DagRunState(state), start_date=NOON,
                     run_after=NOON, conf={}, triggering_user_name="joe", **fields)  # fmt: skip
        session.add(run)
        session.flush()
        self.run = run
        self.version = session.query(DagVersion).filter_by(dag_id=DAG).first()

    def task(self, task_id: str, state: str | None, index: int = -1, **fields: Any) -> Any:
        """Write a task instance and return its id."""
        made = uuid4()
        self.session.execute(
            TaskInstance.__table__.insert().values(
                id=made, task_id=task_id, dag_id=DAG, run_id=self.run_id, map_index=index, state=state, try_number=1,
                pool="default_pool", pool_slots=1, start_date=NOON, end_date=NOON + timedelta(minutes=1),
                span_status="not_started", **fields,
            )
        )  # fmt: skip
        return made

    def xcom(self, task_id: str, key: str, value: Any, index: int = -1) -> None:
        """Write what a task has left."""
        self.session.execute(
            XComModel.__table__.insert().values(
                dag_run_id=self.run.id, task_id=task_id, map_index=index, key=key, dag_id=DAG, run_id=self.run_id,
                value=value, timestamp=NOON,
            )
        )  # fmt: skip

    def plan(self, windows: list[Json], **run: Any) -> None:
        """Write preflight, plan and an approval by jane."""
        for task_id in ("preflight", "plan"):
            self.task(task_id, "success")
        self.xcom("plan", "planned", windows)
        self.xcom("plan", "hash", "0123456789abcdef")
        self.xcom("plan", "run", {"mode": "cleanup", "start_date": "2026-01-01", "end_date": "2026-02-01",
                                  "max_parallel": 3, **run})  # fmt: skip
        asked = self.task("approve", "success")
        self.session.add(
            HITLDetail(ti_id=asked, options=["Approve", "Reject"], subject="?", created_at=NOON, params={},
                       responded_at=NOON, responded_by={"id": "jane", "name": "jane"}, chosen_options=["Approve"])
        )  # fmt: skip

    def window(self, window: Json, index: int, done: int, now: str | None = None, *, group: str = "windows",
               **fields: Any) -> None:  # fmt: skip
        """Write a window's first ``done`` stages as ended well, and the state of the next one."""
        for stage in STAGES[:done]:
            self.task(f"{group}.{stage}", "success", index)
        if done > 1:
            sent = [{"database": "db", "table": "scorecard", "at": NOON.timestamp(), "accepted": []}]
            counted = {"before": [{"database": "db", "table": "scorecard", "days": {"2026-01-01": {"rows": 100}}}]}
            self.xcom(f"{group}.delete", "return_value", {"kind": "deleted", "v": 1, "key": window["key"],
                      "status": "deleted", "counted": counted, "sent": sent}, index)  # fmt: skip
        if done == len(STAGES):
            self.xcom(f"{group}.verify", "return_value", verified_record(window), index)
            return
        self.task(f"{group}.{STAGES[done]}", now, index, **fields)
        if now == "failed":
            self.xcom(f"{group}.{STAGES[done]}", "return_value", {"kind": "failure", "v": 1, "key": window["key"],
                      "stage": STAGES[done], "cause": "job_gone", "reason": "the Job is gone"}, index)  # fmt: skip
            for stage in STAGES[done + 1 :]:
                self.task(f"{group}.{stage}", "upstream_failed", index)
