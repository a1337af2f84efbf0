"""Planning a large cluster takes a constant number of queries, whatever the number of databases is."""

from __future__ import annotations

from pathlib import Path

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.operators.plan import read_inventory
from benchmarks.many_databases import DAYS, many_databases
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.planning.windows import DateRange

ON_CONNECT = ("version()", "system.settings", "SELECT 1 AS check")
"""What clickhouse-connect asks whenever it connects."""

JANUARY = DateRange.parse("2026-01-01", "2026-02-01")


def test_a_hundred_databases_in_seven_queries(tmp_path: Path) -> None:
    with many_databases(tmp_path, 100) as cluster:
        cluster.clear()
        hook = BackfillClickHouse(ClusterConfig.model_validate({"name": "many"}))
        stock, problems = read_inventory(hook, JANUARY)
        asked = [
            row["statement"]
            for node in cluster.nodes()
            for row in node.statements(queries=True)
            if not any(text in row["statement"] for text in ON_CONNECT)
        ]
    assert problems == {}
    assert len(stock.pairs) == 100
    assert len(stock.volumes) == 100 * 2 * DAYS
    assert {(v.rows, v.conversations) for v in stock.volumes} == {(2, 1)}
    assert len(asked) <= 7, "\n\n".join(asked)
