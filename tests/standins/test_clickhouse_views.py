"""What completeness of an answer is tested with: views on every host, GLOBAL IN, profiles that cut an answer short."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from standins.clickhouse.client import ClickHouseSandbox, SandboxError
from tests.standins.clickhouse_fixtures import CLUSTER, cluster, connected, fill, new_database, nodes

__all__ = ["cluster", "nodes"]


def counted(database: str, where: str) -> str:
    return f"view(SELECT hostName() AS host, count() AS n, max(v) AS last FROM {database}.t FINAL WHERE {where})"


def test_each_host_answers_one_row_also_when_nothing_matches(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.nodes()[0], database, 20)
    for where, total in (("1", 40), ("id = 'nobody'", 0)):
        rows = nodes.nodes()[0].query(
            f"SELECT host, n FROM clusterAllReplicas('{CLUSTER}', {counted(database, where)}) ORDER BY host"
        )
        assert [row[0] for row in rows] == nodes.names
        assert sum(int(row[1]) for row in rows) == total
        by_host = {row[0]: row[1] for row in rows}
        assert (by_host["node-1-1"], by_host["node-2-1"]) == (by_host["node-1-2"], by_host["node-2-2"])


def test_one_replica_of_each_shard_answers(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.nodes()[0], database, 20)
    rows = nodes.nodes()[0].query(f"SELECT host, n FROM cluster('{CLUSTER}', {counted(database, '1')}) ORDER BY host")
    assert [row[0].split("-")[1] for row in rows] == ["1", "2"]
    assert sum(int(row[1]) for row in rows) == 20


def test_views_can_be_added_up_and_joined_by_union(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.nodes()[0], database, 20)
    legs = " UNION ALL ".join(
        f"SELECT '{name}' AS leg, hostName() AS host, n"
        f" FROM clusterAllReplicas('{CLUSTER}', {counted(database, where)})"
        for name, where in (("all", "1"), ("none", "0"))
    )
    rows = nodes.nodes()[0].query(f"SELECT leg, count(), sum(n) FROM ({legs}) GROUP BY leg ORDER BY leg")
    assert rows == [["all", "4", "40"], ["none", "4", "0"]]
    total = nodes.nodes()[0].query(f"SELECT sum(n), count() FROM cluster('{CLUSTER}', {counted(database, '1')})")
    assert total == [["20", "2"]]


def test_a_view_may_group_and_is_asked_with_database_and_day(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.nodes()[0], database, 20)
    view = f"view(SELECT hostName() AS host, toDate(day) AS day, count() AS n FROM {database}.t GROUP BY day)"
    sql = f"SELECT host, toString(day), n FROM clusterAllReplicas('{CLUSTER}', {view})"
    assert len({row[0] for row in nodes.nodes()[0].query(sql)}) == 4


def test_a_host_that_is_silent_is_missing(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    nodes.node("node-2-2").add_faults({"kind": "silent", "mode": "omit"})
    rows = nodes.nodes()[0].query(f"SELECT host FROM clusterAllReplicas('{CLUSTER}', {counted(database, '1')})")
    assert sorted(row[0] for row in rows) == ["node-1-1", "node-1-2", "node-2-1"]


def test_global_in_asks_the_cluster_for_the_ids(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.nodes()[0], database, 20)
    ids = f"SELECT id FROM cluster('{CLUSTER}', {database}.t) WHERE v > 0 ORDER BY id LIMIT 7"
    for word, expected in (("GLOBAL IN", "7"), ("GLOBAL NOT IN", "13"), ("IN", "7")):
        sql = f"SELECT count() FROM cluster('{CLUSTER}', {database}.t) WHERE id {word} ({ids})"
        assert nodes.nodes()[0].query(sql) == [[expected]], word


def test_global_in_inside_a_view_and_over_a_distributed_table(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.nodes()[0], database, 20)
    view = f"view(SELECT count() AS n FROM {database}.t WHERE id GLOBAL IN (SELECT id FROM {database}.t_d LIMIT 9))"
    assert nodes.nodes()[0].query(f"SELECT sum(n) FROM cluster('{CLUSTER}', {view})") == [["9"]]


def test_a_profile_cuts_an_answer_short_unless_the_query_says_otherwise(nodes: ClickHouseSandbox) -> None:
    node = nodes.nodes()[0]
    node.add_faults({"kind": "profile", "settings": {"limit": 3}})
    assert len(node.query("SELECT number FROM numbers(10)")) == 3
    assert len(node.query("SELECT number FROM numbers(10)", limit=0)) == 10
    assert len(node.query("SELECT number FROM numbers(10) SETTINGS limit = 0")) == 10
    assert nodes.node("node-1-2").query("SELECT count() FROM numbers(10)") == [["10"]]


def test_a_profile_that_breaks_off_reading_gives_wrong_counts_without_an_error(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    node = nodes.nodes()[0]
    # The engine looks at the limit between parts: six months are six parts at least.
    node.query(
        f"INSERT INTO {database}.t_d SELECT toString(number), addMonths(toDateTime64('2026-01-01', 3), number % 6), 1"
        " FROM numbers(3000)"
    )
    node.add_faults({"kind": "profile", "settings": {"read_overflow_mode": "break", "max_rows_to_read": 10}})
    sql = f"SELECT sum(v) FROM cluster('{CLUSTER}', {database}.t)"
    pinned = {"read_overflow_mode": "throw", "max_rows_to_read": 0}
    assert int(node.query(sql)[0][0]) < int(node.query(sql, **pinned)[0][0]) == 3000
    with pytest.raises(SandboxError, match="TOO_MANY_ROWS"):
        node.query(sql, read_overflow_mode="throw")


def test_a_profile_does_not_cut_what_is_inserted(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    nodes.nodes()[0].add_faults({"kind": "profile", "settings": {"limit": 3, "max_rows_to_read": 2}})
    with connected(nodes) as client:
        client.insert(f"{database}.t_d", [["a", 0, 1], ["b", 0, 1], ["c", 0, 1], ["d", 0, 1]])
    assert nodes.node("node-1-2").query(f"SELECT count() FROM cluster('{CLUSTER}', {database}.t)") == [["4"]]


def test_a_fixed_setting_cannot_be_changed(nodes: ClickHouseSandbox) -> None:
    node = nodes.nodes()[0]
    node.add_faults({"kind": "profile", "settings": {"limit": 3}, "fixed": True})
    with pytest.raises(SandboxError, match=r"Code: 452.*SETTING_CONSTRAINT_VIOLATION"):
        node.query("SELECT 1", limit=0)
    assert node.query("SELECT 1", limit=3) == [["1"]]


def test_the_driver_sees_the_profile(nodes: ClickHouseSandbox) -> None:
    # What the driver asks for when it connects is shorter.
    nodes.nodes()[0].add_faults({"kind": "profile", "settings": {"max_result_rows": 5_000}})
    with connected(nodes) as client:
        with pytest.raises(DatabaseError, match="TOO_MANY_ROWS_OR_BYTES"):
            client.query("SELECT number FROM numbers(10000)")
        free = client.query("SELECT number FROM numbers(10000)", settings={"max_result_rows": 0})
        assert len(free.result_rows) == 10_000
