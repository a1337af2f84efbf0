"""Statements about a server's own state, run by ClickHouse's engine over system tables that a test has filled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from include.scorecard_backfill import sql
from include.scorecard_backfill.sql import Slice
from include.scorecard_backfill.sql import health as sql_health
from include.scorecard_backfill.sql import snapshots as sql_snapshots
from include.scorecard_backfill.sql.census import IdsOf, Value
from include.scorecard_backfill.sql.rights import row_policies_statement, shown_statement
from include.scorecard_backfill.sql.spool import flush_statement, spooled_statement
from tests.unit.test_sql_engine import KEY, NAMES, NASTY, Engine, database, engine, insert, table_of

__all__ = ["database", "engine"]

CLUSTER = "conversations"
HERE = "concat('conversation', 's')"
"""The cluster's name where it is a value: as a literal the engine takes it for an argument of cluster()."""

OTHER_KEY = "f" * 16


class Server:
    """A server whose system tables are the test's own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        (row,) = engine.rows("SELECT hostName() AS host, currentUser() AS user")
        self.host, self.user = row["host"], row["user"]

    def has(self, table: str, structure: str, *rows: str) -> None:
        """Fill a system table; a row is the text of its values."""
        self._engine.rows(f"DROP TABLE IF EXISTS fake.{table}")
        self._engine.rows(f"CREATE TABLE fake.{table} ({structure}) ENGINE = Memory")
        for row in rows:
            self._engine.rows(f"INSERT INTO fake.{table} VALUES ({row})")

    def answers(self, statement: str) -> list[dict[str, Any]]:
        """Rows, without the host's name where it is this one's."""
        found = self._engine.rows(statement.replace("system.", "fake.").replace(f"= '{CLUSTER}'", f"= {HERE}"))
        return [{k: v for k, v in row.items() if (k, v) != ("host", self.host)} for row in found]


@pytest.fixture
def server(engine: Engine) -> Iterator[Server]:
    engine.rows("CREATE DATABASE fake")
    yield Server(engine)
    engine.rows("DROP DATABASE fake")


MUTATIONS = (
    "database String, table String, mutation_id String, command String, create_time DateTime('UTC'), is_done UInt8,"
    " parts_to_do Int64, latest_fail_reason String"
)


def mutation(number: int, command: str, done: int, more: str = "") -> str:
    return f"'db', 't{number}', 'm{number}', {sql.quote_string(command)}, toDateTime(100), {done}, 3, 'why'{more}"


OURS, THEIRS = f"DELETE WHERE 'backfill:{KEY}:1' != ''", "DELETE WHERE 1"


def test_mutations_are_the_unfinished_of_all_and_all_of_ours(server: Server) -> None:
    clusters = ("cluster String, host_name String", f"{HERE}, 'a'", f"{HERE}, 'b'", "'other', 'c'")
    server.has("clusters", *clusters)
    rows = [(1, OURS, 1), (2, OURS, 0), (3, THEIRS, 1), (4, THEIRS, 0)]
    server.has("mutations", MUTATIONS, *(mutation(*row) for row in rows))
    (found,) = server.answers(sql.mutations_statement(CLUSTER))
    assert int(found["expected"]) == 2
    assert sorted([name, *map(str, rest)] for _, name, *rest in found["listed"]) == [
        ["t1", "m1", OURS, "100", "1", "3", "why", "[]"],
        ["t2", "m2", OURS, "100", "0", "3", "why", "[]"],
        ["t4", "m4", THEIRS, "100", "0", "3", "why", "[]"],
    ]
    server.has("mutations", f"{MUTATIONS}, is_killed UInt8", mutation(1, OURS, 1, ", 1"))
    (found,) = server.answers(sql.mutations_statement(CLUSTER))
    assert [row[-1] for row in found["listed"]] == [[1]]
    # A host without any answers, too.
    server.has("mutations", MUTATIONS)
    assert [row["listed"] for row in server.answers(sql.mutations_statement(CLUSTER))] == [[]]


def test_a_person_asks_about_one_windows_mutations(server: Server) -> None:
    other = f"DELETE WHERE 'backfill:{OTHER_KEY}:1' != ''"
    rows = [(2, OURS, 0), (1, OURS, 1), (3, other, 0), (4, THEIRS, 0)]
    server.has("mutations", MUTATIONS, *(mutation(*row) for row in rows))
    found = server.answers(sql.window_mutations_statement(CLUSTER, KEY))
    assert found == [
        {"database": "db", "table": f"t{n}", "mutation_id": f"m{n}", "create_time": "1970-01-01 00:01:40",
         "is_done": done, "parts_to_do": found[0]["parts_to_do"], "latest_fail_reason": "why", "command": OURS}
        for n, done in ((1, 1), (2, 0))
    ]  # fmt: skip


def test_the_hosts_of_a_cluster_and_the_entries_that_a_node_takes_for_itself(server: Server) -> None:
    server.has(
        "clusters", "cluster String, shard_num UInt32, replica_num UInt32, host_name String, is_local UInt8",
        f"{HERE}, 2, 1, 'c', 1", f"{HERE}, 1, 2, 'b', 0",
        f"{HERE}, 1, 1, 'a', 1", "'other', 1, 1, 'x', 1",
    )  # fmt: skip
    assert server.answers(sql.topology_statement(CLUSTER)) == [
        {"shard": 1, "replica": 1, "host": "a"}, {"shard": 1, "replica": 2, "host": "b"},
        {"shard": 2, "replica": 1, "host": "c"},
    ]  # fmt: skip
    (found,) = server.answers(sql.answering_hosts_statement(CLUSTER))
    assert sorted(found["own"]) == [[1, 1], [2, 1]]
    assert sql.places_statement("it's") == (
        r"SELECT _shard_num AS place, hostName() AS host FROM clusterAllReplicas('it\'s', system.one)"
    )


def test_tables_and_columns_of_interest_are_not_the_servers_own(server: Server) -> None:
    structure = "database String, name String, engine String, partition_key String, engine_full String, comment String"
    own = ("system", "INFORMATION_SCHEMA", "information_schema")
    server.has(
        "tables", structure,
        "'acme', 'scorecard', 'MergeTree', 'toYYYYMM(t)', 'MergeTree ORDER BY a', ''",
        "'acme', 'other', 'E', '', '', ''",
        *(f"'{name}', 'scorecard', 'E', '', '', ''" for name in own),
    )  # fmt: skip
    assert server.answers(sql.tables_statement(CLUSTER, ["scorecard", "score"])) == [
        {"database": "acme", "table": "scorecard", "engine": "MergeTree", "partition_key": "toYYYYMM(t)",
         "engine_full": "MergeTree ORDER BY a"}
    ]  # fmt: skip
    columns = [("acme", "score", "id", "String"), ("acme", "score", "at", "DateTime"), ("acme", "score", "z", "Int8"),
               ("acme", "other", "id", "String"), ("globex", "score", "id", "UInt8"),
               *((name, "score", "id", "String") for name in own)]  # fmt: skip
    server.has(
        "columns", "database String, table String, name String, type String, default_kind String",
        *(", ".join(f"'{item}'" for item in (*row, "ALIAS")) for row in columns),
    )  # fmt: skip
    found = server.answers(sql.columns_statement(CLUSTER, ["score", "scorecard"], ["id", "at"]))
    assert sorted((row["database"], row["table"], sorted(row["columns"])) for row in found) == [
        ("acme", "score", [["at", "DateTime"], ["id", "String"]]), ("globex", "score", [["id", "UInt8"]]),
    ]  # fmt: skip
    found = server.answers(
        sql_snapshots.columns_statement(cluster=CLUSTER, database="acme", tables=["score", "none", "other"])
    )
    assert sorted((row["table"], sorted(row["columns"])) for row in found) == [
        ("other", [["id", "String", "ALIAS"]]),
        ("score", [["at", "DateTime", "ALIAS"], ["id", "String", "ALIAS"], ["z", "Int8", "ALIAS"]]),
    ]


def test_an_entry_of_the_ddl_queue_is_found_by_all_of_its_needles(server: Server) -> None:
    needles = sql.drop_partition_needles("acme_voice", "score", "2026'01")
    drop = r"ALTER TABLE acme_voice.`score` ON CLUSTER x DROP PARTITION ID \'2026\\\'01\'"
    other = r"ALTER TABLE globex.`score` ON CLUSTER x DROP PARTITION ID \'2026\\\'01\'"
    earlier = r"ALTER TABLE acme_voice.`score` ON CLUSTER x DROP PARTITION ID \'202512\'"
    entries = [
        ("a", "Inactive", drop),
        ("b", "Finished", drop),
        ("c", "Removing", drop),
        ("d", "Active", other),
        ("e", "Active", earlier),
        ("f", "Active", "ALTER TABLE acme_voice.score DELETE WHERE 1"),
        # Names that begin or end like these.
        ("g", "Active", drop.replace("`score`", "scorecard")),
        ("h", "Active", drop.replace("acme", "my_acme")),
    ]
    server.has(
        "distributed_ddl_queue", "cluster String, host String, status String, query String",
        *(f"{HERE}, '{host}', '{status}', '{query}'" for host, status, query in entries),
        f"'elsewhere', 'z', 'Active', '{drop}'",
    )  # fmt: skip

    def hosts(statement: str) -> list[tuple[str, str]]:
        return sorted((row["host"], row["status"]) for row in server.answers(statement))

    assert hosts(sql.ddl_queue_statement(CLUSTER, *needles)) == [("a", "Inactive")]
    assert hosts(sql.ddl_trace_statement(CLUSTER, *needles)) == [
        ("a", "Inactive"), ("b", "Finished"), ("c", "Removing"),
    ]  # fmt: skip
    assert hosts(sql.ddl_queue_statement(CLUSTER, *sql.any_drop_needles("acme_voice", "score"))) == [
        ("a", "Inactive"), ("e", "Active"),
    ]  # fmt: skip
    assert len(hosts(sql.ddl_trace_statement(CLUSTER))) == 8
    # A name that a server may write in several ways: by its parts.
    assert sql.any_drop_needles("acme voice", "score") == ("acme voice", "score", "DROP PARTITION ID ")


def test_a_delete_is_found_by_its_table_and_its_marker_however_the_names_are_written(server: Server) -> None:
    mark, window = r"\'backfill:0123456789abcdef:1\'", "0123456789abcdef"
    entries = {
        "as it is sent": f"ALTER TABLE `acme_voice`.`scorecard` ON CLUSTER x DELETE WHERE {mark} != 0",
        "as the server writes it": f"ALTER TABLE acme_voice.scorecard ON CLUSTER x (DELETE WHERE {mark} != 0)",
        "in lines": rf"ALTER TABLE acme_voice.scorecard\n    (DELETE WHERE {mark} != 0)",
        "on a node": f"/* ddl_entry=query-01 */ ALTER TABLE acme_voice.scorecard DELETE WHERE {mark} != 0",
        "another table": f"ALTER TABLE acme_voice.score ON CLUSTER x DELETE WHERE scorecard_time > 1 AND {mark} != 0",
        "another database": f"ALTER TABLE x_acme_voice.scorecard ON CLUSTER x DELETE WHERE {mark} != 0",
        "another window": f"ALTER TABLE acme_voice.scorecard DELETE WHERE {mark.replace('0123', 'ffff')} != 0",
        "a day of it": f"ALTER TABLE acme_voice.scorecard DELETE WHERE {mark.replace(':1', ':1.2')} != 0",
    }
    server.has(
        "distributed_ddl_queue", "cluster String, host String, status String, query String",
        *(f"{HERE}, '{name}', 'Finished', '{query}'" for name, query in entries.items()),
    )  # fmt: skip

    def found(*needles: str) -> set[str]:
        return {row["host"] for row in server.answers(sql.ddl_trace_statement(CLUSTER, *needles))}

    mine = {"as it is sent", "as the server writes it", "in lines", "on a node"}
    assert found(*sql.delete_needles("acme_voice", "scorecard", window, 1)) == mine
    assert found(*sql.delete_needles("acme_voice", "scorecard", window, 1, 2)) == {"a day of it"}
    # scorecard begins like it.
    assert found(*sql.delete_needles("acme_voice", "score", window, 1)) == {"another table"}
    # A name that a server may write in several ways: by the marker alone.
    assert sql.delete_needles("acme voice", "score", window, 1) == (f"'backfill:{window}:1'",)


def test_a_statement_that_is_being_executed_is_found_and_the_question_itself_is_not(server: Server) -> None:
    server.has(
        "processes", "query String", "'ALTER TABLE x DELETE WHERE backfill:1'", "'ALTER TABLE x DROP PARTITION 1'",
        "'SELECT position(query, backfill:1) FROM system.processes ALTER TABLE x'",
    )  # fmt: skip
    assert len(server.answers(sql.running_statement(CLUSTER, "backfill:1"))) == 1
    assert len(server.answers(sql.running_statement(CLUSTER, "ALTER TABLE x", "backfill:1"))) == 1
    assert len(server.answers(sql.running_statement(CLUSTER, "ALTER TABLE x"))) == 1  # one host, whatever it runs
    assert server.answers(sql.running_statement(CLUSTER, "ALTER TABLE x", "backfill:2")) == []


def test_read_only_replicas_and_databases_that_refuse_on_cluster(server: Server) -> None:
    server.has("replicas", "is_readonly UInt8", "1", "0", "1")
    assert [int(row["tables"]) for row in server.answers(sql.replicas_statement(CLUSTER))] == [2]
    server.has("databases", "name String, engine String", "'a', 'Replicated'", "'b', 'Atomic'")
    assert server.answers(sql_health.replicated_databases_statement(CLUSTER)) == [{"database": "a"}]


def test_the_load_of_a_host_is_one_row_for_each_measure(server: Server) -> None:
    server.has("one", "dummy UInt8", "0")
    server.has("mutations", "is_done UInt8", "0", "0", "1")
    parts = [("a", "t", "1", 1), ("a", "t", "1", 1), ("a", "t", "1", 0), ("a", "t", "2", 1), ("b", "t", "1", 1),
             ("a", "u", "1", 1)]  # fmt: skip
    server.has(
        "parts", "database String, table String, partition_id String, active UInt8",
        *(f"'{d}', '{t}', '{p}', {active}" for d, t, p, active in parts),
    )  # fmt: skip
    server.has("replication_queue", "n UInt8", "1", "2", "3")
    server.has("disks", "free_space UInt64, type String", "700, 'Local'", "500, 'Local'", "1, 'ObjectStorage'")
    found = server.answers(sql_health.health_statement(CLUSTER))
    assert {row["measure"]: int(row["value"]) for row in found} == {
        "answers": 1, "unfinished_mutations": 2, "active_parts": 2, "replication_queue": 3, "free_disk_bytes": 500,
    }  # fmt: skip
    assert len(found) == 5
    for table in ("mutations", "parts", "replication_queue"):
        server._engine.rows(f"TRUNCATE TABLE fake.{table}")
    assert {row["measure"] for row in server.answers(sql_health.health_statement(CLUSTER))} == {
        "answers", "free_disk_bytes",
    }  # fmt: skip


def test_the_size_of_partitions_is_that_of_their_active_parts(server: Server) -> None:
    rows = [("a", "t", "1", 1, 5), ("a", "t", "1", 1, 6), ("a", "t", "1", 0, 99), ("a", "t", "2", 1, 7),
            ("a", "u", "1", 1, 99), ("b", "t", "1", 1, 99)]  # fmt: skip
    server.has(
        "parts", "database String, table String, partition_id String, active UInt8, bytes_on_disk UInt64",
        *(f"'{d}', '{t}', '{p}', {active}, {size}" for d, t, p, active, size in rows),
    )  # fmt: skip
    found = server.answers(sql_health.partition_sizes_statement(cluster=CLUSTER, database="a", table="t"))
    assert sorted((row["partition_id"], int(row["bytes"])) for row in found) == [("1", 11), ("2", 7)]


def test_the_clock_of_a_host_is_in_milliseconds(engine: Engine) -> None:
    (row,) = engine.rows(sql_health.clocks_statement(CLUSTER))
    assert abs(int(row["now"]) / 1_000 - time.time()) < 60
    assert row["host"]


def test_a_policy_hides_rows_when_it_is_for_us(server: Server) -> None:
    me, other = sql.quote_string(server.user), "'somebody'"
    rows = [
        ("acme", "score", "all", 1, "[]", "[]"), ("acme", "score", "all_but_us", 1, "[]", f"[{me}]"),
        ("acme", "score", "all_but_others", 1, "[]", f"[{other}]"), ("acme", "score", "us", 0, f"[{me}]", "[]"),
        ("acme", "score", "others", 0, f"[{other}]", "[]"), ("acme", "", "database", 1, "[]", "[]"),
        ("acme", "unrelated", "x", 1, "[]", "[]"),
    ]  # fmt: skip
    server.has(
        "row_policies",
        "database String, table String, short_name String, apply_to_all UInt8, apply_to_list Array(String),"
        " apply_to_except Array(String)",
        *(f"'{d}', '{t}', '{n}', {everybody}, {named}, {but}" for d, t, n, everybody, named, but in rows),
    )
    (found,) = server.answers(row_policies_statement(CLUSTER, ["score", "scorecard"]))
    assert {(d, t, name): int(ours) for d, t, name, ours in found["policies"]} == {
        ("acme", "score", "all"): 1, ("acme", "score", "all_but_us"): 0, ("acme", "score", "all_but_others"): 1,
        ("acme", "score", "us"): 1, ("acme", "score", "others"): 0, ("acme", "", "database"): 1,
    }  # fmt: skip


def test_the_rows_that_we_see_stand_beside_those_that_are_held(server: Server, engine: Engine, database: str) -> None:
    insert(engine, table_of(database), [(str(n), "acme", "voice", "2026-01-01 12:00:00") for n in range(3)])
    structure = "database String, table String, active UInt8, rows UInt64"
    server.has(
        "parts", structure,
        *(f"{sql.quote_string(d)}, '{t}', {active}, {n}"
          for d, t, active, n in [(database, "scorecard", 1, 4), (database, "scorecard", 1, 1),
                                  (database, "scorecard", 0, 100), (database, "score", 1, 100),
                                  ("other", "scorecard", 1, 100)]),
    )  # fmt: skip
    statement = shown_statement(CLUSTER, database, "scorecard")
    (found,) = server.answers(statement)
    assert (int(found["shown"]), int(found["held"])) == (3, 5)
    server.has("parts", structure)
    (found,) = server.answers(statement)
    assert (int(found["shown"]), int(found["held"])) == (3, 0)


def test_rows_that_wait_are_found_wherever_their_queue_is(server: Server) -> None:
    full = "Distributed(\\'c\\', \\'{}\\', \\'score\\')"
    server.has(
        "tables", "database String, name String, engine String, engine_full String",
        f"'front', 'score_d', 'Distributed', '{full.format('acme')}'",
        f"'front', 'other_d', 'Distributed', '{full.format('acme2')}'",
        f"'front', 'buffered', 'Buffer', '{full.format('acme')}'", f"'front', 'b2', 'Buffer', '{full.format('x')}'",
        f"'front', 'log', 'MergeTree', '{full.format('acme')}'",
    )  # fmt: skip
    server.has(
        "distribution_queue",
        "database String, table String, data_files UInt64, is_blocked UInt8, last_exception String",
        "'acme', 'inside_d', 2, 0, ''", "'front', 'score_d', 3, 1, 'broken pipe'", "'front', 'other_d', 9, 0, ''",
        "'acme', 'empty_d', 0, 0, ''", "'front', 'log', 9, 0, ''",
    )  # fmt: skip
    server.has(
        "asynchronous_inserts", "database String, table String, first_update DateTime64(6)",
        "'acme', 'score', now64(6) - 40", "'elsewhere', 'score', now64(6)", "'front', 'score_d', now64(6) + 100",
    )  # fmt: skip
    (found,) = server.answers(spooled_statement(CLUSTER, ["acme", "globex"]))
    rows = sorted(
        (kind, d, t, int(amount), int(blocked), text) for kind, d, t, amount, blocked, text in found["waiting"]
    )
    assert [row for row in rows if row[0] != "asynchronous"] == [
        ("buffer", "front", "buffered", 0, 0, ""),
        ("distributed", "acme", "inside_d", 2, 0, ""),
        ("distributed", "front", "score_d", 3, 1, "broken pipe"),
    ]
    (queued, future) = [row for row in rows if row[0] == "asynchronous"]
    assert (queued[1:3], queued[4:], queued[3] in range(40, 100)) == (("acme", "score"), (0, ""), True)
    assert future == ("asynchronous", "front", "score_d", 0, 0, "")


def test_each_queue_is_flushed_by_its_own_statement() -> None:
    at = {"cluster": "it's", "database": "a`b", "table": "t"}
    assert flush_statement(kind="asynchronous", **at) == r"SYSTEM FLUSH ASYNC INSERT QUEUE ON CLUSTER 'it\'s'"
    assert flush_statement(kind="buffer", **at) == r"OPTIMIZE TABLE `a\`b`.`t` ON CLUSTER 'it\'s'"
    assert flush_statement(kind="distributed", **at) == r"SYSTEM FLUSH DISTRIBUTED `a\`b`.`t` ON CLUSTER 'it\'s'"


# -- snapshots ------------------------------------------------------------------------------------------------------


def test_side_tables_are_those_of_our_name(server: Server) -> None:
    mine = sql_snapshots.snapshot_table("score", KEY)
    assert mine == f"backfill_snapshot__score__{KEY}"
    server.has(
        "tables", "database String, name String, comment String",
        f"'acme', '{mine}', 'until 2026-03-01'", "'acme', 'score', ''", "'acme', 'x_backfill_snapshot__score', ''",
    )  # fmt: skip
    assert server.answers(sql_snapshots.snapshots_statement(CLUSTER)) == [
        {"database": "acme", "name": mine, "comment": "until 2026-03-01"}
    ]


@pytest.mark.parametrize(
    ("comment", "gone"),
    [("until 2026-02-28", True), ("until 2026-03-01", True), ("until 2026-03-02", False), ("until soon", False),
     ("2026-02-28", False), ("", False), ("kept until 2026-02-28", False)],
)  # fmt: skip
def test_a_side_table_may_be_removed_from_the_day_in_its_comment_on(comment: str, gone: bool) -> None:
    assert sql_snapshots.expired(comment, date(2026, 3, 1)) is gone


def test_only_a_side_table_is_dropped() -> None:
    mine = sql_snapshots.snapshot_table("score", KEY)
    assert sql_snapshots.drop_snapshot_statement(cluster="it's", database="a`b", snapshot=mine) == (
        rf"DROP TABLE IF EXISTS `a\`b`.`{mine}` ON CLUSTER 'it\'s' SYNC"
    )
    said = r"^'score' is not a snapshot \(it does not start with backfill_snapshot__\); it is not dropped$"
    with pytest.raises(ValueError, match=said):
        sql_snapshots.drop_snapshot_statement(cluster="c", database="d", snapshot="score")


def test_what_is_missing_since_a_snapshot_is_counted_by_whether_it_was_meant_to_go(
    engine: Engine, database: str
) -> None:
    part = Slice(database, NASTY, "voice", date(2026, 1, 1), date(2026, 2, 1))
    card, score = table_of(database), sql.qualified(database, "score")
    rows = [(f"c{n}", NASTY, "voice", f"2026-01-{10 + n} 12:00:00") for n in range(8)]
    insert(engine, card, [*rows, ("late", NASTY, "voice", "2026-02-01 12:00:00"),
                          ("chat", NASTY, "chat", "2026-01-10 12:00:00")])  # fmt: skip
    engine.rows(f"ALTER TABLE {card} UPDATE scorecard_type = 'appeal' WHERE scorecard_id IN ('c0', 'c1')"
                " SETTINGS mutations_sync = 2")  # fmt: skip
    engine.rows(
        f"CREATE TABLE {score} (score_id String, scorecard_id String, customer_id String, profile_id String,"
        " conversation_id String, scorecard_time DateTime64(3, 'UTC')) ENGINE = ReplacingMergeTree ORDER BY score_id"
    )
    engine.rows(
        f"INSERT INTO {score} SELECT concat('s', scorecard_id), scorecard_id, customer_id, profile_id, conversation_id,"
        f" scorecard_time FROM {card}"
    )
    for table in ("scorecard", "score"):
        engine.rows(
            sql_snapshots.create_snapshot_statement(
                cluster=CLUSTER, table=table, part=part, names=NAMES, key=KEY, until=date(2026, 3, 1)
            )
        )
        side = sql_snapshots.snapshot_table(table, KEY)
        (counted,) = engine.rows(
            sql_snapshots.count_snapshot_statement(cluster=CLUSTER, database=database, snapshot=side)
        )
        assert int(counted["rows"]) == 8
        assert counted["host"]
        (made,) = engine.rows(
            f"SELECT comment FROM system.tables WHERE name = '{side}' AND database = {sql.quote_string(database)}"
        )
        assert made["comment"] == "until 2026-03-01"
    # c7 has moved to another day outside of the window: it is there. A row of another profile is not it.
    engine.rows(f"TRUNCATE TABLE {card}")
    engine.rows(f"TRUNCATE TABLE {score}")
    insert(engine, card, [("c3", NASTY, "voice", rows[3][3]), ("c7", NASTY, "voice", "2026-05-01 12:00:00"),
                          ("c4", NASTY, "chat", rows[4][3])])  # fmt: skip
    engine.rows(
        f"INSERT INTO {score} SELECT concat('s', scorecard_id), scorecard_id, customer_id, profile_id, conversation_id,"
        f" scorecard_time FROM {card}"
    )
    appeal = Value("scorecard_type", "appeal")
    copies = {
        "scorecard": (sql_snapshots.Copy("scorecard", part, KEY, "scorecard_id", appeal), "c"),
        "score": (
            sql_snapshots.Copy(
                "score", part, KEY, "score_id", IdsOf("scorecard_id", "scorecard", "scorecard_id", appeal)
            ),
            "sc",
        ),
    }
    for copy, prefix in copies.values():
        (found,) = engine.rows(sql_snapshots.missing_statement(cluster=CLUSTER, names=NAMES, copy=copy))
        assert (int(found["meant"]), int(found["missing"])) == (2, 4)
        assert sorted(found["ids"]) == [f"{prefix}{n}" for n in (2, 4, 5, 6)]
    bare = sql_snapshots.Copy("scorecard", part, KEY, "scorecard_id")
    (found,) = engine.rows(sql_snapshots.missing_statement(cluster=CLUSTER, names=NAMES, copy=bare))
    assert (int(found["meant"]), int(found["missing"]), len(found["ids"])) == (0, 6, 6)
    columns = ["scorecard_id", "customer_id", "profile_id", "conversation_id", "scorecard_time"]
    for meant, expected in ((False, ["c2", "c3", "c4", "c5", "c6", "c7"]), (True, [f"c{n}" for n in range(8)])):
        engine.rows(
            sql_snapshots.restore_statement(
                cluster=CLUSTER,
                distributed="scorecard",
                columns=columns,
                names=NAMES,
                copy=copies["scorecard"][0],
                meant=meant,
            )
        )
        there = engine.rows(f"SELECT scorecard_id FROM {card} WHERE profile_id = 'voice' ORDER BY 1")
        assert [row["scorecard_id"] for row in there] == expected
