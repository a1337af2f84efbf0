"""One node: puts the parts together and sends each statement to the one that carries it out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from standins.clickhouse import grants
from standins.clickhouse.catalog import Catalog
from standins.clickhouse.changes import Changes, flushed_table
from standins.clickhouse.ddl import DdlWorker, OnCluster
from standins.clickhouse.engine import Engine, Result
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.faults import Faults
from standins.clickhouse.inserts import Inserter
from standins.clickhouse.keeper import Keeper
from standins.clickhouse.local import Context, Local
from standins.clickhouse.mutations import Mutations
from standins.clickhouse.reads import Parts, Reader
from standins.clickhouse.recorder import Recorder
from standins.clickhouse.replica import Replica
from standins.clickhouse.spool import Spool
from standins.clickhouse.sqltext import quote_name, quote_string
from standins.clickhouse.statements import Statement, is_insert, parse, parse_insert
from standins.clickhouse.system_tables import SystemTables
from standins.clickhouse.topology import Topology
from standins.clickhouse.wire import USER

INACTIVE_WAIT_SECONDS = "120"
"""ClickHouse's default of replication_wait_for_inactive_replica_timeout."""


@dataclass(frozen=True)
class Request:
    """One statement of a client. `raw` is the statement with the data of an INSERT behind it."""

    raw: bytes
    context: Context
    format: str = "TabSeparated"
    """Format of the answer when the statement names none."""


@dataclass(frozen=True)
class Answer:
    """What the client gets. `format` is None when the statement has no result."""

    result: Result
    format: str | None
    written_rows: int = 0


