"""Known faults of calls to a Kubernetes API: the wrong cluster, rights, outages, and what a killed task leaves."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from kubernetes.config import incluster_config

from backfill import settings
from backfill.hooks import kubernetes as hooks
from backfill.kit.stages import StageError
from backfill.operators import preflight
from backfill.operators.checks.kubernetes import kubernetes
from backfill.operators.preflight import PreflightOperator
from backfill.operators.reindex import ReindexOperator
from backfill.triggers.job import JobTrigger
from standins.kubernetes.client import NAMESPACE
from tests.sandbox.faults_kubernetes_fixtures import (
    CONNECTION,
    cancelled,
    connect,
    two_contexts,
    wait_running,
    window_jobs,
    wrong_cluster,
)
from tests.sandbox.test_faults_kubernetes import NAME, Scene, event_of, scene, states_are
from tests.standins.kubernetes_fixtures import kube, server

__all__ = ["kube", "scene", "server"]

Json = dict[str, Any]


@pytest.fixture
def wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The cluster in which Airflow runs, which is also that of ~/.kube/config: no call may reach it."""
    with wrong_cluster() as listening:
        port = listening.getsockname()[1]
        account = tmp_path / "account"
        account.mkdir()
        for name in ("token", "ca.crt"):
            (account / name).write_text("invented")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(account / "token"))
        monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(account / "ca.crt"))
        yield listening


def operator(scene: Scene) -> ReindexOperator:
    """The reindex task of the scene's window."""
    return ReindexOperator(task_id="reindex", cluster=NAME, window=scene.window)


def job_trigger(scene: Scene) -> JobTrigger:
    """The trigger of a Job that was just made."""
    trigger = scene.start()
    assert isinstance(trigger, JobTrigger)
    return trigger


def preflight_problems() -> list[str]:
    """What preflight says about the Kubernetes part of the scene's cluster."""
    problems: list[str] = []
    preflight.guarded(kubernetes, settings.cluster_config(NAME), problems, [])
    return problems


# F019, F020


@pytest.mark.parametrize("as_text", [True, False], ids=["text", "object"])
def test_the_named_context_of_a_kubeconfig_in_the_connection_is_reached(
    scene: Scene, wrong: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_text: bool
) -> None:
    config = two_contexts(scene, wrong.getsockname()[1])
    # The form of the connection leaves its other fields as empty texts.
    connect(monkeypatch, kube_config=json.dumps(config) if as_text else config, kube_config_path="", in_cluster=False)
    monkeypatch.setenv("HOME", str(tmp_path / "worker"))
    trigger = scene.start()
    assert str(tmp_path) not in json.dumps(trigger.serialize()[1])
    monkeypatch.setenv("HOME", str(tmp_path / "triggerer"))
    assert scene.end(trigger)["status"] == "reindexed"


