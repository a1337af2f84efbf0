"""One real control plane with its node and its door: start in order, life, stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from standins.controlplane import parts, seeding
from standins.controlplane.access import Access, rules
from standins.controlplane.calls import Calls
from standins.controlplane.door import Door
from standins.controlplane.mirror import Mirror
from standins.controlplane.node import Node
from standins.controlplane.nodeserver import NodeServer, https_server, install_webhooks
from standins.controlplane.parts import Parts, Wiring
from standins.kubernetes.admin import Admin
from standins.kubernetes.cluster import Cluster, Settings
from standins.kubernetes.kubelet import Kubelet
from standins.kubernetes.rbac import Deny
from standins.kubernetes.recorder import Recorder

log = logging.getLogger(__name__)
READY_SECONDS = 120.0
POLL_SECONDS = 0.1
FLUSH_SECONDS = 3.0
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class ControlPlane:
    """All parts of one cluster. ``on_token`` is called with each new token, ``on_failure`` when a part ended."""

    def __init__(self, wiring: Wiring, settings: Settings, on_token: Callable[[str], None]) -> None:
        self.wiring = wiring
        self.stopping = asyncio.Event()
        self.failed = False
        self.on_failure: Callable[[], None] = lambda: None
        self._on_token = on_token
        self._parts = Parts(wiring.data / "parts")
        self._calls = Calls(wiring)
        self._mirror = Mirror(self._calls)
        self._cluster = Cluster(self._mirror, settings)
        self._kubelet = Kubelet(self._cluster)
        self._access = Access(self._calls)
        self._recorder = Recorder(wiring.data / "requests.jsonl")
        self._door = Door(self._cluster, self._recorder, wiring, self.stopping)
        self._tasks: list[asyncio.Task[None]] = []

    def app(self) -> Starlette:
        """The application for the clients; to be served when ``start`` is through."""
        admin = _Admin(self._cluster, self._kubelet, self._recorder, self._access, self._on_token)
        again = Route("/_sandbox/restart", self._restart_api_server, methods=["POST"])
        return Starlette(routes=[*admin.routes(), again, Route("/{path:path}", self._door.serve, methods=METHODS)])

    async def _restart_api_server(self, _request: Request) -> Response:
        """Kill kube-apiserver, start it again, and answer when it is ready; meanwhile the door answers 502."""
        await self._parts.restart("kube-apiserver")
        await self._ready()
        return JSONResponse({"restarted": "kube-apiserver"})

    async def start(self, manifests: Path, token: str) -> None:
        """Start everything; ``token`` is used again if it is still good. Raises PartEnded, TimeoutError, CallError."""
        self._parts.on_end = self._part_ended
        self._parts.guard()
        await self._parts.start("etcd", parts.etcd_command(self.wiring))
        await self._parts.start("kube-apiserver", parts.apiserver_command(self.wiring))
        await self._ready()
        await self._parts.start("kube-controller-manager", parts.controllers_command(self.wiring))
        await self._start_node()
        await self._access.prepare()
        await seeding.load(self._calls, manifests)
        good = token and await self._access.valid(token)
        self._on_token(token if good else await self._access.new_token())

    async def _ready(self) -> None:
        end = time.monotonic() + READY_SECONDS
        while not await self._calls.ready():
            self._parts.check()
            if time.monotonic() > end:
                raise TimeoutError(
                    f"kube-apiserver is not ready after {READY_SECONDS} s:\n{self._parts.tail('kube-apiserver')}"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _start_node(self) -> None:
        node_server = https_server(NodeServer(self._cluster, self.stopping).app(), self.wiring.certs)
        sock = parts.listening()
        port = int(sock.getsockname()[1])
        self._run("node-server", node_server.serve(sockets=[sock]))
        self._run("mirror", self._mirror.follow())
        await self._mirror.filled()
        self._kubelet.recover()
        node = Node(self._cluster, self._mirror, self._calls, self._kubelet, port)
        await node.register()
        await install_webhooks(self._calls, port, self.wiring.certs.ca)
        self._run("node", node.run())

    def _run(self, name: str, work: object) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)  # type: ignore[arg-type]
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.stopping.is_set():
            return
        log.error("%s ended; the server stops", task.get_name(), exc_info=task.exception())
        self._fail()

    def _part_ended(self, text: str) -> None:
        log.error("%s", text)
        self._fail()

    def _fail(self) -> None:
        self.failed = True
        self.on_failure()

    async def stop(self) -> None:
        """End the pods' processes, tell the API server, end the programs."""
        self.stopping.set()
        for task in self._tasks:
            if task.get_name() == "node":
                task.cancel()
        await self._kubelet.stop()
        await self._mirror.flushed(FLUSH_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._door.close()
        await self._calls.close()
        await self._parts.stop()
        self._recorder.close()


class _Admin(Admin):
    """The stand-in's own endpoints, with real rights and real tokens."""

    def __init__(
        self, cluster: Cluster, kubelet: Kubelet, recorder: Recorder, access: Access, on_token: Callable[[str], None]
    ) -> None:
        super().__init__(cluster, kubelet, recorder, on_token)
        self._access = access

    async def apply_rights(self, denied: list[Deny]) -> None:
        """Grant what the deny rules leave."""
        await self._access.allow(rules(denied))
        await super().apply_rights(denied)

    async def new_token(self) -> str:
        """A token of the server's."""
        return await self._access.new_token()
