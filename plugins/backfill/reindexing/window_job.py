"""The Job of a window, for the operator that holds this: adopted or made, waited for, and what its end means."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any, NoReturn

from airflow.sdk import BaseHook, BaseOperator

from backfill.hooks.kubernetes import KubeCallError, KubernetesJobs, is_permission
from backfill.hooks.temporal import TemporalHook, Workflows
from backfill.kit import xcoms
from backfill.kit.results import planned
from backfill.kit.stages import StageError, fail, failed_before, result_of
from backfill.kit.store import COUNTED, MADE, WindowStore
from backfill.reindexing.gate import Ask, Eyes, may_make_job
from backfill.reindexing.jobmaker import JobMaker, JobRefusedError, NoRoomError, NotMadeError, attempt_of, live_ones
from backfill.settings import cluster_config
from backfill.slots import override_text, stage_ids
from backfill.taken import me, person_ended_worker_task, run_in_thread
from backfill.triggers.job import JobTrigger
from backfill.triggers.quiet import QuietTrigger
from backfill.triggers.room import RoomTrigger
from include.scorecard_backfill import life
from include.scorecard_backfill.foreign import ForeignJson
from include.scorecard_backfill.job import JobRequest, window_selector
from include.scorecard_backfill.ownership import End, Owner, StaleError, owner_of, parse_owner
from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.records import Counted, Failure, JobEvent, MadeJob, Reindexed, Stage, Window
from include.scorecard_backfill.verdicts.base import Verdict
from include.scorecard_backfill.verdicts.causes import what_to_do
from include.scorecard_backfill.verdicts.failures import mentions_deadlock
from include.scorecard_backfill.verdicts.jobs import created_at, job_outcome

JOB_MARGIN_SECONDS = 300
"""Airflow's own time-out of the deferral lies this far behind the Job's deadline, which ends the wait with a reason."""

END_SECONDS = 60.0
"""A worker that is being killed ends its Job within this time, or leaves it to the Job's own deadline."""

JUDGED = "judged"
"""Newest attempt whose end this task has judged itself and that Airflow's retry must not adopt again."""


