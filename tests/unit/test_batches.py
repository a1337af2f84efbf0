"""Batches of a large plan: nobody is left out, the limits and the plan's order hold, and no slot waits for long."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.config.fields import BATCH_COUNT
from include.scorecard_backfill.planning.batches import batch_numbers, in_batches
from include.scorecard_backfill.records import Window
from include.scorecard_backfill.verdicts.admission import Limits, Phase, Slot, survey
from tests.kit import build

START = date(2026, 1, 1)
LIMITS = {"max_parallel": 10, "per_customer": 1}


def month_of(customers: int, days: int = 31) -> list[Window]:
    """A plan of single days: all of the biggest customer's first, as plans are."""
    return [
        build.window(0, 1).model_copy(
            update={"customer_id": f"customer-{c:02}", "conversations": 1_000 - c, "key": f"{c}-{d}",
                    "start": START + timedelta(days=d), "end": START + timedelta(days=d + 1)}
        )
        for c in range(customers)
        for d in range(days)
    ]  # fmt: skip


def test_a_plan_that_one_batch_holds_has_none() -> None:
    windows = month_of(2, 25)
    assert batch_numbers(windows, size=50, most=BATCH_COUNT, **LIMITS) == ()
    assert set(batch_numbers(windows, size=49, most=BATCH_COUNT, **LIMITS)) == {0, 1}
    assert batch_numbers(windows, size=49, most=1, **LIMITS) == ()
    assert batch_numbers([], size=1, most=BATCH_COUNT, **LIMITS) == ()


def test_a_batch_holds_the_next_days_of_all_who_go_at_once_and_not_one_customers_month() -> None:
    windows = month_of(32)
    numbers = batch_numbers(windows, size=50, most=BATCH_COUNT, **LIMITS)
    assert max(numbers) == 19
    assert max(Counter(numbers).values()) == 50
    first = Counter(w.customer_id for w, number in zip(windows, numbers, strict=True) if number == 0)
    assert first == {f"customer-{c:02}": 5 for c in range(10)}


@given(
    st.lists(st.sampled_from(["acme", "globex", "initech"]), max_size=60),
    st.integers(1, 12),
    st.integers(1, BATCH_COUNT),
    st.integers(1, 5),
    st.integers(1, 3),
)
def test_every_window_is_in_one_batch_and_a_customers_days_keep_their_order(
    customers: list[str], size: int, most: int, max_parallel: int, per_customer: int
) -> None:
    windows = [w.model_copy(update={"customer_id": c}) for c, w in zip(customers, month_of(2, 31), strict=False)]
    numbers = batch_numbers(windows, size=size, most=most, max_parallel=max_parallel, per_customer=per_customer)
    assert len(numbers) == (len(windows) if len(windows) > size and most > 1 else 0)
    sizes = Counter(numbers)
    assert sorted(sizes) == list(range(len(sizes)))
    assert len(sizes) <= most
    # All but the last are full, so that an empty one never stands before one that has windows.
    assert len({sizes[number] for number in list(range(len(sizes)))[:-1]}) <= 1
    for customer in set(customers):
        own = [n for n, w in zip(numbers, windows, strict=False) if w.customer_id == customer]
        assert own == sorted(own)
    placed = in_batches(windows, numbers)
    assert [w for _, _, w in placed] == windows
    assert len({(number, index) for number, index, _ in placed}) == len(windows)


def test_numbers_of_another_plan_are_refused() -> None:
    assert in_batches(["a", "b"], ()) == [(0, 0, "a"), (0, 1, "b")]
    assert in_batches(["a", "b", "c"], (1, 0, 1)) == [(1, 0, "a"), (0, 0, "b"), (1, 1, "c")]
    with pytest.raises(ValueError, match="2 windows are in batches, and the plan has 1"):
        in_batches(["a"], (0, 1))
    with pytest.raises(ValueError, match="batch 20 of a window"):
        in_batches(["a"], (BATCH_COUNT,))


class Run:
    """A run of a plan in steps: what is open and may go goes, a window ends, the next batch is opened when it may."""

    def __init__(self, windows: list[Window], limits: Limits, seed: int) -> None:
        self.customers = [w.customer_id for w in windows]
        numbers = batch_numbers(windows, size=50, most=BATCH_COUNT, max_parallel=limits.max_parallel,
                                per_customer=limits.per_customer)  # fmt: skip
        self.numbers = numbers or (0,) * len(windows)
        self.phases: list[Phase] = ["waiting"] * len(windows)
        self.limits, self.open, self.now = limits, 1, 0.0
        self.ends: dict[int, float] = {}
        # A window takes half to one and a half times what is usual.
        self.random = random.Random(seed)
        self.most_waiting = self.idle = 0

    def step(self, end: Phase = "verified") -> None:
        """Admit, open, and let one window end; ``idle`` counts the slots that wait only for a batch to be opened."""
        seen = survey([Slot(c, p) for c, p in zip(self.customers, self.phases, strict=True)], self.limits)
        for index, phase in enumerate(self.phases):
            if phase == "waiting" and seen.judge(index).state == "ok":
                if self.numbers[index] < self.open:
                    self.phases[index] = "running"
                    self.ends[index] = self.now + self.random.uniform(0.5, 1.5)
                else:
                    self.idle += 1
        closed = frozenset(i for i, number in enumerate(self.numbers) if number >= self.open)
        if closed and seen.judge_opening(closed).state == "ok":
            self.open += 1
        waiting = [i for i, phase in enumerate(self.phases) if phase == "waiting" and self.numbers[i] < self.open]
        self.most_waiting = max(self.most_waiting, len(waiting))
        assert len(self.ends) <= self.limits.max_parallel
        if self.ends:
            next_one = min(self.ends, key=self.ends.__getitem__)
            self.now = self.ends.pop(next_one)
            self.phases[next_one] = end


@pytest.mark.parametrize("seed", range(2))
def test_a_thousand_windows_end_with_few_that_wait_and_full_slots(seed: int) -> None:
    windows = month_of(32)
    run = Run(windows, Limits(10, 1, max_failures=10_000), seed)
    steps = 0
    while set(run.phases) != {"verified"}:
        run.step()
        steps += 1
        assert steps < 2 * len(windows), Counter(run.phases)
    # Without batches all of them do. One batch, and what slower customers still have of the batches before it.
    assert run.most_waiting <= 120
    assert run.idle <= 0.05 * len(windows)


def test_one_customer_alone_and_many_with_one_window_come_to_their_end() -> None:
    for windows in (month_of(1, 300), month_of(300, 1)):
        run = Run(windows, Limits(10, 1, max_failures=10_000), 1)
        for _ in range(3 * len(windows)):
            run.step()
        assert set(run.phases) == {"verified"}
        assert run.most_waiting < 60


def test_failed_windows_do_not_stop_the_next_batch_and_the_breaker_does() -> None:
    run = Run(month_of(12), Limits(10, 1, max_failures=10_000), 1)
    for _ in range(60):
        run.step("failed")
    assert run.open > 1
    run = Run(month_of(12), Limits(10, 1, max_failures=2), 1)
    for _ in range(60):
        run.step("failed")
    assert run.open == 1
