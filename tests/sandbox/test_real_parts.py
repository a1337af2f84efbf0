"""PostgreSQL, Celery and two of each part: the main job, then faults; with a real control plane twenty faults.

`make test-real` runs the first, `make chaos-real` the others. CHAOS_SEED repeats the choices (not their timing).
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.airflow_api import AirflowApi
from sandbox.demo import demonstrate
from sandbox.stack import running_stack
from sandbox.stack_layout import Options
from sandbox.stack_model import AIRFLOW_USER, TOPOLOGIES, Stack
from sandbox.stack_variants import WORKERS, MissingProgramError, Variant, find_program
from sandbox.stack_wait import wait_for
from standins.controlplane import build
from tests.sandbox.audit import audit
from tests.sandbox.drive import Driver
from tests.sandbox.killing import UP_SECONDS, collect, deleted_jobs
from tests.sandbox.real_chaos import LONG, SHORT, RealChaos
from tests.sandbox.test_chaos import EAST, SEED, show

REQUEST_SECONDS = 150.0
DAYS: dict[str, Any] = {"start_date": "2026-01-05", "end_date": "2026-01-25"}
WEST = ["cyberdyne", "soylent", "tyrell"]
WEST_DAYS: dict[str, Any] = {"start_date": "2026-01-05", "end_date": "2026-01-20"}


def lacking(*, kubernetes: bool) -> str:
    """Return what is missing on this machine for the real parts, empty when nothing is."""
    wanted = (("postgres", "postgresql"), ("initdb", "postgresql"), ("redis-server", "redis-server"))
    for program, package in wanted:
        try:
            find_program(program, package)
        except MissingProgramError as error:
            return str(error)
    if kubernetes and build.existing() is None:
        return "a real Kubernetes control plane is not built: python -m standins.controlplane.build"
    return ""


@contextmanager
def real_parts(state: Path, clusters: tuple[str, ...], kubernetes: str) -> Iterator[tuple[Stack, AirflowApi]]:
    """Run a sandbox with two of each; skip with the reason where a program is missing."""
    if reason := lacking(kubernetes=kubernetes == "real"):
        pytest.skip(reason)
    options = Options(clusters=clusters, variant=Variant(kubernetes, "postgres", "celery"))
    with (
        running_stack(state, options, print) as stack,
        AirflowApi(stack.airflow_url, AIRFLOW_USER, stack.airflow_password, REQUEST_SECONDS) as api,
    ):
        yield stack, api


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, AirflowApi]]:
    """One sandbox for the main job and for the short run of faults."""
    with real_parts(tmp_path_factory.mktemp("twice") / "state", tuple(TOPOLOGIES), "standin") as running:
        yield running


def alive(api: AirflowApi, kind: str) -> int:
    """Return how many of Airflow's processes of a kind report that they live."""
    return len(api.request("GET", "/jobs", params={"job_type": kind, "is_alive": True})["jobs"])


def share(stack: Stack, pattern: str, *parts: str) -> dict[str, int]:
    """Return how often a pattern is in the log of each part: who did how much."""
    return {part: len(re.findall(pattern, (stack.logs / f"{part}.log").read_text())) for part in parts}


@pytest.mark.real
@pytest.mark.timeout(1200)
def test_main_job_with_two_of_each(twice: tuple[Stack, AirflowApi]) -> None:
    stack, api = twice
    assert demonstrate(stack, stack.cluster("sandbox-east"), "delete_first", print) == []
    wait_for(lambda: alive(api, "SchedulerJob") == alive(api, "TriggererJob") == 2, UP_SECONDS, "two of each report")
    tasks = share(stack, r"Task execute_workload\[\S+\] succeeded", *WORKERS)
    waits = share(stack, r"Start from trigger enabled for task", "triggerer", "triggerer-2")
    print(f"tasks: {tasks}, waits: {waits}", flush=True)


@pytest.mark.real
@pytest.mark.chaos
@pytest.mark.timeout(1500)
def test_faults_of_database_broker_and_frozen_parts(twice: tuple[Stack, AirflowApi]) -> None:
    stack, api = twice
    run_chaos(Driver(api, stack, stack.cluster("sandbox-west")), SHORT, WEST, WEST_DAYS, "5d")


@pytest.mark.real
@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_twenty_faults_over_real_parts(tmp_path: Path) -> None:
    assert LONG.total() == 20
    with real_parts(tmp_path / "state", ("sandbox-east",), "real") as (stack, api):
        run_chaos(Driver(api, stack, stack.cluster("sandbox-east")), LONG.elements(), EAST, DAYS, "10d")


def run_chaos(driver: Driver, faults: Iterable[str], customers: list[str], days: dict[str, Any], window: str) -> None:
    """Take runs to their green end under all the faults, then judge what the servers have seen."""
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(10**6))
    print(f"\n{SEED}={seed}", flush=True)
    driver.set_worker_faults({"id": "slow", "kind": "slow", "seconds": 3})
    chaos = RealChaos(driver, random.Random(seed)).shuffle(faults)
    form: dict[str, Any] = {
        "customers": customers,
        "max_failures": 100,
        "order": "delete_first",
        "window": window,
        **days,
    }
    runs: list[str] = []
    while chaos.more() or not runs:
        runs.append(driver.start(f"real-{len(runs) + 1}", **form))
        chaos.through(runs[-1])
        chaos.settle()
        chaos.say(f"{runs[-1]} is green")
    driver.set_worker_faults()
    show(chaos, runs)
    print(f"started again by the operator: {dict(chaos.started)}", flush=True)
    for run in runs:
        assert audit("success", collect(driver, run)) == [], f"{run}, {SEED}={seed}"
    assert deleted_jobs(driver) == []
    # Only the first run found the old rows.
    driver.check_report(runs[0], days["start_date"], days["end_date"], customers)
