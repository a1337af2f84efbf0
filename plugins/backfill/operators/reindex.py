"""The reindex stage: one live Job per window, found before it is made, judged by its own conditions."""

from __future__ import annotations

from typing import Any

from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator
from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowFailException

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.hooks.kubernetes import KubernetesJobs
from backfill.kit.counting import counted_once
from backfill.kit.stages import already, event_of
from backfill.reindexing.jobmaker import live_ones
from backfill.reindexing.window_job import WindowJob
from backfill.settings import cluster_config
from backfill.taken import me, person_ended_worker_task, run_in_thread
from include.scorecard_backfill.job import window_selector
from include.scorecard_backfill.ownership import End, owner_of
from include.scorecard_backfill.records import Counted, GoEvent, JobEvent, Reindexed, Window

END_SECONDS = 60.0
"""A worker that is being killed ends its Job within this time, or leaves it to the Job's own deadline."""


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

    def execute(self, context: Any) -> Any:
        """Return the reindex record, or defer until the Job has ended."""
        window = Window.from_json(self.window)
        self.log.info("window %s, key %s", window.label, window.key)
        if done := already(context, window):
            self.log.info("%s already in this run; no Job is made. To do it again, trigger a new run", done)
            return Reindexed(key=window.key, window=window, status=done).to_json()
        self._counted(context, window)
        return WindowJob(self, self.cluster, "reindex").ensure(context, window)

    def resume(self, context: Any, event: Any = None, **kwargs: Any) -> Any:
        """Go on after what was waited for: the end of the Job, or what had to end before it could be made."""
        window = Window.from_json(kwargs.pop("window", None) or self.window)
        found, job = event_of(context, event, "reindex"), WindowJob(self, self.cluster, "reindex")
        if isinstance(found, GoEvent):
            self.log.info("going on: %s", found.why)
            return job.ensure(context, window, **kwargs)
        if not isinstance(found, JobEvent):
            raise AirflowFailException(f"{self.task_id}: an event of kind {found.kind!r} is not known here")
        reindexed = job.ended(context, found, window)
        return reindexed.model_copy(update={"counted": self._counted(context, window)}).to_json()

    def _counted(self, context: Any, window: Window) -> Counted | None:
        if window.order != "reindex_first":
            return None
        hook = BackfillClickHouse(cluster_config(self.cluster))
        return counted_once(context, window, hook, self.log)

    def on_kill(self) -> None:
        """End the live Job of this very try when a person has ended it.

        A worker that is being shut down gets the same signal, and so does one whose task was cleared: the Job lives on,
        and the next try adopts it.
        """
        if not isinstance(self.window, dict):
            return
        window = Window.from_json(self.window)
        ti = get_current_context()["ti"]
        if not person_ended_worker_task(ti, self.log):
            self.log.info("nobody has ended this try of the task: its Job is left to the next one")
            return
        client = KubernetesJobs.for_worker(cluster_config(self.cluster))
        run_in_thread(lambda: self._end_own(client, window, ti), END_SECONDS, self.log, "ending the Job")

    async def _end_own(self, client: KubernetesJobs, window: Window, ti: Any) -> None:
        live = live_ones(await client.jobs(window_selector(window.key)))
        mine = me(ti)
        if not live:
            self.log.info("this task was ended by a person; window %s has no live Job", window.label)
        for job in live:
            owner = owner_of(job)
            own = owner if owner and owner.same_task(mine) and owner.try_number == mine.try_number else None
            decided = await client.end_job(job["metadata"]["name"], own, job["metadata"]["uid"])
            done = "was deleted" if isinstance(decided, End) else f"is left alone: {decided.why}"
            self.log.info("a person ended this task: Job %s %s", job["metadata"]["name"], done)
