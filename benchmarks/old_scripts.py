"""The algorithm of the old scripts as real-system.md tells it, with every sleep scaled by one factor.

Batches of ten customers; in a batch each customer: count, DELETE, poll system.mutations every 10 s, create a Job,
sleep 15 s, find the workflows by prefix, poll each every 30 s, count again, note it in a JSON file; a giant's days
one by one.
In its favour: clients in this process where the scripts start the command-line tools, and no person to start a batch.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kubernetes import client, config
from temporalio.client import Client, WorkflowExecutionStatus

from benchmarks.workload import Work
from standins.clickhouse.client import NodeClient

BATCH = 10
MUTATION_POLL_SECONDS = 10.0
AFTER_JOB_SECONDS = 15.0
WORKFLOW_POLL_SECONDS = 30.0
LOOK_BACK_SECONDS = 180.0
TABLES = ("scorecard", "score")
NAMESPACE, CRONJOB = "cresta-cron", "cron-batch-reindex-conversations"


@dataclass
class OldScripts:
    """One run over a cluster. ``scale`` is seconds here for each second of the real system."""

    node: NodeClient
    kubeconfig: Path
    context: str
    temporal: str
    tracking: Path
    scale: float
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        api = config.new_client_from_config(str(self.kubeconfig), self.context)
        self._batch = client.BatchV1Api(api)
        self._lock = threading.Lock()
        self._done: dict[str, str] = {}

    def run(self, works: Sequence[Work]) -> float:
        """Do the windows and return the seconds that it took. What failed is in ``failures``."""
        start = time.monotonic()
        by_customer: dict[str, list[Work]] = {}
        for work in works:
            by_customer.setdefault(work.customer_id, []).append(work)
        customers = list(by_customer)
        for first in range(0, len(customers), BATCH):
            with ThreadPoolExecutor(BATCH) as pool:
                list(pool.map(self._customer, (by_customer[name] for name in customers[first : first + BATCH])))
        return time.monotonic() - start

    def _customer(self, works: Sequence[Work]) -> None:
        for work in works:
            try:
                self._window(work)
            except Exception as error:
                self.failures.append(f"{work.customer_id} {work.start}: {type(error).__name__}: {error}")

    def _window(self, work: Work) -> None:
        database = f"{work.customer_id}_voice"
        where = (
            f"scorecard_time >= toDateTime64('{work.start} 00:00:00', 3, 'UTC')"
            f" AND scorecard_time < toDateTime64('{work.end} 00:00:00', 3, 'UTC')"
        )
        before = self._count(database, where)
        for table in TABLES:
            self.node.query(f"ALTER TABLE {database}.{table} ON CLUSTER conversations DELETE WHERE {where}")
        unfinished = (
            "SELECT count() FROM clusterAllReplicas('conversations', system.mutations)"
            f" WHERE database = '{database}' AND NOT is_done"
        )
        while int(self.node.query(unfinished)[0][0]):
            # The scripts' own way of waiting, which is what is measured here.
            time.sleep(MUTATION_POLL_SECONDS * self.scale)
        self._make_job(work)
        asyncio.run(self._workflows(work))
        after = self._count(database, where)
        with self._lock:
            self._done[f"{work.customer_id}/{work.start}"] = f"{before} -> {after}"
            self.tracking.write_text(json.dumps(self._done))

    def _count(self, database: str, where: str) -> int:
        return int(self.node.query(f"SELECT count() FROM {database}.scorecard_d FINAL WHERE {where}")[0][0])

    def _make_job(self, work: Work) -> None:
        template: Any = self._batch.read_namespaced_cron_job(CRONJOB, NAMESPACE).spec.job_template
        window: Mapping[str, str] = {
            "REINDEX_START_TIME": f"{work.start}T00:00:00Z",
            "REINDEX_END_TIME": f"{work.end}T00:00:00Z",
            "RUN_ONLY_FOR_CUSTOMER_IDS": work.customer_id,
        }
        container = template.spec.template.spec.containers[0]
        kept = [variable for variable in container.env or [] if variable.name not in window]
        container.env = [*kept, *(client.V1EnvVar(name=name, value=value) for name, value in window.items())]
        name = f"backfill-{work.customer_id}-{work.start}-{time.time_ns() % 1_000_000}"
        job = client.V1Job(metadata=client.V1ObjectMeta(name=name), spec=template.spec)
        self._batch.create_namespaced_job(NAMESPACE, job)

    async def _workflows(self, work: Work) -> None:
        """Sleep, find the workflows of the last three minutes by prefix, poll each until it is closed.

        A Job needs its seconds to start whatever the scale; the script would fail then, here it looks again.
        """
        temporal = await Client.connect(self.temporal, namespace="ingestion")
        made = datetime.now(UTC) - timedelta(seconds=min(LOOK_BACK_SECONDS * self.scale, 5))
        query = (
            f"WorkflowId STARTS_WITH 'reindexconversations-{work.customer_id}-' AND StartTime > '{made.isoformat()}'"
        )
        found: list[str] = []
        while not found:
            await asyncio.sleep(AFTER_JOB_SECONDS * self.scale)
            found = [item.id async for item in temporal.list_workflows(query)]
        for workflow in found:
            handle = temporal.get_workflow_handle(workflow)
            # It polls because the scripts do.
            while (status := (await handle.describe()).status) is WorkflowExecutionStatus.RUNNING:  # noqa: ASYNC110
                await asyncio.sleep(WORKFLOW_POLL_SECONDS * self.scale)
            if status is not WorkflowExecutionStatus.COMPLETED:
                raise RuntimeError(f"{workflow} ended {status}")
