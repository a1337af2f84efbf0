"""The common budget of all clusters: counted from Airflow's task instances, over all runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from backfill.groups import GROUPS
from backfill.triggers import admit
from include.scorecard_backfill.config import AdmissionConfig, ClusterConfig
from include.scorecard_backfill.verdicts.health import Gate

Counts = Mapping[tuple[str, str], Mapping[str, int]]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], dict[str, int]]:
    """Return what Airflow counts, by (cluster, stage) and state; a test fills it."""
    numbers: dict[tuple[str, str], dict[str, int]] = {}

    def count(dag_id: str, task_ids: list[str], states: list[str], **_: Any) -> int:
        assert {task.split(".")[0] for task in task_ids} == set(GROUPS)
        cluster, stage = dag_id.removeprefix("scorecard_backfill__"), task_ids[0].split(".")[1]
        return sum(number for state, number in numbers.get((cluster, stage), {}).items() if state in states)

    monkeypatch.setattr(RuntimeTaskInstance, "get_ti_count", staticmethod(count))
    clusters = [ClusterConfig.model_validate({"name": name}) for name in ("one", "two")]
    monkeypatch.setattr(admit, "load_all", lambda: clusters)
    return numbers


def trigger(budget: int | None, monkeypatch: pytest.MonkeyPatch) -> admit.AdmitTrigger:
    made = admit.AdmitTrigger(cluster="one", group="windows")
    admission = AdmissionConfig(global_max_parallel=budget)
    made.config = ClusterConfig.model_validate({"name": "one"}).model_copy(update={"admission": admission})

    async def gate(_self: Any) -> Gate:
        return Gate({})

    monkeypatch.setattr(admit.AdmitTrigger, "_gate", gate)
    return made


async def test_windows_of_all_clusters_count_until_verify_has_ended(
    counted: dict[tuple[str, str], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted["one", "admit"] = {"success": 5, "failed": 2}
    # Three ended, two of them red; the two whose admission failed were never in flight.
    counted["one", "verify"] = {"success": 1, "failed": 1, "upstream_failed": 1 + 2}
    counted["two", "admit"] = {"success": 1}
    held = await trigger(3, monkeypatch)._held_back()
    assert held is not None
    assert held.word == "budget"
    assert held.text == "3 of 3 windows of all clusters are in flight (global_max_parallel)"
    assert await trigger(4, monkeypatch)._held_back() is None


async def test_without_a_budget_nothing_is_counted(
    counted: dict[tuple[str, str], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted["one", "admit"] = {"success": 500}
    assert await trigger(None, monkeypatch)._held_back() is None
