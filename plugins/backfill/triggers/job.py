"""Waits for the end of one Kubernetes Job, by its conditions; any number of pods is legal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTaskEndEvent, TriggerEvent

from backfill.hooks.kubernetes import KubeCallError, KubernetesJobs, brief, is_permission
from backfill.kit.look import Done, Look, Wake, wait
from backfill.kit.poll import shared_poll
from backfill.kit.saying import say
from backfill.kit.wait import WaitArgs, WaitTrigger
from backfill.settings import cluster_config
from backfill.taken import person_ended_deferred_task
from include.scorecard_backfill.foreign import ForeignJson
from include.scorecard_backfill.job import cluster_selector, container_of
from include.scorecard_backfill.ownership import End, parse_owner
from include.scorecard_backfill.records import FailEvent, JobEvent, RecordError, Reindexed, read_event
from include.scorecard_backfill.verdicts import jobs as rules
from include.scorecard_backfill.verdicts import jobwait, podreasons
from include.scorecard_backfill.verdicts.podreasons import Why
from include.scorecard_backfill.verdicts.workflows import created_workflows, resource_names

TAIL_LINES = 40
"""Last lines of each pod that travel in the event to the task log."""

EVENT_LINES = 120
"""Lines of all pods together; with more than three pods each has fewer."""

MAX_IDS = 500
"""Workflow ids that travel in the event; a customer has a handful of profiles."""


EVENTS_AFTER_SECONDS = 10.0
"""From then on a Job without a running pod is asked for its events, which say why."""


class JobArgs(WaitArgs):
    """``made_at``: epoch seconds of the Job; ``uid``: of the Job; ``owner``: text of the try that waits for it.

    ``reindexed``: the task's result but for what the Job's end tells; None: a worker goes on behind a Job that ended
    well, too.
    """

    job_name: str
    attempt: int
    made_at: float
    uid: str = ""
    owner: str = ""
    reindexed: Reindexed | None = None


@dataclass(frozen=True, slots=True)
class Printed:
    """What a Job's pods have printed: lines for people, workflow ids, and the last lines as they are, to judge by."""

    tail: tuple[str, ...] = ()
    workflow_ids: tuple[str, ...] = ()
    resources: Mapping[str, str] = field(default_factory=dict)
    last: Sequence[str] = ()


