"""The heaviest month in small: by our DAG, by a stock DAG with and without the preload, by the old scripts."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import Any

from benchmarks import meter
from benchmarks.counters import SERVERS, Seen
from benchmarks.old_scripts import OldScripts
from benchmarks.rig import CLUSTER, Data, Rig, rig
from benchmarks.workload import (
    FIRST_DAY,
    GIANTS,
    REAL_WINDOW_SECONDS,
    SEED,
    Size,
    Work,
    drawn,
    fault_rules,
    in_order,
    lower_bound,
    planned,
)
from sandbox.airflow_api import FINISHED_RUN, AirflowApi, DeadlineExceededError, wait_for
from sandbox.data.truth import read_truth
from sandbox.stack_airflow import CLUSTER_FILES
from sandbox.stack_model import write_private

HERE = Path(__file__).parent
TOO_BIG = 2
"""So many conversations in a window of a giant are said to have failed: each of its days becomes a window."""

STOCK_DAG = "stock_backfill"
SETTINGS = {
    "AIRFLOW__CORE__PARALLELISM": "16",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "300",
    "BENCH_POKE_SECONDS": "3",
}
"""The same for all: worker slots, pauses as Airflow has them (the sandbox's are shorter, for its windows of seconds),
and pokes as seldom as ours look at long work.
"""

BOUNDS_WAITED = 2.0
"""A contender that needs more than so many times the lower bound has not finished; short ones have an allowance."""

ALLOWANCE_SECONDS = 60.0
APPROVAL_SECONDS = 180.0

Say = Callable[[str], None]
Json = dict[str, Any]


def replay(size: Size, state: Path, say: Say, contenders: Sequence[str] = ("ours", "old", "preload", "stock")) -> Json:
    """Measure the contenders one after another, each in a stack of its own; the windows are those of our plan."""
    works: list[Work] = []
    found: Json = {"size": asdict(size)}
    doing: dict[str, Callable[[], Json]] = {
        "ours": lambda: _ours(size, state, works),
        "old": lambda: _old(size, state, works),
        "preload": lambda: _stock(size, state, works, HERE / "stock" / "preload"),
        "stock": lambda: _stock(size, state, works, HERE / "stock" / "no_plugins"),
    }
    for name in contenders:
        say(f"replay: {name}")
        if name != "ours" and not works:
            works += planned(size)
        found[name] = doing[name]()
        found["windows"] = len(works)
        found["bound_seconds"] = round(lower_bound(works, size.at_once), 1)
        found["in_order_seconds"] = round(in_order(works, size.at_once), 1)
        say(f"replay: {name}: {json.dumps(found[name])}")
    return found


def _data(size: Size) -> Data:
    return Data(size.rates(SEED), first=FIRST_DAY, end=size.end)


def _slow_down(found: Rig, works: Sequence[Work]) -> None:
    write_private(found.cluster.faults, json.dumps(fault_rules(works)))


def _patient(state: Path, size: Size) -> dict[str, str]:
    """Write the cluster's file with a deadline that fits the longest window; the sandbox gives up after minutes."""
    folder = state / "clusters"
    shutil.copytree(CLUSTER_FILES, folder, dirs_exist_ok=True)
    deadline = round(ALLOWANCE_SECONDS + BOUNDS_WAITED * REAL_WINDOW_SECONDS[1] * size.scale)
    with (folder / f"{CLUSTER}.yaml").open("a", encoding="utf-8") as file:
        file.write(f"temporal: {{deadline_seconds: {deadline}}}\n")
    return {"SCORECARD_BACKFILL_CLUSTERS": str(folder)}


def _limit(size: Size, works: Sequence[Work]) -> float:
    return ALLOWANCE_SECONDS + BOUNDS_WAITED * lower_bound(works, size.at_once)


def _ours(size: Size, state: Path, works: list[Work]) -> Json:
    env = SETTINGS | _patient(state / "ours", size)
    with rig(state / "ours", _data(size), env=env) as found, found.api() as api:
        dag, run = found.cluster.dag_id, "replay"
        learned = {name: {"per_minute": 0.0, "too_big": TOO_BIG, "done": 0} for name in GIANTS}
        variable = f"scorecard_backfill_learned__{found.cluster.name}"
        api.request("POST", "/variables", json={"key": variable, "value": json.dumps(learned)})
        chosen = {"all_customers": True, "start_date": FIRST_DAY, "end_date": size.end}
        api.unpause(dag)
        before, mark = meter.parts_usage(found.stack), found.counters.mark(time.time())
        api.trigger(dag, {"mode": "cleanup", "max_parallel": size.at_once, **chosen}, run)
        api.wait_for_approval(dag, run, APPROVAL_SECONDS)
        works[:] = drawn(api.xcom(dag, run, "plan", "planned"), size, SEED)
        _slow_down(found, works)
        api.approve(dag, run, APPROVAL_SECONDS)
        began = _moment(api.task(dag, run, "approve")["end_date"])
        ended = _finish(api, dag, run, _limit(size, works))
        return _airflow_result(found, api, size, dag, run, before, mark, began, ended)


def _stock(size: Size, state: Path, works: Sequence[Work], plugins: Path) -> Json:
    folder = state / plugins.name
    folder.mkdir(parents=True, exist_ok=True)
    windows = folder / "windows.json"
    windows.write_text(json.dumps([asdict(work) for work in works]))
    env = {
        **SETTINGS,
        "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "stock" / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
        "BENCH_WINDOWS": str(windows),
        "BENCH_AT_ONCE": str(size.at_once),
    }
    with rig(folder, _data(size), env=env, dag_ids=[STOCK_DAG]) as found, found.api() as api:
        _slow_down(found, works)
        api.unpause(STOCK_DAG)
        before, mark = meter.parts_usage(found.stack), found.counters.mark(time.time())
        began = time.time()
        api.trigger(STOCK_DAG, {}, "replay")
        ended = _finish(api, STOCK_DAG, "replay", _limit(size, works))
        return _airflow_result(found, api, size, STOCK_DAG, "replay", before, mark, began, ended)


def _old(size: Size, state: Path, works: Sequence[Work]) -> Json:
    with rig(state / "old", _data(size), airflow=False) as found:
        _slow_down(found, works)
        mark = found.counters.mark(time.time())
        script = OldScripts(
            node=found.counters.nodes()[0],
            kubeconfig=found.cluster.kubeconfig,
            context=found.cluster.kube_context,
            temporal=found.temporal,
            tracking=state / "old" / "tracking.json",
            scale=size.scale,
        )
        seconds = script.run(works)
        seen = found.counters.since(mark, time.time())
        wrong = wrong_rows(found, size)
        return {
            "finished": True,
            "makespan_seconds": round(seconds, 1),
            "failures": len(script.failures),
            "first_failures": script.failures[:3],
            "wrong_customers": wrong,
            **_calls(seen, len(works)),
        }


def _finish(api: AirflowApi, dag: str, run: str, limit: float) -> str | None:
    """Return the run's state, None when it has not ended within the limit."""

    def ended() -> str | None:
        state = api.run_state(dag, run)
        return state if state in FINISHED_RUN else None

    with suppress(DeadlineExceededError):
        return wait_for(ended, limit, f"run {run} ends", poll_seconds=1)
    return None


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _airflow_result(
    found: Rig,
    api: AirflowApi,
    size: Size,
    dag: str,
    run: str,
    before: dict[str, meter.Usage],
    mark: Any,
    began: float,
    ended: str | None,
) -> Json:
    seen = found.counters.since(mark, time.time())
    after = meter.parts_usage(found.stack)
    cpu = meter.cpu_between(before, after)
    tasks = api.tasks(dag, run)
    # Ours are mapped; an unmapped one is the placeholder of a pass without windows.
    verified = [t for t in tasks if t.task_id.endswith("verify") and t.state == "success"]
    done = sum(1 for t in verified if dag == STOCK_DAG or t.map_index >= 0)
    until = _moment(api.request("GET", f"/dags/{dag}/dagRuns/{run}")["end_date"]) if ended else time.time()
    tries = Counter(t.task_id.rpartition(".")[2] for t in tasks if t.try_number > 1)
    return {
        "finished": ended is not None,
        "state": ended or "running",
        "makespan_seconds": round(until - began, 1),
        "windows_done": done,
        "cpu_seconds": cpu,
        "cpu_per_window": round(sum(cpu.values()) / max(1, done), 2),
        "memory_mb": {name: round(use.memory_mb) for name, use in after.items()},
        "tried_again": sum(tries.values()),
        "tried_again_by_task": dict(tries),
        "failed_tasks": sum(1 for t in tasks if t.state == "failed"),
        "wrong_customers": wrong_rows(found, size),
        **_calls(seen, max(1, done)),
    }


def _calls(seen: Seen, windows: int) -> Json:
    counts = {name: getattr(seen, name) for name in SERVERS}
    return {
        "worker_starts": seen.worker_starts,
        "worker_starts_per_window": round(seen.worker_starts / windows, 2),
        "calls": counts,
        "calls_per_window": {name: round(count / windows, 1) for name, count in counts.items()},
        "calls_per_minute": seen.per_minute(),
    }


def wrong_rows(found: Rig, size: Size) -> list[str]:
    """Return the customers whose scorecards are not what the generator's truth says after a reindex."""
    node = found.counters.nodes()[0]
    wrong = []
    for profile in read_truth(found.cluster.truth):
        expected = profile.total(date.fromisoformat(FIRST_DAY), date.fromisoformat(size.end)).scorecard.after
        rows = node.query(
            f"SELECT count() FROM {profile.database}.scorecard_d FINAL WHERE"
            f" scorecard_time >= toDateTime('{FIRST_DAY} 00:00:00', 'UTC')"
            f" AND scorecard_time < toDateTime('{size.end} 00:00:00', 'UTC')"
        )
        if int(rows[0][0]) != expected:
            wrong.append(f"{profile.customer_id}: {rows[0][0]} rows, {expected} are right")
    return wrong
