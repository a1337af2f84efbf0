"""Waits until the Temporal workflows of a window's Job are closed. A list is a hint, describe decides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from temporalio.service import RPCError

from backfill.groups import group_named
from backfill.hooks.temporal import RefusedError, TemporalHook, Workflows, refusal
from backfill.kit import xcoms
from backfill.kit.look import Done, Failed, Look, Wait, Wake
from backfill.kit.look import wait as waiting
from backfill.kit.poll import shared_poll
from backfill.kit.saying import say
from backfill.kit.wait import WaitArgs, WaitTrigger
from include.scorecard_backfill import life
from include.scorecard_backfill.records import (
    ClosedEvent,
    Failure,
    Reindexed,
    ReindexEvent,
    Stage,
    Window,
    WorkflowsClosed,
    settled,
)
from include.scorecard_backfill.verdicts import workflows as rules
from include.scorecard_backfill.verdicts.agreement import agreement
from include.scorecard_backfill.verdicts.base import Verdict, failed, wait
from include.scorecard_backfill.verdicts.causes import cause_of
from include.scorecard_backfill.verdicts.started import Expected, Ids, about_window, expected

CLIENT_SECONDS = 600.0
"""A client is made anew this often, and after a lost connection: idle ones are cut by what stands between."""

DESCRIBE_EVERY_POLLS = 4
"""Even a workflow that is listed as running is described every so many polls: its list entry may be stale."""


async def shared_workflows(trigger: WaitTrigger[Any]) -> Workflows:
    """Return the cluster's workflows behind one client per event loop."""

    async def load() -> Workflows:
        connection = await trigger.connection(trigger.config.temporal.conn_id)
        hook = TemporalHook(trigger.config.temporal.conn_id, connection)
        return Workflows(await hook.connect(trigger.config.temporal.namespace), trigger.config)

    return await shared_poll().get(("temporal", trigger.args.cluster), load, max_age=CLIENT_SECONDS)


async def shared_open_ids(trigger: WaitTrigger[Any], workflows: Workflows, max_age: float) -> frozenset[str]:
    """Return the ids that visibility lists as open: one query for all waiting windows of the cluster."""

    async def load() -> frozenset[str]:
        return frozenset(await workflows.list_ids(workflows.open_query()))

    return await shared_poll().get(("open", trigger.args.cluster), load, max_age=max_age)


class WorkflowsArgs(WaitArgs):
    """``reindexed`` is set after this task has had a reindex made itself: what it waits for then."""

    reindexed: Reindexed | None = None


