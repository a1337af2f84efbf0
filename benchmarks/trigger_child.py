"""Waiting windows in one process, made as the triggerer makes them: its memory and what a minute of waiting costs.

    python -m benchmarks.trigger_child WINDOWS SECONDS [as-airflow]

With `as-airflow` the triggers keep what Airflow gives them: a DAG and a context each. Airflow's API is replaced by
answers in memory, so that only the triggers are measured. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import psutil
from airflow.executors.workloads import TaskInstanceDTO
from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.sdk import Variable
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import BaseTrigger

from backfill.triggers.admit import AdmitTrigger
from benchmarks.parse_child import execute
from sandbox.stack_airflow import ROOT

DAG_ID = "scorecard_backfill__sandbox-east"
DAYS = 31
IN_FLIGHT = 4
"""As many as the sandbox's file allows, so that nobody else is let go."""

MEGABYTE = 1_000_000


def planned(count: int) -> list[dict[str, Any]]:
    """Return so many windows of single days, as the plan leaves them."""
    return [
        {
            "kind": "window", "v": 1, "key": f"{number:016x}", "cluster": "sandbox-east", "mode": "cleanup",
            "customer_id": f"customer{number // DAYS:03}", "start": f"2026-01-{number % DAYS + 1:02}",
            "end": f"2026-01-{number % DAYS + 2:02}" if number % DAYS < DAYS - 1 else "2026-02-01",
            "databases": [{"name": f"customer{number // DAYS:03}_voice", "profile_id": "voice",
                           "tables": ["scorecard", "score"]}],
            "conversations": 1_000, "rows": {"scorecard": 1_500, "score": 5_000},
        }
        for number in range(count)
    ]  # fmt: skip


def answer_in_memory(windows: list[dict[str, Any]], asked: dict[str, int]) -> None:
    """Take the place of Airflow's API: a plan, windows in flight, nothing else."""

    async def get(*, key: str, task_id: str, **_: Any) -> Any:
        asked["xcoms"] += 1
        return windows if (task_id, key) == ("plan", "return_value") else None

    async def put(*_: Any, **__: Any) -> None:
        asked["told"] += 1

    def states(**_: Any) -> Any:
        asked["states"] += 1
        return {"run": {f"windows.admit_{index}": "success" for index in range(IN_FLIGHT)}}

    def variable(_key: str, default: Any = None, **_: Any) -> Any:
        return default

    for target, name, stub in (
        (BaseXCom, "aget_one", get),
        (BaseXCom, "aset", put),
        (RuntimeTaskInstance, "get_task_states", states),
        (Variable, "get", variable),
    ):
        setattr(target, name, stub)


def made(data: str, index: int) -> tuple[AdmitTrigger, Any]:
    """Return a trigger and the context that the triggerer holds for it."""
    now = datetime.now(UTC).isoformat()
    none = ("logical_date", "data_interval_start", "data_interval_end", "end_date", "triggering_user_name", "note",
            "partition_key", "partition_date", "team_name")  # fmt: skip
    run = {
        "dag_id": DAG_ID, "run_id": "run", "run_type": "manual", "state": "running", "run_after": now,
        "start_date": now, "clear_number": 0, "conf": {}, "consumed_asset_events": [],
    }  # fmt: skip
    ti = TaskInstanceDTO(
        id=uuid.uuid4(),
        dag_version_id=uuid.uuid4(),
        task_id="windows.admit",
        dag_id=DAG_ID,
        run_id="run",
        try_number=1,
        map_index=index,
        pool_slots=1,
        queue="default",
        priority_weight=1,
        context_carrier={},
    )
    trigger = AdmitTrigger(cluster="sandbox-east", group="windows")
    runtime = TriggerRunner.create_runtime_ti(ti, json.loads(data), {**dict.fromkeys(none), **run})
    context = runtime.get_template_context()
    trigger.task_instance = runtime  # type: ignore[assignment]
    trigger.render_template_fields(context=context)
    return trigger, context


async def wait(count: int, seconds: float, data: str) -> dict[str, Any]:
    """Let so many windows wait for so long."""
    process, asked = psutil.Process(), dict.fromkeys(("xcoms", "told", "states"), 0)
    answer_in_memory(planned(count + IN_FLIGHT), asked)
    gc.collect()
    before, start = process.memory_info().rss, time.process_time()
    held = [made(data, index) for index in range(IN_FLIGHT, count + IN_FLIGHT)]

    async def run(trigger: AdmitTrigger) -> None:
        async for _ in trigger.run():
            raise RuntimeError("a window was let go")

    tasks = [asyncio.create_task(run(trigger)) for trigger, _ in held]
    await asyncio.sleep(3)
    begun, states = time.process_time(), asked["states"]
    await asyncio.sleep(seconds)
    used = time.process_time() - begun
    gc.collect()
    grown = process.memory_info().rss - before
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    if any(not isinstance(one, asyncio.CancelledError) for one in ended):
        raise RuntimeError(f"a wait ended: {ended[0]!r}")
    return {
        "windows": count,
        "grown_mb": round(grown / MEGABYTE, 1),
        "start_ms": round((begun - start) * 1_000 / count, 2),
        "cpu_per_minute": round(used * 60 / seconds, 2),
        "looks_at_states": asked["states"] - states,
        "seconds": seconds,
    }


def main() -> int:
    """Measure the number of the command line."""
    count, seconds = int(sys.argv[1]), float(sys.argv[2])
    if sys.argv[3:] == ["as-airflow"]:
        AdmitTrigger.render_template_fields = BaseTrigger.render_template_fields  # type: ignore[method-assign]
    (dag,) = [one for one in execute(ROOT / "dags" / "scorecard_backfill.py") if one.dag_id == DAG_ID]
    print(json.dumps(asyncio.run(wait(count, seconds, json.dumps(DagSerialization.to_dict(dag))))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
