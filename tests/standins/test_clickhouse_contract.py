"""What clients rely on in a ClickHouse cluster: the same tests for the stand-in and for a real cluster.

`CLICKHOUSE_URL=https://host:8443 make test-clickhouse` runs them against the cluster CLICKHOUSE_CLUSTER (default
`conversations`) as CLICKHOUSE_USER with CLICKHOUSE_PASSWORD. Each test makes a database of its own, named
`backfill_contract_<random>`, and drops it; nothing else is changed. The user needs all rights on such databases. Where
a point comes from: standins/clickhouse/README.md.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from standins.clickhouse.client import ClickHouseSandbox, NodeClient, SandboxError, running
from tests.standins.clickhouse_fixtures import CLUSTER, PASSWORD, until

URL = "CLICKHOUSE_URL"
PREFIX = "backfill_contract_"
CODES = {
    47: "UNKNOWN_IDENTIFIER",
    48: "NOT_IMPLEMENTED",
    60: "UNKNOWN_TABLE",
    62: "SYNTAX_ERROR",
    81: "UNKNOWN_DATABASE",
    159: "TIMEOUT_EXCEEDED",
    164: "READONLY",
    201: "QUOTA_EXCEEDED",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    241: "MEMORY_LIMIT_EXCEEDED",
    279: "ALL_CONNECTION_TRIES_FAILED",
    341: "UNFINISHED",
    359: "TABLE_SIZE_EXCEEDS_MAX_DROP_SIZE_LIMIT",
    373: "SESSION_IS_LOCKED",
    497: "ACCESS_DENIED",
    516: "AUTHENTICATION_FAILED",
    517: "CANNOT_ASSIGN_ALTER",
    692: "TOO_MANY_MUTATIONS",
    701: "CLUSTER_DOESNT_EXIST",
}


@dataclass(frozen=True)
class Contract:
    """A cluster, through one of its nodes. ``sandbox`` is the stand-in, None for a real cluster."""

    node: NodeClient
    cluster: str
    sandbox: ClickHouseSandbox | None

    def query(self, sql: str, **settings: object) -> list[list[str]]:
        """The rows of a statement."""
        return self.node.query(sql, **settings)

    def everywhere(self, table: str) -> str:
        """A system table on all hosts."""
        return f"clusterAllReplicas('{self.cluster}', system.{table})"

    def hosts(self) -> list[str]:
        """What each host calls itself, in the order of the cluster's definition."""
        return [name for *_, name in self.places()]

    def places(self) -> list[tuple[int, int, str]]:
        """Shard and replica of each entry of the cluster, and what the host calls itself that takes it for its own."""
        view = (
            "SELECT shard_num AS shard, replica_num AS replica, hostName() AS host FROM system.clusters"
            f" WHERE cluster = '{self.cluster}' AND is_local"
        )
        rows = self.query(f"SELECT shard, replica, host FROM clusterAllReplicas('{self.cluster}', view({view}))")
        return sorted((int(shard), int(replica), host) for shard, replica, host in rows)

    def shards(self) -> int:
        """How many shards there are."""
        [[count]] = self.query(f"SELECT uniqExact(shard_num) FROM system.clusters WHERE cluster = '{self.cluster}'")
        return int(count)


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contract]:
    """The cluster that CLICKHOUSE_URL names, or a stand-in with two shards of two replicas."""
    if url := os.environ.get(URL):
        password = os.environ.get("CLICKHOUSE_PASSWORD", "")
        node = NodeClient(url.rstrip("/"), password, os.environ.get("CLICKHOUSE_USER", "default"))
        yield Contract(node, os.environ.get("CLICKHOUSE_CLUSTER", CLUSTER), None)
        return
    with running(ClickHouseSandbox(tmp_path_factory.mktemp("clickhouse"), (2, 2), password=PASSWORD)) as sandbox:
        yield Contract(sandbox.node("node-1-2"), CLUSTER, sandbox)


