"""Every fault does what it says, to the objects that it is for, as often as it is told."""

from __future__ import annotations

from typing import Any

import pytest
import urllib3
from kubernetes.client.rest import ApiException

from standins.kubernetes.client import NAMESPACE
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


def waiting_reason(kube: Kube, name: str) -> str:
    """Why the first container of the Job's first pod waits; empty if it does not."""
    for pod in kube.pods(name):
        for status in pod["status"].get("containerStatuses", []):
            return str(status["state"].get("waiting", {}).get("reason", ""))
    return ""


@pytest.mark.parametrize(("rule", "code"), [({}, 500), ({"status": 504}, 504)])
def test_stored_then_an_error(kube: Kube, rule: Json, code: int) -> None:
    name = unique("stored")
    manifest = kube.manifest(name)
    kube.sandbox.set_faults({"kind": "stored_then_500", "match": {"name": name}, "times": 1, **rule})
    with pytest.raises(ApiException) as error:
        kube.create(manifest)
    assert error.value.status == code
    kube.wait_condition(name, "Complete")
    with pytest.raises(ApiException) as again:
        kube.create(manifest)
    assert again.value.status == 409
    first, second = [row for row in kube.sandbox.mutations("/jobs") if row["name"] == name]
    assert (first["status"], first["faults"]) == (code, ["stored_then_500"])
    assert (second["status"], second["faults"]) == (409, [])


def test_stored_then_the_connection_breaks(kube: Kube) -> None:
    name = unique("cut")
    manifest = kube.manifest(name)
    kube.sandbox.set_faults({"kind": "stored_then_cut", "match": {"labels": {"window": name}}, "times": 1})
    with pytest.raises(urllib3.exceptions.ProtocolError):
        kube.create(manifest)
    kube.wait_condition(name, "Complete")


def test_stored_then_no_answer(kube: Kube) -> None:
    name = unique("hang")
    manifest = kube.manifest(name)
    [number] = kube.sandbox.set_faults({"kind": "stored_then_hang", "match": {"name": name}, "times": 1})
    with pytest.raises(urllib3.exceptions.HTTPError):
        kube.batch.create_namespaced_job(NAMESPACE, manifest, _request_timeout=(1, 0.5))
    kube.wait_condition(name, "Complete")
    kube.sandbox.clear_faults(number)
    [row] = wait_for(lambda: [r for r in kube.sandbox.mutations("/jobs") if r["name"] == name], "the answer is given")
    assert (row["status"], row["faults"]) == (201, ["stored_then_hang"])


def test_a_conflict_with_our_own_job(kube: Kube) -> None:
    name = unique("own")
    manifest = kube.manifest(name)
    rule = {"kind": "stored_then_500", "status": 409, "reason": "AlreadyExists"}
    kube.sandbox.set_faults({**rule, "match": {"name": name}, "times": 1})
    with pytest.raises(ApiException) as error:
        kube.create(manifest)
    assert status_of(error.value)["reason"] == "AlreadyExists"
    job = kube.wait_condition(name, "Complete")
    assert job["metadata"]["labels"] == {"window": name}


@pytest.mark.parametrize(("code", "reason"), [(429, "TooManyRequests"), (503, "ServiceUnavailable")])
def test_errors_come_as_often_as_told_and_change_nothing(kube: Kube, code: int, reason: str) -> None:
    name = unique("busy")
    manifest = kube.manifest(name)
    rule = {"kind": "error", "status": code, "times": 2, "match": {"method": "POST", "name": name}}
    [number] = kube.sandbox.set_faults(rule)
    for _ in range(2):
        answer = urllib3.request(
            "POST",
            f"{kube.sandbox.url}/apis/batch/v1/namespaces/{NAMESPACE}/jobs",
            json=manifest,
            headers={"Authorization": f"Bearer {kube.sandbox.token}"},
            retries=False,
        )
        assert answer.status == code
        assert answer.json()["reason"] == reason
    assert kube.job(name) is None
    kube.create(manifest)
    [row] = [row for row in kube.sandbox.faults() if row["id"] == number]
    assert (row["hits"], row["active"]) == (2, False)


