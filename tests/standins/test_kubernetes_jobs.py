"""The Job controller: counters, conditions, back-off, deadline, suspension, TTL, garbage collection."""

from __future__ import annotations

from typing import Any

import pytest

from standins.kubernetes.client import CRONJOB, NAMESPACE
from tests.standins.kubernetes_fixtures import (
    BROKEN,
    SLEEPER,
    STUBBORN,
    Kube,
    conditions,
    kube,
    server,
    unique,
    wait_for,
)

__all__ = ["kube", "server"]


def test_a_complete_job_has_the_real_status(kube: Kube) -> None:
    name = unique("complete")
    kube.make(name)
    status = kube.wait_condition(name, "Complete")["status"]
    assert [row["type"] for row in status["conditions"]] == ["SuccessCriteriaMet", "Complete"]
    assert {row["reason"] for row in status["conditions"]} == {"CompletionsReached"}
    assert (status["succeeded"], status["ready"], status["terminating"]) == (1, 0, 0)
    assert status["uncountedTerminatedPods"] == {}
    assert "active" not in status
    assert "failed" not in status
    assert status["startTime"] <= status["completionTime"]


def test_a_running_job_is_active_and_ready(kube: Kube) -> None:
    name = unique("active")
    kube.make(name, SLEEPER)
    kube.wait_phase(name, "Running")
    wait_for(lambda: (kube.job(name) or {})["status"].get("ready") == 1, "a ready pod")
    job = kube.job(name) or {}
    assert job["status"]["active"] == 1
    assert conditions(job) == {}
    kube.batch.delete_namespaced_job(name, NAMESPACE, propagation_policy="Background")


@pytest.mark.parametrize(("limit", "pods"), [(0, 1), (2, 3)])
def test_a_job_fails_when_its_backoff_limit_is_exceeded(kube: Kube, limit: int, pods: int) -> None:
    name = unique("backoff")
    kube.make(name, BROKEN, backoffLimit=limit)
    status = kube.wait_condition(name, "Failed")["status"]
    assert [row["type"] for row in status["conditions"]] == ["FailureTarget", "Failed"]
    assert {row["reason"] for row in status["conditions"]} == {"BackoffLimitExceeded"}
    assert status["failed"] == pods
    assert "completionTime" not in status
    found = kube.pods(name)
    assert len(found) == pods
    states = [pod["status"]["containerStatuses"][0]["state"]["terminated"] for pod in found]
    assert {state["exitCode"] for state in states} == {3}
    assert kube.log(found[0]) == "boom\n"


def test_completions_are_made_with_limited_parallelism(kube: Kube) -> None:
    name = unique("many")
    kube.make(name, completions=3, parallelism=2)
    status = kube.wait_condition(name, "Complete")["status"]
    assert status["succeeded"] == 3
    assert len(kube.pods(name)) == 3


def test_parallelism_runs_pods_side_by_side(kube: Kube) -> None:
    name = unique("parallel")
    kube.make(name, SLEEPER, completions=3, parallelism=3)
    kube.wait_phase(name, "Running", 3)
    kube.batch.delete_namespaced_job(name, NAMESPACE, propagation_policy="Background")
    kube.wait_gone(name)


def test_parallelism_zero_starts_nothing_until_it_is_raised(kube: Kube) -> None:
    name = unique("zero")
    kube.make(name, parallelism=0)
    wait_for(lambda: "startTime" in (kube.job(name) or {}).get("status", {}), "a started Job")
    assert kube.pods(name) == []
    assert conditions(kube.job(name) or {}) == {}
    kube.batch.patch_namespaced_job(name, NAMESPACE, {"spec": {"parallelism": 1}})
    kube.wait_condition(name, "Complete")


def test_a_suspended_job_waits_for_its_resumption(kube: Kube) -> None:
    name = unique("suspended")
    kube.make(name, suspend=True)
    job = kube.wait_condition(name, "Suspended")
    assert "startTime" not in job["status"]
    assert kube.pods(name) == []
    kube.batch.patch_namespaced_job(name, NAMESPACE, {"spec": {"suspend": False}})
    rows = kube.wait_condition(name, "Complete")["status"]["conditions"]
    assert {"type": "Suspended", "status": "False", "reason": "JobResumed"}.items() <= rows[0].items()


