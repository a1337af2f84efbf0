"""Carries out a query: asks the other nodes for what it reads from them and joins the answers here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from standins.clickhouse.catalog import Catalog
from standins.clickhouse.distribute import Planner, RemoteRead
from standins.clickhouse.engine import Result
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.faults import Faults
from standins.clickhouse.lexer import Token, quote_string, tokens_of
from standins.clickhouse.local import Context, Files, Local
from standins.clickhouse.topology import NodeAddress, Topology
from standins.clickhouse.wire import ReadAnswer, Unreachable, call

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

    def query(self, context: Context, tokens: Sequence[Token], fmt: str, files: Files) -> Result:
        """Run a client's query. Raises ClickHouseError."""
        return self._parts.local.run_text(context, self.resolved(context, tokens, files), fmt)

    def resolved(self, context: Context, tokens: Sequence[Token], files: Files) -> str:
        """The query with the other nodes' answers in place of what it reads from them: SQL for this node's engine."""
        planner = Planner(self._parts.catalog, self._parts.topology.cluster, context.database)
        plan = planner.plan(tokens)
        if not plan.reads:
            return self._parts.local.text(tokens, files)
        answers: dict[str, str] = {}
        for read in plan.reads:
            sql = _filled(read.sql, answers)
            answers[read.place] = self._fetch(context, read, sql, files)
        return _filled(self._parts.local.text(list(tokens_of(plan.sql)), files), answers)

    def part(self, message: Mapping[str, Any]) -> ReadAnswer:
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
            text = local.text(list(tokens_of(sql)), files)
            if message.get("describe"):
                return ReadAnswer(local.run_text(context, f"DESCRIBE TABLE ({text})", "TabSeparatedRaw").body)
            body = b"" if silent is not None else local.run_text(context, text, "Native").body
            return ReadAnswer(body, silent is not None)

    def _fetch(self, context: Context, read: RemoteRead, sql: str, files: Files) -> str:
        """Ask the nodes; returns a table expression with all their rows."""
        own = context.with_settings(dict(read.settings))
        settings = {name: value for name, value in own.settings.items() if name not in _NOT_FORWARDED}
        message = {"sql": sql, "database": context.database, "settings": settings, "params": dict(context.params)}
        groups = self._groups(read.all_replicas)
        skip = own.setting("skip_unavailable_shards", "0") in ("1", "true")
        asked = [{**message, "sql": numbered(sql, number)} for number in range(1, len(groups) + 1)]
        answers = self._pool.map(lambda group, message: self._ask(group, message, skip), groups, asked)
        bodies = [body for body in answers if body]
        if not bodies:
            return f"null({quote_string(self._structure(groups, asked[0]))})"
        return f"file({quote_string(str(files.write(b''.join(bodies))))}, 'Native')"

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
                return self._ask_one(node, message).body
            except (Unreachable, NodeUnavailable) as error:
                reasons.append(str(error))
        if skip:
            return b""
        message_text = f"All connection tries failed. Log: {'; '.join(reasons)}"
        raise ClickHouseError(279, f"{message_text}: While executing Remote")

    def _ask_one(self, node: NodeAddress, message: Mapping[str, Any]) -> ReadAnswer:
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
                lines = self._ask_one(node, {**message, "describe": True}).body.decode().splitlines()
            except (Unreachable, NodeUnavailable):
                continue
            cells = [line.split("\t") for line in lines]
            return ", ".join(f"`{name}` {kind}" for name, kind, *_ in cells)
        raise ClickHouseError(279, "All connection tries failed: no node of the cluster answers")


def numbered(sql: str, number: int) -> str:
    """The part of one group, with its number (from 1) where the virtual column _shard_num is asked for."""
    if "_shard_num" not in sql:
        return sql
    tokens = list(tokens_of(sql))
    words: list[str] = []
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.name != "_shard_num":
            words.append(token.text)
        elif following is not None and following.upper == "AS":
            words.append(f"toUInt32({number})")
        else:
            words.append(f"(toUInt32({number}) AS `_shard_num`)")
    return " ".join(words)


def _filled(sql: str, answers: Mapping[str, str]) -> str:
    for place, source in answers.items():
        sql = sql.replace(place, source)
    return sql
