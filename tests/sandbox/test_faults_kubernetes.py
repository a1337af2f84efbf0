"""Known faults of Kubernetes Jobs: the product's operator and trigger against the stand-in API, without a scheduler."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from backfill import settings, taken
from backfill.kit import xcoms
from backfill.kit.stages import StageError
from backfill.operators import reindex
from backfill.operators.checks.kubernetes import RIGHTS, kubernetes
from backfill.operators.preflight import guarded
from backfill.operators.reindex import ReindexOperator
from backfill.reindexing import gate, window_job
from backfill.triggers import quiet
from backfill.triggers.job import JobTrigger
from backfill.triggers.quiet import QuietTrigger
from backfill.triggers.room import RoomTrigger
from include.scorecard_backfill.names import digest
from include.scorecard_backfill.records import Database, Window
from standins.kubernetes.client import CRONJOB, NAMESPACE, is_real
from tests.kit.store import Store
from tests.kit.waits import TaskInstance
from tests.standins.kubernetes_fixtures import CONTEXT, Kube, kube, server, unique

__all__ = ["kube", "server"]

Json = dict[str, Any]
Trigger = JobTrigger | QuietTrigger | RoomTrigger
NAME = "kube-faults"
LIMIT_SECONDS = 90.0 if is_real() else 25.0
DEADLINE_SECONDS = 30 if is_real() else 8
"""Of a Job; a real Job controller waits 10 s after a failed pod."""
STARTUP_SECONDS = 15 if is_real() else 4
"""A real Job controller takes its time after a pod that was refused, and then a pod is pulled and started."""
SHORT: Json = {
    "name": NAME,
    "waits": {"first_poll_after_seconds": 0},
    "temporal": {"poll_seconds": 0.2},
    "kubernetes": {
        "context": CONTEXT,
        "namespace": NAMESPACE,
        "cronjob": CRONJOB,
        "poll_seconds": 0.2,
        "deadline_seconds": DEADLINE_SECONDS,
        "queue_timeout_seconds": 3,
        "startup_timeout_seconds": STARTUP_SECONDS,
        "pull_error_grace_seconds": 2,
    },
}


@dataclass
class Scene:
    """One window of a customer that no other test has, and what Airflow would remember of it."""

    kube: Kube
    customer: str
    xcoms: dict[tuple[str, str], Any] = field(default_factory=dict)
    store: Store = field(default_factory=Store)
    try_number: int = 1

    @property
    def window(self) -> Window:
        """The plan's record."""
        return Window(
            key=digest(self.customer),
            cluster=NAME,
            customer_id=self.customer,
            start=date(2026, 1, 1),
            end=date(2026, 1, 2),
            mode="cleanup",
            databases=(Database(name=f"{self.customer}_voice", profile_id="voice", tables=("scorecard",)),),
        )

    @property
    def match(self) -> Json:
        """Matches this window's Job in a fault rule."""
        return {"labels": {"scorecard-backfill/window": self.window.key}}

    @property
    def ti(self) -> FakeTask:
        """The task instance of the current try."""
        return FakeTask("windows.reindex", self.xcoms, try_number=self.try_number)

    def context(self) -> Json:
        """What a running task gets."""
        self.xcoms["plan", "return_value"] = [self.window.to_json()]
        self.xcoms["plan", "run"] = {"max_parallel": 10, "sources": {}}
        return {"ti": self.ti, "task_state_store": self.store, "dag_run": self.ti}

    def operate(self) -> ReindexOperator:
        """Make the operator of a new process."""
        self.operator = ReindexOperator(task_id="reindex", cluster=NAME, window=self.window.to_json())
        return self.operator

    def start(self) -> Trigger:
        """Run the worker half and return the trigger that it defers to."""
        return self._deferred(self.operate().execute, self.context())

    def resume(self, payload: Any) -> Any:
        """Run the worker half that an event wakes, in a new process, to its result."""
        return self.operate().resume(self.context(), payload, **self.kwargs)

    def wake(self, payload: Any) -> Trigger:
        """Run the worker half that an event wakes to the next trigger."""
        return self._deferred(self.operate().resume, self.context(), payload, **self.kwargs)

    def _deferred(self, call: Any, *args: Any, **kwargs: Any) -> Trigger:
        with pytest.raises(TaskDeferred) as deferred:
            call(*args, **kwargs)
        trigger: Any = deferred.value.trigger
        self.kwargs: Json = json.loads(json.dumps(deferred.value.kwargs or {}))
        assert deferred.value.method_name == "resume"
        assert trigger.serialize()[1] == json.loads(json.dumps(trigger.serialize()[1]))
        made: Any = type(trigger)(**trigger.serialize()[1])
        made.task_instance = self.ti
        return made

    def end(self, trigger: Trigger) -> Any:
        """Run the trigger to its event, and the worker half behind it if the trigger does not end the task itself."""
        event = event_of(trigger)
        if isinstance(event, TaskSuccessEvent):
            return (event.xcoms or {})["return_value"]
        return self.resume(event.payload)

    def go(self) -> Any:
        """Run the whole stage."""
        return self.end(self.start())

    def kill(self, state: str | Exception | None = "failed") -> None:
        """End the running task as Airflow does on SIGTERM, while its API server has the task in this state."""
        with states_are(state), mock.patch.object(reindex, "get_current_context", self.context):
            self.operator.on_kill()

    def posted(self, path: str = "/jobs") -> list[Json]:
        """Requests that made something in this test, stored or not."""
        found = self.kube.sandbox.requests("POST", path)
        return [r for r in found if (r["labels"] or {}).get("scorecard-backfill/window") == self.window.key]

    def deleted(self) -> list[Json]:
        """Requests to delete one of this window's Jobs, refused ones too.

        A real Job controller changes the version that is their precondition, so that some are asked twice (409).
        """
        names = {r["name"] for r in self.posted()}
        return [r for r in self.kube.sandbox.requests("DELETE", "/jobs/") if r["name"] in names]

    def ended(self) -> list[Json]:
        """Requests that deleted one of this window's Jobs."""
        return [r for r in self.deleted() if r["status"] == 200]


