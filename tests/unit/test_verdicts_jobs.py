"""Jobs: only final conditions end one, and pods that cannot start are named."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from include.scorecard_backfill.verdicts.jobs import (
    JobOutcome,
    began_at,
    job_outcome,
    start_problem,
    started,
    suspended_at,
)


def job(*conditions: tuple[str, str], suspend: bool = False) -> dict[str, Any]:
    listed = [
        {"type": kind, "status": status, "reason": f"{kind}Reason", "message": "m"} for kind, status in conditions
    ]
    return {"spec": {"suspend": suspend}, "status": {"conditions": listed}}


@pytest.mark.parametrize(
    ("manifest", "state"),
    [
        ({}, "active"),
        ({"status": None}, "active"),
        ({"status": {"conditions": None}}, "active"),
        (job(("Complete", "False"), ("Failed", "False")), "active"),
        (job(("Failed", "Unknown")), "active"),
        (job(("SuccessCriteriaMet", "True")), "active"),
        (job(("FailureTarget", "True")), "active"),
        (job(("SuccessCriteriaMet", "True"), ("Complete", "True")), "complete"),
        (job(("FailureTarget", "True"), ("Failed", "True")), "failed"),
        (job(("Suspended", "True")), "suspended"),
        (job(("Suspended", "False")), "active"),
        (job(suspend=True), "suspended"),
        (job(("Complete", "True"), suspend=True), "complete"),
        (job(("Failed", "True"), ("Suspended", "True")), "failed"),
    ],
)
def test_only_a_final_condition_that_is_true_ends_a_job(manifest: dict[str, Any], state: str) -> None:
    outcome = job_outcome(manifest)
    assert outcome.state == state
    assert outcome.final is (state in ("complete", "failed"))


def test_the_order_of_conditions_does_not_matter_and_a_failure_is_told_with_its_reason() -> None:
    listed = (("FailureTarget", "True"), ("Complete", "False"), ("Failed", "True"))
    for order in itertools.permutations(listed):
        assert job_outcome(job(*order)) == JobOutcome("failed", "FailedReason", "m")
    bare = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    assert job_outcome(bare) == JobOutcome("complete")


def pod(state: dict[str, Any] | None = None, *, phase: str = "Pending", init: bool = False) -> dict[str, Any]:
    statuses = "initContainerStatuses" if init else "containerStatuses"
    return {
        "metadata": {"name": "reindex-1"},
        "status": {"phase": phase, statuses: [{"image": "registry.example/a:1", "state": state}]},
    }


@pytest.mark.parametrize(
    "reason", ["ErrImagePull", "CreateContainerError", "RunContainerError", "ErrImageNeverPull", "NotYetInvented"]
)
@pytest.mark.parametrize("init", [True, False])
def test_a_container_that_cannot_start_is_named_with_pod_image_and_reason(reason: str, init: bool) -> None:
    waiting = {"waiting": {"reason": reason, "message": "not found"}}
    assert start_problem([pod(), pod(waiting, init=init)]) == (
        f"pod reindex-1: image registry.example/a:1: {reason}: not found"
    )
    assert start_problem([pod({"waiting": {"reason": reason}}, init=init)]).endswith(reason)


@pytest.mark.parametrize(
    "pods",
    [
        [],
        [{}],
        [{"status": None}],
        [{"status": {"phase": "Pending"}}],
        [pod(None)],
        [pod({"waiting": {"reason": "ContainerCreating"}})],
        [pod({"waiting": {"reason": "PodInitializing"}})],
        [pod({"waiting": {"reason": "CrashLoopBackOff"}}, init=True)],
        [pod({"waiting": None})],
    ],
)
def test_a_pod_that_is_on_its_way_is_no_problem_and_has_not_started(pods: list[dict[str, Any]]) -> None:
    assert start_problem(pods) == ""
    assert started(pods) is False


@pytest.mark.parametrize(
    "found",
    [
        pod(phase="Running"),
        pod(phase="Succeeded"),
        pod(phase="Failed"),
        pod({"running": {"startedAt": "2026-01-01T00:00:00Z"}}),
        pod({"terminated": {"exitCode": 1}}),
    ],
)
def test_a_container_that_ever_ran_has_started(found: dict[str, Any]) -> None:
    assert started([pod(), found]) is True
    assert start_problem([found]) == ""


def clocked(start: str | None, *conditions: tuple[str, str, str]) -> dict[str, Any]:
    """A Job made at 00:00:01 UTC of the epoch, with its start and its conditions (type, status, time)."""
    listed = [
        {"type": kind, "status": status, "lastTransitionTime": f"1970-01-01T00:00:{at}Z"}
        for kind, status, at in conditions
    ]
    status = {"conditions": listed, **({"startTime": f"1970-01-01T00:00:{start}Z"} if start else {})}
    return {"metadata": {"creationTimestamp": "1970-01-01T00:00:01Z"}, "status": status}


@pytest.mark.parametrize(
    ("manifest", "began", "suspended"),
    [
        (clocked(None), 1, 1),
        (clocked("05"), 5, 1),
        (clocked("05", ("Suspended", "True", "09")), 5, 9),
        (clocked("05", ("Suspended", "False", "09")), 9, 1),
        # Conditions of another type say nothing about it, whatever their status.
        (clocked("05", ("Failed", "False", "30"), ("Complete", "True", "40")), 5, 1),
    ],
)
def test_a_jobs_time_counts_from_its_start_or_its_last_resume(
    manifest: dict[str, Any], began: float, suspended: float
) -> None:
    assert (began_at(manifest), suspended_at(manifest)) == (began, suspended)
