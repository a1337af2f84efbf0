"""The DAG file: which DAGs there are, what they look like, and what one bad cluster file does."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from backfill import settings
from include.scorecard_backfill.config.load import CLUSTERS_FOLDER
from tests.kit.airflow_home import ROOT

DAG_FILE = ROOT / "dags" / "scorecard_backfill.py"
STAGES = ["admit", "delete", "wait_mutations", "reindex", "wait_workflows", "verify"]
IN_TRIGGERER = {"admit", "wait_mutations", "wait_workflows", "verify"}


@pytest.fixture(autouse=True)
def _fresh_clusters() -> Iterator[None]:
    settings._load.cache_clear()
    yield
    settings._load.cache_clear()


def load_dags(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the DAG file over a folder of cluster files and return the DAGs that it made, by id."""
    monkeypatch.setenv(settings.CLUSTERS_ENV, str(folder))
    settings._load.cache_clear()
    from airflow.sdk import DAG

    made: dict[str, Any] = {}
    keep = DAG.__exit__

    def leave(self: Any, *args: Any) -> Any:
        made[self.dag_id] = self
        return keep(self, *args)

    monkeypatch.setattr(DAG, "__exit__", leave)
    spec = importlib.util.spec_from_file_location(f"dag_file_{folder.name.replace('-', '_')}", DAG_FILE)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return made


