"""What the servers saw since a moment: statements, calls, worker starts, database statements. Counts, not times."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.settings_folder import statements_of
from sandbox.stack_model import Cluster, Stack
from standins.clickhouse.client import NodeClient
from standins.kubernetes.client import KubernetesAdmin

RUN_CALL = re.compile(r"method=PATCH path=/execution/task-instances/[0-9a-f-]{36}/run query=\S* status_code=200")
"""The API server's line for a task that begins on a worker; one that begins in the triggerer has none."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment: the last things that each server had seen."""

    time: float
    clickhouse: tuple[int, ...]
    kubernetes: int
    api_lines: int
    statements: int


@dataclass(frozen=True, slots=True)
class Seen:
    """Counts between two moments, ``seconds`` apart. ClickHouse without INSERTs, which are the reindexer's."""

    seconds: float
    clickhouse: int
    kubernetes: int
    temporal: int
    worker_starts: int
    database: int

    def per_minute(self) -> dict[str, float]:
        """Return the calls a minute at each server."""
        minutes = self.seconds / 60
        return {name: round(getattr(self, name) / minutes, 1) for name in SERVERS}


SERVERS = ("clickhouse", "kubernetes", "temporal", "database")


@dataclass(frozen=True)
class Counters:
    """The books of a running stack. ``calls`` is the record of the proxy before Temporal."""

    stack: Stack
    cluster: Cluster
    calls: Path
    statements: Path

    def mark(self, now: float) -> Mark:
        """Note the moment; ``now`` in epoch seconds."""
        return Mark(
            time=now,
            clickhouse=tuple(self._last(node) for node in self.nodes()),
            kubernetes=KubernetesAdmin(self.cluster.kubernetes_url).last_request_id(),
            api_lines=len(self._api_lines()),
            statements=statements_of(self.statements),
        )

    def since(self, mark: Mark, now: float) -> Seen:
        """Return what was seen between a moment and ``now`` (epoch seconds)."""
        asked = 0
        for node, last in zip(self.nodes(), mark.clickhouse, strict=True):
            rows = node.statements(queries=True, since=last)
            asked += sum(1 for row in rows if not row["statement"].lstrip().upper().startswith("INSERT"))
        starts = sum(1 for line in self._api_lines()[mark.api_lines :] if RUN_CALL.search(line))
        return Seen(
            seconds=now - mark.time,
            clickhouse=asked,
            kubernetes=len(KubernetesAdmin(self.cluster.kubernetes_url).requests(since_id=mark.kubernetes)),
            temporal=sum(self.temporal_calls(mark.time, now).values()),
            worker_starts=starts,
            database=statements_of(self.statements) - mark.statements,
        )

    def temporal_calls(self, start: float, end: float) -> Counter[str]:
        """Return the calls of Airflow or the script to Temporal by method, between two epoch seconds."""
        if not self.calls.exists():
            return Counter()
        rows = [json.loads(line) for line in self.calls.read_text().splitlines()]
        return Counter(r["method"] for r in rows if start <= datetime.fromisoformat(r["time"]).timestamp() <= end)

    def nodes(self) -> list[NodeClient]:
        """Return clients of the ClickHouse nodes."""
        return [NodeClient(node.url, self.stack.clickhouse_password) for node in self.cluster.nodes]

    def _last(self, node: NodeClient) -> int:
        rows = node.statements(queries=True)
        return int(rows[-1]["id"]) if rows else 0

    def _api_lines(self) -> list[str]:
        log = self.stack.logs / "api-server.log"
        return log.read_text(errors="replace").splitlines() if log.exists() else []
