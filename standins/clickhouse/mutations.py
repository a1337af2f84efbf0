"""Mutations of this node: the engine's own, under the ids that all replicas of a shard show, held back on demand.

A mutation is given to the engine at once, so it covers exactly the rows that were there; `SYSTEM STOP MERGES` on its
table keeps it from being carried out as long as a fault rule says so.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from standins.clickhouse.engine import Engine, EngineSession
from standins.clickhouse.faults import Faults, Rule
from standins.clickhouse.keeper import Keeper, MutationRecord
from standins.clickhouse.local import Context
from standins.clickhouse.sqltext import quote_name, quote_string
from standins.clickhouse.statements import Statement, without_effect

log = logging.getLogger(__name__)

Row = dict[str, Any]

_ASYNCHRONOUS = {"mutations_sync": "0", "alter_sync": "0", "lightweight_deletes_sync": "0"}
_SETTLE_SECONDS = 5.0
"""Longest wait for mutations that run freely before the table's merges are stopped for one that shall not."""


class Mutations:
    """Runs, holds, lists and kills the mutations of one node. Calls that change something come under one lock."""

    def __init__(self, engine: Engine, keeper: Keeper, faults: Faults) -> None:
        self._engine = engine
        self._keeper = keeper
        self._faults = faults
        self._stopped: set[tuple[str, str]] = set()

    def apply(self, statement: Statement, table: tuple[str, str], mutation_id: str, context: Context) -> None:
        """Hand a change of a table to the engine. Raises ClickHouseError when the engine refuses it."""
        text = statement.text
        left = self._faults.hit("rows_left", text) if _removes(statement) else None
        if left is not None and not statement.is_mutation:
            return
        rule = self._faults.hit("mutation", text) if statement.is_mutation else None
        shown = ""
        sql = text
        if left is not None:
            sql, shown = without_effect(text), self._shown(statement)
        if rule is not None:
            self._settle(*table)
            self._stop(table)
        settings = {**context.settings, **_ASYNCHRONOUS}
        with self._engine.session(settings, context.params, context.database) as session:
            made = self._orphans(session, table, statement) if statement.is_mutation else []
            if not made:
                before = _native_ids(session, *table)
                session.run(sql)
                made = [number for number in _native_ids(session, *table) if number not in before]
        for native in made:
            number = None if rule is None else int(rule["id"])
            record = MutationRecord(*table, native, mutation_id or native, shown, number, time.time())
            self._keeper.save_mutation(record)

    def rows(self) -> list[Row]:
        """Rows of system.mutations; columns that are missing have their type's default."""
        with self._engine.session({"output_format_json_quote_64bit_integers": "0"}) as session:
            lines = session.run("SELECT * FROM system.mutations", "JSONEachRow").body.decode().splitlines()
        records = self._keeper.mutations()
        rows = []
        for line in lines:
            row: Row = json.loads(line)
            record = records.get((row["database"], row["table"], row["mutation_id"]))
            if record is not None:
                row["mutation_id"] = record.mutation_id
                row["command"] = record.command or row["command"]
                rule = self._holding(record)
                if rule is not None:
                    _hold(row, rule)
            rows.append(row)
        return rows

    def kill(self, database: str, table: str, mutation_id: str) -> bool:
        """Kill one mutation; whether there was an unfinished one."""
        for record in self._keeper.mutations().values():
            if (record.database, record.table, record.mutation_id) != (database, table, mutation_id):
                continue
            held = self._holding(record) is not None
            self._keep_listed(database, table, mutation_id)
            condition = (
                f"database = {quote_string(database)} AND table = {quote_string(table)}"
                f" AND mutation_id = {quote_string(record.native_id)}"
            )
            with self._engine.session() as session:
                open_here = bool(session.rows(f"SELECT 1 FROM system.mutations WHERE {condition} AND is_done = 0"))
                if open_here:
                    session.run(f"KILL MUTATION WHERE {condition} SYNC")
            free = MutationRecord(database, table, record.native_id, mutation_id, record.command, None, record.created)
            self._keeper.save_mutation(free)
            self.tick()
            return held or open_here
        return False

    def _keep_listed(self, database: str, table: str, mutation_id: str) -> None:
        place = (database, table, mutation_id)
        for row in self.rows():
            if (row["database"], row["table"], row["mutation_id"]) != place or int(row["is_done"]):
                continue
            if self._faults.hit("kill_lists", str(row["command"])) is not None:
                self._faults.add([{"kind": "overlay", "table": "mutations", "add": [{**row, "is_killed": 1}]}])

    def tick(self) -> None:
        """Stop and start the tables' merges as the rules say now."""
        held = set()
        for record in self._keeper.mutations().values():
            if self._holding(record) is not None:
                held.add((record.database, record.table))
        for table in held - self._stopped:
            self._stop(table)
        for table in self._stopped - held:
            self._stopped.discard(table)
            self._system("START", table)

    @property
    def holding(self) -> bool:
        """Whether any table is held."""
        return bool(self._stopped)

    def _holding(self, record: MutationRecord) -> Rule | None:
        if record.rule is None or self._faults.is_over(record.rule, record.created):
            return None
        return self._faults.get(record.rule)

    def _settle(self, database: str, table: str) -> None:
        if (database, table) in self._stopped:
            return
        sql = (
            f"SELECT count() FROM system.mutations WHERE database = {quote_string(database)}"
            f" AND table = {quote_string(table)} AND is_done = 0 AND latest_fail_reason = ''"
        )
        end = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < end:
            with self._engine.session() as session:
                if session.rows(sql) == [["0"]]:
                    return
            # The engine has no call that waits for a mutation which is under way already.
            time.sleep(0.02)

    def _stop(self, table: tuple[str, str]) -> None:
        self._stopped.add(table)
        self._system("STOP", table)

    def _system(self, word: str, table: tuple[str, str]) -> None:
        database, name = table
        exists = f"EXISTS TABLE {quote_name(database)}.{quote_name(name)}"
        with self._engine.session() as session:
            if session.rows(exists) == [["1"]]:
                session.run(f"SYSTEM {word} MERGES {quote_name(database)}.{quote_name(name)}")

    def _orphans(self, session: EngineSession, table: tuple[str, str], statement: Statement) -> list[str]:
        """The same mutation, given to the engine just before this node was killed and not noted."""
        known = {native for database, name, native in self._keeper.mutations() if (database, name) == table}
        unknown = [native for native in _native_ids(session, *table) if native not in known]
        if not unknown:
            return []
        command = self._shown(statement)
        listed = ", ".join(quote_string(native) for native in unknown)
        sql = (
            f"SELECT mutation_id FROM system.mutations WHERE database = {quote_string(table[0])}"
            f" AND table = {quote_string(table[1])} AND command = {quote_string(command)} AND mutation_id IN ({listed})"
        )
        return [row[0] for row in session.rows(sql)][:1]

    def _shown(self, statement: Statement) -> str:
        """The command as system.mutations would write it."""
        sql = f"SELECT formatQuerySingleLine({quote_string(statement.text)})"
        with self._engine.session() as session:
            formatted = session.run(sql, "TabSeparatedRaw").body.decode().strip()
        if statement.verb == "DELETE":
            return f"(UPDATE _row_exists = 0 {formatted[formatted.index('WHERE') :]})"
        return formatted[formatted.index("(") :]


def _hold(row: Row, rule: Rule) -> None:
    row["is_done"] = 0
    row["parts_to_do"] = rule.get("parts") or max(1, int(row["parts_to_do"]))
    row["is_killed"] = int(bool(rule.get("killed")))
    if rule.get("reason"):
        row["latest_fail_reason"] = rule["reason"]
        row["latest_fail_time"] = row["create_time"]
        row["latest_failed_part"] = (row["parts_to_do_names"] or ["all_1_1_0"])[0]


def _native_ids(session: EngineSession, database: str, table: str) -> list[str]:
    sql = (
        f"SELECT mutation_id FROM system.mutations WHERE database = {quote_string(database)}"
        f" AND table = {quote_string(table)}"
    )
    return [row[0] for row in session.rows(sql)]


def _removes(statement: Statement) -> bool:
    """Whether the statement takes rows away: what the fault `rows_left` is about."""
    return statement.verb in ("DELETE", "TRUNCATE") or statement.command[:1] in (("DELETE",), ("DROP",))
