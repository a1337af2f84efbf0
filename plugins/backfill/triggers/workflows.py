"""Waits until the Temporal workflows of a window's Job are closed. A list is a hint, describe decides."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from temporalio.service import RPCError

from backfill.hooks.temporal import RefusedError, TemporalHook, Workflows, refusal
from backfill.kit.poll import shared_poll
from backfill.records import parse_record, settled
from backfill.triggers.base import Json, Look, WaitTrigger
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.verdicts import workflows as rules
from include.scorecard_backfill.verdicts.base import Verdict, failed, ok, wait
from include.scorecard_backfill.verdicts.jobs import job_outcome
from include.scorecard_backfill.verdicts.started import Expected, Ids, about_window, expected

CLIENT_SECONDS = 600.0
"""A client is made anew this often, and after a lost connection: idle ones are cut by what stands between."""

DESCRIBE_EVERY_POLLS = 4
"""Even a workflow that is listed as running is described every so many polls: its list entry may be stale."""


async def shared_workflows(trigger: WaitTrigger) -> Workflows:
    """Return the cluster's workflows behind one client per event loop."""

    async def load() -> Workflows:
        connection = await trigger.connection(trigger.config.temporal.conn_id)
        hook = TemporalHook(trigger.config.temporal.conn_id, connection)
        return Workflows(await hook.connect(trigger.config.temporal.namespace), trigger.config)

    return await shared_poll().get(("temporal", trigger.cluster), load, max_age=CLIENT_SECONDS)


async def shared_open_ids(trigger: WaitTrigger, workflows: Workflows, max_age: float) -> frozenset[str]:
    """Return the ids that visibility lists as open: one query for all waiting windows of the cluster."""

    async def load() -> frozenset[str]:
        return frozenset(await workflows.list_ids(workflows.open_query()))

    return await shared_poll().get(("open", trigger.cluster), load, max_age=max_age)