@pytest.fixture
def database(contract: Contract) -> Iterator[str]:
    """A database of the test's own on every host, with 100 rows of January in `t`, and `t_d` over it."""
    name, on = PREFIX + secrets.token_hex(4), f"ON CLUSTER '{contract.cluster}'"
    # The stand-in replicates every table by itself; a CREATE there names no Replicated engine.
    replicated = f"ReplicatedReplacingMergeTree('/clickhouse/tables/{{shard}}/{name}/t', '{{replica}}', v)"
    engine = replicated if contract.sandbox is None else "ReplacingMergeTree(v)"
    contract.query(f"CREATE DATABASE {name} {on}")
    try:
        contract.query(
            f"CREATE TABLE {name}.t {on} (id String, day DateTime64(3, 'UTC'), v UInt32) ENGINE = {engine}"
            " PARTITION BY toYYYYMM(day) ORDER BY id"
        )
        contract.query(
            f"CREATE TABLE {name}.t_d {on} AS {name}.t"
            f" ENGINE = Distributed('{contract.cluster}', {name}, t, cityHash64(id))"
        )
        insert(contract, name)
        until(lambda: both_sides(contract, name) == 100, "the rows are on every replica")
        yield name
    finally:
        contract.query(f"DROP DATABASE IF EXISTS {name} {on} SYNC")


def insert(contract: Contract, database: str, rows: int = 100, version: int = 1) -> None:
    """Insert the ids 0 to `rows` of January into the shards, in the foreground."""
    contract.query(
        f"INSERT INTO {database}.t_d SELECT toString(number),"
        f" toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + number, {version} FROM numbers({rows})",
        distributed_foreground_insert=1,
        insert_deduplicate=0,
    )


def rows_by_host(contract: Contract, database: str, where: str = "1") -> dict[str, int]:
    """FINAL counts of every host, zero included."""
    view = f"SELECT hostName() AS host, count() AS rows FROM {database}.t FINAL WHERE {where}"
    answer = contract.query(f"SELECT host, rows FROM clusterAllReplicas('{contract.cluster}', view({view}))")
    return {host: int(rows) for host, rows in answer}


def both_sides(contract: Contract, database: str, where: str = "1") -> int | None:
    """The rows of all shards if the replicas of each agree, else None."""
    by_host = rows_by_host(contract, database, where)
    by_shard: dict[int, set[int]] = {}
    for shard, _, host in contract.places():
        by_shard.setdefault(shard, set()).add(by_host[host])
    if any(len(counts) != 1 for counts in by_shard.values()):
        return None
    return sum(count for counts in by_shard.values() for count in counts)


def mutations(contract: Contract, database: str) -> dict[str, list[dict[str, str]]]:
    """The mutations of the database by host."""
    columns = ("mutation_id", "is_done", "parts_to_do", "latest_fail_reason", "command")
    sql = (
        f"SELECT hostName(), {', '.join(columns)} FROM {contract.everywhere('mutations')}"
        f" WHERE database = '{database}' ORDER BY mutation_id"
    )
    found: dict[str, list[dict[str, str]]] = {name: [] for name in contract.hosts()}
    for host, *cells in contract.query(sql):
        found[host].append(dict(zip(columns, cells, strict=True)))
    return found


def all_done(contract: Contract, database: str) -> bool:
    """Whether every mutation is done on every host, and there is one."""
    listed = mutations(contract, database).values()
    return all(rows and all(row["is_done"] == "1" for row in rows) for rows in listed)


# Who answers


def test_every_entry_of_the_definition_is_one_host_that_answers(contract: Contract) -> None:
    listed = contract.query(f"SELECT shard_num, replica_num FROM system.clusters WHERE cluster = '{contract.cluster}'")
    assert [place[:2] for place in contract.places()] == sorted((int(shard), int(number)) for shard, number in listed)
    answering = [host for (host,) in contract.query(f"SELECT hostName() FROM {contract.everywhere('one')}")]
    assert len(set(answering)) == len(answering)
    assert sorted(answering) == sorted(contract.hosts())


def test_replicas_are_numbered_through_in_the_order_of_the_definition(contract: Contract) -> None:
    rows = contract.query(f"SELECT _shard_num AS place, hostName() AS host FROM {contract.everywhere('one')}")
    assert [host for _, host in sorted((int(place), host) for place, host in rows)] == contract.hosts()


def test_a_view_is_carried_out_on_each_host_and_says_zero(contract: Contract, database: str) -> None:
    assert rows_by_host(contract, database, "v = 77") == dict.fromkeys(contract.hosts(), 0)


