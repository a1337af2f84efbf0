"""Plans: what the nodes read, and what joins their answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest

from standins.clickhouse.catalog import Catalog, Target
from standins.clickhouse.distribute import Planner, RemoteRead
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.sqltext import sql_of, tree_of


@dataclass(frozen=True)
class Plan:
    """What a query has become, and what it reads of the nodes."""

    sql: str
    reads: list[RemoteRead]


class FakeCatalog:
    """One Distributed table `db.t_d` over `db.t`, which has the columns a to e."""

    def target(self, database: str, table: str) -> Target | None:
        """Target of `db.t_d`."""
        known = (database, table) == ("db", "t_d")
        return Target("conversations", "db", "t", "cityHash64(id)") if known else None

    def columns(self, source: str, database: str) -> dict[str, bool]:
        """Those of `db.t`, of which `e` is ALIAS; of nothing else they are known."""
        return {name: name == "e" for name in "abcde"} if source in ("`db`.`t`", "db.t") else {}


def plan(sql: str, database: str = "") -> Plan:
    """The plan, in which READ0, READ1, ... stand for what the nodes answer."""
    reads: list[RemoteRead] = []

    def fetch(read: RemoteRead) -> str:
        reads.append(read)
        return f"READ{len(reads) - 1}"

    tree = tree_of(sql)
    assert tree is not None
    changed = Planner(cast(Catalog, FakeCatalog()), "conversations", database, fetch).resolve(tree)
    assert changed is bool(reads)
    return Plan(sql_of(tree), reads)


def test_local_query_has_no_reads() -> None:
    assert plan("SELECT a FROM db.t WHERE b").reads == []


def test_nodes_filter_and_the_rest_is_done_over_their_rows() -> None:
    made = plan("SELECT a AS k, count() AS n FROM db.t_d FINAL WHERE b = 1 GROUP BY k HAVING n > 2 ORDER BY n DESC")
    (read,) = made.reads
    assert read.sql == "SELECT `a`, `b` FROM `db`.`t` AS `t_d` FINAL WHERE b = 1"
    assert not read.all_replicas
    assert made.sql == "SELECT a AS k, count() AS n FROM READ0 AS `t_d` GROUP BY k HAVING n > 2 ORDER BY n DESC"


@pytest.mark.parametrize(
    ("columns", "read"),
    [
        ("count()", "1"),
        ("count(*)", "1"),
        ("*", "*"),
        ("x.*, _part", "*, _part"),
        ("x.d + sum(a)", "`a`, `d`"),
        ("COLUMNS('a|b')", "*"),
        ("_partition_id, `c`", "`c`, _partition_id"),
        ("e", "`e`"),
        ("a AS e", "`a`"),
    ],
)
def test_only_columns_that_are_named_are_read(columns: str, read: str) -> None:
    (found,) = plan(f"SELECT {columns} FROM clusterAllReplicas('conversations', db.t) AS x").reads
    assert found.all_replicas
    assert found.sql == f"SELECT {read} FROM db.t AS `x`"


@pytest.mark.parametrize(
    "query", ["SELECT a + 1 AS b FROM db.t_d WHERE b = 2", "WITH 2 AS x SELECT a FROM db.t_d WHERE a = x"]
)
def test_a_filter_over_an_alias_stays_here(query: str) -> None:
    made = plan(query)
    assert "WHERE" not in made.reads[0].sql
    assert made.sql.endswith(query[query.index("WHERE") :])


def test_the_name_of_the_host_comes_with_the_rows() -> None:
    made = plan("SELECT hostName(), hostName() AS h, count() FROM db.t_d WHERE hostName() != 'x' GROUP BY hostName()")
    assert made.reads[0].sql == "SELECT hostName() AS _sandbox_host FROM `db`.`t` AS `t_d` WHERE hostName() <> 'x'"
    assert made.sql == (
        "SELECT _sandbox_host AS `hostName()`, _sandbox_host AS h, count() FROM READ0 AS `t_d` GROUP BY _sandbox_host"
    )


def test_join_reads_both_sides_unfiltered() -> None:
    made = plan("SELECT x.a FROM db.t_d AS x INNER JOIN cluster(conversations, db, u) AS y ON x.a = y.a WHERE x.b")
    assert sorted(read.sql for read in made.reads) == [
        "SELECT * FROM `db`.`u` AS `y`",
        "SELECT `a`, `b` FROM `db`.`t` AS `x`",
    ]
    assert made.sql.endswith("WHERE x.b")


def test_every_leg_of_a_union_is_planned() -> None:
    made = plan("SELECT 'a' AS k, count() FROM db.t_d UNION ALL SELECT 'b' AS k, count() FROM db.t_d WHERE c")
    assert len(made.reads) == 2
    assert made.sql.count("UNION ALL") == 1


def test_unqualified_name_in_the_current_database() -> None:
    assert len(plan("SELECT a FROM t_d", "db").reads) == 1
    assert plan("SELECT a FROM t_d", "other").reads == []


def test_settings_of_the_select_go_with_the_read() -> None:
    (read,) = plan("SELECT a FROM db.t_d SETTINGS skip_unavailable_shards = 1, x = 'y'").reads
    assert read.settings == (("skip_unavailable_shards", "1"), ("x", "y"))


def test_unknown_cluster() -> None:
    with pytest.raises(ClickHouseError, match="'nowhere' not found") as caught:
        plan("SELECT 1 FROM cluster('nowhere', db.t)")
    assert caught.value.code == 701


def test_what_is_read_in_several_places_is_read_once() -> None:
    ids = "SELECT a FROM cluster('conversations', db.t) FINAL WHERE c = 1"
    made = plan(f"SELECT countIf(d GLOBAL IN ({ids})), countIf(NOT d GLOBAL IN ({ids})) FROM db.t_d FINAL")
    assert [read.sql for read in made.reads] == [
        "SELECT `a`, `c` FROM db.t AS `t` FINAL WHERE c = 1",
        "SELECT `d` FROM `db`.`t` AS `t_d` FINAL",
    ]
    assert (made.sql.count("READ0"), made.sql.count("READ1")) == (2, 1)


@pytest.mark.parametrize(
    ("source", "rest", "reads"),
    [
        ("cluster", "c = 1", 1),
        ("cluster", "c = 2", 2),
        ("cluster", "c = 1 SETTINGS x = 1", 2),
        ("clusterAllReplicas", "c = 1", 2),
    ],
)
def test_what_is_read_in_another_way_is_another_read(source: str, rest: str, reads: int) -> None:
    first = "SELECT a FROM cluster('conversations', db.t) WHERE c = 1"
    made = plan(f"({first}) UNION ALL (SELECT a FROM {source}('conversations', db.t) WHERE {rest})")
    assert len(made.reads) == reads


def test_a_view_whose_columns_have_names_is_read_as_a_subquery_and_not_asked_for_them() -> None:
    view = "view(SELECT hostName() AS h, groupArray((a, 1)) AS rows, b AS spare FROM db.t)"
    (read,) = plan(f"SELECT h, rows FROM clusterAllReplicas('conversations', {view})").reads
    assert read.sql == (
        "SELECT `h`, `rows` FROM (SELECT hostName() AS h, groupArray((a, 1)) AS rows, b AS spare FROM db.t)"
    )


@pytest.mark.parametrize("inner", ["SELECT a FROM db.t", "SELECT a AS x FROM db.t UNION ALL SELECT b AS x FROM db.t"])
def test_of_another_view_all_columns_are_read_where_it_cannot_be_described(inner: str) -> None:
    (read,) = plan(f"SELECT x FROM clusterAllReplicas('conversations', view({inner}))").reads
    assert read.sql == f"SELECT * FROM ({inner})"
