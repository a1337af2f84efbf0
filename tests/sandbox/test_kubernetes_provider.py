"""Airflow's provider works unchanged: its hooks and its KubernetesJobOperator, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from standins.kubernetes.client import NAMESPACE, PROJECT
from tests.sandbox.kubernetes_fixtures import BROKEN, CONTEXT, IMAGE, Kube, conditions, kube, server, unique

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

PACKAGE = """
import asyncio, sys
from backfill.hooks.kubernetes import AsyncJobClient, JobClient
from backfill.settings import cluster_config
from include.scorecard_backfill.job import JobRequest, build_job
from include.scorecard_backfill.verdicts.jobs import job_outcome

config = cluster_config("sandbox-east")
client = JobClient(config)
key = sys.argv[1]
assert client.allowed("get", "", "pods", "log")
request = JobRequest(
    key=key, cluster=config.name, run_id="manual__2026-03-01T00:00:00+00:00", customer_id="stark", start="2026-01-01",
    end="2026-02-01", attempt=1, ttl_seconds=3600, deadline_seconds=60,
)
client.create_job(build_job(client.cronjob(), request))
assert [job["metadata"]["name"] for job in client.jobs(f"scorecard-backfill/window={key}")] == [request.name]

async def follow():
    waiting = AsyncJobClient(config)
    while not job_outcome(await waiting.job(request.name)).final:
        await asyncio.sleep(0.05)
    assert job_outcome(await waiting.job(request.name)).state == "complete"
    [pod] = await waiting.pods(f"job-name={request.name}")
    lines = await waiting.pod_log(pod["metadata"]["name"], pod["spec"]["containers"][0]["name"])
    await waiting.delete_job(request.name)
    assert await waiting.job(request.name) is None
    return lines

print(asyncio.run(follow()))
client.delete_job(request.name)
assert client.job(request.name) is None
"""


def run_airflow(kube: Kube, home: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script with Airflow and a connection ``kube`` to the server; its home is new."""
    connection = {
        "conn_type": "kubernetes",
        "extra": {"kube_config_path": str(kube.sandbox.kubeconfig), "cluster_context": CONTEXT},
    }
    env = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    env |= {
        "HOME": str(home),
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__LAZY_LOAD_PLUGINS": "True",
        "AIRFLOW_CONN_KUBE": json.dumps(connection),
        "AIRFLOW_CONN_KUBERNETES_SANDBOX_EAST": json.dumps(connection),
        "SCORECARD_BACKFILL_CLUSTERS": str(PROJECT / "sandbox" / "clusters"),
        "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "plugins")]),
    }
    argv = [sys.executable, "-c", script, *arguments]
    return subprocess.run(argv, cwd=home, env=env, capture_output=True, text=True, timeout=100, check=False)


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


def test_the_packages_clients_make_follow_and_delete_a_job(kube: Kube, tmp_path: Path) -> None:
    result = run_airflow(kube, tmp_path, PACKAGE, unique("key"))
    assert result.returncode == 0, result.stderr
    assert "customer=stark start=2026-01-01T00:00:00Z" in result.stdout
