"""The census run by ClickHouse's own engine, also on a server whose profile would cut it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.scorecard_backfill import sql
from include.scorecard_backfill.config.clickhouse import ClickHouseConfig
from include.scorecard_backfill.config.rules import census_part
from include.scorecard_backfill.sql import Slice
from include.scorecard_backfill.sql.census import (
    BUCKETS,
    CensusPart,
    Value,
    Written,
    census_statement,
    moment_literal,
    unwritten_statement,
)
from include.scorecard_backfill.sql.pins import PINNED, pins
from include.scorecard_backfill.verdicts.census import Census, IncompleteError, Tally, read_census
from include.scorecard_backfill.verdicts.counts import Host
from tests.unit.test_sql_engine import NAMES, NASTY, Engine, database, engine, insert, table_of

__all__ = ["database", "engine"]

CLUSTER = "conversations"


def part_of(name: str, customer: str = "acme") -> Slice:
    return Slice(name, customer, "voice", date(2026, 1, 1), date(2026, 2, 1))


def census(engine: Engine, *parts: CensusPart) -> Census:
    found = engine.rows(census_statement(cluster=CLUSTER, parts=parts, names=NAMES))
    meant = [part.meant is not None for part in parts]
    return read_census(found, [part.name for part in parts], [Host(socket.gethostname(), 1)], meant=meant)


def prints(engine: Engine, ids: list[str]) -> int:
    """The fingerprint of these ids."""
    listed = ", ".join(sql.quote_string(one) for one in ids)
    return sum(int(row["h"]) for row in engine.rows(f"SELECT cityHash64(arrayJoin([{listed}])) AS h")) % 2**64


def buckets(engine: Engine, ids: list[str]) -> tuple[int, ...]:
    """How many of these ids are in each class of their hash."""
    listed = ", ".join(sql.quote_string(one) for one in ids)
    found = [int(row["h"]) for row in engine.rows(f"SELECT cityHash64(arrayJoin([{listed}])) % {BUCKETS} AS h")]
    return tuple(found.count(bucket) for bucket in range(BUCKETS))


def tally(engine: Engine, numbers: tuple[int, int, int, int | None], ids: list[str]) -> Tally:
    return Tally(*numbers, prints(engine, ids), buckets(engine, ids))


def test_rows_ids_and_conversations_of_every_day(engine: Engine, database: str) -> None:
    table = table_of(database)
    rows = [(str(n), "acme", "voice", f"2026-01-{1 + n % 3:02} 12:00:00") for n in range(9)]
    insert(engine, table, rows)
    insert(engine, table, rows[:4])  # the same rows again: FINAL counts each once
    insert(engine, table, [("x", "acme", "chat", "2026-01-01 12:00:00"), ("y", "acme", "voice", "2026-02-01 12:00:00")])
    found = census(engine, CensusPart("scorecard", part_of(database), "scorecard_id"))
    assert found.unsettled == ""
    name = (database, "scorecard")
    ids = {f"2026-01-0{day + 1}": [str(n) for n in range(9) if n % 3 == day] for day in range(3)}
    assert found.days[name] == {day: tally(engine, (3, 3, 3, None), of) for day, of in ids.items()}
    assert found.total[name] == tally(engine, (9, 9, 9, None), [str(n) for n in range(9)])


def test_nothing_is_counted_as_zero_with_a_row_of_every_host(engine: Engine, database: str) -> None:
    found = census(engine, CensusPart("scorecard", part_of(database), "scorecard_id", Value("scorecard_type", "a")))
    assert found.unsettled == ""
    assert found.days == {(database, "scorecard"): {}}
    assert found.total == {(database, "scorecard"): Tally(0, 0, 0, 0)}


def test_what_is_meant_to_go_is_counted_by_its_value_and_by_the_ids_of_it(engine: Engine, database: str) -> None:
    table, score = table_of(database), sql.qualified(database, "score")
    insert(engine, table, [(str(n), "acme", "voice", f"2026-01-0{1 + n} 12:00:00") for n in range(4)])
    engine.rows(f"ALTER TABLE {table} UPDATE scorecard_type = {sql.quote_string(NASTY)} WHERE scorecard_id IN ('1','2')"
                " SETTINGS mutations_sync = 2")  # fmt: skip
    engine.rows(
        f"CREATE TABLE {score} (score_id String, scorecard_id String, customer_id String, profile_id String,"
        " conversation_id String, scorecard_time DateTime64(3, 'UTC')) ENGINE = ReplacingMergeTree ORDER BY score_id"
    )
    engine.rows(
        f"INSERT INTO {score} SELECT concat(scorecard_id, toString(number)), scorecard_id, customer_id, profile_id,"
        f" conversation_id, scorecard_time FROM {table} AS one FINAL CROSS JOIN numbers(3) AS three"
    )
    config = ClickHouseConfig.model_validate(
        {"meant_to_go": {"scorecard": {"column": "scorecard_type", "equals": NASTY},
                         "score": {"by": "scorecard", "id_column": "scorecard_id"}}}
    )  # fmt: skip
    beside = ("scorecard", "score")
    found = census(engine, *(census_part(config, name, part_of(database), beside) for name in beside))
    assert found.unsettled == ""
    assert [n.meant for n in found.days[database, "scorecard"].values()] == [0, 1, 1, 0]
    assert [(n.rows, n.meant) for n in found.days[database, "score"].values()] == [(3, 0), (3, 3), (3, 3), (3, 0)]
    assert [n.meant for n in found.total.values()] == [2, 6]
    kept = [f"{card}{n}" for card in (0, 3) for n in range(3)]
    assert found.total[database, "score"] == tally(engine, (12, 4, 12, 6), kept)
    alone = census_part(config, "score", part_of(database), ["score"])
    assert alone.meant is None  # a database without the other table tells nothing


SINCE = datetime(2026, 6, 1, 12, 0, 0, 900_000, UTC)


@pytest.mark.parametrize(
    ("kind", "unit", "old", "new"),
    [
        ("DateTime64(3, 'UTC')", "time", "'2026-06-01 11:59:59.999'", "'2026-06-01 12:00:00.000'"),
        ("DateTime('Asia/Tokyo')", "time", "toDateTime('2026-06-01 11:59:59', 'UTC')", "toDateTime(1780315200)"),
        ("UInt64", "seconds", "1780315199", "1780315200"),
        ("Int64", "milliseconds", "1780315199999", "1780315200000"),
        ("UInt64", "nanoseconds", "1780315199999999999", "1780315200000000000"),
    ],
)
def test_old_rows_are_told_from_rewritten_ones(
    engine: Engine, database: str, kind: str, unit: Any, old: str, new: str
) -> None:
    table = table_of(database)
    engine.rows(f"ALTER TABLE {table} ADD COLUMN written {kind}")
    insert(engine, table, [(str(n), "acme", "voice", "2026-01-01 12:00:00") for n in range(3)])
    for value, ids in ((old, "'0', '1'"), (new, "'2'")):
        engine.rows(f"ALTER TABLE {table} UPDATE written = {value} WHERE scorecard_id IN ({ids})"
                    " SETTINGS mutations_sync = 2")  # fmt: skip
    part = CensusPart("scorecard", part_of(database), "scorecard_id", written=Written("written", SINCE, unit))
    found = census(engine, part)
    assert found.unsettled == ""
    name = (database, "scorecard")
    assert {day: n.rows for day, n in found.old[name].items()} == {"2026-01-01": 2}
    assert {day: n.rows for day, n in found.rewritten[name].items()} == {"2026-01-01": 1}


def test_old_rows_without_a_newer_copy_are_counted_and_named(engine: Engine, database: str) -> None:
    table = table_of(database)
    engine.rows(f"ALTER TABLE {table} ADD COLUMN written UInt64")
    since, old, new = SINCE.replace(microsecond=0), 1_780_315_199, 1_780_315_200
    # Two rows with one id are two copies of a row, as on two shards.
    rows = [
        ("copied", "2026-01-05", old, "manual"), ("copied", "2026-01-05", new, "manual"),
        ("moved", "2026-01-31", old, "manual"), ("moved", "2026-02-01", new, "manual"),
        ("elsewhere", "2026-01-05", old, "manual"), ("elsewhere", "2026-03-01", new, "manual"),
        ("left", "2026-01-05", old, "manual"), ("meant", "2026-01-05", old, "appeal"),
        ("before", "2025-12-31", old, "manual"),
    ]  # fmt: skip
    values = ", ".join(
        f"('{number}', 'acme', 'voice', '{name}', '{day} 12:00:00', '{kind}', {written})"
        for number, (name, day, written, kind) in enumerate(rows)
    )
    columns = "scorecard_id, customer_id, profile_id, conversation_id, scorecard_time, scorecard_type, written"
    engine.rows(f"INSERT INTO {table} ({columns}) VALUES {values}")
    part = CensusPart("scorecard", part_of(database), "conversation_id", Value("scorecard_type", "appeal"),
                      Written("written", since, "seconds"))  # fmt: skip
    (row,) = engine.rows(unwritten_statement(cluster=CLUSTER, counted=part, names=NAMES))
    assert (int(row["number"]), sorted(row["ids"])) == (2, ["elsewhere", "left"])
    (row,) = engine.rows(unwritten_statement(cluster=CLUSTER, counted=replace(part, meant=None), names=NAMES))
    assert (int(row["number"]), sorted(row["ids"])) == (3, ["elsewhere", "left", "meant"])
    with pytest.raises(ValueError, match=r"scorecard has no column that tells what was written again"):
        unwritten_statement(cluster=CLUSTER, counted=replace(part, written=None), names=NAMES)


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no zone"):
        moment_literal(datetime(2026, 6, 1), "time")


@settings(max_examples=5)
@given(st.integers(0, 4), st.integers(0, 4))
def test_the_days_and_the_total_agree_whatever_there_is(engine: Engine, first: int, second: int) -> None:
    name = "db-agree"
    engine.rows(f"CREATE DATABASE {sql.quote_identifier(name)}")
    try:
        engine.rows(
            f"CREATE TABLE {table_of(name)} (scorecard_id String, customer_id String, profile_id String,"
            " conversation_id String, scorecard_time DateTime) ENGINE = ReplacingMergeTree ORDER BY scorecard_id"
        )
        for day, rows in [(day, rows) for day, rows in ((1, first), (31, second)) if rows]:
            insert(engine, table_of(name), [(f"{day}-{n}", "acme", "voice", f"2026-01-{day:02} 00:00:00")
                                            for n in range(rows)])  # fmt: skip
        found = census(engine, CensusPart("scorecard", part_of(name), "scorecard_id"))
        assert found.unsettled == ""
        assert found.total[name, "scorecard"].ids == first + second
    finally:
        engine.rows(f"DROP DATABASE {sql.quote_identifier(name)}")


ROWS = 60_000
BENT = {
    "limit": "1",
    "offset": "1",
    "max_block_size = 100, max_rows_to_group_by = 1, group_by_overflow_mode": "'any'",
    "max_block_size = 100, max_rows_to_read = 1, read_overflow_mode": "'break'",
    "max_result_rows = 1, max_block_size = 1, result_overflow_mode": "'break'",
    "empty_result_for_aggregation_by_empty_set": "1",
    "do_not_merge_across_partitions_select_final": "1",
    "group_by_use_nulls": "1",
    "defer_partition_pruning_after_final": "0",
    "convert_query_to_cnf = 1, optimize_using_constraints": "1",
    "force_optimize_projection": "1",
}


@pytest.mark.parametrize("bent", BENT)
def test_a_profile_cuts_nothing_off(engine: Engine, database: str, bent: str) -> None:
    table = table_of(database)
    if "constraints" in bent:  # what it assumes is not so, and the server does not look
        assumed = "scorecard_time < toDateTime64('2026-01-15 00:00:00', 3, 'UTC')"
        engine.rows(f"ALTER TABLE {table} ADD CONSTRAINT early ASSUME {assumed}")
    for _ in range(2):  # two parts; the second one holds a newer version of a row, in another month
        engine.rows(
            f"INSERT INTO {table} (scorecard_id, customer_id, profile_id, conversation_id, scorecard_time)"
            " SELECT toString(number), 'acme', 'voice', toString(number), toDateTime64('2026-01-01 00:00:00', 3, 'UTC')"
            f" + number * 40 FROM numbers({ROWS})"
        )
    insert(engine, table, [("0", "acme", "voice", "2026-02-01 12:00:00")])
    parts = [CensusPart("scorecard", part_of(database, customer), "scorecard_id") for customer in ("acme", "globex")]
    right = [census(engine, part) for part in parts]
    assert [found.total[database, "scorecard"].rows for found in right] == [ROWS - 1, 0]

    def answered(pinned: Mapping[str, str]) -> Any:
        with engine.bent(f"{bent} = {BENT[bent]}", pinned):
            try:
                return [census(engine, part) for part in parts]
            except (RuntimeError, IncompleteError) as error:
                return str(error)

    assert answered({}) != right  # else this would prove nothing
    pinned = answered(PINNED)
    assert pinned == right or "Limit for" in pinned  # an error of the server is right, too


def test_the_engine_knows_the_pins_that_matter(engine: Engine) -> None:
    rows = engine.rows("SELECT name, value, readonly FROM system.settings")
    known = {row["name"]: (row["value"], bool(row["readonly"])) for row in rows}
    send, problems = pins(known)
    assert problems == []
    assert set(PINNED) - set(send) <= {"partial_result_on_first_cancel", "enable_parallel_replicas"}
    changed = {name for name, value in send.items() if known[name][0] != value}
    assert changed <= {
        "optimize_use_projections", "allow_experimental_projection_optimization", "optimize_use_implicit_projections",
        "use_skip_indexes_if_final", "use_query_condition_cache", "max_parallel_replicas",
    }  # fmt: skip
