"""The five runs of docs/first-runs.md, in their order and with the forms that the page shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from sandbox.airflow_api import AirflowApi
from sandbox.stack import running_stack
from sandbox.stack_layout import Options
from sandbox.stack_model import AIRFLOW_USER, TEMPORAL_NAMESPACE
from sandbox.stack_wait import wait_for
from tests.sandbox.drive import APPROVAL_SECONDS, TABLES, Driver
from tests.unit.test_docs_runs import confs

DAY = ("2026-01-05", "2026-01-06")
JANUARY = ("2026-01-01", "2026-02-01")
ACME = "acme"
SEEN_SECONDS = 120.0
Numbers = dict[str, tuple[int, int, int]]


@pytest.fixture(scope="module")
def east(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A sandbox in which nothing was deleted yet, as a real cluster is before the first run."""
    state: Path = tmp_path_factory.mktemp("first-runs") / "state"
    with (
        running_stack(state, Options(clusters=("sandbox-east",)), print) as stack,
        AirflowApi(stack.airflow_url, AIRFLOW_USER, stack.airflow_password) as api,
    ):
        yield Driver(api, stack, stack.cluster("east"))


def shown(driver: Driver, run: str, customer: str = ACME) -> Numbers:
    """Return before, after and removed of each table, as the report shows them."""
    (row,) = [item for item in driver.report(run)["customers"] if item["customer_id"] == customer]
    return {t: tuple(row["tables"][t][key] for key in ("before", "after", "removed")) for t in TABLES}


def go(driver: Driver, name: str, form: Mapping[str, Any], *, approve: bool = True, seconds: float = 420) -> None:
    """Take a run to its green end."""
    driver.start(name, approve=approve, **form)
    assert driver.finish(name, seconds) == "success", driver.api.failures(driver.dag_id, name)


def terminate_one(driver: Driver, customer: str) -> None:
    """Terminate the open workflow of a customer, as `temporal workflow terminate` does."""

    async def ask() -> bool:
        client = await Client.connect(driver.stack.temporal_address, namespace=TEMPORAL_NAMESPACE)
        async for item in client.list_workflows("ExecutionStatus = 'Running'"):
            if item.id.startswith(f"reindexconversations-{customer}-"):
                await client.get_workflow_handle(item.id, run_id=item.run_id).terminate(reason="on purpose")
                return True
        return False

    wait_for(lambda: asyncio.run(ask()), SEEN_SECONDS, f"an open workflow of {customer}")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_first_five_runs(east: Driver) -> None:
    look, write, delete, month, everybody = confs("first-runs.md")
    acme_day = east.truth(*DAY)[ACME]
    acme_month = east.truth(*JANUARY)[ACME]
    began = east.changes()

    go(east, "look", look, approve=False)
    assert east.changes() == began, "a dry run changed something"

    go(east, "write", write, approve=False)
    (window,) = east.plan("write")
    assert (window["start"], window["end"]) == DAY
    assert len(east.jobs_made(window)) == 1
    assert not east.deletes(window)
    assert shown(east, "write") == {t: (acme_day[t].before, acme_day[t].before, 0) for t in TABLES}

    go(east, "delete", delete)
    (window,) = east.plan("delete")
    assert set(east.deletes(window).values()) == {1}
    assert shown(east, "delete") == {t: (acme_day[t].before, acme_day[t].after, acme_day[t].removed) for t in TABLES}

    something_goes_wrong(east, month)
    left = {t: acme_month[t].before - acme_day[t].removed for t in TABLES}
    wanted = {t: (left[t], acme_month[t].after, left[t] - acme_month[t].after) for t in TABLES}
    assert shown(east, "month") == wanted

    for_everybody(east, everybody)


def something_goes_wrong(east: Driver, form: Mapping[str, Any]) -> None:
    """The fourth run: paused by the Variable, then a workflow is terminated, then cleared."""
    api, variable = east.api, f"scorecard_backfill_override__{east.cluster.name}"
    # Seconds for each batch, so that a person can meet the workflow while it runs.
    east.set_worker_faults({"id": "slow", "kind": "slow", "customer": ACME, "seconds": 3})
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    pause = {"author": "jane", "until": until, "pause": True, "reason": "first runs"}
    api.request("POST", "/variables", json={"key": variable, "value": json.dumps(pause)})
    east.start("month", **form)
    (window,) = east.plan("month")

    def held() -> bool:
        begun = api.states(east.dag_id, "month", "windows.admit").get(0) == "deferred"
        return begun and "paused" in api.log(east.dag_id, "month", "windows.admit", 0)

    wait_for(held, SEEN_SECONDS, "admit says that it is paused")
    assert "jane" in api.log(east.dag_id, "month", "windows.admit", 0)
    assert not east.deletes(window)
    api.request("DELETE", f"/variables/{variable}")

    terminate_one(east, ACME)
    east.set_worker_faults()
    assert east.finish("month") == "failed"
    assert east.failed("month") == {"windows.wait_workflows": [0], "report": [-1]}
    log = api.log(east.dag_id, "month", "windows.wait_workflows", 0)
    assert "terminated: " in log
    assert "clear the task" in log
    api.clear(east.dag_id, "month")
    assert east.finish("month") == "success", api.failures(east.dag_id, "month")
    assert len(east.jobs_made(window)) == 2
    assert set(east.deletes(window).values()) == {1}


def for_everybody(east: Driver, form: Mapping[str, Any]) -> None:
    """The fifth run: first the same as a dry run, whose plan is the one that is asked about."""
    go(east, "dry", {**form, "dry_run": True}, approve=False)
    planned = east.api.xcom(east.dag_id, "dry", "plan", "planned")
    truth = east.truth(*JANUARY)
    assert {window["customer_id"] for window in planned} == {name for name, t in truth.items() if t["scorecard"].before}

    east.start("everybody", approve=False, **form)
    asked = east.api.wait_for_approval(east.dag_id, "everybody", APPROVAL_SECONDS)
    assert all(name in asked["body"] for name in truth if truth[name]["scorecard"].before)
    east.api.approve(east.dag_id, "everybody", APPROVAL_SECONDS)
    assert east.finish("everybody", 900) == "success", east.api.failures(east.dag_id, "everybody")
    assert len(east.plan("everybody")) == len(planned)
    for name, counts in truth.items():
        before = {t: counts[t].after if name == ACME else counts[t].before for t in TABLES}
        if any(before.values()):
            wanted = {t: (before[t], counts[t].after, before[t] - counts[t].after) for t in TABLES}
            assert shown(east, "everybody", name) == wanted, name
