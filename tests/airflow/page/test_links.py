"""Links at a task instance, as the API server resolves them: also of stages that never run on a worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.serialization.serialized_objects import DagSerialization
from fastapi import FastAPI
from sqlalchemy.orm import Session

from backfill.api import read
from backfill.settings import cluster_config
from include.scorecard_backfill.config.links import LinksConfig
from tests.kit.airflow_home import ROOT
from tests.kit.page_story import BUNDLE, DAG, Story, window_record

RUN = "manual__links"
STAGES = ("admit", "delete", "wait_mutations", "reindex", "wait_workflows", "verify")
LINKS = LinksConfig(
    temporal_ui="https://temporal.test/namespaces/{namespace}/workflows/{workflow_id}",
    mutations="https://clickhouse.test:8443/?query={query}",
    job="https://kubernetes.test/{namespace}/{job}",
)
NAMES = ["Backfill", "Job", "Mutations", "Workflow in Temporal"]


@pytest.fixture(scope="module")
def dag() -> Any:
    """The DAG as the API server has it: from its serialized form, with what plugins add."""
    bag = DagBag(dag_folder=ROOT / "dags" / "scorecard_backfill.py", bundle_name=BUNDLE)
    return DagSerialization.from_dict(DagSerialization.to_dict(bag.dags[DAG]))


@pytest.fixture
def told(fresh: FastAPI, story: Session, monkeypatch: pytest.MonkeyPatch) -> Story:
    """A run of two windows, of which the second one waits for its first Job."""
    config = cluster_config("sandbox-east").model_copy(update={"links": LINKS})
    monkeypatch.setattr(read, "cluster_config", lambda name: config)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.test/af")
    made = Story(story, RUN)
    windows = [window_record("acme"), window_record("globex & co")]
    made.plan(windows)
    made.window(windows[0], 0, 0, "deferred")
    made.window(windows[1], 1, 3, "deferred")
    made.xcom("windows.reindex", "look", {"reason": "active", "job": "reindex-globex-a2", "attempt": 2}, 1)
    story.commit()
    return made


def links(dag: Any, task_id: str, index: int = -1) -> dict[str, str]:
    """What Airflow's route answers for one instance."""
    task = dag.get_task(task_id)
    ti = SimpleNamespace(key=TaskInstanceKey(DAG, task_id, RUN, 1, index))
    return {name: task.get_extra_links(ti, name) or "" for name in sorted(task.extra_links)}


def test_a_window_that_has_not_begun_leads_to_the_runs_tab_alone(dag: Any, told: Story) -> None:
    for stage in STAGES:
        found = links(dag, f"windows.{stage}", 0)
        assert list(found) == NAMES
        assert found.pop("Backfill") == (f"https://airflow.test/af/dags/{DAG}/runs/manual__links/plugin/backfill")
        assert set(found.values()) == {""}, stage


def test_every_stage_leads_to_the_job_that_runs_and_to_the_mutations(dag: Any, told: Story) -> None:
    for stage in STAGES:
        found = links(dag, f"windows.{stage}", 1)
        namespace = cluster_config("sandbox-east").kubernetes.namespace
        assert found["Job"] == f"https://kubernetes.test/{namespace}/reindex-globex-a2"
        query = unquote(found["Mutations"].removeprefix("https://clickhouse.test:8443/?query="))
        assert query.startswith("SELECT * FROM clusterAllReplicas('conversations', view(SELECT hostName()")
        assert "'backfill:globex & co-2026-01-01:'" in query
        assert "&" not in found["Mutations"]
        assert found["Workflow in Temporal"] == ""


def test_a_workflow_is_found_once_its_job_has_named_it(dag: Any, told: Story) -> None:
    left = {"kind": "reindexed", "v": 1, "key": "globex & co-2026-01-01", "status": "reindexed", "attempt": 2,
            "job_name": "reindex-globex-a2", "workflow_ids": ["Reindex-globex & co-voice", "another"]}  # fmt: skip
    told.xcom("windows.reindex", "return_value", left, 1)
    told.session.commit()
    namespace = cluster_config("sandbox-east").temporal.namespace
    assert links(dag, "windows.verify", 1)["Workflow in Temporal"] == (
        f"https://temporal.test/namespaces/{namespace}/workflows/Reindex-globex%20%26%20co-voice"
    )


def test_tasks_before_and_after_the_windows_lead_to_the_tab(dag: Any, told: Story) -> None:
    for task_id in ("preflight", "plan", "approve", "replan", "report"):
        assert list(links(dag, task_id)) == ["Backfill"], task_id


def test_a_cluster_whose_file_names_no_address_has_the_tab_alone(
    dag: Any, told: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "cluster_config", cluster_config)
    found = links(dag, "windows.reindex", 1)
    assert [name for name, address in found.items() if address] == ["Backfill"]


def test_an_index_that_the_plan_does_not_have_has_no_link(dag: Any, told: Story) -> None:
    assert links(dag, "windows.reindex", 7)["Job"] == ""
