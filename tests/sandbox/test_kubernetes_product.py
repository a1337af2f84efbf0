"""The product's clients and the reindex program as a container, against the Kubernetes stand-in."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from standins.kubernetes.client import PROJECT
from tests.standins.kubernetes_fixtures import (
    IMAGES,
    Kube,
    connection,
    kube,
    kube_in,
    run_airflow,
    unique,
)

__all__ = ["kube"]

REINDEX_JOB = "registry.invalid/reindex-job:1"
# As the stack's images file has it, without the wiring to the other parts.
PROGRAM = {
    "argv": [sys.executable, "-m", "sandbox.reindex_job"],
    "env": {"PYTHONPATH": str(PROJECT)},
    "cwd": str(PROJECT),
}

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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A server that knows the reindex program's image, too."""
    images = {**IMAGES, REINDEX_JOB: PROGRAM}
    with kube_in(tmp_path_factory.mktemp("kubernetes"), images=images) as running:
        yield running


def product(kube: Kube) -> dict[str, str]:
    """Environment in which the product finds its code, its cluster files and the connection of one cluster."""
    return {
        "AIRFLOW_CONN_KUBERNETES_SANDBOX_EAST": connection(kube),
        "SCORECARD_BACKFILL_CLUSTERS": str(PROJECT / "sandbox" / "clusters"),
        "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "plugins")]),
    }


def test_the_packages_clients_make_follow_and_delete_a_job(kube: Kube, tmp_path: Path) -> None:
    result = run_airflow(kube, tmp_path, PACKAGE, unique("key"), **product(kube))
    assert result.returncode == 0, result.stderr
    assert "customer=stark start=2026-01-01T00:00:00Z" in result.stdout


def test_the_reindex_job_runs_as_a_container(kube: Kube) -> None:
    name = unique("program")
    kube.make(name, REINDEX_JOB, env={"REINDEX_START_TIME": "2026-01-01T00:00:00Z"})
    kube.wait_condition(name, "Failed")
    [pod] = kube.pods(name)
    assert kube.log(pod) == "bad environment: REINDEX_END_TIME is not set\n"
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 2
