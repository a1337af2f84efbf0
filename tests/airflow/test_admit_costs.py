"""Windows that wait for their turn ask Airflow once for each interval, whatever their number; no server is asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from airflow.sdk import Variable
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.triggers.admit import AdmitTrigger
from include.scorecard_backfill.config import AdmissionConfig
from tests.kit.clock import Clock, clock
from tests.kit.waits import NAME, Left, cluster, left, only_event, placed, window

__all__ = ["clock", "cluster", "left"]

INTERVALS = 3
RUNNING = AdmissionConfig().max_parallel


@pytest.mark.parametrize("windows", [20, 300])
async def test_waiting_windows_ask_for_the_states_once_for_each_interval(
    windows: int, cluster: str, clock: Clock, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()
    # As many are in flight as may be; everybody else waits.
    left["plan", "return_value"] = [window(customer_id=f"acme{n}").to_json() for n in range(windows)]
    states = {f"windows.admit_{n}": "success" for n in range(RUNNING)}

    def task_states(**_: Any) -> Any:
        asked["states"] += 1
        return {"manual__1": states}

    def variable(key: str, default: Any = None, **_: Any) -> Any:
        asked["variable"] += 1
        return default

    def server(self: Any, *_: Any) -> Any:
        raise AssertionError("a server was asked for a window whose turn has not come")

    real = BaseXCom.aget_one

    async def pulled(*, key: str, task_id: str, **rest: Any) -> Any:
        asked[f"{task_id}/{key}"] += 1
        return await real(key=key, task_id=task_id, **rest)

    async def look(self: AdmitTrigger) -> Any:
        found = await original(self)
        asked["looks"] += 1
        if asked["looks"] % (2 * (windows - RUNNING)) == 0:
            two_rounds.set()
        return found

    two_rounds, original = asyncio.Event(), AdmitTrigger.look
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", task_states)
    monkeypatch.setattr(Variable, "get", variable)
    monkeypatch.setattr(BackfillClickHouse, "health", server)
    monkeypatch.setattr(BackfillClickHouse, "topology", server)
    monkeypatch.setattr(BaseXCom, "aget_one", pulled)
    monkeypatch.setattr(AdmitTrigger, "look", look)
    waits = [placed(AdmitTrigger(cluster=NAME, group="windows"), "windows.admit", n) for n in range(RUNNING, windows)]
    tasks = [asyncio.create_task(only_event(wait)) for wait in waits]
    for interval in range(1, INTERVALS + 1):
        two_rounds.clear()
        async with asyncio.timeout(60):
            await two_rounds.wait()
        assert (asked["states"], asked["variable"]) == (interval, interval)
        clock.now += 0.2
    # The plan and the run's parameters once for all of them; no window's own result, which a first try does not have.
    assert (asked["plan/return_value"], asked["plan/run"]) == (1, 1)
    assert asked["windows.verify/return_value"] == 0
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
