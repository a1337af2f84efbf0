"""Admission without a lock: whatever order, however old the snapshots, the limits hold and everybody has a turn."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from include.scorecard_backfill.verdicts.admission import Limits, Phase, Slot, Work, judge, judge_job, survey

CUSTOMERS = ["acme", "globex", "initech", "umbrella"]


def slots_of(customers: list[str], phases: list[Phase]) -> list[Slot]:
    return [Slot(customer, phase) for customer, phase in zip(customers, phases, strict=True)]


class Admission(RuleBasedStateMachine):
    """Several triggerers, each waiting window with a snapshot of its own age; windows end in any order."""

    @initialize(
        customers=st.lists(st.sampled_from(CUSTOMERS), min_size=1, max_size=14),
        limit=st.integers(1, 5),
        per_customer=st.integers(1, 3),
        triggerers=st.integers(1, 3),
    )
    def start(self, customers: list[str], limit: int, per_customer: int, triggerers: int) -> None:
        self.customers = customers
        self.phases: list[Phase] = ["waiting"] * len(customers)
        self.limits = Limits(limit, per_customer, max_failures=10_000)
        self.snapshots = [list(self.phases) for _ in range(triggerers)]

    def waiting(self) -> list[int]:
        return [i for i, phase in enumerate(self.phases) if phase == "waiting"]

    def running(self) -> list[int]:
        return [i for i, phase in enumerate(self.phases) if phase == "running"]

    @rule(number=st.integers(0, 2))
    def look(self, number: int) -> None:
        """One triggerer loads a fresh snapshot; the others keep theirs. A restart is this, too."""
        self.snapshots[number % len(self.snapshots)] = list(self.phases)

    @precondition(lambda self: self.waiting())
    @rule(which=st.integers(0, 100), number=st.integers(0, 2))
    def decide(self, which: int, number: int) -> None:
        index = self.waiting()[which % len(self.waiting())]
        seen = self.snapshots[number % len(self.snapshots)]
        if judge(index, slots_of(self.customers, seen), self.limits).state == "ok":
            self.phases[index] = "running"

    @precondition(lambda self: self.running())
    @rule(which=st.integers(0, 100), end=st.sampled_from(["verified", "failed"]))
    def finish(self, which: int, end: Phase) -> None:
        self.phases[self.running()[which % len(self.running())]] = end

    @invariant()
    def limits_hold(self) -> None:
        if not hasattr(self, "phases"):
            return
        running = self.running()
        assert len(running) <= self.limits.max_parallel
        for customer in CUSTOMERS:
            assert sum(self.customers[i] == customer for i in running) <= self.limits.per_customer

    def teardown(self) -> None:
        """Nobody starves: with fresh looks and windows that end, every window has had its turn."""
        if not hasattr(self, "phases"):
            return
        for _ in range(3 * len(self.phases) + 3):
            for index in self.waiting():
                if judge(index, slots_of(self.customers, self.phases), self.limits).state == "ok":
                    self.phases[index] = "running"
            for index in self.running()[:1]:
                self.phases[index] = "verified"
        assert not self.waiting()
        assert not self.running()


TestAdmission = Admission.TestCase
TestAdmission.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_two_thousand_windows_stay_within_the_limit() -> None:
    rng = random.Random(7)
    customers = [f"customer-{rng.randrange(95)}" for _ in range(2_000)]
    customers[:62] = ["globex"] * 31 + ["initech"] * 31
    phases: list[Phase] = ["waiting"] * len(customers)
    limits = Limits(10, 1, max_failures=10_000)
    running: list[int] = []
    looks = ended = 0
    while ended < len(customers):
        looks += 1
        seen = survey(slots_of(customers, phases), limits)
        # One snapshot for a whole round of decisions, as windows of one triggerer share it.
        order = [i for i in range(len(customers)) if phases[i] == "waiting"]
        for index in rng.sample(order, len(order)):
            if seen.judge(index).state == "ok":
                phases[index] = "running"
                running.append(index)
        assert 0 < len(running) <= limits.max_parallel
        assert len({customers[i] for i in running}) == len(running)
        for index in rng.sample(running, rng.randint(1, len(running))):
            running.remove(index)
            phases[index] = "verified"
            ended += 1
    assert looks < len(customers)


def work(working: bool, waiting: bool) -> Work:
    return Work("acme 2026-01-01..2026-01-02", working, waiting)


def test_cleared_windows_take_free_slots_in_plan_order() -> None:
    works = [work(False, True), work(True, False), work(False, True), work(False, True)]
    assert judge_job(0, works, 2).state == "ok"
    assert judge_job(2, works, 2).state == "wait"
    assert judge_job(2, works, 3).state == "ok"
    assert judge_job(3, works, 3).state == "wait"


class JobSlots(RuleBasedStateMachine):
    """Windows cleared after a failure come back all at once; what really works never exceeds the limit."""

    @initialize(count=st.integers(1, 12), limit=st.integers(1, 4))
    def start(self, count: int, limit: int) -> None:
        self.limit = limit
        self.working = [False] * count
        self.waiting = [False] * count
        self.snapshot = self.works()

    def works(self) -> list[Work]:
        return [work(w, not w and q) for w, q in zip(self.working, self.waiting, strict=True)]

    @rule(which=st.integers(0, 100))
    def clear(self, which: int) -> None:
        index = which % len(self.working)
        if not self.working[index]:
            self.waiting[index] = True
            # A cleared window looks for itself before it decides: it is in its own snapshot.
            self.snapshot = self.works()

    @rule()
    def look(self) -> None:
        self.snapshot = self.works()

    @rule(which=st.integers(0, 100))
    def decide(self, which: int) -> None:
        index = which % len(self.working)
        if self.waiting[index] and judge_job(index, self.snapshot, self.limit).state == "ok":
            self.working[index], self.waiting[index] = True, False

    @rule(which=st.integers(0, 100))
    def finish(self, which: int) -> None:
        self.working[which % len(self.working)] = False

    @invariant()
    def limit_holds(self) -> None:
        if hasattr(self, "working"):
            assert sum(self.working) <= self.limit


TestJobSlots = JobSlots.TestCase
TestJobSlots.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
