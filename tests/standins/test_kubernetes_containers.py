"""Pods of more than one container, and what an admission webhook puts into a pod or Job."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.client.rest import ApiException

from standins.kubernetes.client import CRONJOB, NAMESPACE, is_real
from tests.standins.kubernetes_fixtures import (
    IMAGE,
    SLEEPER,
    Json,
    Kube,
    conditions,
    kube,
    server,
    unique,
    wait_for,
)

__all__ = ["kube", "server"]


def container(name: str, image: str) -> Json:
    return {"name": name, "image": image}


def make(kube: Kube, name: str, *containers: Json, **spec: Any) -> None:
    manifest = kube.manifest(name, **spec)
    manifest["spec"]["template"]["spec"]["containers"] = list(containers)
    kube.create(manifest)


def states(pod: Json) -> dict[str, Json]:
    return {row["name"]: row["state"] for row in pod["status"].get("containerStatuses", [])}


def test_a_plain_sidecar_that_never_ends_keeps_the_pod_running_until_the_deadline(kube: Kube) -> None:
    name = unique("sidecar")
    make(kube, name, container("proxy", SLEEPER), container("main", IMAGE), activeDeadlineSeconds=2)
    seen: list[dict[str, Json]] = []

    def main_has_ended() -> bool:
        seen.extend(states(pod) for pod in kube.pods(name) if pod["status"].get("containerStatuses"))
        return any("terminated" in row["main"] and "running" in row["proxy"] for row in seen)

    wait_for(main_has_ended, "the main container has ended and the sidecar runs on")
    assert conditions(kube.wait_condition(name, "Failed"))["Failed"] == "DeadlineExceeded"


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


def test_names_of_all_containers_differ(kube: Kube) -> None:
    with pytest.raises(ApiException) as refused:
        make(kube, unique("refused"), container("main", IMAGE), container("main", IMAGE))
    assert refused.value.status == 422


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("restartPolicy", "OnFailure"),
        ("initContainers", [{"name": "init", "image": IMAGE}]),
        ("containers", [{"name": "main", "image": IMAGE, "restartPolicy": "Never"}]),
    ],
)
def test_what_the_node_cannot_run_is_refused(kube: Kube, place: str, value: Any) -> None:
    if is_real():
        pytest.skip("a real API server takes it; the node says CreateContainerConfigError then")
    manifest = kube.manifest(unique("refused"))
    manifest["spec"]["template"]["spec"][place] = value
    with pytest.raises(ApiException, match="the sandbox does not simulate this field"):
        kube.create(manifest)


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
