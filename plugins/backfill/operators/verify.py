"""The verify stage: in the triggerer, unless a person's clear asks for a new reindex before it counts again."""

from __future__ import annotations

from typing import Any, NoReturn

from backfill.kit.stages import limit
from backfill.reindexing.again import ReindexingWait
from backfill.settings import cluster_config
from backfill.triggers.verify import VerifyTrigger
from backfill.triggers.workflows import ClosedTrigger
from include.scorecard_backfill.records import ClosedEvent, Event, Reindexed, Settled, Verified, Window


class VerifyOperator(ReindexingWait):
    """Counts until two looks agree; cleared after rows were missing, it makes a new reindex and counts again."""

    stage = "verify"
    trigger_path = "backfill.triggers.verify.VerifyTrigger"

    def __init__(self, *, cluster: str, group: str, **kwargs: Any) -> None:
        timeout = limit(cluster_config(cluster).clickhouse.verify_deadline_seconds)
        super().__init__(cluster=cluster, group=group, timeout=timeout, **kwargs)

    def act(self, context: Any, event: Event, **kwargs: Any) -> Any:
        """Make a new reindex, wait for its workflows, or count after them."""
        if isinstance(event, ClosedEvent):
            seconds = cluster_config(self.cluster).clickhouse.verify_deadline_seconds
            closed = event.closed
            return self.defer_to(VerifyTrigger, seconds, attempt=closed.attempt, workflow_ids=list(closed.workflow_ids))
        return super().act(context, event, **kwargs)

    def unneeded(self, window: Window, settled: Settled) -> Verified | None:
        """Return the result of a window that was cut; one that was verified is verified again, by what is there now."""
        return Verified(key=window.key, status="cut") if settled == "cut" else None

    def go_on(self, reindexed: Reindexed) -> NoReturn:
        """Wait for the workflows of the new reindex."""
        seconds = cluster_config(self.cluster).temporal.deadline_seconds
        self.defer_to(ClosedTrigger, seconds, reindexed=reindexed.to_json())
