"""What the API server calls: the node's endpoints for logs and port-forwards, two webhooks, over HTTPS on 127.0.0.1.

The port shows the cluster's certificate and asks for none: like the stand-in's own endpoints it is for this machine.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from standins.controlplane.calls import Calls
from standins.controlplane.certs import Certificates
from standins.kubernetes import logs
from standins.kubernetes.calls import merge_patch
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.errors import StatusError
from standins.kubernetes.faults import subject_of
from standins.kubernetes.resources import JOBS, PODS, Obj, ResourceType

log = logging.getLogger(__name__)
WEBHOOK_SECONDS = 10
CHANNELS = "v4.channel.k8s.io"
CHUNK_BYTES = 65_536
DATA, ERROR = 0, 1
_TYPES = {resource.plural: resource for resource in (JOBS, PODS)}


class NodeServer:
    """Handlers of the endpoints."""

    def __init__(self, cluster: Cluster, stopping: asyncio.Event) -> None:
        self._cluster = cluster
        self._stopping = stopping

    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/containerLogs/{namespace}/{pod}/{container}", self.logs),
                WebSocketRoute("/portForward/{namespace}/{pod}", self.forward),
                Route("/mutate", self.mutate, methods=["POST"]),
                Route("/admit", self.admit, methods=["POST"]),
            ]
        )

    async def logs(self, request: Request) -> Response:
        """A container's log, as a kubelet gives it; the API server has checked who asks."""
        names = request.path_params
        pod = self._cluster.store.find(PODS, names["namespace"], names["pod"])
        if pod is None:
            return PlainTextResponse(f'pod "{names["pod"]}" does not exist', 404)
        try:
            options = {**request.query_params, "container": names["container"]}
            return logs.answer(self._cluster, pod, options, self._stopping)
        except StatusError as error:
            return PlainTextResponse(error.message, error.code)

    async def forward(self, socket: WebSocket) -> None:
        """A port of a pod, as a kubelet forwards it to websockets: pods are processes of this machine."""
        names = socket.path_params
        port = int(socket.query_params["port"])
        await socket.accept(subprotocol=CHANNELS)
        for channel in (DATA, ERROR):
            await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
        if self._cluster.store.find(PODS, names["namespace"], names["pod"]) is None:
            await socket.send_bytes(bytes([ERROR]) + b"pod not found")
            await socket.close()
            return
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            await socket.send_bytes(bytes([ERROR]) + f"error forwarding port {port} to pod: {error}".encode())
            await socket.close()
            return
        down = asyncio.create_task(_send_on(reader, socket))
        try:
            async for frame in socket.iter_bytes():
                if frame[:1] == bytes([DATA]):
                    writer.write(frame[1:])
                    await writer.drain()
        finally:
            down.cancel()
            writer.close()

    async def mutate(self, request: Request) -> Response:
        """Apply the mutate rules to a new Job or pod."""
        asked = (await request.json())["request"]
        resource, new = _TYPES[asked["resource"]["resource"]], asked["object"]
        changed = new
        path = f"/{resource.api_version}/namespaces/{asked['namespace']}/{resource.plural}"
        subject = self._cluster.subject_of(resource, {**new, "metadata": named(asked)})
        for rule in self._cluster.faults.take_requests(subject, "POST", path, {"mutate"}):
            changed = merge_patch(changed, dict(rule.patch))
        steps = [
            {"op": "add", "path": f"/{key}", "value": changed[key]} for key in changed if changed[key] != new.get(key)
        ]
        patch = {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(steps).encode()).decode()}
        return reviewed(asked, {"allowed": True} | (patch if steps else {}))

    async def admit(self, request: Request) -> Response:
        """Refuse a Job's pod while the fault no_pod holds its Job."""
        asked = (await request.json())["request"]
        pod = {**asked["object"], "metadata": named(asked)}
        job = self._cluster.job_of(pod)
        if job is not None and self._cluster.faults.holds("no_pod", subject_of(job), job["metadata"]["uid"]):
            return reviewed(asked, {"allowed": False, "status": {"message": "no pod for this Job now (sandbox)"}})
        return reviewed(asked, {"allowed": True})


async def _send_on(reader: asyncio.StreamReader, socket: WebSocket) -> None:
    """What the pod's process sends, until it closes."""
    while chunk := await reader.read(CHUNK_BYTES):
        await socket.send_bytes(bytes([DATA]) + chunk)
    await socket.close()


def named(asked: Obj) -> Obj:
    """The metadata of a new object, with the namespace that it may have left to its URL."""
    meta: Obj = asked["object"].get("metadata") or {}
    return {**meta, "namespace": asked["namespace"], "name": meta.get("name") or asked.get("name") or ""}


def reviewed(asked: Obj, verdict: Obj) -> Response:
    """An AdmissionReview with the answer."""
    answer = {"uid": asked["uid"], **verdict}
    return JSONResponse({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer})


def _hook(name: str, url: str, ca: Path, resources: tuple[ResourceType, ...]) -> Obj:
    groups = sorted({resource.group for resource in resources})
    rule = {
        "apiGroups": groups,
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": [resource.plural for resource in resources],
    }
    return {
        "name": f"{name}.sandbox.example.com",
        "clientConfig": {"url": url, "caBundle": base64.b64encode(ca.read_bytes()).decode()},
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": WEBHOOK_SECONDS,
        "failurePolicy": "Fail",
    }


async def install_webhooks(calls: Calls, port: int, ca: Path) -> None:
    """Tell the API server of the two webhooks, with the port of this start."""
    base = "/apis/admissionregistration.k8s.io/v1"
    for kind, hook, resources in (("mutating", "mutate", (JOBS, PODS)), ("validating", "admit", (PODS,))):
        path = f"{base}/{kind}webhookconfigurations"
        hooks = [_hook(hook, f"https://127.0.0.1:{port}/{hook}", ca, resources)]
        if not await calls.make(path, {"metadata": {"name": "sandbox"}, "webhooks": hooks}):
            await calls.send("PATCH", f"{path}/sandbox", {"webhooks": hooks}, "application/merge-patch+json")


class QuietServer(uvicorn.Server):
    """uvicorn that leaves the signals to the server for the clients."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def https_server(app: Starlette, certs: Certificates) -> QuietServer:
    """A server for the node's endpoints."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ssl_certfile=str(certs.node.cert),
        ssl_keyfile=str(certs.node.key),
        ssl_cert_reqs=ssl.CERT_NONE,
        timeout_graceful_shutdown=1,
    )
    return QuietServer(config)
