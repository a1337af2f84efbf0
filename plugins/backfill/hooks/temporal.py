"""Temporal: a connection type of our own, and the three questions that the waits ask."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import BaseHook, Connection
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import (
    Client,
    TLSConfig,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
)
from temporalio.exceptions import ActivityError, ApplicationError, FailureError
from temporalio.exceptions import TimeoutError as TemporalTimeout
from temporalio.service import RPCError, RPCStatusCode

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.verdicts.workflows import Execution, Status, classify

CONNECT_TIMEOUT_SECONDS = 20.0
RPC_TIMEOUT = timedelta(seconds=20)
PAGE_SIZE = 1_000

NOT_IN_FILTERS = re.compile(r'["?\\\x00-\x1f]')
"""Characters that no visibility store takes reliably. Server 1.32 has no way to write a double quote or a backslash: a
filter that has one, escaped or not, finds nothing and is no error. A ``?`` makes PostgreSQL answer with an error that
looks as if it would pass (temporal#11797)."""

TRANSIENT = frozenset({
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.ABORTED,
    RPCStatusCode.INTERNAL,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.CANCELLED,
})  # fmt: skip
"""Answers after which the same question may be asked again. A call that ran into its time-out is CANCELLED."""

_STATUS: dict[WorkflowExecutionStatus, Status] = {
    WorkflowExecutionStatus.RUNNING: "running",
    WorkflowExecutionStatus.COMPLETED: "completed",
    WorkflowExecutionStatus.FAILED: "failed",
    WorkflowExecutionStatus.CANCELED: "canceled",
    WorkflowExecutionStatus.TERMINATED: "terminated",
    WorkflowExecutionStatus.CONTINUED_AS_NEW: "continued_as_new",
    WorkflowExecutionStatus.TIMED_OUT: "timed_out",
}


def is_transient(error: BaseException) -> bool:
    """Return True for errors that pass by themselves. A refused query or a missing right does not."""
    if isinstance(error, RPCError):
        return error.status in TRANSIENT
    # temporalio reports a connection that cannot be made as RuntimeError
    return isinstance(error, (TimeoutError, asyncio.TimeoutError, ConnectionError)) or (
        isinstance(error, RuntimeError) and "onnect" in str(error)
    )


def is_lost(error: BaseException) -> bool:
    """Return True for a passing error after which a new client should be made: its connection may be dead."""
    return is_transient(error) and not (
        isinstance(error, RPCError) and error.status == RPCStatusCode.RESOURCE_EXHAUSTED
    )


def quote_query(value: str) -> str:
    """Return ``value`` as a literal of a list filter. Raises ValueError for NOT_IN_FILTERS."""
    if NOT_IN_FILTERS.search(value):
        raise ValueError(f'{value!r} cannot stand in a Temporal list filter (no ", \\, ? or control characters)')
    return f'"{value}"'


class TemporalHook(BaseHook):
    """Connection type ``temporal``: host, port, password = API key; extra: namespace, tls, server_root_ca_cert.

    A client does not survive a fork and belongs to one event loop, so none is kept here: ask :meth:`connect` inside
    the loop that uses it.
    """

    conn_name_attr = "temporal_conn_id"
    default_conn_name = "temporal_default"
    conn_type = "temporal"
    hook_name = "Temporal"

    def __init__(self, temporal_conn_id: str = default_conn_name, connection: Connection | None = None) -> None:
        super().__init__()
        self.temporal_conn_id = temporal_conn_id
        self._connection = connection

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return which fields the connection form shows and how they are called."""
        return {
            "hidden_fields": ["schema", "login"],
            "relabeling": {"password": "API key"},
            "placeholders": {
                "host": "temporal-frontend-headless",
                "port": "7233",
                "extra": json.dumps({"namespace": "ingestion", "tls": False}),
            },
        }

    async def connect(self, namespace: str | None = None) -> Client:
        """Return a client. Raises ValueError for a connection that cannot be right, ConnectionError with a hint."""
        connection = self._connection or await self.aget_connection(self.temporal_conn_id)
        target, options = connect_options(connection, namespace)
        try:
            return await asyncio.wait_for(Client.connect(target, **options), CONNECT_TIMEOUT_SECONDS)
        except (RuntimeError, TimeoutError) as error:
            tls = "with TLS" if options["tls"] else "without TLS"
            raise ConnectionError(
                f"connection {self.temporal_conn_id}: Temporal at {target} cannot be reached {tls}: {error}. Check"
                " address and port; an API key or a TLS port needs extra.tls, a private CA extra.server_root_ca_cert"
            ) from error

    def test_connection(self) -> tuple[bool, str]:
        """Answer the connection form's test button."""
        try:
            asyncio.run(self.connect())
        except (ConnectionError, ValueError, RPCError) as error:
            return False, str(error)
        return True, "Temporal answers"


def connect_options(connection: Connection, namespace: str | None) -> tuple[str, dict[str, Any]]:
    """Return target and options of ``Client.connect``. An API key implies TLS unless ``tls`` says otherwise."""
    extra = connection.extra_dejson
    if not connection.host:
        raise ValueError(f"connection {connection.conn_id}: host is empty; give the frontend's address")
    tls: bool | TLSConfig = extra.get("tls", bool(connection.password))
    if ca := extra.get("server_root_ca_cert"):
        tls = TLSConfig(server_root_ca_cert=str(ca).encode())
    return f"{connection.host}:{connection.port or 7233}", {
        "namespace": namespace or extra.get("namespace") or "default",
        "tls": tls,
        "api_key": connection.password or None,
    }


class Workflows:
    """The reindex workflows of one cluster, asked through one client."""

    def __init__(self, client: Client, config: ClusterConfig) -> None:
        self.client = client
        self.config = config.temporal

    def open_query(self) -> str:
        """Return the filter of every open reindex workflow."""
        return f"WorkflowType = {quote_query(self.config.workflow_type)} AND ExecutionStatus = 'Running'"

    def customer_query(self, customer_id: str, since: datetime) -> str:
        """Return the filter of a customer's workflows started at ``since`` or later; ids are checked by the caller.

        It finds those of all customers when the id cannot stand in a filter.
        """
        prefix = f"{self.config.workflow_id_prefix}-{customer_id}-"
        mine = "" if NOT_IN_FILTERS.search(prefix) else f" AND WorkflowId STARTS_WITH {quote_query(prefix)}"
        return (
            f"WorkflowType = {quote_query(self.config.workflow_type)}{mine}"
            f" AND StartTime >= {quote_query(since.astimezone(UTC).isoformat().replace('+00:00', 'Z'))}"
        )

    async def list_ids(self, query: str, limit: int | None = None) -> list[str]:
        """Return the workflow ids of a filter, all without ``limit``. Visibility lags by seconds: a hint, no proof."""
        found: list[str] = []
        page = min(limit or PAGE_SIZE, PAGE_SIZE)
        async for item in self.client.list_workflows(query, page_size=page, limit=limit, rpc_timeout=RPC_TIMEOUT):
            found.append(item.id)
        return list(dict.fromkeys(found))

    async def retention_seconds(self) -> float:
        """Return for how long the namespace keeps closed workflows."""
        request = DescribeNamespaceRequest(namespace=self.client.namespace)
        answer = await self.client.workflow_service.describe_namespace(request, timeout=RPC_TIMEOUT)
        return float(answer.config.workflow_execution_retention_ttl.ToTimedelta().total_seconds())

    async def describe(self, workflow_id: str) -> Execution:
        """Return the latest run of an id, so that continue-as-new, resets and retries are followed."""
        handle = self.client.get_workflow_handle(workflow_id)
        try:
            found = await handle.describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return Execution(workflow_id, "missing")
            raise
        status = _STATUS[found.status] if found.status is not None else "running"
        done, total = await _progress(found)
        failure = ""
        if status in ("failed", "timed_out", "terminated", "canceled"):
            failure = await self._failure(workflow_id, found.run_id)
        cause = classify(failure, status) if failure or status not in ("running", "completed") else ""
        return Execution(
            workflow_id,
            status,
            found.run_id,
            failure,
            cause,
            done,
            total,
            started=found.start_time.timestamp() if found.start_time else 0.0,
            closed=found.close_time.timestamp() if found.close_time else 0.0,
        )

    async def describe_all(self, ids: Iterable[str]) -> dict[str, Execution]:
        """Return the latest run of each id."""
        found = await asyncio.gather(*(self.describe(i) for i in ids))
        return {e.workflow_id: e for e in found}

    async def _failure(self, workflow_id: str, run_id: str) -> str:
        handle = self.client.get_workflow_handle(workflow_id, run_id=run_id)
        try:
            await handle.result(follow_runs=False, rpc_timeout=RPC_TIMEOUT)
        except WorkflowFailureError as error:
            return failure_text(error)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return "history is gone"
        return ""


def failure_text(error: BaseException) -> str:
    """Return the chain of causes of a failed workflow in one line, without stack traces."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TemporalTimeout):
            kind = cause.type.name if cause.type is not None else "UNKNOWN"
            parts.append(f"{kind} timeout")
        elif isinstance(cause, ApplicationError):
            parts.append(f"{cause.type or 'ApplicationError'}: {cause.message}")
        elif isinstance(cause, FailureError) and not isinstance(cause, ActivityError):
            parts.append(cause.message)
        cause = cause.cause if isinstance(cause, (WorkflowFailureError, FailureError)) else None
    return " <- ".join(dict.fromkeys(p for p in parts if p)) or str(error)


async def _progress(found: WorkflowExecutionDescription) -> tuple[int | None, int | None]:
    for activity in found.raw_description.pending_activities:
        if (
            not activity.HasField("heartbeat_details")
            or activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_UNSPECIFIED
        ):
            continue
        details: Sequence[Any] = await found.data_converter.decode(list(activity.heartbeat_details.payloads))
        for detail in details:
            if isinstance(detail, dict) and "TotalConversationCount" in detail:
                return int(detail.get("ReindexedConversations", 0)), int(detail["TotalConversationCount"])
    return None, None
