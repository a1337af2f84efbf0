"""Waits for the end of one Kubernetes Job, by its conditions; any number of pods is legal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import TriggerEvent
from asgiref.sync import sync_to_async

from backfill.hooks.kubernetes import AsyncJobClient, brief
from backfill.kit.poll import shared_poll
from backfill.taken import state_now
from backfill.triggers.base import Json, Look, WaitTrigger
from include.scorecard_backfill.job import cluster_selector
from include.scorecard_backfill.verdicts import jobs as rules
from include.scorecard_backfill.verdicts.base import Verdict, ok, wait
from include.scorecard_backfill.verdicts.workflows import created_workflows

TAIL_LINES = 40
"""Last lines of each pod that travel in the event to the task log."""

EVENT_LINES = 120
"""Lines of all pods together; with more than three pods each has fewer."""

STATE_SECONDS = 5.0
"""Limit of the question for the task's state while a trigger is being cancelled."""

MAX_IDS = 500
"""Workflow ids that travel in the event; a customer has a handful of profiles."""


class JobTrigger(WaitTrigger):
    """Wakes its worker with the Job's outcome, its pods' last lines and the workflow ids that they name.

    ``made_at``: epoch seconds of the Job.
    """

    path = "backfill.triggers.job.JobTrigger"
    fields = ("job_name", "attempt", "made_at")

    job_name: str
    attempt: int
    made_at: float

    @property
    def poll_seconds(self) -> float:
        """Interval of looking at the Job."""
        return self.config.kubernetes.poll_seconds

    def prepare(self) -> None:
        """Make the client."""
        self._client = AsyncJobClient(self.config)
        self._held_up_since: float | None = None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the Job has ended, or may not go on; always one plain event, since a worker must act on it."""
        try:
            async for event in super().run():
                payload = event.payload if isinstance(event.payload, dict) else self._failed_event(event)
                yield TriggerEvent(payload)
        except asyncio.CancelledError as error:
            # Airflow tells a person's action from a shutdown by the message of the cancellation, which a library on
            # the way may drop. The task's state tells it, too.
            if not error.args and await self._was_taken_away():
                await self.on_kill()
            raise

    async def _was_taken_away(self) -> bool:
        """Return True when the task is surely not deferred any more; False also when Airflow does not answer."""
        ti = self.task_instance
        if ti is None:
            return False
        try:
            state = await asyncio.wait_for(sync_to_async(state_now)(ti), STATE_SECONDS)
        except Exception as error:
            # A triggerer that shuts down has no connection any more; then nothing may be deleted.
            self.log.info("the task's state is not known (%s): its Job is left alone", type(error).__name__)
            return False
        return state != "deferred"

    def _failed_event(self, event: Any) -> Json:
        record = (getattr(event, "xcoms", None) or {}).get("return_value", {})
        return self._payload("unknown", record.get("cause", "error"), record.get("reason", "the wait failed"))

    def _payload(self, outcome: str, cause: str, message: str, **more: Any) -> Json:
        return {
            "key": self.key,
            "job_name": self.job_name,
            "attempt": self.attempt,
            "outcome": outcome,
            "made_at": self.made_at,
            "cause": cause,
            "message": message[:2_000],
            **more,
        }

    async def look(self) -> Look:
        """Decide by the Job's conditions first; time limits count only after a fresh look."""
        job = await self._job()
        if job is None:
            return self._end(
                "gone", "job_gone", f"Job {self.job_name} does not exist any more (deleted, or its TTL ended)"
            )
        outcome = rules.job_outcome(job)
        if outcome.final:
            message = outcome.message or outcome.reason or "finished"
            return self._end(outcome.state, outcome.reason, message, **await self._logs())
        return await self._still_active(job, outcome)

    async def _job(self) -> Json | None:
        async def load() -> dict[str, Json]:
            jobs = await self._client.jobs(cluster_selector(self.cluster))
            return {job["metadata"]["name"]: job for job in jobs}

        jobs = await shared_poll().get(("jobs", self.cluster), load, max_age=self.poll_seconds / 2)
        # A list may be older than the Job; only its own answer can say that it is gone.
        return jobs.get(self.job_name) or await self._client.job(self.job_name)

    async def _still_active(self, job: Json, outcome: rules.JobOutcome) -> Look:
        limits = self.config.kubernetes
        age = datetime.now(UTC).timestamp() - float(self.made_at)
        if age > limits.deadline_seconds:
            late = f"Job {self.job_name} has not ended within {limits.deadline_seconds} s"
            return self._end("timeout", "deadline", late, **await self._logs())
        pods = await self._client.pods(f"job-name={self.job_name}")
        problem = rules.start_problem(pods)
        if problem:
            self._held_up_since = self._held_up_since or time.monotonic()
            if time.monotonic() - self._held_up_since >= limits.pull_error_grace_seconds:
                return self._end("timeout", "cannot_start", problem)
            return Look(wait(f"Job {self.job_name}: {problem}; given {limits.pull_error_grace_seconds} s to recover"))
        self._held_up_since = None
        if outcome.state == "suspended":
            return Look(wait(f"Job {self.job_name}: {outcome.message}"))
        if not rules.started(pods) and age > limits.startup_timeout_seconds:
            return self._end(
                "timeout", "cannot_start",
                f"no pod of Job {self.job_name} has started within {limits.startup_timeout_seconds} s"
                f" ({len(pods)} pods exist); see the namespace's quota, nodes and events",
            )  # fmt: skip
        status = job.get("status") or {}
        return Look(wait(f"Job {self.job_name}: {status.get('active', 0)} active, {len(pods)} pods"))

    def _end(self, outcome: str, cause: str, message: str, **more: Any) -> Look:
        payload = self._payload(outcome, cause, message, **more)
        return Look(Verdict("ok", (message,)) if outcome == "complete" else ok(message), resume=payload)

    async def _logs(self) -> Json:
        """Read what the pods printed; it is best effort and can never change the outcome."""
        lines: list[str] = []
        tails: list[str] = []
        try:
            pods = await self._client.pods(f"job-name={self.job_name}")
        except Exception as error:
            return {"log_tail": [f"the pods cannot be listed: {brief(error)}"], "workflow_ids": []}
        for pod in pods:
            name = pod["metadata"]["name"]
            try:
                found = await self._client.pod_log(name, pod["spec"]["containers"][0]["name"])
            except Exception as error:
                # One pod's log must not hide those of the others.
                tails.append(f"{name}: the log cannot be read: {brief(error)}")
                continue
            lines += found
            room = max(1, min(TAIL_LINES, EVENT_LINES // len(pods)))
            tails += [f"{name}: {line[:500]}" for line in found[-room:] or ["the log is empty"]]
        if not tails:
            tails.append("the pods are gone, there is no log to read")
        return {"log_tail": tails[-EVENT_LINES:], "workflow_ids": created_workflows(lines)[:MAX_IDS]}

    async def on_kill(self) -> None:
        """Delete the Job: a person marked the deferred task or cleared it. Not called on restarts."""
        await AsyncJobClient(self.config).delete_job(self.job_name)
        self.log.info("Job %s was deleted because its task was ended by a person", self.job_name)
