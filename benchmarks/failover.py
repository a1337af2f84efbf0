"""A part is killed while windows are under way: the seconds until the run has taken its next step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.rig import Data, Rig, rig
from sandbox.airflow_api import AirflowApi, wait_for
from sandbox.stack_model import write_private
from sandbox.stack_supervisor import PartControl

STEP_SECONDS = 180.0
APPROVAL_SECONDS = 180.0
CUSTOMERS = ("acme", "globex", "initech")

Say = Callable[[str], None]
Json = dict[str, Any]


def failover(state: Path, say: Say) -> Json:
    """Kill triggerer, scheduler and a worker, one after another, in a run whose workflows take a few seconds each."""
    found: Json = {}
    with rig(state / "failover", Data(dict.fromkeys(CUSTOMERS, 300))) as rigged, rigged.api() as api:
        slow = {"rules": [{"id": "slow", "kind": "slow", "seconds": 4.0}]}
        write_private(rigged.cluster.faults, json.dumps(slow))
        dag, run = rigged.cluster.dag_id, "failover"
        api.unpause(dag)
        chosen = {"all_customers": True, "start_date": "2026-01-01", "end_date": "2026-01-15", "window": "1d"}
        api.trigger(dag, {"mode": "cleanup", "max_parallel": len(CUSTOMERS), **chosen}, run)
        api.approve(dag, run, APPROVAL_SECONDS)
        _next_step(api, dag, run)
        for name in ("triggerer", "scheduler"):
            say(f"failover: {name}")
            found[name] = _killed(rigged, api, dag, run, name)
        say("failover: worker")
        found["worker"] = _worker_killed(api, dag, run)
        found["undisturbed"] = _step(api, dag, run)
    return found


def _done(api: AirflowApi, dag: str, run: str) -> int:
    """Return how many stages of windows have ended well."""
    return sum(1 for task in api.tasks(dag, run) if task.map_index >= 0 and task.state == "success")


def _next_step(api: AirflowApi, dag: str, run: str) -> None:
    before = _done(api, dag, run)
    wait_for(lambda: _done(api, dag, run) > before, STEP_SECONDS, lambda: f"a step; {api.summary(dag, run)}")


def _step(api: AirflowApi, dag: str, run: str) -> float:
    """Return the seconds until one more stage has ended well."""
    start = time.monotonic()
    _next_step(api, dag, run)
    return round(time.monotonic() - start, 1)


def _killed(rigged: Rig, api: AirflowApi, dag: str, run: str, part: str) -> float:
    control = PartControl(rigged.stack.control)
    control.kill(part)
    start = time.monotonic()
    control.start(part)
    _next_step(api, dag, run)
    return round(time.monotonic() - start, 1)


def _worker_killed(api: AirflowApi, dag: str, run: str) -> float:
    """Kill the process of a running `delete` or `reindex`; return the seconds until this very task has ended well."""

    def running() -> tuple[str, int] | None:
        for task in api.tasks(dag, run):
            if task.state == "running" and task.map_index >= 0:
                record = api.task(dag, run, task.task_id, task.map_index)
                if record["state"] == "running" and record["pid"] and psutil.pid_exists(record["pid"]):
                    psutil.Process(record["pid"]).kill()
                    return task.task_id, task.map_index
        return None

    task_id, index = wait_for(running, STEP_SECONDS, "a worker runs")
    start = time.monotonic()

    def again() -> bool:
        return api.task(dag, run, task_id, index)["state"] == "success"

    wait_for(again, STEP_SECONDS, lambda: f"{task_id}[{index}] ends well; {api.summary(dag, run)}")
    return round(time.monotonic() - start, 1)
