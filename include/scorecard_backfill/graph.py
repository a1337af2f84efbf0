"""Which tasks a window goes through, and in which order: made of the same six stages for both orders.

A cluster that allows one order only has six tasks named like their stages. One that allows both has the sweep of
reindex_first beside the delete of delete_first, as `sweep` and `wait_sweep`; the pair that a run does not need does
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from include.scorecard_backfill.records import Order, Stage

_SINGLE: Mapping[Order, tuple[Stage, ...]] = {
    "delete_first": ("admit", "delete", "wait_mutations", "reindex", "wait_workflows", "verify"),
    "reindex_first": ("admit", "reindex", "wait_workflows", "delete", "wait_mutations", "verify"),
}
_SWEEPS: Mapping[Stage, str] = {"delete": "sweep", "wait_mutations": "wait_sweep"}


def stages_of(order: Order) -> tuple[Stage, ...]:
    """Return the stages of a window in the order in which they are done."""
    return _SINGLE[order]


def tasks_of(orders: Sequence[Order]) -> tuple[str, ...]:
    """Return the task ids (within their group) of a cluster that allows these orders, in the order of the graph."""
    if len(set(orders)) == 1:
        return _SINGLE[orders[0]]
    first, last = _SINGLE["delete_first"][:-1], _SINGLE["delete_first"][-1]
    return (*first, *_SWEEPS.values(), last)


def task_of(stage: Stage, order: Order, orders: Sequence[Order]) -> str:
    """Return the task id (within its group) that does a stage of a window of this order."""
    both = len(set(orders)) > 1
    return _SWEEPS.get(stage, stage) if both and order == "reindex_first" else stage


def stage_of(task: str) -> Stage:
    """Return the stage that a task (id within its group) does.

    Raises:
        LookupError: there is no such task.
    """
    by_task: dict[str, Stage] = {sweep: stage for stage, sweep in _SWEEPS.items()}
    by_task |= {stage: stage for stage in _SINGLE["delete_first"]}
    if task not in by_task:
        raise LookupError(f"{task!r} is none of {', '.join(by_task)}")
    return by_task[task]


def takes_part(task: str, order: Order, orders: Sequence[Order]) -> bool:
    """Return True when a task has anything to do for a window of this order."""
    return task_of(stage_of(task), order, orders) == task