def test_an_unknown_cluster_is_refused_with_701(contract: Contract) -> None:
    name = PREFIX + secrets.token_hex(4)
    for statement in (f"CREATE DATABASE {name} ON CLUSTER {name}", f"SELECT 1 FROM cluster('{name}', system.one)"):
        with pytest.raises(SandboxError, match=rf"Code: 701.*'?{name}'? not found"):
            contract.query(statement)


def test_codes_have_the_names_by_which_they_are_known(contract: Contract) -> None:
    asked = ", ".join(f"errorCodeToName({code})" for code in CODES)
    assert contract.query(f"SELECT {asked}") == [list(CODES.values())]


def test_a_statement_is_listed_while_it_runs(contract: Contract) -> None:
    mark = secrets.token_hex(8)
    [[seen]] = contract.query(
        f"SELECT count() FROM {contract.everywhere('processes')} WHERE position(query, '{mark}') > 0"
    )
    assert int(seen) >= 1


# ON CLUSTER


def test_on_cluster_answers_one_row_per_host(contract: Contract, database: str) -> None:
    rows = contract.query(f"ALTER TABLE {database}.t ON CLUSTER '{contract.cluster}' DELETE WHERE v = 7")
    assert len({row[0] for row in rows}) == len(rows) == len(contract.hosts())
    assert {row[2] for row in rows} == {"0"}
    assert [int(row[4]) for row in rows] == list(reversed(range(len(rows))))


def test_an_error_on_a_host_is_thrown_with_its_code(contract: Contract) -> None:
    statement = f"ALTER TABLE {PREFIX}none.t ON CLUSTER '{contract.cluster}' DELETE WHERE 1"
    for mode in ("throw", "null_status_on_timeout"):
        with pytest.raises(SandboxError, match=r"Code: 81\. DB::Exception: There was an error on \["):
            contract.query(statement, distributed_ddl_output_mode=mode)


def test_the_queue_keeps_what_was_done_on_every_host(contract: Contract, database: str) -> None:
    sql = (
        "SELECT host, toString(status), toUInt32(exception_code) FROM system.distributed_ddl_queue"
        f" WHERE cluster = '{contract.cluster}' AND position(query, 'DATABASE {database}') > 0"
    )
    listed = contract.query(sql)
    assert len({host for host, *_ in listed}) == len(contract.hosts())
    assert {(status, code) for _, status, code in listed} == {("Finished", "0")}


# DELETE


def test_a_delete_on_cluster_is_a_mutation_of_every_host_and_keeps_its_text(contract: Contract, database: str) -> None:
    mark = f"contract:{secrets.token_hex(4)}"
    contract.query(
        f"ALTER TABLE {database}.t ON CLUSTER '{contract.cluster}'"
        f" DELETE WHERE v = 1 AND toUInt32(id) < 40 AND '{mark}' != ''"
    )
    until(lambda: all_done(contract, database), "the mutation is done on every host")
    assert both_sides(contract, database) == 60
    for rows in mutations(contract, database).values():
        [row] = rows
        assert f"'{mark}'" in row["command"]
        assert (row["parts_to_do"], row["latest_fail_reason"]) == ("0", "")


def test_replicas_of_a_shard_name_a_mutation_alike(contract: Contract, database: str) -> None:
    contract.query(f"ALTER TABLE {database}.t DELETE WHERE 1 SETTINGS mutations_sync = 2")
    named = {host: rows for host, rows in mutations(contract, database).items() if rows}
    shard = {host: place for place, _, host in contract.places()}
    assert len({shard[host] for host in named}) == 1, "without ON CLUSTER one shard is reached"
    assert {host for host in shard if shard[host] in {shard[one] for one in named}} == set(named)
    assert len({row["mutation_id"] for [row] in named.values()}) == 1
    left = both_sides(contract, database)
    assert left is not None
    assert (left == 0) == (contract.shards() == 1)


def test_rows_that_come_after_a_delete_stay(contract: Contract, database: str) -> None:
    contract.query(f"ALTER TABLE {database}.t ON CLUSTER '{contract.cluster}' DELETE WHERE v = 1")
    insert(contract, database, rows=10)
    until(lambda: all_done(contract, database), "the mutation is done on every host")
    until(lambda: both_sides(contract, database) == 10, "the new rows are on every replica")


