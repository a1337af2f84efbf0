"""Known faults of Kubernetes Jobs, continued: pods, attempts, limits and what is left behind."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from airflow.triggers.base import TaskSuccessEvent

from backfill import settings
from backfill.operators.checks.kubernetes import kubernetes
from backfill.operators.preflight import guarded
from backfill.reindexing import window_job
from backfill.triggers.job import JobTrigger
from backfill.triggers.quiet import QuietTrigger
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.job import ANNOTATION_CONTAINER
from include.scorecard_backfill.names import JOB_NAME_MAX, job_name
from include.scorecard_backfill.ownership import ANNOTATION_OWNER
from include.scorecard_backfill.records import Failure
from standins.kubernetes.client import CRONJOB, NAMESPACE
from tests.sandbox.faults_kubernetes_fixtures import event_within, wait_running, window_jobs, window_pods
from tests.sandbox.test_faults_kubernetes import DEADLINE_SECONDS, NAME, Scene, event_of, scene
from tests.standins.kubernetes_fixtures import IMAGE, STUBBORN, Kube, conditions, kube, kube_in, unique, wait_for

__all__ = ["kube", "scene"]

Json = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A server that gives a pod its whole grace period (30 s), as a real one does."""
    with kube_in(tmp_path_factory.mktemp("kubernetes"), options=["--max-grace-seconds", "30"]) as running:
        yield running


def webhook(scene: Scene, **spec: Any) -> Json:
    """A rule that changes the spec of the window's Job on its way, as an admission webhook does."""
    return {"kind": "mutate", "match": {**scene.match, "method": "POST", "path": "/jobs$"}, "patch": {"spec": spec}}


def job_trigger(scene: Scene) -> JobTrigger:
    """The trigger of a Job that was just made."""
    trigger = scene.start()
    assert isinstance(trigger, JobTrigger)
    return trigger


def ended_well(trigger: Any) -> tuple[Json, list[str]]:
    """Run a trigger whose Job ends well: the task's result, and the lines of the pods in the task's log."""
    with mock.patch.object(trigger.log, "info") as info:
        event = event_of(trigger)
    assert isinstance(event, TaskSuccessEvent)
    said = [call.args[0] % call.args[1:] for call in info.call_args_list]
    marked = "pod log | "
    left: Any = event.xcoms or {}
    return left["return_value"], [line.removeprefix(marked) for line in said if line.startswith(marked)]


def names_of(tail: list[str]) -> set[str]:
    """The pods that the lines of a log tail name."""
    return {line.split(": ", 1)[0] for line in tail}


# F008


def test_any_number_of_pods_is_legal_and_each_is_named(scene: Scene) -> None:
    scene.kube.sandbox.set_faults(webhook(scene, parallelism=4, completions=4))
    record, tail = ended_well(scene.start())
    assert record["status"] == "reindexed"
    assert names_of(tail) == {pod["metadata"]["name"] for pod in window_pods(scene)}
    assert len(window_pods(scene)) == 4


def test_a_failed_pod_before_a_good_one_is_no_failed_window(scene: Scene) -> None:
    scene.kube.sandbox.set_faults(
        webhook(scene, backoffLimit=3),
        {"kind": "fail_container", "match": scene.match, "times": 1, "exit_code": 1, "log": "boom"},
    )
    record, tail = ended_well(scene.start())
    assert any(line.endswith(": boom") for line in tail)
    assert any("customer=" in line for line in tail)
    assert len(names_of(tail)) == 2
    assert record["status"] == "reindexed"


# F015, F016


def test_one_unreadable_log_does_not_hide_the_others(scene: Scene) -> None:
    scene.kube.sandbox.set_faults(webhook(scene, parallelism=2, completions=2))
    trigger = job_trigger(scene)
    scene.kube.wait_condition(trigger.given["job_name"], "Complete")
    first = sorted(pod["metadata"]["name"] for pod in window_pods(scene))[0]
    scene.kube.sandbox.set_faults({"kind": "error", "status": 404, "match": {"path": f"/pods/{first}/log$"}})
    _, tail = ended_well(trigger)
    unread = [line for line in tail if line.startswith(first)]
    assert len(unread) == 1
    assert "404" in unread[0]
    assert any("customer=" in line for line in tail)


