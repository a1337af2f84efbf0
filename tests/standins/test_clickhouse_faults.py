"""Every kind of fault rule, and what the record says about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError, StreamFailureError

from standins.clickhouse.client import ClickHouseSandbox, NodeClient, SandboxError
from tests.standins.clickhouse_fixtures import (
    CLUSTER,
    cluster,
    connected,
    counts,
    fill,
    mutations,
    new_database,
    nodes,
    until,
)

__all__ = ["cluster", "nodes"]


@contextmanager
def fault(node: NodeClient, **rule: Any) -> Iterator[int]:
    """A rule for as long as the block lasts."""
    (number,) = node.add_faults(rule)
    yield number
    node.clear_faults(number)


def on_all(sandbox: ClickHouseSandbox, **rule: Any) -> None:
    """The same rule on every node."""
    for node in sandbox.nodes():
        node.add_faults(rule)


def delete(database: str, where: str = "1", on_cluster: bool = True) -> str:
    """A DELETE of the table `t`."""
    return f"ALTER TABLE {database}.t{f' ON CLUSTER {CLUSTER}' if on_cluster else ''} DELETE WHERE {where}"


@pytest.mark.parametrize(("execute", "left"), [("first", 0), ("never", 100)])
def test_reset_after_or_before_the_statement(nodes: ClickHouseSandbox, execute: str, left: int) -> None:
    database = new_database(nodes)
    fill(nodes.node("node-1-1"), database)
    node = nodes.node("node-1-1")
    node.add_faults({"kind": "reset", "match": f"{database}.*DELETE", "execute": execute, "times": 1})
    with connected(nodes) as client, pytest.raises(OperationalError, match=r"Connection reset by peer|aborted"):
        client.command(delete(database))
    (row,) = node.statements(contains=f"{database}.t ON CLUSTER {CLUSTER} DELETE")
    assert row["outcome"] == ("reset, executed" if execute == "first" else "reset, not executed")
    until(lambda: sum(counts(nodes, f"{database}.t").values()) == 2 * left, "rows as the rule says")
    node.query(delete(database, "v = 99"))  # used up


@pytest.mark.parametrize("code", [159, 341, 517, 242, 999, 692, 241])
def test_reply_answers_an_error_so_many_times(nodes: ClickHouseSandbox, code: int) -> None:
    node = nodes.node("node-1-1")
    node.add_faults({"kind": "reply", "match": "no_such_thing", "code": code, "message": "told to", "times": 2})
    with connected(nodes) as client:
        assert client.command("SELECT 5") == 5
        for _ in range(2):
            with pytest.raises(DatabaseError, match="told to") as caught:
                client.command("SELECT 'no_such_thing'")
            assert caught.value.code == code
        assert client.command("SELECT 'no_such_thing'") == "no_such_thing"
    assert node.faults()[0]["hits"] == 2


def test_reply_after_executing(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.node("node-1-1"), database)
    node = nodes.node("node-1-1")
    node.add_faults({"kind": "reply", "match": "DELETE", "code": 159, "execute": "first"})
    with pytest.raises(SandboxError, match="Code: 159"):
        node.query(delete(database))
    assert node.statements()[-1]["outcome"] == "error 159 by rule, executed"
    until(lambda: sum(counts(nodes, f"{database}.t").values()) == 0, "deleted all the same")


def test_cut_answer_is_an_error_for_the_client(nodes: ClickHouseSandbox) -> None:
    nodes.node("node-1-1").add_faults({"kind": "cut", "match": "numbers", "bytes": 20})
    with connected(nodes) as client, pytest.raises((OperationalError, StreamFailureError)):
        client.query("SELECT number FROM numbers(1000)")


def test_latency(nodes: ClickHouseSandbox) -> None:
    with fault(nodes.node("node-2-1"), kind="latency", seconds=0.4):
        begun = time.monotonic()
        nodes.node("node-1-1").query(f"SELECT count() FROM clusterAllReplicas({CLUSTER}, system.one)")
        assert time.monotonic() - begun >= 0.4


def test_a_lingering_statement_is_listed_until_it_is_let_go(nodes: ClickHouseSandbox) -> None:
    lister, held = nodes.node("node-1-1"), nodes.node("node-2-1")

    def listed() -> list[list[str]]:
        return lister.query(
            f"SELECT DISTINCT hostName() FROM clusterAllReplicas({CLUSTER}, system.processes)"
            " WHERE NOT startsWith(query, 'SELECT') AND position(query, 'lingers') > 0"
        )

    with ThreadPoolExecutor(1) as pool, fault(held, kind="latency", match="^EXISTS", seconds=600):
        asked = pool.submit(held.query, "EXISTS TABLE system.one /* lingers */")
        until(lambda: listed() == [["node-2-1"]], "the statement is listed where it is")
        held.clear_faults()
        assert asked.result(30) == [["1"]]
    assert listed() == []


def test_a_statement_outlives_its_client(nodes: ClickHouseSandbox) -> None:
    node = nodes.node("node-1-1")
    running = "SELECT count() FROM system.processes WHERE startsWith(query, 'EXISTS') AND position(query, 'left') > 0"
    with fault(node, kind="latency", match="^EXISTS", seconds=600):
        with connected(nodes, send_receive_timeout=1) as client, pytest.raises(OperationalError, match="timed out"):
            client.command("EXISTS TABLE system.one /* left */")
        assert node.query(running) == [["1"]]
    until(lambda: node.query(running) == [["0"]], "it has ended")
    assert node.statements(queries=True, contains="left")[0]["outcome"] == "ok"


def test_ddl_hold_leaves_a_host_unfinished_and_runs_later(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    node, held = nodes.node("node-1-1"), nodes.node("node-2-1")
    options = {"distributed_ddl_task_timeout": 1, "distributed_ddl_output_mode": "null_status_on_timeout"}
    with fault(held, kind="ddl_hold", match="later"):
        rows = node.query(
            f"CREATE TABLE {database}.later ON CLUSTER {CLUSTER} (a Int8) ENGINE = MergeTree ORDER BY a", **options
        )
        assert [row[0] for row in rows if row[2] == "\\N"] == ["node-2-1"]
        assert held.query(f"EXISTS TABLE {database}.later") == [["0"]]
        (row,) = node.query(
            "SELECT host, toString(status) FROM system.distributed_ddl_queue"
            f" WHERE position(query, '{database}.later') > 0 AND status != 'Finished'"
        )
        assert row == ["node-2-1", "Inactive"]
    until(lambda: held.query(f"EXISTS TABLE {database}.later") == [["1"]], "held statement runs")


def test_ddl_drop_never_runs(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    node, deaf = nodes.node("node-1-1"), nodes.node("node-2-2")
    with fault(deaf, kind="ddl_drop", match="never"), pytest.raises(SandboxError, match="not finished on 1 of 4 hosts"):
        node.query(
            f"CREATE TABLE {database}.never ON CLUSTER {CLUSTER} (a Int8) ENGINE = MergeTree ORDER BY a",
            distributed_ddl_task_timeout=1,
        )
    node.query(f"CREATE TABLE {database}.after ON CLUSTER {CLUSTER} (a Int8) ENGINE = MergeTree ORDER BY a")
    assert deaf.query(f"EXISTS TABLE {database}.never") == [["0"]]
    assert deaf.query(f"EXISTS TABLE {database}.after") == [["1"]]


def test_mutation_that_no_host_picks_up(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    on_all(nodes, kind="ddl_drop", match=database)
    rows = nodes.node("node-1-1").query(
        delete(database), distributed_ddl_task_timeout=1, distributed_ddl_output_mode="null_status_on_timeout"
    )
    assert {row[2] for row in rows} == {"\\N"}
    assert mutations(nodes, database) == {name: [] for name in nodes.names}


def test_ddl_error_of_one_host(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    nodes.node("node-2-1").add_faults({"kind": "ddl_error", "code": 242, "message": "Table is in readonly mode"})
    with pytest.raises(SandboxError, match=r"Code: 242.*error on \[node-2-1:\d+\].*readonly mode"):
        nodes.node("node-1-1").query(f"DROP TABLE {database}.t_d ON CLUSTER {CLUSTER}")


def test_silent_host_is_missing_without_a_word(nodes: ClickHouseSandbox) -> None:
    node = nodes.node("node-1-1")
    sql = f"SELECT hostName() AS h FROM clusterAllReplicas({CLUSTER}, system.one) ORDER BY h"
    with fault(nodes.node("node-1-2"), kind="silent", match="system.one"):
        assert [row[0] for row in node.query(sql)] == ["node-1-1", "node-2-1", "node-2-2"]
    with fault(nodes.node("node-1-2"), kind="silent", mode="error"):
        with pytest.raises(SandboxError, match=r"Code: 279.*node-1-2"):
            node.query(sql)
        assert len(node.query(sql, skip_unavailable_shards=1)) == 3


def test_silent_own_node(nodes: ClickHouseSandbox) -> None:
    node = nodes.node("node-1-1")
    with fault(node, kind="silent", mode="error"), pytest.raises(SandboxError, match=r"Code: 279"):
        node.query(f"SELECT count() FROM clusterAllReplicas({CLUSTER}, system.one)")


def test_held_mutation_does_not_touch_rows_that_come_later(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    node = nodes.node("node-1-1")
    fill(node, database)
    on_all(nodes, kind="mutation", match=database)
    node.query(delete(database))
    seen = mutations(nodes, database)
    assert {row["is_done"] for rows in seen.values() for row in rows} == {"0"}
    assert all(int(row["parts_to_do"]) >= 1 for rows in seen.values() for row in rows)
    fill(node, database, 40, version=2)
    assert sum(counts(nodes, f"{database}.t").values()) == 200
    for name in nodes.names:
        nodes.node(name).clear_faults()
    until(lambda: sum(counts(nodes, f"{database}.t").values()) == 80, "only the old rows are deleted")
    until(lambda: {r["is_done"] for rows in mutations(nodes, database).values() for r in rows} == {"1"}, "done")


def test_mutation_takes_seconds(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.node("node-1-1"), database)
    on_all(nodes, kind="mutation", match=database, seconds=1)
    begun = time.monotonic()
    nodes.node("node-1-1").query(delete(database, on_cluster=False), mutations_sync=2)
    assert time.monotonic() - begun >= 1


def test_held_mutation_is_still_held_after_a_restart(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.node("node-1-1"), database)
    on_all(nodes, kind="mutation", match=database)
    nodes.node("node-1-1").query(delete(database))
    nodes.restart("node-2-1", kill=True)
    (row,) = mutations(nodes, database)["node-2-1"]
    assert row["is_done"] == "0"


@pytest.mark.parametrize(
    ("rule", "column", "value", "error"),
    [
        ({"reason": "Code: 53. TYPE_MISMATCH"}, "latest_fail_reason", "Code: 53. TYPE_MISMATCH", "TYPE_MISMATCH"),
        ({"killed": True}, "is_killed", "1", "was killed"),
        ({"parts": 12}, "parts_to_do", "12", None),
    ],
)
def test_mutation_that_fails_is_killed_or_stalls(
    nodes: ClickHouseSandbox, rule: dict[str, Any], column: str, value: str, error: str | None
) -> None:
    database = new_database(nodes)
    fill(nodes.node("node-1-1"), database)
    nodes.node("node-1-2").add_faults({"kind": "mutation", "match": database, **rule})
    node = nodes.node("node-1-1")
    if error is not None:
        with pytest.raises(SandboxError, match=f"Code: 341.*{error}"):
            node.query(delete(database, on_cluster=False), mutations_sync=2)
    else:
        node.query(delete(database, on_cluster=False))
    (row,) = mutations(nodes, database)["node-1-2"]
    assert (row["is_done"], row[column]) == ("0", value)
    until(lambda: mutations(nodes, database)["node-1-1"][0]["is_done"] == "1", "other replica done")


def test_kill_mutation(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.node("node-1-1"), database)
    on_all(nodes, kind="mutation", match=f"{database}.*backfill:one:1")
    node = nodes.node("node-1-1")
    node.query(delete(database, "'backfill:one:1' != ''"))
    where = f"WHERE database = '{database}' AND table = 't' AND position(command, 'backfill:one:1') > 0"
    shown = node.query(f"KILL MUTATION {where} TEST")
    assert [row[:4] for row in shown] == [["", database, "t", "0000000000"]]
    rows = node.query(f"KILL MUTATION ON CLUSTER '{CLUSTER}' {where}")
    assert {row[2] for row in rows} == {"0"}
    assert mutations(nodes, database) == {name: [] for name in nodes.names}
    assert sum(counts(nodes, f"{database}.t").values()) == 200
    node.query(delete(database, "v = 1"))
    until(lambda: sum(counts(nodes, f"{database}.t").values()) == 0, "the table goes on")


def test_rows_left_on_one_replica(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.node("node-1-1"), database)
    before = counts(nodes, f"{database}.t")
    nodes.node("node-2-2").add_faults({"kind": "rows_left", "match": database})
    nodes.node("node-1-1").query(delete(database, "v = 1 AND 'backfill:x:1' != ''"))
    until(
        lambda: counts(nodes, f"{database}.t") == {**dict.fromkeys(nodes.names, 0), "node-2-2": before["node-2-2"]},
        "rows stay on node-2-2 only",
    )
    until(lambda: mutations(nodes, database)["node-2-2"][0]["is_done"] == "1", "and its mutation is done")
    seen = mutations(nodes, database)
    assert seen["node-2-2"][0]["command"] == seen["node-2-1"][0]["command"]


def test_rows_left_by_drop_partition(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.node("node-1-1"), database)
    on_all(nodes, kind="rows_left", match=database)
    nodes.node("node-1-1").query(f"ALTER TABLE {database}.t ON CLUSTER {CLUSTER} DROP PARTITION ID '202601'")
    assert sum(counts(nodes, f"{database}.t").values()) == 200


def test_replica_hold_keeps_one_replica_behind(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.node("node-1-1"), database)
    behind = nodes.node("node-2-2")
    with fault(behind, kind="replica_hold", match=database):
        rows = nodes.node("node-1-1").query(
            delete(database), distributed_ddl_task_timeout=1, distributed_ddl_output_mode="null_status_on_timeout"
        )
        assert [row[0] for row in rows if row[2] == "\\N"] == ["node-2-2"]
        seen = mutations(nodes, database)
        assert {name: len(rows) for name, rows in seen.items()} == {**dict.fromkeys(nodes.names, 1), "node-2-2": 0}
        (queue,) = behind.query(
            f"SELECT queue_size, part_mutations_in_queue FROM system.replicas WHERE database = '{database}'"
        )
        assert queue == ["1", "1"]
    until(lambda: len(mutations(nodes, database)["node-2-2"]) == 1, "the change arrives")
    until(lambda: sum(counts(nodes, f"{database}.t").values()) == 0, "and is carried out")


def test_insert_drop_loses_rows_silently(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    with fault(nodes.node("node-1-1"), kind="insert_drop", match=f"{database}.t_d", times=1):
        fill(nodes.node("node-1-1"), database, 10)
        assert sum(counts(nodes, f"{database}.t").values()) == 0
        fill(nodes.node("node-1-1"), database, 10)
        assert sum(counts(nodes, f"{database}.t").values()) == 20


def test_overlay_of_system_tables(nodes: ClickHouseSandbox) -> None:
    node = nodes.node("node-1-1")
    node.add_faults(
        {"kind": "overlay", "table": "disks", "where": {"name": "default"}, "set": {"free_space": 1234}},
        {"kind": "overlay", "table": "replicas", "set": {"is_readonly": 1, "queue_size": 77}},
        {"kind": "overlay", "table": "parts", "add": [{"database": "d", "table": "t", "active": 1}] * 300},
        {
            "kind": "overlay",
            "table": "mutations",
            "add": [{"database": "d", "table": "t", "mutation_id": "0000000042", "command": "(DELETE WHERE 1)"}],
        },
        {"kind": "overlay", "table": "clusters", "match": "node-2-2", "drop": True},
    )
    new_database(nodes)
    assert node.query("SELECT free_space FROM system.disks") == [["1234"]]
    assert node.query("SELECT DISTINCT is_readonly, queue_size FROM system.replicas") == [["1", "77"]]
    assert node.query("SELECT count() FROM system.parts WHERE active AND database = 'd'") == [["300"]]
    planted = f"SELECT hostName(), mutation_id, is_done FROM clusterAllReplicas({CLUSTER}, system.mutations)"
    assert nodes.node("node-2-1").query(f"{planted} WHERE database = 'd'") == [["node-1-1", "0000000042", "0"]]
    assert node.query("SELECT count() FROM system.clusters") == [["3"]]
    assert nodes.node("node-1-2").query("SELECT count() FROM system.clusters") == [["4"]]


def test_grants(nodes: ClickHouseSandbox) -> None:
    node = nodes.node("node-1-1")
    assert node.query("SHOW GRANTS") == [["GRANT ALL ON *.* TO admin WITH GRANT OPTION"]]
    with fault(node, kind="grants", text="GRANT SELECT ON *.* TO admin\nGRANT SHOW ON *.* TO admin"):
        assert node.query("SHOW GRANTS") == [["GRANT SELECT ON *.* TO admin"], ["GRANT SHOW ON *.* TO admin"]]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"kind": "nonsense"}, "kind 'nonsense' is unknown"),
        ({"kind": "reply"}, "field 'code' is missing"),
        ({"kind": "reply", "code": "159"}, "field 'code' cannot be '159'"),
        ({"kind": "reply", "code": True}, "field 'code' cannot be True"),
        ({"kind": "reset", "execute": "later"}, "one of first, never"),
        ({"kind": "reset", "match": "("}, "no regular expression"),
        ({"kind": "reset", "codee": 1}, "field 'codee' is unknown"),
    ],
)
def test_bad_rules_are_refused(nodes: ClickHouseSandbox, rule: dict[str, Any], text: str) -> None:
    node = nodes.node("node-1-1")
    with pytest.raises(SandboxError, match="refused with 400") as caught:
        node.add_faults({"kind": "reset"}, rule)
    assert text in str(caught.value)
    assert node.faults() == []


def test_rules_and_record_survive_a_kill(nodes: ClickHouseSandbox) -> None:
    node = nodes.node("node-1-2")
    node.add_faults({"kind": "reply", "match": "xyzzy", "code": 517, "times": 2})
    with pytest.raises(SandboxError, match="Code: 517"):
        node.query("CREATE DATABASE xyzzy")
    node.query("SELECT 1", query_id="the-read")
    nodes.restart("node-1-2", kill=True)
    assert [(rule["kind"], rule["hits"]) for rule in node.faults()] == [("reply", 1)]
    (row,) = node.statements()
    assert (row["statement"], row["outcome"], row["user"]) == (
        "CREATE DATABASE xyzzy",
        "error 517 by rule, not executed",
        "admin",
    )
    with_queries = node.statements(queries=True, since=row["id"])
    assert [(read["query_id"], read["statement"]) for read in with_queries] == [("the-read", "SELECT 1")]


def test_record_leaves_data_and_passwords_out(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    node = nodes.node("node-1-1")
    with connected(nodes) as client:
        client.insert(
            f"{database}.t_d",
            [["secret-row", "2026-01-01", 1]],
            column_names=["id", "day", "v"],
            column_type_names=["String", "String", "UInt32"],
        )
    text = (nodes.folder / "node-1-1" / "statements.jsonl").read_text()
    assert "secret-row" not in text
    assert nodes.password not in text
    assert node.statements()[-1]["statement"].endswith("FORMAT Native")
