"""Statements that change something on this node: which of them all replicas of the shard have to make, and the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from standins.clickhouse.catalog import Catalog
from standins.clickhouse.engine import Engine, Result
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.keeper import Keeper
from standins.clickhouse.local import Context, Local
from standins.clickhouse.mutations import Mutations
from standins.clickhouse.spool import Spool
from standins.clickhouse.statements import Statement
from standins.clickhouse.system_tables import rows_source

_LOCAL_COMMANDS = (("FREEZE",), ("UNFREEZE",), ("FETCH",))
_KILL = re.compile(r"KILL\s+MUTATION\s+WHERE\s(?P<condition>.*?)(?:\s(?P<mode>TEST|SYNC|ASYNC))?", re.I | re.S)
_KILL_COLUMNS = {
    "kill_status": "String",
    "database": "String",
    "table": "String",
    "mutation_id": "String",
    "command": "String",
}


class Changes:
    """Everything but INSERT."""

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        keeper: Keeper,
        mutations: Mutations,
        local: Local,
        shard: int,
        spool: Spool,
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._keeper = keeper
        self._mutations = mutations
        self._local = local
        self._shard = shard
        self._spool = spool

    def replicated_table(self, statement: Statement, context: Context) -> tuple[str, str] | None:
        """The table that the statement changes on all replicas of the shard; None for any other statement."""
        if not statement.changes_table or statement.command[:1] in _LOCAL_COMMANDS:
            return None
        table = table_of(statement, context)
        return table if self._catalog.is_merge_tree(*table) else None

    def body(self, statement: Statement, table: tuple[str, str], context: Context) -> dict[str, Any]:
        """What the shard's log says about such a change; a mutation gets its id here."""
        mutation_id = ""
        if statement.is_mutation:
            number = self._keeper.count_up(f"mutation/{self._shard}/{table[0]}/{table[1]}")
            mutation_id = f"{number:010d}"
        return {
            "sql": statement.text,
            "database": context.database,
            "settings": {**context.settings, **statement.settings},
            "params": dict(context.params),
            "mutation_id": mutation_id,
        }

    def on_this_node(self, statement: Statement, context: Context, fmt: str = "TabSeparated") -> Result:
        """Run a statement here and nowhere else. Raises ClickHouseError."""
        if statement.starts_with("KILL MUTATION"):
            with self._local.files() as files:
                return self.kill(statement, context, fmt, files, self._mutations.kill)
        flushed = flushed_table(statement, context)
        if flushed is not None:
            self._spool.flush_soon(*flushed)
            return Result(b"")
        if statement.starts_with("SYSTEM FLUSH ASYNC"):
            # The engine keeps no queue of asynchronous inserts, and says so by an error; a server always has one.
            return Result(b"")
        try:
            own = context.with_settings(statement.settings)
            with self._engine.session(own.settings, own.params, own.database) as session:
                return session.run(statement.text, fmt)
        finally:
            self._forget(statement, context)

    def kill(self, statement: Statement, context: Context, fmt: str, files: Path, kill: Any) -> Result:
        """KILL MUTATION WHERE ...; `kill(database, table, mutation_id)` does it for one."""
        parts = _KILL.fullmatch(statement.text)
        if parts is None:
            raise ClickHouseError(62, "Syntax error: KILL MUTATION needs WHERE.")
        test = (parts["mode"] or "").upper() == "TEST"
        sql = (
            "SELECT DISTINCT database, table, mutation_id, command FROM system.mutations"
            f" WHERE is_done = 0 AND ({parts['condition']})"
        )
        found = self._local.run(context, sql, "TabSeparatedRaw", files).body.decode()
        rows: list[Mapping[str, Any]] = []
        for line in found.splitlines():
            row = dict(zip(("database", "table", "mutation_id", "command"), line.split("\t", 3), strict=True))
            if not test:
                kill(row["database"], row["table"], row["mutation_id"])
            rows.append({"kill_status": "" if test else "waiting", **row})
        source = rows_source([dict(row) for row in rows], _KILL_COLUMNS, files)
        return self._local.run_text(Context(), f"SELECT * FROM {source}", fmt)

    def _forget(self, statement: Statement, context: Context) -> None:
        self._catalog.forget()
        if statement.starts_with("DROP DATABASE"):
            self._keeper.forget_mutations(statement.table[1], None)
        elif statement.starts_with("DROP TABLE"):
            self._keeper.forget_mutations(*table_of(statement, context))


def flushed_table(statement: Statement, context: Context) -> tuple[str, str] | None:
    """The table of a SYSTEM FLUSH DISTRIBUTED, None for any other statement."""
    return table_of(statement, context) if statement.starts_with("SYSTEM FLUSH DISTRIBUTED") else None


def table_of(statement: Statement, context: Context) -> tuple[str, str]:
    """(database, table) that a statement names."""
    database, name = statement.table
    return database or context.database or "default", name
