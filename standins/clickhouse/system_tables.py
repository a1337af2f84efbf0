"""System tables that the engine alone cannot answer truthfully, and the rows that fault rules put over any of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from standins.clickhouse.catalog import Catalog
from standins.clickhouse.engine import Engine
from standins.clickhouse.faults import Faults, Rule, pattern_of
from standins.clickhouse.keeper import Entry, HostStatus, Keeper
from standins.clickhouse.local import stored, structure_of
from standins.clickhouse.mutations import Mutations
from standins.clickhouse.recorder import Recorder
from standins.clickhouse.spool import Spool
from standins.clickhouse.sqltext import quote_name, quote_string
from standins.clickhouse.topology import NodeAddress, Topology
from standins.clickhouse.wire import is_alive
from standins.faults import fits

Row = dict[str, Any]


class SystemTables:
    """Table expressions for `system.<name>` on one node."""

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        keeper: Keeper,
        mutations: Mutations,
        faults: Faults,
        topology: Topology,
        node: NodeAddress,
        recorder: Recorder,
        spool: Spool,
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._keeper = keeper
        self._mutations = mutations
        self._faults = faults
        self._topology = topology
        self._node = node
        self._columns: dict[str, dict[str, str]] = {}
        self._made: Mapping[str, Callable[[], list[Row]]] = {
            "clusters": self._clusters,
            "mutations": mutations.rows,
            "replicas": self._replicas,
            "replication_queue": self._queue,
            "distributed_ddl_queue": self._ddl_queue,
            "processes": recorder.processes,
            "distribution_queue": spool.rows,
            # The engine has no place to keep policies, and may not be asked for them.
            "row_policies": list,
        }

    def source(self, table: str, files: Path) -> str | None:
        """SQL that stands for `system.<table>`; None when the engine's own table will do."""
        rules = [rule for rule in self._faults.active("overlay") if rule["table"] == table]
        make = self._made.get(table)
        if make is None and not rules:
            return None
        rows = make() if make is not None else self._own_rows(table)
        for rule in rules:
            rows = overlay(rows, rule)
        return rows_source(rows, self.columns(table), files)

    def columns(self, table: str) -> dict[str, str]:
        """Real columns (no aliases) of a system table and their types."""
        if table not in self._columns:
            sql = (
                "SELECT name, type FROM system.columns WHERE database = 'system' AND default_kind = ''"
                f" AND table = {quote_string(table)} ORDER BY position"
            )
            with self._engine.session() as session:
                self._columns[table] = {row[0]: row[1] for row in session.rows(sql)}
        return self._columns[table]

    def _own_rows(self, table: str) -> list[Row]:
        with self._engine.session({"output_format_json_quote_64bit_integers": "0"}) as session:
            text = session.run(f"SELECT * FROM system.{quote_name(table)}", "JSONEachRow").body.decode()
        return [json.loads(line) for line in text.splitlines()]

    def _clusters(self) -> list[Row]:
        return [
            {
                "cluster": self._topology.cluster,
                "shard_num": node.shard,
                "shard_weight": 1,
                "internal_replication": 1,
                "replica_num": node.replica,
                "host_name": node.name,
                "host_address": node.host,
                "port": node.port,
                "is_local": int(node.name == self._node.name),
                "user": "default",
            }
            for node in self._topology.nodes
        ]

    def _replicas(self) -> list[Row]:
        replicas = self._topology.replicas_of(self._node.name)
        active = {node.name: int(node.name == self._node.name or is_alive(node)) for node in replicas}
        waiting: dict[tuple[str, str], list[Entry]] = {}
        for entry in self._keeper.backlog():
            waiting.setdefault((entry.database, entry.table), []).append(entry)
        rows = []
        for (database, table), engine in self._catalog.tables().engines.items():
            if not engine.endswith("MergeTree"):
                continue
            queue = waiting.get((database, table), [])
            path = f"/clickhouse/tables/{self._node.shard}/{database}/{table}"
            rows.append(
                {
                    "database": database,
                    "table": table,
                    "engine": f"Replicated{engine}",
                    "is_leader": 1,
                    "can_become_leader": 1,
                    "zookeeper_name": "default",
                    "zookeeper_path": path,
                    "replica_name": self._node.name,
                    "replica_path": f"{path}/replicas/{self._node.name}",
                    "queue_size": len(queue),
                    "inserts_in_queue": sum(entry.kind == "insert" for entry in queue),
                    "part_mutations_in_queue": sum(entry.kind == "alter" for entry in queue),
                    "absolute_delay": int(time.time() - queue[0].created) if queue else 0,
                    "total_replicas": len(replicas),
                    "active_replicas": sum(active.values()),
                    "replica_is_active": active,
                }
            )
        return rows

    def _queue(self) -> list[Row]:
        kinds = {"insert": "GET_PART", "alter": "MUTATE_PART", "kill": "MUTATE_PART"}
        return [
            {
                "database": entry.database,
                "table": entry.table,
                "replica_name": self._node.name,
                "position": position,
                "node_name": f"queue-{entry.seq:010d}",
                "type": kinds[entry.kind],
                "create_time": int(entry.created),
            }
            for position, entry in enumerate(self._keeper.backlog())
        ]

    def _ddl_queue(self) -> list[Row]:
        rows = []
        for entry in self._keeper.ddl_entries():
            answers = {status.node: status for status in self._keeper.statuses(entry.seq)}
            rows += [self._ddl_row(entry, node, answers.get(node.name)) for node in self._topology.nodes]
        return rows

    def _ddl_row(self, entry: Entry, node: NodeAddress, status: HostStatus | None) -> Row:
        initiator = self._topology.node(str(entry.body["initiator"]))
        row: Row = {
            "entry": f"query-{entry.seq:010d}",
            "entry_version": 5,
            "initiator_host": initiator.name,
            "initiator_port": initiator.port,
            "cluster": self._topology.cluster,
            "query": entry.body["sql"],
            "settings": dict(entry.body["settings"]),
            "query_create_time": int(entry.created),
            "host": node.name,
            "port": node.port,
            "status": "Inactive",
        }
        if status is not None:
            row |= {
                "status": "Finished",
                "exception_code": status.code,
                "exception_text": status.error,
                "query_finish_time": int(status.finished),
                "query_duration_ms": int((status.finished - entry.created) * 1000),
            }
        return row


def rows_source(rows: list[Row], columns: Mapping[str, str], files: Path) -> str:
    """A table expression that holds exactly these rows."""
    data = "".join(json.dumps({name: row[name] for name in columns if name in row}) + "\n" for row in rows)
    return f"file({stored(files, data.encode())}, 'JSONEachRow', {quote_string(structure_of(columns))})"


def overlay(rows: list[Row], rule: Rule) -> list[Row]:
    """Put one rule of kind `overlay` over the rows."""
    where = rule.get("where", {})
    pattern = pattern_of(rule)
    result = []
    for row in rows:
        hit = all(str(row.get(name)) == str(value) for name, value in where.items())
        hit = hit and fits(pattern, json.dumps(row))
        if hit and rule.get("drop"):
            continue
        result.append({**row, **rule.get("set", {})} if hit else row)
    return [*result, *rule.get("add", [])]
