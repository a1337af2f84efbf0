"""The statements run by ClickHouse's own engine: texts come out as they went in, and nothing else runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import date
from typing import Any

import pytest
from chdb.session import Session
from hypothesis import given, settings
from hypothesis import strategies as st

from include.scorecard_backfill import sql
from include.scorecard_backfill.sql import Names, Slice
from include.scorecard_backfill.sql import health as sql_health
from include.scorecard_backfill.sql.census import host_counts_statement

NAMES = Names("scorecard_time", "customer_id", "profile_id", "conversation_id")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NASTY = "a'`\"\\;\n\0 -- {x:String} $$ %s é日"
KEY = "0123456789abcdef"
TABLE = """
    (scorecard_id String, customer_id String, profile_id String, conversation_id String,
     scorecard_time DateTime64(3, 'Asia/Tokyo'), version UInt32 DEFAULT 1, scorecard_type String DEFAULT '')
    ENGINE = ReplacingMergeTree(version) PARTITION BY toYYYYMM(scorecard_time, 'UTC')
    ORDER BY (customer_id, profile_id, scorecard_id)
"""


def without_cluster(statement: str) -> str:
    """The statement with each `cluster('conversations', x)` and `clusterAllReplicas('conversations', x)` as x."""
    while found := re.search(r"cluster(?:AllReplicas)?\('conversations', ", statement):
        depth, end = 1, found.end()
        while depth:
            text = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|.", re.DOTALL).match(statement, end)
            assert text is not None
            depth += {"(": 1, ")": -1}.get(text[0], 0)
            end = text.end()
        statement = statement[: found.start()] + statement[found.end() : end - 1] + statement[end:]
    return statement


class Engine:
    """One engine in this process. It has no cluster: what goes around the table is taken off."""

    def __init__(self, session: Any) -> None:
        self._session = session

    @contextmanager
    def bent(self, settings: str, pinned: Mapping[str, str]) -> Iterator[None]:
        """A session of which a profile has set something, and then every pin that the engine knows, as a query does."""
        known = {row["name"] for row in self.rows("SELECT name FROM system.settings")}
        before = {row["name"]: row["value"] for row in self.rows("SELECT name, value FROM system.settings")}
        names = {part.split("=")[0].strip() for part in settings.split(",")} | (set(pinned) & known)
        self._session.query(f"SET {settings}")
        for name in set(pinned) & known:
            self._session.query(f"SET {name} = {sql.quote_string(pinned[name])}")
        try:
            yield
        finally:
            for name in names:
                self._session.query(f"SET {name} = {sql.quote_string(before[name])}")

    def rows(self, statement: str) -> list[dict[str, Any]]:
        local = without_cluster(statement).replace(" ON CLUSTER 'conversations'", "")
        assert "'conversations'" not in local
        answer = self._session.query(local, "JSONEachRow").bytes().decode()
        return [json.loads(line) for line in answer.splitlines()]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with closing(Session()) as session:
        yield Engine(session)


def insert(engine: Engine, table: str, rows: list[tuple[str, str, str, str]]) -> None:
    """Rows of (scorecard id, customer, profile, time)."""
    values = ", ".join(
        f"({', '.join(sql.quote_string(text) for text in (rowid, customer, profile, 'c-' + rowid, time))})"
        for rowid, customer, profile, time in rows
    )
    engine.rows(
        f"INSERT INTO {table} (scorecard_id, customer_id, profile_id, conversation_id, scorecard_time) VALUES {values}"
    )


@pytest.fixture
def database(engine: Engine, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of its own with an empty table `scorecard`."""
    name = f"db-{request.node.name[:40]}"
    quoted = sql.quote_identifier(name)
    engine.rows(f"CREATE DATABASE {quoted}")
    engine.rows(f"CREATE TABLE {quoted}.scorecard {TABLE}")
    yield name
    engine.rows(f"DROP DATABASE {quoted}")


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_texts_come_out_as_they_went_in(engine: Engine, texts: list[str]) -> None:
    (row,) = engine.rows(f"SELECT [{', '.join(f'hex({sql.quote_string(text)})' for text in texts)}] AS found")
    assert [bytes.fromhex(item).decode() for item in row["found"]] == texts


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20))
def test_names_come_out_as_they_went_in(engine: Engine, name: str) -> None:
    (row,) = engine.rows(f"SELECT 1 AS {sql.quote_identifier(name)}")
    assert list(row) == [name]


