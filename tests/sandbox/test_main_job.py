"""The main job as a user does it: trigger, approve, one failure, clear, green; and input that must be refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest

from include.scorecard_backfill.records import STAGES
from sandbox.airflow_api import AirflowApi
from sandbox.stack_model import Stack
from tests.sandbox.drive import TABLES, Driver

MONTH = ("2025-12-01", "2026-01-01")
AIRFLOWS_OWN = re.compile(r"trigger \S+ \(ID \d+\) starting")


@pytest.fixture
def east(stack: Stack, api: AirflowApi) -> Iterator[Driver]:
    driver = Driver(api, stack, stack.cluster("east"))
    yield driver
    driver.set_worker_faults()


@pytest.fixture
def west(stack: Stack, api: AirflowApi) -> Driver:
    return Driver(api, stack, stack.cluster("west"))


def test_a_failed_job_is_cleared_and_the_run_ends_green(east: Driver) -> None:
    customers = ["acme", "acme-sandbox", "globex.eu", "initech"]
    east.set_worker_faults({"id": "once", "kind": "job_fail", "customer": "initech", "times": 1})
    run = east.start("main-job", customers=customers, start_date=MONTH[0], end_date=MONTH[1])
    assert east.finish(run) == "failed"

    windows = {window["customer_id"]: window for window in east.plan(run)}
    assert sorted(windows) == customers
    broken = [index for index, window in enumerate(east.plan(run)) if window["customer_id"] == "initech"]
    assert east.failed(run) == {"windows.reindex": broken, "report": [-1]}
    states = {row["customer_id"]: row["status"] for row in east.report(run)["windows"]}
    assert states.pop("initech") == "deleted, not yet reindexed"
    assert set(states.values()) == {"verified"}
    log = east.api.log(east.dag_id, run, "windows.reindex", broken[0])
    assert "then clear this task: it makes a new Job" in log
    assert "pod log |" in log
    check_first_lines(east, run)

    cleared = east.api.clear(east.dag_id, run)
    assert {task.task_id for task in cleared} >= {"windows.reindex", "report"}
    assert east.finish(run) == "success", east.api.failures(east.dag_id, run)

    east.check_report(run, *MONTH, customers)
    for customer, window in windows.items():
        assert set(east.deletes(window).values()) == {1}, customer
        assert len(east.jobs_made(window)) == (2 if customer == "initech" else 1)
        for table in TABLES:
            assert east.rows(window, table) == east.truth(*MONTH)[customer][table].after


def check_first_lines(driver: Driver, run: str) -> None:
    """Assert that each instance of each stage names customer and days before anything else.

    Airflow 3.3.2 takes a label from a worker only, so an instance that never has one is shown by its map index.
    """
    windows = driver.plan(run)
    begun = [t for t in driver.api.tasks(driver.dag_id, run) if t.task_id.startswith("windows.") and t.try_number]
    assert len({t.task_id for t in begun}) >= len(STAGES)
    for task in begun:
        if task.state in ("upstream_failed", "skipped"):
            continue
        window = windows[task.map_index]
        lines = driver.api.log(driver.dag_id, run, task.task_id, task.map_index, task.try_number).splitlines()
        first = next(line for line in without_groups(lines) if not AIRFLOWS_OWN.fullmatch(line))
        assert first == f"window {window['label']}, key {window['key']}", task
        on_worker = task.task_id.endswith((".delete", ".reindex", ".sweep"))
        assert task.label == (window["label"] if on_worker else str(task.map_index)), task


def without_groups(lines: list[str]) -> Iterator[str]:
    """Yield the lines that Airflow's pages do not fold."""
    folded = False
    for line in lines:
        folded = folded or line.startswith("::group::")
        if not folded:
            yield line
        folded = folded and line != "::endgroup::"


def test_acme_never_takes_the_rows_of_acme_sandbox(east: Driver) -> None:
    other = {
        "databases": [{"name": "acme_sandbox_voice", "tables": list(TABLES)}],
        "start": "2026-02-01",
        "end": "2026-03-01",
    }
    before = {table: east.rows(other, table) for table in TABLES}
    run = east.start("prefix", customers=["acme"], start_date="2026-02-01", end_date="2026-03-01")
    assert east.finish(run) == "success", east.api.failures(east.dag_id, run)
    east.check_report(run, "2026-02-01", "2026-03-01", ["acme"])
    assert {table: east.rows(other, table) for table in TABLES} == before


