"""The reindex workflows of one cluster: lists, counts, descriptions. A list is a hint, a description decides."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta

from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import HistoryEventFilterType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    DescribeNamespaceRequest,
    DescribeNamespaceResponse,
    DescribeWorkflowExecutionRequest,
    GetWorkflowExecutionHistoryRequest,
    ListWorkflowExecutionsRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from backfill.hooks.temporal.errors import is_namespace_unknown, is_transient
from backfill.hooks.temporal.facts import STATUSES, decoded, execution_of
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.verdicts.workflows import BAD_ENDS, Execution

RPC_TIMEOUT = timedelta(seconds=20)
PAGE_SIZE = 1_000
AT_ONCE = 20
"""Descriptions that one wait asks for at the same time."""

NOT_IN_FILTERS = re.compile(r'["?\\\x00-\x1f]')
"""Characters that no visibility store takes reliably. Server 1.32 has no way to write a double quote or a backslash: a
filter that has one, escaped or not, finds nothing and is no error. A ``?`` makes PostgreSQL answer with an error that
looks as if it would pass (temporal#11797)."""


def quote_query(value: str) -> str:
    """Return ``value`` as a literal of a list filter. Raises ValueError for NOT_IN_FILTERS."""
    if NOT_IN_FILTERS.search(value):
        raise ValueError(f'{value!r} cannot stand in a Temporal list filter (no ", \\, ? or control characters)')
    return f'"{value}"'


def _instant(moment: datetime) -> str:
    return quote_query(moment.astimezone(UTC).isoformat().replace("+00:00", "Z"))


class Workflows:
    """The reindex workflows of one cluster, asked through one client."""

    def __init__(self, client: Client, config: ClusterConfig) -> None:
        self.client = client
        self.config = config.temporal
        self.codec = client.data_converter.payload_codec
        self.takes_prefixes = True
        """False once the visibility store has refused STARTS_WITH."""

    def open_query(self) -> str:
        """Return the filter of every open reindex workflow."""
        return f"WorkflowType = {quote_query(self.config.workflow_type)} AND ExecutionStatus = 'Running'"

    def customer_query(
        self, customer_id: str, since: datetime, until: datetime | None = None, *, by_prefix: bool = True
    ) -> str:
        """Return the filter of a customer's workflows started from ``since`` to ``until``; the caller checks the ids.

        It finds those of all customers when the id cannot stand in a filter, and without ``by_prefix``.
        """
        prefix = f"{self.config.workflow_id_prefix}-{customer_id}-"
        by_prefix = by_prefix and not NOT_IN_FILTERS.search(prefix)
        mine = f" AND WorkflowId STARTS_WITH {quote_query(prefix)}" if by_prefix else ""
        bounds = f" AND StartTime >= {_instant(since)}" + (f" AND StartTime <= {_instant(until)}" if until else "")
        return f"WorkflowType = {quote_query(self.config.workflow_type)}{mine}{bounds}"

    async def list_ids(self, query: str, limit: int | None = None) -> list[str]:
        """Return the workflow ids of a filter, all without ``limit``. Visibility lags by seconds: a hint, no proof."""
        found: dict[str, None] = {}
        async for item in self._listed(query, page_size=min(limit or PAGE_SIZE, PAGE_SIZE)):
            found[item.execution.workflow_id] = None
            if limit is not None and len(found) >= limit:
                break
        return list(found)

    async def ids_of_customer(
        self, customer_id: str, since: datetime, until: datetime | None = None, limit: int | None = None
    ) -> list[str]:
        """Return the ids that :meth:`customer_query` finds.

        Not every visibility store knows STARTS_WITH; one that refuses it is asked by type and start time alone, which
        finds more, and the caller's own check of the ids does the rest.
        """
        if self.takes_prefixes:
            try:
                return await self.list_ids(self.customer_query(customer_id, since, until), limit)
            except RPCError as error:
                if error.status != RPCStatusCode.INVALID_ARGUMENT:
                    raise
                self.takes_prefixes = False
        return await self.list_ids(self.customer_query(customer_id, since, until, by_prefix=False), limit)

    async def _listed(self, query: str, page_size: int) -> AsyncIterator[WorkflowExecutionInfo]:
        # Not the SDK's own list: it raises for a status that is newer than itself.
        request = ListWorkflowExecutionsRequest(namespace=self.client.namespace, query=query, page_size=page_size)
        while True:
            answer = await self.client.workflow_service.list_workflow_executions(
                request, retry=True, timeout=RPC_TIMEOUT
            )
            for item in answer.executions:
                yield item
            if not answer.next_page_token:
                return
            request.next_page_token = answer.next_page_token

    async def count(self, query: str) -> int:
        """Return how many workflows a filter finds. Some visibility stores refuse to count."""
        request = CountWorkflowExecutionsRequest(namespace=self.client.namespace, query=query)
        answer = await self.client.workflow_service.count_workflow_executions(request, retry=True, timeout=RPC_TIMEOUT)
        return answer.count

    async def namespace(self) -> DescribeNamespaceResponse:
        """Return the namespace's description: its state, and for how long it keeps closed workflows."""
        request = DescribeNamespaceRequest(namespace=self.client.namespace)
        return await self.client.workflow_service.describe_namespace(request, timeout=RPC_TIMEOUT)

    async def describe(self, workflow_id: str) -> Execution:
        """Return the latest run of an id, so that continue-as-new, resets and retries are followed."""
        request = DescribeWorkflowExecutionRequest(
            namespace=self.client.namespace, execution=WorkflowExecution(workflow_id=workflow_id)
        )
        try:
            found = await self.client.workflow_service.describe_workflow_execution(
                request, retry=True, timeout=RPC_TIMEOUT
            )
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND and not is_namespace_unknown(error):
                return Execution(workflow_id, "missing")
            raise
        info = found.workflow_execution_info
        failure = None
        if STATUSES.get(info.status) in BAD_ENDS:
            failure = await self._failure(workflow_id, info.execution.run_id)
        return await execution_of(workflow_id, found, failure, self.codec)

    async def describe_all(self, ids: Iterable[str]) -> dict[str, Execution]:
        """Return the latest run of each id."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(workflow_id: str) -> Execution:
            async with gate:
                return await self.describe(workflow_id)

        found = await asyncio.gather(*(one(i) for i in ids))
        return {e.workflow_id: e for e in found}

    async def history_answers(self, workflow_id: str) -> None:
        """Ask for a workflow's history; NOT_FOUND is an answer, every other error is raised."""
        try:
            await self._history(workflow_id, "", last=True)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND or is_namespace_unknown(error):
                raise

    async def event(self, workflow_id: str, run_id: str = "", *, last: bool) -> HistoryEvent | None:
        """Return the first or the last event of a run ('': the latest run), None when it cannot be read.

        The last event of a run that is open is the latest that there is.
        """
        try:
            events = await self._history(workflow_id, run_id, last=last)
        except RPCError as error:
            # Texts and inputs are decoration: an account that may not read histories must still be able to wait.
            if error.status == RPCStatusCode.NOT_FOUND or not is_transient(error):
                return None
            raise
        return (events[-1] if last else events[0]) if events else None

    async def _history(self, workflow_id: str, run_id: str, *, last: bool) -> list[HistoryEvent]:
        kind = HistoryEventFilterType
        request = GetWorkflowExecutionHistoryRequest(
            namespace=self.client.namespace,
            execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
            maximum_page_size=1,
            history_event_filter_type=kind.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT
            if last
            else kind.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT,
        )
        answer = await self.client.workflow_service.get_workflow_execution_history(
            request, retry=True, timeout=RPC_TIMEOUT
        )
        return list(answer.history.events)

    async def _failure(self, workflow_id: str, run_id: str) -> Failure | None:
        event = await self.event(workflow_id, run_id, last=True)
        if event is None or not event.HasField("workflow_execution_failed_event_attributes"):
            return None
        return event.workflow_execution_failed_event_attributes.failure

    async def said_at_start(self, workflow_id: str) -> list[object]:
        """Return the readable values of a workflow's input, memo and search attributes, of its first run."""
        event = await self.event(workflow_id, last=False)
        if event is not None and event.HasField("workflow_execution_started_event_attributes"):
            started = event.workflow_execution_started_event_attributes
            first = started.first_execution_run_id
            if first and first != started.original_execution_run_id:
                event = await self.event(workflow_id, first, last=False)
        if event is None or not event.HasField("workflow_execution_started_event_attributes"):
            return []
        started = event.workflow_execution_started_event_attributes
        payloads: list[Payload] = [
            *started.input.payloads,
            *started.memo.fields.values(),
            *started.search_attributes.indexed_fields.values(),
        ]
        return await decoded(payloads, self.codec)
