"""Admission: every waiting window evaluates the same function on a shared snapshot of the run's task states."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from asgiref.sync import sync_to_async

from backfill.groups import GROUPS
from backfill.kit.poll import shared_poll
from backfill.records import parse, parse_record
from backfill.settings import DAG_ID_PREFIX, OVERRIDE_VARIABLE, load_all
from backfill.slots import limits_now, override_now, override_text
from backfill.triggers.base import Json, Look, WaitTrigger
from backfill.triggers.workflows import shared_open_ids, shared_workflows
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.planning.overrides import Override, OverrideError
from include.scorecard_backfill.verdicts import admission, health
from include.scorecard_backfill.verdicts.base import Verdict, ok, wait

STAGES = ("admit", "delete", "wait_mutations", "reindex", "wait_workflows", "verify")

ENDED = ["success", "failed", "upstream_failed", "skipped", "removed"]
"""States of verify in which a window is no longer in flight."""


async def shared_override(trigger: WaitTrigger, max_age: float) -> str | None:
    """Return the text of the cluster's override variable from the shared snapshot."""

    async def load() -> str | None:
        return await sync_to_async(override_text)(trigger.cluster)

    return await shared_poll().get(("override", trigger.cluster), load, max_age=max_age)


class AdmitTrigger(WaitTrigger):
    """Waits until a window may start. ``customers`` are the customer ids in plan order, ``group`` the task group."""

    path = "backfill.triggers.admit.AdmitTrigger"
    fields = ("dag_id", "run_id", "group", "map_index", "customers", "run_record", "verified")

    dag_id: str
    run_id: str
    group: str
    map_index: Any
    customers: Any
    run_record: Any
    verified: Any

    @property
    def poll_seconds(self) -> float:
        """Interval of asking for admission."""
        return self.config.admission.poll_seconds

    def prepare(self) -> None:
        """Parse the plan's order and the run's parameters."""
        self._index = int(self.map_index)
        self._customers: list[str] = parse(self.customers) or []
        self._run = parse_record(self.run_record)
        self._verified = parse_record(self.verified)
        if not 0 <= self._index < len(self._customers):
            raise ValueError(f"map index {self._index} is not in the plan of {len(self._customers)} windows")

    async def look(self) -> Look:
        """Decide this window on the run's states; what holds everybody back is asked only when its turn has come."""
        if self._verified.get("status") == "verified":
            return Look(ok("this window is verified already"), {"key": self._verified.get("key")})
        try:
            override = await self._override()
        except OverrideError as error:
            name = OVERRIDE_VARIABLE.format(cluster=self.cluster)
            return Look(wait(f"nothing is started while the Airflow Variable {name} cannot be used: {error}"))
        if override and override.pause:
            return Look(wait(f"paused {override.text}"))
        verdict = (await self._survey(override)).judge(self._index)
        if verdict.state == "ok":
            verdict = await self._whole(verdict)
        return Look(verdict, {"admitted_at": datetime.now(UTC).isoformat()})

    async def _whole(self, verdict: Verdict) -> Verdict:
        """Hold a window back whose turn it is when the cluster is not well or the budget of all clusters is used."""
        gate = await self._gate()
        if not gate.open:
            return wait(f"the cluster is too busy for another window: {gate.text}")
        budget = self.config.admission.global_max_parallel
        if budget is not None:
            running = await self._running_everywhere()
            if running >= budget:
                return wait(f"{running} of {budget} windows of all clusters are in flight (global_max_parallel)")
        return verdict

    async def _override(self) -> Override | None:
        """Read what a person asks for now. Raises OverrideError when it cannot be used."""

        return override_now(await shared_override(self, self.poll_seconds / 2))

    async def _survey(self, override: Override | None) -> admission.Survey:
        """Look at the run's windows; one look serves every window that waits in this process."""

        async def load() -> admission.Survey:
            states = await self._load_states()
            slots = [
                admission.Slot(
                    customer,
                    admission.phase_of(
                        states.get(f"{self.group}.admit_{index}"),
                        [states.get(f"{self.group}.{stage}_{index}") for stage in STAGES[1:]],
                    ),
                )
                for index, customer in enumerate(self._customers)
            ]
            return admission.survey(slots, limits_now(self.config, self._run, override))

        key = ("survey", self.dag_id, self.run_id, self.group)
        return await shared_poll().get(key, load, max_age=self.poll_seconds / 2)

    async def _load_states(self) -> Json:
        found = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=self.dag_id, task_ids=[f"{self.group}.{stage}" for stage in STAGES], run_ids=[self.run_id]
        )
        states: Json = found.get(self.run_id, {})
        return states

    async def _gate(self) -> health.Gate:
        """Look at the cluster's load; the gate of the look before decides between the two limits of a measure."""
        poll = shared_poll()

        async def load() -> health.Gate:
            hook = await self.clickhouse()
            readings = await asyncio.to_thread(hook.health, await self.hosts())
            workflows = await shared_open_ids(self, await shared_workflows(self), self.poll_seconds / 2)
            readings[health.RUNNING_WORKFLOWS] = health.Reading(len(workflows))
            before = poll.memory.get(("gate", self.cluster), health.Gate({}))
            gate = health.judge(readings, self.config.admission.health, before)
            poll.memory["gate", self.cluster] = gate
            return gate

        return await poll.get(("gate", self.cluster), load, max_age=self.poll_seconds / 2)

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
