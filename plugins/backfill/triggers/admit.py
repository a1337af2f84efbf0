"""Admission: every waiting window evaluates the same function on a shared snapshot of the run's task states."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from asgiref.sync import sync_to_async

from backfill.poll import shared_poll
from backfill.triggers.base import Json, Look, WaitTrigger, parse, parse_record
from include.scorecard_backfill.verdicts import admission
from include.scorecard_backfill.verdicts.base import ok

STAGES = ("admit", "delete", "wait_mutations", "reindex", "wait_workflows", "verify")


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
        """Decide this window on the run's states."""
        if self._verified.get("status") == "verified":
            return Look(ok("this window is verified already"), {"key": self._verified.get("key")})
        verdict = admission.judge(self._index, await self._slots(), self._limits())
        return Look(verdict, {"admitted_at": datetime.now(UTC).isoformat()})

    def _limits(self) -> admission.Limits:
        config = self.config.admission
        now = self.config.limits_at(datetime.now(UTC))
        asked = (self._run.get("sources") or {}).get("max_parallel") == "form"
        return admission.Limits(
            max_parallel=int(self._run["max_parallel"]) if asked else now.max_parallel,
            per_customer=now.windows_per_customer,
            max_failures=self._run.get("max_failures") or config.max_failures,
            max_failure_share=config.max_failure_share,
            min_windows_for_share=config.min_windows_for_share,
        )

    async def _slots(self) -> list[admission.Slot]:
        states = await shared_poll().get(
            ("states", self.dag_id, self.run_id, self.group), self._load_states, max_age=self.poll_seconds / 2
        )
        return [
            admission.Slot(
                customer,
                admission.phase_of(
                    states.get(f"{self.group}.admit_{index}"),
                    [states.get(f"{self.group}.{stage}_{index}") for stage in STAGES[1:]],
                ),
            )
            for index, customer in enumerate(self._customers)
        ]

    async def _load_states(self) -> Json:
        found = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=self.dag_id, task_ids=[f"{self.group}.{stage}" for stage in STAGES], run_ids=[self.run_id]
        )
        states: Json = found.get(self.run_id, {})
        return states
