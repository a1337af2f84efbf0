"""A Job that has not ended: whose time passes, who holds it back, and what its pods say about its end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from include.scorecard_backfill.verdicts import jobs, jobwait
from include.scorecard_backfill.verdicts.jobs import JobOutcome
from include.scorecard_backfill.verdicts.podreasons import (
    SIDECAR_REMEDY,
    Why,
    create_refusal,
    failure,
    pod_reason,
    warning_of,
)

Json = dict[str, Any]
LIMITS = jobwait.Limits(deadline=3_600, startup=600, pull_grace=120, queue=86_400)


def at(seconds: float) -> str:
    """A time of the API, this many seconds after the epoch."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(start: float | None = 0, conditions: list[Json] | None = None, **spec: Any) -> Json:
    status: Json = {"conditions": conditions or []} | ({} if start is None else {"startTime": at(start)})
    return {"metadata": {"name": "j", "creationTimestamp": at(0)}, "spec": spec, "status": status}


def pod(*states: tuple[str, Json], phase: str = "Running", **status: Any) -> Json:
    listed = [{"name": name, "image": "i", "state": state} for name, state in states]
    return {"metadata": {"name": "p"}, "status": {"phase": phase, "containerStatuses": listed} | status}


def ended(code: int, reason: str = "Error", **more: Any) -> Json:
    return {"terminated": {"exitCode": code, "reason": reason} | more}


RUNNING = {"running": {"startedAt": at(1)}}
ACTIVE = pod(("reindex", RUNNING))
BESIDE = pod(("proxy", RUNNING), ("reindex", ended(0, "Completed")))


def judge(found: Json, pods: list[Json], now: float, **facts: Any) -> str | Why:
    return jobwait.judge(jobwait.Facts(found, pods, now, "reindex", **facts), LIMITS)


def test_a_job_in_time_is_waited_for() -> None:
    assert judge(job(), [ACTIVE], 3_600) == "Job j: 0 active, 1 pods"


def test_its_deadline_counts_from_its_start_or_last_resume_and_not_from_its_creation() -> None:
    late = judge(job(), [ACTIVE], 3_601)
    assert isinstance(late, Why)
    assert late.cause == "job_deadline"
    assert judge(job(start=10_000), [ACTIVE], 13_600) == "Job j: 0 active, 1 pods"
    resumed = [{"type": "Suspended", "status": "False", "lastTransitionTime": at(20_000)}]
    assert judge(job(10_000, resumed), [ACTIVE], 23_600) == "Job j: 0 active, 1 pods"
    assert isinstance(judge(job(10_000, resumed), [ACTIVE], 23_601), Why)


