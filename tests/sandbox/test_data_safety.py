"""Rows that do not come back: seen by verify, mended by a clear, named by the snapshot, put back by undo."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.airflow_api import AirflowApi
from sandbox.stack_model import Stack
from tests.sandbox.drive import TABLES, Driver

DECEMBER = ("2025-12-01", "2026-01-01")
FEBRUARY = ("2026-02-01", "2026-03-01")


@pytest.fixture
def west(stack: Stack, api: AirflowApi) -> Iterator[Driver]:
    driver = Driver(api, stack, stack.cluster("west"))
    yield driver
    driver.set_worker_faults()


def test_lost_rows_are_red_and_a_clear_of_verify_reindexes_again(west: Driver) -> None:
    west.set_worker_faults({"id": "half", "kind": "drop", "customer": "soylent", "share": 0.5, "times": 1})
    run = west.start("lost", customers=["soylent"], start_date=DECEMBER[0], end_date=DECEMBER[1])
    assert west.finish(run) == "failed"
    assert west.failed(run) == {"windows.verify": [0], "report": [-1]}
    log = west.api.log(west.dag_id, run, "windows.verify", 0)
    assert "lost_rows" in log
    assert "rows of the window did not come back" in log
    (row,) = west.report(run)["windows"]
    assert row["status"] == "reindexed, not proven complete"

    west.api.clear(west.dag_id, run)
    assert west.finish(run) == "success", west.api.failures(west.dag_id, run)
    west.check_report(run, *DECEMBER, ["soylent"])
    (window,) = west.plan(run)
    made = west.jobs_made(window)
    assert len(made) == 2
    assert set(west.deletes(window).values()) == {1}
    (shown,) = west.look(run)["windows"]
    assert shown["attempts"] == 2
    assert [link["text"] for link in shown["links"] if link["kind"] == "job"] == made[1:]


def test_the_snapshot_names_what_is_missing_and_undo_puts_it_back(west: Driver) -> None:
    west.set_worker_faults({"id": "tenth", "kind": "drop", "customer": "tyrell", "share": 0.1})
    run = west.start("missing", customers=["tyrell"], start_date=FEBRUARY[0], end_date=FEBRUARY[1])
    assert west.finish(run) == "failed"
    assert west.failed(run) == {"windows.verify": [0], "report": [-1]}
    (window,) = west.plan(run)
    truth = west.truth(*FEBRUARY)["tyrell"]
    (row,) = west.report(run)["windows"]
    missing = {table: truth[table].after - west.rows(window, table) for table in TABLES}
    for table, count in missing.items():
        assert count > 0
        assert f"tyrell_chat.{table}: {count} rows of the snapshot, such as " in row["note"]

    # Only what was lost is put back: the appeal requests were meant to go.
    undo = f"scorecard_backfill_undo__{west.cluster.name}"
    west.api.unpause(undo)
    west.api.trigger(undo, {"run_id": run, "customers": ["tyrell"]}, "undo")
    asked = west.api.approve(undo, "undo", 120)
    for table, count in missing.items():
        assert f"tyrell_chat.{table} | {count:,} | {truth[table].removed:,} |" in asked["body"]
    assert west.api.wait_for_run(undo, "undo", 120) == "success", west.api.failures(undo, "undo")
    for table in TABLES:
        assert west.rows(window, table) == truth[table].after

    # The worker would lose rows again; the clear counts first, and finds them.
    west.api.clear(west.dag_id, run)
    assert west.finish(run) == "success", west.api.failures(west.dag_id, run)
    west.check_report(run, *FEBRUARY, ["tyrell"])
    assert len(west.jobs_made(window)) == 1
