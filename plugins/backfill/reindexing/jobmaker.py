"""Finds, adopts and makes the Job of a window: one live Job, owned by the try that waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backfill.hooks.kubernetes import KubeCallError, KubernetesJobs, is_permission, is_transient
from include.scorecard_backfill import names
from include.scorecard_backfill.foreign import ForeignJson
from include.scorecard_backfill.job import JobError, JobRequest, build_job, changed_window, window_selector
from include.scorecard_backfill.ownership import Owner, owner_of
from include.scorecard_backfill.verdicts.jobs import job_outcome
from include.scorecard_backfill.verdicts.podreasons import create_refusal


class JobRefusedError(Exception):
    """The window's Job cannot be made, and no repetition helps. ``cause`` is the word for the record."""

    def __init__(self, cause: str, text: str, do: str = "") -> None:
        super().__init__(text)
        self.cause = cause
        self.do = do


class NoRoomError(Exception):
    """A quota of the namespace has no room for the Job now; others' work has to end first."""


class NotMadeError(Exception):
    """The creation failed and left no Job: what passes by itself; the next try looks again."""


def attempt_of(job: Mapping[str, Any]) -> int:
    """Return the attempt that a Job's label names, 0 when it has none."""
    return int(((job.get("metadata") or {}).get("labels") or {}).get(names.LABEL_ATTEMPT, 0))


def live_ones(jobs: list[ForeignJson]) -> list[ForeignJson]:
    """Return the Jobs that have not ended and are not being deleted."""
    return [j for j in jobs if not job_outcome(j).final and not j["metadata"].get("deletionTimestamp")]


class JobMaker:
    """Makes Jobs as ``me``, the try that will wait for them."""

    def __init__(self, client: KubernetesJobs, me: Owner, log: Any) -> None:
        self.client = client
        self.me = me
        self.log = log

    async def jobs(self, key: str) -> list[ForeignJson]:
        """Return every Job of a window. Raises JobRefusedError when they may not be listed, or two are alive."""
        try:
            found = await self.client.jobs(window_selector(key))
        except KubeCallError as error:
            raise _refused(error) from None
        live = live_ones(found)
        if len(live) > 1:
            listed = ", ".join(j["metadata"]["name"] for j in live)
            raise JobRefusedError(
                "two_live_jobs",
                f"the window has {len(live)} live Jobs ({listed})",
                "delete all but one, then clear this task",
            )
        return found

    async def adopt(self, job: ForeignJson) -> ForeignJson | None:
        """Become the owner of a live Job and return it; None when it is gone.

        Raises:
            StaleError: a later try of this task owns it.
            JobRefusedError: Jobs may not be changed.
        """
        name = job["metadata"]["name"]
        try:
            found = await self.client.adopt_job(name, self.me.after(owner_of(job)))
        except KubeCallError as error:
            raise _refused(error) from None
        self.log.info("Job %s is waited for by this try (%s)", name, owner_of(found) if found else "it is gone")
        return found

    async def create(self, request: JobRequest) -> ForeignJson:
        """Make the Job of a request, once, and return it.

        Raises:
            JobRefusedError: no repetition helps. NoRoomError: a quota. NotMadeError: the next try looks again.
        """
        try:
            manifest = build_job(await self.client.cronjob(), request)
        except JobError as error:
            raise JobRefusedError(
                "job_refused", str(error), "correct the CronJob's template, then clear this task"
            ) from None
        except KubeCallError as error:
            raise _refused(error) from None
        self.log.info("creating Job %s", request.name)
        try:
            made = await self.client.create_job(manifest)
        except KubeCallError as error:
            made = await self._after_refusal(request, error)
        await self._check_window(made, request)
        await self._check_alone(made, request)
        return made

    async def _after_refusal(self, request: JobRequest, error: KubeCallError) -> ForeignJson:
        meaning = create_refusal(error.status, error.reason, error.detail)
        if meaning == "quota":
            raise NoRoomError(error.detail) from None
        if meaning in ("forbidden", "invalid"):
            raise _refused(error) from None
        # The outcome of a call that failed on the way is unknown, whatever the client's exception: look by name.
        found = await self.client.job(request.name)
        if found is None:
            raise NotMadeError(
                f"Job {request.name} was not created ({error}); the retry looks again, then creates it"
            ) from None
        if (found["metadata"].get("labels") or {}).get(names.LABEL_WINDOW) != request.key:
            raise JobRefusedError(
                "job_not_ours",
                f"Job {request.name} exists in {self.client.config.namespace} and is not ours (no label"
                f" {names.LABEL_WINDOW}={request.key})",
                "find out who made it and delete it, then clear this task",
            ) from None
        self.log.info("Job %s exists although the call failed (%s); it is ours", request.name, error.reason)
        if owner_of(found) != self.me.after(None) and not job_outcome(found).final:
            found = await self.adopt(found)
            if found is None:
                raise NotMadeError(f"Job {request.name} was there and is gone; the retry looks again")
        return found

    async def _check_window(self, made: ForeignJson, request: JobRequest) -> None:
        """A Job with another window must not live: admission has changed what we sent."""
        if changed := changed_window(made, request):
            await self.client.end_job(made["metadata"]["name"], owner_of(made), made["metadata"]["uid"])
            raise JobRefusedError(
                "job_refused",
                f"an admission webhook has changed the window of Job {request.name}, which was deleted:"
                f" {'; '.join(changed)}",
                "exempt these Jobs from it, then clear this task",
            )

    async def _check_alone(self, made: ForeignJson, request: JobRequest) -> None:
        """A process that was halted between its look and its creation may have made a second Job: its own one goes."""
        name = made["metadata"]["name"]
        others = [j for j in live_ones(await self._again(request.key)) if j["metadata"]["name"] != name]
        if others and not job_outcome(made).final:
            await self.client.end_job(name, owner_of(made), made["metadata"]["uid"])
            raise NotMadeError(
                f"Job {others[0]['metadata']['name']} of the same window is alive: {name}, made beside it, was deleted"
            )

    async def _again(self, key: str) -> list[ForeignJson]:
        try:
            return await self.client.jobs(window_selector(key))
        except KubeCallError as error:
            # The Job is made and known by its name; the next look decides.
            self.log.info("whether the Job is the only one cannot be asked now: %s", error)
            return []


def _refused(error: KubeCallError) -> Exception:
    """Return what a call's error is to the task: what passes is its own, a missing right or a refusal is final."""
    if is_permission(error):
        return JobRefusedError("access_denied", str(error), "give this account the right, then clear this task")
    if is_transient(error):
        return error
    return JobRefusedError("job_refused", str(error), "correct what is named, then clear this task")
