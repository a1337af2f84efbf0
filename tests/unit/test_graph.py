"""Which tasks a window goes through: the same six stages in both orders."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from include.scorecard_backfill.graph import stage_of, stages_of, takes_part, task_of, tasks_of
from include.scorecard_backfill.records import STAGES, Order

CHOICES: tuple[tuple[Order, ...], ...] = (
    ("delete_first",),
    ("reindex_first",),
    ("delete_first", "reindex_first"),
    ("reindex_first", "delete_first"),
)


@pytest.mark.parametrize("orders", CHOICES, ids="+".join)
def test_every_stage_of_every_order_has_one_task_of_the_graph_in_its_order(orders: Sequence[Order]) -> None:
    tasks = tasks_of(orders)
    assert len(set(tasks)) == len(tasks)
    for order in orders:
        mine = [task_of(stage, order, orders) for stage in stages_of(order)]
        assert [stage_of(task) for task in mine] == list(stages_of(order))
        assert sorted(stages_of(order)) == sorted(STAGES)
        # Each stage comes after those before it.
        assert [task for task in tasks if task in mine] == mine
        assert [task for task in tasks if takes_part(task, order, orders)] == mine
    assert {stage_of(task) for task in tasks} == set(STAGES)


def test_a_cluster_of_one_order_has_six_tasks_named_like_their_stages() -> None:
    assert tasks_of(["delete_first"]) == STAGES
    assert tasks_of(["reindex_first"]) == (
        "admit", "reindex", "wait_workflows", "delete", "wait_mutations", "verify",
    )  # fmt: skip
    assert len(tasks_of(["delete_first", "reindex_first"])) == 8


def test_what_reindex_first_deletes_is_never_deleted_before_the_reindex() -> None:
    both: tuple[Order, ...] = ("delete_first", "reindex_first")
    tasks = tasks_of(both)
    assert not takes_part("delete", "reindex_first", both)
    assert not takes_part("sweep", "delete_first", both)
    assert tasks.index("delete") < tasks.index("reindex") < tasks.index("sweep") < tasks.index("verify")


def test_a_task_that_is_not_of_the_graph_is_named() -> None:
    with pytest.raises(LookupError, match="'approve' is none of sweep, wait_sweep, admit"):
        stage_of("approve")
