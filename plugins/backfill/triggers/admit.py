"""Admission: every waiting window evaluates the same function on a shared snapshot of the run's task states."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from asgiref.sync import sync_to_async

from backfill import metrics
from backfill.groups import BATCHES, GROUPS, pass_of
from backfill.kit import xcoms
from backfill.kit.look import Done, Failed, Look, Wait, wait, waits
from backfill.kit.poll import shared_poll
from backfill.kit.wait import WaitArgs, WaitTrigger
from backfill.settings import DAG_ID_PREFIX, OVERRIDE_VARIABLE, load_all
from backfill.slots import limits_now, override_now, override_text
from backfill.triggers.workflows import shared_open_ids, shared_workflows
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.graph import tasks_of
from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.planning.overrides import Override, OverrideError
from include.scorecard_backfill.records import Verified
from include.scorecard_backfill.verdicts import admission, health

ENDED = ["success", "failed", "upstream_failed", "skipped", "removed"]
"""States of verify in which a window is no longer in flight."""

PHASES: tuple[admission.Phase, ...] = ("waiting", "running", "verified", "failed")

RUN_SECONDS = 60.0
"""How long a run's parameters are taken from the snapshot."""


async def shared_override(cluster: str, max_age: float) -> str | None:
    """Return the text of the cluster's override variable from the shared snapshot."""

    async def load() -> str | None:
        return await sync_to_async(override_text)(cluster)

    return await shared_poll().get(("override", cluster), load, max_age=max_age)


