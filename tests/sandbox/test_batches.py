"""A plan of more windows than a batch holds: batch after batch, in the plan's order, within the limit of the run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sandbox.airflow_api import AirflowApi
from sandbox.stack import running_stack
from sandbox.stack_airflow import CLUSTER_FILES
from sandbox.stack_layout import Options
from sandbox.stack_model import AIRFLOW_USER
from tests.sandbox.drive import Driver
from tests.sandbox.test_big_customers import most_at_once, spans

# One profile each, so that a window is one workflow.
CUSTOMERS = ["globex.eu", "hooli", "initech", "stark-industries"]
EARLY = ("2026-01-01", "2026-01-16")
LATE = ("2026-01-16", "2026-01-31")
BATCH = 4
MOST = 4
BATCHES = ("windows", "windows_2", "windows_3")


@pytest.fixture(scope="module")
def east(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A sandbox whose batches are small."""
    folder: Path = tmp_path_factory.mktemp("batches")
    shutil.copytree(CLUSTER_FILES, folder / "clusters")
    with (folder / "clusters" / "sandbox-east.yaml").open("a") as file:
        file.write(f"\nwindows: {{batch_size: {BATCH}, batches: {MOST}}}\n")
    env = {"SCORECARD_BACKFILL_CLUSTERS": str(folder / "clusters")}
    options = Options(clusters=("sandbox-east",), extra_env=env)
    with (
        running_stack(folder / "state", options, print) as stack,
        AirflowApi(stack.airflow_url, AIRFLOW_USER, stack.airflow_password) as api,
    ):
        yield Driver(api, stack, stack.cluster("east"))


def first_of_plan(driver: Driver, days: tuple[str, str]) -> dict[str, str]:
    """Return the window that a run over these days begins with, by a dry run."""
    name = f"dry-{days[0]}"
    form: dict[str, Any] = {"customers": CUSTOMERS, "window": "5d", "start_date": days[0], "end_date": days[1]}
    driver.start(name, approve=False, dry_run=True, **form)
    assert driver.finish(name) == "success"
    return driver.plan(name)[0]


def indexes(driver: Driver, run: str, task: str) -> dict[int, str | None]:
    """Return the states of a task's instances by map index; only -1 for one that was never mapped."""
    return {t.map_index: t.state for t in driver.api.tasks(driver.dag_id, run, task)}


def break_once(driver: Driver, window: dict[str, str]) -> None:
    """Have the workflow of a window fail, the first time."""
    rule = {"id": f"fail-{window['start']}", "kind": "fail", "customer": window["customer_id"], "times": 1}
    driver.set_worker_faults(rule | {"start": window["start"]})


def check_all_verified(driver: Driver, run: str, days: tuple[str, str]) -> None:
    """Assert that every window was done once, in three batches, and that the report is the truth."""
    windows = driver.plan(run)
    assert len(windows) == 3 * BATCH
    assert driver.report(run)["verified"] == len(windows)
    driver.check_report(run, *days, CUSTOMERS)
    assert all(set(driver.deletes(w).values()) == {1} for w in windows)
    for group in BATCHES:
        assert indexes(driver, run, f"{group}.verify") == dict.fromkeys(range(BATCH), "success"), group
    # What the plan does not need was never mapped, and nothing of it is red.
    assert indexes(driver, run, "open_windows_4") == {-1: "skipped"}
    assert indexes(driver, run, "windows_4.admit") == {-1: "skipped"}


@pytest.mark.timeout(1200)
def test_batches_are_opened_one_after_another_also_when_a_window_has_failed(east: Driver) -> None:
    first = first_of_plan(east, EARLY)
    break_once(east, first)
    since = datetime.now().astimezone()
    days: dict[str, Any] = {"start_date": EARLY[0], "end_date": EARLY[1], "window": "5d"}
    run = east.start("batches", customers=CUSTOMERS, max_parallel=2, **days)
    assert east.finish(run, 600) == "failed"
    assert east.failed(run) == {"windows.wait_workflows": [0], "report": [-1]}
    assert east.report(run)["verified"] == 3 * BATCH - 1
    # Whoever looks sees one plan.
    seen = east.look(run)
    assert len(seen["windows"]) == 3 * BATCH
    planned = [f"{w['customer_id']} {w['start']}..{w['end']}" for w in east.plan(run)]
    assert [w["label"] for w in seen["windows"]] == planned

    east.api.clear(east.dag_id, run)
    assert east.finish(run) == "success", east.api.failures(east.dag_id, run)
    check_all_verified(east, run, EARLY)
    found = spans(east.stack, since, CUSTOMERS)
    # The one that failed was done again.
    assert len(found) == 3 * BATCH + 1
    assert most_at_once(found) <= 2


@pytest.mark.timeout(1200)
def test_what_the_breaker_forbids_is_not_opened_and_a_clear_opens_it(east: Driver) -> None:
    first = first_of_plan(east, LATE)
    break_once(east, first)
    days: dict[str, Any] = {"start_date": LATE[0], "end_date": LATE[1], "window": "5d"}
    run = east.start("breaker", customers=CUSTOMERS, max_parallel=1, max_failures=1, **days)
    assert east.finish(run) == "failed"
    failed = east.failed(run)
    assert failed.pop("windows.admit") == [1, 2, 3]
    assert failed == {"windows.wait_workflows": [0], "open_windows_2": [-1], "report": [-1]}
    assert "no further window is started" in east.api.log(east.dag_id, run, "open_windows_2")
    for group in BATCHES[1:]:
        assert indexes(east, run, f"{group}.admit") == {-1: "upstream_failed"}
    assert len(east.report(run)["windows"]) == 3 * BATCH
    assert [w["state"] for w in east.look(run)["windows"]].count("not_started") == 3 * BATCH - 1

    east.api.clear(east.dag_id, run)
    assert east.finish(run, 600) == "success", east.api.failures(east.dag_id, run)
    check_all_verified(east, run, LATE)
