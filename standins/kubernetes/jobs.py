"""What the Job controller does next for one Job: a pure function of the Job, its pods and the time.

It works in the steps of the real controller: count ended pods, handle suspension, add the interim condition
(SuccessCriteriaMet or FailureTarget), and only when no pod is left the final one (Complete or Failed).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from standins.kubernetes.clock import rfc3339
from standins.kubernetes.resources import TRACKING_FINALIZER, Obj

MAX_BACKOFF = timedelta(seconds=600)  # of pkg/controller/job
REACHED = ("CompletionsReached", "Reached expected number of succeeded pods")
BACKOFF_LIMIT = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
DEADLINE = ("DeadlineExceeded", "Job was active longer than specified deadline")


@dataclass
class JobPlan:
    """What to do: the new status, pods to make, names of pods to delete or to release; ``expired``: the TTL is over."""

    status: Obj
    create: int = 0
    delete: list[str] = field(default_factory=list)
    release: list[str] = field(default_factory=list)
    expired: bool = False
    events: list[tuple[str, str, str]] = field(default_factory=list)


def condition(status: Obj, kind: str) -> Obj | None:
    """The condition of this type with status True, or None."""
    found = (c for c in status.get("conditions", []) if c["type"] == kind and c["status"] == "True")
    return next(found, None)


def finished(status: Obj) -> Obj | None:
    """The final condition that is True (Complete or Failed), or None."""
    return condition(status, "Complete") or condition(status, "Failed")


def _set_condition(status: Obj, kind: str, why: tuple[str, str], now: datetime, value: str = "True") -> None:
    entry = {"type": kind, "status": value, "reason": why[0], "message": why[1]}
    times = dict.fromkeys(("lastProbeTime", "lastTransitionTime"), rfc3339(now))
    status["conditions"] = [*(c for c in status.get("conditions", []) if c["type"] != kind), entry | times]


def pod_phase(pod: Obj) -> str:
    """The pod's phase, Pending if it has none."""
    return str(pod.get("status", {}).get("phase", "Pending"))


def _ended(pod: Obj) -> bool:
    return pod_phase(pod) in ("Succeeded", "Failed")


def _active(pod: Obj) -> bool:
    return not _ended(pod) and not pod["metadata"].get("deletionTimestamp")


def plan_job(job: Obj, pods: Sequence[Obj], now: datetime, backoff: timedelta, hold: bool = False) -> JobPlan:
    """The next step for a Job that is not being deleted. ``backoff`` is the wait after the first failed pod.

    ``hold`` keeps new pods from being made (a fault). Called again with the result applied, it gives the step
    after.
    """
    spec, status = job["spec"], copy.deepcopy(job.get("status") or {})
    plan = JobPlan(status)
    _count_ended(status, pods, plan)
    if final := finished(status):
        ended, ttl = datetime.fromisoformat(final["lastTransitionTime"]), spec.get("ttlSecondsAfterFinished")
        plan.expired = ttl is not None and now >= ended + timedelta(seconds=ttl)
    elif spec.get("suspend"):
        _suspend(status, pods, plan, now)
    else:
        if resumed := condition(status, "Suspended"):
            _set_condition(status, resumed["type"], ("JobResumed", "Job resumed"), now, "False")
            plan.events.append(("Normal", "Resumed", "Job resumed"))
        status.setdefault("startTime", rfc3339(now))
        _advance(spec, status, pods, plan, now, backoff, hold)
    _count_active(status, pods, plan)
    return plan


def _count_ended(status: Obj, pods: Sequence[Obj], plan: JobPlan) -> None:
    for pod in pods:
        if TRACKING_FINALIZER in pod["metadata"].get("finalizers", []) and not _active(pod):
            plan.release.append(pod["metadata"]["name"])
            # One that is being deleted has failed, too (isPodFailed of the real controller).
            count = "succeeded" if pod_phase(pod) == "Succeeded" else "failed"
            status[count] = status.get(count, 0) + 1


