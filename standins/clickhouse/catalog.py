"""What a node must know to route a statement: engines and columns of tables, targets of Distributed tables."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass

from standins.clickhouse.engine import Engine
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.sqltext import sql_of, tree_of

COLUMNS_KEPT = 1_000
"""Sources whose columns are kept: each look costs a statement."""


@dataclass(frozen=True)
class Target:
    """Where a Distributed table points: cluster, local table, sharding expression (empty: none)."""

    cluster: str
    database: str
    table: str
    sharding: str


@dataclass(frozen=True)
class Tables:
    """Engines and Distributed targets of all user tables, by (database, table)."""

    engines: dict[tuple[str, str], str]
    targets: dict[tuple[str, str], Target]


class Catalog:
    """Cached look-ups; `forget` after every statement that may change tables."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._tables: Tables | None = None
        self._columns: dict[tuple[str, str], dict[str, bool]] = {}

    def tables(self) -> Tables:
        """All user tables as of the last change made through this node."""
        with self._lock:
            if self._tables is None:
                self._tables = self._load_tables()
            return self._tables

    def forget(self) -> None:
        """Read the tables again the next time they are asked for."""
        with self._lock:
            self._tables = None
            self._columns = {}

    def is_merge_tree(self, database: str, table: str) -> bool:
        """Whether the sandbox treats this table as replicated within its shard."""
        return self.tables().engines.get((database, table), "").endswith("MergeTree")

    def target(self, database: str, table: str) -> Target | None:
        """Target of a Distributed table, None for any other."""
        return self.tables().targets.get((database, table))

    def columns(self, source: str, database: str) -> dict[str, bool]:
        """The columns that a table or table function has here, and which are ALIAS; none if it cannot be described."""
        with self._lock:
            kept = self._columns
        found = kept.get((source, database))
        if found is None:
            found = self._described(source, database)
            # Into the dictionary that was there before the look: a change in between has put another one in its place.
            if found and len(kept) < COLUMNS_KEPT:
                kept[source, database] = found
        return found

    def _described(self, source: str, database: str) -> dict[str, bool]:
        with suppress(ClickHouseError), self._engine.session(database=database) as session:
            return {row[0]: row[2] == "ALIAS" for row in session.rows(f"DESCRIBE TABLE {source}") if len(row) > 2}
        return {}

    def _load_tables(self) -> Tables:
        sql = (
            "SELECT database, name, engine, engine_full FROM system.tables WHERE lower(database) NOT IN"
            " ('system', 'information_schema')"
        )
        with self._engine.session() as session:
            text = session.run(sql, "JSONCompactEachRow").body.decode()
        engines: dict[tuple[str, str], str] = {}
        targets: dict[tuple[str, str], Target] = {}
        for line in text.splitlines():
            database, name, engine, full = json.loads(line)
            engines[database, name] = engine
            if engine == "Distributed":
                targets[database, name] = _target(full)
        return Tables(engines, targets)


def _target(engine_full: str) -> Target:
    """Read `Distributed('cluster', 'db', 'table'[, sharding key])`."""
    tree = tree_of(f"SELECT {engine_full}")
    if tree is None:
        raise ClickHouseError(62, f"Syntax error: {engine_full}")
    cluster, database, table, *sharding = tree.selects[0].expressions
    return Target(cluster.name, database.name, table.name, sql_of(sharding[0]) if sharding else "")