def test_reads_fail_while_the_rule_is_set(kube: Kube) -> None:
    [number] = kube.sandbox.set_faults({"kind": "error", "status": 500, "match": {"method": "GET", "path": "/jobs"}})
    for _ in range(3):
        with pytest.raises(ApiException) as error:
            kube.batch.list_namespaced_job(NAMESPACE)
        assert error.value.status == 500
    kube.sandbox.clear_faults(number)
    kube.batch.list_namespaced_job(NAMESPACE)


def test_unauthorized_until_there_is_a_new_token(kube: Kube) -> None:
    kube.sandbox.set_faults({"kind": "unauthorized"})
    for _ in range(3):
        with pytest.raises(ApiException) as error:
            kube.batch.list_namespaced_job(NAMESPACE)
        assert error.value.status == 401
    kube.sandbox.rotate_token()
    kube.close()
    kube.reconnect()
    kube.batch.list_namespaced_job(NAMESPACE)


def test_a_request_that_hangs(kube: Kube) -> None:
    [number] = kube.sandbox.set_faults({"kind": "hang", "match": {"method": "GET", "path": "/jobs$"}})
    with pytest.raises(urllib3.exceptions.HTTPError):
        kube.batch.list_namespaced_job(NAMESPACE, _request_timeout=(1, 0.2))
    kube.sandbox.wait_for_hits(number, 4)  # the client tries a read three times more
    kube.sandbox.clear_faults(number)
    kube.batch.list_namespaced_job(NAMESPACE)


def test_no_pod_for_a_while(kube: Kube) -> None:
    name = unique("nopod")
    manifest = kube.manifest(name)
    [number] = kube.sandbox.set_faults({"kind": "no_pod", "match": {"name": name}})
    kube.create(manifest)
    kube.sandbox.wait_for_hits(number)
    wait_for(lambda: "startTime" in (kube.job(name) or {}).get("status", {}), "the Job started")
    assert kube.pods(name) == []
    kube.sandbox.clear_faults(number)
    kube.wait_condition(name, "Complete")


def test_no_pod_for_a_number_of_seconds(kube: Kube) -> None:
    name = unique("nopod")
    manifest = kube.manifest(name)
    kube.sandbox.set_faults({"kind": "no_pod", "match": {"name": name}, "seconds": 0.5})
    kube.create(manifest)
    kube.wait_condition(name, "Complete")


def test_an_image_that_cannot_be_pulled_and_then_can(kube: Kube) -> None:
    name = unique("pull")
    manifest = kube.manifest(name)
    [number] = kube.sandbox.set_faults({"kind": "image_pull_backoff", "match": {"name": name}})
    kube.create(manifest)
    wait_for(lambda: waiting_reason(kube, name) == "ErrImagePull", "ErrImagePull")
    wait_for(lambda: waiting_reason(kube, name) == "ImagePullBackOff", "ImagePullBackOff")
    assert conditions(kube.job(name) or {}) == {}
    kube.sandbox.clear_faults(number)
    kube.wait_condition(name, "Complete")


def test_a_pod_list_that_lags_behind(kube: Kube) -> None:
    name = unique("lag")
    kube.make(name)
    kube.wait_condition(name, "Complete")
    kube.sandbox.set_faults({"kind": "empty_pod_list", "match": {"name": name}, "times": 2})
    assert [len(kube.pods(name)) for _ in range(3)] == [0, 0, 1]


def test_a_pod_that_is_gone_before_its_log_is_read(kube: Kube) -> None:
    name = unique("podgone")
    manifest = kube.manifest(name)
    kube.sandbox.set_faults({"kind": "pod_gone", "match": {"name": name}})
    kube.create(manifest)
    kube.wait_condition(name, "Complete")
    wait_for(lambda: not kube.pods(name), "no pod")
    assert "Complete" in conditions(kube.job(name) or {})


def test_a_job_that_is_gone(kube: Kube) -> None:
    name = unique("jobgone")
    manifest = kube.manifest(name, SLEEPER)
    kube.sandbox.set_faults({"kind": "job_gone", "match": {"name": name}})
    created = kube.create(manifest)
    assert created["metadata"]["name"] == name
    kube.wait_gone(name)
    assert not [row for row in kube.sandbox.mutations(f"/jobs/{name}") if row["method"] == "DELETE"]


