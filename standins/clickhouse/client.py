"""For tests and scripts: start an embedded cluster as processes, and use the nodes' own endpoints."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from standins.clickhouse.topology import NodeAddress, Topology, make_topology, write_topology
from standins.clickhouse.wire import PASSWORD_VARIABLE, USER

Row = dict[str, Any]

PROJECT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
"""Two seconds on an idle machine; many processes may want its cores."""
STOP_SECONDS = 15.0


class SandboxError(RuntimeError):
    """A node did not start or stop, or refused a request; the text has its answer or its log's end."""


class NodeClient:
    """The endpoints of one node; `password` as in SANDBOX_CLICKHOUSE_PASSWORD. Queries go to a real server as well."""

    def __init__(self, url: str, password: str | None = None, user: str = USER) -> None:
        self.url = url
        self._user = user
        self._password = os.environ.get(PASSWORD_VARIABLE, "") if password is None else password

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request as the user. Raises SandboxError with the node's text when it is refused."""
        request = urllib.request.Request(self.url + path, data=body, method=method)
        request.add_header("X-ClickHouse-User", self._user)
        request.add_header("X-ClickHouse-Key", self._password)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                data: bytes = answer.read()
                return data
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise SandboxError(f"{method} {self.url}{path} was refused with {error.code}: {text}") from error

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
            NodeAddress(f"node-{shard}-{replica}", shard, replica, "127.0.0.1", port)
            for (shard, replica), port in zip(places, free_ports(len(places)), strict=True)
        ]
        self.topology: Topology = make_topology(cluster, nodes)
        self.password = password
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        write_topology(self.topology, folder / "topology.json")

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
            self._launch(name)
        try:
            for name in wanted:
                self._wait_until_up(name)
        except BaseException:
            self.stop(kill=True)
            raise

    def _launch(self, name: str) -> None:
        command = [sys.executable, "-m", "standins.clickhouse", "--topology", str(self.folder / "topology.json")]
        command += ["--node", name, "--data", str(self.folder / name)]
        env = {**os.environ, "PYTHONPATH": str(PROJECT), PASSWORD_VARIABLE: self.password}
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(command, cwd=PROJECT, env=env, stdout=log, stderr=log)

    def _wait_until_up(self, name: str) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._processes[name].poll() is not None:
                raise SandboxError(f"node {name} ended at its start:\n{self.log_tail(name)}")
            with contextlib.suppress(OSError), urllib.request.urlopen(self.node(name).url + "/ping", timeout=2):
                return
            # A process tells nobody when it listens.
            time.sleep(0.05)
        raise SandboxError(f"node {name} did not answer within {START_SECONDS} s:\n{self.log_tail(name)}")

    def log_tail(self, name: str) -> str:
        """The end of a node's own log."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-3000:]

    def pid(self, name: str) -> int:
        """Process id of a running node."""
        return self._processes[name].pid

    def stop(self, *names: str, kill: bool = False) -> None:
        """Stop nodes (none named: all; `kill`: with SIGKILL) and wait for their end.

        Raises SandboxError if one does not end by itself, or ends with another exit code than 0.
        """
        ending = {name: self._processes.pop(name) for name in names or tuple(self._processes)}
        for process in ending.values():
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        bad = {}
        for name, process in ending.items():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                bad[name] = f"did not stop within {STOP_SECONDS} s"
            else:
                if process.returncode and not kill:
                    bad[name] = f"ended with exit code {process.returncode}"
        if bad:
            raise SandboxError("\n".join(f"{name} {what}:\n{self.log_tail(name)}" for name, what in bad.items()))

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


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()
