"""A small Kubernetes API for what the stand-in does not do: port-forwards by websocket, and Secrets."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

Json = dict[str, Any]


def pod(name: str, ready: bool = True, ports: tuple[tuple[str, int], ...] = (("rpc", 7233),)) -> Json:
    """Return a pod of the forwarded Service."""
    return {
        "metadata": {"name": name, "namespace": "temporal", "labels": {"app": "frontend"}},
        "spec": {"containers": [{"name": "c", "ports": [{"name": n, "containerPort": p} for n, p in ports]}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


@dataclass
class KubeApi:
    """What the API holds, and what it was asked. `backends`: address behind each (pod, port)."""

    backends: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)
    pods: list[Json] = field(default_factory=lambda: [pod("frontend-0")])
    target_port: int | str = "rpc"
    secrets: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    sockets: list[web.WebSocketResponse] = field(default_factory=list)
    url: str = ""

    def extra(self, token: str = "t0") -> Json:
        """Return the extra of a Kubernetes connection to this API."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "demo_dev",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "demo_dev", "context": {"cluster": "c", "user": "u"}}],
        }
        return {"kube_config": json.dumps(config)}

    def _check(self, request: web.Request, what: str) -> None:
        self.asked.append(f"{request.method} {request.path}")
        self.tokens.add(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if what in self.forbidden:
            body = {"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "no"}
            raise web.HTTPForbidden(text=json.dumps(body), content_type="application/json")

    async def service(self, request: web.Request) -> web.Response:
        """GET one Service."""
        self._check(request, "services")
        ports = [{"port": 7233, "targetPort": self.target_port}]
        return web.json_response({
            "kind": "Service", "metadata": {"name": request.match_info["name"]},
            "spec": {"selector": {"app": "frontend"}, "ports": ports},
        })  # fmt: skip

    async def list_pods(self, request: web.Request) -> web.Response:
        """GET pods by label."""
        self._check(request, "pods")
        assert request.query["labelSelector"] == "app=frontend"
        return web.json_response({"kind": "PodList", "items": self.pods})

    async def secret(self, request: web.Request) -> web.Response:
        """GET one Secret."""
        self._check(request, "secrets")
        found = self.secrets.get((request.match_info["namespace"], request.match_info["name"]))
        if found is None:
            body = {"kind": "Status", "reason": "NotFound", "code": 404, "message": "not found"}
            return web.json_response(body, status=404)
        data = {key: base64.b64encode(value.encode()).decode() for key, value in found.items()}
        return web.json_response({"kind": "Secret", "metadata": {"name": request.match_info["name"]}, "data": data})

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Carry one stream, in the frames that an API server sends."""
        self._check(request, "portforward")
        port = int(request.query["ports"])
        socket = web.WebSocketResponse(protocols=["v4.channel.k8s.io"])
        await socket.prepare(request)
        self.sockets.append(socket)
        for channel in (0, 1):
            await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
        address = self.backends.get((request.match_info["name"], port))
        if address is None:
            await socket.send_bytes(b"\x01nothing listens there")
            await socket.close()
            return socket
        reader, writer = await asyncio.open_connection(*address)

        async def down() -> None:
            while chunk := await reader.read(65_536):
                await socket.send_bytes(b"\x00" + chunk)
            await socket.close()

        copying = asyncio.create_task(down())
        async for message in socket:
            if message.type is WSMsgType.BINARY and message.data[0] == 0:
                writer.write(message.data[1:])
                await writer.drain()
        copying.cancel()
        writer.close()
        with suppress(asyncio.CancelledError, ConnectionError):
            await copying
        return socket


@asynccontextmanager
async def kube_api() -> AsyncIterator[KubeApi]:
    """Serve an API on a free port."""
    api = KubeApi()
    app = web.Application()
    root = "/api/v1/namespaces/{namespace}"
    app.router.add_get(f"{root}/services/{{name}}", api.service)
    app.router.add_get(f"{root}/pods", api.list_pods)
    app.router.add_get(f"{root}/secrets/{{name}}", api.secret)
    app.router.add_get(f"{root}/pods/{{name}}/portforward", api.forward)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        for socket in api.sockets:
            await socket.close()
        await runner.cleanup()
