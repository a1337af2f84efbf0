"""Rows out of ClickHouse: a mutation beside DROP PARTITION by rows of the table; planning by number of databases."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chdb.session import Session

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.operators.plan import read_inventory
from benchmarks.many_databases import many_databases
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.planning.windows import DateRange

JANUARY = DateRange.parse("2026-01-01", "2026-02-01")
DAYS = 31

Json = dict[str, Any]


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """Return the shortest of some runs, in seconds."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return round(best, 3)


def deleting(rows: Sequence[int], databases: Sequence[int]) -> Json:
    """Measure both, in ClickHouse's own engine (chDB) and over the stand-in of two shards."""
    return {"ways": _ways(rows), "planning": [_planning(count) for count in databases]}


def _ways(rows: Sequence[int]) -> list[Json]:
    # One session for all sizes: a process has one chDB.
    with tempfile.TemporaryDirectory() as folder:
        session = Session(folder)
        try:
            return [_way(session, count) for count in rows]
        finally:
            session.close()


def _way(session: Session, rows: int) -> Json:
    def fill() -> None:
        session.query("DROP TABLE IF EXISTS scorecard")
        session.query(
            "CREATE TABLE scorecard (scorecard_id String, customer_id LowCardinality(String),"
            " scorecard_time DateTime64(3, 'UTC'), updated_at DateTime64(3, 'UTC'), text String)"
            " ENGINE = ReplacingMergeTree(updated_at) PARTITION BY toYYYYMM(scorecard_time) ORDER BY scorecard_id"
        )
        session.query(
            "INSERT INTO scorecard SELECT toString(number), 'acme', toDateTime64('2026-01-01 00:00:00', 3, 'UTC')"
            f" + toIntervalSecond(intDiv(number * {DAYS * 86_400}, {rows})), now64(3), repeat('x', 40)"
            f" FROM numbers({rows})"
        )

    def count() -> int:
        return int(str(session.query("SELECT count() FROM scorecard", "TabSeparatedRaw")).strip())

    day = "scorecard_time < toDateTime64('2026-01-02 00:00:00', 3, 'UTC')"
    found: Json = {"rows": rows}
    for name, statement in (
        ("mutation_month", "ALTER TABLE scorecard DELETE WHERE customer_id = 'acme' SETTINGS mutations_sync = 1"),
        ("mutation_day", f"ALTER TABLE scorecard DELETE WHERE {day} SETTINGS mutations_sync = 1"),
        ("drop_partition", "ALTER TABLE scorecard DROP PARTITION ID '202601'"),
    ):
        fill()
        assert count() == rows
        found[name] = seconds(lambda statement=statement: session.query(statement))  # type: ignore[misc]
        assert count() < rows
    return found


def _planning(count: int) -> Json:
    with tempfile.TemporaryDirectory() as folder, many_databases(Path(folder), count) as cluster:
        hook = BackfillClickHouse(ClusterConfig.model_validate({"name": "many"}))
        read_inventory(hook, JANUARY)
        cluster.clear()
        took = seconds(lambda: read_inventory(hook, JANUARY))
        asked = sum(len(node.statements(queries=True)) for node in cluster.nodes())
    return {"databases": count, "seconds": took, "statements": asked}
