"""The wait for workflows: in the triggerer, unless a person's clear asks for a new reindex."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any, NoReturn

from airflow.sdk import get_current_context

from backfill.kit.stages import TriggeredWait, already, group_of, limit
from backfill.reindexing.window_job import WindowJob
from backfill.settings import cluster_config
from backfill.triggers.workflows import WorkflowsTrigger
from include.scorecard_backfill.records import (
    Event,
    GoEvent,
    JobEvent,
    Reindexed,
    ReindexEvent,
    Window,
    WorkflowsClosed,
)


class WaitWorkflowsOperator(TriggeredWait):
    """Waits for the window's workflows; cleared after they failed, it has a new reindex made and waits for that."""

    stage = "wait_workflows"
    _window: Window | None = None
    trigger_path = "backfill.triggers.workflows.WorkflowsTrigger"

    def __init__(self, *, cluster: str, group: str, **kwargs: Any) -> None:
        timeout = limit(cluster_config(cluster).temporal.deadline_seconds)
        super().__init__(cluster=cluster, group=group, timeout=timeout, **kwargs)

    @cached_property
    def window_job(self) -> WindowJob:
        """What makes the window's Job and knows what its end means."""
        return WindowJob(self, self.cluster, "wait_workflows")

    def on_kill(self) -> None:
        """End the live Job of this very try when a person has ended it (see :meth:`WindowJob.killed`)."""
        if self._window is not None:
            self.window_job.killed(get_current_context()["ti"], self._window)

    def act(self, context: Any, event: Event, **kwargs: Any) -> Any:
        """Make the new reindex that a cleared failure asks for, and wait for its workflows."""
        job = self.window_job
        if isinstance(event, ReindexEvent):
            self._window = event.window
            if done := already(context, event.window):
                return WorkflowsClosed(key=event.window.key, status=done).to_json()
            return job.ensure(context, event.window, failed_attempt=event.attempt)
        window = self._window = Window.from_json(kwargs.pop("window", None))
        if isinstance(event, GoEvent):
            return job.ensure(context, window, **kwargs)
        if isinstance(event, JobEvent):
            return self._wait_for(job.ended(context, event, window))
        return super().act(context, event)

    def _wait_for(self, reindexed: Reindexed) -> NoReturn:
        config = cluster_config(self.cluster)
        self.defer(
            trigger=WorkflowsTrigger(
                cluster=self.cluster,
                group=group_of(self.task_id),
                not_before=time.time() + config.waits.first_poll_after_seconds,
                reindexed=reindexed.to_json(),
            ),
            method_name="resume",
            timeout=limit(config.temporal.deadline_seconds),
        )
        raise AssertionError("unreachable")
