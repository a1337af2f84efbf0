"""A wait behind the reindex that a person may clear: it then has a new reindex made before it goes on."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any, NoReturn

from airflow.sdk import get_current_context

from backfill.kit.stages import TriggeredWait, already, group_of, limit
from backfill.reindexing.window_job import WindowJob
from backfill.settings import cluster_config
from include.scorecard_backfill.records import (
    Event,
    GoEvent,
    JobEvent,
    Record,
    Reindexed,
    ReindexEvent,
    Settled,
    Window,
)


class ReindexingWait(TriggeredWait):
    """Runs in the triggerer; woken by a worker's event it makes the Job of the next attempt, and waits for its end."""

    _window: Window | None = None

    @cached_property
    def window_job(self) -> WindowJob:
        """What makes the window's Job and knows what its end means."""
        return WindowJob(self, self.cluster, self.stage)

    def on_kill(self) -> None:
        """End the live Job of this very try when a person has ended it (see :meth:`WindowJob.killed`)."""
        if self._window is not None:
            self.window_job.killed(get_current_context()["ti"], self._window)

    def act(self, context: Any, event: Event, **kwargs: Any) -> Any:
        """Make the new reindex that a cleared failure asks for, and go on behind its Job."""
        if isinstance(event, ReindexEvent):
            self._window = event.window
            if record := self.unneeded(event.window, already(context, event.window)):
                return record.to_json()
            return self.window_job.ensure(context, event.window, failed_attempt=event.attempt)
        window = self._window = Window.from_json(kwargs.pop("window", None))
        if isinstance(event, GoEvent):
            return self.window_job.ensure(context, window, **kwargs)
        if isinstance(event, JobEvent):
            return self.go_on(self.window_job.ended(context, event, window))
        return super().act(context, event)

    def unneeded(self, window: Window, settled: Settled) -> Record | None:
        """Return the stage's result for a window that needs no new reindex any more, None for one that does."""
        raise NotImplementedError

    def go_on(self, reindexed: Reindexed) -> NoReturn:
        """Defer to what comes behind a Job that has ended well."""
        raise NotImplementedError

    def defer_to(self, trigger: type[Any], seconds: float, **arguments: Any) -> NoReturn:
        """Defer to a trigger of this window for at most ``seconds``; a worker goes on in `resume`."""
        self.defer(
            trigger=trigger(
                cluster=self.cluster,
                group=group_of(self.task_id),
                not_before=time.time() + cluster_config(self.cluster).waits.first_poll_after_seconds,
                **arguments,
            ),
            method_name="resume",
            timeout=limit(seconds),
        )
        raise AssertionError("unreachable")
