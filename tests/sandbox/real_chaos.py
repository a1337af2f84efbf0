"""Faults over a sandbox of real parts with two of each: database, broker, API servers, parts killed or frozen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from sandbox.stack_airflow import COMPONENTS
from sandbox.stack_supervisor import PartControl
from sandbox.stack_variants import DOUBLED, WORKERS
from standins.kubernetes.client import KubernetesAdmin
from tests.sandbox.killing import Killer, patiently
from tests.sandbox.test_chaos import Chaos

FROZEN_SECONDS = 45
"""Longer than the 15 s after which the other triggerer takes the waits over, and the 20 s after which a running
task is given up: what goes on afterwards believes in a world that has gone on without it.
"""
AIRFLOW = (*COMPONENTS, *DOUBLED, *WORKERS)
SHORT = ("database", "frozen triggerer", "broker", "frozen worker", "task", "worker", "triggerer")
"""What is done in the short run, in an order of chance."""
LONG = Counter(
    {
        "task": 3,
        "supervisor": 1,
        "triggerer": 2,
        "worker": 2,
        "scheduler": 2,
        "api-server": 1,
        "frozen triggerer": 3,
        "frozen worker": 2,
        "database": 1,
        "broker": 1,
        "kubernetes": 1,
        "everything": 1,
    }
)
"""The same, twenty times."""
PAIRS = {
    "triggerer": ("triggerer", "triggerer-2"),
    "scheduler": ("scheduler", "scheduler-2"),
    "worker": WORKERS,
    "api-server": ("api-server",),
    "database": ("postgres",),
    "broker": ("redis",),
}
MISSED = 10
"""So often a task that is to be killed may not be met; then the others have to do."""


@dataclass
class RealChaos(Chaos):
    """Deals its faults from a deck, so that each comes up however short the run is."""

    deck: list[str] = field(default_factory=list)
    missed: int = 0
    started: Counter[str] = field(default_factory=Counter)

    def shuffle(self, faults: Iterable[str]) -> RealChaos:
        """Lay the deck."""
        self.deck = list(faults)
        self.dice.shuffle(self.deck)
        return self

    def more(self) -> bool:
        """Whether faults are left."""
        return bool(self.deck)

    def _kill(self, run: str) -> None:
        what = self.deck.pop()
        if what in ("task", "supervisor"):
            if not self.kill_task(run, supervisor=what == "supervisor") and self.missed < MISSED:
                self.missed += 1
                self.deck.insert(0, what)
            return
        kind, _, part = what.rpartition(" ")
        if kind == "frozen":
            self._freeze(self.dice.choice(PAIRS[part]))
        elif what == "kubernetes":
            KubernetesAdmin(self.driver.cluster.kubernetes_url).restart_api_server()
            self.count("kube-apiserver")
        elif what == "everything":
            self._again(*AIRFLOW)
            self.count(what)
        else:
            victim = self.dice.choice(PAIRS[what])
            self._again(victim)
            self.count(victim)
        self.mend()

    def _freeze(self, part: str) -> None:
        control = PartControl(self.driver.stack.control)
        control.freeze(part)
        try:
            time.sleep(FROZEN_SECONDS)  # the fault itself, not a wait for something
        finally:
            control.thaw(part)
        self.count(f"frozen {part}")

    def _again(self, *parts: str) -> None:
        control = PartControl(self.driver.stack.control)
        for part in parts:
            # As a machine that dies: PostgreSQL's processes have groups of their own and would end a moment later.
            below = [child for pid in control.pids(part) for child in psutil.Process(pid).children(recursive=True)]
            control.kill(part)
            for process in below:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        for part in parts:
            control.start(part)

    def mend(self) -> None:
        """Start what has ended by itself, as whoever runs Airflow does: a scheduler without its database ends."""
        control = PartControl(self.driver.stack.control)
        for part in control.broken():
            control.start(part)
            self.started[part] += 1
            self.say(f"{part} had ended, and was started again")

    def _wait_for_progress(self, run: str) -> None:
        super()._wait_for_progress(run)
        self.mend()

    def settle(self) -> None:
        """Wait until Airflow is well again."""
        self.mend()
        patiently(self.driver.api.health)
        Killer(self.driver).wait_until_healthy()
