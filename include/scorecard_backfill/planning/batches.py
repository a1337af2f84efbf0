"""The windows of a large plan in batches that come into being one after another, as their turn comes near.

A window that has tasks costs the scheduler at each of its looks for as long as it waits (docs/adr/0026). So only the
windows that are due soon are made. The order of admission stays the plan's; which windows share a batch follows the
order in which they are expected to begin. A batch cut out of the plan as it stands would hold one customer's days,
and the limit of each customer would leave slots empty.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import TypeVar

from include.scorecard_backfill.config.fields import BATCH_COUNT
from include.scorecard_backfill.records import Window

T = TypeVar("T")


def batch_numbers(
    windows: Sequence[Window], *, size: int, most: int, max_parallel: int, per_customer: int
) -> tuple[int, ...]:
    """Return the batch of each window in plan order, from 0; () for a plan that one batch of ``size`` holds.

    A plan that is larger than ``most`` batches together has larger ones, so that no window is left out.
    """
    if len(windows) <= size or most == 1:
        return ()
    each = max(size, math.ceil(len(windows) / most))
    numbers = [0] * len(windows)
    for place, index in enumerate(_expected_order(windows, max_parallel, per_customer)):
        numbers[index] = place // each
    return tuple(numbers)


def in_batches(items: Sequence[T], numbers: Sequence[int]) -> list[tuple[int, int, T]]:
    """Return batch, index within it and item for each item of a plan; all are in batch 0 where ``numbers`` is empty.

    Raises:
        ValueError: the numbers are not those of these items.
    """
    if numbers and len(numbers) != len(items):
        raise ValueError(f"{len(numbers)} windows are in batches, and the plan has {len(items)}")
    found, taken = [], [0] * BATCH_COUNT
    for item, number in zip(items, numbers or [0] * len(items), strict=True):
        if not 0 <= number < BATCH_COUNT:
            raise ValueError(f"batch {number} of a window is none of 0 to {BATCH_COUNT - 1}")
        found.append((number, taken[number], item))
        taken[number] += 1
    return found


def _expected_order(windows: Sequence[Window], max_parallel: int, per_customer: int) -> list[int]:
    """Return the indexes in the order in which the windows would begin if each took a time by its conversations."""
    mean = sum(window.conversations for window in windows) / len(windows) or 1.0
    left: dict[str, deque[int]] = {}
    for index, window in enumerate(windows):
        left.setdefault(window.customer_id, deque()).append(index)
    # The next windows of every customer that its limit lets begin: those first that are first in the plan.
    ready: list[int] = []
    for own in left.values():
        for _ in range(min(per_customer, len(own))):
            heappush(ready, own.popleft())
    order: list[int] = []
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < max_parallel:
            index = heappop(ready)
            order.append(index)
            heappush(running, (now + 1.0 + windows[index].conversations / mean, index))
        now, ended = heappop(running)
        if own := left[windows[ended].customer_id]:
            heappush(ready, own.popleft())
    return order
