"""Helpers of the Temporal tests: a real dev server, a worker in this process, a target in memory."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from temporalio.client import Client, WorkflowHandle

from sandbox.data.loader import Paths, load
from sandbox.data.spec import ClusterSpec
from sandbox.data.tables import Block
from sandbox.reindexer.activities import ReindexActivities, Settings
from sandbox.reindexer.faultfile import FaultFile
from sandbox.reindexer.model import WORKFLOW_TYPE, ReindexRequest, ReindexResult, task_queue, workflow_id
from sandbox.reindexer.worker import make_worker

ROOT = Path(__file__).parents[2]
NAMESPACE = "ingestion"
JANUARY = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")
LIMIT_SECONDS = 20.0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def python_environment(**extra: str) -> dict[str, str]:
    """Environment of a child process that imports the project."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | extra


@contextmanager
def child(*command: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python module as a child process, ended with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=python_environment(**environment),
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until something listens; fails with the log when the process ends or the limit is over."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"nothing listens on port {port}: {log.read_text()}")
        time.sleep(0.05)


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """A dev server of its own; gives host:port."""
    port = free_port()
    log = folder / "temporal.log"
    arguments = ("--port", str(port), "--data", str(folder / "temporal"))
    with child("standins.temporal.server", *arguments, log=log) as process:
        wait_for_port(port, process, log)
        yield f"127.0.0.1:{port}"


@dataclass
class MemoryTarget:
    """Keeps inserted blocks; commands are an error, because a reindex only inserts."""

    blocks: list[tuple[str, Block]] = field(default_factory=list)
    closed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def command(self, statement: str) -> None:
        """Refuse."""
        raise AssertionError(f"a reindex must not run {statement!r}")

    def insert(self, database: str, block: Block) -> None:
        """Keep the block."""
        with self.lock:
            self.blocks.append((database, block))

    def close(self) -> None:
        """Count the call."""
        self.closed += 1

    def keys(self, database: str, table: str) -> list[str]:
        """Keys of all inserted rows of one table, in order."""
        with self.lock:
            chosen = [block for name, block in self.blocks if (name, block.table) == (database, table)]
        return [str(key) for block in chosen for key in block.columns[0]]


@dataclass
class Stand:
    """A client, its cluster's data and where the worker writes to."""

    client: Client
    spec: ClusterSpec
    target: MemoryTarget
    faults: Path

    async def start(self, customer: str, window: tuple[str, str] = JANUARY) -> WorkflowHandle[object, ReindexResult]:
        """Start one workflow of profile `voice`."""
        return await self.client.start_workflow(
            WORKFLOW_TYPE,
            ReindexRequest(customer, "voice", *window, {"REINDEX_MODE": "process"}),
            id=workflow_id(customer, "voice", str(uuid.uuid4())),
            task_queue=task_queue(self.spec.name),
            result_type=ReindexResult,
        )


@asynccontextmanager
async def running_worker(
    address: str, folder: Path, spec: ClusterSpec, settings: Callable[[Path], Settings] = Settings
) -> AsyncIterator[Stand]:
    """A worker in this process on the spec's own task queue, writing into memory."""
    paths = Paths(folder, spec.name)
    load(spec, paths, None)
    faults = folder / f"temporal-{spec.name}.json"
    client = await Client.connect(address, namespace=NAMESPACE)
    target = MemoryTarget()
    activities = ReindexActivities(settings(paths.source), FaultFile(faults), lambda: target, client)
    async with make_worker(client, spec.name, activities):
        yield Stand(client, spec, target, faults)


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = LIMIT_SECONDS) -> None:
    """Poll until the condition holds; fails naming `what` after the limit."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.05)
