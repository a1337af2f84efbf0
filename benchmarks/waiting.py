"""Windows that wait for their turn, by their number: triggerer, scheduler, servers, database, the page's route.

One window's workflow is held; the others of the first batch wait at `admit`, further batches behind their opener. Waits
for mutations and workflows share their polls by the same code (tests/airflow/test_waits_triggers.py counts them for a
thousand); so many Jobs do not fit on a machine.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from benchmarks import meter
from benchmarks.rig import Data, Rig, rig
from include.scorecard_backfill.config.fields import BATCH_COUNT
from sandbox.airflow_api import AirflowApi, wait_for
from sandbox.stack_airflow import CLUSTER_FILES, database_path
from sandbox.stack_model import write_private

DAYS = 31
RATE = 300
"""Conversations a month of a customer: enough that no day is empty."""

MANY = {"AIRFLOW__CORE__MAX_MAP_LENGTH": "5000", "AIRFLOW__TRIGGERER__CAPACITY": "4000"}
"""A plan with more windows than either is refused; the capacity is what docs/deploy/settings.md asks for."""
DEFAULTS = "defaults.yaml"
MOST_IN_FOUR_BATCHES = 1_024
PLAN_SECONDS = 600.0
WAITING_SECONDS = 900.0
TABLES = ("task_instance", "xcom", "trigger", "task_map", "rendered_task_instance_fields")
ROUTE = "/scorecard-backfill/run"

Say = Callable[[str], None]
Json = dict[str, Any]


def waiting(counts: Sequence[int], seconds: float, state: Path, say: Say) -> Json:
    """Measure for each number of windows, each in a stack of its own, over so many seconds of waiting."""
    found = []
    for count in counts:
        say(f"waiting: {count}")
        found.append(_one(count, seconds, state / f"waiting-{count}"))
        say(f"waiting: {json.dumps(found[-1])}")
    return {"seconds": seconds, "windows": found}


def _one(count: int, seconds: float, state: Path) -> Json:
    days = min(DAYS, count)
    customers = {f"customer{number:03}": RATE for number in range(-(-count // days))}
    end = f"2026-01-{days + 1:02}" if days < DAYS else "2026-02-01"
    with rig(state, Data(customers), env=MANY | _clusters(count, state)) as found, found.api() as api:
        empty = meter.parts_usage(found.stack)
        hold = {"rules": [{"id": "hold", "kind": "hold"}]}
        write_private(found.cluster.faults, json.dumps(hold))
        dag, run = found.cluster.dag_id, "waiting"
        api.unpause(dag)
        chosen = {"all_customers": True, "start_date": "2026-01-01", "end_date": end, "window": "1d", "max_parallel": 1}
        api.trigger(dag, {"mode": "cleanup", **chosen}, run)
        api.approve(dag, run, PLAN_SECONDS)
        windows = len(api.xcom(dag, run, "plan", "planned"))
        _until_waiting(api, dag, run, windows)
        before, mark = meter.parts_usage(found.stack), found.counters.mark(time.time())
        # The time that is measured: nothing but waiting happens in it.
        time.sleep(seconds)
        seen, after = found.counters.since(mark, time.time()), meter.parts_usage(found.stack)
        cpu = meter.cpu_between(before, after)
        route, size = _route(api, dag, run)
        return {
            "windows": windows,
            "open": len([task for task in api.tasks(dag, run, "windows.admit") if task.map_index >= 0]),
            "triggerer_mb": round(after["triggerer"].memory_mb),
            "triggerer_mb_idle": round(empty["triggerer"].memory_mb),
            "cpu_per_minute": {name: round(used * 60 / seen.seconds, 1) for name, used in cpu.items()},
            "calls_per_minute": seen.per_minute(),
            "counts": asdict(seen),
            "database": _database(found),
            "page_seconds": route,
            "page_bytes": size,
        }


def _clusters(count: int, state: Path) -> dict[str, str]:
    """Return the sandbox's cluster files, for a large plan with as many batches as docs/deploy/settings.md asks for."""
    folder = state / "clusters"
    shutil.copytree(CLUSTER_FILES, folder, dirs_exist_ok=True)
    if count > MOST_IN_FOUR_BATCHES:
        file = folder / DEFAULTS
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        values["windows"]["batches"] = BATCH_COUNT
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return {"SCORECARD_BACKFILL_CLUSTERS": str(folder)}


def _until_waiting(api: AirflowApi, dag: str, run: str, windows: int) -> None:
    """Wait until one window waits for its workflow, which is held, and every other one that is open for its turn."""

    def waits() -> bool:
        mapped = [task for task in api.tasks(dag, run) if task.map_index >= 0]
        admits = [task for task in mapped if task.task_id == "windows.admit"]
        turn = [task for task in admits if task.state == "deferred"]
        held = [task for task in mapped if task.task_id == "windows.wait_workflows" and task.state == "deferred"]
        return (len(turn), len(held)) == (len(admits) - 1, 1)

    wait_for(waits, WAITING_SECONDS, lambda: f"{windows} windows wait; {api.summary(dag, run)}", poll_seconds=5)


def _route(api: AirflowApi, dag: str, run: str) -> tuple[float, int]:
    """Return the seconds and packed bytes of the page's look at the run; the second one, when the first has passed."""
    api.page(ROUTE, dag_id=dag, run_id=run)
    # Answers are kept for some seconds; this one is to be made anew.
    time.sleep(10)
    start = time.perf_counter()
    answer = api.page(ROUTE, dag_id=dag, run_id=run)
    return round(time.perf_counter() - start, 3), int(answer.headers.get("content-length", 0))


def _database(found: Rig) -> Json:
    path = database_path(found.stack.state / "airflow")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}
    size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    return {"rows": rows, "megabytes": round(size / 1e6, 1)}
