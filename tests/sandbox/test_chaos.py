"""Fifty kills at random over a plan of some windows, in both orders; then everything was done once and green is true.

The seed is printed; CHAOS_SEED repeats its choices (not their timing). CHAOS_KILLS is another number of kills.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sandbox.airflow_api import FINISHED_RUN, AirflowApi
from sandbox.stack import running_stack
from sandbox.stack_layout import Options
from sandbox.stack_model import AIRFLOW_USER
from sandbox.stack_wait import DeadlineExceededError, wait_for
from tests.sandbox.audit import audit
from tests.sandbox.drive import Driver
from tests.sandbox.killing import AIRFLOW, Killer, collect, deleted_jobs, patiently

KILLS = int(os.environ.get("CHAOS_KILLS") or 50)
WINDOWS = 12
EAST = ["acme", "acme-sandbox", "globex.eu", "hooli", "initech", "stark-industries", "wayne"]
WEST = ["cyberdyne", "soylent", "tyrell"]
DAYS: dict[str, Any] = {"start_date": "2026-01-05", "end_date": "2026-01-25"}
CASES: dict[str, tuple[str, list[str], str]] = {
    "delete_first": ("east", EAST, "10d"),
    "reindex_first": ("west", WEST, "5d"),
}
"""Cluster, customers and size of the windows by order."""
CLEARS = 25
"""An operator who has to clear more often than this in one run would not call it working."""
PROGRESS_SECONDS = 45
FAILED_AT_ONCE = 3
"""An operator looks now and then, and clears while the run goes on."""
WORKER_SECONDS = 10
"""Most stages wait in the triggerer: a worker is there for moments only."""
SEED = "CHAOS_SEED"

# What is killed, and how often of a hundred.
WEIGHTS = {"worker": 35, "supervisor": 10, "triggerer": 20, "scheduler": 15, "api-server": 12, "everything": 8}
PARTS: dict[str, tuple[str, ...]] = {
    "triggerer": ("triggerer",),
    "scheduler": ("scheduler",),
    "api-server": ("api-server",),
    "everything": AIRFLOW,
}


@dataclass
class Chaos:
    """Kills at random while runs go on, and clears what failed."""

    driver: Driver
    dice: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    clears: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Print what happens, with the seconds since the start."""
        print(f"[{time.monotonic() - self.began:4.0f} s] {text}", flush=True)

    def through(self, run: str) -> None:
        """Take a run to its green end: kill while kills are left, clear whenever it has ended red."""
        while True:
            state = patiently(lambda: self.driver.api.run_state(self.driver.dag_id, run))
            if state == "success":
                return
            if state == "failed":
                self._clear(run)
            elif self.more():
                if len(self.failed(run)) >= FAILED_AT_ONCE:
                    self._clear(run)
                self._kill(run)
                self._wait_for_progress(run)
            else:
                patiently(lambda: self.driver.finish(run, 600), 700)

    def more(self) -> bool:
        """Whether kills are left."""
        return self.killed.total() < KILLS

    def failed(self, run: str) -> list[str]:
        """Return the failed tasks of a run."""
        tasks = patiently(lambda: self.driver.api.tasks(self.driver.dag_id, run))
        return [task.task_id for task in tasks if task.state == "failed"]

    def _clear(self, run: str) -> None:
        assert self.clears[run] < CLEARS, self.driver.api.failures(self.driver.dag_id, run)
        self.clears[run] += 1
        cleared = patiently(lambda: self.driver.api.clear(self.driver.dag_id, run))
        self.say(f"cleared {', '.join(sorted(f'{task.task_id}[{task.map_index}]' for task in cleared))}")

    def _kill(self, run: str) -> None:
        (what,) = self.dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
        if what in PARTS:
            Killer(self.driver).kill_and_start(*PARTS[what])
            self.count(what)
        else:
            self.kill_task(run, supervisor=what == "supervisor")

    def kill_task(self, run: str, *, supervisor: bool) -> bool:
        """Kill the process of some task that runs now, or its supervisor; False when none was met."""
        try:
            running = wait_for(lambda: self._running(run), WORKER_SECONDS, "a worker", poll_seconds=0.5)
        except DeadlineExceededError:
            return False
        task = self.dice.choice(running)
        if not Killer(self.driver).kill_worker(run, *task, supervisor=supervisor):
            return False
        self.count(f"{'supervisor' if supervisor else 'worker'} of {task[0].rpartition('.')[2]}")
        return True

    def count(self, what: str) -> None:
        """Note a kill."""
        self.killed[what] += 1
        self.say(f"kill {self.killed.total()}: {what}")

    def _running(self, run: str) -> list[tuple[str, int]]:
        tasks = patiently(lambda: self.driver.api.tasks(self.driver.dag_id, run))
        return sorted((task.task_id, task.map_index) for task in tasks if task.state == "running")

    def _wait_for_progress(self, run: str) -> None:
        """Wait until some task is in another state; a wait that is held up is not for the next kill to wait for."""

        def seen() -> Any:
            tasks = patiently(lambda: self.driver.api.tasks(self.driver.dag_id, run))
            return sorted((t.task_id, t.map_index, t.state or "", t.try_number) for t in tasks)

        before = seen()

        def moved() -> bool:
            return seen() != before or patiently(lambda: self.driver.api.run_state(self.driver.dag_id, run)) in (
                FINISHED_RUN
            )

        try:
            wait_for(moved, PROGRESS_SECONDS, "progress")
        except DeadlineExceededError:
            self.say(f"nothing moved for {PROGRESS_SECONDS} s")


@pytest.mark.chaos
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("order", CASES)
def test_kills_over_a_whole_plan(order: str, tmp_path: Path) -> None:
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(10**6))
    print(f"\n{SEED}={seed}", flush=True)
    name, customers, window = CASES[order]
    options = Options(clusters=(f"sandbox-{name}",), seed=seed)
    with (
        running_stack(tmp_path / "state", options) as stack,
        AirflowApi(stack.airflow_url, AIRFLOW_USER, stack.airflow_password) as api,
    ):
        driver = Driver(api, stack, stack.cluster(name))
        # Long enough that workflows are under way when something dies.
        driver.set_worker_faults({"id": "slow", "kind": "slow", "seconds": 3})
        chaos = Chaos(driver, random.Random(seed))
        form: dict[str, Any] = {"customers": customers, "max_failures": 100, "order": order, "window": window}
        runs: list[str] = []
        while chaos.killed.total() < KILLS:
            run = driver.start(f"chaos-{len(runs) + 1}", **form, **DAYS)
            runs.append(run)
            chaos.through(run)
            chaos.say(f"{run} is green")
        show(chaos, runs)
        for run in runs:
            assert len(driver.plan(run)) >= WINDOWS
            # A sweep finds rows only where some are meant to go, and only in the first run.
            swept = (1,) if order == "delete_first" else (0, 1) if run == runs[0] else (0,)
            assert audit("success", collect(driver, run), deletes=swept) == [], f"{run}, {SEED}={seed}"
        assert deleted_jobs(driver) == []
        # Only the first run found the old rows.
        driver.check_report(runs[0], DAYS["start_date"], DAYS["end_date"], customers)


def show(chaos: Chaos, runs: list[str]) -> None:
    """Print what was done."""
    chaos.say(f"{chaos.killed.total()} kills over {len(runs)} runs: {dict(chaos.killed)}; clears {dict(chaos.clears)}")
    for run in runs:
        for window in collect(chaos.driver, run):
            print(f"{run} {window.label}: deletes {sorted(window.deletes.values())}, Jobs {len(window.jobs)}")
