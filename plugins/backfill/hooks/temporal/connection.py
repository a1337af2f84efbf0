"""The connection type ``temporal``: address, key, certificates, codec."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow.sdk import BaseHook, Connection
from airflow.sdk.log import amask_secret
from temporalio.client import Client, TLSConfig
from temporalio.converter import DataConverter
from temporalio.service import RPCError

from backfill.hooks.port_forward import Target, port_forwards, read_target
from backfill.hooks.temporal.codec import RemoteCodec
from backfill.hooks.temporal.errors import RefusedError

CONNECT_TIMEOUT_SECONDS = 20.0

CERTIFICATES = ("server_root_ca_cert", "client_cert", "client_private_key")
"""Fields of the extra that hold PEM texts. Not paths: a triggerer has other files than a worker."""

FORWARD = ("port_forward", "kubernetes_conn_id", "kubernetes_context")
"""Fields of a port-forward: namespace/service:port, and the Kubernetes connection (empty: that of the same cluster)."""

KNOWN_EXTRA = frozenset({*CERTIFICATES, *FORWARD, "namespace", "tls", "domain", "codec_endpoint", "codec_auth"})

API_KEY = "api_key"
"""Word of ``codec_auth`` that stands for the connection's own API key, as a bearer token."""

_DENIED = re.compile(r"PermissionDenied|Unauthenticated|permission_denied|unauthenticated")
"""How the SDK's RuntimeError of a refused first call names the status."""


class TemporalHook(BaseHook):
    """Connection type ``temporal``: host, port, password = API key; extra: the fields of KNOWN_EXTRA.

    A client does not survive a fork and belongs to one event loop, so none is kept here: ask :meth:`connect` inside
    the loop that uses it. The form's fields are in provider_info.py.
    """

    conn_name_attr = "temporal_conn_id"
    default_conn_name = "temporal_default"
    conn_type = "temporal"
    hook_name = "Temporal"

    def __init__(self, temporal_conn_id: str = default_conn_name, connection: Connection | None = None) -> None:
        super().__init__()
        self.temporal_conn_id = temporal_conn_id
        self._connection = connection

    async def connect(self, namespace: str | None = None) -> Client:
        """Return a client.

        Raises ValueError for a connection that cannot be right, RefusedError when the server does not accept its key,
        ConnectionError with a hint when it cannot be reached.
        """
        connection = self._connection or await self.aget_connection(self.temporal_conn_id)
        extra = await read_extra(connection)
        target, options = connect_options(connection, extra, namespace)
        if forward := forward_of(connection, extra):
            kubernetes = await self.aget_connection(forward.conn_id)
            host, port = await port_forwards().address(forward, kubernetes.extra_dejson)
            target = f"{host}:{port}"
        try:
            return await asyncio.wait_for(Client.connect(target, **options), CONNECT_TIMEOUT_SECONDS)
        except (RuntimeError, TimeoutError) as error:
            where = f"connection {self.temporal_conn_id}: Temporal at {target}"
            if forward and (reason := port_forwards().last_error(forward)):
                raise ConnectionError(f"{where} cannot be reached: {reason}") from error
            if forward:
                where += f" ({forward})"
            if _DENIED.search(str(error)):
                raise RefusedError(
                    f"{where} does not accept this connection: {error}. Renew the API key or the client certificate"
                ) from error
            tls = "with TLS" if options["tls"] else "without TLS"
            raise ConnectionError(
                f"{where} cannot be reached {tls}: {error}. Check address and port; an API key or a TLS port needs"
                " extra.tls, a private CA extra.server_root_ca_cert, a server that asks for a certificate"
                " extra.client_cert and extra.client_private_key"
            ) from error

    def test_connection(self) -> tuple[bool, str]:
        """Answer the connection form's test button."""
        try:
            asyncio.run(self.connect())
        except (ConnectionError, RefusedError, ValueError, RPCError) as error:
            return False, str(error)
        return True, "Temporal answers"


