"""Helpers of the reindexer's tests: a worker in this process that writes into a target in memory."""

from __future__ import annotations

import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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
from tests.standins.temporal_fixtures import NAMESPACE

JANUARY = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")


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
