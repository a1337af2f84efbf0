"""clickhouse-connect, unchanged, against a node: connecting, types, inserts, parameters, settings, errors."""

from __future__ import annotations

import gzip
import json
import urllib.error
import urllib.request
from datetime import UTC, datetime

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from standins.clickhouse.client import ClickHouseSandbox, NodeClient, SandboxError
from tests.standins.clickhouse_fixtures import cluster, connected, counts, new_database, nodes

__all__ = ["cluster", "nodes"]


def test_wrong_password_is_refused_with_516(nodes: ClickHouseSandbox) -> None:
    with pytest.raises(DatabaseError, match="Authentication failed") as caught, connected(nodes, password="no"):
        pass
    assert caught.value.code == 516
    for path in ("/", "/faults", "/statements", "/internal/sync"):
        with pytest.raises(SandboxError, match="refused with 401"):
            NodeClient(nodes.topology.node("node-1-1").url, "no").request("POST", path, b"SELECT 1")


def test_query_of_the_address_and_ping_without_credentials(nodes: ClickHouseSandbox) -> None:
    assert nodes.node("node-1-1").request("GET", "/?query=SELECT%207") == b"7\n"
    with urllib.request.urlopen(f"{nodes.topology.node('node-1-1').url}/ping") as answer:
        assert answer.read() == b"Ok.\n"


def test_types_come_back(nodes: ClickHouseSandbox) -> None:
    with connected(nodes) as client:
        (row,) = client.query(
            "SELECT toDateTime64('2026-01-02 03:04:05.678', 3, 'UTC') AS t, toLowCardinality('x') AS c, 1.5 AS f,"
            " CAST(NULL AS Nullable(String)) AS n, [1, 2] AS a, map('k', 'v') AS m, 'it''s\\t\\n' AS s"
        ).result_rows
        assert row[0].replace(tzinfo=UTC) == datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
        assert row[1:] == ("x", 1.5, None, [1, 2], {"k": "v"}, "it's\t\n")
        assert client.query("SELECT number FROM numbers(3)").result_rows == [(0,), (1,), (2,)]
        assert list(client.query("SELECT 1 AS x WHERE 0").named_results()) == []


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_native_insert_looks_types_up(nodes: ClickHouseSandbox, compress: str | bool) -> None:
    database = new_database(nodes)
    with connected(nodes, "node-2-1", compress=compress) as client:
        day = datetime(2026, 1, 5, 12, 30, tzinfo=UTC)
        rows = [[f"id-{number}", day, number] for number in range(1000)]
        summary = client.insert(f"{database}.t_d", rows, column_names=["id", "day", "v"])
        assert summary.written_rows == 1000
        result = client.query(f"SELECT id, day, v FROM {database}.t_d FINAL WHERE v = 7")
        assert result.result_rows == [("id-7", day.replace(tzinfo=None), 7)]
        client.insert("t", [["only-here", day, 1]], column_names=["id", "day", "v"], database=database)
    assert counts(nodes, f"{database}.t", "id = 'only-here'") == {
        "node-1-1": 0,
        "node-1-2": 0,
        "node-2-1": 1,
        "node-2-2": 1,
    }


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_insert_of_several_blocks_is_whole(nodes: ClickHouseSandbox, compress: str | bool) -> None:
    database = new_database(nodes)
    rows = 40_000
    columns: list[list[object]] = [[f"{number:0>200}" for number in range(rows)], [0] * rows, list(range(rows))]
    with connected(nodes, compress=compress) as client:
        context = client.create_insert_context(
            f"{database}.t_d", column_names=["id", "day", "v"], data=columns, column_oriented=True
        )
        assert context.block_row_count * 2 < rows, "the client must send more than one block"
        client.insert(context=context)
    per_node = counts(nodes, f"{database}.t")
    assert per_node["node-1-1"] + per_node["node-2-1"] == rows