async def read_extra(connection: Connection) -> dict[str, Any]:
    """Return the extra's fields without empty ones, its secrets masked in every log. Raises ValueError."""
    text = connection.extra
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        # Not the parser's own words: they could quote a key.
        raise ValueError(f"connection {connection.conn_id}: extra is not valid JSON") from None
    if not isinstance(found, dict):
        raise ValueError(f"connection {connection.conn_id}: extra must be a JSON object")
    for name in ("client_private_key", "codec_auth"):
        # Without its name: by that Airflow would mask only what it knows, and it does not know codec_auth.
        if (value := found.get(name)) and value != API_KEY:
            await amask_secret(value)
            await amask_secret(str(value).removeprefix("Bearer "))
    return {name: value for name, value in found.items() if value not in (None, "")}


def connect_options(
    connection: Connection, extra: Mapping[str, Any], namespace: str | None
) -> tuple[str, dict[str, Any]]:
    """Return target and options of ``Client.connect``. Raises ValueError that names the field.

    An API key or a certificate implies TLS unless ``tls`` says otherwise.
    """
    if not connection.host and not extra.get("port_forward"):
        raise ValueError(f"connection {connection.conn_id}: host is empty; give the frontend's address")
    name = namespace or extra.get("namespace") or "default"
    options: dict[str, Any] = {
        "namespace": name,
        "tls": _tls(connection, extra),
        "api_key": connection.password or None,
    }
    if endpoint := extra.get("codec_endpoint"):
        codec = RemoteCodec(str(endpoint), name, _codec_auth(connection, extra))
        options["data_converter"] = replace(DataConverter.default, payload_codec=codec)
    return f"{connection.host}:{connection.port or 7233}", options


def forward_of(connection: Connection, extra: Mapping[str, Any]) -> Target | None:
    """Return what a port-forward reaches; None without one. Raises ValueError that names the field.

    The Kubernetes connection of the same cluster has the same name with its own kind in front.
    """
    if not extra.get("port_forward"):
        return None
    conn_id = str(extra.get("kubernetes_conn_id") or "")
    if not conn_id:
        kind, _, cluster = str(connection.conn_id).partition("_")
        if kind != "temporal" or not cluster:
            raise ValueError(
                f"connection {connection.conn_id}: extra.port_forward needs extra.kubernetes_conn_id, as this name does"
                " not say the cluster (temporal_<cluster>)"
            )
        conn_id = f"kubernetes_{cluster}"
    try:
        return read_target(str(extra["port_forward"]), conn_id, str(extra.get("kubernetes_context") or ""))
    except ValueError as error:
        raise ValueError(f"connection {connection.conn_id}: extra.{error}") from None


def _tls(connection: Connection, extra: Mapping[str, Any]) -> bool | TLSConfig:
    where = f"connection {connection.conn_id}: extra"
    pems: dict[str, Any] = {name: _pem(where, name, extra[name]) for name in CERTIFICATES if name in extra}
    if ("client_cert" in pems) != ("client_private_key" in pems):
        raise ValueError(f"{where}.client_cert and client_private_key belong together; only one of them is given")
    wanted = _switch(f"{where}.tls", extra["tls"]) if "tls" in extra else bool(connection.password or pems)
    if not wanted:
        if pems:
            raise ValueError(f"{where}.tls is false, but certificates are given ({', '.join(sorted(pems))})")
        return False
    # Behind a port-forward the address is this machine's; the certificate names the host.
    domain = extra.get("domain") or (connection.host if extra.get("port_forward") else None)
    return TLSConfig(**pems, domain=str(domain) if domain else None) if pems or domain else True


def _pem(where: str, name: str, value: Any) -> bytes:
    if not isinstance(value, str) or "-----BEGIN" not in value:
        raise ValueError(f"{where}.{name} must be the PEM text itself (-----BEGIN ...), not a path")
    # A form's one-line field or a shell may have kept line ends as the two characters.
    return value.replace("\\n", "\n").encode()


def _switch(where: str, value: Any) -> bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    found = words.get(str(value).strip().lower())
    if found is None:
        raise ValueError(f"{where} must be true or false, not {value!r}")
    return found


def _codec_auth(connection: Connection, extra: Mapping[str, Any]) -> str:
    """Return the codec's Authorization header. The API key goes to another host only when the extra says so."""
    auth = str(extra.get("codec_auth") or "")
    if auth != API_KEY:
        return auth
    if not connection.password:
        raise ValueError(f"connection {connection.conn_id}: extra.codec_auth is {API_KEY!r}, but there is no API key")
    return f"Bearer {connection.password}"
