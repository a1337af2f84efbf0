"""The reindex stage: one live Job per window, found before it is made, judged by its own conditions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator
from airflow.sdk import BaseHook, get_current_context
from airflow.sdk.exceptions import AirflowFailException
from kubernetes.client.rest import ApiException

from backfill.groups import GROUPS
from backfill.hooks.kubernetes import CONFLICT, JobClient, is_transient
from backfill.hooks.temporal import TemporalHook, Workflows
from backfill.operators.common import RunStore, StageError, already, planned, sibling
from backfill.settings import cluster_config
from backfill.slots import compact, limits_now, override_now, override_text, stage_ids, works
from backfill.taken import taken_from_worker
from backfill.triggers.job import JobTrigger
from backfill.triggers.quiet import QuietTrigger
from backfill.triggers.workflows import open_of_window, scheduled_jobs, started_text
from include.scorecard_backfill import names
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.job import JobError, JobRequest, build_job, cluster_selector, window_selector
from include.scorecard_backfill.planning.overrides import OverrideError
from include.scorecard_backfill.verdicts.admission import judge_job
from include.scorecard_backfill.verdicts.base import Verdict, wait
from include.scorecard_backfill.verdicts.jobs import job_outcome, may_run
from include.scorecard_backfill.verdicts.workflows import classify

Json = dict[str, Any]

JOB_MARGIN_SECONDS = 300
"""Airflow's own time-out of the deferral lies this far behind the Job's deadline, which ends the wait with a reason."""


class ReindexOperator(KubernetesJobOperator):
    """Makes the window's Job from the CronJob's jobTemplate, or adopts the one that is there, and waits deferred.

    A window has one live Job at most, whatever is killed or cleared: the name is derived from window and attempt, the
    Jobs of the window are listed before one is made, and an attempt whose workflows are open is adopted.
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
        window: Json = self.window
        self.log.info("window %s, key %s", window["label"], window["key"])
        if done := already(context, window):
            self.log.info("%s already in this run; no Job is made. To do it again, trigger a new run", done)
            return {"key": window["key"], "window": window, "attempt": 0, "status": done}
        return self.ensure_job(context, window)

    def ensure_job(self, context: Any, window: Json, failed_attempt: int = 0) -> Any:
        """Adopt or make the Job of the next attempt and defer to it.

        An attempt whose end a later stage has judged, or that ``failed_attempt`` names, is not adopted: the task runs
        again because a person wants a new one. A Job that ended while nobody watched is adopted.
        """
        self.window = window
        config = cluster_config(self.cluster)
        client = JobClient(config)
        made = RunStore(context).get("made") or {}
        spent = max(judged_attempt(context), failed_attempt)
        jobs = client.jobs(window_selector(window["key"]))
        live = [j for j in jobs if not job_outcome(j).final and not j["metadata"].get("deletionTimestamp")]
        if len(live) > 1:
            listed = ", ".join(j["metadata"]["name"] for j in live)
            raise AirflowFailException(
                f"window {window['label']} has {len(live)} live Jobs ({listed}); delete all but one"
            )
        if live:
            self.log.info("adopting the live Job %s", live[0]["metadata"]["name"])
            return self._defer_to(context, live[0], config, window)
        last = max(jobs, key=attempt_of, default=None)
        if last is not None and attempt_of(last) > spent and job_outcome(last).state == "complete":
            self.log.info("Job %s has ended well while nobody watched; adopting it", last["metadata"]["name"])
            return self._defer_to(context, last, config, window)
        since = created_at(last) if last is not None else made.get("made_at")
        if since is not None:
            # An earlier attempt may have left workflows open, also one whose Job failed: none may run beside a new one.
            self._defer_until_quiet(config, client, window, float(since), failed_attempt)
        self._defer_while_scheduled(config, client, window, failed_attempt)
        self._defer_without_slot(context, config, client, window, failed_attempt)
        attempt = max([attempt_of(j) for j in jobs] + [spent, int(made.get("attempt", 0))]) + 1
        job = self._create(client, config, window, attempt, context["dag_run"].run_id)
        return self._defer_to(context, job, config, window)

    def _defer_until_quiet(
        self, config: ClusterConfig, client: JobClient, window: Json, since: float, failed_attempt: int
    ) -> None:
        # A deleted Job is gone at once, its pods have their grace period, in which they may start workflows.
        ending = may_run(client.pods(window_selector(window["key"])))
        if ending:
            self.log.info("pods of an earlier attempt have not ended (%s): waiting before a new Job", ", ".join(ending))
            self._defer_quiet(config, window, since, failed_attempt)
        open_now = asyncio.run(open_since(config, window, since))
        if open_now:
            self.log.info("%d workflows of an earlier attempt are open (%s): waiting for their end before a new Job",
                          len(open_now), ", ".join(open_now[:3]))  # fmt: skip
            self._defer_quiet(config, window, since, failed_attempt)

    def _defer_while_scheduled(
        self, config: ClusterConfig, client: JobClient, window: Json, failed_attempt: int
    ) -> None:
        """A Job of the CronJob's own schedule reindexes the same rows; the CronJob's concurrencyPolicy ignores ours."""
        busy = scheduled_jobs(client.jobs(), config)
        if busy and config.kubernetes.active_scheduled_job == "refuse":
            raise AirflowFailException(
                f"the CronJob's own Job {', '.join(busy)} is running; this one would run beside it"
                " (kubernetes.active_scheduled_job: refuse). Clear this task when it has ended"
            )
        if busy:
            self.log.info("the CronJob's own Job %s is running: waiting for its end", ", ".join(busy))
            self._defer_quiet(config, window, 0.0, failed_attempt)

    def _defer_without_slot(
        self, context: Any, config: ClusterConfig, client: JobClient, window: Json, failed_attempt: int
    ) -> None:
        """Windows that come back after a clear were admitted long ago: they need a slot like everybody."""
        ti = context["ti"]
        listed = [
            compact(group, index, item)
            for group, items in zip(GROUPS, planned(context), strict=True)
            for index, item in enumerate(items)
        ]
        index = next((i for i, item in enumerate(listed) if item["key"] == window["key"]), None)
        if index is None:
            raise AirflowFailException(f"window {window['label']} ({window['key']}) is not in the plan of this run")
        run = ti.xcom_pull(task_ids="plan", key="run") or {}
        slot = {"dag_id": ti.dag_id, "run_id": ti.run_id, "run": run, "index": index, "windows": listed}
        verdict = self._judge_slot(ti, config, client, slot)
        if verdict.state == "wait":
            self.log.info("no slot: %s", verdict.text)
            self._defer_quiet(config, window, 0.0, failed_attempt, slot)

    def _judge_slot(self, ti: Any, config: ClusterConfig, client: JobClient, slot: Json) -> Verdict:
        try:
            override = override_now(override_text(config.name))
        except OverrideError as error:
            return wait(f"the cluster's override cannot be used: {error}")
        if override and override.pause:
            return wait(f"paused {override.text}")
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=stage_ids(), run_ids=[ti.run_id]).get(ti.run_id, {})
        jobs = client.jobs(cluster_selector(config.name))
        found = works(slot["windows"], states, jobs, asyncio.run(open_ids(config)), config)
        return judge_job(slot["index"], found, limits_now(config, slot["run"], override).max_parallel)

    def _defer_quiet(
        self, config: ClusterConfig, window: Json, since: float, failed_attempt: int, slot: Json | None = None
    ) -> None:
        self.defer(
            trigger=QuietTrigger(
                cluster=self.cluster,
                key=window["key"],
                window=window,
                since=since,
                slot=slot or {},
                not_before=time.time() + config.kubernetes.first_poll_after_seconds,
            ),
            method_name="quiet",
            kwargs={"window": window, "failed_attempt": failed_attempt},
            timeout=timedelta(seconds=config.temporal.deadline_seconds + JOB_MARGIN_SECONDS),
        )

    def quiet(self, context: Any, event: Json, window: Json, failed_attempt: int = 0) -> Any:
        """Nothing of an earlier attempt runs any more (``event`` says so): look at everything afresh."""
        self.log.info("quiet: %s", event)
        return self.ensure_job(context, window, failed_attempt)

    def _create(self, client: JobClient, config: ClusterConfig, window: Json, attempt: int, run_id: str) -> Json:
        request = JobRequest(
            key=window["key"],
            cluster=config.name,
            run_id=run_id,
            customer_id=window["customer_id"],
            start=window["start"],
            end=window["end"],
            attempt=attempt,
            ttl_seconds=config.kubernetes.ttl_seconds_after_finished,
            deadline_seconds=config.kubernetes.deadline_seconds,
            extra_env=config.kubernetes.extra_env,
        )
        try:
            manifest = build_job(client.cronjob(), request)
        except JobError as error:
            raise AirflowFailException(str(error)) from None
        self.log.info("creating Job %s", request.name)
        try:
            return client.create_job(manifest)
        except Exception as error:
            # The outcome of a call that failed on the way is unknown, whatever the client's exception: look by name.
            status = error.status if isinstance(error, ApiException) else None
            if status != CONFLICT and not is_transient(error):
                raise AirflowFailException(f"Job {request.name} cannot be created: {error}") from None
            return self._look_after_unknown(client, request, error)

    def _look_after_unknown(self, client: JobClient, request: JobRequest, error: Exception) -> Json:
        found = client.job(request.name)
        if found is None:
            raise StageError(f"Job {request.name} was not created ({error}); the retry looks again, then creates it")
        if (found["metadata"].get("labels") or {}).get(names.LABEL_WINDOW) != request.key:
            raise AirflowFailException(
                f"Job {request.name} exists in {client.config.namespace} and is not ours (no label"
                f" {names.LABEL_WINDOW}={request.key}); look who made it and delete it"
            )
        self.log.info("Job %s exists although the call failed (%s); it is ours", request.name, type(error).__name__)
        return found

    def _defer_to(self, context: Any, job: Json, config: ClusterConfig, window: Json) -> Any:
        limits = config.kubernetes
        # A Job that is deleted leaves no trace at the API server, but it may leave workflows.
        RunStore(context).set("made", {"attempt": attempt_of(job), "made_at": created_at(job)})
        self.defer(
            trigger=JobTrigger(
                cluster=self.cluster,
                key=window["key"],
                job_name=job["metadata"]["name"],
                attempt=attempt_of(job),
                made_at=created_at(job),
                not_before=time.time() + limits.first_poll_after_seconds,
            ),
            method_name="job_ended",
            kwargs={"window": window},
            timeout=timedelta(seconds=limits.deadline_seconds + limits.outage_seconds + JOB_MARGIN_SECONDS),
        )

    def job_ended(self, context: Any, event: Json, window: Json) -> Any:
        """Act on the Job's outcome, which travels inside the event: no call is needed to decide, none can spoil it."""
        if event.get("key") != window["key"]:
            self.log.warning("stale event of window %s; looking afresh", event.get("key"))
            return self.ensure_job(context, window)
        for line in event.get("log_tail") or []:
            self.log.info("pod log | %s", line)
        if event["outcome"] != "complete":
            self._raise_for(event)
        record = self.record_of(event, window)
        self.log.info("complete: %s", started_text(record))
        return record

    def record_of(self, event: Mapping[str, Any], window: Json) -> Json:
        """Return what the waiting stage works by."""
        return {
            "key": window["key"],
            "window": window,
            "attempt": event["attempt"],
            "job_name": event["job_name"],
            "workflow_ids": list(event.get("workflow_ids") or []),
            "made_at": event.get("made_at", time.time()),
            "status": "reindexed",
        }

    def _raise_for(self, event: Mapping[str, Any]) -> None:
        text = f"Job {event['job_name']}: {event['outcome']} ({event['cause']}): {event['message']}"
        if event["outcome"] == "timeout":
            JobClient(cluster_config(self.cluster)).delete_job(event["job_name"])
            raise AirflowFailException(f"{text}; the Job was deleted. Clear this task for a new attempt")
        if event["outcome"] == "unknown":
            raise StageError(f"{text}; the retry looks at the Job's real state")
        if event["outcome"] == "failed" and classify(" ".join(event.get("log_tail") or []), "") == "deadlock":
            raise StageError(f"{text}; a database deadlock, tried again")
        raise AirflowFailException(f"{text}. Clear this task for a new attempt")

    def on_kill(self) -> None:
        """Delete the live Job of the window when a person ended the running task.

        A worker that is being shut down gets the same signal: its Job lives on, and the next try adopts it.
        """
        window = self.window
        if not isinstance(window, dict):
            return
        if not taken_from_worker(get_current_context()["ti"], self.log):
            self.log.info("this worker is being ended, not the task: its Job is left to the next try")
            return
        client = JobClient(cluster_config(self.cluster))
        live = [j for j in client.jobs(window_selector(window["key"])) if not job_outcome(j).final]
        if not live:
            self.log.info("this task was ended by a person; window %s has no live Job", window["label"])
        for job in live:
            client.delete_job(job["metadata"]["name"])
            self.log.info("deleted Job %s, because a person ended this task", job["metadata"]["name"])