def test_a_suspended_job_has_the_patience_for_queues_and_names_who_holds_it() -> None:
    held = [{"type": "Suspended", "status": "True", "lastTransitionTime": at(5)}]
    found = job(None, held, suspend=True)
    assert "suspended by an admission webhook or a person" in str(judge(found, [], 5 + 86_400))
    found["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "batch"}
    late = judge(found, [], 6 + 86_400)
    assert isinstance(late, Why)
    assert late.cause == "job_suspended"
    assert "suspended by the queue 'batch' (Kueue)" in late.text
    assert "kubernetes.queue_timeout_seconds" in late.text


def test_who_has_written_suspend_is_named() -> None:
    fields: Json = {"f:spec": {"f:suspend": {}}}
    held = job(None, suspend=True)
    held["metadata"]["managedFields"] = [{"manager": "ops-tool", "operation": "Update", "fieldsV1": fields}]
    assert "suspended by 'ops-tool'" in jobs.job_outcome(held).message
    held["metadata"]["managedFields"][0]["manager"] = jobs.FIELD_MANAGER
    assert "a webhook or a person" in jobs.job_outcome(held).message.replace("an admission webhook", "a webhook")
    assert jobs.suspended_at(job(None)) == 0


def test_a_sidecar_that_outlives_the_program_is_named_while_it_is_waited_for_and_at_the_deadline() -> None:
    left = jobs.left_running([BESIDE], "reindex")
    assert left == ["proxy"]
    assert str(judge(job(), [BESIDE], 10, left=left)).endswith("container reindex has ended, proxy still runs")
    late = judge(job(), [BESIDE], 3_601, left=left)
    assert isinstance(late, Why)
    assert (late.cause, late.do) == ("sidecar_left", SIDECAR_REMEDY)
    assert "container reindex has ended, but proxy still runs" in late.text
    assert "native sidecar" in late.do
    # Kubernetes' own deadline is the same, and removes the pods.
    why = failure(JobOutcome("failed", "DeadlineExceeded", "too long"), [], "reindex", [], left)
    assert (why.cause, why.do) == ("sidecar_left", SIDECAR_REMEDY)


@pytest.mark.parametrize(
    "pods",
    [[], [ACTIVE], [pod(("proxy", RUNNING))], [pod(("reindex", ended(0)), ("proxy", ended(0)))], [{"status": None}]],
)
def test_no_sidecar_is_blamed_while_the_program_runs_or_when_all_have_ended(pods: list[Json]) -> None:
    assert jobs.left_running(pods, "reindex") == []


def test_a_pod_that_does_not_start_ends_at_its_limit_with_the_words_of_its_events() -> None:
    assert judge(job(), [], 600) == "Job j: 0 active, 0 pods"
    late = judge(job(), [], 601, warning="FailedScheduling: 0/3 nodes are available")
    assert isinstance(late, Why)
    assert late.cause == "cannot_start"
    assert late.text.endswith("(0 pods exist); FailedScheduling: 0/3 nodes are available")
    assert "quota, nodes and events" in judge(job(), [], 601).text  # type: ignore[union-attr]


def test_a_quota_for_pods_is_a_queue() -> None:
    warning = 'FailedCreate: pods "x" is forbidden: exceeded quota: compute'
    assert "no pod of Job j may be made: FailedCreate" in str(judge(job(), [], 86_400, warning=warning))
    late = judge(job(), [], 86_401, warning=warning)
    assert isinstance(late, Why)
    assert late.cause == "quota_exceeded"
    # An old warning of a pod that runs by now means nothing.
    assert judge(job(), [ACTIVE], 10, warning=warning) == "Job j: 0 active, 1 pods"


def test_an_image_has_its_grace() -> None:
    broken = pod(("reindex", {"waiting": {"reason": "ErrImagePull"}}), phase="Pending")
    assert "given 120 s to recover" in str(judge(job(), [broken], 200, held_since=81))
    late = judge(job(), [broken], 200, held_since=80)
    assert isinstance(late, Why)
    assert late.cause == "cannot_start"
    assert "given 120 s" in str(judge(job(), [broken], 200))
    # At the deadline the image is the reason, not the time.
    late = judge(job(), [broken], 3_601, held_since=3_600)
    assert isinstance(late, Why)
    assert late.cause == "cannot_start"


def test_a_program_that_runs_is_not_ended_because_of_another_container() -> None:
    stuck = {"waiting": {"reason": "ImagePullBackOff"}}
    both = pod(("proxy", stuck), ("reindex", RUNNING))
    assert jobs.held_up([both], "reindex") == ""
    assert judge(job(), [both], 1_000, held_since=1) == "Job j: 0 active, 1 pods"
    # Once it has ended, the other one keeps the Job alive, and is named.
    over = pod(("proxy", stuck), ("reindex", ended(0, "Completed")))
    late = judge(job(), [over], 1_000, held_since=1)
    assert isinstance(late, Why)
    assert late.cause == "sidecar_left"
    assert "container reindex has ended, but pod p: image i: ImagePullBackOff" in late.text
    assert "image" in late.do


@pytest.mark.parametrize(
    ("found", "cause", "part"),
    [
        (pod(("reindex", ended(3, message="bad\n table")), phase="Failed"), "job_failed",
         "container reindex ended with exit code 3 (Error): bad table"),
        (pod(("proxy", ended(1)), ("reindex", ended(137, "OOMKilled")), phase="Failed"), "oom_killed",
         "container reindex ended with exit code 137 (OOMKilled)"),
        (pod(phase="Failed", reason="Evicted", message="disk pressure"), "job_failed", "Evicted: disk pressure"),
        (pod(("proxy", ended(1)), phase="Failed"), "job_failed", "container proxy ended with exit code 1"),
        (pod(phase="Failed", initContainerStatuses=[{"name": "wait", "state": ended(2)}]), "job_failed",
         "container wait ended with exit code 2"),
    ],
)  # fmt: skip
def test_the_pods_own_reason_comes_first(found: Json, cause: str, part: str) -> None:
    why = failure(JobOutcome("failed", "BackoffLimitExceeded", "limit"), [found], "reindex", ["a", "boom", " "], [])
    assert why.cause == cause
    assert part in why.text
    assert why.text.endswith("; its last line: boom (BackoffLimitExceeded: limit)")
    assert why.do


def test_a_failed_job_without_pods_says_what_is_known() -> None:
    why = failure(JobOutcome("failed", "BackoffLimitExceeded", "limit"), [], "reindex", [], [])
    assert (why.cause, why.text) == ("job_failed", "BackoffLimitExceeded: limit")
    assert pod_reason([pod(("reindex", ended(0)), phase="Succeeded")], "reindex") is None
    assert failure(JobOutcome("failed"), [], "reindex", [], []).text == "it failed"


def test_the_newest_warning_is_told_in_one_line() -> None:
    def event(when: str, message: str, kind: str = "Warning") -> Json:
        return {"type": kind, "reason": "FailedCreate", "message": message, "lastTimestamp": when}

    listed = [event("2", "new\nline"), event("1", "old"), event("3", "fine", "Normal"), event("4", "")]
    assert warning_of(listed) == "FailedCreate: new line"
    assert warning_of([event("3", "fine", "Normal")]) == ""


def test_of_the_moments_of_an_event_the_last_is_taken_then_its_own_then_its_creation() -> None:
    def event(message: str, created: str, **moments: str | None) -> Json:
        meta = {"metadata": {"creationTimestamp": created}} if created else {}
        return {"type": "Warning", "reason": "Failed", "message": message, **meta, **moments}

    last = event("last", "1", lastTimestamp="5", eventTime="2")
    own = event("own", "9", lastTimestamp=None, eventTime="4")
    made = event("made", "3")
    never = event("never", "")
    for listed, newest in (
        ([own, last, made, never], "last"), ([made, own, never], "own"), ([never, made], "made"), ([never], "never"),
    ):  # fmt: skip
        assert warning_of(listed) == f"Failed: {newest}"
        assert warning_of(listed[::-1]) == f"Failed: {newest}"
    assert warning_of([{"type": "Warning", "message": "x" * 400}]) == f"Warning: {'x' * 300}"


@pytest.mark.parametrize(
    ("status", "message", "meaning"),
    [
        (409, 'jobs.batch "x" already exists', "exists"),
        (409, 'Operation cannot be fulfilled on resourcequotas "q": the object has been modified', "quota"),
        (403, 'jobs.batch "x" is forbidden: exceeded quota: q', "quota"),
        (403, "failed quota: q: must specify limits.cpu", "forbidden"),
        (403, 'User "u" cannot create resource "jobs"', "forbidden"),
        (400, "strict decoding error", "invalid"),
        (404, "namespaces not found", "invalid"),
        (422, "is invalid", "invalid"),
        (500, "etcd", ""),
        (401, "Unauthorized", ""),
        (None, "reset", ""),
    ],
)
def test_a_refused_creation_is_told_apart(status: int | None, message: str, meaning: str) -> None:
    assert create_refusal(status, "", message) == meaning
