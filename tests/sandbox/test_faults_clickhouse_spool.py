"""Rows that a Distributed table has taken and not sent yet: they come after a DELETE that should have met them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

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


def test_a_distributed_table_in_another_database_is_a_way_in_too(scene: Scene) -> None:
    node, other = scene.sandbox.nodes()[0], f"ingest_{scene.database}"
    node.query(f"CREATE DATABASE `{other}` ON CLUSTER 'conversations'")
    node.query(
        f"CREATE TABLE `{other}`.`way_in` ON CLUSTER 'conversations' AS `{scene.database}`.scorecard"
        f" ENGINE = Distributed('conversations', '{scene.database}', 'scorecard', cityHash64(conversation_id))"
    )
    scene.fault("node-1-1", kind="spool", match=f"{other}.way_in$", reason="Connection refused")
    node.query(f"INSERT INTO `{other}`.way_in (scorecard_id, conversation_id) VALUES ('1', 'c')")
    (problem,) = drained(scene)
    assert problem.startswith(f"node-1-1 has 1 files of rows for {other}.way_in not sent yet")
    scene.heal()
    assert drained(scene) == []


def queued(scene: Scene, seconds: float, node: str = "node-2-1") -> None:
    """Have a node list asynchronous inserts that wait for this long."""
    since = datetime.now(UTC) - timedelta(seconds=seconds)
    row = {"database": scene.database, "table": "scorecard", "first_update": f"{since:%Y-%m-%d %H:%M:%S.%f}"}
    scene.fault(node, kind="overlay", table="asynchronous_inserts", add=[row])


def test_asynchronous_inserts_are_flushed_or_waited_for(scene: Scene) -> None:
    queued(scene, 30)
    scene.fault(kind="reply", match="FLUSH ASYNC", code=497, message="Not enough privileges")
    (problem,) = drained(scene)
    assert problem.startswith(f"node-2-1 has asynchronous inserts into {scene.database}.scorecard queued for ")
    assert "may not flush them (SYSTEM FLUSH ASYNC INSERT QUEUE)" in problem
    scene.heal()
    # A queue that is emptied within a second holds nothing back, also for who may not flush.
    queued(scene, -600)
    scene.fault(kind="reply", match="FLUSH ASYNC", code=497, message="Not enough privileges")
    assert drained(scene) == []
    scene.heal()
    queued(scene, 30)
    scene.sandbox.nodes()[0].clear_statements()
    assert drained(scene) == []
    (row,) = scene.sandbox.nodes()[0].statements(contains="FLUSH ASYNC INSERT QUEUE")
    assert row["statement"].endswith("ON CLUSTER 'conversations'")


def test_a_buffer_table_is_flushed_before_a_count(scene: Scene) -> None:
    node, buffer = scene.sandbox.nodes()[0], f"`{scene.database}`.scorecard_buffer"
    limits = "1, 1000, 1000, 1000000, 1000000, 100000000, 100000000"
    node.query(
        f"CREATE TABLE {buffer} ON CLUSTER 'conversations' AS `{scene.database}`.scorecard"
        f" ENGINE = Buffer('{scene.database}', 'scorecard', {limits})"
    )
    node.query(
        f"INSERT INTO {buffer} (scorecard_id, customer_id, profile_id, conversation_id, scorecard_time)"
        f" VALUES ('1', '{scene.customer}', 'voice', 'c', '2026-01-05 00:00:00')"
    )
    assert scene.rows()["node-1-1"] == 0
    assert drained(scene) == []
    assert scene.rows()["node-1-1"] == 1
    scene.fault(kind="reply", match="^OPTIMIZE", code=497, message="Not enough privileges")
    problems = drained(scene)
    assert len(problems) == len(scene.sandbox.names)
    assert "scorecard_buffer on node-1-1 is a Buffer table" in problems[0]
