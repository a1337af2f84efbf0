"""Statements of snapshots: a copy of a window's rows beside its table on every host, kept for some days."""

from __future__ import annotations

from datetime import date

from include.scorecard_backfill.sql import Names, Slice, qualified, quote_identifier, quote_string, window_predicate

SNAPSHOT_PREFIX = "backfill_snapshot__"
"""Start of the name of every side table; the rest is the table and the window's key."""

_UNTIL = "until "

EXAMPLES = 20
"""Ids that are named of each table; the number of missing ones is always exact."""


def snapshot_table(table: str, key: str) -> str:
    """Return the name of the side table of a local table for one window (key of 16 hex digits)."""
    return f"{SNAPSHOT_PREFIX}{table}__{key}"


def create_snapshot_statement(*, cluster: str, table: str, part: Slice, names: Names, key: str, until: date) -> str:
    """Return the statement that copies a window's rows (FINAL) on every host; each host copies its own.

    ``until`` is the UTC day from which on the copy may be removed; it is kept as the side table's comment.
    """
    return (
        f"CREATE TABLE IF NOT EXISTS {qualified(part.database, snapshot_table(table, key))}"
        f" ON CLUSTER {quote_string(cluster)} ENGINE = MergeTree ORDER BY tuple()"
        f" COMMENT {quote_string(f'{_UNTIL}{until.isoformat()}')}"
        f" AS SELECT * FROM {qualified(part.database, table)} FINAL WHERE {window_predicate(names, part)}"
    )


def count_snapshot_statement(*, cluster: str, database: str, snapshot: str) -> str:
    """Return the rows of a side table on every host: ``host, rows``; a host without rows has no line."""
    return (
        "SELECT hostName() AS host, count() AS rows"
        f" FROM clusterAllReplicas({quote_string(cluster)}, {qualified(database, snapshot)}) GROUP BY host"
    )


def drop_snapshot_statement(*, cluster: str, database: str, snapshot: str) -> str:
    """Return DROP TABLE for a side table. Raises ValueError for a table that is not one."""
    if not snapshot.startswith(SNAPSHOT_PREFIX):
        raise ValueError(f"{snapshot!r} is no snapshot (it does not start with {SNAPSHOT_PREFIX}); it is not dropped")
    return f"DROP TABLE IF EXISTS {qualified(database, snapshot)} ON CLUSTER {quote_string(cluster)} SYNC"


def snapshots_statement(cluster: str) -> str:
    """Return every side table of the cluster, once for each host: ``database, name, comment``."""
    return (
        "SELECT database, name, comment"
        f" FROM clusterAllReplicas({quote_string(cluster)}, system.tables)"
        f" WHERE startsWith(name, {quote_string(SNAPSHOT_PREFIX)})"
    )


def expired(comment: str, today: date) -> bool:
    """Return True when a side table's comment says that it may be removed ``today``; False for any other comment."""
    try:
        return comment.startswith(_UNTIL) and date.fromisoformat(comment.removeprefix(_UNTIL)) <= today
    except ValueError:
        return False


def _missing(table: str, part: Slice, names: Names, id_column: str) -> str:
    # The inner SELECT reads the host's own table: a row and its copy are on the same shard.
    column = quote_identifier(id_column)
    return (
        f"{column} NOT IN (SELECT {column} FROM {qualified(part.database, table)} FINAL"
        f" WHERE {window_predicate(names, part)})"
    )


def missing_statement(*, cluster: str, table: str, part: Slice, names: Names, key: str, id_column: str) -> str:
    """Return which rows of the copy are not in the table any more: ``host, missing, ids`` (some of them)."""
    some = f"groupArray({EXAMPLES})(toString({quote_identifier(id_column)}))"
    return (
        f"SELECT hostName() AS host, count() AS missing, {some} AS ids"
        f" FROM clusterAllReplicas({quote_string(cluster)},"
        f" {qualified(part.database, snapshot_table(table, key))})"
        f" WHERE {_missing(table, part, names, id_column)} GROUP BY host"
    )


def restore_statement(
    *, cluster: str, table: str, distributed: str, part: Slice, names: Names, key: str, id_column: str
) -> str:
    """Return the INSERT that puts the missing rows back through the distributed twin; run again it adds nothing."""
    return (
        f"INSERT INTO {qualified(part.database, distributed)}"
        f" SELECT * FROM cluster({quote_string(cluster)}, {qualified(part.database, snapshot_table(table, key))})"
        f" WHERE {_missing(table, part, names, id_column)}"
    )
