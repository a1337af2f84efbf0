"""Why a Job did not come to a good end, in the words of its pods and events, and what a person does about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from include.scorecard_backfill.foreign import Manifest
from include.scorecard_backfill.verdicts.jobs import JobOutcome

LINE_LENGTH = 300
"""Characters of the pod's last line that a failure quotes."""

QUOTA = "exceeded quota"
"""Words of a namespace's ResourceQuota in every refusal that is due to it."""

SIDECAR_REMEDY = (
    "let it end with the program (its own switch, for example a call to its quit address), make it a native sidecar (an"
    " initContainer with restartPolicy: Always), or keep it out of these pods (for Istio the label"
    " sidecar.istio.io/inject: 'false' in the CronJob's template); otherwise the next Job ends the same way"
)


@dataclass(frozen=True, slots=True)
class Why:
    """A failure: ``cause`` is the word for the record, ``text`` the reason, ``do`` what a person does, '' = nothing."""

    cause: str
    text: str
    do: str = ""


def pod_reason(pods: Iterable[Manifest], container: str) -> Why | None:
    """Return what the pods say about their own end, the program's container first; None when they say nothing."""
    found: list[Why] = []
    for pod in pods:
        status, name = pod.get("status") or {}, (pod.get("metadata") or {}).get("name", "?")
        states = (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or [])
        for item in sorted(states, key=lambda c: c.get("name") != container):
            ended = (item.get("state") or {}).get("terminated") or (item.get("lastState") or {}).get("terminated") or {}
            if ended.get("exitCode"):
                found.append(_container_reason(name, item, ended))
        if status.get("phase") == "Failed" and status.get("reason"):
            text = f"pod {name}: {status['reason']}: {status.get('message') or 'no message'}"
            found.insert(
                0, Why("job_failed", text, "look at the node and the namespace's limits, then clear this task")
            )
    return found[0] if found else None


def _container_reason(pod: str, item: Manifest, ended: Manifest) -> Why:
    reason = ended.get("reason") or "Error"
    text = f"pod {pod}: container {item.get('name')} ended with exit code {ended['exitCode']} ({reason})"
    if ended.get("message"):
        text += f": {' '.join(str(ended['message']).split())[:LINE_LENGTH]}"
    if reason == "OOMKilled":
        do = "raise resources.limits.memory in the CronJob's template, or cut the windows smaller; then clear this task"
        return Why("oom_killed", text, do)
    return Why("job_failed", text, "correct what the pod's lines say, then clear this task: it makes a new Job")


def failure(
    outcome: JobOutcome, pods: Sequence[Manifest], container: str, tail: Sequence[str], left: Sequence[str]
) -> Why:
    """Return why a Job failed. ``tail``: the program's last log lines; ``left``: containers that outlived the program.

    The Job's own reason (BackoffLimitExceeded) says only that a pod failed, so it comes last.
    """
    own = f"{outcome.reason}: {outcome.message}" if outcome.message else outcome.reason
    if outcome.reason == "DeadlineExceeded" and left:
        return sidecar(left, container, own)
    found = pod_reason(pods, container)
    last = next((line for line in reversed(tail) if line.strip()), "")
    quoted = f"; its last line: {last[:LINE_LENGTH]}" if last else ""
    if found is None:
        do = "look at the lines of the pod's log above, then clear this task: it makes a new Job"
        return Why("job_failed", f"{own or 'it failed'}{quoted}", do)
    return Why(found.cause, f"{found.text}{quoted} ({own})", found.do)


def sidecar(left: Sequence[str], container: str, limit: str) -> Why:
    """Return the failure of a Job whose program has ended, while other containers keep its pod alive."""
    text = f"container {container} has ended, but {', '.join(left)} still runs and keeps the pod alive ({limit})"
    return Why("sidecar_left", text, SIDECAR_REMEDY)


def warning_of(events: Iterable[Manifest]) -> str:
    """Return the newest warning among a Job's and its pods' events in one line, '' when there is none."""
    warnings = [e for e in events if e.get("type") == "Warning" and e.get("message")]
    if not warnings:
        return ""

    def when(event: Manifest) -> str:
        meta = event.get("metadata") or {}
        return str(event.get("lastTimestamp") or event.get("eventTime") or meta.get("creationTimestamp") or "")

    newest = max(warnings, key=when)
    return f"{newest.get('reason', 'Warning')}: {' '.join(str(newest['message']).split())[:LINE_LENGTH]}"


def create_refusal(status: int | None, reason: str, message: str) -> str:
    """Return what a refused creation means: ``exists``, ``quota``, ``forbidden``, ``invalid``, '' = outcome unknown.

    ``quota`` is waited for: it is the work of others that ends. 409 is either a Job of that name, or two creations that
    met at the same quota (``Conflict`` on ``resourcequotas``), of which one must try again.
    """
    if status == 409:
        return "quota" if "resourcequota" in message.lower() else "exists"
    if status == 403:
        return "quota" if QUOTA in message else "forbidden"
    if status in (400, 404, 405, 415, 422):
        return "invalid"
    return ""