@settings(max_examples=25)
@given(TEXTS, st.integers(1, 99), st.integers(0, 9))
def test_the_marker_does_not_change_what_is_found(engine: Engine, customer: str, generation: int, chunk: int) -> None:
    quoted = sql.quote_string(customer)
    marker = f"{sql.marker_literal(KEY, generation, chunk)} != ''"
    (row,) = engine.rows(f"SELECT {quoted} = {quoted} AS bare, bare AND {marker} AS marked, {marker} AS alone")
    assert row == {"bare": 1, "marked": 1, "alone": 1}


def days(engine: Engine, part: Slice, condition: str = "") -> dict[str, int]:
    """Rows by day of the one host."""
    statement = host_counts_statement(cluster="conversations", parts=[("scorecard", part, condition)], names=NAMES)
    (row,) = engine.rows(statement)
    return {day: int(numbers[0]) for day, numbers in row["days"]}


def count(engine: Engine, part: Slice, condition: str = "") -> int:
    return sum(days(engine, part, condition).values())


def table_of(database: str) -> str:
    return sql.qualified(database, "scorecard")


EDGES = ["2025-12-31 23:59:59.999", "2026-01-01 00:00:00", "2026-01-31 23:59:59.999", "2026-02-01 00:00:00"]


def test_a_delete_takes_exactly_what_was_counted(engine: Engine, database: str) -> None:
    table = table_of(database)
    engine.rows(f"ALTER TABLE {table} MODIFY COLUMN scorecard_time DateTime64(3, 'UTC')")
    people = [(NASTY, "voice"), (NASTY, "chat"), ("acme", "voice")]
    rows = [(f"{who}{at}", customer, profile, time)
            for who, (customer, profile) in enumerate(people) for at, time in enumerate(EDGES)]  # fmt: skip
    insert(engine, table, rows)
    insert(engine, table, rows[1:2])  # the same row again: FINAL counts it once
    part = Slice(database, NASTY, "voice", date(2026, 1, 1), date(2026, 2, 1))
    assert count(engine, part) == 2
    statement = sql.delete_statement(
        cluster="conversations", table="scorecard", part=part, names=NAMES, key=KEY, generation=10, chunk=2
    )
    engine.rows(f"{statement} SETTINGS mutations_sync = 2")
    assert count(engine, part) == 0
    left = engine.rows(f"SELECT DISTINCT scorecard_id FROM {table} ORDER BY scorecard_id")
    assert [row["scorecard_id"] for row in left] == ["00", "03", *(f"{who}{at}" for who in (1, 2) for at in range(4))]
    (mutation,) = engine.rows(f"SELECT command FROM system.mutations WHERE database = {sql.quote_string(database)}")
    assert sql.parse_marker(mutation["command"]) == (KEY, 10, 2)


@pytest.mark.parametrize(("asked", "killed"), [(1, ["1", "1.2"]), (10, ["10", "10.1"]), (2, [])])
def test_kill_finds_one_generation_and_its_chunks(engine: Engine, asked: int, killed: list[str]) -> None:
    statement = sql.kill_mutation_statement(
        cluster="conversations", database="db", table="t", key=KEY, generation=asked, test=False
    )
    condition = statement.partition(" WHERE ")[2]
    commands = [f"(DELETE WHERE ('backfill:{key}:{tail}' != ''))"
                for key in (KEY, "f" * 16) for tail in ("1", "1.2", "10", "10.1", "21")]  # fmt: skip
    values = ", ".join(f"('db', 't', {sql.quote_string(command)})" for command in commands)
    found = engine.rows(
        f"SELECT command FROM values('database String, table String, command String', {values}) WHERE {condition}"
    )
    assert [row["command"] for row in found] == [f"(DELETE WHERE ('backfill:{KEY}:{tail}' != ''))" for tail in killed]


def test_days_are_utc_days_in_a_column_of_another_zone(engine: Engine, database: str) -> None:
    table = table_of(database)
    values = ", ".join(
        f"('{n}', 'acme', 'voice', 'c', fromUnixTimestamp64Milli({ms}, 'Asia/Tokyo'))"
        for n, ms in enumerate((1767225599999, 1767225600000, 1769903999999, 1769904000000))
    )
    engine.rows(
        f"INSERT INTO {table} (scorecard_id, customer_id, profile_id, conversation_id, scorecard_time) VALUES {values}"
    )
    part = Slice(database, "acme", "voice", date(2026, 1, 1), date(2026, 2, 1))
    assert days(engine, part) == {"2026-01-01": 1, "2026-01-31": 1}