def test_a_delete_that_fails_says_why_and_can_be_killed(contract: Contract, database: str) -> None:
    on = f"ON CLUSTER '{contract.cluster}'"
    contract.query(f"ALTER TABLE {database}.t {on} DELETE WHERE throwIf(v = 1, 'held by the contract') = 0")

    def failing() -> bool:
        listed = mutations(contract, database).values()
        return all("held by the contract" in row["latest_fail_reason"] for rows in listed for row in rows)

    until(failing, "every host says why")
    assert {row["is_done"] for rows in mutations(contract, database).values() for row in rows} == {"0"}
    where = f"WHERE database = '{database}' AND table = 't' AND position(command, 'throwIf') > 0"
    contract.query(f"KILL MUTATION {on} {where} TEST")
    assert {row["is_done"] for rows in mutations(contract, database).values() for row in rows} == {"0"}
    contract.query(f"KILL MUTATION {on} {where}")
    until(
        lambda: all(row["is_done"] == "1" for rows in mutations(contract, database).values() for row in rows),
        "no unfinished mutation",
    )
    assert both_sides(contract, database) == 100


def test_a_partition_is_dropped_without_a_mutation(contract: Contract, database: str) -> None:
    contract.query(
        f"INSERT INTO {database}.t_d VALUES ('feb', '2026-02-03 00:00:00', 1)", distributed_foreground_insert=1
    )
    contract.query(f"ALTER TABLE {database}.t ON CLUSTER '{contract.cluster}' DROP PARTITION ID '202601'")
    until(lambda: both_sides(contract, database) == 1, "January is gone on every replica")
    assert contract.query(f"SELECT id FROM {database}.t_d FINAL") == [["feb"]]
    assert mutations(contract, database) == {host: [] for host in contract.hosts()}


def test_a_lightweight_delete_is_a_mutation_of_another_text(contract: Contract, database: str) -> None:
    contract.query(f"DELETE FROM {database}.t WHERE v = 1", lightweight_deletes_sync=2)
    commands = {row["command"] for rows in mutations(contract, database).values() for row in rows}
    assert len(commands) == 1
    assert "UPDATE _row_exists = 0" in commands.pop()


def test_a_distributed_table_bears_no_mutation(contract: Contract, database: str) -> None:
    with pytest.raises(SandboxError, match="Code: 48"):
        contract.query(f"ALTER TABLE {database}.t_d DELETE WHERE 1")


def test_a_predicate_that_cannot_be_read_is_refused_and_leaves_nothing(contract: Contract, database: str) -> None:
    with pytest.raises(SandboxError, match="Code: 47"):
        contract.query(f"ALTER TABLE {database}.t DELETE WHERE no_such_column = 1")
    assert mutations(contract, database) == {host: [] for host in contract.hosts()}


# Reading


def test_versions_of_a_row_count_once_with_final(contract: Contract, database: str) -> None:
    insert(contract, database, version=2)
    until(lambda: both_sides(contract, database, "v = 2") == 100, "the new versions are on every replica")
    assert contract.query(f"SELECT count(), min(v) FROM {database}.t_d FINAL") == [["100", "2"]]


def test_parts_are_listed_with_their_rows_on_every_host(contract: Contract, database: str) -> None:
    rows = contract.query(
        f"SELECT hostName() AS host, sum(rows), min(partition_id) FROM {contract.everywhere('parts')}"
        f" WHERE database = '{database}' AND table = 't' AND active GROUP BY host"
    )
    assert {host: int(count) for host, count, _ in rows} == rows_by_host(contract, database)
    assert {partition for *_, partition in rows} == {"202601"}


def test_replicated_tables_are_listed_as_writable(contract: Contract, database: str) -> None:
    rows = contract.query(
        f"SELECT hostName(), engine, is_readonly FROM {contract.everywhere('replicas')} WHERE database = '{database}'"
    )
    assert sorted(host for host, *_ in rows) == sorted(contract.hosts())
    assert {tuple(rest) for _, *rest in rows} == {("ReplicatedReplacingMergeTree", "0")}


def test_nothing_but_databases_of_the_contract_was_changed(contract: Contract) -> None:
    if contract.sandbox is None:
        pytest.skip("a real cluster keeps no such record; that this holds is seen on the stand-in")
    changes = [row["statement"] for node in contract.sandbox.nodes() for row in node.statements()]
    assert len(changes) > 10
    assert [text for text in changes if PREFIX not in text] == []
