"""The task groups that windows go through: the batches of the plan, parts of what was too big, then single days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from include.scorecard_backfill.config.fields import BATCH_COUNT
from include.scorecard_backfill.planning.batches import in_batches

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Group:
    """A task group of windows.

    ``source`` is the task whose result lists the windows of its pass, ``cut_by`` the task that cuts those that were too
    big, ``opened_by`` the task that lets the group come into being, '' for one that is there from the start.
    """

    group: str
    source: str
    cut_by: str
    opened_by: str = ""


def _batch(number: int) -> Group:
    name = f"windows_{number + 1}"
    return Group(name, "plan", "replan", opened_by=f"open_{name}") if number else Group("windows", "plan", "replan")


BATCHES = tuple(_batch(number) for number in range(BATCH_COUNT))
"""The task groups of the first pass, in the order in which they are opened."""

PASSES = (BATCHES, (Group("smaller_windows", "replan", "replan_days"),), (Group("single_days", "replan_days", ""),))
"""The groups of each pass: their windows wait in one queue, in the order of the pass's list."""

ALL_GROUPS = tuple(one for groups in PASSES for one in groups)
GROUPS = tuple(one.group for one in ALL_GROUPS)
_BY_ID = {one.group: one for one in ALL_GROUPS}


def group_named(group: str) -> Group:
    """Return a task group by its id. Raises LookupError when there is none."""
    if group not in _BY_ID:
        raise LookupError(f"{group!r} is none of {', '.join(GROUPS)}")
    return _BY_ID[group]


def pass_of(group: str) -> tuple[Group, ...]:
    """Return the groups of the pass that a group belongs to. Raises LookupError when there is none."""
    one = group_named(group)
    return next(groups for groups in PASSES if one in groups)


def placed(groups: Sequence[Group], listed: Sequence[T], numbers: Sequence[int]) -> list[tuple[str, int, T]]:
    """Return task group, map index and item for each item of a pass's list, in its order.

    ``numbers`` are the batches of the items, [] where the first group has all. Raises ValueError for numbers of another
    list.
    """
    return [(groups[number].group, index, item) for number, index, item in in_batches(listed, numbers)]