def test_suspending_a_running_job_ends_its_pods_without_a_failure(kube: Kube) -> None:
    name = unique("halt")
    kube.make(name, SLEEPER)
    kube.wait_phase(name, "Running")
    kube.batch.patch_namespaced_job(name, NAMESPACE, {"spec": {"suspend": True}})
    kube.wait_condition(name, "Suspended")
    wait_for(lambda: not kube.pods(name), "no pods")
    job = kube.job(name)
    assert job is not None
    assert "failed" not in job["status"]


def test_a_job_ends_at_its_deadline(kube: Kube) -> None:
    name = unique("deadline")
    kube.make(name, STUBBORN, activeDeadlineSeconds=1)
    status = kube.wait_condition(name, "Failed")["status"]
    assert conditions({"status": status}) == {"FailureTarget": "DeadlineExceeded", "Failed": "DeadlineExceeded"}
    wait_for(lambda: not kube.pods(name), "the pod of the late Job ended")


def test_a_finished_job_goes_with_its_pods_when_its_ttl_is_over(kube: Kube) -> None:
    short, long = unique("ttl"), unique("ttl")
    kube.make(long, ttlSecondsAfterFinished=600)
    kube.wait_condition(long, "Complete")
    kube.make(short, ttlSecondsAfterFinished=0)
    kube.wait_gone(short)
    assert "Complete" in conditions(kube.job(long) or {})
    assert len(kube.pods(long)) == 1


def test_an_image_that_is_not_known_keeps_the_job_active(kube: Kube) -> None:
    name = unique("unknown")
    kube.make(name, "registry.invalid/no-such-image:1")

    def look() -> Any:
        states = [status["state"] for pod in kube.pods(name) for status in pod["status"].get("containerStatuses", [])]
        return states and states[0].get("waiting", {}).get("reason") == "ImagePullBackOff"

    wait_for(look, "ImagePullBackOff")
    job = kube.job(name)
    assert job is not None
    assert job["status"]["active"] == 1
    assert conditions(job) == {}
    kube.batch.delete_namespaced_job(name, NAMESPACE, propagation_policy="Background")
    kube.wait_gone(name)


def test_history_limits_remove_only_jobs_that_the_cronjob_controls(kube: Kube) -> None:
    cronjob = kube.plain(kube.batch.read_namespaced_cron_job(CRONJOB, NAMESPACE))
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": CRONJOB, "uid": cronjob["metadata"]["uid"]}
    names = [unique("history") for _ in range(4)]
    for name, controlled in zip(names, (True, True, False, None), strict=True):
        manifest = kube.manifest(name)
        if controlled is not None:
            manifest["metadata"]["ownerReferences"] = [owner | ({"controller": True} if controlled else {})]
        kube.create(manifest)
        if not controlled:
            kube.wait_condition(name, "Complete")

    def left() -> list[str]:
        return [name for name in names if kube.job(name) is not None]

    assert cronjob["spec"]["successfulJobsHistoryLimit"] == 1
    wait_for(lambda: len(left()) == 3, "one of two controlled Jobs removed")
    assert set(names[2:]) <= set(left())


@pytest.mark.parametrize("image", [SLEEPER, STUBBORN])
def test_a_pod_that_is_deleted_by_hand_is_a_failed_one_and_not_replaced(kube: Kube, image: str) -> None:
    name = unique("evicted")
    kube.make(name, image)
    [pod] = kube.wait_phase(name, "Running")
    kube.core.delete_namespaced_pod(pod["metadata"]["name"], NAMESPACE)
    assert kube.wait_condition(name, "Failed")["status"]["failed"] == 1
    events = kube.core.list_namespaced_event(NAMESPACE, field_selector=f"involvedObject.name={name}").items
    assert [event.reason for event in events].count("SuccessfulCreate") == 1


def test_a_job_made_twice_from_one_manifest_runs_twice(kube: Kube) -> None:
    first, second = unique("again"), unique("again")
    assert kube.make(first)["metadata"]["uid"] != kube.make(second)["metadata"]["uid"]
    kube.wait_condition(first, "Complete")
    kube.wait_condition(second, "Complete")
