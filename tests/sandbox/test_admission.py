"""What holds a window back while a run is going: a person's override, then the cluster's health; each says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from sandbox.airflow_api import AirflowApi
from sandbox.stack_model import Stack
from sandbox.stack_wait import wait_for
from tests.sandbox.drive import Driver

LIMIT_SECONDS = 90


@pytest.fixture
def west(stack: Stack, api: AirflowApi) -> Iterator[Driver]:
    driver = Driver(api, stack, stack.cluster("west"))
    yield driver
    for node in driver.nodes():
        node.clear_faults()


def test_paused_then_too_busy_then_green(west: Driver) -> None:
    variable = f"scorecard_backfill_override__{west.cluster.name}"
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    text = json.dumps({"author": "jane", "until": until, "pause": True, "reason": "deploy"})
    west.api.request("POST", "/variables", json={"key": variable, "value": text})
    foreign = {"database": "other", "table": "t", "command": "(DELETE WHERE 1)", "is_done": 0}
    rows = [{**foreign, "mutation_id": f"m{number}"} for number in range(101)]
    west.nodes()[1].add_faults({"kind": "overlay", "table": "mutations", "add": rows})

    run = west.start("held", customers=["cyberdyne"], start_date="2025-12-01", end_date="2025-12-02")
    (window,) = west.plan(run)

    def says(part: str) -> bool:
        mapped = 0 in west.api.states(west.dag_id, run, "windows.admit")
        return mapped and part in west.api.log(west.dag_id, run, "windows.admit", 0)

    wait_for(lambda: says("waiting: paused by jane until"), LIMIT_SECONDS, "admit says that it is paused")
    assert says("deploy")
    west.api.request("DELETE", f"/variables/{variable}")
    busy = f"101 unfinished mutations on {west.cluster.nodes[1].name} (more than 100)"
    wait_for(lambda: says(busy), LIMIT_SECONDS, "admit says that the cluster is too busy")
    assert west.deletes(window) == {}
    assert west.jobs_made(window) == []

    for node in west.nodes():
        node.clear_faults()
    assert west.finish(run) == "success", west.api.failures(west.dag_id, run)
    west.check_report(run, "2025-12-01", "2025-12-02", ["cyberdyne"])
