"""Waits until a window may make its Job: nothing of an earlier attempt runs, and a slot is free."""

from __future__ import annotations

from typing import Any

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from asgiref.sync import sync_to_async

from backfill.hooks.kubernetes import AsyncJobClient
from backfill.kit.poll import shared_poll
from backfill.records import parse_record
from backfill.slots import limits_now, override_now, stage_ids, works
from backfill.triggers.admit import shared_override
from backfill.triggers.base import Json, Look, WaitTrigger
from backfill.triggers.workflows import open_of_window, scheduled_jobs, shared_open_ids, shared_workflows
from include.scorecard_backfill.job import cluster_selector, window_selector
from include.scorecard_backfill.planning.overrides import OverrideError
from include.scorecard_backfill.verdicts import admission
from include.scorecard_backfill.verdicts.base import Verdict, ok, wait
from include.scorecard_backfill.verdicts.jobs import may_run


class QuietTrigger(WaitTrigger):
    """Wakes its worker, which looks at everything again, when the window may make its Job.

    ``since``: epoch seconds from which on workflows of the window count as an earlier attempt's. ``slot``: {} or
    what the slot is judged by: dag_id, run_id, run (parameters), index, windows (of :func:`backfill.slots.compact`).
    """

    path = "backfill.triggers.quiet.QuietTrigger"
    fields = ("window", "since", "slot")

    window: Any
    since: float
    slot: Any

    @property
    def poll_seconds(self) -> float:
        """Interval of looking."""
        return self.config.temporal.poll_seconds

    async def look(self) -> Look:
        """Look at the pods and workflows of an earlier attempt, then at the Jobs, then at the slots."""
        window = parse_record(self.window)
        client = AsyncJobClient(self.config)
        if self.since:
            ending = may_run(await client.pods(window_selector(window["key"])))
            if ending:
                return Look(wait(f"pods of an earlier attempt have not ended: {', '.join(ending[:3])}"))
            running = await open_of_window(await shared_workflows(self), window, float(self.since))
            if running:
                return Look(wait(f"{len(running)} workflows of an earlier attempt are open: {', '.join(running[:3])}"))
        busy = scheduled_jobs(await client.jobs(""), self.config)
        if busy:
            return Look(wait(f"the CronJob's own Job {', '.join(busy)} is running"))
        slot = parse_record(self.slot)
        verdict = await self._judge_slot(client, slot) if slot else ok("nothing runs any more")
        if verdict.state == "wait":
            return Look(verdict)
        return Look(verdict, resume={"key": self.key, "quiet": True})

    async def _judge_slot(self, client: AsyncJobClient, slot: Json) -> Verdict:
        try:
            override = override_now(await shared_override(self, self.poll_seconds / 2))
        except OverrideError as error:
            return wait(f"the cluster's override cannot be used: {error}")
        if override and override.pause:
            return wait(f"paused {override.text}")
        states = await shared_poll().get(
            ("job states", slot["run_id"]), lambda: self._states(slot), max_age=self.poll_seconds / 2
        )
        jobs = await client.jobs(cluster_selector(self.cluster))
        open_ids = await shared_open_ids(self, await shared_workflows(self), self.poll_seconds / 2)
        limits = limits_now(self.config, slot["run"], override)
        found = works(slot["windows"], states, jobs, open_ids, self.config)
        return admission.judge_job(int(slot["index"]), found, limits.max_parallel)

    async def _states(self, slot: Json) -> Json:
        found = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=slot["dag_id"], task_ids=stage_ids(), run_ids=[slot["run_id"]]
        )
        states: Json = found.get(slot["run_id"], {})
        return states
