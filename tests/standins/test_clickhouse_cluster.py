"""Shards, replicas, ON CLUSTER, reads of other nodes, nodes that die: as in a real cluster."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from standins.clickhouse.client import ClickHouseSandbox, SandboxError
from tests.standins.clickhouse_fixtures import (
    CLUSTER,
    cluster,
    counts,
    fill,
    mutations,
    new_database,
    nodes,
    until,
)

__all__ = ["cluster", "nodes"]

QUERIES = [
    "SELECT count(), sum(v), min(id), max(id), uniqExact(id) FROM {t} FINAL",
    "SELECT v, count() AS n FROM {t} GROUP BY v ORDER BY n DESC, v",
    "SELECT v % 3 AS k, avg(v) a, quantileExact(0.5)(v) FROM {t} GROUP BY k HAVING a > 0 ORDER BY 1",
    "SELECT toString(toDate(day, 'UTC')) AS d, countIf(v > 3), count(DISTINCT v) FROM {t} GROUP BY d ORDER BY d",
    "SELECT id, v FROM {t} WHERE v > 5 ORDER BY id DESC LIMIT 7",
    "SELECT id, v FROM {t} ORDER BY v, id LIMIT 5 OFFSET 3",
    "SELECT DISTINCT v FROM {t} ORDER BY v",
    "SELECT v, id FROM {t} ORDER BY v, id LIMIT 2 BY v",
    "SELECT count() FROM {t} WHERE id IN (SELECT id FROM {t} WHERE v = 2)",
    "SELECT a.id, b.v FROM {t} AS a INNER JOIN {t} AS b ON a.id = b.id ORDER BY a.id LIMIT 5",
    "SELECT id, row_number() OVER (ORDER BY id) FROM {t} ORDER BY id LIMIT 4",
    "SELECT count() FROM {t} WHERE 0",
    "SELECT id FROM {t} WHERE 0",
    "SELECT v, count() FROM {t} GROUP BY v WITH TOTALS ORDER BY v",
    "WITH 3 AS three SELECT count() FROM {t} WHERE v = three",
    "SELECT x, count() FROM (SELECT v + 1 AS x FROM {t}) GROUP BY x ORDER BY x",
    "SELECT k, n FROM (SELECT 'a' AS k, count() AS n FROM {t} UNION ALL SELECT 'b' AS k, sum(v) AS n FROM {t})"
    " ORDER BY k",
    "SELECT * FROM {t} ORDER BY ALL LIMIT 3",
    "SELECT v, id FROM {t} ORDER BY ALL DESC LIMIT 3 OFFSET 1",
    "SELECT max(v), hostName() != '' FROM {t} GROUP BY ALL",
    "SELECT argMax(id, toUInt32(id)), groupArraySorted(3)(id) FROM {t}",
]


@pytest.fixture(scope="module")
def filled(cluster: ClickHouseSandbox) -> str:
    """A database whose `whole` on node-1-1 holds what `t_d` holds over all shards."""
    database = new_database(cluster)
    node = cluster.node("node-1-1")
    rows = (
        "SELECT toString(number), toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + number * 3000, number % 9"
        " FROM numbers(300)"
    )
    node.query(f"INSERT INTO {database}.t_d {rows}")
    node.query(f"CREATE TABLE {database}.whole (id String, day DateTime64(3, 'UTC'), v UInt32) ENGINE = Memory")
    node.query(f"INSERT INTO {database}.whole {rows}")
    return database


@pytest.mark.parametrize("query", QUERIES)
def test_distributed_read_equals_read_of_one_table(nodes: ClickHouseSandbox, filled: str, query: str) -> None:
    node = nodes.node("node-1-1")
    expected = node.query(query.replace(" FINAL", "").format(t=f"{filled}.whole"))
    assert node.query(query.format(t=f"{filled}.t_d")) == expected
    assert node.query(query.format(t=f"cluster({CLUSTER}, {filled}.t)")) == expected


def test_rows_go_to_one_shard_and_all_its_replicas(nodes: ClickHouseSandbox, filled: str) -> None:
    per_node = counts(nodes, f"{filled}.t")
    assert per_node["node-1-1"] == per_node["node-1-2"]
    assert per_node["node-2-1"] == per_node["node-2-2"]
    assert per_node["node-1-1"] + per_node["node-2-1"] == 300
    assert min(per_node.values()) > 0
    wrong = "cityHash64(id) % 2"
    assert counts(nodes, f"{filled}.t", f"{wrong} = 1")["node-1-1"] == 0
    assert counts(nodes, f"{filled}.t", f"{wrong} = 0")["node-2-2"] == 0


def test_a_table_of_the_whole_cluster_is_merged_to_one_part(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    for version in (1, 2, 3):
        fill(nodes.node("node-1-1"), database, 20, version=version)
    nodes.node("node-1-2").query(f"OPTIMIZE TABLE {database}.t ON CLUSTER {CLUSTER} FINAL")
    parts = f"SELECT count() FROM system.parts WHERE database = '{database}' AND table = 't' AND active"
    until(lambda: all(node.query(parts) == [["1"]] for node in nodes.nodes()), "one part on every node")


def test_every_node_answers_under_its_name(nodes: ClickHouseSandbox) -> None:
    node = nodes.node("node-2-1")
    rows = node.query(f"SELECT hostName() FROM clusterAllReplicas('{CLUSTER}', system.one) ORDER BY 1")
    assert [row[0] for row in rows] == nodes.names
    names = node.query("SELECT hostName()", default_format="TabSeparatedWithNames")
    assert names == [["hostName()"], ["node-2-1"]]
    listed = node.query("SELECT shard_num, replica_num, host_name, is_local FROM system.clusters ORDER BY 1, 2")
    assert [row[2] for row in listed] == nodes.names
    assert [row[2] for row in listed if row[3] == "1"] == ["node-2-1"]


def test_every_table_is_listed_as_replicated(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    rows = nodes.nodes()[0].query(
        f"SELECT engine, total_replicas, is_readonly FROM system.replicas WHERE database = '{database}'"
    )
    assert rows == [["ReplicatedReplacingMergeTree", "2", "0"]]


def test_dead_replica_catches_up(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    node = nodes.node("node-1-1")
    fill(node, database, 100)
    nodes.stop("node-2-2", kill=True)
    try:
        fill(node, database, 100, first=100)
        statement = f"ALTER TABLE {database}.t ON CLUSTER {CLUSTER} DELETE WHERE toUInt32(id) < 50"
        with pytest.raises(SandboxError, match=r"Code: 159.*not finished on 1 of 4 hosts \(0 .*, 1 are inactive\)"):
            node.query(statement, distributed_ddl_task_timeout=1)
        rows = node.query(
            f"ALTER TABLE {database}.t ON CLUSTER {CLUSTER} DELETE WHERE toUInt32(id) >= 150",
            distributed_ddl_task_timeout=1,
            distributed_ddl_output_mode="null_status_on_timeout",
        )
        assert [row[0] for row in rows if row[2] == "\\N"] == ["node-2-2"]
        late = node.query(
            f"CREATE TABLE {database}.late ON CLUSTER {CLUSTER} (a Int8) ENGINE = MergeTree ORDER BY a",
            distributed_ddl_task_timeout=1,
            distributed_ddl_output_mode="null_status_on_timeout",
        )
        assert len([row for row in late if row[2] == "0"]) == 3
        with pytest.raises(SandboxError, match=r"Code: 279.*node-2-2"):
            node.query(f"SELECT count() FROM clusterAllReplicas({CLUSTER}, system.one)")
        alive = f"SELECT count() FROM clusterAllReplicas({CLUSTER}, system.one) SETTINGS skip_unavailable_shards = 1"
        assert node.query(alive) == [["3"]]
    finally:
        nodes.start("node-2-2")
    until(
        lambda: (
            (per := counts(nodes, f"{database}.t"))["node-2-1"] == per["node-2-2"]
            and per["node-1-1"] + per["node-2-1"] == 100
        ),
        "both deletes carried out on all replicas",
    )
    assert nodes.node("node-2-2").query(f"EXISTS TABLE {database}.late") == [["1"]]


def test_killed_nodes_keep_their_data(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.node("node-1-1"), database)
    nodes.node("node-1-1").query(f"ALTER TABLE {database}.t ON CLUSTER {CLUSTER} DELETE WHERE toUInt32(id) < 10")
    until(lambda: sum(counts(nodes, f"{database}.t").values()) == 180, "delete carried out")
    before = counts(nodes, f"{database}.t")
    seen = mutations(nodes, database)
    nodes.restart(kill=True)
    assert counts(nodes, f"{database}.t") == before
    assert mutations(nodes, database) == seen


def test_stop_while_a_statement_runs(nodes: ClickHouseSandbox) -> None:
    node = nodes.node("node-2-1")

    def ask() -> None:
        with suppress(SandboxError, OSError):
            node.query("SELECT sum(sipHash64(number)) FROM numbers(1000000000) SETTINGS max_threads = 1")

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: bool(node.statements(queries=True, contains="1000000000")), "the statement has begun")
    nodes.stop("node-2-1")  # raises when the node does not end with exit code 0
    asking.join()
    nodes.start("node-2-1")
    assert node.query("SELECT 1") == [["1"]]


def test_database_made_anew_is_empty(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    node = nodes.node("node-1-1")
    fill(node, database)
    node.query(f"ALTER TABLE {database}.t ON CLUSTER {CLUSTER} DELETE WHERE v = 7")
    create = node.query(f"SHOW CREATE TABLE {database}.t")
    text = "\n".join(line[0] for line in create).replace(f"{database}.t", f"{database}.t ON CLUSTER {CLUSTER}")
    node.query(f"DROP DATABASE {database} ON CLUSTER {CLUSTER} SYNC")
    node.query(f"CREATE DATABASE {database} ON CLUSTER {CLUSTER}")
    node.query(text)
    assert counts(nodes, f"{database}.t") == dict.fromkeys(nodes.names, 0)
    assert mutations(nodes, database) == {name: [] for name in nodes.names}


def test_every_node_knows_a_column_that_another_one_has_added(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.nodes()[0], database, 4)
    asked = f"SELECT sum(more) FROM cluster('{CLUSTER}', {database}.t)"
    # Each has looked at the table's columns before.
    for node in nodes.nodes():
        node.query(f"SELECT sum(v) FROM cluster('{CLUSTER}', {database}.t)")
    for name, default in (("node-1-2", 3), ("node-2-1", 3)):
        nodes.node(name).query(f"ALTER TABLE {database}.t ADD COLUMN more Int8 DEFAULT {default}")
    for node in nodes.nodes():
        assert node.query(asked) == [["12"]]
