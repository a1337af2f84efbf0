"""What a Kubernetes Job's own conditions and its pods say (plain dicts in the API's JSON form)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

JobState = Literal["active", "suspended", "complete", "failed"]

PULL_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"})
"""Waiting reasons of a container that will not start by itself; the grace time lets a short registry limit pass."""


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """State of a Job by its conditions; ``complete`` and ``failed`` are final."""

    state: JobState
    reason: str = ""
    message: str = ""

    @property
    def final(self) -> bool:
        """True when the Job will not change any more."""
        return self.state in ("complete", "failed")


def job_outcome(job: Mapping[str, Any]) -> JobOutcome:
    """Return the outcome of a Job. Only conditions with status ``True`` count, and only the final two decide.

    ``SuccessCriteriaMet`` and ``FailureTarget`` announce an end that has not come yet: pods may still be running.
    """
    held = {c.get("type"): c for c in (job.get("status") or {}).get("conditions") or [] if c.get("status") == "True"}
    for kind, state in (("Failed", "failed"), ("Complete", "complete")):
        if kind in held:
            condition = held[kind]
            return JobOutcome(state, condition.get("reason") or "", condition.get("message") or "")  # type: ignore[arg-type]
    if "Suspended" in held or (job.get("spec") or {}).get("suspend"):
        return JobOutcome("suspended", "Suspended", "spec.suspend is true: no pod is made until it is resumed")
    return JobOutcome("active")


def start_problem(pods: Iterable[Mapping[str, Any]]) -> str:
    """Return why a container cannot start (image and reason), or '' when none is held up by its image or config."""
    for pod in pods:
        status = pod.get("status") or {}
        for container in (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or []):
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in PULL_REASONS:
                name = (pod.get("metadata") or {}).get("name", "?")
                detail = f": {waiting['message']}" if waiting.get("message") else ""
                return f"pod {name}: image {container.get('image', '?')}: {waiting['reason']}{detail}"
    return ""


def may_run(pods: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of pods that have not ended; one that is being deleted runs until its grace period is over."""
    ended = ("Succeeded", "Failed")
    return [pod["metadata"]["name"] for pod in pods if (pod.get("status") or {}).get("phase") not in ended]


def started(pods: Iterable[Mapping[str, Any]]) -> bool:
    """Return True when any container of any pod ever ran."""
    for pod in pods:
        status = pod.get("status") or {}
        if status.get("phase") in ("Running", "Succeeded", "Failed"):
            return True
        for container in status.get("containerStatuses") or []:
            state = container.get("state") or {}
            if state.get("running") or state.get("terminated"):
                return True
    return False
