"""Who ends a live Job, queues and quotas that hold one back, and what its failure says: against the stand-in API."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import AirflowFailException

from backfill import settings
from backfill.hooks import kubernetes as hooks
from backfill.hooks.kubernetes import KubernetesJobs
from backfill.kit.store import MADE, name_of
from backfill.operators.checks.kubernetes import kubernetes
from backfill.triggers.job import JobTrigger
from backfill.triggers.room import RoomTrigger
from include.scorecard_backfill.job import ANNOTATION_CONTAINER
from include.scorecard_backfill.ownership import ANNOTATION_OWNER, owner_of
from include.scorecard_backfill.records import Failure
from standins.kubernetes.client import CRONJOB, NAMESPACE
from tests.sandbox.faults_kubernetes_fixtures import cancelled, wait_running, window_jobs
from tests.sandbox.test_faults_kubernetes import NAME, SHORT, Scene, event_of, scene, states_are
from tests.standins.kubernetes_fixtures import SLEEPER, kube, server

__all__ = ["kube", "scene", "server"]

Json = dict[str, Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated call pauses shortly."""
    monkeypatch.setattr(hooks, "TRY_PAUSE_SECONDS", 0.05)


def hang(scene: Scene) -> None:
    """Have the window's program run for ever."""
    scene.kube.sandbox.set_faults({"kind": "hang_container", "match": scene.match})


def job_trigger(scene: Scene, try_number: int = 1) -> JobTrigger:
    """The trigger of a try, with the task instance that the triggerer gives it."""
    scene.try_number = try_number
    trigger = scene.start()
    assert isinstance(trigger, JobTrigger)
    return trigger


def looked(found: Any) -> str:
    """What a look has said."""
    return str(getattr(found, "text", None) or getattr(found, "why", ""))


def owners(scene: Scene) -> list[str]:
    """The owners that the window's live Jobs name."""
    return [job["metadata"]["annotations"][ANNOTATION_OWNER] for job in window_jobs(scene)]


# K8


def test_a_job_names_its_owner_from_its_first_moment_and_each_adopter_raises_the_counter(scene: Scene) -> None:
    hang(scene)
    job_trigger(scene)
    assert scene.posted()[0]["body"]["metadata"]["annotations"][ANNOTATION_OWNER].endswith("/windows.reindex/0/1/1")
    job_trigger(scene, 2)
    job_trigger(scene, 3)
    assert owners(scene)[0].endswith("/windows.reindex/0/3/3")
    patches = scene.kube.sandbox.requests("PATCH", "/jobs/")
    ours = [row for row in patches if row["name"] == scene.posted()[0]["name"]]
    assert all(row["body"]["metadata"]["resourceVersion"] for row in ours)
    # A real Job controller may write the status in between: the adopter is refused (409), looks afresh and asks again.
    assert [row["status"] for row in ours if row["status"] != 409] == [200, 200]


@pytest.mark.parametrize("state", ["failed", "success", "skipped"])
def test_a_person_who_ends_the_try_ends_its_job(scene: Scene, state: str) -> None:
    hang(scene)
    trigger = job_trigger(scene)
    wait_running(scene)
    with states_are(state):
        cancelled(trigger)
    (row,) = scene.ended()
    assert set(row["body"]["preconditions"]) == {"uid", "resourceVersion"}
    assert window_jobs(scene) == []


@pytest.mark.parametrize("state", [None, "deferred", "scheduled", "queued", "running", RuntimeError("no answer")])
def test_whatever_else_stops_a_trigger_leaves_the_job(scene: Scene, state: Any) -> None:
    hang(scene)
    trigger = job_trigger(scene)
    wait_running(scene)
    with states_are(state):
        cancelled(trigger)
        asyncio.run(trigger.on_kill())
    assert scene.deleted() == []
    assert len(window_jobs(scene)) == 1


def test_a_stale_trigger_does_not_end_the_job_of_the_next_try(scene: Scene) -> None:
    hang(scene)
    stale = job_trigger(scene)
    current = job_trigger(scene, 2)
    with states_are("failed"):
        asyncio.run(stale.on_kill())
        assert scene.deleted() == []
        asyncio.run(current.on_kill())
    assert len(scene.ended()) == 1
    assert window_jobs(scene) == []


def test_a_stale_try_adopts_nothing(scene: Scene) -> None:
    hang(scene)
    job_trigger(scene, 2)
    scene.try_number = 1
    with pytest.raises(AirflowFailException, match="belongs to try 2 of this task, and this is try 1"):
        scene.start()
    assert owners(scene)[0].endswith("/2/1")


