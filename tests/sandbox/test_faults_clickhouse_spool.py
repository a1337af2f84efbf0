"""Rows that a Distributed table has taken and not sent yet: they come after a DELETE that should have met them."""

from __future__ import annotations

from backfill.hooks.clickhouse import BackfillClickHouse
from tests.sandbox.faults_clickhouse_fixtures import Scene, scene
from tests.standins.clickhouse_fixtures import cluster, nodes, until

__all__ = ["cluster", "nodes", "scene"]


def spool(scene: Scene, **fields: str) -> None:
    """Have one node keep what is inserted into the customer's Distributed table, then insert 40 rows of a day."""
    scene.fault("node-1-1", kind="spool", match=f"{scene.database}.scorecard_d$", **fields)
    scene.fill("2026-01-05")
    assert scene.total() == 0


def drained(scene: Scene) -> list[str]:
    """What the product says of the queues of a window's databases."""
    hook = BackfillClickHouse(scene.config)
    return hook.drain_spool(scene.window(), hook.topology())


def test_where_nothing_waits_nothing_is_flushed(scene: Scene) -> None:
    scene.fill("2026-01-05")
    assert drained(scene) == []
    assert scene.sent("FLUSH DISTRIBUTED") == []


def test_rows_on_their_way_are_sent_on(scene: Scene) -> None:
    spool(scene)
    assert drained(scene) == []
    (statement,) = scene.sent("FLUSH DISTRIBUTED")
    assert "ON CLUSTER" in statement
    until(lambda: scene.total() == 40, "the rows arrive")


def test_rows_that_cannot_be_sent_are_named_with_their_reason(scene: Scene) -> None:
    spool(scene, reason="Connection refused")
    of_each_shard = drained(scene)
    assert len(of_each_shard) == 2
    for problem in of_each_shard:
        assert problem.startswith(f"node-1-1 has 1 files of rows for {scene.database}.scorecard_d not sent yet")
        assert "last error: Connection refused" in problem
    assert scene.total() == 0
