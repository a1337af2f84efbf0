"""The Job controller's decision: a pure function of Job, pods and time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from standins.kubernetes.clock import rfc3339
from standins.kubernetes.defaults import job_spec_defaults
from standins.kubernetes.jobs import JobPlan, condition, finished, plan_job
from standins.kubernetes.resources import TRACKING_FINALIZER

Json = dict[str, Any]
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BACKOFF = timedelta(seconds=1)


def job(status: Json | None = None, **spec: Any) -> Json:
    """A Job with the server's defaults."""
    full: Json = {"template": {"spec": {"containers": [], "restartPolicy": "Never"}}, **spec}
    job_spec_defaults(full)
    return {"spec": full, "status": status or {}}


def pod(phase: str, tracked: bool = True, deleted: bool = False, name: str = "p", ended: datetime = NOW) -> Json:
    """A pod of the Job; ``tracked``: not counted yet."""
    meta: Json = {"name": name, "finalizers": [TRACKING_FINALIZER] if tracked else []}
    if deleted:
        meta["deletionTimestamp"] = rfc3339(NOW)
    status: Json = {"phase": phase}
    if phase in ("Succeeded", "Failed"):
        status["containerStatuses"] = [{"state": {"terminated": {"finishedAt": rfc3339(ended)}}}]
    return {"metadata": meta, "status": status}


def plan(wanted: Json, *pods: Json, now: datetime = NOW, hold: bool = False) -> JobPlan:
    """The next step."""
    return plan_job(wanted, pods, now, BACKOFF, hold)


def test_a_new_job_gets_its_start_and_a_pod() -> None:
    step = plan(job())
    assert (step.create, step.status["active"], step.status["startTime"]) == (1, 1, rfc3339(NOW))


def test_a_held_job_gets_none() -> None:
    assert plan(job(), hold=True).create == 0


@pytest.mark.parametrize(
    ("spec", "pods"),
    [
        ({"parallelism": 0}, 0),
        ({"parallelism": 3}, 3),
        ({"parallelism": 3, "completions": 1}, 1),
        ({"parallelism": 2, "completions": 5}, 2),
        ({"suspend": True}, 0),
    ],
)
def test_pods_at_the_start(spec: Json, pods: int) -> None:
    assert plan(job(**spec)).create == pods


def test_success_takes_two_steps() -> None:
    first = plan(job({"startTime": rfc3339(NOW)}), pod("Succeeded"))
    assert first.release == ["p"]
    assert first.status["succeeded"] == 1
    assert condition(first.status, "SuccessCriteriaMet")
    assert finished(first.status) is None
    second = plan(job(first.status), pod("Succeeded", tracked=False))
    assert (finished(second.status) or {})["type"] == "Complete"
    assert second.status["succeeded"] == 1


def test_failure_waits_until_no_pod_is_left() -> None:
    wanted = job({"startTime": rfc3339(NOW)}, backoffLimit=0, completions=2, parallelism=2)
    running = pod("Running", name="q")
    first = plan(wanted, pod("Failed"), running)
    assert condition(first.status, "FailureTarget")
    wanted["status"] = first.status
    second = plan(wanted, pod("Failed", tracked=False), running)
    assert second.delete == ["q"]
    assert finished(second.status) is None
    wanted["status"] = second.status
    third = plan(wanted, pod("Failed", tracked=False), pod("Running", deleted=True, name="q"))
    assert finished(third.status) is None
    wanted["status"] = third.status
    last = plan(wanted, pod("Failed", tracked=False))
    assert (finished(last.status) or {})["type"] == "Failed"
    assert last.status["failed"] == 2


def test_a_pod_that_is_being_deleted_is_failed_at_once_and_not_replaced() -> None:
    step = plan(job({"startTime": rfc3339(NOW)}, backoffLimit=0), pod("Running", deleted=True))
    assert (step.create, step.status["failed"]) == (0, 1)
    assert condition(step.status, "FailureTarget")


def test_the_back_off_doubles() -> None:
    status = {"startTime": rfc3339(NOW), "failed": 2}
    failed = pod("Failed", tracked=False, ended=NOW)
    wanted = job(status, backoffLimit=5)
    assert plan(wanted, failed, now=NOW + timedelta(seconds=1.9)).create == 0
    assert plan(wanted, failed, now=NOW + timedelta(seconds=2)).create == 1


def test_the_deadline_counts_from_the_start() -> None:
    wanted = job({"startTime": rfc3339(NOW)}, activeDeadlineSeconds=10)
    assert condition(plan(wanted, pod("Running"), now=NOW + timedelta(seconds=9)).status, "FailureTarget") is None
    late = condition(plan(wanted, pod("Running"), now=NOW + timedelta(seconds=10)).status, "FailureTarget")
    assert (late or {})["reason"] == "DeadlineExceeded"


def test_suspending_removes_the_start() -> None:
    wanted = job({"startTime": rfc3339(NOW)}, suspend=True)
    step = plan(wanted, pod("Running"))
    assert step.delete == ["p"]
    assert "startTime" not in step.status
    assert (condition(step.status, "Suspended") or {})["reason"] == "JobSuspended"


@pytest.mark.parametrize(("after", "expired"), [(59, False), (60, True)])
def test_the_ttl_counts_from_the_end(after: int, expired: bool) -> None:
    end = {"type": "Complete", "status": "True", "lastTransitionTime": rfc3339(NOW)}
    wanted = job({"conditions": [end]}, ttlSecondsAfterFinished=60)
    assert plan(wanted, now=NOW + timedelta(seconds=after)).expired is expired


@given(
    phases=st.lists(st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]), max_size=5),
    parallelism=st.integers(0, 4),
    completions=st.integers(1, 4),
)
def test_never_more_pods_than_parallelism_and_missing_completions(
    phases: list[str], parallelism: int, completions: int
) -> None:
    wanted = job({"startTime": rfc3339(NOW)}, parallelism=parallelism, completions=completions, backoffLimit=9)
    pods = [pod(phase, name=f"p{index}") for index, phase in enumerate(phases)]
    step = plan(wanted, *pods, now=NOW + timedelta(hours=1))
    active = sum(phase in ("Pending", "Running") for phase in phases) - len(step.delete) + step.create
    succeeded = phases.count("Succeeded")
    assert step.status.get("succeeded", 0) == succeeded
    assert step.status.get("failed", 0) == phases.count("Failed")
    if condition(step.status, "SuccessCriteriaMet"):
        assert succeeded >= completions
        assert step.create == 0
    else:
        # A Job with more pods than it may have ends none of them here: no client takes parallelism back.
        running = sum(phase in ("Pending", "Running") for phase in phases)
        assert active == max(min(parallelism, completions - succeeded), running)
