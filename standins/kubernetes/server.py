"""The HTTP server: token, record, faults, handlers, and the life of the controllers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from standins.kubernetes import errors
from standins.kubernetes.admin import Admin
from standins.kubernetes.api import Api
from standins.kubernetes.calls import Call, read_call, subject_for
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.controllers import Controllers
from standins.kubernetes.errors import StatusError
from standins.kubernetes.injection import Injector
from standins.kubernetes.kubelet import Kubelet
from standins.kubernetes.recorder import Recorder, bearer
from standins.kubernetes.resources import Obj

log = logging.getLogger(__name__)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
VERSION = {"major": "1", "minor": "37", "gitVersion": "v1.37.0+sandbox"}
"""Nothing else is told of the server itself: there is no list of groups and resources."""
SHUTDOWN_SECONDS = 2
"""How long open requests may take to end at the stop."""


class ApiServer:
    """All parts of one server. ``on_token`` is called with each new token (to write the kubeconfig)."""

    def __init__(self, cluster: Cluster, token: str, on_token: Callable[[str], None]) -> None:
        self._cluster = cluster
        self.stopping = asyncio.Event()
        self.failed = False
        self._token = token
        self._on_token = on_token
        self.api = Api(cluster, self.stopping)
        self._kubelet = Kubelet(cluster)
        self._controllers = Controllers(cluster, self._kubelet)
        self._recorder = Recorder(cluster.settings.data / "requests.jsonl")
        self._injector = Injector(cluster, self.stopping)
        self.on_failure: Callable[[], None] = lambda: None

    def app(self) -> Starlette:
        """The application with all routes."""
        admin = Admin(self._cluster, self._kubelet, self._recorder, self._set_token)
        routes = [
            *admin.routes(),
            Route("/healthz", lambda _: PlainTextResponse("ok")),
            Route("/version", lambda _: JSONResponse(VERSION)),
            Route("/{path:path}", self._serve, methods=METHODS),
        ]
        return Starlette(routes=routes, lifespan=self._life)

    def _set_token(self, token: str) -> None:
        self._token = token
        self._on_token(token)

    @contextlib.asynccontextmanager
    async def _life(self, _app: Starlette) -> AsyncIterator[None]:
        self._kubelet.recover()
        loop = asyncio.create_task(self._controllers.run(), name="controllers")
        loop.add_done_callback(self._loop_ended)
        try:
            yield
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            await self._kubelet.stop()
            self._recorder.close()
            self._cluster.store.close()

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the controllers ended with an error; the server stops", exc_info=error)
            self.failed = True
            self.on_failure()

    async def _serve(self, request: Request) -> Response:
        return await self._recorder.note(request, self._answer)

    async def _answer(self, request: Request, entry: Obj) -> Response:
        call = await read_call(request)
        subject = None
        if call is not None:
            subject = subject_for(self._cluster, call)
            entry |= {"body": call.body, "name": subject.name, "labels": dict(subject.labels)}
        if bearer(request) != self._token:
            raise errors.unauthorized()
        return await self._injector.run(request, subject, call, self._plain_answer)

    async def _plain_answer(self, call: Call | None) -> Response:
        if call is None:
            raise StatusError(404, "NotFound", "the server could not find the requested resource")
        return self.api.handle(call)


class HttpServer(uvicorn.Server):
    """uvicorn that tells followed logs and held requests to end before it waits for them."""

    def __init__(
        self, app: Starlette, log_level: str, stopping: asyncio.Event, lifespan: Literal["on", "off"] = "on"
    ) -> None:
        options: Any = {"access_log": False, "timeout_graceful_shutdown": SHUTDOWN_SECONDS}
        super().__init__(uvicorn.Config(app, log_level=log_level, lifespan=lifespan, **options))
        self._stopping = stopping

    async def shutdown(self, sockets: Any = None) -> None:
        """Stop: first the streams, then the rest."""
        self._stopping.set()
        await super().shutdown(sockets)