def test_an_adoption_between_the_look_and_the_deletion_wins(scene: Scene) -> None:
    hang(scene)
    trigger = job_trigger(scene)
    client = KubernetesJobs.for_worker(settings.cluster_config(NAME))
    (found,) = window_jobs(scene)
    mine = owner_of(found)
    assert mine is not None

    async def race() -> Any:
        read = client.job

        async def then_adopted(name: str) -> Json | None:
            job = await read(name)
            client.job = read  # type: ignore[method-assign]
            await client.adopt_job(name, mine.__class__(mine.run_id, mine.task_id, mine.map_index, 2))
            return job

        client.job = then_adopted  # type: ignore[method-assign]
        return await client.end_job(trigger.given["job_name"], mine)

    decided = asyncio.run(race())
    assert "its owner is" in decided.why
    assert [row["status"] for row in scene.deleted()] == [409]
    assert len(window_jobs(scene)) == 1


def test_a_second_job_that_a_halted_process_makes_goes_again(scene: Scene) -> None:
    hang(scene)
    first = job_trigger(scene)
    listed = KubernetesJobs.jobs
    asked: list[str] = []

    async def nothing_yet(self: KubernetesJobs, selector: str = "") -> list[Json]:
        asked.append(selector)
        return [] if len(asked) == 1 else await listed(self, selector)

    # It had looked before the first Job was there, and goes on now; its memory of the first attempt is another's.
    scene.store.values[name_of(MADE, scene.window.key)] = '{"attempt": 1}'
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(KubernetesJobs, "jobs", nothing_yet)
        with pytest.raises(Exception, match="of the same window is alive"):
            scene.start()
    assert [job["metadata"]["name"] for job in window_jobs(scene)] == [first.given["job_name"]]


def test_a_lost_answer_to_an_adoption_is_no_second_one(scene: Scene) -> None:
    hang(scene)
    job_trigger(scene)
    rule = {"kind": "stored_then_500", "status": 503, "match": {"method": "PATCH", "path": "/jobs/"}, "times": 1}
    scene.kube.sandbox.set_faults(rule)
    job_trigger(scene, 2)
    assert owners(scene)[0].endswith("/2/2")


# K3


def suspends(scene: Scene) -> Json:
    """A webhook that puts the window's Job into a queue."""
    patch = {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "batch"}}, "spec": {"suspend": True}}
    return {"kind": "mutate", "match": {**scene.match, "method": "POST", "path": "/jobs$"}, "patch": patch}


def test_a_job_in_a_queue_has_a_patience_of_its_own_and_says_who_holds_it(scene: Scene) -> None:
    scene.kube.sandbox.set_faults(suspends(scene))
    trigger = job_trigger(scene)
    with pytest.raises(AirflowFailException, match=r"(?s)job_suspended.*suspended by the queue 'batch'.*more than 3 s"):
        scene.end(trigger)
    assert len(scene.ended()) == 1


def test_the_deadline_counts_from_the_resume(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.kube.sandbox.set_faults(suspends(scene))
    trigger = job_trigger(scene)
    looks: list[str] = []
    look, prepare = trigger.look, trigger.prepare

    async def patient() -> None:
        await prepare()
        trigger._limits = dataclasses.replace(trigger._limits, queue=60)

    async def resumed() -> Any:
        found = await look()
        looks.append(looked(found))
        if len(looks) == 1:
            scene.kube.batch.patch_namespaced_job(trigger.given["job_name"], NAMESPACE, {"spec": {"suspend": False}})
        return found

    monkeypatch.setattr(trigger, "look", resumed)
    monkeypatch.setattr(trigger, "prepare", patient)
    assert scene.end(trigger)["status"] == "reindexed"
    assert "suspended by the queue 'batch'" in looks[0]


@contextlib.contextmanager
def containers(scene: Scene, *, proxy_first: bool) -> Iterator[None]:
    """The CronJob's template with a second container that never ends by itself."""
    kept = scene.kube.template()["template"]["spec"]["containers"]
    proxy = {"name": "proxy", "image": SLEEPER}
    listed = [proxy, *kept] if proxy_first else [*kept, proxy]

    def patch(found: list[Json]) -> Json:
        return {"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": found}}}}}}

    scene.kube.sandbox.patch_cronjob(patch(listed))
    try:
        yield
    finally:
        scene.kube.sandbox.patch_cronjob(patch(kept))


def test_a_sidecar_that_never_ends_is_named_with_its_remedy(scene: Scene) -> None:
    with containers(scene, proxy_first=False):
        trigger = job_trigger(scene)
    with pytest.raises(AirflowFailException) as caught:
        scene.end(trigger)
    reason, remedy = str(caught.value).split("\n")
    assert reason.startswith("sidecar_left: ")
    assert f"container {CRONJOB} has ended, but proxy still runs" in reason
    assert "native sidecar" in remedy