def judged_attempt(context: Mapping[str, Any]) -> int:
    """Return the latest attempt whose workflows a later stage has seen closed, 0 when there is none.

    Not what this task has done itself: a worker that dies after its Job's end repeats the task, and must adopt the Job.
    """
    found = [sibling(context, "wait_workflows"), sibling(context, "verify")]
    attempts = [r.get("attempt") or (r.get("reindexed") or {}).get("attempt") or 0 for r in found]
    return max(int(attempt) for attempt in attempts)


def attempt_of(job: Mapping[str, Any]) -> int:
    """Return the attempt that a Job's label names, 0 when it has none."""
    return int(((job.get("metadata") or {}).get("labels") or {}).get(names.LABEL_ATTEMPT, 0))


def created_at(job: Mapping[str, Any]) -> float:
    """Return the epoch seconds at which a Job was created, by the API server's clock."""
    return datetime.fromisoformat(job["metadata"]["creationTimestamp"]).timestamp()


async def open_ids(config: ClusterConfig) -> list[str]:
    """Return the ids of the cluster's open reindex workflows, anyone's."""
    connection = BaseHook.get_connection(config.temporal.conn_id)
    client = await TemporalHook(config.temporal.conn_id, connection).connect(config.temporal.namespace)
    workflows = Workflows(client, config)
    return await workflows.list_ids(workflows.open_query())


async def open_since(config: ClusterConfig, window: Json, since: float) -> list[str]:
    """Return the window's customer's workflows that started at ``since`` or later and are still open."""
    connection = BaseHook.get_connection(config.temporal.conn_id)
    client = await TemporalHook(config.temporal.conn_id, connection).connect(config.temporal.namespace)
    return await open_of_window(Workflows(client, config), window, since)
