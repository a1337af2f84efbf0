"""Statements taken apart: ON CLUSTER, FORMAT, SETTINGS, tables, and the data behind an INSERT."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.statements import insert_head, is_insert, parse, parse_insert, without_effect


@pytest.mark.parametrize("name", ["'c 1'", "`c 1`", '"c 1"'])
def test_on_cluster_is_cut_out(name: str) -> None:
    found = parse(f"ALTER TABLE `d`.`t` ON CLUSTER {name} DELETE WHERE a = 'ON CLUSTER x' SETTINGS s = 1 FORMAT TSV;")
    assert found.cluster == "c 1"
    assert found.text == "ALTER TABLE `d`.`t` DELETE WHERE a = 'ON CLUSTER x'"
    assert found.table == ("d", "t")
    assert found.settings == {"s": "1"}
    assert found.format == "TSV"


def test_settings_of_a_subquery_stay_where_they_are() -> None:
    sql = "ALTER TABLE t DELETE WHERE a IN (SELECT b FROM c SETTINGS x = 1)"
    found = parse(f"{sql} /* mine */ SETTINGS y = 'z'")
    assert (found.text, found.settings) == (sql, {"y": "z"})
    assert (parse(sql).text, parse(sql).settings) == (sql, {})


def test_select_keeps_all_but_its_format() -> None:
    found = parse("SELECT format, 1 AS settings FROM t SETTINGS a = 1\n FORMAT Native")
    assert (found.format, found.text) == ("Native", "SELECT format, 1 AS settings FROM t SETTINGS a = 1")
    assert found.is_query


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("ALTER TABLE t DELETE WHERE 1", True),
        ("ALTER TABLE t UPDATE a = 1 WHERE 1", True),
        ("ALTER TABLE t MODIFY COLUMN a Int8", True),
        ("DELETE FROM d.t WHERE 1", True),
        ("ALTER TABLE t DROP PARTITION ID '1'", False),
        ("ALTER TABLE t MODIFY SETTING a = 1", False),
        ("ALTER TABLE t ADD COLUMN a Int8", False),
        ("TRUNCATE TABLE t", False),
    ],
)
def test_mutations(sql: str, expected: bool) -> None:
    found = parse(sql)
    assert found.is_mutation is expected
    assert found.table[1] == "t"


@pytest.mark.parametrize("sql", ["", " ; ", "-- only a comment", "SELECT 1; SELECT 2"])
def test_not_one_statement(sql: str) -> None:
    with pytest.raises(ClickHouseError) as caught:
        parse(sql)
    assert caught.value.code == 62


@pytest.mark.parametrize(
    ("sql", "ddl"),
    [("SHOW TABLES", False), ("(SELECT 1)", False), ("EXISTS TABLE t", False), ("SYSTEM STOP MERGES", True)],
)
def test_what_changes_something(sql: str, ddl: bool) -> None:
    assert parse(sql).is_ddl is ddl


@given(st.binary(max_size=200))
def test_data_behind_format_are_untouched(data: bytes) -> None:
    raw = b"-- note\nINSERT INTO TABLE `d`.t (`a`, b) SETTINGS x = 1 FORMAT Native\n" + data
    assert is_insert(raw)
    found = parse_insert(raw)
    assert found.data == data
    assert (found.table, found.columns, found.settings, found.format) == (("d", "t"), "(`a`, b)", {"x": "1"}, "Native")
    assert data == b"" or insert_head(raw).endswith("FORMAT Native")


def test_values_and_select() -> None:
    values = parse_insert(b"insert into t values (1, 'VALUES'), (2, 'x')")
    assert (values.format, values.data) == ("Values", b"(1, 'VALUES'), (2, 'x')")
    query = parse_insert(b"INSERT INTO d.t (a) WITH 1 AS x SELECT x FROM y")
    assert query.format is None
    assert query.query == "WITH 1 AS x SELECT x FROM y"


@pytest.mark.parametrize("raw", [b"INSERT", b"INSERT INTO t", b"INSERT INTO t FORMAT", b"INSERT t VALUES (1)"])
def test_broken_inserts(raw: bytes) -> None:
    with pytest.raises(ClickHouseError) as caught:
        parse_insert(raw)
    assert caught.value.code == 62


def test_without_effect_keeps_the_statement() -> None:
    found = parse("ALTER TABLE d.t DELETE WHERE a = 1 OR b IN (SELECT x FROM y WHERE z)")
    assert without_effect(found.text) == (
        "ALTER TABLE d.t DELETE WHERE 0 AND (a = 1 OR b IN (SELECT x FROM y WHERE z))"
    )


def test_system_takes_no_format_as_in_the_engine() -> None:
    with pytest.raises(ClickHouseError, match="SYSTEM takes no FORMAT"):
        parse("SYSTEM FLUSH DISTRIBUTED a.b ON CLUSTER 'c'\n FORMAT TabSeparated")
    assert parse("SYSTEM FLUSH DISTRIBUTED a.b ON CLUSTER 'c'").cluster == "c"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("ALTER TABLE t DELETE WHERE a", True),
        ("ALTER TABLE t UPDATE a = 1 WHERE b", True),
        ("ALTER TABLE t DROP PARTITION ID 'x'", True),
        ("ALTER TABLE t DROP COLUMN a", False),
        ("ALTER TABLE t ADD COLUMN a Int8", False),
        ("ALTER TABLE t MODIFY COLUMN a Int8", False),
        ("DELETE FROM t WHERE a", True),
        ("TRUNCATE TABLE t", True),
        ("SELECT 1", True),
        ("DROP TABLE t", False),
    ],
)
def test_what_leaves_the_columns_as_they_are(sql: str, expected: bool) -> None:
    assert parse(sql).keeps_columns is expected
