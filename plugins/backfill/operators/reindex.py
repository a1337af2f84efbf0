"""The reindex stage: one live Job per window, found before it is made, judged by its own conditions."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator
from airflow.sdk import get_current_context

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit.counting import counted_once
from backfill.kit.refusal import Refusal
from backfill.kit.stages import access_refused, already, event_of
from backfill.reindexing.window_job import WindowJob
from backfill.settings import cluster_config
from include.scorecard_backfill.records import Counted, GoEvent, JobEvent, Reindexed, Window


class ReindexOperator(KubernetesJobOperator):
    """Makes the window's Job from the CronJob's jobTemplate, or adopts the one that is there, and waits deferred.

    In order reindex_first it counts before its first Job: later nobody can tell any more what was there before.
    """

    template_fields = ("window",)

    def __init__(self, *, cluster: str, window: Any = None, **kwargs: Any) -> None:
        config = cluster_config(cluster).kubernetes
        super().__init__(
            kubernetes_conn_id=config.conn_id,
            cluster_context=config.context,
            namespace=config.namespace,
            deferrable=True,
            wait_until_job_complete=True,
            get_logs=False,
            do_xcom_push=True,
            **kwargs,
        )
        self.cluster = cluster
        self.window = window

    @cached_property
    def window_job(self) -> WindowJob:
        """What makes the window's Job and knows what its end means."""
        return WindowJob(self, self.cluster, "reindex")

    def execute(self, context: Any) -> Any:
        """Return the reindex record, or defer until the Job has ended."""
        window = Window.from_json(self.window)
        self.log.info("window %s, key %s", window.label, window.key)
        if done := already(context, window):
            self.log.info("%s already in this run; no Job is made. To do it again, trigger a new run", done)
            return Reindexed(key=window.key, window=window, status=done).to_json()
        self._counted(context, window)
        return self.window_job.ensure(context, window)

    def resume(self, context: Any, event: Any = None, **kwargs: Any) -> Any:
        """Go on after what was waited for: the end of the Job, or what had to end before it could be made."""
        window = Window.from_json(kwargs.pop("window", None) or self.window)
        found = event_of(context, event, "reindex")
        if isinstance(found, GoEvent):
            self.log.info("going on: %s", found.why)
            return self.window_job.ensure(context, window, **kwargs)
        if not isinstance(found, JobEvent):
            raise Refusal(f"{self.task_id}: an event of kind {found.kind!r} is not known here")
        reindexed = self.window_job.ended(context, found, window)
        return reindexed.model_copy(update={"counted": self._counted(context, window)}).to_json()

    def _counted(self, context: Any, window: Window) -> Counted | None:
        if window.order != "reindex_first":
            return None
        hook = BackfillClickHouse(cluster_config(self.cluster))
        with access_refused(context, window, "reindex"):
            return counted_once(context, window, hook, self.log)

    def on_kill(self) -> None:
        """End the live Job of this very try when a person has ended it (see :meth:`WindowJob.killed`)."""
        if isinstance(self.window, dict):
            self.window_job.killed(get_current_context()["ti"], Window.from_json(self.window))
