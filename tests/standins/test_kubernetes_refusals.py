"""What the server refuses, with the status, reason and text of a real one; tokens and rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client as sync_client
from kubernetes.client.rest import ApiException

from standins.kubernetes.client import NAMESPACE, SandboxError, is_real
from tests.standins.kubernetes_fixtures import (
    SLEEPER,
    Json,
    Kube,
    conditions,
    kube,
    server,
    status_of,
    unique,
    wait_for,
)

__all__ = ["kube", "server"]


def refused(code: int, call: Callable[[], Any]) -> Json:
    """The Status of a call that must be refused with this code."""
    with pytest.raises(ApiException) as error:
        call()
    status = status_of(error.value)
    assert (error.value.status, status["code"]) == (code, code), status
    return status


def test_a_name_that_is_taken_is_a_conflict(kube: Kube) -> None:
    name = unique("twice")
    job = kube.make(name, SLEEPER)
    status = refused(409, lambda: kube.make(name))
    assert status["reason"] == "AlreadyExists"
    assert status["message"] == f'jobs.batch "{name}" already exists'
    assert status["details"] == {"name": name, "group": "batch", "kind": "jobs"}
    kept = kube.job(name)
    assert kept is not None
    assert kept["metadata"]["uid"] == job["metadata"]["uid"]
    kube.batch.delete_namespaced_job(name, NAMESPACE, propagation_policy="Background")


@pytest.mark.parametrize("verb", ["read", "delete", "patch"])
def test_a_job_that_does_not_exist_is_not_found(kube: Kube, verb: str) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "read": lambda: kube.batch.read_namespaced_job("nobody", NAMESPACE),
        "delete": lambda: kube.batch.delete_namespaced_job("nobody", NAMESPACE, propagation_policy="Background"),
        "patch": lambda: kube.batch.patch_namespaced_job("nobody", NAMESPACE, {"spec": {"suspend": True}}),
    }
    status = refused(404, calls[verb])
    assert (status["reason"], status["message"]) == ("NotFound", 'jobs.batch "nobody" not found')


def test_a_namespace_that_does_not_exist_is_not_found(kube: Kube) -> None:
    manifest = kube.manifest(unique("where"))
    status = refused(404, lambda: kube.batch.create_namespaced_job("nowhere", manifest))
    assert status["message"] == 'namespaces "nowhere" not found'


def _set(*path: str | int, value: object) -> Callable[[Json], None]:
    def change(manifest: Json) -> None:
        place: Any = manifest
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value

    return change


CONTAINER = ("spec", "template", "spec", "containers", 0)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_set("metadata", "name", value="Not_Valid"), "metadata.name"),
        (_set("metadata", "name", value="a" * 64), "spec.template.labels"),
        (_set("metadata", "labels", "k", value="has space"), "metadata.labels"),
        (_set("metadata", "labels", "k", value="v" * 64), "metadata.labels"),
        (_set("metadata", "labels", "run", value="manual__2026-03-01T00:00:00+00:00"), "metadata.labels"),
        (_set("spec", "parallelism", value=-1), "spec.parallelism"),
        (_set("spec", "ttlSecondsAfterFinished", value=-1), "spec.ttlSecondsAfterFinished"),
        (_set("spec", "template", "spec", "restartPolicy", value="Always"), "spec.template.spec.restartPolicy"),
        (_set("spec", "template", "spec", "containers", value=[]), "spec.template.spec.containers"),
        (_set(*CONTAINER, "name", value="Upper"), "spec.template.spec.containers[0].name"),
        (_set("spec", "selector", value={"matchLabels": {"a": "b"}}), "spec.selector"),
    ],
)
def test_an_invalid_job_is_refused_and_not_stored(kube: Kube, change: Callable[[Json], None], field: str) -> None:
    manifest = kube.manifest(unique("invalid"))
    change(manifest)
    before = len(kube.batch.list_namespaced_job(NAMESPACE).items)
    status = refused(422, lambda: kube.create(manifest))
    assert status["reason"] == "Invalid"
    assert field in {cause["field"] for cause in status["details"]["causes"]}
    assert f'Job.batch "{manifest["metadata"]["name"]}" is invalid' in status["message"]
    assert len(kube.batch.list_namespaced_job(NAMESPACE).items) == before


def test_the_longest_name_is_taken(kube: Kube) -> None:
    name = unique("x" * 55).ljust(63, "y")
    job = kube.make(name, parallelism=0)
    assert len(job["metadata"]["name"]) == 63


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_set("spec", "backofLimit", value=1), "backofLimit"),
        (_set("spec", "parallelism", value="two"), "parallelism"),
        (_set("apiVersion", value="batch/v2"), 'no kind "Job" is registered for version "batch/v2"'),
        (_set("metadata", "namespace", value="default"), "namespace of the provided object"),
    ],
)
def test_a_job_that_cannot_be_read_is_a_bad_request(kube: Kube, change: Callable[[Json], None], text: str) -> None:
    manifest = kube.manifest(unique("bad"))
    change(manifest)
    # Said also by a client that wants to be sure: a real server only warns of an unknown field by default.
    strict = {"field_validation": "Strict"}
    assert text in refused(400, lambda: kube.batch.create_namespaced_job(NAMESPACE, manifest, **strict))["message"]


def test_the_template_of_a_job_cannot_be_changed(kube: Kube) -> None:
    name = unique("fixed")
    kube.make(name, parallelism=0)
    patch = {"spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}}
    status = refused(422, lambda: kube.batch.patch_namespaced_job(name, NAMESPACE, patch))
    assert "field is immutable" in status["message"]


def test_a_deletion_of_another_uid_is_a_conflict(kube: Kube) -> None:
    name = unique("uid")
    kube.make(name, parallelism=0)
    options = sync_client.V1DeleteOptions(preconditions={"uid": "00000000-0000-0000-0000-000000000000"})
    refused(409, lambda: kube.batch.delete_namespaced_job(name, NAMESPACE, body=options))
    assert kube.job(name) is not None


def test_bad_arguments_are_refused(kube: Kube) -> None:
    refused(422, lambda: kube.batch.delete_namespaced_job("any", NAMESPACE, propagation_policy="Backgroundd")
            if kube.make("any", parallelism=0) else None)  # fmt: skip
    refused(400, lambda: kube.batch.list_namespaced_job(NAMESPACE, label_selector="a in (b"))
    refused(400, lambda: kube.core.list_namespaced_pod(NAMESPACE, field_selector="spec.nobody=1"))


@pytest.mark.parametrize("policy", [None, "Orphan"])
def test_a_deletion_that_would_leave_pods_behind_is_refused(kube: Kube, policy: str | None) -> None:
    if is_real():
        pytest.skip("a real API server does it, and says so in a Warning header; no client here wants it")
    name = unique("orphan")
    kube.make(name, parallelism=0)
    more = {"propagation_policy": policy} if policy else {}
    status = refused(422, lambda: kube.batch.delete_namespaced_job(name, NAMESPACE, **more))
    assert "the sandbox orphans no pods" in status["message"]
    assert kube.job(name) is not None


def test_a_wrong_token_is_unauthorized_until_it_is_read_again(kube: Kube) -> None:
    kube.sandbox.rotate_token()

    def old_is_refused() -> Json | None:
        try:
            kube.batch.list_namespaced_job(NAMESPACE)
        except ApiException as error:
            return status_of(error)
        return None  # a real server keeps what it found out about a token for up to 10 s

    status = wait_for(old_is_refused, "the old token refused")
    assert (status["code"], status["reason"]) == (401, "Unauthorized")
    refused(401, lambda: kube.batch.read_namespaced_job("nobody", NAMESPACE))
    kube.close()
    kube.reconnect()
    assert kube.template()


def test_a_right_that_is_missing_is_forbidden_and_told_in_advance(kube: Kube) -> None:
    def allowed(verb: str, group: str, resource: str, subresource: str = "") -> bool:
        asked = {"namespace": NAMESPACE, "verb": verb, "group": group, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked | ({"subresource": subresource} if subresource else {})},
        }
        answer = sync_client.AuthorizationV1Api(kube.api).create_self_subject_access_review(review)
        return bool(answer.status.allowed)

    manifest = kube.manifest(unique("forbidden"))
    assert allowed("create", "batch", "jobs")
    kube.sandbox.deny({"verbs": ["create"], "resources": ["jobs"]}, {"resources": ["pods/log"]})
    assert not allowed("create", "batch", "jobs")
    assert not allowed("get", "", "pods", "log")
    assert allowed("get", "", "pods")
    status = refused(403, lambda: kube.create(manifest))
    assert status["reason"] == "Forbidden"
    assert 'cannot create resource "jobs" in API group "batch" in the namespace "cresta-cron"' in status["message"]
    kube.sandbox.deny()
    kube.create(manifest)


def test_the_admin_endpoints_refuse_nonsense(kube: Kube) -> None:
    for rule in (
        {"kind": "nothing"},
        {"kind": "error", "tims": 1},
        {"kind": "error", "status": 200},
        {"kind": "mutate"},
        {"kind": "error", "match": {"name": "("}},
        {"kind": "no_pod", "match": {"path": "/jobs"}},
    ):
        with pytest.raises(SandboxError, match="refused with 400"):
            kube.sandbox.set_faults(rule)
    with pytest.raises(SandboxError, match="refused with 400"):
        kube.sandbox.deny({"verb": ["get"]})
    assert kube.sandbox.faults() == []


def test_a_log_that_does_not_exist_yet_is_a_bad_request(kube: Kube) -> None:
    name = unique("nolog")
    kube.sandbox.set_faults({"kind": "image_pull_backoff", "match": {"name": name}})
    kube.make(name)
    [pod] = kube.wait_phase(name, "Pending")
    status = refused(400, lambda: kube.log(pod))
    assert "is waiting to start" in status["message"]
    assert conditions(kube.job(name) or {}) == {}
