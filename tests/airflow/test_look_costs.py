"""What the scheduler's look at a run with waiting windows costs, in statements: it does not grow with the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow import settings as airflow_settings
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.pool import Pool
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskmap import TaskMap
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import event, select, update

from backfill import settings
from backfill.groups import BATCHES
from include.scorecard_backfill.config import WindowsConfig
from include.scorecard_backfill.graph import stages_of
from tests.kit.airflow_home import ROOT
from tests.kit.page_story import BUNDLE, make_tables

DAG = "scorecard_backfill__looked-at"
STAGES = stages_of("delete_first")
BATCH = WindowsConfig().batch_size
A_LARGE_PLANS_LOOK = 1.35
"""By that of a plan of one batch, which it is 1.3 of; without batches it would be twenty of a thousand windows."""


@pytest.fixture
def dag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The DAG of a cluster as the scheduler reads it from the database."""
    (tmp_path / "looked-at.yaml").write_text("name: looked-at\nwindows: {batches: 20}\n")
    monkeypatch.setenv(settings.CLUSTERS_ENV, str(tmp_path))
    settings._load.cache_clear()
    make_tables()
    file = ROOT / "dags" / "scorecard_backfill.py"
    bag = DagBag(str(file), bundle_path=file.parent, bundle_name=BUNDLE)
    assert not bag.import_errors
    sync_bag_to_db(bag, BUNDLE, None)
    with create_session() as session:
        yield DBDagBag().get_latest_version_of_dag(DAG, session=session)
        session.rollback()
    settings._load.cache_clear()


def run_of(dag: Any, session: Any, windows: int, *, next_batch: str) -> DagRun:
    """A run whose plan is approved: windows of the first batch wait, and the opener of the next one is so far."""
    run: DagRun = dag.create_dagrun(
        run_id=f"{windows}-{next_batch}", run_after=datetime.now(UTC), run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST, state=DagRunState.RUNNING, start_date=datetime.now(UTC),
        session=session,
    )  # fmt: skip
    run.dag = dag
    mine = (TaskInstance.dag_id == DAG, TaskInstance.run_id == run.run_id)

    def set_state(state: str, *tasks: str) -> None:
        session.execute(update(TaskInstance).where(*mine, TaskInstance.task_id.in_(tasks)).values(state=state))

    set_state("success", "preflight", "plan", "approve")
    session.add(TaskMap(dag_id=DAG, task_id="plan", run_id=run.run_id, map_index=-1, length=windows, keys=None))
    session.flush()
    for task in dag.tasks:
        if task.task_id.startswith("windows."):
            TaskMap.expand_mapped_task(task, run.run_id, session=session)
    set_state("deferred", "windows.admit")
    set_state(next_batch, "open_windows_2")
    session.flush()
    return run


def look(run: DagRun, session: Any) -> int:
    """Let the scheduler look at a run and return how many statements it has sent."""
    seen: list[str] = []

    def note(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    engine = airflow_settings.get_engine()
    event.listen(engine, "before_cursor_execute", note)
    run.update_state(session=session, execute_callbacks=False)
    event.remove(engine, "before_cursor_execute", note)
    return len(seen)


def states(run: DagRun, session: Any) -> dict[str, str | None]:
    """States of the run's tasks that are not mapped."""
    session.expire_all()
    return {ti.task_id: ti.state for ti in run.get_task_instances(session=session) if ti.map_index < 0}


def test_a_look_at_a_large_plan_costs_what_its_first_batch_costs(dag: Any) -> None:
    with create_session() as session:
        small = run_of(dag, session, BATCH, next_batch="skipped")
        rest = [name for one in BATCHES[1:] for name in (one.opened_by, *(f"{one.group}.{stage}" for stage in STAGES))]
        mine = (TaskInstance.run_id == small.run_id, TaskInstance.task_id.in_(rest))
        session.execute(update(TaskInstance).where(*mine).values(state="skipped"))
        session.expire_all()
        small.dag = dag
        of_one_batch = look(small, session)
        large = run_of(dag, session, BATCH, next_batch="deferred")
        of_all = look(large, session)
        # Whatever is planned behind it: nothing of a closed batch is mapped.
        tasks = Counter(ti.task_id for ti in large.get_task_instances(session=session))
        session.rollback()
    assert tasks["windows.verify"] == BATCH
    assert {tasks[f"{one.group}.{stage}"] for one in BATCHES[1:] for stage in ("admit", "verify")} == {1}
    assert of_one_batch >= 20 * BATCH
    assert of_all <= A_LARGE_PLANS_LOOK * of_one_batch


def test_batches_that_a_plan_does_not_need_are_skipped_and_nothing_waits_for_them(dag: Any) -> None:
    with create_session() as session:
        run = run_of(dag, session, 2, next_batch="skipped")
        for _ in BATCHES:
            look(run, session)
        found = states(run, session)
        for one in BATCHES[1:]:
            assert found[one.opened_by] == found[f"{one.group}.admit"] == found[f"{one.group}.verify"] == "skipped"
        assert found["replan"] is None
        # The windows come to their end: the replan is next, and no batch holds it up.
        done = update(TaskInstance).where(TaskInstance.run_id == run.run_id, TaskInstance.map_index >= 0)
        session.execute(done.values(state="success"))
        session.expire_all()
        ready, _ = run.update_state(session=session, execute_callbacks=False)
        assert [ti.task_id for ti in ready] == ["replan"]
        session.rollback()


def test_windows_that_wait_take_no_slot_of_a_pool_that_counts_deferred_tasks(dag: Any) -> None:
    with create_session() as session:
        run = run_of(dag, session, BATCH, next_batch="deferred")
        pool = session.scalar(select(Pool).where(Pool.pool == "default_pool")) or Pool(pool="default_pool")
        pool.slots, pool.include_deferred = 3, True
        session.add(pool)
        mine = (TaskInstance.run_id == run.run_id, TaskInstance.map_index == 0)
        # One is under way; its Job has a slot, as its DELETE had.
        session.execute(
            update(TaskInstance).where(*mine, TaskInstance.task_id.endswith(".admit")).values(state="success")
        )
        session.execute(
            update(TaskInstance).where(*mine, TaskInstance.task_id == "windows.reindex").values(state="deferred")
        )
        session.flush()
        assert Pool.slots_stats(session=session)["default_pool"]["open"] == 2
        session.rollback()
