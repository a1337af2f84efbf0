"""The calls that the Kubernetes client makes, word by word: what they ask for, and what is tried again."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from backfill.hooks import kubernetes as module
from backfill.hooks.kubernetes import KubeCallError, KubernetesJobs
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.ownership import ANNOTATION_OWNER, End, Leave, Owner, StaleError
from include.scorecard_backfill.verdicts.jobs import FIELD_MANAGER

Json = dict[str, Any]

CONFIG = ClusterConfig.model_validate(
    {"name": "demo", "kubernetes": {"context": "demo_dev", "namespace": "cron", "cronjob": "reindex-daily"}}
)
JOBS = "/apis/batch/v1/namespaces/cron/jobs"
ME = Owner("manual__1", "windows.reindex", 0, 2, 1)
READ = {"Accept": "application/json", "Content-Type": "application/json"}


def job(owner: Owner | None = ME, version: str = "7") -> Json:
    """A Job with an owner."""
    notes = {ANNOTATION_OWNER: owner.text} if owner else {}
    return {"metadata": {"name": "j-1", "uid": "u-1", "resourceVersion": version, "annotations": notes}}


def refusal(status: int | None) -> KubeCallError:
    """What a call may end with."""
    return KubeCallError(f"no: {status}", status, "Reason", "detail")


class Client(KubernetesJobs):
    """Answers calls one after the other and keeps them: method, path, query, headers, body."""

    def __init__(self, *answers: Any) -> None:
        self.pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            self.pauses.append(seconds)

        super().__init__(CONFIG, {}, sleep)
        self.answers = list(answers)
        self.calls: list[tuple[Any, ...]] = []

    async def _raw(
        self, what: str, method: str, path: str, query: Any, headers: Any, body: Any = None
    ) -> bytes:  # fmt: skip
        assert what
        self.calls.append((method, path, query, headers, copy.deepcopy(body)))
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return json.dumps(found).encode()


def run(client: Client, call: Callable[[Client], Awaitable[Any]]) -> Any:
    """Do one call; every answer must have been asked for."""

    async def ask() -> Any:
        return await call(client)

    found = asyncio.run(ask())
    assert client.answers == []
    return found


@pytest.mark.parametrize(
    ("call", "path", "query"),
    [
        (lambda c: c.jobs("a=b"), JOBS, {"labelSelector": "a=b"}),
        (lambda c: c.pods("a=b"), "/api/v1/namespaces/cron/pods", {"labelSelector": "a=b"}),
        (lambda c: c.events("u-1"), "/api/v1/namespaces/cron/events", {"fieldSelector": "involvedObject.uid=u-1"}),
    ],
)
def test_lists_are_asked_with_their_selector(call: Any, path: str, query: Json) -> None:
    client = Client({"items": [{"kind": "x"}]})
    assert run(client, call) == [{"kind": "x"}]
    assert client.calls == [("GET", path, query, READ, None)]
    assert run(Client({"items": None}), call) == []


def test_the_cronjob_is_read_by_its_name() -> None:
    client = Client({"kind": "CronJob"})
    assert run(client, lambda c: c.cronjob()) == {"kind": "CronJob"}
    assert client.calls == [("GET", "/apis/batch/v1/namespaces/cron/cronjobs/reindex-daily", None, READ, None)]


def test_a_job_that_does_not_exist_is_none_and_any_other_error_is_one() -> None:
    client = Client(job())
    assert run(client, lambda c: c.job("j-1")) == job()
    assert client.calls == [("GET", f"{JOBS}/j-1", None, READ, None)]
    assert run(Client(refusal(404)), lambda c: c.job("j-1")) is None
    for status in (403, 503, None):
        with pytest.raises(KubeCallError, match=f"no: {status}"):
            run(Client(refusal(status)), lambda c: c.job("j-1"))


@pytest.mark.parametrize(("dry_run", "more"), [(False, {}), (True, {"dryRun": "All"})])
def test_a_job_is_created_once_and_strictly(dry_run: bool, more: Json) -> None:
    client = Client(job())
    manifest = {"metadata": {"name": "j-1"}, "spec": {}}
    assert run(client, lambda c: c.create_job(manifest, dry_run=dry_run)) == job()
    query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", **more}
    assert client.calls == [("POST", JOBS, query, READ, manifest)]
    failing = Client(refusal(503))
    with pytest.raises(KubeCallError):
        run(failing, lambda c: c.create_job(manifest, dry_run=dry_run))
    assert len(failing.calls) == 1


def test_by_default_a_job_is_really_created() -> None:
    client = Client(job())
    run(client, lambda c: c.create_job({"metadata": {"name": "j-1"}}))
    assert "dryRun" not in client.calls[0][2]


LATER = Owner("manual__1", "windows.reindex", 0, 3, 0)


def test_a_job_is_adopted_by_a_patch_of_the_version_that_was_read() -> None:
    client = Client(job(), {"patched": True})
    assert run(client, lambda c: c.adopt_job("j-1", LATER)) == {"patched": True}
    patch = {"metadata": {"resourceVersion": "7", "annotations": {ANNOTATION_OWNER: "manual__1/windows.reindex/0/3/2"}}}
    assert client.calls == [
        ("GET", f"{JOBS}/j-1", None, READ, None),
        (
            "PATCH", f"{JOBS}/j-1", {"fieldManager": FIELD_MANAGER},
            {"Accept": "application/json", "Content-Type": "application/merge-patch+json"}, patch,
        ),
    ]  # fmt: skip


def test_a_job_that_is_gone_or_already_ours_is_not_patched() -> None:
    assert run(Client(refusal(404)), lambda c: c.adopt_job("j-1", ME)) is None
    assert run(Client(job(ME)), lambda c: c.adopt_job("j-1", ME)) == job(ME)


def test_a_job_of_a_later_try_is_not_taken() -> None:
    client = Client(job(LATER))
    with pytest.raises(StaleError):
        run(client, lambda c: c.adopt_job("j-1", ME))
    assert client.pauses == []


@pytest.mark.parametrize("status", [409, 503, None])
def test_an_adoption_that_met_another_change_looks_again(status: int | None) -> None:
    client = Client(job(), refusal(status), job(version="8"), {"patched": True})
    assert run(client, lambda c: c.adopt_job("j-1", LATER)) == {"patched": True}
    assert client.calls[-1][-1]["metadata"]["resourceVersion"] == "8"
    assert client.pauses == [module.TRY_PAUSE_SECONDS]


@pytest.mark.parametrize("call", [lambda c: c.adopt_job("j-1", LATER), lambda c: c.end_job("j-1", ME)])
def test_what_passes_is_tried_five_times_and_what_does_not_once(call: Any) -> None:
    client = Client(*[refusal(503)] * 5)
    with pytest.raises(KubeCallError, match="no: 503"):
        run(client, call)
    assert client.pauses == [1.0] * 4
    once = Client(refusal(403))
    with pytest.raises(KubeCallError, match="no: 403"):
        run(once, call)
    assert once.pauses == []


def test_a_job_is_ended_in_the_version_that_was_looked_at() -> None:
    client = Client(job(), {})
    assert isinstance(run(client, lambda c: c.end_job("j-1", ME, "u-1")), End)
    assert client.calls[1] == (
        "DELETE", f"{JOBS}/j-1", None, READ,
        {
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
            "preconditions": {"uid": "u-1", "resourceVersion": "7"},
        },
    )  # fmt: skip


@pytest.mark.parametrize(("mine", "uid"), [(LATER, "u-1"), (None, "u-1"), (ME, "another")])
def test_a_job_of_somebody_else_is_left_alone(mine: Owner | None, uid: str) -> None:
    client = Client(job())
    assert isinstance(run(client, lambda c: c.end_job("j-1", mine, uid)), Leave)
    assert [call[0] for call in client.calls] == ["GET"]


def test_a_job_that_went_meanwhile_is_ended_and_a_conflict_looks_again() -> None:
    assert isinstance(run(Client(job(), refusal(404)), lambda c: c.end_job("j-1", ME)), End)
    client = Client(job(), refusal(409), job(LATER))
    assert isinstance(run(client, lambda c: c.end_job("j-1", ME)), Leave)
    assert client.pauses == [1.0]


@pytest.mark.parametrize(
    ("asked", "attributes"),
    [
        (("create", "batch", "jobs"), {"group": "batch", "resource": "jobs"}),
        (("get", "", "pods", "log"), {"group": "", "resource": "pods", "subresource": "log"}),
        (("get", "batch", "cronjobs"), {"group": "batch", "resource": "cronjobs", "name": "reindex-daily"}),
    ],
)
def test_a_right_is_asked_for_in_the_namespace(asked: tuple[str, ...], attributes: Json) -> None:
    client = Client({"status": {"allowed": True}})
    assert run(client, lambda c: c.allowed(*asked)) is True
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": "cron", "verb": asked[0], **attributes}},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert client.calls == [("POST", path, None, READ, review)]


@pytest.mark.parametrize("answer", [{}, {"status": None}, {"status": {"allowed": False}}, {"status": {"denied": True}}])
def test_a_right_that_is_not_said_to_be_given_is_not(answer: Json) -> None:
    assert run(Client(answer), lambda c: c.allowed("get", "batch", "jobs")) is False


def test_a_worker_reads_its_connection_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": "/etc/kube", "namespace": ""}}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEMO", json.dumps(connection))
    client = KubernetesJobs.for_worker(CONFIG)
    assert client._extra == {"kube_config_path": "/etc/kube"}
    assert client.config is CONFIG.kubernetes
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEMO", json.dumps({"conn_type": "kubernetes", "extra": {}}))
    with pytest.raises(module.KubeConnectionError, match="connection 'kubernetes_demo' names no cluster"):
        KubernetesJobs.for_worker(CONFIG)
