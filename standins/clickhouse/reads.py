"""Carries out a query: asks the other nodes for what it reads from them and joins the answers here."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from standins.clickhouse.catalog import Catalog
from standins.clickhouse.distribute import SHARD_NUMBER, Planner, RemoteRead
from standins.clickhouse.engine import Result
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.faults import Faults
from standins.clickhouse.local import Context, Local, stored
from standins.clickhouse.sqltext import quote_string, sql_of, tree_of
from standins.clickhouse.topology import NodeAddress, Topology
from standins.clickhouse.wire import Unreachable, call

_NOT_FORWARDED = frozenset(
    {"max_execution_time", "readonly", "limit", "offset", "max_result_rows", "result_overflow_mode"}
)
"""Settings of the whole statement that a node must not apply to its part of it."""


class NodeUnavailable(Exception):
    """A fault rule makes this node look dead to the others."""


@dataclass(frozen=True)
class Parts:
    """What the other classes of this package need of a node to read and write."""

    node: NodeAddress
    topology: Topology
    catalog: Catalog
    local: Local
    faults: Faults


class Reader:
    """Queries of clients, and parts of queries that other nodes ask for."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="read")

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def query(self, context: Context, sql: str, fmt: str, files: Path) -> Result:
        """Run a client's query. Raises ClickHouseError."""
        return self._parts.local.run_text(context, self.resolved(context, sql, files), fmt)

    def resolved(self, context: Context, sql: str, files: Path) -> str:
        """The query with the other nodes' answers in place of what it reads from them: SQL for this node's engine."""
        tree = tree_of(sql)
        if tree is None:
            return sql
        parts = self._parts
        fetch = partial(self._fetch, context, files)
        changed = Planner(parts.catalog, parts.topology.cluster, context.database, fetch).resolve(tree)
        return sql_of(tree) if parts.local.rename(tree, files) or changed else sql

    def part(self, message: Mapping[str, Any]) -> bytes:
        """This node's part of another node's query, in Native format (or its structure, with `describe`).

        Raises ClickHouseError, or NodeUnavailable when a fault says so.
        """
        sql = str(message["sql"])
        silent = self._parts.faults.hit("silent", sql)
        if silent is not None and silent.get("mode", "omit") == "error":
            raise NodeUnavailable("injected by a fault rule")
        context = Context(message["database"], message["settings"], message["params"])
        local = self._parts.local
        with local.files() as files:
            text = local.text(sql, files)
            if message.get("describe"):
                return local.run_text(context, f"DESCRIBE TABLE ({text})", "TabSeparatedRaw").body
            return b"" if silent is not None else local.run_text(context, text, "Native").body

    def _fetch(self, context: Context, files: Path, read: RemoteRead) -> str:
        """Ask the nodes; returns a table expression with all their rows."""
        own = context.with_settings(dict(read.settings))
        settings = {name: value for name, value in own.settings.items() if name not in _NOT_FORWARDED}
        message = {"database": context.database, "settings": settings, "params": dict(context.params)}
        groups = self._groups(read.all_replicas)
        skip = own.setting("skip_unavailable_shards", "0") in ("1", "true")
        asked = [
            {**message, "sql": read.sql.replace(SHARD_NUMBER, f"toUInt32({number})")}
            for number in range(1, len(groups) + 1)
        ]
        answers = self._pool.map(lambda group, message: self._ask(group, message, skip), groups, asked)
        bodies = [body for body in answers if body]
        if not bodies:
            return f"null({quote_string(self._structure(groups, asked[0]))})"
        return f"file({stored(files, b''.join(bodies))}, 'Native')"

    def _groups(self, all_replicas: bool) -> list[list[NodeAddress]]:
        """Nodes to ask: each group answers once, by its first node that is alive."""
        topology, own = self._parts.topology, self._parts.node
        if all_replicas:
            return [[node] for node in topology.nodes]
        return [sorted(shard, key=lambda node: node.name != own.name) for shard in topology.shards()]

    def _ask(self, group: list[NodeAddress], message: Mapping[str, Any], skip: bool) -> bytes:
        reasons = []
        for node in group:
            try:
                return self._ask_one(node, message)
            except (Unreachable, NodeUnavailable) as error:
                reasons.append(str(error))
        if skip:
            return b""
        message_text = f"All connection tries failed. Log: {'; '.join(reasons)}"
        raise ClickHouseError(279, f"{message_text}: While executing Remote")

    def _ask_one(self, node: NodeAddress, message: Mapping[str, Any]) -> bytes:
        try:
            if node.name == self._parts.node.name:
                return self.part(message)
            return call(node, "/internal/read", message)
        except ClickHouseError as error:
            where = f"{error.message}: While executing Remote. Received from {node.name}:{node.port}"
            raise ClickHouseError(error.code, where) from error

    def _structure(self, groups: list[list[NodeAddress]], message: Mapping[str, Any]) -> str:
        """Column names and types of a read that gave no row."""
        for node in (node for group in groups for node in group):
            try:
                lines = self._ask_one(node, {**message, "describe": True}).decode().splitlines()
            except (Unreachable, NodeUnavailable):
                continue
            cells = [line.split("\t") for line in lines]
            return ", ".join(f"`{name}` {kind}" for name, kind, *_ in cells)
        raise ClickHouseError(279, "All connection tries failed: no node of the cluster answers")
