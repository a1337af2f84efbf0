"""One look at a Job that has not ended: wait, or end it for good; limits count the Job's own time only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from include.scorecard_backfill.foreign import Manifest
from include.scorecard_backfill.verdicts import jobs as rules
from include.scorecard_backfill.verdicts import podreasons
from include.scorecard_backfill.verdicts.podreasons import Why


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: a Job's whole time, until a pod runs, an image that cannot be pulled, and what others hold back."""

    deadline: float
    startup: float
    pull_grace: float
    queue: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an active Job at ``now`` (epoch seconds).

    ``held_since``: since when an image or a configuration keeps it from starting, None = it does not. ``warning``: the
    newest warning among its events, '' = none or not readable. ``left``: containers that outlived the program.
    """

    job: Manifest
    pods: Sequence[Manifest]
    now: float
    container: str
    held_since: float | None = None
    warning: str = ""
    left: Sequence[str] = ()


def judge(facts: Facts, limits: Limits) -> str | Why:
    """Return the sentence to wait by, or why the Job must be ended. It is not final (see ``job_outcome``)."""
    job, name = facts.job, facts.job["metadata"]["name"]
    if rules.job_outcome(job).state == "suspended":
        return _suspended(facts, limits.queue)
    age = facts.now - rules.began_at(job)
    has_started = rules.started(facts.pods)
    if not has_started and podreasons.QUOTA in facts.warning:
        text = f"no pod of Job {name} may be made: {facts.warning}"
        return f"{text}; given {limits.queue:.0f} s" if age <= limits.queue else _queue(text, limits.queue)
    problem = rules.held_up(facts.pods, facts.container)
    held = facts.now - (facts.held_since if facts.held_since is not None else facts.now)
    if problem and (held >= limits.pull_grace or age > limits.deadline):
        return _stuck(facts, problem)
    if age > limits.deadline:
        late = f"not ended within {limits.deadline:.0f} s"
        if facts.left:
            return podreasons.sidecar(facts.left, facts.container, late)
        return Why("job_deadline", f"it has {late} of its start", "see its pods and log, then clear this task")
    if problem:
        return f"Job {name}: {problem}; given {limits.pull_grace:.0f} s to recover"
    if not has_started and age > limits.startup:
        seen = facts.warning or "see the namespace's quota, nodes and events"
        return Why(
            "cannot_start",
            f"no pod of Job {name} has started within {limits.startup:.0f} s ({len(facts.pods)} pods exist); {seen}",
            "remove what holds it back, then clear this task",
        )
    running = f"Job {name}: {(job.get('status') or {}).get('active', 0)} active, {len(facts.pods)} pods"
    if facts.left:
        return f"{running}; container {facts.container} has ended, {', '.join(facts.left)} still runs"
    return running


def _stuck(facts: Facts, problem: str) -> Why:
    do = "correct the image or the configuration, then clear this task"
    if rules.has_ended(facts.pods, facts.container):
        return Why("sidecar_left", f"container {facts.container} has ended, but {problem}", do)
    return Why("cannot_start", problem, do)


def _suspended(facts: Facts, patience: float) -> str | Why:
    by = rules.suspended_by(facts.job)
    held = facts.now - rules.suspended_at(facts.job)
    text = f"Job {facts.job['metadata']['name']} is suspended by {by}"
    return f"{text}; given {patience:.0f} s" if held <= patience else _queue(text, patience, "job_suspended")


def _queue(text: str, patience: float, cause: str = "quota_exceeded") -> Why:
    return Why(
        cause,
        f"{text}, for more than {patience:.0f} s (kubernetes.queue_timeout_seconds)",
        "make room in the queue or quota, then clear this task: it makes a new Job",
    )
