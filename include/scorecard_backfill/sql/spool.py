"""Rows that a server has accepted and that are not yet in the table of their shard."""

from __future__ import annotations

from collections.abc import Iterable

from include.scorecard_backfill.sql.statements import qualified, quote_string

FLUSH_ASYNCHRONOUS = "SYSTEM FLUSH ASYNC INSERT QUEUE"


def spooled_statement(cluster: str, databases: Iterable[str]) -> str:
    """Return one row of each host: ``host, waiting`` as (kind, database, table, amount, blocked, exception).

    Kinds: ``distributed`` (amount: files of a Distributed table, in whatever database it is, that points to one of
    ``databases``; files that are marked as broken are not listed, since they never arrive by themselves),
    ``asynchronous`` (amount: age of queued asynchronous inserts in seconds), ``buffer`` (a Buffer table before one of
    the databases; how many rows wait in it no server tells).
    """
    names = list(databases)
    listed = ", ".join(quote_string(database) for database in names)
    # A table's arguments stand in engine_full as literals.
    points = f"multiSearchAny(engine_full, [{', '.join(quote_string(quote_string(name)) for name in names)}])"
    elsewhere = f"SELECT database, name FROM system.tables WHERE engine = 'Distributed' AND {points}"
    ours = f"(database IN ({listed}) OR (database, table) IN ({elsewhere}))"
    found = (
        "SELECT 'distributed' AS b_kind, database AS b_database, table AS b_table, toUInt64(data_files) AS b_amount,"
        " toUInt8(is_blocked) AS b_blocked, last_exception AS b_exception FROM system.distribution_queue"
        f" WHERE data_files > 0 AND {ours} UNION ALL SELECT 'asynchronous', database, table,"
        " toUInt64(greatest(0, dateDiff('second', first_update, now64(6)))), toUInt8(0), ''"
        f" FROM system.asynchronous_inserts WHERE {ours} UNION ALL"
        f" SELECT 'buffer', database, name, toUInt64(0), toUInt8(0), '' FROM system.tables"
        f" WHERE engine = 'Buffer' AND {points}"
    )
    tuple_ = "b_kind, b_database, b_table, b_amount, b_blocked, b_exception"
    view = f"SELECT hostName() AS host, groupArray(({tuple_})) AS waiting FROM ({found})"
    return f"SELECT host, waiting FROM clusterAllReplicas({quote_string(cluster)}, view({view}))"


def flush_statement(*, cluster: str, kind: str, database: str, table: str) -> str:
    """Return the statement that makes every host send what waits in a queue of this kind."""
    on = f"ON CLUSTER {quote_string(cluster)}"
    if kind == "asynchronous":
        # The whole queue: only newer servers take the name of a table.
        return f"{FLUSH_ASYNCHRONOUS} {on}"
    if kind == "buffer":
        return f"OPTIMIZE TABLE {qualified(database, table)} {on}"
    return f"SYSTEM FLUSH DISTRIBUTED {qualified(database, table)} {on}"