class AdmitTrigger(WaitTrigger[WaitArgs]):
    """Waits until a window may start. The order of the windows is loaded once for all that wait in this process."""

    path = "backfill.triggers.admit.AdmitTrigger"
    stage = "admit"
    model = WaitArgs

    @property
    def poll_seconds(self) -> float:
        """Interval of asking for admission."""
        return self.config.admission.poll_seconds

    @property
    def pause_seconds(self) -> float:
        """The same: how long this window has waited says nothing about when another one's place becomes free."""
        return self.poll_seconds

    async def prepare(self) -> None:
        """Find this window's place in the plan."""
        at = (self.args.group, int(self.ti.map_index))
        self._index = [(place.group, place.index) for place in await self.places()].index(at)
        # In its first try nothing of it can be verified: one question less for each window of a plan.
        verified = await self.result_of("verify") if self.ti.try_number > 1 else None
        key = self.window.key
        self._verified = isinstance(verified, Verified) and verified.key == key and verified.status == "verified"

    async def _run(self) -> Chosen:
        """Return the run's parameters."""

        async def load() -> Chosen:
            return await xcoms.achosen(self.ti)

        return await shared_poll().get(("run", self.ti.dag_id, self.ti.run_id), load, max_age=RUN_SECONDS)

    async def look(self) -> Look:
        """Decide this window on the run's states; what holds everybody back is asked only when its turn has come."""
        if self._verified:
            return Done({"key": self.args.key}, "this window is verified already")
        override = await self.override()
        if isinstance(override, Wait):
            return override
        verdict = (await self.survey(override)).judge(self._index)
        if verdict.state == "ok" and (held := await self._held_back()) is not None:
            return held
        if verdict.state == "wait":
            return waits(verdict, "queue")
        if verdict.state == "failed":
            return Failed(self.failure(verdict))
        return Done({"key": self.args.key, "admitted_at": datetime.now(UTC).isoformat()}, verdict.text)

    async def override(self) -> Override | Wait | None:
        """Return the override in force; a wait while it lets nobody start or cannot be read."""
        try:
            override = override_now(await shared_override(self.args.cluster, self.poll_seconds / 2))
        except OverrideError as error:
            name = OVERRIDE_VARIABLE.format(cluster=self.args.cluster)
            return wait(
                f"nothing is started while the Airflow Variable {name} cannot be used: {error}", word="override"
            )
        if override and override.pause:
            return wait(f"paused {override.text}", word="paused")
        return override

    async def _held_back(self) -> Wait | None:
        """Hold a window back whose turn it is when the cluster is not well or the budget of all clusters is used."""
        gate = await self._gate()
        if not gate.open:
            return wait(f"the cluster is too busy for another window: {gate.text}", word="busy")
        budget = self.config.admission.global_max_parallel
        if budget is not None:
            running = await self._running_everywhere()
            if running >= budget:
                said = f"{running} of {budget} windows of all clusters are in flight (global_max_parallel)"
                return wait(said, word="budget")
        return None

    async def survey(self, override: Override | None) -> admission.Survey:
        """Look at the windows of this pass; one look serves every window that waits in this process."""
        groups, run, places = pass_of(self.args.group), await self._run(), await self.places()
        tasks = tasks_of(self.config.orders)

        async def load() -> admission.Survey:
            states = await self._load_states()
            # A batch that the cluster's file does not have any more is never opened.
            opened = {one.group: states.get(one.opened_by, "removed") for one in groups if one.opened_by}
            slots = []
            for place in places:
                first, *later = (states.get(f"{place.group}.{task}_{place.index}") for task in tasks)
                phase = admission.phase_of(first, later, opened.get(place.group))
                slots.append(admission.Slot(place.window.customer_id, phase))
            if groups == BATCHES:
                # What a person must let go on waits, too.
                counts: Counter[str] = Counter("waiting" if slot.phase == "closed" else slot.phase for slot in slots)
                metrics.windows_by_state(self.config.name, {phase: counts[phase] for phase in PHASES})
            return admission.survey(slots, limits_now(self.config, run, override))

        key = ("survey", self.ti.dag_id, self.ti.run_id, groups[0].group)
        return await shared_poll().get(key, load, max_age=self.poll_seconds / 2)

    async def _load_states(self) -> dict[str, Any]:
        ti = self.ti
        groups = pass_of(self.args.group)
        tasks = [f"{one.group}.{task}" for one in groups for task in tasks_of(self.config.orders)]
        tasks += [one.opened_by for one in groups if one.opened_by]
        found = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=ti.dag_id, task_ids=tasks, run_ids=[ti.run_id]
        )
        states: dict[str, Any] = found.get(ti.run_id, {})
        return states

    async def _gate(self) -> health.Gate:
        """Look at the cluster's load; the gate of the look before decides between the two limits of a measure."""
        poll, cluster = shared_poll(), self.args.cluster

        async def load() -> health.Gate:
            hook = await self.clickhouse()
            readings = await asyncio.to_thread(hook.health, await self.hosts())
            workflows = await shared_open_ids(self, await shared_workflows(self), self.poll_seconds / 2)
            readings[health.RUNNING_WORKFLOWS] = health.Reading(len(workflows))
            before = poll.memory.get(("gate", cluster), health.Gate({}))
            gate = health.judge(readings, self.config.admission.health, before)
            poll.memory["gate", cluster] = gate
            return gate

        return await poll.get(("gate", cluster), load, max_age=self.poll_seconds / 2)

    async def _running_everywhere(self) -> int:
        """Count the windows in flight of all clusters: admitted, and verify not ended.

        Runs of different clusters have no common order, so that two may take the last place within one poll; the
        limit of each cluster is never exceeded by it.
        """

        async def load() -> int:
            clusters = [item.name for item in load_all() if isinstance(item, ClusterConfig)]
            return sum([await _in_flight(f"{DAG_ID_PREFIX}{name}") for name in clusters])

        return await shared_poll().get(("everywhere",), load, max_age=self.poll_seconds / 2)


async def _in_flight(dag_id: str) -> int:
    async def count(stage: str, states: list[str]) -> int:
        tasks = [f"{group}.{stage}" for group in GROUPS]
        found: int = await sync_to_async(RuntimeTaskInstance.get_ti_count)(dag_id=dag_id, task_ids=tasks, states=states)
        return found

    admitted = await count("admit", ["success"])
    # A window whose admission failed has a verify that ended without ever having been in flight.
    ended = await count("verify", ENDED) - await count("admit", ENDED[1:])
    return max(0, admitted - ended)
