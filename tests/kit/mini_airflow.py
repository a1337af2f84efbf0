"""A small Airflow in one process: tasks execute, defer, are resumed, retried and cleared, as the product relies on it.

What it does: XComs, task state stores, the asset's state store, task states, deferrals to triggers (which go through
their JSON form and run to their event), answers to questions, retries of what a retry may mend, clears.
What it does not do: scheduling, parallel tasks, time-outs, logs, admission (a window's turn is the order of the plan).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Variable
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskAwaitingInput, TaskDeferred
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import BaseTrigger, TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent

from backfill.deleting import sweep
from backfill.kit import counting, debts, wait
from tests.kit.store import Store

Json = dict[str, Any]

log = logging.getLogger(__name__)

DAG_ID = "scorecard_backfill__matrix"
RETRIES = 2
LOOK_SECONDS = 0.02
"""A wait looks again this soon; what it decides does not depend on it."""

LIMIT_SECONDS = 300.0
"""No task of these tests takes longer, also when the machine is busy."""

Place = tuple[str, str, int, str]
"""(run id, task id, map index, key)."""


class AssetStore(Store):
    """State of the cluster's asset, which outlives runs."""

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Keep a value."""
        self.values[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        """Forget a value."""
        self.values.pop(key, None)

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return a value."""
        return self.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.set(key, value)


@dataclass
class Instance:
    """A task instance as stages and triggers see it."""

    air: MiniAirflow
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1
    dag_id: str = DAG_ID

    @property
    def id(self) -> str:
        """One id for each try."""
        return f"{self.run_id}/{self.task_id}/{self.map_index}/{self.try_number}"

    def xcom_pull(self, task_ids: str, key: str = "return_value", map_indexes: Any = "all", **_: Any) -> Any:
        """As Airflow: without indexes all that there are, without holes, and a single one not in a list."""
        if map_indexes != "all":
            return self.air.xcoms.get((self.run_id, task_ids, map_indexes, key))
        found = [
            value
            for (run, task, _, name), value in sorted(self.air.xcoms.items(), key=lambda item: item[0])
            if (run, task, name) == (self.run_id, task_ids, key)
        ]
        return found[0] if len(found) == 1 else found or None

    def xcom_push(self, key: str, value: Any) -> None:
        """Leave something."""
        self.air.xcoms[self.run_id, self.task_id, self.map_index, key] = json.loads(json.dumps(value, default=str))

    def get_task_states(self, **asked: Any) -> Json:
        """States by run and task."""
        return self.air.get_task_states(**asked)


