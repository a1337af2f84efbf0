"""A reindexer that a test plays: the Job's pod asks the test what to do, the workflows are a table in memory."""

from __future__ import annotations

import re
import socketserver
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from backfill.hooks.temporal import TemporalHook, Workflows
from include.scorecard_backfill.verdicts.workflows import Execution

IMAGE = "registry.invalid/cron-batch-reindex-conversations:sandbox"

# Bash speaks to the test by itself: a pod costs no interpreter.
_POD = """
exec 3<>/dev/tcp/127.0.0.1/{port}
echo "$RUN_ONLY_FOR_CUSTOMER_IDS|$REINDEX_START_TIME|$REINDEX_END_TIME" >&3
read -r code <&3
cat <&3
exit "$code"
"""


@dataclass(frozen=True)
class Order:
    """What a pod was started for; days as ISO text, the end exclusive."""

    customer: str
    start: str
    end: str


@dataclass
class Answer:
    """How the pod ends: its exit code, the profiles of which a workflow was started, and how these ended."""

    code: int = 0
    profiles: tuple[str, ...] = ()
    status: Any = "completed"
    cause: str = ""


@dataclass
class Reindexer:
    """Listens to pods; ``play`` does the work of one and says how it ended."""

    play: Callable[[Order], Answer] = lambda order: Answer()
    orders: list[Order] = field(default_factory=list)
    executions: dict[str, Execution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                customer, start, end = self.rfile.readline().decode().strip().split("|")
                try:
                    code, lines = outer._work(Order(customer, start[:10], end[:10]))
                except Exception as error:
                    code, lines = 99, [f"the test's reindexer failed: {type(error).__name__}: {error}"]
                self.wfile.write("\n".join([str(code), *lines, ""]).encode())

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def images(self) -> Mapping[str, Any]:
        """The images file of the Kubernetes stand-in."""
        return {IMAGE: {"argv": ["bash", "-c", _POD.format(port=self._server.server_address[1])]}}

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _work(self, order: Order) -> tuple[int, list[str]]:
        self.orders.append(order)
        began = time.time()
        answer = self.play(order)
        lines = []
        for profile in answer.profiles:
            name = f"reindexconversations-{order.customer}-{profile}-{uuid.uuid4()}"
            self.executions[name] = Execution(
                name, answer.status, run_id=name, cause=answer.cause, started=began, closed=time.time()
            )
            lines.append(f"Created reindex conversations job: name=jobs/{name}, execution_id={name}, cluster=matrix")
        return answer.code, lines

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Answer for Temporal."""

        async def connect(_: Any, namespace: str | None = None) -> Any:
            return SimpleNamespace(data_converter=SimpleNamespace(payload_codec=None), namespace=namespace)

        async def list_ids(_: Any, query: str, limit: int | None = None) -> list[str]:
            prefix = re.search(r'STARTS_WITH "([^"]*)"', query)
            only_open = "ExecutionStatus = 'Running'" in query
            return [
                name
                for name, one in self.executions.items()
                if (not prefix or name.startswith(prefix[1])) and (not only_open or one.open)
            ]

        async def describe(_: Any, workflow_id: str) -> Execution:
            return self.executions.get(workflow_id) or Execution(workflow_id, "missing")

        async def said_at_start(_: Any, workflow_id: str) -> list[object]:
            return []

        patch.setattr(TemporalHook, "connect", connect)
        patch.setattr(Workflows, "list_ids", list_ids)
        patch.setattr(Workflows, "describe", describe)
        patch.setattr(Workflows, "said_at_start", said_at_start)
