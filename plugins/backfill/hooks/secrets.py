"""The ClickHouse password from the Kubernetes Secret of its cluster, read when it is needed and kept nowhere.

The ClickHouse connection says so in its extra, and has no password of its own:

    {"secure": true, "password_secret": "clickhouse/clickhouse-cluster#admin_password"}

It is read through the `kubernetes_<cluster>` connection (another one: `kubernetes_conn_id`, `kubernetes_context`),
which needs *get* on that one Secret. The password lives in this process's memory only, for FRESH_SECONDS, and Airflow's
log masks it. A password that was changed is read again after that time at the latest.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import aiohttp
from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook
from airflow.sdk import BaseHook, Connection
from airflow.sdk.log import amask_secret
from kubernetes_asyncio.client import CoreV1Api
from kubernetes_asyncio.client.rest import ApiException

FRESH_SECONDS = 300.0
"""Long enough for one poll per second to cost nothing, short enough for a rotated password to be taken by itself."""

FIELD = "password_secret"

_REFERENCE = re.compile(r"(?P<namespace>[a-z0-9][a-z0-9.-]*)/(?P<name>[a-z0-9][a-z0-9.-]*)#(?P<key>[A-Za-z0-9._-]+)")


class SecretError(ConnectionError):
    """The Secret cannot be read; the text says where and what to do, and holds nothing of its content."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One key of a Secret, and by which connection and context its cluster is reached."""

    conn_id: str
    context: str
    namespace: str
    name: str
    key: str

    def __str__(self) -> str:
        return f"Secret {self.namespace}/{self.name}, key {self.key!r} (connection {self.conn_id!r})"


def reference_of(connection: Connection, conn_id: str, context: str) -> Reference | None:
    """Return where the connection's password is; None if it has one of its own, or none at all.

    Args:
        connection: of ClickHouse.
        conn_id: of Kubernetes in the same cluster, if the extra names no other.
        context: likewise.

    Raises:
        SecretError: the field cannot be read, or there is a password beside it.
    """
    extra = connection.extra_dejson
    text = extra.get(FIELD)
    if not text:
        return None
    where = f"connection {connection.conn_id}: extra.{FIELD}"
    match = _REFERENCE.fullmatch(str(text))
    if match is None:
        raise SecretError(f"{where} is not namespace/secret#key, such as clickhouse/clickhouse-cluster#admin_password")
    if connection.password:
        raise SecretError(f"{where} is given, and a password as well; remove one of them")
    return Reference(
        str(extra.get("kubernetes_conn_id") or conn_id),
        str(extra.get("kubernetes_context") or context),
        match["namespace"],
        match["name"],
        match["key"],
    )


def with_password(connection: Connection, password: str) -> Connection:
    """Return a copy of the connection with its password, and without the fields that only this module reads."""
    ours = (FIELD, "kubernetes_conn_id", "kubernetes_context")
    extra = {name: value for name, value in connection.extra_dejson.items() if name not in ours}
    return Connection(
        conn_id=connection.conn_id,
        conn_type=connection.conn_type,
        host=connection.host,
        schema=connection.schema,
        login=connection.login,
        password=password,
        port=connection.port,
        extra=json.dumps(extra),
    )


class SecretCache:
    """Passwords that were read lately, in this process only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Reference, tuple[float, str]] = {}

    async def password(self, reference: Reference, extra: Mapping[str, Any]) -> str:
        """Return the password, from the cluster if the one that is kept is older than FRESH_SECONDS.

        Args:
            reference: where it is.
            extra: extra of the Kubernetes connection.

        Raises:
            SecretError: it cannot be read.
        """
        kept = self._kept.get(reference)
        if kept is not None and self._clock() - kept[0] < FRESH_SECONDS:
            return kept[1]
        password = await read_secret(reference, extra)
        await amask_secret(password, "password")
        self._kept[reference] = (self._clock(), password)
        return password

    def refused(self, password: str | None) -> bool:
        """Forget a password that the server has just refused. False if it is none of those that were read here."""
        before = len(self._kept)
        self._kept = {reference: kept for reference, kept in self._kept.items() if kept[1] != password}
        return len(self._kept) < before


async def read_secret(reference: Reference, extra: Mapping[str, Any]) -> str:
    """Return the value of one key of a Secret. Raises SecretError."""
    hook = AsyncKubernetesHook(
        conn_id=reference.conn_id, cluster_context=reference.context or None, connection_extras=dict(extra)
    )
    try:
        async with hook.get_conn() as api:
            found = await CoreV1Api(api).read_namespaced_secret(
                reference.name, reference.namespace, _request_timeout=(10, 30)
            )
    except ApiException as error:
        raise SecretError(f"{reference}: {error.status} {error.reason}{_HINTS.get(error.status, '')}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise SecretError(f"{reference}: the API server cannot be reached: {error}") from error
    data: Mapping[str, str] = found.data or {}
    if reference.key not in data:
        raise SecretError(f"{reference}: the Secret has no such key, but {', '.join(sorted(data)) or 'none'}")
    try:
        return base64.b64decode(data[reference.key], validate=True).decode().rstrip("\n")
    except (binascii.Error, UnicodeDecodeError):
        raise SecretError(f"{reference}: its value is not text") from None


_HINTS = {
    403: "; grant *get* on this Secret to the identity of that connection (deploy/kubernetes/role-secret.yaml)",
    404: "; correct namespace and name in the connection's extra",
    401: "; the credentials of that connection are refused",
}

_cache = SecretCache()


async def resolved(connection: Connection, conn_id: str, context: str, cache: SecretCache | None = None) -> Connection:
    """Return the ClickHouse connection with its password: itself, or a copy with the Secret's.

    For triggers, in their event loop; workers use :func:`resolved_now`.

    Args:
        connection: of ClickHouse.
        conn_id: of Kubernetes in the same cluster.
        context: of the kubeconfig.
        cache: of the process, if not given.

    Raises:
        SecretError: see there.
    """
    reference = reference_of(connection, conn_id, context)
    if reference is None:
        return connection
    kubernetes = await BaseHook.aget_connection(reference.conn_id)
    return with_password(connection, await (cache or _cache).password(reference, kubernetes.extra_dejson))


def resolved_now(connection: Connection, conn_id: str, context: str) -> Connection:
    """Return the same for a worker, which has no event loop. Raises SecretError."""
    reference = reference_of(connection, conn_id, context)
    if reference is None:
        return connection
    extra = BaseHook.get_connection(reference.conn_id).extra_dejson
    # In a thread of its own, as the caller's may have an event loop that runs.
    with ThreadPoolExecutor(1) as thread:
        password = thread.submit(lambda: asyncio.run(_cache.password(reference, extra))).result()
    return with_password(connection, password)


def refused(password: str | None) -> bool:
    """Return True if a password that ClickHouse has just refused came from a Secret: the next call reads it again."""
    return _cache.refused(password)
