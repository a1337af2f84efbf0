"""The points of the API on which the package relies, the same for the stand-in and for a real API server.

``SANDBOX_KUBERNETES=real`` runs them (and every other test of a Kubernetes server) against a real control plane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes import client as sync_client
from kubernetes import config as sync_config
from kubernetes.client.rest import ApiException

from standins.kubernetes.client import NAMESPACE, is_real
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

OTHER_UID = "00000000-0000-0000-0000-000000000000"


def refusal(call: Callable[[], Any]) -> Json:
    """The Status of a call that must be refused."""
    with pytest.raises(ApiException) as error:
        call()
    return status_of(error.value)


def delete(kube: Kube, name: str, **preconditions: str) -> Any:
    """Delete a Job in the background, under preconditions."""
    options = sync_client.V1DeleteOptions(preconditions=preconditions or None, propagation_policy="Background")
    return kube.batch.delete_namespaced_job(name, NAMESPACE, body=options)


def patch(kube: Kube, name: str, metadata: Json) -> Json:
    """Merge a patch into a Job's metadata, as the package claims a Job."""
    changed = kube.batch.patch_namespaced_job(
        name, NAMESPACE, {"metadata": metadata}, _content_type="application/merge-patch+json"
    )
    return kube.plain(changed)


@pytest.fixture
def idle(kube: Kube) -> Iterator[Json]:
    """A Job that starts nothing."""
    name = unique("idle")
    yield kube.make(name, parallelism=0)
    if kube.job(name) is not None:
        delete(kube, name)


# Deletion with preconditions


def test_a_deletion_needs_the_uid_that_it_names(kube: Kube, idle: Json) -> None:
    name, uid = idle["metadata"]["name"], idle["metadata"]["uid"]
    status = refusal(lambda: delete(kube, name, uid=OTHER_UID))
    assert (status["code"], status["reason"]) == (409, "Conflict")
    assert f"the UID in the precondition ({OTHER_UID}) does not match the UID in record ({uid})" in status["message"]
    assert status["details"] == {"name": name, "group": "batch", "kind": "Job"}
    assert kube.job(name) is not None
    delete(kube, name, uid=uid)
    kube.wait_gone(name)


def test_a_deletion_needs_the_version_that_it_names(kube: Kube, idle: Json) -> None:
    name = idle["metadata"]["name"]
    new = patch(kube, name, {"annotations": {"owner": "b"}})["metadata"]
    old = idle["metadata"]["resourceVersion"]
    status = refusal(lambda: delete(kube, name, uid=new["uid"], resourceVersion=old))
    assert (status["code"], status["reason"]) == (409, "Conflict")
    assert f"the ResourceVersion in the precondition ({old}) does not match" in status["message"]
    assert kube.job(name) is not None
    current = kube.job(name) or {}
    delete(kube, name, uid=new["uid"], resourceVersion=current["metadata"]["resourceVersion"])
    kube.wait_gone(name)


# Merge patch as compare-and-set


def test_a_patch_with_the_current_version_is_stored(kube: Kube, idle: Json) -> None:
    name = idle["metadata"]["name"]
    version = (kube.job(name) or {})["metadata"]["resourceVersion"]
    changed = patch(kube, name, {"resourceVersion": version, "annotations": {"owner": "a"}})
    assert changed["metadata"]["annotations"]["owner"] == "a"
    assert changed["metadata"]["resourceVersion"] != version
    assert changed["metadata"]["uid"] == idle["metadata"]["uid"]


def test_a_patch_with_an_older_version_is_a_conflict(kube: Kube, idle: Json) -> None:
    name = idle["metadata"]["name"]
    version = patch(kube, name, {"annotations": {"owner": "a"}})["metadata"]["resourceVersion"]
    patch(kube, name, {"annotations": {"owner": "b"}})
    status = refusal(lambda: patch(kube, name, {"resourceVersion": version, "annotations": {"owner": "c"}}))
    assert (status["code"], status["reason"]) == (409, "Conflict")
    assert "please apply your changes to the latest version" in status["message"]
    assert (kube.job(name) or {})["metadata"]["annotations"]["owner"] == "b"


