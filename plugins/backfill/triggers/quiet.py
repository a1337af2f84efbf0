"""Waits until a window may make its Job: nothing of an earlier attempt runs, and a slot is free."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from asgiref.sync import sync_to_async

from backfill.groups import PASSES
from backfill.hooks.kubernetes import KubernetesJobs
from backfill.hooks.temporal import Workflows
from backfill.kit import xcoms
from backfill.kit.look import Failed, Look, Wake, waits
from backfill.kit.poll import shared_poll
from backfill.kit.wait import PLAN_SECONDS, WaitArgs, WaitTrigger, places_of
from backfill.reindexing.gate import Ask, Eyes, may_make_job
from backfill.slots import Place, stage_ids
from backfill.triggers.admit import shared_override
from backfill.triggers.workflows import shared_open_ids, shared_workflows
from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.records import GoEvent, Window


class QuietArgs(WaitArgs):
    """``since``: epoch seconds from which on workflows of the window count as an earlier attempt's, 0: none was."""

    window: Window
    since: float = 0.0


class QuietTrigger(WaitTrigger[QuietArgs]):
    """Wakes its worker, which looks at everything again, when the window may make its Job."""

    path = "backfill.triggers.quiet.QuietTrigger"
    stage = "reindex"
    model = QuietArgs
    fails_on_worker = True

    @property
    def poll_seconds(self) -> float:
        """Interval of looking."""
        return self.config.temporal.poll_seconds

    async def prepare(self) -> None:
        """Name the window."""
        self.label = self.args.window.label

    async def look(self) -> Look:
        """Ask what a worker would ask, with answers that all waiting windows share."""
        verdict = await may_make_job(self.config, self._eyes(), await self._ask())
        if verdict.state == "wait":
            return waits(verdict)
        if verdict.state == "failed":
            return Failed(self.failure(verdict))
        return Wake(GoEvent(key=self.args.key, why=verdict.text), verdict.text)

    async def _ask(self) -> Ask:
        ti = self.ti

        async def places() -> list[Place]:
            return [place for groups in PASSES for place in await places_of(ti, groups)]

        async def run() -> Chosen:
            return await xcoms.achosen(ti)

        poll, of_run = shared_poll(), (ti.dag_id, ti.run_id)
        listed = await poll.get(("all places", *of_run), places, max_age=PLAN_SECONDS)
        return Ask(
            self.args.window, listed, await poll.get(("run", *of_run), run, max_age=PLAN_SECONDS), self.args.since
        )

    def _eyes(self) -> Eyes:
        half = self.pause_seconds / 2

        async def workflows() -> Workflows:
            return await shared_workflows(self)

        async def open_ids() -> Collection[str]:
            return await shared_open_ids(self, await workflows(), half)

        async def states() -> Mapping[str, str | None]:
            key = ("job states", self.ti.dag_id, self.ti.run_id)
            return await shared_poll().get(key, self._states, max_age=half)

        async def override() -> str | None:
            return await shared_override(self.args.cluster, half)

        return Eyes(KubernetesJobs(self.config), workflows, open_ids, states, override)

    async def _states(self) -> Mapping[str, str | None]:
        ti = self.ti
        found = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=ti.dag_id, task_ids=stage_ids(), run_ids=[ti.run_id]
        )
        states: Mapping[str, str | None] = found.get(ti.run_id, {})
        return states