def test_a_log_that_cannot_be_read_says_why_and_changes_no_outcome(scene: Scene) -> None:
    scene.kube.sandbox.set_faults(
        {"kind": "fail_container", "match": scene.match, "times": 1},
        {"kind": "error", "status": 503, "match": {"method": "GET", "path": "/log$"}},
    )
    payload = event_of(scene.start()).payload
    assert payload["outcome"] == "failed"
    assert any("503" in line for line in payload["log_tail"])
    with pytest.raises(AirflowFailException, match="makes a new Job"):
        scene.resume(payload)


def test_a_failure_is_in_the_event_and_needs_no_call(scene: Scene) -> None:
    scene.kube.sandbox.set_faults({"kind": "fail_container", "match": scene.match, "times": 1, "log": "boom"})
    trigger = job_trigger(scene)
    payload = event_of(trigger).payload
    scene.kube.batch.delete_namespaced_job(trigger.given["job_name"], NAMESPACE, propagation_policy="Background")
    scene.kube.wait_gone(trigger.given["job_name"])
    seen = scene.kube.sandbox.last_request_id()
    with pytest.raises(AirflowFailException, match="boom"):
        scene.resume(payload)
    assert scene.kube.sandbox.last_request_id() == seen


def test_an_event_of_another_window_is_not_believed(scene: Scene) -> None:
    scene.kube.sandbox.set_faults({"kind": "fail_container", "match": scene.match, "times": 1})
    payload = event_of(scene.start()).payload | {"key": "0" * 16}
    with pytest.raises(TaskDeferred):
        scene.resume(payload)
    assert len(scene.posted()) == 1


# F004, F023, F024


def test_the_next_attempt_has_labels_and_a_log_of_its_own(scene: Scene) -> None:
    scene.kube.sandbox.set_faults({"kind": "fail_container", "match": scene.match, "times": 1, "log": "boom"})
    with pytest.raises(AirflowFailException):
        scene.go()
    record, tail = ended_well(scene.start())
    assert (record["status"], record["attempt"]) == ("reindexed", 2)
    assert tail
    assert not any("boom" in line for line in tail)
    labels = [row["body"]["metadata"]["labels"]["scorecard-backfill/attempt"] for row in scene.posted()]
    assert labels == ["1", "2"]
    kept = {job["metadata"]["name"]: conditions(job) for job in window_jobs(scene)}
    assert [set(found) & {"Complete", "Failed"} for _, found in sorted(kept.items())] == [{"Failed"}, {"Complete"}]


def test_a_good_job_whose_workflows_failed_is_not_adopted_again(scene: Scene) -> None:
    record = scene.go()
    # wait_workflows has judged this attempt's workflows; a person clears it together with reindex.
    judged = Failure(
        key=scene.window.key, stage="wait_workflows", cause="workflow_failed", reason="r", attempt=record["attempt"]
    )
    scene.xcoms["windows.wait_workflows", "return_value"] = judged.to_json()
    assert scene.go()["attempt"] == 2


def test_the_count_of_attempts_goes_on_when_the_job_is_gone(scene: Scene) -> None:
    trigger = job_trigger(scene)
    scene.kube.wait_condition(trigger.given["job_name"], "Complete")
    scene.kube.batch.delete_namespaced_job(trigger.given["job_name"], NAMESPACE, propagation_policy="Background")
    scene.kube.wait_gone(trigger.given["job_name"])
    with pytest.raises(AirflowFailException, match="job_gone"):
        scene.end(trigger)
    assert scene.go()["attempt"] == 2


# F002, F013, F021, F029


def test_a_job_without_any_pod_ends_at_the_start_up_limit(scene: Scene) -> None:
    scene.kube.sandbox.set_faults({"kind": "no_pod", "match": scene.match})
    trigger = job_trigger(scene)
    with pytest.raises(AirflowFailException, match=r"no pod of Job .* has started within \d+ s \(0 pods exist\)"):
        scene.end(trigger)
    assert [row["name"] for row in scene.ended()] == [trigger.given["job_name"]]


def test_a_pull_error_is_told_with_its_image_and_the_next_attempt_is_free(scene: Scene) -> None:
    rule = scene.kube.sandbox.set_faults({"kind": "image_pull_backoff", "match": scene.match})[0]
    with pytest.raises(AirflowFailException, match=IMAGE):
        scene.go()
    scene.kube.sandbox.clear_faults(rule)
    wait_for(lambda: not window_pods(scene), "the pods of the deleted Job are gone")
    assert scene.go()["attempt"] == 2