def test_a_patch_for_another_uid_is_invalid(kube: Kube, idle: Json) -> None:
    status = refusal(lambda: patch(kube, idle["metadata"]["name"], {"uid": OTHER_UID, "annotations": {"owner": "c"}}))
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert "metadata.uid" in {cause["field"] for cause in status["details"]["causes"]}
    assert "field is immutable" in status["message"]


def test_a_patch_that_changes_nothing_keeps_the_version(kube: Kube, idle: Json) -> None:
    name = idle["metadata"]["name"]
    first = patch(kube, name, {"annotations": {"owner": "a"}})["metadata"]["resourceVersion"]
    assert patch(kube, name, {"annotations": {"owner": "a"}})["metadata"]["resourceVersion"] == first


def test_null_in_a_patch_takes_a_label_away(kube: Kube, idle: Json) -> None:
    name = idle["metadata"]["name"]
    assert "window" not in (patch(kube, name, {"labels": {"window": None, "kept": "yes"}})["metadata"]["labels"])
    found = kube.batch.list_namespaced_job(NAMESPACE, label_selector=f"window={name}").items
    assert found == []


# Dry run


def test_a_dry_run_stores_nothing(kube: Kube) -> None:
    other = unique("dry")
    made = kube.plain(kube.batch.create_namespaced_job(NAMESPACE, kube.manifest(other), dry_run="All"))
    assert made["metadata"]["uid"]
    assert made["spec"]["selector"]["matchLabels"]
    assert kube.job(other) is None


def test_a_dry_run_of_a_bad_job_is_refused_like_the_job(kube: Kube) -> None:
    manifest = kube.manifest(unique("dry"), parallelism=-1)
    dry = refusal(lambda: kube.batch.create_namespaced_job(NAMESPACE, manifest, dry_run="All"))
    assert dry == refusal(lambda: kube.create(manifest))
    assert dry["code"] == 422


# Selectors


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("set={0},size=big", {"one"}),
        ("set={0},size!=big", {"two", "three"}),
        ("set={0},size", {"one", "two"}),
        ("set={0},!size", {"three"}),
        ("set={0}", {"one", "two", "three"}),
        ("set={0},size=huge", set()),
    ],
)
def test_label_selectors_choose_jobs(kube: Kube, trio: str, selector: str, found: set[str]) -> None:
    items = kube.batch.list_namespaced_job(NAMESPACE, label_selector=selector.format(trio)).items
    assert {item.metadata.labels["word"] for item in items} == found


@pytest.fixture(scope="module")
def trio(server: Kube) -> Iterator[str]:
    """Three Jobs that start nothing, with labels; gives the value of their label ``set``."""
    group = unique("trio")
    for word, more in (("one", {"size": "big"}), ("two", {"size": "small"}), ("three", {})):
        server.make(f"{group}-{word}", labels={"set": group, "word": word, **more}, parallelism=0)
    yield group
    for word in ("one", "two", "three"):
        delete(server, f"{group}-{word}")


def test_field_selectors_choose_by_name(kube: Kube, idle: Json) -> None:
    name = idle["metadata"]["name"]
    items = kube.batch.list_namespaced_job(NAMESPACE, field_selector=f"metadata.name={name}").items
    assert [item.metadata.name for item in items] == [name]


# A Job's life


