"""The DAG as Airflow sees it: stable over processes and releases, quick to read, with no rule that hides a failure."""

from __future__ import annotations

import ast
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import BaseHook, Variable
from airflow.serialization.serialized_objects import DagSerialization

from backfill import settings
from backfill.groups import PASSES
from include.scorecard_backfill.config.load import CLUSTERS_FOLDER, load_clusters
from tests.airflow.test_dag_file import load_dags
from tests.kit.airflow_home import ROOT

STAGES = ("admit", "delete", "wait_mutations", "reindex", "wait_workflows", "verify")
ON_A_WORKER = ("delete", "reindex")
CODE = sorted((*(ROOT / "dags").glob("*.py"), *(ROOT / "plugins").rglob("*.py"), *(ROOT / "include").rglob("*.py")))


@pytest.fixture
def dag(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The DAG of sandbox-east."""
    made = load_dags(ROOT / "sandbox" / "clusters", monkeypatch)["scorecard_backfill__sandbox-east"]
    settings._load.cache_clear()
    return made


def test_ids_of_dags_and_tasks_never_change(dag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # A deferred task whose id is gone from its DAG's version holds up the triggerer for all others (airflow#69841).
    batches = [f"windows_{number}" for number in range(2, 5)]
    groups = [f"{g}.{stage}" for g in ("windows", *batches, "smaller_windows", "single_days") for stage in STAGES]
    alone = {"preflight", "plan", "approve", "replan", "replan_days", "report", "tidy"}
    assert set(dag.task_ids) == {*alone, *groups, *(f"open_{batch}" for batch in batches)}
    shipped = load_dags(CLUSTERS_FOLDER, monkeypatch)
    regions = ["ap-southeast-2", "ca-central-1", "chat", "eu-west-2", "schwab", "us-east-1", "us-west-2", "voice"]
    assert sorted(shipped) == [f"scorecard_backfill__{name}-prod" for name in regions]


def test_inside_a_window_a_stage_runs_only_after_the_one_before_has_succeeded(dag: Any) -> None:
    for task in dag.tasks:
        mapped = "." in task.task_id
        alone = {"replan": "all_done", "replan_days": "all_done", "report": "all_done"}
        # A teardown: it comes after the report and is no part of the run's verdict.
        alone["tidy"] = "all_done_setup_success"
        allowed = {"all_success"} if mapped else {alone.get(task.task_id, "all_success")}
        assert task.trigger_rule in allowed, task.task_id


def test_a_run_has_no_time_out_that_would_skip_half_done_windows(dag: Any) -> None:
    assert dag.dagrun_timeout is None
    for task in dag.tasks:
        assert task.execution_timeout is None, task.task_id


def test_no_pool_is_used_and_waiting_windows_are_not_queued(dag: Any) -> None:
    for task in dag.tasks:
        assert task.pool == "default_pool", task.task_id
    # What waits for a slot is deferred, and its later stages are not scheduled: other DAGs are not crowded out.
    assert dag.get_task("windows.admit").start_from_trigger
    assert "windows.admit" in dag.get_task("windows.delete").upstream_task_ids


def test_a_window_is_named_on_the_grid_by_its_mapped_argument(dag: Any) -> None:
    for stage in ON_A_WORKER:
        task = dag.get_task(f"windows.{stage}")
        assert task.map_index_template == "{{ task.window['label'] }}"
        assert "window" in task.template_fields


def test_failures_of_plan_reach_the_report_without_a_callback_of_the_dag(dag: Any) -> None:
    assert dag.get_task("report").trigger_rule == "all_done"
    last_stages = {f"{one.group}.verify" for one in (*PASSES[0][:4], *PASSES[1], *PASSES[2])}
    assert dag.get_task("report").upstream_task_ids == last_stages
    assert not dag.has_on_failure_callback


def test_two_runs_of_a_cluster_never_overlap(dag: Any) -> None:
    assert dag.max_active_runs == 1
    # A run of its own for another part of the same cluster would not be held back by this.
    names = [item.name for item in load_clusters(CLUSTERS_FOLDER)]
    assert len(names) == len(set(names))


def names_in(path: Path) -> set[str]:
    """Every name that a file uses."""
    tree = ast.parse(path.read_text())
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }


def test_no_stage_skips_and_no_wait_fails_softly() -> None:
    words = {"AirflowSkipException", "TaskSkippedEvent", "soft_fail"}
    found = {path.relative_to(ROOT).as_posix(): used for path in CODE if (used := names_in(path) & words)}
    # A batch that the plan does not need has no windows that could be hidden by it.
    assert found == {"plugins/backfill/triggers/open.py": {"TaskSkippedEvent"}}


def test_no_stage_reads_a_date_that_a_manual_run_does_not_have() -> None:
    words = {"logical_date", "data_interval_start", "data_interval_end", "execution_date"}
    assert {path.name: used for path in CODE if (used := names_in(path) & words)} == {}
    templates = [path for path in CODE if "{{ ds" in path.read_text()]
    assert templates == []


PRINT_HASHES = """
import importlib.util, sys
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
spec = importlib.util.spec_from_file_location("dag_file", sys.argv[1])
module = importlib.util.module_from_spec(spec)
made, leave = [], DAG.__exit__
DAG.__exit__ = lambda self, *args: (made.append(self), leave(self, *args))[1]
spec.loader.exec_module(module)
print("hashes", *[SerializedDagModel.hash(DagSerialization.to_dict(dag)) for dag in made])
"""


def test_every_process_makes_the_same_dag(airflow_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Airflow keeps a new version of a DAG whenever this hash changes.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PRINT_HASHES, str(ROOT / "dags" / "scorecard_backfill.py")],
        env=airflow_environment | {"PYTHONHASHSEED": "4242"},
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    here = load_dags(ROOT / "sandbox" / "clusters", monkeypatch)
    hashes = [SerializedDagModel.hash(DagSerialization.to_dict(dag)) for dag in here.values()]
    assert len(hashes) == 2
    assert done.stdout.splitlines()[-1] == f"hashes {' '.join(hashes)}"


def test_fifty_clusters_are_read_quickly_and_a_broken_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(49):
        (tmp_path / f"cluster-{number}.yaml").write_text(f"name: cluster-{number}\n")
    (tmp_path / "broken.yaml").write_text("name: broken\nadmission: {max_parallel: many}\n")
    load_dags(ROOT / "sandbox" / "clusters", monkeypatch)
    began = time.process_time()
    dags = load_dags(tmp_path, monkeypatch)
    spent = time.process_time() - began
    assert len(dags) == 50
    assert "broken.yaml" in dags["scorecard_backfill_broken__broken"].doc_md
    assert spent < 12, f"{spent:.2f} s of CPU"


def test_a_worker_makes_its_own_dag_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "scorecard_backfill__sandbox-west")
    assert list(load_dags(ROOT / "sandbox" / "clusters", monkeypatch)) == ["scorecard_backfill__sandbox-west"]


def test_reading_the_dag_file_asks_no_variable_connection_or_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("asked while the DAG file was read")

    monkeypatch.setattr(BaseHook, "get_connection", refuse)
    monkeypatch.setattr(Variable, "get", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    (tmp_path / "one.yaml").write_text("name: one\n")
    assert list(load_dags(tmp_path, monkeypatch)) == ["scorecard_backfill__one"]