def test_the_programs_container_is_known_by_name_wherever_it_stands(scene: Scene, tmp_path: Path) -> None:
    """Its log is read, and its last line told, although another container comes first."""
    limits = SHORT["kubernetes"] | {"container": CRONJOB}
    (tmp_path / f"{NAME}.yaml").write_text(yaml.safe_dump(SHORT | {"kubernetes": limits}))
    settings._load.cache_clear()
    with containers(scene, proxy_first=True):
        trigger = job_trigger(scene)
    payload = event_of(trigger).payload
    assert payload["cause"] == "sidecar_left"
    logs = [row for row in scene.kube.sandbox.requests("GET", "/log") if trigger.given["job_name"] in row["path"]]
    assert {row["query"]["container"] for row in logs} <= {CRONJOB}
    assert scene.posted()[0]["body"]["metadata"]["annotations"][ANNOTATION_CONTAINER] == CRONJOB


QUOTA = 'jobs.batch "x" is forbidden: exceeded quota: compute, requested: count/jobs.batch=1, used: 5, limited: 5'


def full(**more: Any) -> Json:
    """The namespace's quota refuses every new Job."""
    return {"kind": "error", "status": 403, "reason": "Forbidden", "message": QUOTA,
            "match": {"method": "POST", "path": "/jobs$"}} | more  # fmt: skip


def test_a_full_quota_is_waited_for_and_the_job_is_made_then(scene: Scene) -> None:
    (rule,) = scene.kube.sandbox.set_faults(full())
    trigger = scene.start()
    assert isinstance(trigger, RoomTrigger)
    looks: list[str] = []
    look = trigger.look

    async def freed() -> Any:
        found = await look()
        looks.append(looked(found))
        scene.kube.sandbox.clear_faults(rule)
        return found

    trigger.look = freed  # type: ignore[method-assign]
    payload = event_of(trigger).payload
    assert "exceeded quota: compute" in looks[0]
    dry = [row["query"].get("dryRun") for row in scene.posted()]
    assert dry == [None, "All", "All"]
    assert payload["kind"] == "go_event"
    assert scene.go()["attempt"] == 1


def test_a_quota_that_stays_full_fails_with_its_words(scene: Scene) -> None:
    scene.kube.sandbox.set_faults(full())
    trigger = scene.start()
    with pytest.raises(AirflowFailException, match=r"quota_exceeded.*longer than 3 s.*exceeded quota: compute"):
        scene.end(trigger)


def test_two_creations_that_meet_at_a_quota_are_no_foreign_job(scene: Scene) -> None:
    message = 'Operation cannot be fulfilled on resourcequotas "compute": the object has been modified'
    scene.kube.sandbox.set_faults(full(status=409, reason="Conflict", message=message, times=1))
    assert isinstance(scene.start(), RoomTrigger)


def test_a_quota_for_pods_is_waited_for_like_one_for_jobs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.kube.sandbox.set_faults({"kind": "no_pod", "match": scene.match})
    trigger = job_trigger(scene)

    async def events(self: KubernetesJobs, uid: str) -> list[Json]:
        return [{"type": "Warning", "reason": "FailedCreate", "message": "exceeded quota: pods", "lastTimestamp": "1"}]

    monkeypatch.setattr(KubernetesJobs, "events", events)
    with pytest.raises(AirflowFailException, match=r"quota_exceeded.*FailedCreate: exceeded quota.*more than 3 s"):
        scene.end(trigger)


# K12, K20, U8


def test_a_refused_token_names_its_connection(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobTrigger, "outage_seconds", 0.5)
    trigger = job_trigger(scene)
    scene.kube.sandbox.set_faults({"kind": "unauthorized", "match": {"method": "GET", "path": "/jobs"}})
    payload = event_of(trigger).payload
    assert payload["cause"] == "outage"
    for part in ("401", "connection 'kubernetes_kube_faults'", "the credentials of this connection are refused"):
        assert part in payload["message"]


def test_a_right_that_is_missing_during_the_wait_fails_at_once(scene: Scene) -> None:
    hang(scene)
    trigger = job_trigger(scene)
    scene.kube.sandbox.deny({"verbs": ["list"], "resources": ["pods"]})
    with pytest.raises(AirflowFailException, match=r"access_denied.*cannot list pods: 403 Forbidden"):
        scene.end(trigger)
    assert scene.deleted() == []


def test_a_right_that_is_missing_before_fails_at_once(scene: Scene) -> None:
    scene.kube.sandbox.deny({"verbs": ["list"], "resources": ["jobs"]})
    with pytest.raises(AirflowFailException, match=r"access_denied.*cannot list jobs"):
        scene.start()