class Node:
    """One node of the embedded cluster. Thread-safe."""

    def __init__(self, topology: Topology, keeper_folder: Path, name: str, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.address = topology.node(name)
        self.topology = topology
        self.faults = Faults(data / "faults.json")
        self.recorder = Recorder(data / "statements.jsonl")
        self._engine = Engine(data, topology)
        self._catalog = Catalog(self._engine)
        self._keeper = Keeper(keeper_folder, name, self.address.shard, _data_id(data / "data-id"))
        self._spool = Spool(data / "spool", self.faults)
        self._privileges = grants.Privileges(self._engine)
        self._mutations = Mutations(self._engine, self._keeper, self.faults)
        system = SystemTables(
            self._engine,
            self._catalog,
            self._keeper,
            self._mutations,
            self.faults,
            topology,
            self.address,
            self.recorder,
            self._spool,
        )
        self._local = Local(self._engine, name, USER, system)
        self._parts = Parts(self.address, topology, self._catalog, self._local, self.faults)
        self._reader = Reader(self._parts)
        self._replica = Replica(self._engine, self._keeper, self._mutations, self.faults, topology, self.address)
        self._inserter = Inserter(self._engine, self._keeper, self._parts, self._reader, self._replica, self._spool)
        self._changes = Changes(
            self._engine, self._catalog, self._keeper, self._mutations, self._local, self.address.shard, self._spool
        )
        worker = DdlWorker(self._keeper, self._replica, self._changes, self.faults)
        self._replica.run_ddl = worker.run
        self._replica.table_changed = self._catalog.forget
        self._on_cluster = OnCluster(self._keeper, topology, self.address, self._local, self._replica)
        self.faults.on_change = self._rules_changed

    def start(self) -> None:
        """Begin to follow the shared log."""
        self._replica.start()
        self._spool.start()

    def close(self) -> None:
        """End all threads and let go of the data."""
        self._spool.stop()
        self._replica.stop()
        self._inserter.close()
        self._reader.close()
        self.recorder.close()
        self._keeper.close()
        self._engine.close()

    def _rules_changed(self) -> None:
        self._replica.rules_changed()
        self._spool.look()

    def run(self, request: Request) -> Answer:
        """Carry out one statement of a client. Raises ClickHouseError."""
        request = replace(request, context=self._with_profile(request.context))
        with self._local.files() as files:
            if is_insert(request.raw):
                return self._insert(request, files)
            text = request.raw.decode()
            statement = parse(text)
            fmt = statement.format or request.format
            if statement.cluster is not None:
                result = self._on_cluster.run(request.context, text, statement, fmt, files)
                return Answer(result, fmt if result.body else None)
            return self._single(statement, request.context, fmt, files)

    def _insert(self, request: Request, files: Path) -> Answer:
        insert = parse_insert(request.raw)
        return Answer(Result(b""), None, self._inserter.run(insert, request.context, files))

    def _single(self, statement: Statement, context: Context, fmt: str, files: Path) -> Answer:
        if statement.is_query:
            return Answer(self._reader.query(context, statement.text, fmt, files), fmt)
        if statement.starts_with("SHOW GRANTS") or statement.starts_with("CHECK GRANT"):
            return Answer(self._grants(statement, fmt), fmt)
        if (flushed := flushed_table(statement, context)) is not None:
            self._spool.flush(*flushed)
            return Answer(Result(b""), None)
        if statement.starts_with("KILL MUTATION"):
            return Answer(self._changes.kill(statement, context, fmt, files, self._kill), fmt)
        table = self._changes.replicated_table(statement, context)
        if table is None:
            result = self._changes.on_this_node(statement, context, fmt)
            return Answer(result, fmt if not statement.is_ddl else None)
        body = self._changes.body(statement, table, context)
        self._replica.write("alter", *table, body)
        if statement.is_mutation:
            self._wait_for(table, body["mutation_id"], context.with_settings(statement.settings), statement.verb)
        return Answer(Result(b""), None)

    def _kill(self, database: str, table: str, mutation_id: str) -> None:
        self._replica.write("kill", database, table, {"mutation_id": mutation_id})

    def _with_profile(self, context: Context) -> Context:
        """The user's profile under the client's own settings. Raises ClickHouseError 452 for one that is fixed."""
        self._check_fixed(context.settings)
        for rule in self.faults.active("profile"):
            context = replace(context, settings={**_texts(rule["settings"]), **context.settings})
        return context

    def _check_fixed(self, settings: Mapping[str, str]) -> None:
        for rule in self.faults.active("profile"):
            wanted = _texts(rule["settings"]) if rule.get("fixed") else {}
            for name in sorted(wanted.keys() & settings.keys()):
                if settings[name] != wanted[name]:
                    raise ClickHouseError(452, f"Setting {name} should not be changed")

    def _grants(self, statement: Statement, fmt: str) -> Result:
        text = grants.answer(self.faults.hit("grants", statement.text), USER)
        if statement.verb == "CHECK":
            allowed = grants.may(USER, text, statement.text, self._privileges)
            return self._local.run_text(Context(), f"SELECT toUInt8({int(allowed)}) AS result", fmt)
        column = quote_name(f"GRANTS FOR {USER}")
        sql = f"SELECT arrayJoin(splitByChar('\\n', {quote_string(grants.shown(text))})) AS {column}"
        return self._local.run_text(Context(), sql, fmt)

    def _wait_for(self, table: tuple[str, str], mutation_id: str, context: Context, verb: str) -> None:
        """Wait for a mutation as mutations_sync (0 none, 1 here, 2 all replicas) says."""
        name, default = ("lightweight_deletes_sync", "2") if verb == "DELETE" else ("mutations_sync", "0")
        sync = context.setting(name, default)
        if sync not in ("1", "2", "3"):
            return
        hosts = [self.address] if sync == "1" else list(self.topology.replicas_of(self.address.name))
        patience = float(context.setting("replication_wait_for_inactive_replica_timeout", INACTIVE_WAIT_SECONDS))
        end = time.monotonic() + patience
        source = "system.mutations" if sync == "1" else f"clusterAllReplicas({self.topology.cluster}, system.mutations)"
        sql = (
            f"SELECT hostName() AS host, is_done, is_killed, latest_fail_reason FROM {source}"
            f" WHERE database = {quote_string(table[0])} AND table = {quote_string(table[1])}"
            f" AND mutation_id = {quote_string(mutation_id)}"
        )
        reading = Context(settings={"skip_unavailable_shards": "1"})
        while True:
            with self._local.files() as files:
                found = self._reader.query(reading, sql, "TabSeparatedRaw", files).body.decode()
            rows = {row[0]: row[1:] for row in (line.split("\t", 3) for line in found.splitlines())}
            missing = [node.name for node in hosts if node.name not in rows]
            _raise_for(mutation_id, rows)
            if all(row[0] == "1" for row in rows.values()) and (not missing or time.monotonic() >= end):
                break
            # The other nodes' mutations are known only by asking.
            time.sleep(0.05)
        if missing:
            raise ClickHouseError(
                341,
                f"Mutation is not finished because some replicas are inactive right now: {', '.join(missing)}."
                " Mutation will be done asynchronously",
            )

    def read_part(self, message: Mapping[str, Any]) -> bytes:
        """Part of another node's query. Raises ClickHouseError or NodeUnavailable."""
        return self._reader.part(message)

    def write_part(self, message: Mapping[str, Any]) -> None:
        """Rows for this shard, from another node. Raises ClickHouseError."""
        self._inserter.write_part(message)

    def sync(self) -> None:
        """Carry out everything that the shared log holds for this node."""
        self._replica.catch_up()

    def wake(self) -> None:
        """Look at the shared log soon."""
        self._replica.wake()


def _texts(settings: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in settings.items()}


def _raise_for(mutation_id: str, rows: Mapping[str, list[str]]) -> None:
    for done, killed, reason in rows.values():
        if killed == "1":
            raise ClickHouseError(341, f"Mutation {mutation_id} was killed")
        if reason and done != "1":
            raise ClickHouseError(
                341, f"Exception happened during execution of mutation '{mutation_id}' reason: '{reason}'"
            )


def _data_id(path: Path) -> str:
    """An id that goes with the data folder: a new folder must not believe that it is up to date."""
    if not path.exists():
        path.write_text(uuid.uuid4().hex, encoding="utf-8")
    return path.read_text(encoding="utf-8")
