"""What a Kubernetes Job's own conditions and its pods say (plain dicts in the API's JSON form)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from include.scorecard_backfill import names
from include.scorecard_backfill.foreign import Manifest
from include.scorecard_backfill.jobtemplate.rules import queue_of

JobState = Literal["active", "suspended", "complete", "failed"]

FIELD_MANAGER = "scorecard-backfill"
"""Name under which the API server notes what we wrote; a webhook's change of our request carries it, too."""

ON_ITS_WAY = frozenset({"", "ContainerCreating", "PodInitializing", "CrashLoopBackOff"})
"""Waiting reasons of a container that may start by itself. Every other one, also one that nobody knows here, is held
against it after the grace time, which lets a short registry limit pass. A native sidecar that crashes has the time of
the whole start."""


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


def _conditions(job: Manifest) -> list[Manifest]:
    return list((job.get("status") or {}).get("conditions") or [])


def job_outcome(job: Manifest) -> JobOutcome:
    """Return the outcome of a Job. Only conditions with status ``True`` count, and only the final two decide.

    ``SuccessCriteriaMet`` and ``FailureTarget`` announce an end that has not come yet: pods may still be running.
    """
    held = {c.get("type"): c for c in _conditions(job) if c.get("status") == "True"}
    for kind, state in (("Failed", "failed"), ("Complete", "complete")):
        if kind in held:
            condition = held[kind]
            return JobOutcome(state, condition.get("reason") or "", condition.get("message") or "")  # type: ignore[arg-type]
    if "Suspended" in held or (job.get("spec") or {}).get("suspend"):
        return JobOutcome("suspended", "Suspended", f"suspended by {suspended_by(job)}: no pod is made until then")
    return JobOutcome("active")


def suspended_by(job: Manifest) -> str:
    """Return who holds a suspended Job back, as far as the Job itself tells, and who will resume it."""
    meta = job.get("metadata") or {}
    if queue := queue_of(meta):
        return f"the queue {queue!r} (Kueue), which resumes it in its turn"
    for entry in reversed(meta.get("managedFields") or []):
        holds = "f:suspend" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
        if holds and entry.get("manager") != FIELD_MANAGER:
            return f"{entry.get('manager', '?')!r}, who has to resume it"
    return "an admission webhook or a person (spec.suspend is true), who has to resume it"


def seconds_of(text: object) -> float | None:
    """Return the epoch seconds of a time of the API, None when there is none."""
    return datetime.fromisoformat(str(text)).timestamp() if text else None


def ended_at(job: Mapping[str, Any]) -> float:
    """Return the epoch seconds at which a Job ended, by the API server's clock; 0 when it does not say."""
    status = job.get("status") or {}
    times = [
        c.get("lastTransitionTime") for c in status.get("conditions") or [] if c.get("type") in ("Complete", "Failed")
    ]
    text = status.get("completionTime") or next((t for t in times if t), None)
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def created_at(job: Manifest) -> float:
    """Return the epoch seconds at which a Job was created, by the API server's clock."""
    return float(seconds_of(job["metadata"]["creationTimestamp"]) or 0.0)


def began_at(job: Manifest) -> float:
    """Return the epoch seconds from which a Job's time counts: its start or last resume, else its creation.

    Kubernetes sets ``status.startTime`` anew when a suspended Job is resumed; its own deadline counts from there, too.
    """
    resumed = [c for c in _conditions(job) if c.get("type") == "Suspended" and c.get("status") == "False"]
    times = [seconds_of(c.get("lastTransitionTime")) for c in resumed]
    times.append(seconds_of((job.get("status") or {}).get("startTime")))
    return max([created_at(job), *(t for t in times if t is not None)])


def suspended_at(job: Manifest) -> float:
    """Return the epoch seconds since which a Job is suspended; its creation when no condition says it."""
    held = [c for c in _conditions(job) if c.get("type") == "Suspended" and c.get("status") == "True"]
    times = [seconds_of(c.get("lastTransitionTime")) for c in held]
    return max([t for t in times if t is not None], default=created_at(job))


def start_problem(pods: Iterable[Manifest]) -> str:
    """Return why a container cannot start (image and reason), or '' when none is held up by its image or config."""
    for pod in pods:
        status = pod.get("status") or {}
        for container in (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or []):
            waiting = (container.get("state") or {}).get("waiting") or {}
            if (waiting.get("reason") or "") not in ON_ITS_WAY:
                name = (pod.get("metadata") or {}).get("name", "?")
                detail = f": {waiting['message']}" if waiting.get("message") else ""
                return f"pod {name}: image {container.get('image', '?')}: {waiting['reason']}{detail}"
    return ""


def held_up(pods: Iterable[Manifest], container: str) -> str:
    """Return :func:`start_problem`, but '' while the program itself runs: it is not ended because of another one."""
    listed = list(pods)
    if any((state or {}).get("running") for state in _states(listed, container)):
        return ""
    return start_problem(listed)


def has_ended(pods: Iterable[Manifest], container: str) -> bool:
    """Return True when the container with our program has run to its end in some pod."""
    return any((state or {}).get("terminated") for state in _states(pods, container))


def _states(pods: Iterable[Manifest], container: str) -> list[Manifest | None]:
    return [
        status.get("state")
        for pod in pods
        for status in (pod.get("status") or {}).get("containerStatuses") or []
        if status.get("name") == container
    ]


def may_run(pods: Iterable[Manifest]) -> list[str]:
    """Return the names of pods that have not ended; one that is being deleted runs until its grace period is over."""
    ended = ("Succeeded", "Failed")
    return [pod["metadata"]["name"] for pod in pods if (pod.get("status") or {}).get("phase") not in ended]


def started(pods: Iterable[Manifest]) -> bool:
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


def left_running(pods: Iterable[Manifest], container: str) -> list[str]:
    """Return the names of the containers that run although the one with our program has ended in the same pod."""
    found: list[str] = []
    for pod in pods:
        states = {c.get("name"): c.get("state") or {} for c in (pod.get("status") or {}).get("containerStatuses") or []}
        if (states.get(container) or {}).get("terminated"):
            found += [str(name) for name, state in states.items() if name != container and state.get("running")]
    return list(dict.fromkeys(found))


def of_other_plans(jobs: Iterable[Manifest], customer_id: str, keys: Container[str]) -> list[str]:
    """Return the names of a customer's running Jobs of windows that are not among ``keys``, those of a run's plan."""
    mine = names.label_value(customer_id)
    labelled = [(job["metadata"]["name"], job["metadata"].get("labels") or {}, job) for job in jobs]
    return [
        name
        for name, labels, job in labelled
        if labels.get(names.LABEL_CUSTOMER) == mine
        and labels.get(names.LABEL_WINDOW) not in keys
        and not job_outcome(job).final
    ]


def scheduled_jobs(jobs: Iterable[Manifest], cronjob: str) -> list[str]:
    """Return the names of running Jobs that the CronJob's own schedule made."""
    return [
        job["metadata"]["name"]
        for job in jobs
        if not job_outcome(job).final
        and any(
            owner.get("kind") == "CronJob" and owner.get("name") == cronjob
            for owner in job["metadata"].get("ownerReferences") or []
        )
    ]
