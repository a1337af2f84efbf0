"""Reindex first, sweep after: a reader never misses a row, and what was not written again is not deleted."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from sandbox.airflow_api import AirflowApi
from sandbox.stack_model import Stack
from tests.sandbox.drive import TABLES, Driver

CUSTOMER = "cyberdyne"
# One window each.
FEBRUARY: dict[str, Any] = {"start_date": "2026-02-01", "end_date": "2026-02-06"}
LATER: dict[str, Any] = {"start_date": "2026-02-10", "end_date": "2026-02-15"}
DECEMBER: dict[str, Any] = {"start_date": "2025-12-05", "end_date": "2025-12-10"}
SWEEP = "windows.sweep"


@pytest.fixture
def west(stack: Stack, api: AirflowApi) -> Iterator[Driver]:
    driver = Driver(api, stack, stack.cluster("west"))
    yield driver
    driver.set_worker_faults()


def disk(driver: Driver, window: Mapping[str, Any]) -> int:
    """Return the bytes of the active parts of a window's databases over all nodes, replicas included."""
    names = ", ".join(f"'{database['name']}'" for database in window["databases"])
    query = f"SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database IN ({names})"
    return sum(int(node.query(query)[0][0]) for node in driver.nodes())


@contextmanager
def reader(driver: Driver, window: Mapping[str, Any]) -> Iterator[dict[str, list[int]]]:
    """Count a window's rows and bytes all the time, as a reader of the product would, and hand the counts over."""
    seen: dict[str, list[int]] = defaultdict(list)
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            for table in TABLES:
                seen[table].append(driver.rows(window, table))
            seen["bytes"].append(disk(driver, window))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def looks_below(driver: Driver, run: str, order: str, customer: str, days: Mapping[str, Any]) -> tuple[int, int]:
    """Clean up while a reader counts; return how many looks saw less than what is meant to stay, and of how many."""
    driver.start(run, approve=False, order=order, customers=[customer], **days)
    driver.api.wait_for_approval(driver.dag_id, run, 120)
    (window,) = driver.plan(run)
    truth = driver.truth(days["start_date"], days["end_date"])[customer]
    before, began = disk(driver, window), time.monotonic()
    with reader(driver, window) as seen:
        driver.api.approve(driver.dag_id, run, 120)
        assert driver.finish(run) == "success", driver.api.failures(driver.dag_id, run)
    took, used = time.monotonic() - began, seen.pop("bytes")
    print(f"{order}: {took:.0f} s; bytes before {before}, most {max(used)}, after {disk(driver, window)}")
    driver.check_report(run, days["start_date"], days["end_date"], [customer])
    assert len(driver.jobs_made(window)) == 1
    for table in TABLES:
        assert truth[table].before > truth[table].after > 0
        assert driver.rows(window, table) == truth[table].after
        assert max(seen[table]) == truth[table].before
    below = sum(count < truth[table].after for table in TABLES for count in seen[table])
    return below, sum(map(len, seen.values()))


def test_a_reader_never_misses_a_row_when_the_reindex_goes_first(west: Driver) -> None:
    below, looks = looks_below(west, "sweep-after", "reindex_first", CUSTOMER, FEBRUARY)
    print(f"looks that saw rows missing: {below} of {looks}")
    assert looks > 20
    assert below == 0
    (window,) = west.plan("sweep-after")
    assert set(west.deletes(window).values()) == {1}
    statements = [row["statement"] for node in west.nodes() for row in node.statements(contains=window["key"])]
    assert all("`updated_at` <" in text for text in statements if text.startswith("ALTER"))

    # What the sweep took is in its snapshot: undo brings it back when a person asks for what was meant to go, too.
    undo = f"scorecard_backfill_undo__{west.cluster.name}"
    west.api.unpause(undo)
    west.api.trigger(undo, {"run_id": "sweep-after", "customers": [CUSTOMER], "meant": True}, "undo-sweep")
    west.api.approve(undo, "undo-sweep", 120)
    assert west.api.wait_for_run(undo, "undo-sweep", 120) == "success", west.api.failures(undo, "undo-sweep")
    truth = west.truth(FEBRUARY["start_date"], FEBRUARY["end_date"])[CUSTOMER]
    assert {t: west.rows(window, t) for t in TABLES} == {t: truth[t].before for t in TABLES}


def test_a_reader_sees_the_hole_when_the_delete_goes_first(west: Driver) -> None:
    below, looks = looks_below(west, "delete-before", "delete_first", CUSTOMER, LATER)
    print(f"looks that saw rows missing: {below} of {looks}")
    assert 0 < below < looks


def test_rows_that_are_not_written_again_stay_and_a_new_reindex_mends_it(west: Driver) -> None:
    west.set_worker_faults({"id": "half-of-a-sweep", "kind": "drop", "customer": CUSTOMER, "share": 0.5, "times": 1})
    run = west.start("not-rewritten", order="reindex_first", customers=[CUSTOMER], **DECEMBER)
    assert west.finish(run) == "failed"
    assert west.failed(run) == {SWEEP: [0], "report": [-1]}
    (window,) = west.plan(run)
    assert not west.deletes(window)
    truth = west.truth(DECEMBER["start_date"], DECEMBER["end_date"])[CUSTOMER]
    assert {t: west.rows(window, t) for t in TABLES} == {t: truth[t].before for t in TABLES}
    log = west.api.log(west.dag_id, run, SWEEP, 0)
    assert "not_rewritten" in log
    assert "nothing was deleted" in log
    (row,) = west.report(run)["windows"]
    assert row["status"] == "failed"

    # Clearing the sweep alone looks again; a new attempt is made by its reindex with what follows.
    west.api.clear(west.dag_id, run)
    assert west.finish(run) == "failed"
    assert len(west.jobs_made(window)) == 1
    west.api.clear(west.dag_id, run, [("windows.reindex", 0)], only_failed=False, downstream=True)
    assert west.finish(run) == "success", west.api.failures(west.dag_id, run)
    west.check_report(run, DECEMBER["start_date"], DECEMBER["end_date"], [CUSTOMER])
    assert len(west.jobs_made(window)) == 2
    assert {t: west.rows(window, t) for t in TABLES} == {t: truth[t].after for t in TABLES}


def test_an_order_that_the_clusters_file_does_not_allow_is_refused(stack: Stack, api: AirflowApi) -> None:
    east = Driver(api, stack, stack.cluster("east"))
    changes = east.changes()
    run = east.start("order-refused", approve=False, order="reindex_first", customers=["acme"], **FEBRUARY)
    assert east.finish(run) == "failed"
    assert "order: 'reindex_first' is not allowed by the file of sandbox-east" in east.api.log(
        east.dag_id, run, "preflight"
    )
    assert east.changes() == changes