def test_the_pods_of_a_job_carry_its_labels_and_name_their_owner(kube: Kube) -> None:
    name = unique("owned")
    job = kube.make(name)
    kube.wait_condition(name, "Complete")
    [pod] = kube.pods(name)
    meta, uid = pod["metadata"], job["metadata"]["uid"]
    for key, value in (("job-name", name), ("controller-uid", uid)):
        assert meta["labels"][key] == meta["labels"][f"batch.kubernetes.io/{key}"] == value
    [owner] = meta["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("Job", name, uid, True)
    assert meta["generateName"] == f"{name}-"
    assert pod["spec"]["restartPolicy"] == "Never"


def test_a_deletion_in_the_background_takes_the_pods_along(kube: Kube) -> None:
    name = unique("background")
    kube.make(name, SLEEPER)
    kube.wait_phase(name, "Running")
    delete(kube, name)
    kube.wait_gone(name)


def test_a_suspended_job_can_be_deleted(kube: Kube) -> None:
    name = unique("held")
    kube.make(name, suspend=True)
    kube.wait_condition(name, "Suspended")
    delete(kube, name)
    kube.wait_gone(name)


def test_the_deadline_of_a_suspended_job_does_not_run(kube: Kube) -> None:
    name = unique("held")
    kube.make(name, suspend=True, activeDeadlineSeconds=1)
    kube.wait_condition(name, "Suspended")
    kube.batch.patch_namespaced_job(name, NAMESPACE, {"spec": {"suspend": False, "activeDeadlineSeconds": 60}})
    kube.wait_condition(name, "Complete")


# Admission: webhooks and quotas


def test_a_webhook_may_suspend_a_job(kube: Kube) -> None:
    name = unique("webhook")
    kube.sandbox.set_faults({"kind": "mutate", "match": {"name": name}, "patch": {"spec": {"suspend": True}}})
    assert kube.make(name)["spec"]["suspend"] is True
    kube.wait_condition(name, "Suspended")
    assert kube.pods(name) == []
    assert kube.sandbox.mutations(f"/namespaces/{NAMESPACE}/jobs")[-1]["body"]["spec"].get("suspend") is None
    kube.batch.patch_namespaced_job(name, NAMESPACE, {"spec": {"suspend": False}})
    kube.wait_condition(name, "Complete")


@pytest.fixture
def quota(kube: Kube) -> Iterator[Callable[[Json], str]]:
    """Set a quota in force, as the cluster's administrator does; removed after the test."""
    if not is_real():
        pytest.skip("the stand-in has no quotas; SANDBOX_KUBERNETES=real has them")
    administrator = str(kube.sandbox.folder / "data" / "administrator.yaml")
    core = sync_client.CoreV1Api(sync_config.new_client_from_config(administrator))
    names: list[str] = []

    def make(hard: Json) -> str:
        name = unique("quota")
        body = {"metadata": {"name": name}, "spec": {"hard": hard}}
        core.create_namespaced_resource_quota(NAMESPACE, body)
        names.append(name)

        def counted() -> bool:
            found = kube.plain(core.read_namespaced_resource_quota(name, NAMESPACE))
            return set(found.get("status", {}).get("used") or {}) == set(hard)

        wait_for(counted, f"quota {name} counted")
        return name

    yield make
    for name in names:
        core.delete_namespaced_resource_quota(name, NAMESPACE)


def test_a_quota_on_jobs_refuses_one_too_many(kube: Kube, quota: Callable[[Json], str]) -> None:
    name = unique("over")
    set_by = quota({"count/jobs.batch": "0"})
    status = refusal(lambda: kube.make(name))
    assert (status["code"], status["reason"]) == (403, "Forbidden")
    assert (
        f'jobs.batch "{name}" is forbidden: exceeded quota: {set_by}, requested: count/jobs.batch=1'
        in (status["message"])
    )
    assert kube.job(name) is None


def test_a_quota_on_pods_keeps_a_job_without_pods(kube: Kube, quota: Callable[[Json], str]) -> None:
    name = unique("starved")
    set_by = quota({"count/pods": "0"})
    kube.make(name)

    def told() -> str | None:
        events = kube.core.list_namespaced_event(NAMESPACE, field_selector=f"involvedObject.name={name}").items
        return next((event.message for event in events if event.reason == "FailedCreate"), None)

    text = wait_for(told, "the Event FailedCreate")
    assert text.startswith("Error creating: pods ")
    assert f"exceeded quota: {set_by}, requested: count/pods=1" in text
    assert kube.pods(name) == []
    assert conditions(kube.job(name) or {}) == {}
    delete(kube, name)