def test_inserts_of_other_forms(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    with connected(nodes) as client:
        client.command(f"INSERT INTO {database}.t_d VALUES ('a', '2026-01-01 00:00:00', 1), ('b;c', 0, 2)")
        client.command(f"INSERT INTO {database}.t_d (id) SELECT 'd'")
        client.raw_insert(f"{database}.t_d", ["id", "v"], b"e\t5\nf\t6\n", fmt="TabSeparated")
        client.raw_insert(
            f"{database}.t_d", ["id"], gzip.compress(b'{"id": "g"}\n'), fmt="JSONEachRow", compression="gzip"
        )
        found = client.query(f"SELECT id, v FROM {database}.t_d FINAL ORDER BY id").result_rows
    assert found == [("a", 1), ("b;c", 2), ("d", 0), ("e", 5), ("f", 6), ("g", 0)]


def test_bad_rows_are_refused_as_a_whole(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    with connected(nodes) as client, pytest.raises(DatabaseError, match="Cannot parse"):
        client.raw_insert(f"{database}.t_d", ["id", "v"], b"e\t5\nf\tnot-a-number\n", fmt="TabSeparated")
    assert sum(counts(nodes, f"{database}.t").values()) == 0


def test_parameters_are_bound_on_all_nodes(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    with connected(nodes) as client:
        client.command(f"INSERT INTO {database}.t_d (id, v) SELECT toString(number), number FROM numbers(20)")
        sql = f"SELECT count() FROM {database}.t_d WHERE v >= {{low:UInt32}} AND id != {{id:String}}"
        assert client.query(sql, parameters={"low": 10, "id": "15"}).first_row == (9,)
        quoted = client.query("SELECT {x:String} AS x", parameters={"x": "O'Neil; DROP\t\\"}).first_row
        assert quoted == ("O'Neil; DROP\t\\",)
        named = client.query("SELECT {n:Identifier} FROM system.{t:Identifier}", parameters={"n": "dummy", "t": "one"})
        assert named.first_row == (0,)


def test_settings_and_query_id(nodes: ClickHouseSandbox) -> None:
    with connected(nodes) as client:
        assert client.query("SELECT getSetting('max_threads')", settings={"max_threads": 3}).first_row == (3,)
        result = client.query("SELECT 1", settings={"query_id": "mine-1"})
        assert result.query_id == "mine-1"
        with pytest.raises(DatabaseError) as caught:
            client.raw_query("SELECT 1", settings={"no_such_setting": 1})
    assert caught.value.code == 115
    recorded = [row for row in nodes.node("node-1-1").statements(queries=True) if row["query_id"] == "mine-1"]
    assert [row["statement"] for row in recorded] == ["SELECT 1\n FORMAT Native"]


def test_setting_of_the_client_reaches_the_other_nodes(nodes: ClickHouseSandbox) -> None:
    with connected(nodes) as client:
        view = "view(SELECT getSetting('max_threads') AS threads)"
        sql = f"SELECT DISTINCT threads FROM clusterAllReplicas(conversations, {view})"
        assert client.query(sql, settings={"max_threads": 5}).result_rows == [(5,)]


@pytest.mark.parametrize(
    ("statement", "status", "code"),
    [
        ("SELECT 1; SELECT 2", 400, 62),
        ("SELEC 1", 400, 62),
        ("SELECT 'open", 400, 62),
        ("", 400, 62),
        ("ALTER", 400, 62),
        ("SELECT * FROM no_such.table", 404, 81),
        ("SELECT no_such_column", 404, 47),
        ("SELECT throwIf(1, 'boom')", 500, 395),
    ],
)
def test_errors_have_code_status_and_text(nodes: ClickHouseSandbox, statement: str, status: int, code: int) -> None:
    with pytest.raises(SandboxError, match=rf"refused with {status}: Code: {code}\. DB::Exception: .*\(version ") as _:
        nodes.node("node-1-1").query(statement)


def test_formats(nodes: ClickHouseSandbox) -> None:
    node = nodes.node("node-1-1")
    parsed = json.loads(node.request("POST", "/", b"SELECT 1 AS a, hostName() AS h FORMAT JSON"))
    assert parsed["data"] == [{"a": 1, "h": "node-1-1"}]
    assert node.request("POST", "/?default_format=CSVWithNames", b"SELECT 'x' AS a;") == b'"a"\n"x"\n'
    assert node.request("POST", "/?query=SELECT%20'a'%20AS%20format%20FORMAT%20TSVWithNames", b"") == b"format\na\n"


def test_column_metadata_without_rows(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    with connected(nodes) as client:
        result = client.query(f"SELECT id, day FROM {database}.t_d LIMIT 0")
        assert result.column_names == ("id", "day")


def test_a_closed_connection_leaves_the_node_alive(nodes: ClickHouseSandbox) -> None:
    url = nodes.topology.node("node-1-1").url
    request = urllib.request.Request(f"{url}/", data=b"x", headers={"Content-Encoding": "br"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)
    assert nodes.node("node-1-1").query("SELECT 1") == [["1"]]
