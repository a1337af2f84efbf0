"""Waits until the API server would take a window's Job: a quota of the namespace has room again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from backfill.hooks.kubernetes import KubeCallError, KubernetesJobs, is_transient
from backfill.triggers.base import Json, Look, WaitTrigger
from include.scorecard_backfill.job import JobRequest, build_job
from include.scorecard_backfill.verdicts.base import failed, ok, wait
from include.scorecard_backfill.verdicts.podreasons import create_refusal


class RoomTrigger(WaitTrigger):
    """Wakes its worker when a dry run of the creation passes; fails when the patience for queues and quotas is over.

    ``request``: arguments of the JobRequest; ``since``: epoch seconds since which the window waits for room.
    """

    path = "backfill.triggers.room.RoomTrigger"
    fields = ("request", "since")
    fails_on_worker = True

    request: Any
    since: float

    @property
    def poll_seconds(self) -> float:
        """Interval of asking."""
        return self.config.kubernetes.poll_seconds

    async def look(self) -> Look:
        """Ask once. A dry run counts against the quota like the real creation, and stores nothing."""
        client = KubernetesJobs(self.config)
        try:
            await client.create_job(build_job(await client.cronjob(), JobRequest(**self.request)), dry_run=True)
        except KubeCallError as error:
            if is_transient(error):
                raise
            meaning = create_refusal(error.status, error.reason, error.detail)
            if meaning == "quota":
                return self._full(error)
            if meaning != "exists":
                return Look(failed("access_denied" if meaning == "forbidden" else "job_refused", str(error)))
        return Look(ok("there is room for the Job"), resume=self._go())

    def _go(self) -> Json:
        return {"key": self.key, "quiet": True}

    def _full(self, error: KubeCallError) -> Look:
        patience = self.config.kubernetes.queue_timeout_seconds
        if datetime.now(UTC).timestamp() - float(self.since) > patience:
            reason = f"no room for longer than {patience} s (kubernetes.queue_timeout_seconds): {error.detail}"
            return Look(failed("quota_exceeded", reason))
        return Look(wait(f"the namespace's quota has no room for the Job: {error.detail}"))