def test_pairs_and_volumes_take_the_named_databases_and_no_other(engine: Engine) -> None:
    databases = ["p_acme", "p.acme", "p-acme|x", "pxacme", "p_acme2"]
    try:
        for database in databases:
            engine.rows(f"CREATE DATABASE {sql.quote_identifier(database)}")
            for table in ("scorecard", "scorecard_d"):
                engine.rows(f"CREATE TABLE {sql.qualified(database, table)} {TABLE}")
                insert(engine, sql.qualified(database, table), [("1", NASTY, database, "2026-01-10 12:00:00")])
        wanted = databases[:3]
        pairs = engine.rows(
            sql.pairs_statement(cluster="conversations", databases=wanted, table="scorecard", names=NAMES)
        )
        assert sorted((row["database"], row["profile_id"]) for row in pairs) == sorted((d, d) for d in wanted)
        assert {row["customer_id"] for row in pairs} == {NASTY}
        statement = sql.volumes_statement(
            cluster="conversations",
            databases=wanted,
            tables=["scorecard"],
            names=NAMES,
            start=date(2026, 1, 10),
            end=date(2026, 1, 11),
        )
        found = engine.rows(statement)
        assert sorted(row["database"] for row in found) == sorted(wanted)
        assert {(row["table"], row["day"], int(row["rows"])) for row in found} == {("scorecard", "2026-01-10", 1)}
    finally:
        for database in databases:
            engine.rows(f"DROP DATABASE IF EXISTS {sql.quote_identifier(database)}")


def test_a_partition_with_a_row_of_someone_else_is_seen(engine: Engine, database: str) -> None:
    table = table_of(database)
    rows = [("1", NASTY, "voice", "2026-01-10 12:00:00"), ("2", NASTY, "voice", "2026-02-10 12:00:00"),
            ("3", "acme", "voice", "2026-02-11 12:00:00")]  # fmt: skip
    insert(engine, table, rows)
    part = Slice(database, NASTY, "voice", date(2026, 1, 1), date(2026, 3, 1))
    statement = sql_health.partition_statement(
        cluster="conversations",
        database=database,
        table="scorecard",
        partition_ids=["202601", "202602"],
        parts=[part],
        names=NAMES,
    )
    (row,) = engine.rows(statement)
    assert sorted((name, int(held), int(foreign)) for name, held, foreign in row["partitions"]) == [
        ("202601", 1, 0), ("202602", 2, 1),
    ]  # fmt: skip
    drop = sql.drop_partition_statement(
        cluster="conversations", database=database, table="scorecard", partition_id="202601"
    )
    engine.rows(drop)
    assert [row["scorecard_id"] for row in engine.rows(f"SELECT scorecard_id FROM {table} ORDER BY 1")] == ["2", "3"]


def test_rows_of_the_window_in_a_partition_of_another_zone_are_seen(engine: Engine, database: str) -> None:
    table = table_of(database)
    engine.rows(f"DROP TABLE {table}")
    tokyo = TABLE.replace("toYYYYMM(scorecard_time, 'UTC')", "toYYYYMM(scorecard_time)")
    assert tokyo != TABLE
    engine.rows(f"CREATE TABLE {table} {tokyo}")
    for number, moment in enumerate(("2026-01-10 12:00:00", "2026-01-31 20:00:00")):
        engine.rows(
            f"INSERT INTO {table} (scorecard_id, customer_id, profile_id, conversation_id, scorecard_time)"
            f" SELECT '{number}', 'acme', 'voice', 'c', toDateTime64('{moment}', 3, 'UTC')"
        )
    part = Slice(database, "acme", "voice", date(2026, 1, 1), date(2026, 2, 1))
    names = {"cluster": "conversations", "database": database, "table": "scorecard"}
    statement = sql_health.partition_statement(**names, partition_ids=["202601"], parts=[part], names=NAMES)
    (row,) = engine.rows(statement)
    assert sorted((name, int(held), int(foreign)) for name, held, foreign in row["partitions"]) == [
        ("202601", 1, 0), ("202602", 1, 0),
    ]  # fmt: skip
