"""Statements of snapshots: a copy of a window's rows beside its table on every host, kept for some days."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from include.scorecard_backfill.sql import (
    Names,
    Slice,
    owner_predicate,
    qualified,
    quote_identifier,
    quote_string,
    window_predicate,
)
from include.scorecard_backfill.sql.census import EXAMPLES, Rule, Value, certain, value_predicate

SNAPSHOT_PREFIX = "backfill_snapshot__"
"""Start of the name of every side table; the rest is the table and the window's key."""

_UNTIL = "until "


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
    """Return the rows of a side table on every host, one line each: ``host, rows``."""
    view = f"SELECT hostName() AS host, count() AS rows FROM {qualified(database, snapshot)}"
    return f"SELECT host, rows FROM clusterAllReplicas({quote_string(cluster)}, view({view}))"


def drop_snapshot_statement(*, cluster: str, database: str, snapshot: str) -> str:
    """Return DROP TABLE for a side table. Raises ValueError for a table that is not one."""
    if not snapshot.startswith(SNAPSHOT_PREFIX):
        raise ValueError(
            f"{snapshot!r} is not a snapshot (it does not start with {SNAPSHOT_PREFIX}); it is not dropped"
        )
    return f"DROP TABLE IF EXISTS {qualified(database, snapshot)} ON CLUSTER {quote_string(cluster)} SYNC"


def snapshots_statement(cluster: str) -> str:
    """Return every side table of the cluster, once for each host: ``database, name, comment``."""
    return (
        "SELECT database, name, comment"
        f" FROM clusterAllReplicas({quote_string(cluster)}, system.tables)"
        f" WHERE startsWith(name, {quote_string(SNAPSHOT_PREFIX)})"
    )


def columns_statement(*, cluster: str, database: str, tables: Iterable[str]) -> str:
    """Return the columns of tables on every host: ``host, table, columns`` as (name, type, kind)."""
    return (
        "SELECT hostName() AS host, table, groupArray((name, type, default_kind)) AS columns"
        f" FROM clusterAllReplicas({quote_string(cluster)}, system.columns)"
        f" WHERE database = {quote_string(database)} AND table IN ({', '.join(quote_string(t) for t in tables)})"
        " GROUP BY host, table"
    )


def expired(comment: str, today: date) -> bool:
    """Return True when a side table's comment says that it may be removed ``today``; False for any other comment."""
    try:
        return comment.startswith(_UNTIL) and date.fromisoformat(comment.removeprefix(_UNTIL)) <= today
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Copy:
    """The copy of one table of a window (its key), the column of its ids, and which of its rows were meant to go."""

    table: str
    part: Slice
    key: str
    id_column: str
    meant: Rule | None = None

    @property
    def name(self) -> str:
        """Quoted ``database.table`` of the side table."""
        return qualified(self.part.database, snapshot_table(self.table, self.key))


def _missing(cluster: str, names: Names, copy: Copy) -> str:
    """Return the condition of the copy's rows that are in the table no more, on any shard and any day.

    Over all shards, because a row that is written again may go to another one; whatever its day, because it may have
    moved. Only the ids of the copy are looked for in the table.
    """
    column = quote_identifier(copy.id_column)
    ids = f"SELECT {column} FROM cluster({quote_string(cluster)}, {copy.name})"
    there = (
        f"SELECT {column} FROM cluster({quote_string(cluster)}, {qualified(copy.part.database, copy.table)}) FINAL"
        f" WHERE {owner_predicate(names, copy.part)} AND {column} GLOBAL IN ({ids})"
    )
    return f"{column} GLOBAL NOT IN ({there})"


def _meant(cluster: str, copy: Copy) -> str:
    """Return the condition of the copy's rows that were meant to go, by the copies alone: the table has lost them."""
    if copy.meant is None:
        return "0"
    if isinstance(copy.meant, Value):
        return certain(value_predicate(copy.meant))
    other = qualified(copy.part.database, snapshot_table(copy.meant.table, copy.key))
    return certain(
        f"{quote_identifier(copy.meant.column)} GLOBAL IN (SELECT {quote_identifier(copy.meant.their_column)}"
        f" FROM cluster({quote_string(cluster)}, {other}) WHERE {value_predicate(copy.meant.value)})"
    )


def missing_statement(*, cluster: str, names: Names, copy: Copy) -> str:
    """Return one row about the copy's rows that are not in the table any more: ``meant, missing, ids``.

    ``meant`` of them were meant to go, ``missing`` were not, ``ids`` are some of the latter.
    """
    meant = _meant(cluster, copy)
    column = quote_identifier(copy.id_column)
    return (
        f"SELECT countIf({meant}) AS meant, countIf(NOT ({meant})) AS missing,"
        f" groupArrayIf({EXAMPLES})(toString({column}), NOT ({meant})) AS ids"
        f" FROM cluster({quote_string(cluster)}, {copy.name}) WHERE {_missing(cluster, names, copy)}"
    )


def restore_statement(
    *, cluster: str, distributed: str, columns: Iterable[str], names: Names, copy: Copy, meant: bool
) -> str:
    """Return the INSERT that puts missing rows back through the distributed twin; run again it adds nothing.

    ``columns`` are named on both sides: columns may have been added, removed or moved since the copy was taken (which
    go back: putback.py). Without ``meant`` the rows that were meant to go stay away.
    """
    listed = ", ".join(quote_identifier(column) for column in columns)
    wanted = "" if meant or copy.meant is None else f" AND NOT ({_meant(cluster, copy)})"
    return (
        f"INSERT INTO {qualified(copy.part.database, distributed)} ({listed})"
        f" SELECT {listed} FROM cluster({quote_string(cluster)}, {copy.name})"
        f" WHERE {_missing(cluster, names, copy)}{wanted}"
    )
