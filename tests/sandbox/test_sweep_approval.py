"""A cluster whose file says `approve: sweep`: not the plan asks, but each sweep, with its exact numbers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from sandbox.airflow_api import AirflowApi
from sandbox.stack import running_stack
from sandbox.stack_airflow import CLUSTER_FILES
from sandbox.stack_layout import Options
from sandbox.stack_model import AIRFLOW_USER
from sandbox.stack_wait import wait_for
from tests.sandbox.drive import TABLES, Driver

CUSTOMERS = ["cyberdyne", "soylent"]
DAYS: dict[str, Any] = {"start_date": "2026-02-01", "end_date": "2026-02-06"}
SWEEP = "windows.sweep"
ASKED_SECONDS = 240


@pytest.mark.timeout(900)
def test_one_sweep_is_rejected_and_one_is_approved(tmp_path: Path) -> None:
    folder = tmp_path / "clusters"
    shutil.copytree(CLUSTER_FILES, folder)
    with (folder / "sandbox-west.yaml").open("a") as file:
        file.write("approve: sweep\n")
    options = Options(clusters=("sandbox-west",), extra_env={"SCORECARD_BACKFILL_CLUSTERS": str(folder)})
    with (
        running_stack(tmp_path / "state", options) as stack,
        AirflowApi(stack.airflow_url, AIRFLOW_USER, stack.airflow_password) as api,
    ):
        driver = Driver(api, stack, stack.cluster("west"))
        run = driver.start("sweeps-ask", approve=False, order="reindex_first", customers=CUSTOMERS, **DAYS)
        truth = driver.truth(DAYS["start_date"], DAYS["end_date"])

        refused = api.reject(driver.dag_id, run, ASKED_SECONDS, SWEEP, 0)
        # At once, and once: Airflow may fail a task that is answered before its scheduler has seen it wait.
        wait_for(
            lambda: api.states(driver.dag_id, run, SWEEP).get(1) == "awaiting_input",
            ASKED_SECONDS,
            "it asks",
            poll_seconds=0.2,
        )
        api.respond(driver.dag_id, run, "Approve", SWEEP, 1)
        assert driver.finish(run) == "failed"
        assert api.xcom(driver.dag_id, run, "approve")["chosen_options"] == ["not needed"]
        assert driver.failed(run) == {SWEEP: [0], "report": [-1]}
        first, second = driver.plan(run)
        counts = truth[first["customer_id"]]["scorecard"]
        assert f"| {counts.after:,} | {counts.removed:,} | {counts.removed:,} | 0 | 0 |" in refused["body"]
        for window, left in ((first, "before"), (second, "after")):
            wanted = truth[window["customer_id"]]
            assert {t: driver.rows(window, t) for t in TABLES} == {t: getattr(wanted[t], left) for t in TABLES}
        assert not driver.deletes(first)
        assert set(driver.deletes(second).values()) == {1}
        rows = {row["customer_id"]: row for row in driver.report(run)["windows"]}
        assert rows[second["customer_id"]]["status"] == "verified"
        assert "was rejected; nothing of it was deleted" in str(rows[first["customer_id"]])

        # Cleared, it asks anew: a rejection is no answer for ever, and the other window is left alone.
        api.clear(driver.dag_id, run)
        api.approve(driver.dag_id, run, ASKED_SECONDS, SWEEP, 0)
        assert driver.finish(run) == "success", api.failures(driver.dag_id, run)
        driver.check_report(run, DAYS["start_date"], DAYS["end_date"], CUSTOMERS)
        for window in (first, second):
            assert set(driver.deletes(window).values()) == {1}
            assert len(driver.jobs_made(window)) == 1
