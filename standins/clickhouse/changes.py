"""Statements that change something on this node: which of them all replicas of the shard have to make, and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from standins.clickhouse.catalog import Catalog
from standins.clickhouse.engine import Engine, Result
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.keeper import Keeper
from standins.clickhouse.lexer import render, tokens_of
from standins.clickhouse.local import Context, Files, Local
from standins.clickhouse.mutations import Mutations
from standins.clickhouse.spool import Spool
from standins.clickhouse.statements import Statement
from standins.clickhouse.system_tables import rows_source

_LOCAL_COMMANDS = frozenset({"FREEZE", "UNFREEZE", "FETCH"})
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
        if statement.table is None:
            return None
        table = (statement.table[0] or context.database or "default", statement.table[1])
        if statement.command and statement.command[0].upper in _LOCAL_COMMANDS:
            return None
        return table if self._catalog.is_merge_tree(*table) else None

    def body(self, statement: Statement, table: tuple[str, str], context: Context) -> dict[str, Any]:
        """What the shard's log says about such a change; a mutation gets its id here."""
        mutation_id = ""
        if statement.is_mutation:
            number = self._keeper.count_up(f"mutation/{self._shard}/{table[0]}/{table[1]}")
            mutation_id = f"{number:010d}"
        return {
            "sql": statement.text(),
            "database": context.database,
            "settings": {**context.settings, **statement.settings},
            "params": dict(context.params),
            "mutation_id": mutation_id,
        }

    def on_this_node(self, statement: Statement, context: Context, fmt: str = "TabSeparated") -> Result:
        """Run a statement here and nowhere else. Raises ClickHouseError."""
        if statement.verb == "KILL" and statement.tokens[1].upper == "MUTATION":
            with self._local.files() as files:
                return self.kill(statement, context, fmt, files, self._mutations.kill)
        flushed = flushed_table(statement, context)
        if flushed is not None:
            self._spool.flush_soon(*flushed)
            return Result(b"")
        if [token.upper for token in statement.tokens[:3]] == ["SYSTEM", "FLUSH", "ASYNC"]:
            # The engine keeps no queue of asynchronous inserts, and says so by an error; a server always has one.
            return Result(b"")
        try:
            own = context.with_settings(statement.settings)
            with self._engine.session(own.settings, own.params, own.database) as session:
                return session.run(statement.text(), fmt)
        finally:
            self._forget(statement, context)

    def kill(self, statement: Statement, context: Context, fmt: str, files: Files, kill: Any) -> Result:
        """KILL MUTATION WHERE ...; `kill(database, table, mutation_id)` does it for one."""
        condition, test = _kill_parts(statement)
        sql = (
            "SELECT DISTINCT database, table, mutation_id, command FROM system.mutations"
            f" WHERE is_done = 0 AND ({condition})"
        )
        found = self._local.run(context, list(tokens_of(sql)), "TabSeparatedRaw", files).body.decode()
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
        words = [token.upper for token in statement.tokens[:2]]
        if words[:1] != ["DROP"] or words[1:] not in (["TABLE"], ["DATABASE"]):
            return
        listed = [token.name for token in statement.tokens[2:] if token.upper not in ("IF", "EXISTS", "SYNC")]
        names = [name for name in listed if name is not None]
        if words[1] == "DATABASE":
            self._keeper.forget_mutations(names[0], None)
        else:
            database = names[0] if len(names) > 1 else context.database or "default"
            self._keeper.forget_mutations(database, names[-1])


def flushed_table(statement: Statement, context: Context) -> tuple[str, str] | None:
    """The table of a SYSTEM FLUSH DISTRIBUTED, None for any other statement."""
    if [token.upper for token in statement.tokens[:3]] != ["SYSTEM", "FLUSH", "DISTRIBUTED"]:
        return None
    names = [token.name for token in statement.tokens[3:] if token.name is not None]
    return (names[0] if len(names) > 1 else context.database or "default"), names[-1]


def _kill_parts(statement: Statement) -> tuple[str, bool]:
    """(condition, TEST?) of a KILL MUTATION."""
    tokens = list(statement.tokens)
    where = next((index for index, token in enumerate(tokens) if token.upper == "WHERE"), None)
    if where is None:
        raise ClickHouseError(62, "Syntax error: KILL MUTATION needs WHERE.")
    last = tokens[-1].upper
    if last in ("TEST", "SYNC", "ASYNC"):
        tokens.pop()
    return render(tokens[where + 1 :]), last == "TEST"
