"""Airflow's scheduler looks at one run with waiting windows: what a look costs. Runs in an Airflow of its own.

    python -m benchmarks.look_child 6:50 6:250 5:250 6:50:20      (stages:windows, and in how many batches)

The windows are those of the first batch, the only one that is open. Prints one JSON list. The database is that of the
environment (benchmarks/scheduling.py makes it).
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow._shared.timezones import timezone
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.models.dagbag import DBDagBag
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskmap import TaskMap
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import event, select, update
from sqlalchemy.engine import Engine

BUNDLE = "bench"
FILE = Path(__file__).with_name("look_dags.py")
LOOKS = 3
BEFORE = ("preflight", "plan", "approve")

statements = 0


def _count(*_args: Any, **_kwargs: Any) -> None:
    global statements
    statements += 1


def prepare() -> DBDagBag:
    """Parse the DAGs of look_dags.py into the database."""
    with create_session() as session:
        session.merge(DagBundleModel(name=BUNDLE))
    bag = DagBag(str(FILE), bundle_path=FILE.parent, bundle_name=BUNDLE)
    if bag.import_errors:
        raise RuntimeError(str(bag.import_errors))
    sync_bag_to_db(bag, BUNDLE, None)
    return DBDagBag()


def waiting_run(bag: DBDagBag, stages: int, windows: int, batches: int = 1) -> str:
    """Make a run with so many windows, the first stage of each deferred, and return its id."""
    run_id = f"look-{stages}-{windows}-{batches}"
    dag_id = f"look_{stages}" if batches == 1 else f"look_{stages}_in_{batches}"
    with create_session() as session:
        dag = bag.get_latest_version_of_dag(dag_id, session=session)
        assert dag is not None
        run = dag.create_dagrun(
            run_id=run_id,
            run_after=timezone.utcnow(),
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.RUNNING,
            start_date=datetime.now(UTC),
            session=session,
        )
        run.dag = dag
        mine = (TaskInstance.dag_id == run.dag_id, TaskInstance.run_id == run_id)
        done = update(TaskInstance).where(*mine, TaskInstance.task_id.in_(BEFORE))
        session.execute(done.values(state=TaskInstanceState.SUCCESS))
        session.add(TaskMap(dag_id=dag.dag_id, task_id="plan", run_id=run_id, map_index=-1, length=windows, keys=None))
        # The next batch's opener waits in the triggerer; those after it wait for it.
        opener = update(TaskInstance).where(*mine, TaskInstance.task_id == "open_1")
        session.execute(opener.values(state=TaskInstanceState.DEFERRED))
        session.flush()
        for task in dag.tasks:
            if task.task_id.startswith("windows."):
                TaskMap.expand_mapped_task(task, run_id, session=session)
        first = update(TaskInstance).where(*mine, TaskInstance.task_id == "windows.stage_0")
        session.execute(first.values(state=TaskInstanceState.DEFERRED))
    return run_id


def look(bag: DBDagBag, stages: int, windows: int, batches: int = 1) -> dict[str, Any]:
    """Return CPU seconds and database statements of one look (the cheapest of some)."""
    run_id = waiting_run(bag, stages, windows, batches)
    best, sent, instances = float("inf"), 0, 0
    for _ in range(LOOKS):
        with create_session() as session:
            run = session.scalars(select(DagRun).where(DagRun.run_id == run_id)).one()
            run.dag = bag.get_latest_version_of_dag(run.dag_id, session=session)
            before, start = statements, time.process_time()
            run.update_state(session=session, execute_callbacks=False)
            took, sent = time.process_time() - start, statements - before
            instances = len(run.get_task_instances(session=session))
            best = min(best, took)
    return {
        "stages": stages,
        "windows": windows,
        "batches": batches,
        "instances": instances,
        "cpu_seconds": round(best, 4),
        "statements": sent,
    }


def main() -> int:
    """Measure the pairs of the command line."""
    event.listen(Engine, "before_cursor_execute", _count)
    bag = prepare()
    pairs = [tuple(map(int, text.split(":"))) for text in sys.argv[1:]]
    print(json.dumps([look(bag, *pair) for pair in pairs]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
