"""A ClickHouse stand-in with many databases, for measuring and testing the plan of a large cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from standins.clickhouse.client import ClickHouseSandbox, running

PASSWORD = "not-a-secret"
DAYS = 31


@contextmanager
def many_databases(folder: Path, count: int) -> Iterator[ClickHouseSandbox]:
    """Run a cluster of two shards with ``count`` databases of one customer each, two rows on every day of January 2026.

    Sets AIRFLOW_CONN_CLICKHOUSE_MANY for the time of the block.
    """
    with running(ClickHouseSandbox(folder, (1, 1), password=PASSWORD)) as cluster:
        node = cluster.nodes()[0]
        for number in range(count):
            _fill(node.query, f"customer{number:03}")
        address = cluster.topology.nodes[0]
        record = {
            "conn_type": "clickhouse",
            "host": address.host,
            "port": address.port,
            "login": "admin",
            "password": PASSWORD,
            "extra": {"secure": False},
        }
        os.environ["AIRFLOW_CONN_CLICKHOUSE_MANY"] = json.dumps(record)
        try:
            yield cluster
        finally:
            del os.environ["AIRFLOW_CONN_CLICKHOUSE_MANY"]


def _fill(query: object, customer: str) -> None:
    assert callable(query)
    database = f"{customer}_voice"
    query(f"CREATE DATABASE {database} ON CLUSTER conversations")
    columns = (
        "customer_id LowCardinality(String), profile_id LowCardinality(String), conversation_id String,"
        " scorecard_time DateTime64(3, 'UTC'), updated_at DateTime64(3, 'UTC')"
    )
    for table, id_column in (("scorecard", "scorecard_id"), ("score", "score_id")):
        query(
            f"CREATE TABLE {database}.{table} ON CLUSTER conversations ({id_column} String, {columns})"
            f" ENGINE = ReplacingMergeTree(updated_at) PARTITION BY toYYYYMM(scorecard_time) ORDER BY {id_column}"
        )
        query(
            f"INSERT INTO {database}.{table} SELECT concat('{customer}-', toString(number)), '{customer}', 'voice',"
            f" concat('conversation-', toString(intDiv(number, 2))),"
            f" toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + toIntervalHour(12 * number),"
            f" toDateTime64('2026-02-01 00:00:00', 3, 'UTC') FROM numbers({2 * DAYS})"
        )
