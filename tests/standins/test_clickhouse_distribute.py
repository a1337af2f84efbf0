"""Plans: what the nodes read, and what joins their answers."""

from __future__ import annotations

from typing import cast

import pytest

from standins.clickhouse.catalog import Catalog, Target
from standins.clickhouse.distribute import Plan, Planner
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.lexer import tokens_of

AGGREGATES = {"count", "sum", "uniqExact", "quantile", "max", "countIf"}


class FakeCatalog:
    """One Distributed table `db.t_d` over `db.t`, and a few aggregate functions."""

    def target(self, database: str, table: str) -> Target | None:
        """Target of `db.t_d`."""
        known = (database, table) == ("db", "t_d")
        return Target("conversations", "db", "t", "cityHash64(id)") if known else None

    def aggregate(self, name: str) -> str | None:
        """The name itself when it is an aggregate."""
        return name if name in AGGREGATES else None


def plan(sql: str, database: str = "") -> Plan:
    """The plan with its places called READ0, READ1, ..."""
    made = Planner(cast(Catalog, FakeCatalog()), "conversations", database).plan(list(tokens_of(sql)))
    for number, read in enumerate(made.reads):
        made.sql = made.sql.replace(read.place, f"READ{number}")
    return made


def test_local_query_has_no_reads() -> None:
    assert plan("SELECT a FROM db.t WHERE b").reads == []


def test_aggregation_becomes_states_and_merges() -> None:
    made = plan("SELECT a AS k, count() AS n FROM db.t_d FINAL WHERE b = 1 GROUP BY k HAVING n > 2 ORDER BY n DESC")
    (read,) = made.reads
    assert read.sql == ("SELECT a AS `_k0`, countState() AS `_a0` FROM `db`.`t` FINAL WHERE b = 1 GROUP BY `_k0`")
    assert not read.all_replicas
    assert made.sql == (
        "SELECT `_k0` AS `k`, countMerge(`_a0`) AS `n` FROM READ0 GROUP BY `_k0`"
        " HAVING ( countMerge(`_a0`) ) > 2 ORDER BY ( countMerge(`_a0`) ) DESC"
    )


def test_key_that_is_an_expression() -> None:
    made = plan("SELECT toString(a) AS day, sum(b) FROM clusterAllReplicas('conversations', db.t) GROUP BY day")
    (read,) = made.reads
    assert read.all_replicas
    assert read.sql == "SELECT toString(a) AS `_k0`, sumState(b) AS `_a0` FROM db.t GROUP BY `_k0`"
    assert made.sql == "SELECT `_k0` AS `day`, sumMerge(`_a0`) AS `sum(b)` FROM READ0 GROUP BY `_k0`"


def test_calls_with_parameters_and_distinct() -> None:
    made = plan("SELECT quantile(0.5)(a), count(DISTINCT b), max(c) - max(c) FROM db.t_d")
    (read,) = made.reads
    assert read.sql == (
        "SELECT quantileState(0.5)(a) AS `_a0`, countDistinctState(b) AS `_a1`, maxState(c) AS `_a2` FROM `db`.`t`"
    )
    assert "quantileMerge(0.5)(`_a0`)" in made.sql
    assert "maxMerge(`_a2`) - maxMerge(`_a2`)" in made.sql


def test_listing_pushes_order_and_limit_down() -> None:
    made = plan("SELECT a, b FROM db.t_d WHERE c ORDER BY d LIMIT 3 OFFSET 2")
    (read,) = made.reads
    assert read.sql == "SELECT a, b, d AS `_o0` FROM `db`.`t` WHERE c ORDER BY `_o0` LIMIT 5"
    assert made.sql == "SELECT * EXCEPT (`_o0`) FROM READ0 ORDER BY `_o0` LIMIT 3 OFFSET 2"


def test_join_reads_both_sides_whole() -> None:
    made = plan("SELECT x.a FROM db.t_d AS x INNER JOIN cluster(conversations, db, u) AS y ON x.a = y.a")
    assert sorted(read.sql for read in made.reads) == ["SELECT * FROM `db`.`t`", "SELECT * FROM `db`.`u`"]


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
