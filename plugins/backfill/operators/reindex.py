"""The reindex stage: one live Job per window, found before it is made, judged by its own conditions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator
from airflow.sdk import BaseHook, get_current_context
from airflow.sdk.exceptions import AirflowFailException

from backfill.groups import GROUPS
from backfill.hooks.kubernetes import KubernetesJobs
from backfill.hooks.temporal import TemporalHook, Workflows
from backfill.jobmaker import JobMaker, JobRefusedError, NoRoomError, NotMadeError, attempt_of, live_ones
from backfill.operators.common import RunStore, StageError, already, planned, sibling
from backfill.settings import cluster_config
from backfill.slots import compact, limits_now, override_now, override_text, stage_ids, works
from backfill.taken import me, person_ended_worker_task, run_in_thread
from backfill.triggers.job import JobTrigger
from backfill.triggers.quiet import QuietTrigger
from backfill.triggers.room import RoomTrigger
from backfill.triggers.workflows import open_of_window, started_text
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.job import JobRequest, cluster_selector, window_selector
from include.scorecard_backfill.ownership import End, StaleError, owner_of, parse_owner
from include.scorecard_backfill.planning.overrides import OverrideError
from include.scorecard_backfill.verdicts.admission import judge_job
from include.scorecard_backfill.verdicts.base import Verdict, wait
from include.scorecard_backfill.verdicts.jobs import created_at, job_outcome, may_run, scheduled_jobs
from include.scorecard_backfill.verdicts.workflows import classify

Json = dict[str, Any]

JOB_MARGIN_SECONDS = 300
"""Airflow's own time-out of the deferral lies this far behind the Job's deadline, which ends the wait with a reason."""

END_SECONDS = 60.0
"""A worker that is being killed ends its Job within this time, or leaves it to the Job's own deadline."""


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

    def ensure_job(self, context: Any, window: Json, failed_attempt: int = 0, room_since: float = 0.0) -> Any:
        """Adopt or make the Job of the next attempt and defer to it.

        An attempt whose end a later stage has judged, or that ``failed_attempt`` names, is not adopted: the task runs
        again because a person wants a new one. A Job that ended while nobody watched is adopted.
        """
        self.window = window
        try:
            return self._ensure_job(context, window, failed_attempt, room_since)
        except (JobRefusedError, StaleError) as error:
            cause, do = getattr(error, "cause", "stale_try"), getattr(error, "do", "")
            raise self._failed(context, window, cause, str(error), do) from None
        except NotMadeError as error:
            raise StageError(str(error)) from None

    def _ensure_job(self, context: Any, window: Json, failed_attempt: int, room_since: float) -> Any:
        config = cluster_config(self.cluster)
        client = KubernetesJobs.for_worker(config)
        maker = JobMaker(client, me(context["ti"]), self.log)
        self._client = client
        made = RunStore(context).get("made") or {}
        spent = max(judged_attempt(context), failed_attempt)
        jobs = asyncio.run(maker.jobs(window["key"]))
        if live := live_ones(jobs):
            self.log.info("adopting the live Job %s", live[0]["metadata"]["name"])
            if adopted := asyncio.run(maker.adopt(live[0])):
                return self._defer_to(context, adopted, config, window)
            jobs = asyncio.run(maker.jobs(window["key"]))
        last = max(jobs, key=attempt_of, default=None)
        if last is not None and attempt_of(last) > spent and job_outcome(last).state == "complete":
            self.log.info("Job %s has ended well while nobody watched; adopting it", last["metadata"]["name"])
            return self._defer_to(context, last, config, window)
        since = created_at(last) if last is not None else made.get("made_at")
        if since is not None:
            # An earlier attempt may have left workflows open, also one whose Job failed: none may run beside a new one.
            self._defer_until_quiet(config, client, window, float(since), failed_attempt)
        self._defer_while_scheduled(context, config, client, window, failed_attempt)
        self._defer_without_slot(context, config, client, window, failed_attempt)
        attempt = max([attempt_of(j) for j in jobs] + [spent, int(made.get("attempt", 0))]) + 1
        request = self._request(config, window, attempt, context["dag_run"].run_id, maker)
        try:
            job = asyncio.run(maker.create(request))
        except NoRoomError as error:
            self.log.info("the namespace's quota has no room for the Job (%s): waiting for it", error)
            return self._defer_for_room(config, window, failed_attempt, request, room_since or time.time())
        return self._defer_to(context, job, config, window)

    def _failed(self, context: Any, window: Json, cause: str, reason: str, do: str) -> AirflowFailException:
        """Leave the failure to report and page, and return what ends the task for good: reason, then the remedy."""
        record = {"key": window["key"], "status": "failed", "cause": cause, "reason": reason[:2_000]}
        context["ti"].xcom_push(key="return_value", value=record)
        return AirflowFailException(f"{cause}: {reason}" + (f"\nWhat to do: {do[:1].upper()}{do[1:]}." if do else ""))

    def _defer_until_quiet(
        self, config: ClusterConfig, client: KubernetesJobs, window: Json, since: float, failed_attempt: int
    ) -> None:
        # A deleted Job is gone at once, its pods have their grace period, in which they may start workflows.
        ending = may_run(asyncio.run(client.pods(window_selector(window["key"]))))
        if ending:
            self.log.info("pods of an earlier attempt have not ended (%s): waiting before a new Job", ", ".join(ending))
            self._defer_quiet(config, window, since, failed_attempt)
        open_now = asyncio.run(open_since(config, window, since))
        if open_now:
            self.log.info("%d workflows of an earlier attempt are open (%s): waiting for their end before a new Job",
                          len(open_now), ", ".join(open_now[:3]))  # fmt: skip
            self._defer_quiet(config, window, since, failed_attempt)

    def _defer_while_scheduled(
        self, context: Any, config: ClusterConfig, client: KubernetesJobs, window: Json, failed_attempt: int
    ) -> None:
        """A Job of the CronJob's own schedule reindexes the same rows; the CronJob's concurrencyPolicy ignores ours."""
        busy = scheduled_jobs(asyncio.run(client.jobs()), config.kubernetes.cronjob)
        if busy and config.kubernetes.active_scheduled_job == "refuse":
            raise JobRefusedError(
                "scheduled_job_running",
                f"the CronJob's own Job {', '.join(busy)} is running; this one would run beside it"
                " (kubernetes.active_scheduled_job: refuse)",
                "clear this task when it has ended",
            )
        if busy:
            self.log.info("the CronJob's own Job %s is running: waiting for its end", ", ".join(busy))
            self._defer_quiet(config, window, 0.0, failed_attempt)

    def _defer_without_slot(
        self, context: Any, config: ClusterConfig, client: KubernetesJobs, window: Json, failed_attempt: int
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

    def _judge_slot(self, ti: Any, config: ClusterConfig, client: KubernetesJobs, slot: Json) -> Verdict:
        try:
            override = override_now(override_text(config.name))
        except OverrideError as error:
            return wait(f"the cluster's override cannot be used: {error}")
        if override and override.pause:
            return wait(f"paused {override.text}")
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=stage_ids(), run_ids=[ti.run_id]).get(ti.run_id, {})
        jobs = asyncio.run(client.jobs(cluster_selector(config.name)))
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

    def _defer_for_room(
        self, config: ClusterConfig, window: Json, failed_attempt: int, request: JobRequest, since: float
    ) -> None:
        limits = config.kubernetes
        self.defer(
            trigger=RoomTrigger(
                cluster=self.cluster,
                key=window["key"],
                request={**asdict(request), "extra_env": dict(request.extra_env)},
                since=since,
                not_before=time.time() + limits.first_poll_after_seconds,
            ),
            method_name="quiet",
            kwargs={"window": window, "failed_attempt": failed_attempt, "room_since": since},
            timeout=timedelta(seconds=limits.queue_timeout_seconds + limits.outage_seconds + JOB_MARGIN_SECONDS),
        )

    def quiet(self, context: Any, event: Json, window: Json, failed_attempt: int = 0, room_since: float = 0.0) -> Any:
        """What was waited for before a new Job has come (``event`` says so): look at everything afresh."""
        if event.get("action") == "fail":
            record = event["record"]
            raise self._failed(context, window, record["cause"], record["reason"], "")
        self.log.info("quiet: %s", event)
        return self.ensure_job(context, window, failed_attempt, room_since)

    def _request(self, config: ClusterConfig, window: Json, attempt: int, run_id: str, maker: JobMaker) -> JobRequest:
        limits = config.kubernetes
        return JobRequest(
            key=window["key"],
            cluster=config.name,
            run_id=run_id,
            customer_id=window["customer_id"],
            start=window["start"],
            end=window["end"],
            attempt=attempt,
            ttl_seconds=limits.ttl_seconds_after_finished,
            deadline_seconds=limits.deadline_seconds,
            extra_env=limits.extra_env,
            container=limits.container,
            owner=maker.me.after(None).text,
        )

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
                uid=job["metadata"]["uid"],
                owner=owner.text if (owner := owner_of(job)) else "",
                not_before=time.time() + limits.first_poll_after_seconds,
            ),
            method_name="job_ended",
            kwargs={"window": window},
            timeout=timedelta(
                seconds=limits.deadline_seconds
                + limits.queue_timeout_seconds
                + limits.outage_seconds
                + JOB_MARGIN_SECONDS
            ),
        )

    def job_ended(self, context: Any, event: Json, window: Json) -> Any:
        """Act on the Job's outcome, which travels inside the event: no call is needed to decide, none can spoil it."""
        if event.get("key") != window["key"]:
            self.log.warning("stale event of window %s; looking afresh", event.get("key"))
            return self.ensure_job(context, window)
        for line in event.get("log_tail") or []:
            self.log.info("pod log | %s", line)
        if event["outcome"] != "complete":
            self._raise_for(context, event, window)
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

    def _raise_for(self, context: Any, event: Mapping[str, Any], window: Json) -> None:
        name, text = event["job_name"], f"Job {event['job_name']}: {event['message']}"
        if event["outcome"] == "unknown":
            raise StageError(f"{event['cause']}: {text}; the retry looks at the Job's real state")
        if event["outcome"] == "failed" and classify(" ".join(event.get("log_tail") or []), "") == "deadlock":
            raise StageError(f"{text}; a database deadlock, tried again")
        if event["outcome"] == "timeout":
            client = KubernetesJobs.for_worker(cluster_config(self.cluster))
            decided = asyncio.run(client.end_job(name, parse_owner(event["owner"]), event["uid"]))
            text += "; the Job was deleted" if isinstance(decided, End) else f"; the Job is left alone: {decided.why}"
        raise self._failed(context, window, event["cause"] or "job_failed", text, event.get("do", ""))

    def on_kill(self) -> None:
        """End the live Job of this very try when a person has ended it.

        A worker that is being shut down gets the same signal, and so does one whose task was cleared: the Job lives on,
        and the next try adopts it.
        """
        window = self.window
        if not isinstance(window, dict):
            return
        ti = get_current_context()["ti"]
        if not person_ended_worker_task(ti, self.log):
            self.log.info("nobody has ended this try of the task: its Job is left to the next one")
            return
        client = getattr(self, "_client", None) or KubernetesJobs.for_worker(cluster_config(self.cluster))
        run_in_thread(lambda: self._end_own(client, window, ti), END_SECONDS, self.log, "ending the Job")

    async def _end_own(self, client: KubernetesJobs, window: Json, ti: Any) -> None:
        live = live_ones(await client.jobs(window_selector(window["key"])))
        mine = me(ti)
        if not live:
            self.log.info("this task was ended by a person; window %s has no live Job", window["label"])
        for job in live:
            owner = owner_of(job)
            own = owner if owner and owner.same_task(mine) and owner.try_number == mine.try_number else None
            decided = await client.end_job(job["metadata"]["name"], own, job["metadata"]["uid"])
            done = "was deleted" if isinstance(decided, End) else f"is left alone: {decided.why}"
            self.log.info("a person ended this task: Job %s %s", job["metadata"]["name"], done)


def judged_attempt(context: Mapping[str, Any]) -> int:
    """Return the latest attempt whose workflows a later stage has seen closed, 0 when there is none.

    Not what this task has done itself: a worker that dies after its Job's end repeats the task, and must adopt the Job.
    """
    found = [sibling(context, "wait_workflows"), sibling(context, "verify")]
    attempts = [r.get("attempt") or (r.get("reindexed") or {}).get("attempt") or 0 for r in found]
    return max(int(attempt) for attempt in attempts)


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
