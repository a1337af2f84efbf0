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
from backfill.hooks.kubernetes import KubernetesJobs
from backfill.settings import cluster_config
from include.scorecard_backfill.job import JobRequest, build_job, container_of
from include.scorecard_backfill.ownership import Owner, owner_of
from include.scorecard_backfill.verdicts.jobs import job_outcome

config = cluster_config("sandbox-east")
key = sys.argv[1]
made_by = Owner("manual__2026-03-01T00:00:00+00:00", "windows.reindex", 0, 1, 1)
request = JobRequest(
    key=key, cluster=config.name, run_id=made_by.run_id, customer_id="stark", start="2026-01-01",
    end="2026-02-01", attempt=1, ttl_seconds=3600, deadline_seconds=60, owner=made_by.text,
)

async def follow():
    client = KubernetesJobs.for_worker(config)
    assert await client.allowed("get", "", "pods", "log")
    manifest = build_job(await client.cronjob(), request)
    assert await client.create_job(manifest, dry_run=True)
    assert await client.job(request.name) is None
    await client.create_job(manifest)
    assert [job["metadata"]["name"] for job in await client.jobs(f"scorecard-backfill/window={key}")] == [request.name]
    # As a trigger: the connection is read with each call.
    waiting = KubernetesJobs(config)
    while not job_outcome(job := await waiting.job(request.name)).final:
        await asyncio.sleep(0.05)
    assert job_outcome(job).state == "complete"
    assert owner_of(job) == made_by
    next_try = Owner(made_by.run_id, made_by.task_id, 0, 2)
    adopted = owner_of(await waiting.adopt_job(request.name, next_try))
    assert (adopted.try_number, adopted.counter) == (2, 2)
    [pod] = await waiting.pods(f"job-name={request.name}")
    lines = await waiting.pod_log(pod["metadata"]["name"], container_of(job))
    assert [e["reason"] for e in await waiting.events(job["metadata"]["uid"])]
    assert "its owner is" in (await waiting.end_job(request.name, made_by)).why
    assert (await waiting.end_job(request.name, adopted)).name == request.name
    assert await waiting.job(request.name) is None
    assert "does not exist" in (await client.end_job(request.name, adopted)).why
    return lines

print(asyncio.run(follow()))
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
