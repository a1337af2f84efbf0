"""For tests and scripts: start an embedded cluster as processes, and use the nodes' own endpoints."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import urllib3

from standins.clickhouse.topology import NodeAddress, Topology
from standins.clickhouse.wire import PASSWORD_VARIABLE, USER
from standins.ports import free_ports
from standins.serverprocess import SandboxError, ServerProcess, send

__all__ = ["ClickHouseSandbox", "NodeClient", "Row", "SandboxError", "running"]

Row = dict[str, Any]

START_SECONDS = 120.0
"""Two seconds on an idle machine; many processes may want its cores."""


class NodeClient:
    """The endpoints of one node; `password` as in SANDBOX_CLICKHOUSE_PASSWORD. Queries go to a real server as well."""

    def __init__(self, url: str, password: str | None = None, user: str = USER) -> None:
        self.url = url
        self._user = user
        self._password = os.environ.get(PASSWORD_VARIABLE, "") if password is None else password

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request as the user. Raises SandboxError with the node's text when it is refused."""
        headers = urllib3.make_headers(basic_auth=f"{self._user}:{self._password}")
        return send(method, self.url + path, body, {**headers, "Content-Type": "text/plain"})

    def query(self, sql: str, **settings: object) -> list[list[str]]:
        """Run one statement; rows as text cells (tab separated raw). Raises SandboxError."""
        query = urllib.parse.urlencode({"default_format": "TabSeparatedRaw", **settings})
        text = self.request("POST", f"/?{query}", sql.encode()).decode()
        return [line.split("\t") for line in text.splitlines()]

    def statements(self, *, queries: bool = False, since: int = 0, contains: str = "") -> list[Row]:
        """What clients sent, in order: changes only, or with `queries` everything; `since` is an exclusive id."""
        query = urllib.parse.urlencode({"queries": int(queries), "since": since, "contains": contains})
        rows: list[Row] = json.loads(self.request("GET", f"/statements?{query}"))
        return rows

    def clear_statements(self) -> None:
        """Forget the record."""
        self.request("DELETE", "/statements")

    def add_faults(self, *rules: Mapping[str, Any]) -> list[int]:
        """Add rules (see standins.clickhouse.faults); returns their ids."""
        ids: list[int] = json.loads(self.request("POST", "/faults", json.dumps(rules).encode()))["ids"]
        return ids

    def faults(self) -> list[Row]:
        """The rules with their hits."""
        rows: list[Row] = json.loads(self.request("GET", "/faults"))
        return rows

    def clear_faults(self, number: int | None = None) -> None:
        """Delete one rule or all; what they held back goes on."""
        self.request("DELETE", "/faults" if number is None else f"/faults/{number}")


class ClickHouseSandbox:
    """An embedded cluster below one folder. `shards` are the numbers of replicas, for example (2, 2)."""

    def __init__(
        self, folder: Path, shards: Sequence[int] = (2, 2), cluster: str = "conversations", password: str = ""
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        places = [(shard, replica) for shard, count in enumerate(shards, 1) for replica in range(1, count + 1)]
        nodes = [
            NodeAddress(name=f"node-{shard}-{replica}", shard=shard, replica=replica, host="127.0.0.1", port=port)
            for (shard, replica), port in zip(places, free_ports(len(places)), strict=True)
        ]
        self.topology = Topology(cluster=cluster, nodes=tuple(nodes))
        self.password = password
        self._processes = {node.name: ServerProcess(node.name, folder / f"{node.name}.log") for node in nodes}
        (folder / "topology.json").write_text(self.topology.model_dump_json(), encoding="utf-8")

    @property
    def names(self) -> list[str]:
        """Names of the nodes, by shard and replica."""
        return [node.name for node in self.topology.nodes]

    def node(self, name: str) -> NodeClient:
        """The endpoints of one node."""
        return NodeClient(self.topology.node(name).url, self.password)

    def nodes(self) -> list[NodeClient]:
        """The endpoints of all nodes."""
        return [self.node(name) for name in self.names]

    def start(self, *names: str) -> None:
        """Start nodes (none named: all) and wait until they answer. Raises SandboxError."""
        wanted = names or tuple(self.names)
        for name in wanted:
            arguments = ["--topology", str(self.folder / "topology.json"), "--node", name]
            arguments += ["--data", str(self.folder / name)]
            self._processes[name].launch("standins.clickhouse", arguments, {PASSWORD_VARIABLE: self.password})
        try:
            for name in wanted:
                self._processes[name].wait_until_up(partial(str, f"{self.node(name).url}/ping"), START_SECONDS)
        except BaseException:
            self.stop(kill=True)
            raise

    def pid(self, name: str) -> int:
        """Process id of a running node."""
        return self._processes[name].pid

    def stop(self, *names: str, kill: bool = False) -> None:
        """Stop nodes (none named: all; `kill`: with SIGKILL) and wait for their end.

        Raises SandboxError if one does not end by itself, or ends with another exit code than 0.
        """
        ending = [self._processes[name] for name in names or self.names]
        for process in ending:
            process.tell_to_stop(kill)
        if problems := [problem for process in ending if (problem := process.wait_for_end(kill))]:
            raise SandboxError("\n".join(problems))

    def restart(self, *names: str, kill: bool = False) -> None:
        """Stop and start nodes over the same folders and ports."""
        wanted = names or tuple(self.names)
        self.stop(*wanted, kill=kill)
        self.start(*wanted)

    def clear(self) -> None:
        """Delete all fault rules and the record on every node."""
        for node in self.nodes():
            node.clear_faults()
            node.clear_statements()


@contextlib.contextmanager
def running(sandbox: ClickHouseSandbox) -> Iterator[ClickHouseSandbox]:
    """Start all nodes, stop them at the end in any case."""
    sandbox.start()
    try:
        yield sandbox
    finally:
        sandbox.stop()