def test_a_job_beyond_its_deadline_is_deleted_whatever_a_webhook_made_of_it(scene: Scene) -> None:
    scene.kube.sandbox.set_faults(
        webhook(scene, activeDeadlineSeconds=86_400), {"kind": "hang_container", "match": scene.match}
    )
    trigger = job_trigger(scene)
    late = f"not ended within {DEADLINE_SECONDS} s of its start; the Job was deleted"
    with pytest.raises(AirflowFailException, match=late):
        scene.end(trigger)
    assert [row["body"]["propagationPolicy"] for row in scene.ended()] == ["Background"]
    scene.kube.wait_gone(trigger.given["job_name"])


def test_a_job_that_ended_while_no_triggerer_ran_is_judged_by_its_end(scene: Scene) -> None:
    trigger = job_trigger(scene)
    scene.kube.wait_condition(trigger.given["job_name"], "Complete")
    assert scene.end(trigger)["status"] == "reindexed"


# F010, F011, F026


@pytest.mark.parametrize(
    "customers", [["a" * 79 + "b", "a" * 79 + "c"], ["ACME_Foo.bar-", "acme-foo-bar"], ["{{ x }}"]]
)
def test_long_and_odd_names_are_taken_by_the_api_and_stay_apart(scene: Scene, customers: list[str]) -> None:
    windows = [Scene(scene.kube, customer) for customer in customers]
    for window in windows:
        assert window.go()["status"] == "reindexed"
    sent = [row["body"] for window in windows for row in window.posted()]
    assert len({body["metadata"]["name"] for body in sent}) == len(customers)
    assert all(len(body["metadata"]["name"]) <= JOB_NAME_MAX for body in sent)
    env = [body["spec"]["template"]["spec"]["containers"][0]["env"] for body in sent]
    found = [item["value"] for items in env for item in items if item["name"] == "RUN_ONLY_FOR_CUSTOMER_IDS"]
    assert found == customers


def test_a_template_expression_in_the_cronjob_is_refused_by_preflight_and_reindex(scene: Scene) -> None:
    kept = scene.kube.template()["template"]["spec"]["containers"]
    spoiled = [{**kept[0], "env": [*kept[0]["env"], {"name": "DAY", "value": "{{ ds }}"}]}]
    scene.kube.sandbox.patch_cronjob(template_patch(spoiled))
    try:
        problems: list[str] = []
        config = settings.cluster_config(NAME)
        guarded(kubernetes, config, problems, [])
        assert "DAY still holds a template expression" in problems[0]
        with pytest.raises(AirflowFailException, match="DAY still holds a template expression"):
            scene.start()
        assert scene.posted() == []
    finally:
        scene.kube.sandbox.patch_cronjob(template_patch(kept))


def template_patch(containers: list[Json]) -> Json:
    """A patch that replaces the containers of the CronJob's jobTemplate."""
    return {"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": containers}}}}}}


# F025, F027, F028, F030


def scheduled(scene: Scene) -> str:
    """Make a Job as the CronJob's own controller does; returns its name."""
    name = unique("scheduled")
    cronjob = scene.kube.plain(scene.kube.batch.read_namespaced_cron_job(CRONJOB, NAMESPACE))
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": CRONJOB, "controller": True}
    manifest = scene.kube.manifest(name)
    manifest["metadata"]["ownerReferences"] = [owner | {"uid": cronjob["metadata"]["uid"]}]
    scene.kube.create(manifest)
    return name