class WindowJob:
    """Has the Job of a window made; `reindex` does, and `wait_workflows` and `verify` after a person's clear.

    A window has one live Job at most, whatever is killed or cleared: the name is derived from window and attempt, the
    Jobs of the window are listed before one is made, and a Job that ended while nobody watched is adopted. The operator
    that holds this is resumed in its method `resume`.
    """

    def __init__(self, operator: BaseOperator, cluster: str, stage: Stage) -> None:
        self.operator = operator
        self.config = cluster_config(cluster)
        self.stage = stage
        self.log = operator.log
        # Kept from the beginning: a signal handler cannot ask Airflow for the connection.
        self._client: KubernetesJobs | None = None

    def ensure(
        self, context: Mapping[str, Any], window: Window, failed_attempt: int = 0, room_since: float = 0.0
    ) -> NoReturn:
        """Adopt or make the Job of the next attempt and defer to it.

        An attempt whose end a later stage has judged, or that ``failed_attempt`` names, is not adopted: the task runs
        again because a person wants a new one. ``room_since``: epoch seconds since which a quota has had no room.

        Raises:
            TaskDeferred: it waits for the Job, or for what must end before a new one.
            StageError: what a repetition by Airflow may mend.
            Refusal: what only a person may mend; the failure is kept.
        """
        try:
            self._ensure(context, window, failed_attempt, room_since)
        except JobRefusedError as error:
            self._fail(context, window, error.cause, str(error), failed_attempt, error.do)
        except StaleError as error:
            self._fail(context, window, "stale_try", str(error), failed_attempt)
        except KubeCallError as error:
            if not is_permission(error):
                raise
            self._fail(context, window, "access_denied", str(error), failed_attempt)
        except NotMadeError as error:
            raise StageError(str(error)) from None

    def _ensure(self, context: Mapping[str, Any], window: Window, failed_attempt: int, room_since: float) -> NoReturn:
        client = self._client = KubernetesJobs.for_worker(self.config)
        maker = JobMaker(client, me(context["ti"]), self.log)
        spent = max(self._judged(context, window), failed_attempt)
        while True:
            jobs = asyncio.run(maker.jobs(window.key))
            newest = max(live_ones(jobs) or jobs, key=attempt_of, default=None)
            facts = self._facts(newest, spent)
            step = life.next_step("reindex", facts)
            if step.action != "adopt" or newest is None:
                break
            self.log.info("%s: %s", newest["metadata"]["name"], step.why)
            adopted = newest if facts.job != "live" else asyncio.run(maker.adopt(newest))
            if adopted is not None:
                self._defer_to(context, adopted, window)
        made = MadeJob.from_json(WindowStore(context, window).get(MADE))
        since = created_at(newest) if newest is not None else made.made_at
        verdict = asyncio.run(self._gate(context, client, window, since))
        if verdict.state == "failed":
            self._fail(context, window, verdict.cause, verdict.text, spent)
        if verdict.state == "wait":
            self.log.info("waiting before a new Job: %s", verdict.text)
            self._defer_quiet(window, since, failed_attempt)
        attempt = max([attempt_of(j) for j in jobs] + [spent, made.attempt]) + 1
        self._make(context, maker, window, attempt, failed_attempt, room_since)

    def _facts(self, newest: ForeignJson | None, spent: int) -> life.Facts:
        """What life must know; that nothing runs beside a new Job is asked only when one is to be made."""
        if newest is None:
            return life.Facts(job="none", others="quiet")
        outcome = job_outcome(newest)
        if newest["metadata"].get("deletionTimestamp"):
            return life.Facts(job="none", others="quiet")
        state: life.JobState = "live" if not outcome.final else "complete" if outcome.state == "complete" else "failed"
        return life.Facts(job=state, judged=attempt_of(newest) <= spent, others="quiet", attempt=attempt_of(newest))

    def _judged(self, context: Mapping[str, Any], window: Window) -> int:
        """Return the newest attempt whose end was judged: by a later stage, or by this task before it failed for good.

        Not what this task has merely done: a worker that dies after its Job's end repeats the task, and must adopt it.
        """
        found = [result_of(context, stage, window) for stage in ("wait_workflows", "verify")]
        before = failed_before(context, window)
        attempts = [int(getattr(record, "attempt", 0) or 0) for record in (*found, before)]
        return max(*attempts, int(WindowStore(context, window).get(JUDGED) or 0))

    async def _gate(self, context: Mapping[str, Any], client: KubernetesJobs, window: Window, since: float) -> Verdict:
        ti = context["ti"]
        connection = BaseHook.get_connection(self.config.temporal.conn_id)
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=stage_ids(), run_ids=[ti.run_id]).get(ti.run_id, {})
        text = override_text(self.config.name)
        found: list[Workflows] = []

        async def workflows() -> Workflows:
            if not found:
                hook = TemporalHook(self.config.temporal.conn_id, connection)
                found.append(Workflows(await hook.connect(self.config.temporal.namespace), self.config))
            return found[0]

        async def open_ids() -> Collection[str]:
            return await (await workflows()).list_ids((await workflows()).open_query())

        async def known_states() -> Mapping[str, str | None]:
            return dict(states)

        async def override() -> str | None:
            return text

        places = [place for listed in planned(context) for place in listed]
        run = xcoms.chosen(ti) or Chosen()
        eyes = Eyes(client, workflows, open_ids, known_states, override)
        return await may_make_job(self.config, eyes, Ask(window, places, run, since))

    def _make(
        self,
        context: Mapping[str, Any],
        maker: JobMaker,
        window: Window,
        attempt: int,
        failed_attempt: int,
        room_since: float,
    ) -> NoReturn:
        request = self._request(window, attempt, context["dag_run"].run_id, maker)
        try:
            job = asyncio.run(maker.create(request))
        except NoRoomError as error:
            self.log.info("the namespace's quota has no room for the Job (%s): waiting for it", error)
            self._defer_for_room(window, failed_attempt, request, room_since or time.time())
        self._defer_to(context, job, window)

    def _request(self, window: Window, attempt: int, run_id: str, maker: JobMaker) -> JobRequest:
        limits = self.config.kubernetes
        return JobRequest(
            key=window.key,
            cluster=self.config.name,
            run_id=run_id,
            customer_id=window.customer_id,
            start=window.start.isoformat(),
            end=window.end.isoformat(),
            attempt=attempt,
            ttl_seconds=limits.ttl_seconds_after_finished,
            deadline_seconds=limits.deadline_seconds,
            extra_env=limits.extra_env,
            container=limits.container,
            owner=maker.me.after(None).text,
        )

    def _later(self) -> float:
        return time.time() + self.config.waits.first_poll_after_seconds

    def _defer(self, trigger: Any, seconds: float, **kwargs: Any) -> NoReturn:
        self.operator.defer(
            trigger=trigger,
            method_name="resume",
            kwargs=kwargs,
            timeout=timedelta(seconds=seconds + JOB_MARGIN_SECONDS),
        )
        raise AssertionError("unreachable")

    def _defer_quiet(self, window: Window, since: float, failed_attempt: int) -> NoReturn:
        trigger = QuietTrigger(
            cluster=self.config.name,
            key=window.key,
            window=window.to_json(),
            since=since,
            not_before=self._later(),
        )
        self._defer(
            trigger, self.config.temporal.deadline_seconds, window=window.to_json(), failed_attempt=failed_attempt
        )

    def _defer_for_room(self, window: Window, failed_attempt: int, request: JobRequest, since: float) -> NoReturn:
        limits = self.config.kubernetes
        trigger = RoomTrigger(
            cluster=self.config.name,
            key=window.key,
            request={**asdict(request), "extra_env": dict(request.extra_env)},
            since=since,
            not_before=self._later(),
        )
        self._defer(
            trigger,
            limits.queue_timeout_seconds + limits.outage_seconds,
            window=window.to_json(),
            failed_attempt=failed_attempt,
            room_since=since,
        )

    def _defer_to(self, context: Mapping[str, Any], job: ForeignJson, window: Window) -> NoReturn:
        limits = self.config.kubernetes
        # A Job that is deleted leaves no trace at the API server, but it may leave workflows.
        WindowStore(context, window).set(MADE, MadeJob(attempt=attempt_of(job), made_at=created_at(job)).to_json())
        owner = owner_of(job)
        record = self._record(context, job, window)
        trigger = JobTrigger(
            cluster=self.config.name,
            key=window.key,
            job_name=job["metadata"]["name"],
            attempt=attempt_of(job),
            made_at=created_at(job),
            uid=job["metadata"]["uid"],
            owner=owner.text if owner else "",
            reindexed=record.to_json() if record else None,
            not_before=self._later(),
        )
        self._defer(
            trigger,
            limits.deadline_seconds + limits.queue_timeout_seconds + limits.outage_seconds,
            window=window.to_json(),
        )

    def _record(self, context: Mapping[str, Any], job: ForeignJson, window: Window) -> Reindexed | None:
        """Return what the reindex stage leaves when this Job ends well; None for a stage that then goes on."""
        if self.stage != "reindex":
            return None
        kept = WindowStore(context, window).get(COUNTED)
        return Reindexed(
            key=window.key,
            window=window,
            status="reindexed",
            attempt=attempt_of(job),
            job_name=job["metadata"]["name"],
            job_uid=job["metadata"]["uid"],
            made_at=created_at(job),
            counted=Counted.from_json(kept) if kept else None,
        )

    def ended(self, context: Mapping[str, Any], event: JobEvent, window: Window) -> Reindexed:
        """Return the record of a Job that ended well, by the event alone: no call is needed to decide.

        Raises:
            StageError, Refusal, TaskDeferred: as :meth:`ensure`.
        """
        if event.key != window.key:
            self.log.warning("stale event of window %s; looking afresh", event.key)
            self.ensure(context, window)
        for line in event.log_tail:
            self.log.info("pod log | %s", line)
        if event.outcome != "complete":
            self._raise_for(context, event, window)
        record = Reindexed(
            key=window.key,
            window=window,
            status="reindexed",
            attempt=event.attempt,
            job_name=event.job_name,
            job_uid=event.uid,
            made_at=event.made_at,
            ended_at=event.ended_at,
            workflow_ids=event.workflow_ids,
            resources=event.resources,
        )
        self.log.info(
            "complete: Job %s (attempt %d), %d workflows", event.job_name, event.attempt, len(event.workflow_ids)
        )
        return record

    def killed(self, ti: Any, window: Window) -> None:
        """End the live Job of this very try when a person has ended it; for ``on_kill`` of a worker.

        A worker that is being shut down gets the same signal, and so does one whose task was cleared: the Job lives on,
        and the next try adopts it.
        """
        if not person_ended_worker_task(ti, self.log):
            self.log.info("nobody has ended this try of the task: its Job is left to the next one")
            return
        run_in_thread(lambda: self._end_own(me(ti), window), END_SECONDS, self.log, "ending the Job")

    async def _end_own(self, mine: Owner, window: Window) -> None:
        client = self._client or KubernetesJobs(self.config)
        live = live_ones(await client.jobs(window_selector(window.key)))
        if not live:
            self.log.info("this task was ended by a person; window %s has no live Job", window.label)
        for job in live:
            owner = owner_of(job)
            own = owner if owner and owner.same_task(mine) and owner.try_number == mine.try_number else None
            decided = await client.end_job(job["metadata"]["name"], own, job["metadata"]["uid"])
            done = "was deleted" if isinstance(decided, End) else f"is left alone: {decided.why}"
            self.log.info("a person ended this task: Job %s %s", job["metadata"]["name"], done)

    def _raise_for(self, context: Mapping[str, Any], event: JobEvent, window: Window) -> NoReturn:
        text = f"Job {event.job_name}: {event.message}"
        if event.outcome == "unknown":
            raise StageError(f"{event.cause}: {text}; the retry looks at the Job's real state")
        if event.outcome == "failed" and mentions_deadlock(" ".join(event.log_tail)):
            WindowStore(context, window).set(JUDGED, event.attempt)
            raise StageError(f"{text}; a database deadlock, tried again")
        if event.outcome == "timeout":
            client = KubernetesJobs.for_worker(self.config)
            decided = asyncio.run(client.end_job(event.job_name, parse_owner(event.owner), event.uid))
            text += "; the Job was deleted" if isinstance(decided, End) else f"; the Job is left alone: {decided.why}"
        self._fail(context, window, event.cause or "job_failed", text, event.attempt, event.do)

    def _fail(
        self, context: Mapping[str, Any], window: Window, cause: str, reason: str, attempt: int, do: str = ""
    ) -> NoReturn:
        remedy = f"{do[:1].upper()}{do[1:].rstrip('.')}." if do else what_to_do(cause)
        fail(
            context,
            Failure(
                key=window.key,
                stage=self.stage,
                cause=cause,
                reason=reason[:2_000],
                what_to_do=remedy,
                attempt=attempt,
            ),
        )
