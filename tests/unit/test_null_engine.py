"""A NULL in a column that decides what is meant to go: such a row is one that stays, and nothing loses sight of it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, date, datetime

import pytest

from include.scorecard_backfill import sql
from include.scorecard_backfill.proof import Band, Rules, judge
from include.scorecard_backfill.records import Numbers, TableDays
from include.scorecard_backfill.sql import snapshots as sql_snapshot
from include.scorecard_backfill.sql.census import CensusPart, IdsOf, Rule, Value, Written, unwritten_statement
from tests.unit.test_census_engine import CLUSTER, census, part_of
from tests.unit.test_sql_engine import KEY, NAMES, Engine, database, engine

__all__ = ["database", "engine"]

RULES = Rules(cleanup=True, share=0.01, rows=0, band={"scorecard": Band(0.7, 1.0)}, small_rows=10)
APPEAL = Value("scorecard_type", "appeal")
RULE: dict[str, Rule] = {"value": APPEAL, "ids": IdsOf("parent", "scorecard", "scorecard_id", APPEAL)}


def counted(engine: Engine, part: CensusPart) -> TableDays:
    """What a census of one table finds, as a record."""
    days = census(engine, part).days[part.name]
    numbers = {day: Numbers.model_validate(asdict(tally)) for day, tally in days.items()}
    return TableDays(database=part.name[0], table=part.table, days=numbers)


@pytest.fixture
def table(engine: Engine, database: str) -> str:
    """One row that is meant to go, by both rules; of seven it is not known; two stay."""
    name = sql.qualified(database, "scorecard")
    engine.rows(f"DROP TABLE {name}")
    engine.rows(
        f"CREATE TABLE {name} (scorecard_id String, customer_id String, profile_id String, conversation_id String,"
        " scorecard_time DateTime64(3, 'UTC'), scorecard_type LowCardinality(Nullable(String)),"
        " parent Nullable(String), updated_at DateTime) ENGINE = ReplacingMergeTree ORDER BY scorecard_id"
    )
    engine.rows(
        f"INSERT INTO {name} SELECT toString(number), 'acme', 'voice', '', '2026-01-05 12:00:00',"
        " multiIf(number = 0, 'appeal', number < 8, NULL, 'manual'), multiIf(number = 0, '0', number < 8, NULL, 'x'),"
        " '2026-01-05 12:00:00' FROM numbers(10)"
    )
    return name


@pytest.mark.parametrize("rule", RULE)
def test_lost_rows_of_an_unknown_kind_are_lost(engine: Engine, database: str, table: str, rule: str) -> None:
    part = CensusPart("scorecard", part_of(database), "scorecard_id", RULE[rule])
    before = counted(engine, part)
    (numbers,) = before.days.values()
    assert (numbers.rows, numbers.meant, sum(numbers.buckets)) == (10, 1, 9)
    engine.rows(f"ALTER TABLE {table} DELETE WHERE toUInt8(scorecard_id) < 8 SETTINGS mutations_sync = 2")
    found, _ = judge([before], [counted(engine, part)], RULES)
    assert found.cause == "lost_rows"
    assert "7 of 9 rows of 2026-01-05 did not come back" in found.text


@pytest.mark.parametrize("rule", RULE)
def test_a_sweep_asks_about_rows_of_an_unknown_kind(engine: Engine, database: str, table: str, rule: str) -> None:
    since = Written("updated_at", datetime(2026, 6, 1, tzinfo=UTC))
    part = CensusPart("scorecard", part_of(database), "scorecard_id", RULE[rule], since)
    (row,) = engine.rows(unwritten_statement(cluster=CLUSTER, counted=part, names=NAMES))
    assert (int(row["number"]), sorted(row["ids"])) == (9, [str(n) for n in range(1, 10)])


@pytest.mark.parametrize("rule", RULE)
def test_rows_of_an_unknown_kind_are_missing_and_put_back(engine: Engine, database: str, table: str, rule: str) -> None:
    part = part_of(database)
    engine.rows(
        sql_snapshot.create_snapshot_statement(
            cluster=CLUSTER, table="scorecard", part=part, names=NAMES, key=KEY, until=date(2026, 3, 1)
        )
    )
    engine.rows(f"TRUNCATE TABLE {table}")
    copy = sql_snapshot.Copy("scorecard", part, KEY, "scorecard_id", RULE[rule])
    (row,) = engine.rows(sql_snapshot.missing_statement(cluster=CLUSTER, names=NAMES, copy=copy))
    assert (int(row["meant"]), int(row["missing"]), len(row["ids"])) == (1, 9, 9)
    columns = ["scorecard_id", "customer_id", "profile_id", "scorecard_time", "scorecard_type", "parent"]
    engine.rows(
        sql_snapshot.restore_statement(
            cluster=CLUSTER, distributed="scorecard", columns=columns, names=NAMES, copy=copy, meant=False
        )
    )
    back = engine.rows(f"SELECT scorecard_id FROM {table} ORDER BY scorecard_id")
    assert [row["scorecard_id"] for row in back] == [str(n) for n in range(1, 10)]