def test_containers_fail_as_often_as_told_for_jobs_with_this_label(kube: Kube) -> None:
    failing, other = unique("fails"), unique("other")
    match = {"labels": {"customer": failing}}
    kube.sandbox.set_faults(
        {"kind": "fail_container", "match": match, "times": 2, "exit_code": 7, "log": "deadlock detected (40P01)"}
    )
    kube.make(other, labels={"customer": other})
    kube.wait_condition(other, "Complete")
    for attempt, end in ((1, "Failed"), (2, "Failed"), (3, "Complete")):
        kube.make(f"{failing}-{attempt}", labels={"customer": failing})
        kube.wait_condition(f"{failing}-{attempt}", end)
    [pod] = kube.pods(f"{failing}-1")
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7
    assert kube.log(pod) == "deadlock detected (40P01)\n"


def test_a_container_that_hangs(kube: Kube) -> None:
    name = unique("hangs")
    manifest = kube.manifest(name, activeDeadlineSeconds=2)
    kube.sandbox.set_faults({"kind": "hang_container", "match": {"name": name}, "log": "working"})
    kube.create(manifest)
    [pod] = kube.wait_phase(name, "Running")
    wait_for(lambda: kube.log(pod) == "working\n", "the log of the hanging container")
    # The log is written before the program that hangs is started.
    wait_for(lambda: [k for k in kube.sandbox.processes() if k.startswith(pod["metadata"]["uid"])], "its process")
    assert conditions(kube.wait_condition(name, "Failed"))["Failed"] == "DeadlineExceeded"
    wait_for(lambda: not [k for k in kube.sandbox.processes() if k.startswith(pod["metadata"]["uid"])], "no process")


@pytest.mark.parametrize(
    ("patch", "pods"),
    [
        ({"parallelism": 0}, 0),
        ({"parallelism": 3, "completions": 3}, 3),
        ({"suspend": True}, 0),
    ],
)
def test_a_job_that_is_changed_on_its_way_in(kube: Kube, patch: Json, pods: int) -> None:
    name = unique("mutated")
    manifest = kube.manifest(name, SLEEPER)
    kube.sandbox.set_faults({"kind": "mutate", "match": {"name": name}, "patch": {"spec": patch}})
    job = kube.create(manifest)
    assert patch.items() <= job["spec"].items()
    if pods:
        kube.wait_phase(name, "Running", pods)
    else:
        wait_for(lambda: (kube.job(name) or {}).get("status"), "the Job was looked at")
        assert kube.pods(name) == []
    sent: Any = kube.sandbox.mutations("/jobs")[-1]["body"]
    assert sent["spec"].get("parallelism") == 1  # the record shows what the client sent
    kube.batch.delete_namespaced_job(name, NAMESPACE, propagation_policy="Background")
    kube.wait_gone(name)


def test_the_template_of_the_cronjob_can_be_changed(kube: Kube) -> None:
    kube.sandbox.patch_cronjob({"spec": {"jobTemplate": {"spec": {"parallelism": 0}}}})
    try:
        assert kube.template()["parallelism"] == 0
    finally:
        kube.sandbox.patch_cronjob({"spec": {"jobTemplate": {"spec": {"parallelism": 1}}}})
    assert kube.template()["parallelism"] == 1


def test_rules_of_other_jobs_do_not_matter(kube: Kube) -> None:
    name = unique("calm")
    manifest = kube.manifest(name)
    kube.sandbox.set_faults(
        {"kind": "error", "match": {"labels": {"window": "other"}}},
        {"kind": "fail_container", "match": {"name": "other"}},
        {"kind": "no_pod", "match": {"namespace": "other"}},
        {"kind": "error", "for_seconds": 0},
    )
    kube.create(manifest)
    kube.wait_condition(name, "Complete")
    assert [row["hits"] for row in kube.sandbox.faults()] == [0, 0, 0, 0]
