"""Preflight's look at Temporal: every call that the waits make, with the same queries, before anything is deleted."""

from __future__ import annotations

import asyncio
import difflib
import uuid
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.sdk import BaseHook, Connection
from temporalio.api.enums.v1 import NamespaceState
from temporalio.service import RPCError

from backfill.hooks.temporal import TemporalHook, Workflows, refusal
from backfill.hooks.temporal.codec import CodecError, RemoteCodec
from backfill.hooks.temporal.connection import KNOWN_EXTRA, read_extra
from backfill.hooks.temporal.workflows import NOT_IN_FILTERS
from include.scorecard_backfill.config import ClusterConfig

CUSTOMER = "preflight"
"""A customer that has no workflows."""


def check(config: ClusterConfig, problems: list[str], notes: list[str]) -> None:
    """Add what is wrong to ``problems`` and what may become a trouble to ``notes``.

    Raises what :meth:`TemporalHook.connect` raises when there is nobody to ask.
    """
    asyncio.run(_ask(config, BaseHook.get_connection(config.temporal.conn_id), problems, notes))
    notes += _second_opinion(config.temporal.internal_jobs_conn_id)


def _second_opinion(conn_id: str) -> list[str]:
    """Open the InternalJobService where the cluster names it. It is optional: without it Temporal alone decides."""
    if not conn_id:
        return []
    # gRPC is loaded only where a cluster has this service.
    from backfill.hooks import internal_jobs

    try:
        internal_jobs.ask(BaseHook.get_connection(conn_id), ())
    except (internal_jobs.InternalJobsError, AirflowNotFoundException) as error:
        return [f"temporal: the InternalJobService will not be asked, Temporal alone decides: {error}"]
    return []


async def _ask(config: ClusterConfig, connection: Connection, problems: list[str], notes: list[str]) -> None:
    notes += await _unknown_fields(connection)
    client = await TemporalHook(config.temporal.conn_id, connection).connect(config.temporal.namespace)
    workflows = Workflows(client, config)
    if await _can_list(workflows, problems, notes):
        await _can_describe(workflows, problems)
        notes += await _namespace_notes(workflows)
    if isinstance(workflows.codec, RemoteCodec):
        problems += await _codec_problems(workflows.codec)


async def _unknown_fields(connection: Connection) -> list[str]:
    """Name fields that nobody reads: a misspelled certificate would be left out without a word."""
    unknown = sorted(set(await read_extra(connection)) - KNOWN_EXTRA)
    return [
        f"temporal: connection {connection.conn_id}: extra.{name} is read by nobody"
        + (f"; did you mean {close[0]}?" if (close := difflib.get_close_matches(name, KNOWN_EXTRA, 1)) else "")
        for name in unknown
    ]


def _problem(workflows: Workflows, error: RPCError, what: str) -> str:
    config = workflows.config
    text = refusal(error, config.conn_id, config.namespace) or f"{error.status.name}: {error.message}"
    return f"temporal: {what}: {text}"


async def _can_list(workflows: Workflows, problems: list[str], notes: list[str]) -> bool:
    """Send the two filters of the waits. A store that does not know STARTS_WITH is asked without it."""
    query = workflows.open_query()
    try:
        await workflows.list_ids(query, limit=1)
        query = workflows.customer_query(CUSTOMER, datetime.now(UTC), by_prefix=False)
        await workflows.ids_of_customer(CUSTOMER, datetime.now(UTC), limit=1)
    except RPCError as error:
        problems.append(_problem(workflows, error, f"the list of workflows is refused for {query}"))
        return False
    if not workflows.takes_prefixes:
        notes.append(
            "temporal: the visibility store refuses STARTS_WITH; workflows are listed by type and start time, and"
            " their ids are compared here"
        )
    if NOT_IN_FILTERS.search(workflows.config.workflow_id_prefix):
        notes.append(f"temporal: {workflows.config.workflow_id_prefix!r} cannot stand in a filter; ids are compared")
    try:
        await workflows.count(workflows.open_query())
    except RPCError as error:
        notes.append(f"temporal: workflows cannot be counted ({error.status.name}), only listed; that is enough")
    return True


async def _can_describe(workflows: Workflows, problems: list[str]) -> None:
    """Ask for a workflow that does not exist: the right answer is NOT_FOUND, and nothing else."""
    nobody = f"{workflows.config.workflow_id_prefix}-{CUSTOMER}-{uuid.uuid4()}"
    try:
        found = await workflows.describe(nobody)
    except RPCError as error:
        problems.append(_problem(workflows, error, "workflows cannot be described"))
        return
    if found.status != "missing":
        problems.append(
            f"temporal: {nobody}, which does not exist, is described as {found.status}: what answers at"
            f" {workflows.config.conn_id} is not Temporal's frontend"
        )
    try:
        await workflows.history_answers(nobody)
    except RPCError as error:
        problems.append(_problem(workflows, error, "histories cannot be read, so that no failure would have a cause"))


async def _namespace_notes(workflows: Workflows) -> list[str]:
    """Say when closed workflows may vanish before a wait has ended. A key may list workflows and not see namespaces."""
    config = workflows.config
    try:
        found = await workflows.namespace()
    except RPCError as error:
        return [
            f"temporal: retention of namespace {config.namespace} cannot be read ({error.status.name}: {error.message})"
        ]
    notes = []
    state = found.namespace_info.state
    if state != NamespaceState.NAMESPACE_STATE_REGISTERED:
        name = dict(zip(NamespaceState.values(), NamespaceState.keys(), strict=True)).get(state, str(state))
        notes.append(f"temporal: namespace {config.namespace} is in state {name}")
    kept = found.config.workflow_execution_retention_ttl.ToTimedelta().total_seconds()
    if kept < config.deadline_seconds:
        notes.append(
            f"temporal: namespace {config.namespace} keeps closed workflows for {kept:.0f} s, a wait may take"
            f" {config.deadline_seconds} s (temporal.deadline_seconds): raise the retention"
        )
    return notes


async def _codec_problems(codec: RemoteCodec) -> list[str]:
    """Without its codec a deadlock cannot be told from any other failure, so that no window would be cut for it."""
    try:
        # Nothing to decode: not every codec takes a payload that it has not made.
        await codec.ask([])
    except CodecError as error:
        return [f"temporal: {error}"]
    return []
