"""Pods of more than one container: init containers, sidecars, and what an admission webhook puts into a pod or Job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client.rest import ApiException

from standins.kubernetes.client import CRONJOB, NAMESPACE
from tests.standins.kubernetes_fixtures import (
    BROKEN,
    IMAGE,
    IMAGES,
    SLEEPER,
    Json,
    Kube,
    conditions,
    kube,
    kube_in,
    status_of,
    unique,
    wait_for,
)

__all__ = ["kube"]

WRITES = "registry.invalid/writes:1"
READS = "registry.invalid/reads:1"
PROXY = "registry.invalid/proxy:1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A server with programs that see whether another one has run before them."""
    folder: Path = tmp_path_factory.mktemp("kubernetes")
    mark = 'echo "${MARK}" >> ' + str(folder / "marks-$JOB")
    images = {
        **IMAGES,
        WRITES: ["sh", "-c", f"{mark}; echo init-$MARK"],
        READS: ["sh", "-c", f"cat {folder}/marks-$JOB; exit ${{CODE:-0}}"],
        PROXY: ["sh", "-c", f"{mark}; echo proxy; exec sleep 300"],
    }
    with kube_in(folder, images=images) as running:
        yield running


def container(name: str, image: str, **env: str) -> Json:
    return {"name": name, "image": image, "env": [{"name": key, "value": value} for key, value in env.items()]}


def make(kube: Kube, name: str, *main: Json, init: tuple[Json, ...] = (), **spec: Any) -> None:
    manifest = kube.manifest(name, **spec)
    manifest["spec"]["template"]["spec"] |= {"containers": list(main), "initContainers": list(init)}
    kube.create(manifest)


def states(pod: Json) -> dict[str, Json]:
    status = pod["status"]
    rows = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return {row["name"]: row["state"] for row in rows}


def test_init_containers_run_in_order_before_the_main_one(kube: Kube) -> None:
    name = unique("init")
    first, second = (container(f"init-{mark}", WRITES, JOB=name, MARK=mark) for mark in "ab")
    make(kube, name, container("main", READS, JOB=name), init=(first, second))
    kube.wait_condition(name, "Complete")
    [pod] = kube.pods(name)
    assert kube.log(pod, container="main") == "a\nb\n"
    assert kube.log(pod, container="init-b") == "init-b\n"
    assert kube.log(pod) == "a\nb\n"
    assert [row["name"] for row in pod["status"]["initContainerStatuses"]] == ["init-a", "init-b"]
    assert {row["terminated"]["exitCode"] for row in states(pod).values()} == {0}


def test_an_init_container_that_fails_fails_the_pod_and_nothing_else_runs(kube: Kube) -> None:
    name = unique("init")
    make(kube, name, container("main", READS, JOB=name), init=(container("init", BROKEN),))
    job = kube.wait_condition(name, "Failed")
    assert conditions(job)["Failed"] == "BackoffLimitExceeded"
    [pod] = kube.pods(name)
    assert pod["status"]["phase"] == "Failed"
    assert states(pod)["init"]["terminated"]["exitCode"] == 3
    assert states(pod)["main"]["waiting"]["reason"] == "PodInitializing"
    with pytest.raises(ApiException, match="PodInitializing"):
        kube.log(pod, container="main")


def test_while_an_init_container_runs_the_pod_is_pending(kube: Kube) -> None:
    name = unique("init")
    make(kube, name, container("main", IMAGE), init=(container("init", SLEEPER),))

    def initialising() -> Json | None:
        found = kube.pods(name)
        return found[0] if found and "running" in states(found[0]).get("init", {}) else None

    pod = wait_for(initialising, "the init container runs")
    assert pod["status"]["phase"] == "Pending"
    assert {row["type"]: row["status"] for row in pod["status"]["conditions"]}["Initialized"] == "False"


@pytest.mark.parametrize(("code", "condition", "phase"), [("0", "Complete", "Succeeded"), ("3", "Failed", "Failed")])
def test_a_native_sidecar_ends_with_the_main_container(kube: Kube, code: str, condition: str, phase: str) -> None:
    name = unique("sidecar")
    sidecar = container("proxy", PROXY, JOB=name, MARK="proxy") | {"restartPolicy": "Always"}
    init = container("init", WRITES, JOB=name, MARK="init")
    make(kube, name, container("main", READS, JOB=name, CODE=code), init=(sidecar, init))
    kube.wait_condition(name, condition)
    [pod] = kube.pods(name)
    assert pod["status"]["phase"] == phase
    assert kube.log(pod, container="main").splitlines()[-1] == "init"
    assert states(pod)["proxy"]["terminated"]["exitCode"] != 0
    assert not any(key.startswith(pod["metadata"]["uid"]) for key in kube.sandbox.processes())


def test_a_plain_sidecar_that_never_ends_keeps_the_pod_running_until_the_deadline(kube: Kube) -> None:
    name = unique("sidecar")
    proxy = container("proxy", PROXY, JOB=name, MARK="proxy")
    make(kube, name, proxy, container("main", IMAGE), activeDeadlineSeconds=2)
    seen: list[dict[str, Json]] = []

    def main_has_ended() -> bool:
        seen.extend(states(pod) for pod in kube.pods(name) if pod["status"].get("containerStatuses"))
        return any("terminated" in row["main"] and "running" in row["proxy"] for row in seen)

    wait_for(main_has_ended, "the main container has ended and the sidecar runs on")
    assert conditions(kube.wait_condition(name, "Failed"))["Failed"] == "DeadlineExceeded"


