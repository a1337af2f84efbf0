"""A port of a Service, reached through the Kubernetes API: what `kubectl port-forward` does, inside this process.

One local listener per target and process, in a thread with an event loop of its own, so that workers and triggerer, and
several event loops of one process, share it. It is opened when first asked for and stays until the process ends. Each
connection that comes in gets a stream of its own to a ready pod: when a pod goes, the next connection finds another
one, and nobody has to open anything again. An idle stream is kept alive by pings.

Streams are websockets (`v4.channel.k8s.io`): channel 0 is data, channel 1 errors; each begins with the port's number.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook
from kubernetes_asyncio.client import CoreV1Api
from kubernetes_asyncio.client.rest import ApiException
from kubernetes_asyncio.stream import WsApiClient

from include.scorecard_backfill.foreign import ForeignJson

log = logging.getLogger(__name__)

OPEN_SECONDS = 20.0
"""How long one look for a pod, or one stream's beginning, may take."""
PING_SECONDS = 30.0
"""Load balancers in front of API servers end idle connections after minutes."""
CHUNK_BYTES = 32_768

DATA_CHANNEL, ERROR_CHANNEL = 0, 1

RIGHTS = "get services, list pods, get and create pods/portforward"

_TARGET = re.compile(r"(?P<namespace>[a-z0-9][a-z0-9.-]*)/(?P<service>[a-z0-9][a-z0-9.-]*):(?P<port>[0-9]{1,5})")


