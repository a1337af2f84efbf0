"""The undo's statements run by ClickHouse's own engine, on tables whose columns have changed since the snapshot."""

from __future__ import annotations

from datetime import date

import pytest

from include.scorecard_backfill.putback import Places, columns_to_put_back
from include.scorecard_backfill.sql import Slice
from include.scorecard_backfill.sql import snapshots as sql_snapshot
from tests.unit.test_sql_engine import KEY, NAMES, TABLE, Engine, engine

__all__ = ["engine"]

PART = Slice("undo", "acme", "voice", date(2026, 1, 1), date(2026, 2, 1))
COPY = sql_snapshot.Copy("scorecard", PART, KEY, "scorecard_id")
SIDE = sql_snapshot.snapshot_table("scorecard", KEY)


@pytest.mark.parametrize(
    ("change", "extra"),
    [
        ("ADD COLUMN team String DEFAULT 'none' FIRST", "team = 'none'"),
        ("MODIFY COLUMN conversation_id String FIRST", "1"),
        ("DROP COLUMN scorecard_type", "1"),
        ("ADD COLUMN day Date MATERIALIZED toDate(scorecard_time) FIRST", "day = toDate(scorecard_time)"),
    ],
)
def test_each_value_goes_back_into_its_own_column(engine: Engine, change: str, extra: str) -> None:
    engine.rows("DROP DATABASE IF EXISTS undo")
    engine.rows("CREATE DATABASE undo")
    engine.rows(f"CREATE TABLE undo.scorecard {TABLE}")
    engine.rows(
        "INSERT INTO undo.scorecard (scorecard_id, customer_id, profile_id, conversation_id, scorecard_time)"
        " SELECT concat('s', toString(number)), 'acme', 'voice', concat('c', toString(number)), '2026-01-05 12:00:00'"
        " FROM numbers(3)"
    )
    engine.rows(
        sql_snapshot.create_snapshot_statement(
            cluster="conversations", table="scorecard", part=PART, names=NAMES, key=KEY, until=date(2026, 3, 1)
        )
    )
    engine.rows("TRUNCATE TABLE undo.scorecard")
    engine.rows(f"ALTER TABLE undo.scorecard {change}")
    listed = engine.rows(
        sql_snapshot.columns_statement(cluster="conversations", database="undo", tables=(SIDE, "scorecard"))
    )
    places = Places("undo", SIDE, "scorecard", "scorecard", ("scorecard_id", "scorecard_time"))
    columns = columns_to_put_back(listed, places, [listed[0]["host"]])
    for _ in range(2):
        # Run again it adds nothing.
        engine.rows(
            sql_snapshot.restore_statement(
                cluster="conversations", distributed="scorecard", columns=columns, names=NAMES, copy=COPY, meant=True
            )
        )
        (found,) = engine.rows(
            "SELECT count() AS rows, countIf(startsWith(scorecard_id, 's') AND customer_id = 'acme' AND"
            f" profile_id = 'voice' AND conversation_id = concat('c', substring(scorecard_id, 2)) AND {extra}) AS right"
            " FROM undo.scorecard"
        )
        assert (found["rows"], found["right"]) == (3, 3)