class WorkflowsTrigger(WaitTrigger[WorkflowsArgs]):
    """Ends the task once every workflow of the window's Job is closed, or asks a worker for a new reindex."""

    path = "backfill.triggers.workflows.WorkflowsTrigger"
    stage: ClassVar[Stage] = "wait_workflows"
    model = WorkflowsArgs
    fails_on_worker = True

    @property
    def poll_seconds(self) -> float:
        """Interval of looking at the workflows."""
        return self.config.temporal.poll_seconds

    @property
    def outage_seconds(self) -> float:
        """How long Temporal may be unreachable."""
        return float(self.config.temporal.outage_seconds)

    async def prepare(self) -> None:
        """Choose the newest attempt: the reindex stage's, or the one that an earlier try of this task made."""
        previous = await xcoms.arecord(self.ti, self.ti.task_id)
        cut_by = group_named(self.args.group).cut_by
        cut = await xcoms.apull(self.ti, cut_by, xcoms.CUT) if cut_by else None
        self._settled = settled(self.window.key, await self.result_of("verify"), cut)
        if self._settled:
            return
        what = "the reindex stage left no result: clear it (reindex) and this task with it"
        current = self.args.reindexed or xcoms.expect(Reindexed, await self.result_of("reindex"), what)
        before = previous if isinstance(previous, Failure) and previous.key == current.key else None
        if before and before.reindexed and before.reindexed.attempt > current.attempt:
            current = before.reindexed
        self._current = current
        same = before is not None and before.attempt == current.attempt
        self._left: life.Left = cause_of(before.cause).repeat if before and same else ""
        self._ids = Ids(self.config.temporal.workflow_id_prefix, self.window.customer_id, self.window.profiles)
        self._by_log = list(dict.fromkeys(current.workflow_ids))
        self._by_query: list[str] = []
        self._earlier = await self._of_earlier_attempts(before)
        self._reopened: list[str] = []
        self._about: dict[str, bool | None] = {}
        self._known: dict[str, rules.Execution] = {}
        self._polls = 0
        self._first_look = time.monotonic()
        self._refused = False

    async def _of_earlier_attempts(self, before: Failure | None) -> frozenset[str]:
        """Return the workflows that earlier attempts are known to have started.

        After a clear that comes at once they lie within the skew of the clocks, and their end was judged already.
        """
        records = (await self.result_of("reindex"), before.reindexed if before else None)
        return frozenset(
            workflow_id
            for record in records
            if isinstance(record, Reindexed) and record.attempt < self._current.attempt
            for workflow_id in record.workflow_ids
        )

    def left(self) -> dict[str, Any]:
        """Name the attempt that failed and what is known of it, so that a clear makes the next one."""
        ids = tuple(dict.fromkeys((*self._by_log, *self._by_query)))
        return {
            "attempt": self._current.attempt,
            "reindexed": self._current.model_copy(update={"workflow_ids": ids, "counted": None}),
        }

    async def look(self) -> Look:
        """Decide this window; what was failed when a cleared task starts again asks for a new reindex."""
        if self._settled:
            result = WorkflowsClosed(key=self.window.key, status=self._settled)
            return Done(result, f"this window is {self._settled} already")
        temporal = self.config.temporal
        try:
            found, verdict = await self._decide(await shared_workflows(self))
        except (RPCError, RefusedError) as error:
            refused = refusal(error, temporal.conn_id, temporal.namespace)
            if refused is None:
                raise
            return self._after_refusal(refused)
        self._refused = False
        look = self._decided(found.ids, verdict)
        return look if verdict.state != "ok" else await self._agreed(found.ids, look)

    async def _agreed(self, ids: Sequence[str], look: Look) -> Look:
        """Hold a window back while the InternalJobService, where a cluster has one, says otherwise than Temporal."""
        conn_id = self.config.temporal.internal_jobs_conn_id
        named = [self._current.resources[i] for i in ids if i in self._current.resources]
        if not conn_id or not named:
            return look
        # gRPC is loaded only where a cluster has this service.
        from backfill.hooks import internal_jobs

        try:
            connection = await self.connection(conn_id)
            seen = await asyncio.to_thread(internal_jobs.ask, connection, named)
        except (internal_jobs.InternalJobsError, AirflowNotFoundException) as error:
            await say(self.log.warning, "the InternalJobService cannot be asked, Temporal alone decides: %s", error)
            return look
        found = agreement(dict.fromkeys(named, "done"), seen)
        if found.agrees is False:
            return waiting(found.reason)
        await say(self.log.info, "%s", found.reason or f"the InternalJobService agrees: {len(named)} jobs are done")
        return look

    def _after_refusal(self, refused: RefusedError) -> Look:
        """Ask once more with a client that reads the connection again: its key may have been renewed meanwhile."""
        if self._refused:
            return Failed(self.failure(failed(refused.cause, str(refused))))
        self._refused = True
        shared_poll().drop(("temporal", self.args.cluster))
        return waiting(f"{refused}; asking once more with the connection as it is now")

    async def _decide(self, workflows: Workflows) -> tuple[Expected, Verdict]:
        """Return what is known of and the verdict; a failure is told only once nothing of the window is open."""
        found = self._expected()
        if found.verdict.state != "ok":
            await self._ask_list(workflows)
            found = self._expected()
            if not found.ids:
                return found, found.verdict
        doubts = () if found.verdict.state == "ok" else found.verdict.reasons
        await self._refresh(workflows, found.ids)
        ends = rules.judge(found.ids, self._known)
        if ends.state == "wait":
            return found, wait(*doubts, *ends.reasons)
        if found.verdict.state == "wait":
            return found, found.verdict
        if doubts:
            return found, failed(ends.cause or found.verdict.cause, *ends.reasons, *doubts)
        # The last word belongs to the list: what a Job's lost log has not named must be closed, too.
        await self._ask_list(workflows)
        more = [i for i in self._expected().ids if i not in found.ids]
        if more:
            return found, wait(f"{len(more)} more workflows of this window have appeared: {', '.join(more[:3])}")
        if self._reopened:
            return found, wait(f"workflows of an earlier attempt are open again: {', '.join(self._reopened[:3])}")
        return found, ends

    def _expected(self) -> Expected:
        ended = self._current.ended_at
        waited = time.time() - ended if ended else time.monotonic() - self._first_look
        settle = self.config.temporal.settle_seconds
        return expected(self._by_log, self._by_query, self._ids, waited=waited, settle=settle)

    async def _ask_list(self, workflows: Workflows) -> None:
        """Ask which workflows the server lists; those of another window of the same customer are left out.

        An id that says nothing of its days counts only for a profile that the log does not name: then it must be
        taken for this window's, since unknown is never ok. Those of earlier attempts are only looked at for being open.
        """
        window = self.window
        until = self._current.ended_at
        found = await customer_ids(workflows, window, self._current.made_at, until)
        listed = [i for i in found if i not in self._earlier]
        earlier = [i for i in found if i in self._earlier]
        seen = await workflows.describe_all(earlier) if earlier else {}
        self._reopened = [i for i, execution in seen.items() if execution.open]
        days = window.start, window.end
        for i in listed:
            if i not in self._by_log and i not in self._about:
                self._about[i] = about_window(await workflows.said_at_start(i), *days)
        in_log = {self._ids.profile_of(i) for i in self._by_log}
        mine = (
            i
            for i in listed
            if i in self._by_log or self._about[i] or (self._about[i] is None and self._ids.profile_of(i) not in in_log)
        )
        # A list that hides what it has shown before takes nothing back.
        self._by_query = list(dict.fromkeys((*self._by_query, *mine)))

    def _decided(self, ids: Sequence[str], verdict: Verdict) -> Look:
        flows: life.Flows = "completed" if verdict.state == "ok" else "open"
        if verdict.state == "failed":
            flows = "none" if verdict.cause == "too_few_workflows" else "failed"
        facts = life.Facts(workflows=flows, left=self._left, others="quiet", attempt=self._current.attempt)
        step = life.next_step("wait_workflows", facts)
        if step.action == "done":
            return self._done(ids, verdict)
        if step.action == "make":
            event = ReindexEvent(window=self.window, attempt=self._current.attempt)
            return Wake(event, f"{step.why}: {verdict.text}")
        if step.action == "fail":
            return Failed(self.failure(verdict))
        done, total = rules.progress(self._known[i] for i in ids if i in self._known)
        return Wait(verdict.reasons, done, total)

    def _done(self, ids: Sequence[str], verdict: Verdict) -> Look:
        return Done(self._closed(ids), verdict.text)

    def _closed(self, ids: Sequence[str]) -> WorkflowsClosed:
        known = [self._known[i] for i in ids if i in self._known]
        return WorkflowsClosed(
            key=self.window.key,
            status="completed",
            attempt=self._current.attempt,
            workflow_ids=tuple(ids),
            minutes=rules.minutes_of(known),
            done=rules.progress(known)[0],
        )

    async def _refresh(self, workflows: Workflows, ids: Sequence[str]) -> None:
        listed = await shared_open_ids(self, workflows, self.pause_seconds / 2)
        self._polls += 1
        thorough = self._polls % DESCRIBE_EVERY_POLLS == 1
        closed = {i for i in ids if i in self._known and self._known[i].status in rules.CLOSED}
        ask = [i for i in ids if thorough or i not in self._known or (i not in listed and i not in closed)]
        # A reset gives a closed id a new run; before the verdict is given every id is looked at once more.
        if not thorough and all(i in closed for i in ids if i not in ask):
            ask = list(ids)
        for i, found in (await workflows.describe_all(ask)).items():
            before = self._known.get(i)
            if found.status == "missing" and before is not None and before.status in rules.CLOSED:
                # The namespace's retention has removed it since; how it ended was seen and stays true.
                continue
            if found.done is None and before is not None and before.run_id == found.run_id:
                # Only an activity that is pending tells its progress.
                found = replace(found, done=before.done, total=before.total)
            self._known[i] = found


