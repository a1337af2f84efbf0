"""The official clients, blocking and async, work unchanged: reading, making, finding, logs, deleting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from kubernetes import watch as sync_watch
from kubernetes_asyncio import client as async_client
from kubernetes_asyncio import config as async_config

from standins.kubernetes.client import CRONJOB, NAMESPACE
from tests.standins.kubernetes_fixtures import (
    CONTEXT,
    IMAGE,
    SLEEPER,
    Kube,
    kube,
    server,
    unique,
    wait_for,
)

__all__ = ["kube", "server"]


@pytest_asyncio.fixture
async def async_api(kube: Kube) -> AsyncIterator[Any]:
    """The async client on the same server."""
    settings = async_client.Configuration()
    await async_config.load_kube_config(str(kube.sandbox.kubeconfig), CONTEXT, client_configuration=settings)
    async with async_client.ApiClient(settings) as api:
        yield api


def test_cronjob_is_as_in_production(kube: Kube) -> None:
    cronjob = kube.plain(kube.batch.read_namespaced_cron_job(CRONJOB, NAMESPACE))
    assert cronjob["spec"]["suspend"] is True
    container = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == IMAGE
    names = {variable["name"] for variable in container["env"]}
    assert "REINDEX_MODE" in names
    # Absent means every customer in the real job: whoever makes a Job has to set them.
    assert not names & {"REINDEX_START_TIME", "REINDEX_END_TIME", "RUN_ONLY_FOR_CUSTOMER_IDS"}
    assert not kube.batch.list_namespaced_job(NAMESPACE, label_selector="app.kubernetes.io/managed-by=Helm").items


def test_job_runs_its_container_with_the_pods_environment(kube: Kube) -> None:
    name = unique("env")
    kube.make(name, env={"RUN_ONLY_FOR_CUSTOMER_IDS": "acme", "REINDEX_START_TIME": "2026-01-01T00:00:00Z"})
    kube.wait_condition(name, "Complete")
    [pod] = kube.pods(name)
    first, last = kube.log(pod).splitlines()
    assert first == f"customer=acme start=2026-01-01T00:00:00Z from=yes pod={pod['metadata']['name']}"
    assert last == "bye"
    assert pod["status"]["phase"] == "Succeeded"
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


def test_pods_belong_to_their_job(kube: Kube) -> None:
    name = unique("owner")
    job = kube.make(name)
    [pod] = wait_for(lambda: kube.pods(name), f"a pod of {name}")
    [owner] = pod["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Job", name, job["metadata"]["uid"])
    assert owner["controller"] is True
    assert pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] == job["metadata"]["uid"]
    assert job["spec"]["selector"]["matchLabels"] == {"batch.kubernetes.io/controller-uid": job["metadata"]["uid"]}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("team={0}", {"a", "b"}),
        ("team={0},part=a", {"a"}),
        ("team={0},part!=a", {"b"}),
        ("team={0},!extra", {"b"}),
        ("team={0},extra", {"a"}),
    ],
)
def test_jobs_are_found_by_label(kube: Kube, selector: str, expected: set[str]) -> None:
    team = unique("team")
    for part, more in (("a", {"extra": ""}), ("b", {})):
        kube.make(f"{team}-{part}", labels={"team": team, "part": part, **more})
    found = kube.batch.list_namespaced_job(NAMESPACE, label_selector=selector.format(team)).items
    assert {job.metadata.name for job in found} == {f"{team}-{part}" for part in expected}


def test_log_options(kube: Kube) -> None:
    name = unique("log")
    kube.make(name)
    kube.wait_condition(name, "Complete")
    [pod] = kube.pods(name)
    assert kube.log(pod, tail_lines=1) == "bye\n"
    assert kube.log(pod, limit_bytes=8) == "customer"
    stamped = kube.log(pod, timestamps=True, tail_lines=1)
    assert stamped.endswith("Z bye\n")
    assert stamped.startswith("20")


def test_log_is_followed_to_the_end(kube: Kube) -> None:
    name = unique("follow")
    kube.make(name)
    [pod] = wait_for(lambda: [p for p in kube.pods(name) if p["status"]["phase"] != "Pending"], "a started pod")
    lines = sync_watch.Watch().stream(kube.core.read_namespaced_pod_log, pod["metadata"]["name"], NAMESPACE)
    assert list(lines)[-1] == "bye"


def test_deleting_a_job_ends_its_pods_and_processes(kube: Kube) -> None:
    name = unique("delete")
    kube.make(name, SLEEPER)
    [pod] = kube.wait_phase(name, "Running")
    key = f"{pod['metadata']['uid']}/{pod['spec']['containers'][0]['name']}"
    wait_for(lambda: key in kube.sandbox.processes(), "the container's process")
    kube.batch.delete_namespaced_job(name, NAMESPACE, propagation_policy="Background")
    kube.wait_gone(name)
    assert key not in kube.sandbox.processes()


def test_secrets_reach_the_container(kube: Kube) -> None:
    name = unique("secret")
    manifest = kube.manifest(name)
    kube.core.create_namespaced_secret(
        NAMESPACE, {"metadata": {"name": name}, "stringData": {"who": "umbrella"}, "type": "Opaque"}
    )
    reference = {"secretKeyRef": {"name": name, "key": "who"}}
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["env"].append({"name": "RUN_ONLY_FOR_CUSTOMER_IDS", "valueFrom": reference})
    kube.create(manifest)
    kube.wait_condition(name, "Complete")
    [pod] = kube.pods(name)
    assert kube.log(pod).startswith("customer=umbrella ")


async def test_async_client_reads_finds_and_deletes(kube: Kube, async_api: Any) -> None:
    name = unique("async")
    batch, core = async_client.BatchV1Api(async_api), async_client.CoreV1Api(async_api)
    manifest = kube.manifest(name, env={"RUN_ONLY_FOR_CUSTOMER_IDS": "globex"})
    created = await batch.create_namespaced_job(NAMESPACE, manifest)
    await asyncio.to_thread(kube.wait_condition, name, "Complete")
    found = await batch.list_namespaced_job(NAMESPACE, label_selector=f"window={name}")
    assert [job.metadata.uid for job in found.items] == [created.metadata.uid]
    pods = await core.list_namespaced_pod(NAMESPACE, label_selector=f"job-name={name}")
    container = pods.items[0].spec.containers[0].name
    text = await core.read_namespaced_pod_log(pods.items[0].metadata.name, NAMESPACE, container=container, tail_lines=9)
    assert text.splitlines()[0].startswith("customer=globex ")
    await batch.delete_namespaced_job(name, NAMESPACE, propagation_policy="Background")
    with pytest.raises(async_client.exceptions.ApiException) as refused:
        await batch.read_namespaced_job(name, NAMESPACE)
    assert refused.value.status == 404


def test_events_tell_what_happened(kube: Kube) -> None:
    name = unique("events")
    kube.make(name)
    kube.wait_condition(name, "Complete")
    events = kube.core.list_namespaced_event(NAMESPACE, field_selector=f"involvedObject.name={name}").items
    assert {event.reason for event in events} >= {"SuccessfulCreate", "Completed"}