@dataclass
class FakeTask(TaskInstance):
    """Task instance and DAG run in one."""

    dag_id: str = "scorecard_backfill__kube-faults"
    run_id: str = "manual__2026-03-01T00:00:00+00:00"

    def get_task_states(self, **_: Any) -> Json:
        """No other task is known."""
        return {}


@contextmanager
def states_are(state: str | Exception | None) -> Iterator[None]:
    """Have the API server answer with this state for whatever task it is asked."""

    def states(*, task_ids: list[str], run_ids: list[str], **_: Any) -> Json:
        if isinstance(state, Exception):
            raise state
        return {run: {f"{task}_{index}": state for task in task_ids for index in range(4)} for run in run_ids}

    with mock.patch.object(RuntimeTaskInstance, "get_task_states", staticmethod(states)):
        yield


def event_of(trigger: Trigger) -> TriggerEvent:
    """Return a trigger's only event."""

    async def first() -> TriggerEvent:
        async for event in trigger.run():
            return event
        raise AssertionError("the trigger ended without an event")

    return asyncio.run(asyncio.wait_for(first(), LIMIT_SECONDS))


class NoWorkflows:
    """Stands for a Temporal without open workflows."""

    def __init__(self, *_: Any) -> None:
        """Whatever the product's class takes."""

    async def connect(self, namespace: str) -> NoWorkflows:
        """A client."""
        return self

    def open_query(self) -> str:
        """Of the open workflows."""
        return ""

    async def list_ids(self, query: str) -> list[str]:
        """None is open."""
        return []