@pytest.mark.parametrize("native", [False, True])
def test_a_webhook_injects_a_sidecar_in_front(kube: Kube, native: bool) -> None:
    name = unique("inject")
    proxy = container("istio-proxy", PROXY, JOB=name, MARK="p") | ({"restartPolicy": "Always"} if native else {})
    kube.sandbox.set_faults({"kind": "inject_container", "match": {"name": name}, "inject": proxy})
    make(kube, name, container("main", SLEEPER))
    [pod] = kube.wait_phase(name, "Running")
    place = "initContainers" if native else "containers"
    assert pod["spec"][place][0]["name"] == "istio-proxy"
    assert pod["spec"]["containers"][-1]["name"] == "main"
    job = kube.job(name)
    assert job is not None
    assert [c["name"] for c in job["spec"]["template"]["spec"]["containers"]] == ["main"]


def test_a_fault_may_be_meant_for_one_container(kube: Kube) -> None:
    name = unique("inject")
    kube.sandbox.set_faults(
        {"kind": "inject_container", "match": {"name": name}, "inject": container("proxy", IMAGE)},
        {"kind": "fail_container", "match": {"name": name}, "container": "main", "exit_code": 7, "log": "it broke"},
    )
    make(kube, name, container("main", SLEEPER))
    kube.wait_condition(name, "Failed")
    [pod] = kube.pods(name)
    assert states(pod)["proxy"]["terminated"]["exitCode"] == 0
    assert states(pod)["main"]["terminated"]["exitCode"] == 7
    assert kube.log(pod, container="main") == "it broke\n"


def test_a_queue_makes_a_job_suspended(kube: Kube) -> None:
    name = unique("queue")
    labels = {"kueue.x-k8s.io/queue-name": "batch"}
    patch = {"metadata": {"labels": labels}, "spec": {"suspend": True}}
    kube.sandbox.set_faults({"kind": "mutate", "match": {"name": name}, "patch": patch})
    kube.make(name)
    job = kube.wait_condition(name, "Suspended")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "batch"
    assert kube.pods(name) == []
    kube.batch.patch_namespaced_job(name, NAMESPACE, {"spec": {"suspend": False}})
    kube.wait_condition(name, "Complete")


def test_a_quota_refuses_a_job(kube: Kube) -> None:
    name = unique("quota")
    kube.sandbox.set_faults({"kind": "quota", "match": {"name": name}, "times": 1})
    with pytest.raises(ApiException) as refused:
        kube.make(name)
    assert refused.value.status == 403
    status = status_of(refused.value)
    assert status["reason"] == "Forbidden"
    assert f'jobs.batch "{name}" is forbidden: exceeded quota' in status["message"]
    kube.make(name)


@pytest.mark.parametrize(
    "spec",
    [
        {"completions": 3, "parallelism": 2},
        {"completions": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1, "maxFailedIndexes": 1},
        {"podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}},
        {"suspend": True},
    ],
)
def test_a_stored_template_may_hold_what_no_job_of_ours_may(kube: Kube, spec: Json) -> None:
    clear = dict.fromkeys(spec)
    kube.sandbox.patch_cronjob({"spec": {"jobTemplate": {"spec": spec}}})
    try:
        stored = kube.plain(kube.batch.read_namespaced_cron_job(CRONJOB, NAMESPACE))["spec"]["jobTemplate"]["spec"]
        assert {key: stored[key] for key in spec if key != "podFailurePolicy"}.items() <= spec.items()
        assert set(spec) <= set(stored)
    finally:
        kube.sandbox.patch_cronjob({"spec": {"jobTemplate": {"spec": clear}}})


def test_names_of_all_containers_differ_and_restart_policies_are_known_words(kube: Kube) -> None:
    for init in (container("main", IMAGE), container("other", IMAGE) | {"restartPolicy": "Sometimes"}):
        with pytest.raises(ApiException) as refused:
            make(kube, unique("refused"), container("main", IMAGE), init=(init,))
        assert refused.value.status == 422


def test_a_job_is_deleted_only_in_the_version_that_was_seen(kube: Kube) -> None:
    name = unique("version")
    seen = kube.make(name, SLEEPER)["metadata"]
    kube.batch.patch_namespaced_job(name, NAMESPACE, {"metadata": {"annotations": {"owner": "second"}}})
    options = {"preconditions": {"uid": seen["uid"], "resourceVersion": seen["resourceVersion"]}}
    with pytest.raises(ApiException) as refused:
        kube.batch.delete_namespaced_job(name, NAMESPACE, body=options, propagation_policy="Background")
    assert refused.value.status == 409
    job = kube.job(name)
    assert job is not None
    patch = {"metadata": {"resourceVersion": seen["resourceVersion"], "annotations": {"owner": "third"}}}
    with pytest.raises(ApiException) as stale:
        kube.batch.patch_namespaced_job(name, NAMESPACE, patch)
    assert stale.value.status == 409
