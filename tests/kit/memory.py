"""Airflow's memory without Airflow: XComs, task states and asset states of runs, as stages and their waits see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import TaskFailedEvent, TaskSuccessEvent, TriggerEvent

from backfill.kit.look import Look, Wait
from backfill.kit.wait import WaitTrigger
from tests.kit.store import Store

Json = dict[str, Any]
Name = tuple[str, str, int, str]
"""(run id, task id, map index, key)."""

DAG_ID = "scorecard_backfill__memory"


def copied(value: Any) -> Any:
    """The value as it comes out of a database."""
    return json.loads(json.dumps(value))


@dataclass
class Memory:
    """What Airflow would remember of the runs of one test."""

    xcoms: dict[Name, Any] = field(default_factory=dict)
    states: dict[tuple[str, str, int], Store] = field(default_factory=dict)
    assets: dict[str, Json] = field(default_factory=dict)
    marked: dict[tuple[str, str], str] = field(default_factory=dict)
    """State of a task of a run (map index 0) that is not running any more, as it was marked."""

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the place of what the triggerer and the stores ask Airflow's API server for."""
        memory = self

        class XComs:
            """Stands for BaseXCom, as triggers use it."""

            @staticmethod
            async def aget_one(*, key: str, dag_id: str, run_id: str, task_id: str, map_index: int) -> Any:
                return copied(memory.xcoms.get((run_id, task_id, map_index, key)))

            @staticmethod
            async def aset(key: str, value: Any, *, dag_id: str, task_id: str, run_id: str, map_index: int) -> None:
                memory.xcoms[run_id, task_id, map_index, key] = copied(value)

        def task_states(*, task_ids: list[str], run_ids: list[str], **_: Any) -> Any:
            return {
                run: {f"{task}_0": memory.marked.get((run, task), "running") for task in task_ids} for run in run_ids
            }

        monkeypatch.setattr("backfill.taken.RuntimeTaskInstance.get_task_states", staticmethod(task_states))
        monkeypatch.setattr("backfill.kit.xcoms.BaseXCom", XComs)
        monkeypatch.setattr("backfill.kit.wait.BaseXCom", XComs)
        monkeypatch.setattr("backfill.kit.debts.AssetStateStoreAccessor", lambda name: AssetStates(memory, name))


class AssetStates:
    """The state store of one asset."""

    def __init__(self, memory: Memory, name: str) -> None:
        self._values = memory.assets.setdefault(name, {})

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value."""
        return copied(self._values[key]) if key in self._values else default

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""
        self._values[key] = copied(value)

    def delete(self, key: str) -> None:
        """Forget a value."""
        self._values.pop(key, None)

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return a value, in a trigger."""
        return self.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        """Keep a value, in a trigger."""
        self.set(key, value)


@dataclass
class TaskInstance:
    """One task instance of a run, for a worker or as a trigger's `task_instance`."""

    memory: Memory
    run_id: str
    task_id: str
    map_index: int = 0
    dag_id: str = DAG_ID
    try_number: int = 1
    id: str = "00000000-0000-0000-0000-000000000000"

    def xcom_pull(self, task_ids: str, key: str = "return_value", map_indexes: int = -1, **_: Any) -> Any:
        """Return what a task left."""
        return copied(self.memory.xcoms.get((self.run_id, task_ids, map_indexes, key)))

    def xcom_push(self, key: str, value: Any) -> None:
        """Leave something."""
        self.memory.xcoms[self.run_id, self.task_id, self.map_index, key] = copied(value)

    @property
    def states(self) -> Store:
        """Its task state store, which survives retries and clears."""
        return self.memory.states.setdefault((self.run_id, self.task_id, self.map_index), Store())

    def context(self, **fields: Any) -> Json:
        """What Airflow gives to the task."""
        run = SimpleNamespace(run_id=self.run_id, run_type="manual", run_after=None, conf={})
        return {"ti": self, "task_state_store": self.states, "params": {}, "dag_run": run, **fields}


def as_in_triggerer(trigger: WaitTrigger[Any], ti: TaskInstance) -> WaitTrigger[Any]:
    """The trigger as the triggerer makes it from the database, for this task instance."""
    path, kwargs = trigger.serialize()
    assert path == trigger.path
    made = type(trigger)(**copied(kwargs))
    made.task_instance = ti  # type: ignore[assignment]
    return made


def run_trigger(
    trigger: WaitTrigger[Any], ti: TaskInstance, *on_wait: Callable[[], object], limit: float = 40.0
) -> TriggerEvent:
    """Run a trigger until its event; after each look that decides nothing, the next of `on_wait` is called."""
    fresh = as_in_triggerer(trigger, ti)
    steps = iter(on_wait)
    look = fresh.look

    async def next_step() -> None:
        if step := next(steps, None):
            await asyncio.to_thread(step)

    async def watched() -> Look:
        try:
            found = await look()
        except Exception:
            await next_step()
            raise
        if isinstance(found, Wait):
            await next_step()
        return found

    async def first() -> TriggerEvent:
        async for event in fresh.run():
            return event
        raise AssertionError("the trigger ended without an event")

    fresh.look = watched  # type: ignore[method-assign]
    return asyncio.run(asyncio.wait_for(first(), limit))


def finish(
    operator: Any, call: Callable[[Any], Any], context: Json, *on_wait: Callable[[], object], limit: float = 40.0
) -> Any:
    """Call a stage and go on after each deferral until it returns, which is kept as its XCom, or raises."""
    try:
        result = copied(call(context))
    except TaskDeferred as deferred:
        trigger = deferred.trigger
        assert isinstance(trigger, WaitTrigger)
        kwargs = deferred.kwargs or {}
        return after(operator, trigger, deferred.method_name, context, *on_wait, limit=limit, kwargs=kwargs)
    context["ti"].xcom_push(key="return_value", value=result)
    return result


def after(
    operator: Any,
    trigger: WaitTrigger[Any],
    method: str,
    context: Json,
    *on_wait: Callable[[], object],
    limit: float = 40.0,
    kwargs: Json | None = None,
) -> Any:
    """Run a trigger and give its event to a worker, unless it ends the task itself."""
    event = run_trigger(trigger, context["ti"], *on_wait, limit=limit)
    if isinstance(event, (TaskSuccessEvent, TaskFailedEvent)):
        assert event.xcoms is not None
        result = copied(event.xcoms["return_value"])
        context["ti"].xcom_push(key="return_value", value=result)
        return result
    payload = copied(event.payload)
    more = copied(kwargs or {})
    return finish(operator, lambda ctx: getattr(operator, method)(ctx, event=payload, **more), context, limit=limit)