class PortForwardError(ConnectionError):
    """The port cannot be reached through the Kubernetes API; the text says where and what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """One port of one Service, and by which connection and context its cluster is reached."""

    conn_id: str
    context: str
    namespace: str
    service: str
    port: int

    def __str__(self) -> str:
        return (
            f"port-forward to {self.namespace}/{self.service}:{self.port} (connection {self.conn_id!r}, "
            f"context {self.context or 'of the connection'})"
        )


def read_target(text: str, conn_id: str, context: str = "") -> Target:
    """Return the target of `namespace/service:port`. Raises ValueError that says how it is written."""
    match = _TARGET.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65_536:
        raise ValueError(
            f"port_forward {text!r} is not namespace/service:port, such as temporal/temporal-frontend-headless:7233"
        )
    return Target(conn_id, context, match["namespace"], match["service"], int(match["port"]))


def pod_port(service: ForeignJson, pod: ForeignJson, port: int) -> int:
    """Return the pod's port behind a Service's port. Raises LookupError when the Service has no such port."""
    ports: Sequence[ForeignJson] = service["spec"].get("ports") or []
    found = next((one for one in ports if one["port"] == port), None)
    if found is None:
        raise LookupError(
            f"the Service has no port {port}, but {', '.join(str(one['port']) for one in ports) or 'none'}"
        )
    target = found.get("targetPort") or port
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for one in container.get("ports") or []:
            if one.get("name") == target:
                return int(one["containerPort"])
    raise LookupError(f"pod {pod['metadata']['name']} has no port named {target!r}")


def ready_pods(pods: Sequence[ForeignJson]) -> list[ForeignJson]:
    """Return the pods that take connections: ready, and not about to end."""
    return [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and any(
            one["type"] == "Ready" and one["status"] == "True" for one in pod.get("status", {}).get("conditions") or []
        )
    ]


@dataclass
class _Forward:
    """The listener of one target."""

    target: Target
    extra: ForeignJson
    server: asyncio.Server | None = None
    last_error: str = ""
    streams: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> int:
        """Return the local port, after a pod was found. Raises PortForwardError."""
        try:
            async with asyncio.timeout(OPEN_SECONDS), self._api() as api:
                await self._pod(CoreV1Api(api))
        except TimeoutError as error:
            raise PortForwardError(f"{self.target}: no answer within {OPEN_SECONDS:g} s") from error
        if self.server is None:
            self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            log.info("%s listens on 127.0.0.1:%d", self.target, self._port)
        return self._port

    @property
    def _port(self) -> int:
        return int(self.server.sockets[0].getsockname()[1]) if self.server else 0

    @asynccontextmanager
    async def _api(self) -> AsyncIterator[Any]:
        hook = AsyncKubernetesHook(
            conn_id=self.target.conn_id,
            cluster_context=self.target.context or None,
            connection_extras=dict(self.extra),
        )
        try:
            async with hook.get_conn() as api:
                yield api
        except ApiException as error:
            hint = f"; it needs {RIGHTS} in namespace {self.target.namespace}" if error.status == 403 else ""
            raise PortForwardError(f"{self.target}: {error.status} {error.reason}{hint}") from None
        except aiohttp.WSServerHandshakeError as error:
            hint = f"; it needs {RIGHTS} in namespace {self.target.namespace}" if error.status == 403 else ""
            raise PortForwardError(
                f"{self.target}: the stream is refused: {error.status} {error.message}{hint}"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, PortForwardError):
                raise
            raise PortForwardError(f"{self.target}: the API server cannot be reached: {error}") from error

    async def _pod(self, core: CoreV1Api) -> tuple[str, int]:
        """Return name and port of a pod that is ready now."""
        namespace = self.target.namespace
        as_json = core.api_client.sanitize_for_serialization
        service = as_json(await core.read_namespaced_service(self.target.service, namespace))
        selector = service["spec"].get("selector")
        if not selector:
            raise PortForwardError(f"{self.target}: the Service has no selector, so its pods are not known")
        labels = ",".join(f"{name}={value}" for name, value in sorted(selector.items()))
        pods = ready_pods(as_json(await core.list_namespaced_pod(namespace, label_selector=labels))["items"])
        if not pods:
            raise PortForwardError(f"{self.target}: no pod is ready (labels {labels})")
        pod = pods[len(self.streams) % len(pods)]
        try:
            return pod["metadata"]["name"], pod_port(service, pod, self.target.port)
        except LookupError as error:
            raise PortForwardError(f"{self.target}: {error}") from None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one local connection."""
        task = asyncio.current_task()
        if task is not None:
            self.streams.add(task)
        try:
            await self._carry(reader, writer)
        except (PortForwardError, TimeoutError, OSError) as error:
            # The client sees a closed connection and tries again; why, is said by the next `open` and here.
            self.last_error = str(error) or type(error).__name__
            log.warning("%s", self.last_error)
        finally:
            if task is not None:
                self.streams.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._api() as api:
            async with asyncio.timeout(OPEN_SECONDS):
                name, port = await self._pod(CoreV1Api(api))
                client = WsApiClient(configuration=api.configuration, heartbeat=PING_SECONDS)
                opening = await CoreV1Api(client).connect_get_namespaced_pod_portforward(
                    name, self.target.namespace, ports=port, _preload_content=False
                )
            try:
                async with opening as stream:
                    await self._pump(stream, reader, writer)
            finally:
                await client.close()

    async def _pump(
        self, stream: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Copy both ways until either side ends."""

        async def up() -> None:
            while chunk := await reader.read(CHUNK_BYTES):
                await stream.send_bytes(bytes([DATA_CHANNEL]) + chunk)

        async def down() -> None:
            begun: set[int] = set()
            async for message in stream:
                if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                    continue
                channel, data = message.data[0], message.data[1:]
                if channel not in begun:
                    begun.add(channel)
                elif channel == ERROR_CHANNEL:
                    raise PortForwardError(f"{self.target}: {data.decode(errors='replace').strip()}")
                elif channel == DATA_CHANNEL:
                    writer.write(data)
                    await writer.drain()

        ways = [asyncio.create_task(up()), asyncio.create_task(down())]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


class PortForwards:
    """All forwards of this process; use the one of :func:`port_forwards`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._forwards: dict[Target, _Forward] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="port-forwards", daemon=True)
        self._thread.start()

    async def address(self, target: Target, extra: Mapping[str, Any]) -> tuple[str, int]:
        """Return host and port on this machine behind which the target is. Raises PortForwardError.

        Args:
            target: what to reach.
            extra: extra of the Kubernetes connection, read now: what is opened from now on uses it, so that rotated
                credentials are taken.
        """
        asked = asyncio.run_coroutine_threadsafe(self._open(target, dict(extra)), self._loop)
        return "127.0.0.1", await asyncio.wrap_future(asked)

    async def _open(self, target: Target, extra: ForeignJson) -> int:
        forward = self._forwards.setdefault(target, _Forward(target, extra))
        forward.extra = extra
        return await forward.open()

    def last_error(self, target: Target) -> str:
        """Return why the last connection could not be carried, '' if none was refused."""
        forward = self._forwards.get(target)
        return forward.last_error if forward else ""

    def close(self) -> None:
        """End every listener and the thread; only tests need it."""

        async def end() -> None:
            for forward in self._forwards.values():
                if forward.server is not None:
                    forward.server.close()
                for task in list(forward.streams):
                    task.cancel()
                await asyncio.gather(*forward.streams, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(OPEN_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(OPEN_SECONDS)
        self._loop.close()


_of_process: dict[int, PortForwards] = {}
_lock = threading.Lock()


def port_forwards() -> PortForwards:
    """Return the forwards of this process. A fork has neither the thread nor the sockets of its parent."""
    with _lock:
        found = _of_process.get(os.getpid())
        if found is None:
            found = _of_process[os.getpid()] = PortForwards()
        return found