def test_an_unknown_context_is_named_and_reaches_nobody(
    scene: Scene, wrong: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = two_contexts(scene, wrong.getsockname()[1])
    config["contexts"] = [item for item in config["contexts"] if item["name"] == "wrong"]
    connect(monkeypatch, kube_config=json.dumps(config))
    with pytest.raises(Exception, match="sandbox-east_dev"):
        scene.start()
    assert scene.posted() == []


@pytest.mark.parametrize("extra", [{}, {"kube_config": ""}, {"kube_config": None, "in_cluster": False}])
def test_a_connection_that_names_no_cluster_is_refused_and_not_guessed(
    scene: Scene, wrong: socket.socket, monkeypatch: pytest.MonkeyPatch, extra: Json
) -> None:
    trigger = job_trigger(scene)
    connect(monkeypatch, **extra)
    (problem,) = preflight_problems()
    assert "connection 'kubernetes_kube_faults' names no cluster" in problem
    with pytest.raises(ValueError, match="names no cluster"):
        scene.start()
    payload = event_of(trigger).payload
    assert payload["outcome"] == "unknown"
    assert "names no cluster" in payload["message"]


def test_a_connection_that_only_the_worker_has_is_named_by_the_trigger(
    scene: Scene, wrong: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = job_trigger(scene)
    monkeypatch.delenv(CONNECTION)
    payload = event_of(trigger).payload
    assert (payload["outcome"], payload["cause"]) == ("unknown", "configuration")
    assert "missing in the triggerer" in payload["message"]
    assert "kubernetes_kube_faults" in payload["message"]
    with pytest.raises(StageError):
        scene.resume(payload)


# F012


def test_a_missing_right_fails_preflight_for_good_and_nothing_is_made(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fine(*_: Any) -> None:
        """Of the other two systems."""

    monkeypatch.setattr(preflight, "run_parameters", lambda *_: SimpleNamespace(lines=list))
    monkeypatch.setattr(preflight, "refuse_late_start", fine)
    monkeypatch.setattr(preflight, "checks", lambda: (kubernetes,))
    task = PreflightOperator(task_id="preflight", cluster=NAME)
    assert task.execute(scene.context())["cluster"] == NAME
    before = scene.kube.sandbox.last_request_id()
    scene.kube.sandbox.deny({"verbs": ["create"], "resources": ["jobs"]})
    with pytest.raises(AirflowFailException, match=f"may not create jobs in namespace {NAMESPACE}"):
        task.execute(scene.context())
    assert scene.kube.sandbox.mutations("/jobs", since_id=before) == []


def test_a_right_that_is_taken_away_after_preflight_fails_at_once(scene: Scene) -> None:
    scene.kube.sandbox.deny({"verbs": ["create"], "resources": ["jobs"]})
    with pytest.raises(AirflowFailException, match=r"access_denied: cannot create Job .*: 403 Forbidden: jobs\.batch"):
        scene.start()
    assert [row["status"] for row in scene.posted()] == [403]


# F022


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call may take a second instead of thirty, a repeated deletion pauses shortly."""
    monkeypatch.setattr(hooks, "REQUEST_TIMEOUT", (1, 1))
    monkeypatch.setattr(hooks, "TRY_PAUSE_SECONDS", 0.05)


@pytest.mark.parametrize("path", ["/jobs$", "/pods$"])
def test_a_look_that_is_never_answered_is_repeated(scene: Scene, impatient: None, path: str) -> None:
    trigger = scene.start()
    rule = {"kind": "hang", "match": {"method": "GET", "path": path}, "times": 1}
    (number,) = scene.kube.sandbox.set_faults(rule)
    assert scene.end(trigger)["status"] == "reindexed"
    scene.kube.sandbox.wait_for_hits(number)


def test_a_job_whose_creation_was_never_answered_is_adopted(scene: Scene, impatient: None) -> None:
    scene.kube.sandbox.set_faults({"kind": "stored_then_hang", "match": scene.match, "times": 1})
    assert scene.go()["attempt"] == 1
    assert len(scene.posted()) == 1


def test_a_restarted_api_server_is_waited_for(scene: Scene) -> None:
    trigger = job_trigger(scene)
    scene.kube.wait_condition(trigger.given["job_name"], "Complete")
    scene.kube.sandbox.stop()
    refused: list[str] = []

    def start_after(reason: str) -> None:
        refused.append(reason)
        if len(refused) == 2:
            scene.kube.sandbox.start()

    after_error = trigger._after_error

    def seen(error: Exception, for_seconds: float) -> Any:
        start_after(type(error).__name__)
        return after_error(error, for_seconds)

    trigger._after_error = seen  # type: ignore[method-assign]
    assert scene.end(trigger)["status"] == "reindexed"
    assert len(refused) >= 2


def test_an_outage_beyond_its_limit_leaves_the_job_to_the_retry(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobTrigger, "outage_seconds", 0.5)
    trigger = job_trigger(scene)
    rule = scene.kube.sandbox.set_faults({"kind": "error", "status": 503, "match": {"method": "GET", "path": "/jobs"}})
    with pytest.raises(StageError, match=r"outage: Job .*: unreachable for"):
        scene.end(trigger)
    scene.kube.sandbox.clear_faults(*rule)
    assert scene.deleted() == []
    assert scene.go()["attempt"] == 1
    assert len(scene.posted()) == 1


# F005


@pytest.mark.parametrize("status", [429, 503])
def test_a_kill_during_an_outage_deletes_the_job_all_the_same(scene: Scene, impatient: None, status: int) -> None:
    rule = {"kind": "error", "status": status, "match": {"method": "DELETE", "path": "/jobs/"}, "times": 2}
    scene.kube.sandbox.set_faults({"kind": "hang_container", "match": scene.match}, rule)
    scene.start()
    scene.kill()
    assert [row["status"] for row in scene.deleted() if row["status"] != 409] == [status, status, 200]


def heard(said: list[str]) -> Any:
    """A log function that keeps its lines."""
    return lambda text, *args: said.append(text % args)


def test_a_kill_that_may_not_delete_says_so(scene: Scene, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.kube.sandbox.set_faults({"kind": "hang_container", "match": scene.match})
    trigger = job_trigger(scene)
    scene.kube.sandbox.deny({"verbs": ["delete"], "resources": ["jobs"]})
    said: list[str] = []
    monkeypatch.setattr(scene.operator.window_job, "log", SimpleNamespace(info=print, warning=heard(said)))
    scene.kill()
    assert [line for line in said if "cannot delete Job" in line and "403 Forbidden" in line]
    assert [row["status"] for row in scene.deleted()] == [403]
    scene.kube.sandbox.deny()
    scene.kube.batch.delete_namespaced_job(trigger.given["job_name"], NAMESPACE, propagation_policy="Background")


@pytest.mark.parametrize(
    ("state", "deleted"), [("failed", True), (None, False), ("deferred", False), (RuntimeError("gone"), False)]
)
def test_a_deferred_task_that_a_person_ended_loses_its_job_and_one_that_moves_does_not(
    scene: Scene, impatient: None, state: Any, deleted: bool
) -> None:
    scene.kube.sandbox.set_faults({"kind": "hang_container", "match": scene.match})
    trigger = job_trigger(scene)
    wait_running(scene)
    task = SimpleNamespace(dag_id="d", run_id="r", task_id="windows.reindex", map_index=3)
    trigger.task_instance = task  # type: ignore[assignment]

    with states_are(state):
        cancelled(trigger)
    assert [row["body"]["propagationPolicy"] for row in scene.ended()] == ["Background"] * deleted
    assert len(window_jobs(scene)) == (0 if deleted else 1)


def test_a_deferred_task_that_is_ended_during_an_outage_loses_its_job_all_the_same(
    scene: Scene, impatient: None
) -> None:
    rule = {"kind": "error", "status": 503, "match": {"method": "DELETE", "path": "/jobs/"}, "times": 2}
    scene.kube.sandbox.set_faults({"kind": "hang_container", "match": scene.match}, rule)
    trigger = job_trigger(scene)
    with states_are("failed"):
        asyncio.run(trigger.on_kill())
        # A second triggerer may do the same: nothing is there any more, and that is no error.
        asyncio.run(trigger.on_kill())
    assert [row["status"] for row in scene.deleted() if row["status"] != 409][:3] == [503, 503, 200]
    assert window_jobs(scene) == []