def test_a_failure_says_what_its_pod_says_and_leaves_it_to_the_report(scene: Scene) -> None:
    rule = {"kind": "fail_container", "match": scene.match, "times": 1, "exit_code": 3, "log": "boom: no such table"}
    scene.kube.sandbox.set_faults(rule)
    with pytest.raises(AirflowFailException) as caught:
        scene.go()
    reason, remedy = str(caught.value).split("\n")
    assert "exit code 3 (Error)" in reason
    assert "its last line: boom: no such table" in reason
    assert reason.index("boom") < reason.index("BackoffLimitExceeded")
    assert remedy.startswith("Correct what the pod's lines say, then clear this task")
    left = Failure.from_json(scene.xcoms["windows.reindex", "return_value"])
    assert (left.cause, left.key, left.attempt) == ("job_failed", scene.window.key, 1)


def test_a_job_that_is_gone_leaves_its_reason(scene: Scene) -> None:
    hang(scene)
    trigger = job_trigger(scene)
    wait_running(scene)
    scene.kube.batch.delete_namespaced_job(trigger.given["job_name"], NAMESPACE, propagation_policy="Background")
    with pytest.raises(AirflowFailException, match="job_gone"):
        scene.end(trigger)
    assert scene.xcoms["windows.reindex", "return_value"]["cause"] == "job_gone"


# K2, preflight


def preflight() -> tuple[list[str], list[str]]:
    """Problems and notes of preflight's look at Kubernetes."""
    problems: list[str] = []
    notes: list[str] = []
    kubernetes(settings.cluster_config(NAME), problems, notes)
    return problems, notes


def test_preflight_has_the_job_judged_and_stores_nothing(scene: Scene) -> None:
    before = scene.kube.sandbox.last_request_id()
    assert preflight()[0] == []
    sent = scene.kube.sandbox.mutations("/jobs", since_id=before)
    assert [row["query"].get("dryRun") for row in sent] == ["All"]
    assert scene.kube.sandbox.jobs("scorecard-backfill/window=0000000000000000") == []


def test_preflight_tells_of_a_full_quota_and_fails_on_a_refusal(scene: Scene) -> None:
    (rule,) = scene.kube.sandbox.set_faults(full())
    problems, notes = preflight()
    assert problems == []
    assert [note for note in notes if "no room for a Job now" in note]
    scene.kube.sandbox.clear_faults(rule)
    message = 'admission webhook "policy.example.com" denied the request: no latest tag'
    scene.kube.sandbox.set_faults(full(message=message))
    with pytest.raises(ValueError, match=r"does not take the Job.*policy\.example\.com"):
        preflight()


@pytest.mark.parametrize(
    ("patch", "part"),
    [
        ({"spec": {"parallelism": 3}}, "spec.parallelism to 3"),
        ({"spec": {"backoffLimit": 4}}, "spec.backoffLimit"),
        ({"spec": {"ttlSecondsAfterFinished": 0}}, "removes a Job 0 s after its end"),
    ],
)
def test_preflight_sees_what_a_webhook_makes_of_the_job(scene: Scene, patch: Json, part: str) -> None:
    match = {"method": "POST", "path": "/jobs$"}
    scene.kube.sandbox.set_faults({"kind": "mutate", "match": match, "patch": patch})
    problems, _ = preflight()
    assert [problem for problem in problems if part in problem]


def test_preflight_tells_of_shorter_lives_and_other_arguments(scene: Scene) -> None:
    pod = {"containers": [{"name": CRONJOB, "image": SLEEPER, "args": ["--wrapped"]}]}
    patch = {"spec": {"ttlSecondsAfterFinished": 60, "activeDeadlineSeconds": 5, "template": {"spec": pod}}}
    match = {"method": "POST", "path": "/jobs$"}
    scene.kube.sandbox.set_faults({"kind": "mutate", "match": match, "patch": patch})
    _, notes = preflight()
    said = " ".join(notes)
    for part in ("a Job 60 s after its end", "ends a Job after 5 s", f"changes args of container {CRONJOB}"):
        assert part in said


def test_a_webhook_that_changes_the_window_is_seen_and_its_job_goes(scene: Scene) -> None:
    container = {"name": CRONJOB, "image": "registry.invalid/cron-batch-reindex-conversations:sandbox",
                 "env": [{"name": "RUN_ONLY_FOR_CUSTOMER_IDS", "value": "globex"}]}  # fmt: skip
    patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
    match = {"method": "POST", "path": "/jobs$"}
    scene.kube.sandbox.set_faults({"kind": "mutate", "match": match, "patch": patch})
    problems, _ = preflight()
    assert [problem for problem in problems if "RUN_ONLY_FOR_CUSTOMER_IDS" in problem]
    with pytest.raises(AirflowFailException, match="has changed the window"):
        scene.start()
    assert window_jobs(scene) == []
