"""INSERT: reads the rows with the engine, splits them by shard, and gives every shard its part for all its replicas."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from standins.clickhouse.catalog import Target
from standins.clickhouse.engine import Engine, EngineSession
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.keeper import Keeper
from standins.clickhouse.local import Context, stored
from standins.clickhouse.reads import Parts, Reader
from standins.clickhouse.replica import Replica
from standins.clickhouse.spool import Spool, Spooled
from standins.clickhouse.sqltext import quote_name
from standins.clickhouse.statements import Insert
from standins.clickhouse.topology import NodeAddress
from standins.clickhouse.wire import Unreachable, call

_ROWS = "sandbox_rows"
"""Temporary table (seen by one session only) that holds the rows while they are split."""
_WHOLE = " SETTINGS limit = 0, offset = 0, max_rows_to_read = 0, max_result_rows = 0"
"""What a client's settings must not cut when its own rows are moved."""


class Inserter:
    """INSERTs that clients send to this node."""

    def __init__(
        self, engine: Engine, keeper: Keeper, parts: Parts, reader: Reader, replica: Replica, spool: Spool
    ) -> None:
        self._engine = engine
        self._keeper = keeper
        self._parts = parts
        self._reader = reader
        self._replica = replica
        self._spool = spool
        spool.send = self._send
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="insert")

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def run(self, insert: Insert, context: Context, files: Path) -> int:
        """Carry out one INSERT; returns the rows written. Raises ClickHouseError."""
        own = context.with_settings(insert.settings)
        source = self._source(insert, own, files)
        table = (insert.table[0] or own.database or "default", insert.table[1])
        with self._engine.session(own.settings, own.params, own.database) as session:
            target = self._parts.catalog.target(*table)
            if target is None and not self._parts.catalog.is_merge_tree(*table):
                session.run(f"INSERT INTO {insert.target} {insert.columns} {source}")
                return 0
            name = f"{quote_name(table[0])}.{quote_name(table[1])}"
            session.run(f"CREATE TEMPORARY TABLE {_ROWS} AS {name} ENGINE = Memory")
            session.run(f"INSERT INTO {_ROWS} {insert.columns} {source}")
            rows = int(session.rows(f"SELECT count() FROM {_ROWS}{_WHOLE}")[0][0])
            if self._parts.faults.hit("insert_drop", f"INSERT INTO {table[0]}.{table[1]}") is not None:
                return rows
            if target is None:
                self._write_here(table, session.run(f"SELECT * FROM {_ROWS}{_WHOLE}", "Native").body)
            else:
                self._write_shards(table, target, session)
        return rows

    def write_part(self, message: Mapping[str, Any]) -> None:
        """Rows of this node's shard, from another node. Raises ClickHouseError."""
        self._replica.write("insert", message["database"], message["table"], {"block": message["block"]})

    def _source(self, insert: Insert, context: Context, files: Path) -> str:
        if insert.format is None:
            return self._reader.resolved(context, insert.query, files)
        return f"FROM INFILE {stored(files, insert.data)} FORMAT {insert.format}"

    def _write_here(self, table: tuple[str, str], block: bytes) -> None:
        if block:
            message = {"database": table[0], "table": table[1], "block": self._keeper.new_block(block)}
            self.write_part(message)

    def _write_shards(self, table: tuple[str, str], target: Target, session: EngineSession) -> None:
        if target.cluster != self._parts.topology.cluster:
            raise ClickHouseError(701, f"Requested cluster '{target.cluster}' not found")
        shards = self._parts.topology.shards()
        if len(shards) > 1 and not target.sharding:
            message = (
                "Method write is not supported by storage Distributed with more than one shard and no sharding key"
            )
            raise ClickHouseError(55, f"{message} provided")
        parts = []
        for number in range(len(shards)):
            condition = f" WHERE ({target.sharding}) % {len(shards)} = {number}" if len(shards) > 1 else ""
            block = session.run(f"SELECT * FROM {_ROWS}{condition}{_WHOLE}", "Native").body
            if block:
                parts.append((number, block))
        rule = self._parts.faults.hit("spool", f"INSERT INTO {table[0]}.{table[1]}")
        if rule is not None:
            for number, block in parts:
                self._spool.keep(rule, *table, number, block)
            return
        for done in [self._pool.submit(self._write_shard, target, shards[number], block) for number, block in parts]:
            done.result()

    def _send(self, item: Spooled, block: bytes) -> None:
        """Deliver a spooled block. Raises ClickHouseError."""
        target = self._parts.catalog.target(item.database, item.table)
        if target is None:
            raise ClickHouseError(60, f"Table {item.database}.{item.table} does not exist")
        self._write_shard(target, self._parts.topology.shards()[item.shard], block)

    def _write_shard(self, target: Target, shard: tuple[NodeAddress, ...], block: bytes) -> None:
        message = {"database": target.database, "table": target.table, "block": self._keeper.new_block(block)}
        reasons = []
        own = self._parts.node.name
        for node in sorted(shard, key=lambda node: node.name != own):
            try:
                if node.name == own:
                    self.write_part(message)
                else:
                    call(node, "/internal/write", message)
            except Unreachable as error:
                reasons.append(str(error))
            else:
                return
        raise ClickHouseError(279, f"All connection tries failed. Log: {'; '.join(reasons)}")