def test_history_limits_of_the_cronjob_do_not_touch_our_jobs(scene: Scene) -> None:
    limits = {"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1}
    scene.kube.sandbox.patch_cronjob({"spec": dict.fromkeys(limits, 0)})
    try:
        windows = [Scene(scene.kube, unique("globex")) for _ in range(3)]
        for window in windows:
            assert window.go()["status"] == "reindexed"
        # The control: the same limits remove a Job that belongs to the CronJob.
        scene.kube.wait_gone(scheduled(scene))
        template = scene.kube.plain(scene.kube.batch.read_namespaced_cron_job(CRONJOB, NAMESPACE))["spec"][
            "jobTemplate"
        ]
        for window in windows:
            (job,) = window_jobs(window)
            assert "Complete" in conditions(job)
            assert job["metadata"]["annotations"] == {
                **template["metadata"]["annotations"],
                "cronjob.kubernetes.io/instantiate": "manual",
                ANNOTATION_CONTAINER: CRONJOB,
                ANNOTATION_OWNER: f"{job['metadata']['annotations'][ANNOTATION_OWNER]}",
            }
            assert template["metadata"]["labels"].items() <= job["metadata"]["labels"].items()
            assert window_pods(window), "the log of a finished Job must stay readable"
    finally:
        scene.kube.sandbox.patch_cronjob({"spec": limits})


def test_a_running_scheduled_job_is_a_refusal_where_that_is_configured(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings.cluster_config(NAME)
    kubernetes = config.kubernetes.model_copy(update={"active_scheduled_job": "refuse"})
    changed: ClusterConfig = config.model_copy(update={"kubernetes": kubernetes})
    monkeypatch.setattr(window_job, "cluster_config", lambda _: changed)
    scene.kube.sandbox.set_faults({"kind": "hang_container", "match": {"name": "scheduled-.*"}})
    name = scheduled(scene)
    try:
        with pytest.raises(AirflowFailException, match=f"own Job {name} is running"):
            scene.start()
        assert scene.posted() == []
    finally:
        scene.kube.batch.delete_namespaced_job(name, NAMESPACE, propagation_policy="Background")
        scene.kube.wait_gone(name)


def test_no_job_is_made_while_a_pod_of_a_deleted_one_still_ends(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod has its grace period after the Job is gone, and starts workflows in it."""
    monkeypatch.setattr(QuietTrigger, "poll_seconds", 0.2)
    kept = scene.kube.template()["template"]["spec"]["containers"]
    scene.kube.sandbox.patch_cronjob(template_patch([{**kept[0], "image": STUBBORN}]))
    try:
        scene.start()
        pod = wait_running(scene)
        scene.kill()
        wait_for(lambda: not window_jobs(scene), "the Job is deleted")
        assert [p["metadata"]["name"] for p in window_pods(scene)] == [pod["metadata"]["name"]]
        waiting = scene.start()
        assert isinstance(waiting, QuietTrigger)
        assert len(scene.posted()) == 1
        with pytest.raises(TimeoutError):
            event_within(waiting, 1.0)
        groups = scene.kube.sandbox.processes()
        os.killpg(next(group for name, group in groups.items() if pod["metadata"]["uid"] in name), signal.SIGKILL)
        assert event_of(waiting).payload["kind"] == "go_event"
    finally:
        scene.kube.sandbox.patch_cronjob(template_patch(kept))
    assert scene.go()["attempt"] == 2


def test_nothing_without_an_owner_is_left(scene: Scene) -> None:
    windows = [Scene(scene.kube, unique("initech")) for _ in range(3)]
    scene.kube.sandbox.set_faults({"kind": "hang_container", "match": windows[2].match})
    triggers = [window.start() for window in windows]
    killed = wait_running(windows[2])
    windows[2].kill()
    for window, trigger in itertools.islice(zip(windows, triggers, strict=True), 2):
        assert window.end(trigger)["status"] == "reindexed"
    wait_for(lambda: not window_pods(windows[2]), f"pod {killed['metadata']['name']} of the killed window is gone")
    for window in windows:
        jobs = {job["metadata"]["uid"]: job for job in window_jobs(window)}
        owners = [pod["metadata"].get("ownerReferences") or [] for pod in window_pods(window)]
        assert all(len(found) == 1 and found[0]["uid"] in jobs for found in owners)
        assert all(job["spec"]["ttlSecondsAfterFinished"] for job in jobs.values())
        assert window.posted("/pods") == []


def test_a_foreign_job_of_that_name_is_refused(scene: Scene) -> None:
    window = scene.window
    name = job_name(key=window.key, customer_id=scene.customer, start=window.start.isoformat(), attempt=1)
    scene.kube.make(name, parallelism=0)
    with pytest.raises(AirflowFailException, match="is not ours"):
        scene.start()
    scene.kube.batch.delete_namespaced_job(name, NAMESPACE, propagation_policy="Background")