class ClosedTrigger(WorkflowsTrigger):
    """The same wait for a task that goes on afterwards: it wakes its worker instead of ending the task."""

    path = "backfill.triggers.workflows.ClosedTrigger"
    stage: ClassVar[Stage] = "verify"

    def _done(self, ids: Sequence[str], verdict: Verdict) -> Look:
        return Wake(ClosedEvent(closed=self._closed(ids)), verdict.text)


async def customer_ids(workflows: Workflows, window: Window, since: float, until: float = 0.0) -> list[str]:
    """Return the ids of the window's customer and profiles that were started from ``since`` to ``until``.

    Both are epoch seconds by Kubernetes' clock, widened by temporal.clock_skew_seconds; ``until`` 0 means now. What
    has started before is an earlier attempt's.
    """
    skew = workflows.config.clock_skew_seconds
    first = datetime.fromtimestamp(since - skew, UTC)
    last = datetime.fromtimestamp(until + skew, UTC) if until else None
    listed = await workflows.ids_of_customer(window.customer_id, first, last)
    prefix = workflows.config.workflow_id_prefix
    return [
        i
        for i in listed
        if rules.belongs_to(i, prefix=prefix, customer_id=window.customer_id, profiles=window.profiles)
    ]


async def open_of_window(workflows: Workflows, window: Window, since: float) -> list[str]:
    """Return the workflows of :func:`customer_ids` that are still open by their own description."""
    found = await workflows.describe_all(await customer_ids(workflows, window, since))
    return [i for i, e in found.items() if e.open]
