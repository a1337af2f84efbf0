"""What orchestration costs, as counts: copies, bytes, imports, files read, worker starts. Never as times."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import uuid
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.executors.workloads import TaskInstanceDTO
from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.serialization.serialized_objects import DagSerialization

from backfill import settings
from backfill.groups import BATCHES, PASSES
from backfill.triggers.admit import AdmitTrigger
from include.scorecard_backfill.config import load as config_load
from include.scorecard_backfill.params.form import RunParams
from tests.airflow.test_dag_file import STAGES, load_dags
from tests.kit.airflow_home import ROOT

EAST = "scorecard_backfill__sandbox-east"

GROUPS = tuple(one.group for one in (*BATCHES[:4], *PASSES[1], *PASSES[2]))
"""The task groups of a cluster whose file does not say how many batches it has."""

SERIALIZED_BYTES = 55_000
"""Of one cluster's DAG; every trigger that a task starts with is sent a copy. 46 kB today, 28 with one batch."""


@pytest.fixture(autouse=True)
def _fresh_clusters() -> Iterator[None]:
    settings._load.cache_clear()
    yield
    settings._load.cache_clear()


@pytest.fixture
def east(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The DAG of sandbox-east."""
    return load_dags(ROOT / "sandbox" / "clusters", monkeypatch)[EAST]


def test_no_task_has_a_copy_of_the_form(east: Any) -> None:
    assert list(east.params) == list(RunParams.model_fields)
    assert {task.task_id: list(task.params) for task in east.tasks if task.params} == {}
    again = DagSerialization.from_dict(DagSerialization.to_dict(east))
    assert list(again.params) == list(RunParams.model_fields)


def test_the_dag_in_the_database_is_small(east: Any) -> None:
    assert len(json.dumps(DagSerialization.to_dict(east))) < SERIALIZED_BYTES


def started(dag: Any) -> tuple[AdmitTrigger, Any]:
    """A trigger and its context, as the triggerer makes them for a task that starts from its trigger."""
    now = datetime.now(UTC).isoformat()
    run = {
        "dag_id": dag.dag_id,
        "run_id": "run",
        "run_type": "manual",
        "state": "running",
        "run_after": now,
        "start_date": now,
        "clear_number": 0,
        "conf": {},
        "consumed_asset_events": [],
    }
    none = ("logical_date", "data_interval_start", "data_interval_end", "end_date", "triggering_user_name", "note",
            "partition_key", "partition_date", "team_name")  # fmt: skip
    ti = TaskInstanceDTO(
        id=uuid.uuid4(),
        dag_version_id=uuid.uuid4(),
        task_id="windows.admit",
        dag_id=dag.dag_id,
        run_id="run",
        try_number=1,
        map_index=0,
        pool_slots=1,
        queue="default",
        priority_weight=1,
        context_carrier={},
    )
    data = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    runtime = TriggerRunner.create_runtime_ti(ti, data, {**dict.fromkeys(none), **run})
    trigger = AdmitTrigger(cluster="sandbox-east", group="windows")
    context = runtime.get_template_context()
    trigger.task_instance = runtime  # type: ignore[assignment]
    return trigger, context


def test_a_waiting_trigger_does_not_keep_the_dag(east: Any) -> None:
    trigger, context = started(east)
    assert trigger.task is not None
    dag = weakref.ref(trigger.task.dag)
    # What Airflow does before it runs a trigger; it holds the context until the trigger has ended.
    trigger.render_template_fields(context=context)
    gc.collect()
    assert dag() is None
    # What the waits read of it is there.
    assert (trigger.ti.run_id, trigger.ti.task_id, trigger.ti.map_index) == ("run", "windows.admit", 0)


def test_only_delete_and_reindex_start_a_worker(east: Any) -> None:
    for group in GROUPS:
        on_worker = [stage for stage in STAGES if not east.get_task(f"{group}.{stage}").start_from_trigger]
        # Once each; what reindex has deferred to wakes a worker again only when the Job has not ended well.
        assert on_worker == ["delete", "reindex"]


def test_a_worker_reads_only_its_own_clusters_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\n")
    read: list[str] = []
    real = config_load.read_mapping

    def reading(path: Path) -> dict[str, Any]:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(config_load, "read_mapping", reading)
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "scorecard_backfill__two")
    assert list(load_dags(tmp_path, monkeypatch)) == ["scorecard_backfill__two"]
    settings.cluster_config("two")
    assert read == ["two.yaml"]
    # The processor needs all of them, each once.
    monkeypatch.delenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID")
    read.clear()
    assert len(load_dags(tmp_path, monkeypatch)) == 3
    assert sorted(read) == ["one.yaml", "three.yaml", "two.yaml"]


NEW_IN = """
import importlib.util, os, sys
import scorecard_backfill_plugin

# Small modules of Airflow that come with the first DAG, whatever is in it.
OWN = ("airflow.sdk.definitions.timetables", "airflow.providers.common.io")
for file, dag_id in zip(sys.argv[1::2], sys.argv[2::2]):
    sys.stdout.flush()
    if os.fork() == 0:
        before = set(sys.modules)
        os.environ["_AIRFLOW_PARSING_CONTEXT_DAG_ID"] = dag_id
        spec = importlib.util.spec_from_file_location("measured", file)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        print(dag_id, sorted(name for name in set(sys.modules) - before if not name.startswith(OWN)), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, file
"""
"""Loads each file in a fork of a process that has the plugin, as the executor does, and prints what it imports anew."""


def test_a_dag_file_imports_nothing_that_the_plugin_has_not(airflow_environment: dict[str, str]) -> None:
    # A worker runs in such a fork; what is new there is imported by every task.
    dag_ids = {
        "scorecard_backfill": "scorecard_backfill__sandbox-east",
        "scorecard_backfill_undo": "scorecard_backfill_undo__sandbox-west",
        "scorecard_backfill_check": "scorecard_backfill_check",
    }
    argv = [word for file, dag_id in dag_ids.items() for word in (str(ROOT / "dags" / f"{file}.py"), dag_id)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NEW_IN, *argv],
        env=airflow_environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert done.stdout.splitlines()[-3:] == [f"{dag_id} []" for dag_id in dag_ids.values()]


@pytest.mark.parametrize("group", GROUPS)
def test_what_is_under_way_comes_before_what_waits_for_its_turn(east: Any, group: str) -> None:
    # Airflow gives a triggerer that has room ([triggerer] capacity) the triggers of the highest weight first. With its
    # own rule those were the windows that wait: once they fill it, nobody looks at a window that is under way any more.
    again = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(east))))
    tasks = [again.get_task(f"{group}.{stage}") for stage in STAGES]
    instances: list[Any] = [SimpleNamespace(task=task) for task in tasks]
    weights = [ti.task.weight_rule.get_weight(ti) for ti in instances]
    assert weights == sorted(set(weights)), dict(zip(STAGES, weights, strict=True))


def test_a_plan_is_not_larger_than_what_a_triggerer_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Airflow's defaults are 1,024 and 1,000: with 1,001 windows the ones under way could not wait anywhere.
    (tmp_path / "one.yaml").write_text("name: one\n")
    assert load_dags(tmp_path, monkeypatch)["scorecard_backfill__one"].get_task("plan").max_windows == 1_000
    monkeypatch.setenv("AIRFLOW__TRIGGERER__CAPACITY", "4000")
    assert load_dags(tmp_path, monkeypatch)["scorecard_backfill__one"].get_task("plan").max_windows == 1_024
