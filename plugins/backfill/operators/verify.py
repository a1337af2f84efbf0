"""The verify stage: in the triggerer, unless a person's clear asks for a new reindex before it counts again."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any, NoReturn

from airflow.sdk import get_current_context

from backfill.kit.stages import TriggeredWait, already, group_of, limit
from backfill.reindexing.window_job import WindowJob
from backfill.settings import cluster_config
from backfill.triggers.verify import VerifyTrigger
from backfill.triggers.workflows import ClosedTrigger
from include.scorecard_backfill.records import (
    ClosedEvent,
    Event,
    GoEvent,
    JobEvent,
    Reindexed,
    ReindexEvent,
    Verified,
    Window,
)


class VerifyOperator(TriggeredWait):
    """Counts until two looks agree; cleared after rows were missing, it makes a new reindex and counts again."""

    stage = "verify"
    _window: Window | None = None
    trigger_path = "backfill.triggers.verify.VerifyTrigger"

    def __init__(self, *, cluster: str, group: str, **kwargs: Any) -> None:
        timeout = limit(cluster_config(cluster).clickhouse.verify_deadline_seconds)
        super().__init__(cluster=cluster, group=group, timeout=timeout, **kwargs)

    @cached_property
    def window_job(self) -> WindowJob:
        """What makes the window's Job and knows what its end means."""
        return WindowJob(self, self.cluster, "verify")

    def on_kill(self) -> None:
        """End the live Job of this very try when a person has ended it (see :meth:`WindowJob.killed`)."""
        if self._window is not None:
            self.window_job.killed(get_current_context()["ti"], self._window)

    def act(self, context: Any, event: Event, **kwargs: Any) -> Any:
        """Make a new reindex, wait for its workflows, or count after them."""
        job = self.window_job
        if isinstance(event, ReindexEvent):
            self._window = event.window
            if already(context, event.window) == "cut":
                return Verified(key=event.window.key, status="cut").to_json()
            return job.ensure(context, event.window, failed_attempt=event.attempt)
        if isinstance(event, ClosedEvent):
            return self._count_again(event.closed.attempt)
        window = self._window = Window.from_json(kwargs.pop("window", None))
        if isinstance(event, GoEvent):
            return job.ensure(context, window, **kwargs)
        if isinstance(event, JobEvent):
            return self._wait_for(job.ended(context, event, window))
        return super().act(context, event)

    def _wait_for(self, reindexed: Reindexed) -> NoReturn:
        config = cluster_config(self.cluster)
        self._defer(
            ClosedTrigger(
                cluster=self.cluster,
                group=group_of(self.task_id),
                not_before=time.time() + config.waits.first_poll_after_seconds,
                reindexed=reindexed.to_json(),
            ),
            config.temporal.deadline_seconds,
        )

    def _count_again(self, attempt: int) -> NoReturn:
        config = cluster_config(self.cluster)
        self._defer(
            VerifyTrigger(
                cluster=self.cluster,
                group=group_of(self.task_id),
                not_before=time.time() + config.waits.first_poll_after_seconds,
                attempt=attempt,
            ),
            config.clickhouse.verify_deadline_seconds,
        )

    def _defer(self, trigger: Any, seconds: float) -> NoReturn:
        self.defer(trigger=trigger, method_name="resume", timeout=limit(seconds))
        raise AssertionError("unreachable")