def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no workflows, no override and no task states; XComs come from the task that asks."""

    async def nothing(*_: Any, **__: Any) -> list[str]:
        return []

    async def no_text(*_: Any) -> None:
        return None

    async def workflows(*_: Any) -> NoWorkflows:
        return NoWorkflows()

    async def pulled(ti: FakeTask, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        return ti.xcoms.get((task_id, key))

    for module in (window_job, gate):
        for name in ("TemporalHook", "Workflows"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, NoWorkflows)
    monkeypatch.setattr(gate, "open_of_window", nothing)
    monkeypatch.setattr(window_job, "override_text", lambda _cluster: None)
    monkeypatch.setattr(quiet, "shared_workflows", workflows)
    monkeypatch.setattr(quiet, "shared_open_ids", nothing)
    monkeypatch.setattr(quiet, "shared_override", no_text)
    monkeypatch.setattr(xcoms, "apull", pulled)
    monkeypatch.setattr(BaseXCom, "aset", nothing)


@pytest.fixture
def scene(kube: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    (tmp_path / f"{NAME}.yaml").write_text(yaml.safe_dump(SHORT))
    monkeypatch.setenv(settings.CLUSTERS_ENV, str(tmp_path))
    extra = {"kube_config_path": str(kube.sandbox.kubeconfig), "cluster_context": CONTEXT}
    connection = {"conn_type": "kubernetes", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_KUBE_FAULTS", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_CONN_TEMPORAL_KUBE_FAULTS", json.dumps({"conn_type": "generic"}))
    alone(monkeypatch)
    settings._load.cache_clear()
    kube.sandbox.clear_faults()
    with states_are("deferred"):
        yield Scene(kube, unique("acme"))
    kube.sandbox.clear_faults()
    kube.sandbox.deny()
    settings._load.cache_clear()


def test_a_pod_that_is_listed_late_makes_no_second_one(scene: Scene) -> None:
    scene.kube.sandbox.set_faults({"kind": "empty_pod_list", "match": scene.match, "times": 3})
    record = scene.go()
    assert (record["status"], record["attempt"]) == ("reindexed", 1)
    assert len(scene.posted()) == 1
    assert scene.posted("/pods") == []


def test_no_pod_for_a_while_is_waited_for(scene: Scene) -> None:
    scene.kube.sandbox.set_faults({"kind": "no_pod", "match": scene.match, "seconds": 2})
    assert scene.go()["status"] == "reindexed"
    assert len(scene.posted()) == 1


EXISTS: Json = {"status": 409, "reason": "AlreadyExists"}


@pytest.mark.parametrize(
    "rule", [{"kind": "stored_then_500"}, {"kind": "stored_then_cut"}, {"kind": "stored_then_500", **EXISTS}]
)
def test_a_job_that_was_stored_although_the_call_failed_is_adopted(scene: Scene, rule: Json) -> None:
    scene.kube.sandbox.set_faults({**rule, "match": {"method": "POST", "path": "/jobs$"}, "times": 1})
    assert scene.go()["attempt"] == 1
    assert len({r["name"] for r in scene.posted()}) == 1
    assert len(scene.posted()) == 1


def test_a_call_that_stored_nothing_is_left_to_the_retry(scene: Scene) -> None:
    rule = {"kind": "error", "status": 503, "match": {"method": "POST", "path": "/jobs$"}, "times": 1}
    scene.kube.sandbox.set_faults(rule)
    with pytest.raises(StageError, match="was not created"):
        scene.start()
    assert scene.go()["attempt"] == 1
    assert [r["status"] for r in scene.posted()] == [503, 201]


def test_a_killed_worker_comes_back_to_its_own_job(scene: Scene) -> None:
    first, second = scene.start(), scene.start()
    assert isinstance(first, JobTrigger)
    assert isinstance(second, JobTrigger)
    assert first.given["job_name"] == second.given["job_name"]
    assert scene.end(second)["attempt"] == 1
    # The worker half after the event is killed, too: the ended Job is adopted.
    assert scene.go()["attempt"] == 1
    assert len(scene.posted()) == 1


def test_a_failed_job_shows_its_log_and_a_clear_makes_a_new_one(scene: Scene) -> None:
    scene.kube.sandbox.set_faults(
        {"kind": "fail_container", "match": scene.match, "times": 1, "exit_code": 1, "log": "boom"}
    )
    trigger = scene.start()
    payload = event_of(trigger).payload
    assert payload["outcome"] == "failed"
    assert any("boom" in line for line in payload["log_tail"])
    with pytest.raises(AirflowFailException, match="makes a new Job"):
        scene.resume(payload)
    record = scene.go()
    assert record["attempt"] == 2
    names = [r["name"] for r in scene.posted()]
    assert len(set(names)) == 2
    assert all(len(name) <= 63 for name in names)


def test_a_deadlock_in_the_log_is_left_to_a_retry(scene: Scene) -> None:
    log = "ERROR: deadlock detected (SQLSTATE 40P01)"
    scene.kube.sandbox.set_faults({"kind": "fail_container", "match": scene.match, "times": 1, "log": log})
    with pytest.raises(StageError, match="deadlock"):
        scene.go()


def test_an_image_that_cannot_be_pulled_fails_within_its_limit(scene: Scene) -> None:
    scene.kube.sandbox.set_faults({"kind": "image_pull_backoff", "match": scene.match})
    with pytest.raises(AirflowFailException, match=r"cannot_start.*ImagePull"):
        scene.go()
    assert [r["body"]["propagationPolicy"] for r in scene.ended()] == ["Background"]


def test_a_short_pull_error_is_waited_for(scene: Scene) -> None:
    scene.kube.sandbox.set_faults({"kind": "image_pull_backoff", "match": scene.match, "seconds": 1})
    assert scene.go()["status"] == "reindexed"


def test_a_job_that_never_ends_is_ended_by_its_own_deadline(scene: Scene) -> None:
    scene.kube.sandbox.set_faults({"kind": "hang_container", "match": scene.match})
    # The Job's own deadline and the wait's are the same; whichever is seen first.
    with pytest.raises(AirflowFailException, match=rf"DeadlineExceeded|not ended within {DEADLINE_SECONDS} s"):
        scene.go()
    assert scene.posted()[0]["body"]["spec"]["activeDeadlineSeconds"] == DEADLINE_SECONDS


def test_a_running_task_that_is_killed_deletes_its_live_job(scene: Scene) -> None:
    scene.kube.sandbox.set_faults({"kind": "hang_container", "match": scene.match})
    scene.start()
    scene.kill()
    assert [r["body"]["propagationPolicy"] for r in scene.ended()] == ["Background"]
    # Once more there is nothing to delete, and that is no error.
    scene.kill()


@pytest.mark.parametrize("state", ["running", RuntimeError("the API server does not answer")])
def test_a_worker_that_is_shut_down_leaves_its_job_to_the_next_try(scene: Scene, state: str | Exception) -> None:
    scene.start()
    scene.kill(state)
    assert scene.deleted() == []
    assert scene.go()["attempt"] == 1
    assert len(scene.posted()) == 1


def test_a_question_for_the_state_that_is_never_answered_ends_in_time(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The interrupted call may hold the lock of the connection for as long as the signal handler runs.
    monkeypatch.setattr(taken, "ASK_SECONDS", 0.2)
    scene.start()
    held = threading.Event()

    def never(ti: Any) -> str:
        held.wait()
        return "failed"

    with mock.patch.object(taken, "state_now", never):
        scene.kill()
    held.set()
    assert scene.deleted() == []
    assert scene.go()["status"] == "reindexed"


def test_pods_gone_before_their_logs_do_not_change_the_outcome(scene: Scene) -> None:
    scene.kube.sandbox.set_faults({"kind": "pod_gone", "match": scene.match})
    assert scene.go()["status"] == "reindexed"


def test_a_job_that_vanishes_is_never_ok(scene: Scene) -> None:
    scene.kube.sandbox.set_faults(
        {"kind": "hang_container", "match": scene.match},
        {"kind": "job_gone", "match": scene.match, "seconds": 1, "times": 1},
    )
    with pytest.raises(AirflowFailException, match="job_gone"):
        scene.go()


def test_a_server_in_trouble_is_waited_for(scene: Scene) -> None:
    trigger = scene.start()
    scene.kube.sandbox.set_faults(
        {"kind": "error", "status": 503, "match": {"method": "GET", "path": "/jobs"}, "for_seconds": 2},
        {"kind": "error", "status": 429, "match": {"method": "GET", "path": "/pods"}, "times": 2},
    )
    assert scene.end(trigger)["status"] == "reindexed"
    assert len(scene.posted()) == 1


def test_a_token_that_is_rotated_meanwhile(scene: Scene) -> None:
    trigger = scene.start()
    scene.kube.sandbox.rotate_token()
    assert scene.end(trigger)["status"] == "reindexed"


def test_a_scheduled_job_of_the_cronjob_is_waited_for(scene: Scene) -> None:
    from kubernetes import client, config

    name = unique("scheduled")
    api = config.new_client_from_config(str(scene.kube.sandbox.kubeconfig), context=CONTEXT)
    batch = client.BatchV1Api(api)
    cronjob = api.sanitize_for_serialization(batch.read_namespaced_cron_job(CRONJOB, NAMESPACE))
    template, uid = cronjob["spec"]["jobTemplate"], cronjob["metadata"]["uid"]
    # As the CronJob's controller makes it: the operator looks at the owner.
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": CRONJOB, "uid": uid, "controller": True}
    scene.kube.sandbox.set_faults({"kind": "hang_container", "match": {"name": name}})
    batch.create_namespaced_job(
        NAMESPACE,
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "ownerReferences": [owner]},
            "spec": template["spec"],
        },
    )
    try:
        trigger = scene.start()
        assert isinstance(trigger, QuietTrigger)
        assert scene.posted() == []
    finally:
        batch.delete_namespaced_job(name, NAMESPACE, propagation_policy="Background")
        api.close()
    assert event_of(trigger).payload["kind"] == "go_event"
    assert scene.go()["attempt"] == 1


@pytest.mark.parametrize("right", RIGHTS)
def test_a_missing_right_is_named_before_anything_is_deleted(scene: Scene, right: tuple[str, str, str, str]) -> None:
    verb, _, resource, subresource = right
    name = f"{resource}/{subresource}" if subresource else resource
    scene.kube.sandbox.deny({"verbs": [verb], "resources": [name]})
    problems: list[str] = []
    kubernetes(settings.cluster_config(NAME), problems, [])
    assert [p for p in problems if f"may not {verb} {name}" in p and NAMESPACE in p], problems


def test_a_missing_connection_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_KUBERNETES_KUBE_FAULTS")
    problems: list[str] = []
    config = settings.cluster_config(NAME)
    guarded(kubernetes, config, problems, [])
    assert problems
    assert "'kubernetes_kube_faults'" in problems[0]
