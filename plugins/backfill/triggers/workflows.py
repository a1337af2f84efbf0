"""Waits until the Temporal workflows of a window's Job are closed. A list is a hint, describe decides."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from temporalio.client import Client

from backfill.hooks.temporal import TemporalHook, Workflows
from backfill.kit.poll import shared_poll
from backfill.records import parse_record, settled
from backfill.triggers.base import Json, Look, WaitTrigger
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.verdicts import workflows as rules
from include.scorecard_backfill.verdicts.base import ok, wait
from include.scorecard_backfill.verdicts.jobs import job_outcome

CLIENT_SECONDS = 600.0
"""A client is made anew this often, and after a lost connection: idle ones are cut by what stands between."""

CLOSED = frozenset({"completed", "failed", "timed_out", "terminated", "canceled"})
"""States in which a workflow's run has ended."""

DESCRIBE_EVERY_POLLS = 4
"""Even a workflow that is listed as running is described every so many polls: its list entry may be stale."""

CLOCK_SKEW_SECONDS = 60.0
"""How far the clocks of Kubernetes and Temporal may be apart."""

SETTLE_SECONDS = 120.0
"""Visibility lags by seconds; no workflow found for this long after the Job's end means that there is none."""


async def shared_workflows(trigger: WaitTrigger) -> Workflows:
    """Return the cluster's workflows behind one client per event loop."""

    async def load() -> Client:
        connection = await trigger.connection(trigger.config.temporal.conn_id)
        hook = TemporalHook(trigger.config.temporal.conn_id, connection)
        return await hook.connect(trigger.config.temporal.namespace)

    client = await shared_poll().get(("temporal", trigger.cluster), load, max_age=CLIENT_SECONDS)
    return Workflows(client, trigger.config)


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
        self._ids: list[str] = list(self._current.get("workflow_ids") or [])
        self._known: dict[str, rules.Execution] = {}
        self._polls = 0
        self._first_look = time.monotonic()

    async def look(self) -> Look:
        """Decide this window; what was failed when a cleared task starts again asks for a new reindex."""
        if self._settled:
            return Look(ok(f"this window is {self._settled} already"), {"key": self.key, "status": self._settled})
        workflows = await shared_workflows(self)
        if not self._ids:
            missing = await self._find(workflows)
            if missing:
                return missing
        await self._refresh(workflows)
        verdict = rules.judge(self._ids, self._known)
        if verdict.state == "failed" and self._is_old_failure():
            return Look(
                wait("these workflows failed before this task was cleared: making a new reindex"),
                resume={"action": "reindex", "window": self._current["window"], "attempt": self._current["attempt"]},
            )
        result = {
            "key": self.key,
            "status": "completed",
            "attempt": self._current.get("attempt"),
            "workflow_ids": self._ids,
            "minutes": rules.minutes_of([self._known[i] for i in self._ids if i in self._known]),
        }
        if verdict.state == "failed":
            return Look(verdict, {"reindexed": {**self._current, "workflow_ids": self._ids}})
        if verdict.state == "ok" and self.then:
            return Look(verdict, resume={"action": "completed", "attempt": self._current["attempt"]})
        return Look(verdict, result)

    def _is_old_failure(self) -> bool:
        """Return True when an earlier try of this task already reported exactly this attempt as failed."""
        before = self._failed_before.get("reindexed") or {}
        return before.get("attempt") == self._current.get("attempt") and before.get("key") == self._current.get("key")

    async def _find(self, workflows: Workflows) -> Look | None:
        """Find the ids by query when the log did not name them; None once they are known."""
        window = self._current["window"]
        profiles = window["databases"]
        ids = await customer_ids(workflows, window, float(self._current["made_at"]))
        waited = time.monotonic() - self._first_look
        if len(ids) >= len(profiles):
            self._ids = ids
            return None
        if waited < SETTLE_SECONDS:
            return Look(wait(f"{len(ids)} of {len(profiles)} workflows are visible yet (the Job's log named none)"))
        verdict = rules.judge([], {})
        if self._is_old_failure():
            again = {"action": "reindex", "window": window, "attempt": self._current["attempt"]}
            return Look(wait("no workflow was found before either: making a new reindex"), resume=again)
        return Look(verdict, {"reindexed": self._current})

    async def _refresh(self, workflows: Workflows) -> None:
        listed = await shared_open_ids(self, workflows, self.poll_seconds / 2)
        self._polls += 1
        thorough = self._polls % DESCRIBE_EVERY_POLLS == 1
        ask = [
            i
            for i in self._ids
            if thorough or i not in self._known or (i not in listed and self._known[i].status not in CLOSED)
        ]
        # A reset gives a closed id a new run; before the verdict is given every id is looked at once more.
        if not thorough and all(
            i in self._known and self._known[i].status in CLOSED for i in self._ids if i not in ask
        ):
            ask = list(self._ids)
        for i, found in (await workflows.describe_all(ask)).items():
            before = self._known.get(i)
            if found.status == "missing" and before is not None and before.status in CLOSED:
                # The namespace's retention has removed it since; how it ended was seen and stays true.
                continue
            self._known[i] = found


async def customer_ids(workflows: Workflows, window: Json, since: float) -> list[str]:
    """Return the ids of the window's customer and profiles that were started at ``since`` (epoch seconds) or later."""
    moment = datetime.fromtimestamp(since - CLOCK_SKEW_SECONDS, UTC)
    listed = await workflows.list_ids(workflows.customer_query(window["customer_id"], moment))
    prefix = workflows.config.workflow_id_prefix
    profiles = [db["profile_id"] for db in window["databases"]]
    return [
        i for i in listed if rules.belongs_to(i, prefix=prefix, customer_id=window["customer_id"], profiles=profiles)
    ]


async def open_of_window(workflows: Workflows, window: Json, since: float) -> list[str]:
    """Return the workflows of :func:`customer_ids` that are still open by their own description."""
    found = await workflows.describe_all(await customer_ids(workflows, window, since))
    return [i for i, e in found.items() if e.status in ("running", "continued_as_new")]


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
