"""Which errors of Temporal pass by themselves. Every call here is a read, so what passes is asked again."""

from __future__ import annotations

import asyncio

from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.service import RPCError, RPCStatusCode

DENIED = frozenset({RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED})
"""The account may not do this, or its key or certificate is not accepted (a server answers an expired key with either).
Waiting does not renew a key; a client that is made anew reads the connection again and takes a key that was renewed."""

REFUSED = frozenset({*DENIED, RPCStatusCode.INVALID_ARGUMENT})
"""Answers that a person must mend, with the namespace that does not exist. INVALID_ARGUMENT: the server does not take
the question, and the same question gets the same answer. Everything else (a code that is not known yet, too) may be a
rolling restart, a limit or a shard that moves, and passes or becomes an outage."""


class RefusedError(Exception):
    """A server's refusal that waiting does not mend. ``cause`` is a word of the table of causes."""

    def __init__(self, text: str, cause: str = "access_denied") -> None:
        super().__init__(text)
        self.cause = cause


def is_transient(error: BaseException) -> bool:
    """Return True for errors that pass by themselves."""
    if isinstance(error, RPCError):
        return error.status not in REFUSED and not is_namespace_unknown(error)
    return isinstance(error, (TimeoutError, asyncio.TimeoutError, ConnectionError))


def is_lost(error: BaseException) -> bool:
    """Return True for a passing error after which a new client should be made: its connection may be dead."""
    return is_transient(error) and not (
        isinstance(error, RPCError) and error.status == RPCStatusCode.RESOURCE_EXHAUSTED
    )


def is_namespace_unknown(error: RPCError) -> bool:
    """Return True when the server has no such namespace; a workflow that is not found has the same status."""
    if error.status != RPCStatusCode.NOT_FOUND:
        return False
    return any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details)


def refusal(error: BaseException, conn_id: str, namespace: str) -> RefusedError | None:
    """Return a refusal as what a person must do, naming the connection; None for every other error."""
    if isinstance(error, RefusedError):
        return error
    if not isinstance(error, RPCError) or is_transient(error):
        return None
    said = f"Temporal says {error.status.name}: {error.message}"
    if error.status in DENIED:
        return RefusedError(
            f"connection {conn_id}, namespace {namespace}: {said}. Renew the API key or the client certificate of"
            " this connection, or grant its account to list, describe and read the history of workflows"
        )
    if error.status == RPCStatusCode.INVALID_ARGUMENT:
        return RefusedError(f"connection {conn_id}, namespace {namespace}: {said}", "error")
    return RefusedError(
        f"connection {conn_id}: {said}. Correct temporal.namespace in the cluster's file ({namespace!r}) or the"
        " connection's address",
        "configuration",
    )
