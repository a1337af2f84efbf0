"""Waits until the API server would take a window's Job: a quota of the namespace has room again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from backfill.hooks.kubernetes import KubeCallError, KubernetesJobs, is_transient
from backfill.kit.look import Failed, Look, Wake, wait
from backfill.kit.wait import WaitArgs, WaitTrigger
from include.scorecard_backfill.job import JobError, JobRequest, build_job
from include.scorecard_backfill.records import GoEvent
from include.scorecard_backfill.verdicts.base import failed
from include.scorecard_backfill.verdicts.podreasons import create_refusal

REFUSED = {"forbidden": "access_denied"}
"""Cause of a refusal that no time mends; any other is one of the Job itself."""


class RoomArgs(WaitArgs):
    """``request``: arguments of the JobRequest; ``since``: epoch seconds since which the window waits for room."""

    request: dict[str, Any]
    since: float


class RoomTrigger(WaitTrigger[RoomArgs]):
    """Wakes its worker when a dry run of the creation passes; fails when the patience for queues and quotas is over."""

    path = "backfill.triggers.room.RoomTrigger"
    stage = "reindex"
    model = RoomArgs
    fails_on_worker = True

    @property
    def poll_seconds(self) -> float:
        """Interval of asking."""
        return self.config.kubernetes.poll_seconds

    @property
    def outage_seconds(self) -> float:
        """How long the API server may be unreachable."""
        return float(self.config.kubernetes.outage_seconds)

    async def look(self) -> Look:
        """Ask once. A dry run counts against the quota like the real creation, and stores nothing."""
        client = KubernetesJobs(self.config)
        try:
            await client.create_job(build_job(await client.cronjob(), JobRequest(**self.args.request)), dry_run=True)
        except JobError as error:
            return Failed(self.failure(failed("job_refused", str(error))))
        except KubeCallError as error:
            if is_transient(error):
                raise
            meaning = create_refusal(error.status, error.reason, error.detail)
            if meaning == "quota":
                return self._full(error)
            if meaning != "exists":
                cause = REFUSED.get(meaning, "job_refused")
                return Failed(self.failure(failed(cause, str(error))))
        return Wake(GoEvent(key=self.args.key, why="there is room for the Job"), "there is room for the Job")

    def _full(self, error: KubeCallError) -> Look:
        patience = self.config.kubernetes.queue_timeout_seconds
        if datetime.now(UTC).timestamp() - self.args.since > patience:
            reason = f"no room for longer than {patience} s (kubernetes.queue_timeout_seconds): {error.detail}"
            return Failed(self.failure(failed("quota_exceeded", reason)))
        return wait(f"the namespace's quota has no room for the Job: {error.detail}")
