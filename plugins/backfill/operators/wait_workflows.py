"""The wait for workflows: in the triggerer, unless a person's clear asks for a new reindex."""

from __future__ import annotations

from typing import Any, NoReturn

from backfill.kit.stages import limit
from backfill.reindexing.again import ReindexingWait
from backfill.settings import cluster_config
from backfill.triggers.workflows import WorkflowsTrigger
from include.scorecard_backfill.records import Reindexed, Settled, Window, WorkflowsClosed


class WaitWorkflowsOperator(ReindexingWait):
    """Waits for the window's workflows; cleared after they failed, it has a new reindex made and waits for that."""

    stage = "wait_workflows"
    trigger_path = "backfill.triggers.workflows.WorkflowsTrigger"

    def __init__(self, *, cluster: str, group: str, **kwargs: Any) -> None:
        timeout = limit(cluster_config(cluster).temporal.deadline_seconds)
        super().__init__(cluster=cluster, group=group, timeout=timeout, **kwargs)

    def unneeded(self, window: Window, settled: Settled) -> WorkflowsClosed | None:
        """Return the result of a window that needs nothing more in this run."""
        return WorkflowsClosed(key=window.key, status=settled) if settled else None

    def go_on(self, reindexed: Reindexed) -> NoReturn:
        """Wait for the workflows of the new reindex."""
        seconds = cluster_config(self.cluster).temporal.deadline_seconds
        self.defer_to(WorkflowsTrigger, seconds, reindexed=reindexed.to_json())