@dataclass
class MiniAirflow:
    """What Airflow remembers, and how a task runs."""

    xcoms: dict[Place, Any] = field(default_factory=dict)
    stores: dict[tuple[str, str, int], Store] = field(default_factory=dict)
    states: dict[tuple[str, str, int], str] = field(default_factory=dict)
    tries: dict[tuple[str, str, int], int] = field(default_factory=dict)
    asset: AssetStore = field(default_factory=AssetStore)
    errors: dict[tuple[str, str, int], str] = field(default_factory=dict)
    answer: Callable[[str], str] = lambda task_id: "Approve"
    """What a person says to the question of a task."""

    asked: list[str] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Take Airflow's place where the product asks it."""

        async def aget_one(*, key: str, run_id: str, task_id: str, map_index: int = -1, **_: Any) -> Any:
            return self.xcoms.get((run_id, task_id, map_index, key))

        async def aset(*_: Any, **__: Any) -> None:
            return None

        real = asyncio

        class Hasty:
            """The module asyncio for the wait loop: it sleeps as little as possible."""

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            @staticmethod
            async def sleep(seconds: float) -> None:
                await real.sleep(min(seconds, LOOK_SECONDS))

        patch.setattr(BaseXCom, "aget_one", aget_one)
        patch.setattr(BaseXCom, "aset", aset)
        patch.setattr(RuntimeTaskInstance, "get_task_states", self.get_task_states)
        patch.setattr(debts, "AssetStateStoreAccessor", lambda **_: self.asset)
        patch.setattr(Variable, "get", lambda key, default=None, **_: default)
        patch.setattr(wait, "asyncio", Hasty())
        patch.setattr(counting, "SETTLE_SECONDS", 0.2)
        patch.setattr(counting, "SETTLE_TRIES", 100)
        patch.setattr("airflow.providers.standard.operators.hitl.upsert_hitl_detail", lambda **_: None)
        patch.setattr(sweep, "upsert_hitl_detail", lambda **_: None)
        patch.setattr("backfill.kit.answers.get_hitl_detail_content_detail", lambda **_: SimpleNamespace())

    def close(self) -> None:
        """Close the event loop of the triggers."""
        self.loop.close()

    def get_task_states(self, *, task_ids: list[str], run_ids: list[str], **_: Any) -> Json:
        """States by run, and by task id with the map index."""
        return {
            run: {
                task if index < 0 else f"{task}_{index}": state
                for (of_run, task, index), state in self.states.items()
                if of_run == run and task in task_ids
            }
            for run in run_ids
        }

    def result(self, run_id: str, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        """Return what a task left."""
        found = self.xcoms.get((run_id, task_id, map_index, key))
        return json.loads(found) if isinstance(found, str) else found

    def clear(self, run_id: str, task_id: str, map_index: int = -1) -> None:
        """Clear a task instance: its XComs go, what it keeps in its store stays."""
        self.states.pop((run_id, task_id, map_index), None)

    def run(self, run: Any, operator: Any, map_index: int = -1, **context: Any) -> str:
        """Run a task instance to its end, with Airflow's retries, and return its state."""
        place = (run.run_id, operator.task_id, map_index)
        for _ in range(RETRIES + 1):
            self.tries[place] = self.tries.get(place, 0) + 1
            ti = Instance(self, run.run_id, operator.task_id, map_index, self.tries[place])
            self.states[place] = "running"
            try:
                state = self._one_try(run, operator, ti, context)
            except AirflowFailException as error:
                self.errors[place] = str(error)
                log.info("%s: failed: %s", operator.task_id, error)
                self.states[place] = "failed"
                return "failed"
            except AirflowException as error:
                self.errors[place] = f"{type(error).__name__}: {error}"
                log.info("%s: tried again: %s", operator.task_id, error)
                self.states[place] = "up_for_retry"
                continue
            self.states[place] = state
            return state
        self.states[place] = "failed"
        return "failed"

    def _one_try(self, run: Any, operator: Any, ti: Instance, context: Json) -> str:
        store = self.stores.setdefault((ti.run_id, ti.task_id, ti.map_index), Store())
        given = {"ti": ti, "task_instance": ti, "task_state_store": store, "dag_run": run, "params": run.params, "task":
                 operator, "outlet_events": OutletEventAccessors(), **context}  # fmt: skip
        # A task starts without the result of its last try, except where its trigger reads it: Airflow deletes XComs
        # when a worker begins, not when a trigger does.
        call: Callable[[], Any]
        if getattr(operator, "start_from_trigger", False):
            start = operator.start_trigger_args
            call = self._deferred(operator, ti, given, start.trigger_cls, start.trigger_kwargs, start.next_method, {})
        else:
            self.xcoms.pop((ti.run_id, ti.task_id, ti.map_index, "return_value"), None)
            call = lambda: operator.execute(given)  # noqa: E731
        while True:
            try:
                found = call()
            except TaskDeferred as deferral:
                self.states[ti.run_id, ti.task_id, ti.map_index] = "deferred"
                path, kwargs = deferral.trigger.serialize()
                call = self._deferred(operator, ti, given, path, kwargs, deferral.method_name, deferral.kwargs or {})
                continue
            except TaskAwaitingInput as question:
                call = self._asked(operator, ti, given, question.method_name)
                continue
            if isinstance(found, TaskSkippedEvent):
                return "skipped"
            if isinstance(found, TaskSuccessEvent | TaskFailedEvent):
                for key, value in (found.xcoms or {}).items():
                    ti.xcom_push(key, value)
                return "success" if isinstance(found, TaskSuccessEvent) else "failed"
            if found is not None:
                ti.xcom_push("return_value", found)
            return "success"

    def _deferred(
        self, operator: Any, ti: Instance, given: Json, path: str, kwargs: Any, method: str, more: Mapping[str, Any]
    ) -> Callable[[], Any]:
        """Return the call that runs a trigger and goes on as its event says."""

        def go_on() -> Any:
            module, _, name = path.rpartition(".")
            kind = getattr(__import__(module, fromlist=[name]), name)
            trigger: BaseTrigger = kind(**json.loads(json.dumps(dict(kwargs))))
            trigger.task_instance = ti  # type: ignore[assignment]
            event = self.loop.run_until_complete(self._event(trigger))
            if isinstance(event, TaskSuccessEvent | TaskFailedEvent | TaskSkippedEvent):
                return event
            self.states[ti.run_id, ti.task_id, ti.map_index] = "running"
            return getattr(operator, method)(given, event=json.loads(json.dumps(event.payload)), **more)

        return go_on

    async def _event(self, trigger: BaseTrigger) -> Any:
        async def first() -> Any:
            async for event in trigger.run():
                return event
            raise AssertionError("a trigger ended without an event")

        return await asyncio.wait_for(first(), LIMIT_SECONDS)

    def _asked(self, operator: Any, ti: Instance, given: Json, method: str) -> Callable[[], Any]:
        self.asked.append(ti.task_id)
        event = {
            "chosen_options": [self.answer(ti.task_id)],
            "params_input": {},
            "responded_at": datetime.now(UTC),
            "responded_by_user": {"id": "1", "name": "jane"},
        }
        return lambda: getattr(operator, method)(given, event=event)


@pytest.fixture
def air(monkeypatch: pytest.MonkeyPatch) -> Iterator[MiniAirflow]:
    """An Airflow that has seen nothing yet."""
    made = MiniAirflow()
    made.install(monkeypatch)
    yield made
    made.close()
