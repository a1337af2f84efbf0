"""A running reindex gets SIGTERM when its worker is shut down and when a person ends it: its Job dies only then."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from sandbox.airflow_api import AirflowApi
from sandbox.stack_model import Stack
from sandbox.stack_wait import wait_for
from tests.sandbox.audit import audit
from tests.sandbox.drive import APPROVAL_SECONDS, Driver
from tests.sandbox.killing import LABEL_WINDOW, Killer, collect, deleted_jobs, kubernetes, on_create

FEBRUARY = {"start_date": "2026-02-01", "end_date": "2026-03-01"}
REINDEX = "windows.reindex"
LIMIT_SECONDS = 240


@pytest.fixture
def west(stack: Stack, api: AirflowApi) -> Iterator[Driver]:
    driver = Driver(api, stack, stack.cluster("west"))
    yield driver
    kubernetes(driver).clear_faults()


def test_a_worker_that_is_shut_down_keeps_its_job_and_one_that_a_person_ends_loses_it(west: Driver) -> None:
    run = west.start("shutdown", approve=False, customers=["soylent"], **FEBRUARY)
    west.api.wait_for_approval(west.dag_id, run, APPROVAL_SECONDS)
    (window,) = west.plan(run)
    # The Job is stored and goes on, and its creator waits for the answer.
    running = {"kind": "hang_container", "match": {"labels": {LABEL_WINDOW: window["key"]}}}
    kubernetes(west).set_faults(running)
    held = on_create(west, "stored_then_hang", window["key"])
    west.api.approve(west.dag_id, run, APPROVAL_SECONDS)
    wait_for(held, LIMIT_SECONDS, "a worker makes the Job")
    before = len(deleted_jobs(west))
    worker = Killer(west).worker(run, REINDEX, 0)
    assert worker is not None
    worker.send_signal(signal.SIGTERM)
    wait_for(lambda: "its Job is left to the next one" in west.api.log(west.dag_id, run, REINDEX, 0), 60, "on_kill")
    assert len(deleted_jobs(west)) == before

    west.api.mark(west.dag_id, run, REINDEX, "failed", 0)
    wait_for(lambda: len(deleted_jobs(west)) > before, LIMIT_SECONDS, "the Job of the failed task is deleted")
    assert west.finish(run) == "failed"
    kubernetes(west).clear_faults()

    west.api.clear(west.dag_id, run)
    assert west.finish(run) == "success", west.api.failures(west.dag_id, run)
    assert audit("success", collect(west, run), {window["label"]: 2}) == []
