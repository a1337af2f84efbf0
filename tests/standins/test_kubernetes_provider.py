"""Airflow's provider works unchanged: its hooks and its KubernetesJobOperator, in a process of their own."""

from __future__ import annotations

from pathlib import Path

from standins.kubernetes.client import NAMESPACE
from tests.standins.kubernetes_fixtures import (
    BROKEN,
    CONTEXT,
    IMAGE,
    Kube,
    conditions,
    kube,
    run_airflow,
    server,
    unique,
)

__all__ = ["kube", "server"]

OPERATOR = """
import sys
from unittest.mock import MagicMock
from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator

name, image = sys.argv[1:]
operator = KubernetesJobOperator(
    task_id="t", kubernetes_conn_id="kube", namespace="cresta-cron", image=image, name=name, random_name_suffix=False,
    wait_until_job_complete=True, get_logs=True, backoff_limit=0, job_poll_interval=0.1,
    on_finish_action="keep_pod", env_vars={"RUN_ONLY_FOR_CUSTOMER_IDS": "initech"},
)
ti = MagicMock(map_index=-1, try_number=1, dag_id="d", task_id="t", run_id="r")
run = MagicMock(run_id="r", logical_date=None, dag_id="d")
dag = MagicMock(dag_id="d", parent_dag=None)
operator.execute({"ti": ti, "task_instance": ti, "dag_run": run, "run_id": "r", "dag": dag, "task": operator})
operator.on_kill()
"""

HOOKS = """
import asyncio, sys
from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook, KubernetesHook

name, context = sys.argv[1:]
hook = KubernetesHook(conn_id="kube", cluster_context=context)
job = hook.wait_until_job_complete(name, "cresta-cron", 0.1)
assert hook.is_job_successful(job), job.status
waiting = AsyncKubernetesHook(conn_id="kube", cluster_context=context)
assert asyncio.run(waiting.wait_until_job_complete(name, "cresta-cron", 0.1)).status.succeeded == 1
"""


def test_the_job_operator_makes_waits_reads_logs_and_deletes(kube: Kube, tmp_path: Path) -> None:
    name = unique("operator")
    result = run_airflow(kube, tmp_path, OPERATOR, name, IMAGE)
    assert result.returncode == 0, result.stderr
    assert "customer=initech" in result.stdout + result.stderr
    [made] = [row for row in kube.sandbox.mutations("/jobs") if row["method"] == "POST" and name in row["name"]]
    assert made["status"] == 201
    [deleted] = [row for row in kube.sandbox.mutations("/jobs") if row["method"] == "DELETE" and name in row["name"]]
    assert deleted["status"] == 200
    assert kube.sandbox.requests("POST", "/pods") == []


def test_the_job_operator_sees_a_failed_job(kube: Kube, tmp_path: Path) -> None:
    name = unique("operator")
    result = run_airflow(kube, tmp_path, OPERATOR, name, BROKEN)
    assert result.returncode != 0
    assert "BackoffLimitExceeded" in result.stderr
    found = kube.batch.list_namespaced_job(NAMESPACE).items
    [job] = [kube.plain(job) for job in found if name in job.metadata.name]
    assert "Failed" in conditions(job)


def test_the_providers_hooks_wait_for_a_job(kube: Kube, tmp_path: Path) -> None:
    name = unique("hook")
    kube.make(name)
    result = run_airflow(kube, tmp_path, HOOKS, name, CONTEXT)
    assert result.returncode == 0, result.stderr