class WorkflowsTrigger(WaitTrigger):
    """Ends the task, or wakes a worker when ``then`` is set (the worker goes on with something else).

    ``reindexed`` is the result of the reindex stage, ``previous`` what a failed try of this task left behind.
    """

    path = "backfill.triggers.workflows.WorkflowsTrigger"
    fields = ("reindexed", "previous", "verified", "cut", "then")
    fails_on_worker = True

    then: Any
    reindexed: Any
    previous: Any
    verified: Any
    cut: Any

    @property
    def poll_seconds(self) -> float:
        """Interval of looking at the workflows."""
        return self.config.temporal.poll_seconds

    @property
    def outage_seconds(self) -> float:
        """How long Temporal may be unreachable."""
        return float(self.config.temporal.outage_seconds)

    def prepare(self) -> None:
        """Choose the newest attempt: the reindex stage's, or the one that an earlier try of this task made."""
        reindexed, previous = parse_record(self.reindexed), parse_record(self.previous)
        self._failed_before = previous if previous.get("status") == "failed" else {}
        newer = self._failed_before.get("reindexed") or {}
        same = newer.get("key") == reindexed.get("key")
        self._current = newer if same and newer.get("attempt", 0) > reindexed.get("attempt", 0) else reindexed
        if not self._current.get("window"):
            raise ValueError("the reindex stage left no result: clear it (reindex) and this task with it")
        self.key = self._current["key"]
        self._settled = settled(self.key, self.verified, self.cut)
        self._ids = Ids(
            self.config.temporal.workflow_id_prefix,
            self._current["window"]["customer_id"],
            tuple(db["profile_id"] for db in self._current["window"]["databases"]),
        )
        self._by_log = list(dict.fromkeys(self._current.get("workflow_ids") or []))
        self._by_query: list[str] = []
        self._about: dict[str, bool | None] = {}
        self._known: dict[str, rules.Execution] = {}
        self._polls = 0
        self._first_look = time.monotonic()
        self._refused = False

    async def look(self) -> Look:
        """Decide this window; what was failed when a cleared task starts again asks for a new reindex."""
        if self._settled:
            return Look(ok(f"this window is {self._settled} already"), {"key": self.key, "status": self._settled})
        temporal = self.config.temporal
        try:
            found, verdict = await self._decide(await shared_workflows(self))
        except (RPCError, RefusedError) as error:
            refused = refusal(error, temporal.conn_id, temporal.namespace)
            if refused is None:
                raise
            return self._after_refusal(refused)
        self._refused = False
        return self._decided(list(found.ids), verdict)

    def _after_refusal(self, refused: RefusedError) -> Look:
        """Ask once more with a client that reads the connection again: its key may have been renewed meanwhile."""
        if self._refused:
            return Look(failed(refused.cause, str(refused)), {"reindexed": self._current})
        self._refused = True
        shared_poll().drop(("temporal", self.cluster))
        return Look(wait(f"{refused}; asking once more with the connection as it is now"))

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
        return found, ends

    def _expected(self) -> Expected:
        ended = float(self._current.get("ended_at") or 0)
        waited = time.time() - ended if ended else time.monotonic() - self._first_look
        settle = self.config.temporal.settle_seconds
        return expected(self._by_log, self._by_query, self._ids, waited=waited, settle=settle)

    async def _ask_list(self, workflows: Workflows) -> None:
        """Ask which workflows the server lists; those of another window of the same customer are left out.

        An id that says nothing of its days counts only for a profile that the log does not name: then it must be
        taken for this window's, since unknown is never ok.
        """
        window = self._current["window"]
        until = float(self._current.get("ended_at") or 0)
        listed = await customer_ids(workflows, window, float(self._current["made_at"]), until)
        days = date.fromisoformat(window["start"]), date.fromisoformat(window["end"])
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

    def _decided(self, ids: list[str], verdict: Verdict) -> Look:
        if verdict.state == "failed" and self._is_old_failure():
            return Look(
                wait("these workflows failed before this task was cleared: making a new reindex"),
                resume={"action": "reindex", "window": self._current["window"], "attempt": self._current["attempt"]},
            )
        if verdict.state == "failed":
            return Look(verdict, {"reindexed": {**self._current, "workflow_ids": ids}})
        if verdict.state == "ok" and self.then:
            return Look(verdict, resume={"action": "completed", "attempt": self._current["attempt"]})
        minutes = rules.minutes_of([self._known[i] for i in ids if i in self._known])
        return Look(verdict, {
            "key": self.key,
            "status": "completed",
            "attempt": self._current.get("attempt"),
            "workflow_ids": ids,
            "minutes": minutes,
        })  # fmt: skip

    def _is_old_failure(self) -> bool:
        """Return True when an earlier try of this task already reported exactly this attempt as failed."""
        before = self._failed_before.get("reindexed") or {}
        return before.get("attempt") == self._current.get("attempt") and before.get("key") == self._current.get("key")

    async def _refresh(self, workflows: Workflows, ids: Sequence[str]) -> None:
        listed = await shared_open_ids(self, workflows, self.poll_seconds / 2)
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
            self._known[i] = found


async def customer_ids(workflows: Workflows, window: Json, since: float, until: float = 0.0) -> list[str]:
    """Return the ids of the window's customer and profiles that were started from ``since`` to ``until``.

    Both are epoch seconds by Kubernetes' clock, widened by temporal.clock_skew_seconds; ``until`` 0 means now. What
    has started before is an earlier attempt's.
    """
    skew = workflows.config.clock_skew_seconds
    first = datetime.fromtimestamp(since - skew, UTC)
    last = datetime.fromtimestamp(until + skew, UTC) if until else None
    listed = await workflows.ids_of_customer(window["customer_id"], first, last)
    prefix = workflows.config.workflow_id_prefix
    profiles = [db["profile_id"] for db in window["databases"]]
    return [
        i for i in listed if rules.belongs_to(i, prefix=prefix, customer_id=window["customer_id"], profiles=profiles)
    ]


async def open_of_window(workflows: Workflows, window: Json, since: float) -> list[str]:
    """Return the workflows of :func:`customer_ids` that are still open by their own description."""
    found = await workflows.describe_all(await customer_ids(workflows, window, since))
    return [i for i, e in found.items() if e.open]


def scheduled_jobs(jobs: list[Json], config: ClusterConfig) -> list[str]:
    """Return the names of running Jobs that the CronJob's own schedule made."""
    return [
        job["metadata"]["name"]
        for job in jobs
        if not job_outcome(job).final
        and any(
            owner.get("kind") == "CronJob" and owner.get("name") == config.kubernetes.cronjob
            for owner in job["metadata"].get("ownerReferences") or []
        )
    ]


def started_text(record: Json) -> str:
    """Return one line about a reindex for the log."""
    ids = record.get("workflow_ids") or []
    return f"Job {record.get('job_name')} (attempt {record.get('attempt')}), {len(ids)} workflows"