def test_bad_input_is_refused_before_anything_is_deleted(west: Driver) -> None:
    today = date.today()
    later = {"start_date": today.isoformat(), "end_date": (today + timedelta(days=3)).isoformat()}
    days = {"start_date": "2026-01-01", "end_date": "2026-01-03"}
    cases: dict[str, tuple[dict[str, Any], str, list[str]]] = {
        "unknown-customer": ({"customers": ["soylnt"], **days}, "plan", ["'soylnt'", "did you mean soylent"]),
        "end-before-start": (
            {"customers": ["tyrell"], "start_date": "2026-01-03", "end_date": "2026-01-01"},
            "preflight",
            ["end_date: 2026-01-01 is not after start_date 2026-01-03"],
        ),
        "nobody": ({"customers": [], **days}, "preflight", ["all_customers is false", "nobody is chosen"]),
        "future": ({"customers": ["tyrell"], **later}, "preflight", ["ends after", "the latest end_date is"]),
        "no-database": ({"customers": ["nakatomi"], **days}, "plan", ["'nakatomi'", "has no database"]),
        "both": (
            {"customers": ["tyrell"], "all_customers": True, **days},
            "preflight",
            ["all_customers is true"],
        ),
        "mistyped-key": (
            {"customers": ["tyrell"], "star_date": "2026-01-01", **days},
            "preflight",
            ["star_date", "did you mean start_date?"],
        ),
    }
    changes = west.changes()
    west.api.unpause(west.dag_id)
    for name, (conf, _, _) in cases.items():
        west.start(name, approve=False, **conf)
    for name, (_, task, texts) in cases.items():
        assert west.finish(name) == "failed", name
        assert task in west.failed(name), name
        log = west.api.log(west.dag_id, name, task)
        note, page = west.api.note(west.dag_id, name), west.look(name)
        assert note.startswith("Refused: "), name
        assert page["state"] == "refused", name
        for text in [*texts, "nothing was deleted"]:
            assert text in log, (name, text)
            assert text in note, (name, text)
            assert text in page["attention"][0]["what"], (name, text)
            assert text in west.report_text(name), (name, text)
        # What cannot be mended by trying again is not tried again.
        assert [t.try_number for t in west.api.tasks(west.dag_id, name, task)] == [1]
    assert west.changes() == changes


def test_a_dry_run_changes_nothing_and_a_rejected_plan_neither(west: Driver) -> None:
    changes = west.changes()
    days = {"start_date": "2026-01-01", "end_date": "2026-02-01"}
    run = west.start("dry", approve=False, customers=["tyrell"], dry_run=True, **days)
    assert west.finish(run) == "success", west.api.failures(west.dag_id, run)
    assert len(west.api.xcom(west.dag_id, run, "plan", "planned")) == 1
    run = west.start("rejected", approve=False, customers=["tyrell"], **days)
    west.api.reject(west.dag_id, run, 120)
    assert west.finish(run) == "failed"
    assert "approve" in west.failed(run)
    assert west.api.note(west.dag_id, run) == "Refused: The plan was rejected by admin; nothing was deleted."
    assert west.changes() == changes


def test_the_forms_default_mode_writes_again_and_deletes_nothing(west: Driver) -> None:
    # The first run leaves rows as the reindexer writes them; the second one is over a window that has been reindexed.
    month = ("2026-02-01", "2026-03-01")
    truth = west.truth(*month)["soylent"]
    for run in ("reindex-first", "reindex-second"):
        west.start(run, approve=False, mode="reindex", customers=["soylent"], start_date=month[0], end_date=month[1])
        assert west.finish(run) == "success", west.api.failures(west.dag_id, run)
        (window,) = west.plan(run)
        assert not west.deletes(window)
        assert len(west.jobs_made(window)) == 1
        for table in TABLES:
            # Nothing was deleted, so the appeal requests are still there.
            assert truth[table].before > truth[table].after > 0
            assert west.rows(window, table) == truth[table].before
