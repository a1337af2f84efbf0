"""Rows that a Distributed table has accepted and not yet sent to their shard."""

from __future__ import annotations

from collections.abc import Iterable

from include.scorecard_backfill.sql.statements import qualified, quote_string


def spooled_statement(cluster: str, databases: Iterable[str]) -> str:
    """Return one row of each host: ``host, waiting`` as (database, table, files, blocked, exception) of each queue.

    Files that are marked as broken are not listed: they never arrive by themselves.
    """
    listed = ", ".join(quote_string(database) for database in databases)
    view = (
        "SELECT hostName() AS host,"
        " groupArray((database, table, toUInt64(data_files), toUInt8(is_blocked), last_exception)) AS waiting"
        f" FROM system.distribution_queue WHERE database IN ({listed}) AND data_files > 0"
    )
    return f"SELECT host, waiting FROM clusterAllReplicas({quote_string(cluster)}, view({view}))"


def flush_statement(*, cluster: str, database: str, table: str) -> str:
    """Return the statement that makes every host send what a Distributed table has waiting."""
    return f"SYSTEM FLUSH DISTRIBUTED {qualified(database, table)} ON CLUSTER {quote_string(cluster)}"
