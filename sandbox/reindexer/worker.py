"""`python -m sandbox.reindexer.worker`: the reindex worker of one sandbox cluster.

Each limit can also be given by environment: SANDBOX_MAX_CONVERSATIONS, SANDBOX_MAX_PARALLEL,
SANDBOX_SECONDS_PER_BATCH, SANDBOX_BATCH_SIZE, SANDBOX_HEARTBEAT_TIMEOUT, SANDBOX_MAX_ATTEMPTS.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from sandbox.data.loader import ClickHouseTarget
from sandbox.reindexer.activities import ReindexActivities, Settings
from sandbox.reindexer.faultfile import FaultFile
from sandbox.reindexer.faults import Limits
from sandbox.reindexer.leave import leave
from sandbox.reindexer.model import task_queue
from sandbox.reindexer.workflow import ReindexConversations

CONNECT_SECONDS = 60.0
"""How long a worker waits for the server: the dev server's first start creates its database."""

HEARTBEAT_THROTTLE = timedelta(seconds=0.3)
"""Progress must be visible at once in the sandbox; the SDK would hold heartbeats back for up to a minute."""


def make_worker(client: Client, cluster: str, activities: ReindexActivities) -> Worker:
    """A worker for the cluster's task queue; run it with `async with` or `.run()`."""
    return Worker(
        client,
        task_queue=task_queue(cluster),
        workflows=[ReindexConversations],
        activities=[activities.prepare, activities.reindex],
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
    )


async def connect(address: str, namespace: str, seconds: float = CONNECT_SECONDS) -> Client:
    """A client once the server answers and knows the namespace.

    Raises TimeoutError naming the address, with the last error as its cause.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            client = await Client.connect(address, namespace=namespace)
            await client.count_workflows()
        except (RPCError, RuntimeError) as error:  # the SDK reports a refused connection as RuntimeError
            if asyncio.get_running_loop().time() >= deadline:
                raise TimeoutError(
                    f"no Temporal server at {address} with namespace {namespace!r} after {seconds:g} s"
                ) from error
        else:
            return client
        await asyncio.sleep(0.2)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.reindexer.worker", description=__doc__)
    parser.add_argument("--address", required=True, help="host:port of the Temporal frontend")
    parser.add_argument("--namespace", default="ingestion")
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--source", required=True, type=Path, help="SQLite source store")
    parser.add_argument("--clickhouse-url", required=True, help="http://host:port of one node")
    parser.add_argument("--faults", type=Path, help="faults file, read again for each workflow")
    for name, kind, default in (
        ("max-conversations", int, 0),
        ("max-parallel", int, 0),
        ("seconds-per-batch", float, 0.0),
        ("batch-size", int, Settings.batch_size),
        ("heartbeat-timeout", float, Settings.heartbeat_timeout),
        ("max-attempts", int, Settings.max_attempts),
    ):
        variable = "SANDBOX_" + name.replace("-", "_").upper()
        parser.add_argument(f"--{name}", type=kind, default=os.environ.get(variable, default))
    return parser.parse_args(argv)


async def run(args: argparse.Namespace) -> None:
    """Serve the task queue until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = await connect(args.address, args.namespace)
    settings = Settings(
        source=args.source,
        limits=Limits(args.max_conversations, args.max_parallel),
        batch_size=args.batch_size,
        seconds_per_batch=args.seconds_per_batch,
        heartbeat_timeout=args.heartbeat_timeout,
        max_attempts=args.max_attempts,
    )
    url = args.clickhouse_url
    activities = ReindexActivities(settings, FaultFile(args.faults), lambda: ClickHouseTarget(url), client)
    async with make_worker(client, args.cluster, activities):
        print(f"worker ready: {task_queue(args.cluster)} at {args.address}", flush=True)
        await stop.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; exit code 0 after a signal."""
    asyncio.run(run(parse(argv)))
    return 0


if __name__ == "__main__":
    leave(main())