def _suspend(status: Obj, pods: Sequence[Obj], plan: JobPlan, now: datetime) -> None:
    """End what runs; released first, so that it never counts (as deleteJobPods does)."""
    active = [pod["metadata"]["name"] for pod in pods if _active(pod)]
    plan.release += active
    plan.delete += active
    status.pop("startTime", None)
    if condition(status, "Suspended") is None:
        _set_condition(status, "Suspended", ("JobSuspended", "Job suspended"), now)
        plan.events.append(("Normal", "Suspended", "Job suspended"))


def _advance(
    spec: Obj, status: Obj, pods: Sequence[Obj], plan: JobPlan, now: datetime, backoff: timedelta, hold: bool
) -> None:
    active = [pod["metadata"]["name"] for pod in pods if _active(pod)]
    missing = _missing(spec, status, len(active))
    if interim := condition(status, "SuccessCriteriaMet") or condition(status, "FailureTarget"):
        plan.delete += active
        if all(_ended(pod) for pod in pods):
            _finish(status, interim, plan, now)
    elif int(status.get("failed", 0)) > int(spec["backoffLimit"]):
        _set_condition(status, "FailureTarget", BACKOFF_LIMIT, now)
    elif _past_deadline(spec, status, now):
        _set_condition(status, "FailureTarget", DEADLINE, now)
    elif missing <= 0:
        _set_condition(status, "SuccessCriteriaMet", REACHED, now)
    elif not hold and now >= _next_start(status, pods, backoff):
        plan.create = max(min(int(spec["parallelism"]), missing) - len(active), 0)


def _missing(spec: Obj, status: Obj, active: int) -> int:
    """How many pods have still to succeed; without completions, those that run when the first has succeeded."""
    succeeded = int(status.get("succeeded", 0))
    if spec.get("completions") is not None:
        return int(spec["completions"]) - succeeded
    return active if succeeded else max(int(spec["parallelism"]), 1)


def _finish(status: Obj, interim: Obj, plan: JobPlan, now: datetime) -> None:
    why = (interim["reason"], interim["message"])
    if interim["type"] == "FailureTarget":
        _set_condition(status, "Failed", why, now)
        plan.events.append(("Warning", *why))
    else:
        _set_condition(status, "Complete", why, now)
        status["completionTime"] = rfc3339(now)
        plan.events.append(("Normal", "Completed", "Job completed"))


def _past_deadline(spec: Obj, status: Obj, now: datetime) -> bool:
    seconds = spec.get("activeDeadlineSeconds")
    return seconds is not None and now >= datetime.fromisoformat(status["startTime"]) + timedelta(seconds=seconds)


def _next_start(status: Obj, pods: Sequence[Obj], backoff: timedelta) -> datetime:
    ends = [
        datetime.fromisoformat(entry["state"]["terminated"]["finishedAt"])
        for pod in pods
        if pod_phase(pod) == "Failed"
        for entry in pod["status"].get("containerStatuses", [])
        if "terminated" in entry["state"]
    ]
    if not ends:
        return datetime.fromisoformat(status["startTime"])
    doubled = backoff * 2 ** min(max(int(status.get("failed", 1)) - 1, 0), 10)
    return max(ends) + min(doubled, MAX_BACKOFF)


def _count_active(status: Obj, pods: Sequence[Obj], plan: JobPlan) -> None:
    live = [pod for pod in pods if _active(pod) and pod["metadata"]["name"] not in plan.delete]
    conditions = [c for pod in live for c in pod["status"].get("conditions", [])]
    status["ready"] = sum(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    status["terminating"] = sum(not _ended(pod) and not _active(pod) for pod in pods) + len(plan.delete)
    status["uncountedTerminatedPods"] = {}
    status.pop("active", None)
    if active := len(live) + plan.create:
        status["active"] = active