class JobTrigger(WaitTrigger[JobArgs]):
    """Ends its task when the Job has ended well and nothing else is to be done; else wakes a worker.

    The worker gets the Job's outcome, its pods' last lines and the workflow ids that they name.
    """

    path = "backfill.triggers.job.JobTrigger"
    stage = "reindex"
    model = JobArgs

    def shown(self) -> dict[str, Any]:
        """Return which Job is waited for: until it ends no record names it."""
        return {"job": self.args.job_name, "attempt": self.args.attempt}

    fails_on_worker = True

    @property
    def poll_seconds(self) -> float:
        """Interval of looking at the Job."""
        return self.config.kubernetes.poll_seconds

    @property
    def outage_seconds(self) -> float:
        """How long the API server may be unreachable."""
        return float(self.config.kubernetes.outage_seconds)

    async def prepare(self) -> None:
        """Make the client."""
        limits = self.config.kubernetes
        self._client = KubernetesJobs(self.config)
        self._limits = jobwait.Limits(
            deadline=limits.deadline_seconds,
            startup=limits.startup_timeout_seconds,
            pull_grace=limits.pull_error_grace_seconds,
            queue=limits.queue_timeout_seconds,
        )
        # What earlier looks saw: at its deadline a Job's pods are gone, and with them who kept it alive.
        self._left: list[str] = []
        self._held_since: float | None = None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the Job has ended, or may not go on: one event, plain if a worker must act on it."""
        try:
            async for event in super().run():
                yield self._plain(event)
        except asyncio.CancelledError as error:
            # Airflow tells a person's action from a shutdown by the message of the cancellation, which a library on
            # the way may drop.
            if not error.args:
                await self.on_kill()
            raise

    async def on_kill(self) -> None:
        """End the Job if a person has ended this very try and it is still the Job's owner; leave it alone otherwise.

        Airflow calls this for every trigger that is taken out of a triggerer: also for that of a cleared task, whose
        next try adopts the Job, and for one that another triggerer has taken over.
        """
        if not await person_ended_deferred_task(self.task_instance, self.log):
            return
        args = self.model.model_validate(self.given)
        decided = await KubernetesJobs(cluster_config(args.cluster)).end_job(
            args.job_name, parse_owner(args.owner), args.uid
        )
        if isinstance(decided, End):
            await say(self.log.info, "Job %s was deleted because a person ended its task", args.job_name)
        else:
            await say(self.log.info, "Job %s is left alone: %s", args.job_name, decided.why)

    def _plain(self, event: TriggerEvent) -> TriggerEvent:
        """Return a failure of the wait itself as an unknown end of the Job: the worker looks at its real state."""
        if isinstance(event, BaseTaskEndEvent):
            return event
        try:
            found = read_event(event.payload)
        except RecordError:
            return event
        if not isinstance(found, FailEvent):
            return event
        return TriggerEvent(self._event("unknown", found.failure.cause, found.failure.reason).to_json())

    def _event(self, outcome: Any, cause: str, message: str, **more: Any) -> JobEvent:
        args = self.args
        return JobEvent(
            key=args.key,
            job_name=args.job_name,
            attempt=args.attempt,
            uid=args.uid,
            owner=args.owner,
            outcome=outcome,
            made_at=args.made_at,
            cause=cause,
            message=message[:2_000],
            **more,
        )

    async def look(self) -> Look:
        """Decide by the Job's conditions first; time limits count only after a fresh look."""
        try:
            job = await self._job()
            if job is None or (self.args.uid and job["metadata"]["uid"] != self.args.uid):
                return self._gone(job)
            outcome = rules.job_outcome(job)
            return await (self._ended(job, outcome) if outcome.final else self._still_active(job))
        except KubeCallError as error:
            if not is_permission(error):
                raise
            return self._end(
                "refused", "access_denied", str(error), do="Give this account the right, then clear this task"
            )

    def _gone(self, job: ForeignJson | None) -> Look:
        text = "another Job has its name now" if job else "it does not exist any more (deleted, or its TTL ended)"
        return self._end(
            "gone", "job_gone", text, do="Find out who deleted it, then clear this task: it makes a new Job"
        )

    async def _job(self) -> ForeignJson | None:
        async def load() -> dict[str, ForeignJson]:
            jobs = await self._client.jobs(cluster_selector(self.args.cluster))
            return {job["metadata"]["name"]: job for job in jobs}

        jobs = await shared_poll().get(("jobs", self.args.cluster), load, max_age=self.pause_seconds / 2)
        # A list may be older than the Job; only its own answer can say that it is gone.
        return jobs.get(self.args.job_name) or await self._client.job(self.args.job_name)

    async def _ended(self, job: ForeignJson, outcome: rules.JobOutcome) -> Look:
        pods, log = await self._logs(container_of(job))
        if outcome.state == "complete":
            said, ended_at = outcome.message or "finished", rules.ended_at(job)
            if self.args.reindexed is not None:
                return await self._complete(self.args.reindexed, log, ended_at)
            return self._end("complete", outcome.reason, said, log, ended_at=ended_at)
        why = podreasons.failure(outcome, pods, container_of(job), log.last, self._left)
        return self._end("failed", why.cause, why.text, log, do=why.do)

    async def _complete(self, record: Reindexed, log: Printed, ended_at: float) -> Done:
        for line in log.tail:
            await say(self.log.info, "pod log | %s", line)
        found = {"ended_at": ended_at, "workflow_ids": log.workflow_ids, "resources": dict(log.resources)}
        why = f"Job {record.job_name} (attempt {record.attempt}) is complete, {len(log.workflow_ids)} workflows"
        return Done(record.model_copy(update=found), why)

    async def _still_active(self, job: ForeignJson) -> Look:
        container = container_of(job)
        pods = await self._client.pods(f"job-name={self.args.job_name}")
        self._left = rules.left_running(pods, container) or self._left
        now = datetime.now(UTC).timestamp()
        self._held_since = (self._held_since or now) if rules.held_up(pods, container) else None
        age = now - rules.began_at(job)
        # Nothing runs and something should: its events, if they may be read, say what holds it back.
        silent = age > min(EVENTS_AFTER_SECONDS, self._limits.startup / 2) and not rules.started(pods)
        warning = podreasons.warning_of(await self._events(job, pods)) if silent else ""
        facts = jobwait.Facts(job, pods, now, container, self._held_since, warning, self._left)
        said = jobwait.judge(facts, self._limits)
        if isinstance(said, Why):
            _, log = await self._logs(container)
            return self._end("timeout", said.cause, said.text, log, do=said.do)
        return wait(said)

    async def _events(self, job: ForeignJson, pods: list[ForeignJson]) -> list[ForeignJson]:
        found: list[ForeignJson] = []
        try:
            for thing in (job, *pods[:1]):
                found += await self._client.events(thing["metadata"]["uid"])
        except KubeCallError as error:
            await say(self.log.info, "the Job's events cannot be read: %s", brief(error))
        return found

    def _end(self, outcome: str, cause: str, message: str, log: Printed | None = None, **more: Any) -> Look:
        log = log or Printed()
        named = {"log_tail": log.tail, "workflow_ids": log.workflow_ids, "resources": dict(log.resources)}
        event = self._event(outcome, cause, message, **named, **more)
        return Wake(event, message)

    async def _logs(self, container: str) -> tuple[list[ForeignJson], Printed]:
        """Return the pods and what they printed; it is best effort and can never change the outcome."""
        lines: list[str] = []
        tails: list[str] = []
        try:
            pods = await self._client.pods(f"job-name={self.args.job_name}")
        except KubeCallError as error:
            return [], Printed((f"the pods cannot be listed: {brief(error)}",))
        for pod in pods:
            name = pod["metadata"]["name"]
            try:
                found = await self._client.pod_log(name, container)
            except KubeCallError as error:
                # One pod's log must not hide those of the others.
                tails.append(f"{name}: the log cannot be read: {brief(error)}")
                continue
            lines += found
            room = max(1, min(TAIL_LINES, EVENT_LINES // len(pods)))
            tails += [f"{name}: {line[:500]}" for line in found[-room:] or ["the log is empty"]]
        if not tails:
            tails.append("the pods are gone, there is no log to read")
        ids = created_workflows(lines)[:MAX_IDS]
        names = resource_names(lines)
        resources = {i: names[i] for i in ids if i in names}
        return pods, Printed(tuple(tails[-EVENT_LINES:]), tuple(ids), resources, lines[-TAIL_LINES:])