@pytest.fixture
def sandbox_dag(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the DAG of sandbox-east."""
    return load_dags(ROOT / "sandbox" / "clusters", monkeypatch)["scorecard_backfill__sandbox-east"]


def test_one_dag_for_each_of_the_eight_shipped_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    dags = load_dags(CLUSTERS_FOLDER, monkeypatch)
    files = {path.stem for path in CLUSTERS_FOLDER.glob("*.yaml")} - {"defaults"}
    assert len(files) == 8
    assert set(dags) == {f"scorecard_backfill__{name}" for name in files}


def test_a_task_that_was_cleared_often_waits_no_longer_for_its_next_try(sandbox_dag: Any) -> None:
    # Airflow's own count of tries, by which it doubles the delay, goes on over every clear.
    repeated = [task for task in sandbox_dag.tasks if task.retries]
    assert len(repeated) > 10
    for task in repeated:
        assert task.max_retry_delay == task.retry_delay * 2**task.retries, task.task_id


def test_shape_of_a_run(sandbox_dag: Any) -> None:
    for group in ("windows", "smaller_windows", "single_days"):
        tasks = [sandbox_dag.get_task(f"{group}.{stage}") for stage in STAGES]
        for before, after in pairwise(tasks):
            assert before.downstream_task_ids == {after.task_id}
    assert sandbox_dag.get_task("approve").downstream_task_ids == {"windows.admit", "open_windows_2"}
    assert sandbox_dag.get_task("plan").upstream_task_ids == {"preflight"}
    for name in ("replan", "replan_days", "report"):
        assert sandbox_dag.get_task(name).trigger_rule == "all_done"
    assert sandbox_dag.get_task("replan_days").downstream_task_ids >= {"single_days.admit"}
    # Only the report decides about the run: Airflow leaves teardown tasks out of its verdict.
    assert [t.task_id for t in sandbox_dag.leaves] == ["tidy"]
    tidy = sandbox_dag.get_task("tidy")
    assert tidy.is_teardown
    assert not tidy.on_failure_fail_dagrun
    assert tidy.upstream_task_ids == {"report"}
    assert sandbox_dag.max_active_runs == 1
    assert sandbox_dag.catchup is False


def test_waits_start_in_the_triggerer_and_the_others_do_not(sandbox_dag: Any) -> None:
    for stage in STAGES:
        task = sandbox_dag.get_task(f"windows.{stage}")
        assert bool(task.start_from_trigger) is (stage in IN_TRIGGERER), stage
        if stage in IN_TRIGGERER:
            args = task.start_trigger_args
            module, _, name = args.trigger_cls.rpartition(".")
            trigger = getattr(importlib.import_module(module), name)
            assert trigger(**args.trigger_kwargs).serialize()[0] == args.trigger_cls
            # References only: a waiting window carries no list and nothing that must be rendered.
            assert set(args.trigger_kwargs) == {"cluster", "group"}
            assert "{{" not in str(args.trigger_kwargs)


def test_what_waits_has_a_deadline_except_for_a_slot(sandbox_dag: Any) -> None:
    for stage in IN_TRIGGERER - {"admit"}:
        timeout = sandbox_dag.get_task(f"windows.{stage}").start_trigger_args.timeout
        assert timeout is not None
        assert timeout.total_seconds() > 0


def test_form_comes_from_the_model(sandbox_dag: Any) -> None:
    from include.scorecard_backfill.params.form import RunParams

    assert list(sandbox_dag.params) == list(RunParams.model_fields)
    # Every default must be valid, or a schedule could never start a run.
    sandbox_dag.params.validate()


def test_shipped_schedules_delete_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    load_dags(CLUSTERS_FOLDER, monkeypatch)
    for config in settings.load_all():
        assert config.schedule.mode == "reindex"  # type: ignore[union-attr]


@pytest.mark.parametrize("tries", [1, 4, 9, 40])
def test_a_task_that_was_cleared_often_is_repeated_as_soon_as_any_other(sandbox_dag: Any, tries: int) -> None:
    """Airflow doubles the delay with each try, and a clear is a try: after eight of them it would be hours."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.serialization.serialized_objects import DagSerialization

    ended = datetime(2026, 1, 1, tzinfo=UTC)
    for task in DagSerialization.from_dict(DagSerialization.to_dict(sandbox_dag)).tasks:
        if not task.retries:
            continue
        one: Any = SimpleNamespace(
            task=task, try_number=tries, end_date=ended, retry_delay_override=None, dag_id="d", task_id=task.task_id,
            logical_date=None,
        )  # fmt: skip
        later = TaskInstance.next_retry_datetime(one) - ended
        assert task.retry_delay <= later <= task.retry_delay * 2**task.retries, task.task_id


def test_survives_serialization(sandbox_dag: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    data = DagSerialization.to_dict(sandbox_dag)
    again = DagSerialization.from_dict(data)
    assert {t.task_id for t in again.tasks} == {t.task_id for t in sandbox_dag.tasks}
    admit: Any = again.get_task("windows.admit")
    assert admit.start_from_trigger
    assert admit.start_trigger_args.trigger_cls == "backfill.triggers.admit.AdmitTrigger"


def test_a_bad_file_takes_only_its_own_dag_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good.yaml").write_text("name: good\n")
    (tmp_path / "bad.yaml").write_text("name: bad\nadmission: {max_paralel: 3}\n")
    dags = load_dags(tmp_path, monkeypatch)
    assert set(dags) == {"scorecard_backfill__good", "scorecard_backfill_broken__bad"}
    shown = dags["scorecard_backfill_broken__bad"].doc_md
    assert "bad.yaml" in shown
    assert "max_paralel" in shown


def test_disabled_cluster_has_no_dag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed.yaml").write_text("name: closed\nenabled: false\n")
    assert load_dags(tmp_path, monkeypatch) == {}


def test_airflow_loads_one_plugin_and_the_connection_type(airflow_environment: dict[str, str]) -> None:
    code = (
        "from airflow import plugins_manager as m\n"
        "ours = [p.name for p in m._get_plugins()[0] if 'PLUGINS_FOLDER' in str(p.source)]\n"
        "print('plugins', ours, m.get_import_errors())\n"
        "from airflow.providers_manager import ProvidersManager\n"
        "print('hook', ProvidersManager().hooks['temporal'].hook_class_name)\n"
        "import sys\n"
        "print('twice', [n for n in sys.modules if n in ('hooks', 'operators', 'triggers', 'poll', 'settings')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=airflow_environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert "plugins ['scorecard_backfill'] {}" in done.stdout
    assert "hook backfill.hooks.temporal.TemporalHook" in done.stdout
    assert "twice []" in done.stdout


def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *allowed: str) -> list[str]:
    """The tasks of a window in their order, for a cluster that allows these orders."""
    (tmp_path / "both.yaml").write_text(
        f"name: both\norders: [{', '.join(allowed)}]\n"
        "clickhouse: {written_columns: {scorecard: {column: updated_at}, score: {column: updated_at}}}\n"
    )
    dag = load_dags(tmp_path, monkeypatch)["scorecard_backfill__both"]
    chain = ["windows.admit"]
    while (after := [t for t in dag.get_task(chain[-1]).downstream_task_ids if t.startswith("windows.")]) != []:
        chain += after
    return [task.removeprefix("windows.") for task in chain]


def test_the_graph_follows_the_orders_that_the_file_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert orders(tmp_path, monkeypatch, "delete_first") == STAGES
    sweep_last = ["admit", "reindex", "wait_workflows", "delete", "wait_mutations", "verify"]
    assert orders(tmp_path, monkeypatch, "reindex_first") == sweep_last
    both = [*STAGES[:-1], "sweep", "wait_sweep", "verify"]
    assert orders(tmp_path, monkeypatch, "reindex_first", "delete_first") == both


def test_the_form_offers_the_customers_of_the_last_plan_and_a_tasks_process_does_not_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def get(key: str, default: str | None = None) -> str | None:
        asked.append(key)
        return '{"sandbox-east": ["acme", "globex"]}' if key == settings.CUSTOMERS_VARIABLE else default

    monkeypatch.setattr("backfill.known.Variable.get", get)
    made = load_dags(ROOT / "sandbox" / "clusters", monkeypatch)
    east, west = (
        made[f"scorecard_backfill__sandbox-{name}"].params.get_param("customers") for name in ("east", "west")
    )
    assert (east.schema["examples"], "examples" in west.schema) == (["acme", "globex"], False)
    # Once for all clusters, however many there are.
    assert len(asked) == 1
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "scorecard_backfill__sandbox-east")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "plan")
    assert load_dags(ROOT / "sandbox" / "clusters", monkeypatch)
    assert len(asked) == 1
