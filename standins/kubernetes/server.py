"""The HTTP server: token, record, faults, handlers, and the life of the controllers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from standins.kubernetes import errors
from standins.kubernetes.admin import Admin
from standins.kubernetes.api import Api
from standins.kubernetes.calls import Call, decode_body, subject_for
from standins.kubernetes.clock import rfc3339_micro, utc_now
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.controllers import Controllers
from standins.kubernetes.errors import StatusError
from standins.kubernetes.faults import RequestFacts
from standins.kubernetes.injection import Injector
from standins.kubernetes.kubelet import Kubelet
from standins.kubernetes.recorder import Recorder, fingerprint
from standins.kubernetes.resources import JOBS, Obj, parse_path, verb_of

log = logging.getLogger(__name__)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
ANONYMOUS = "system:anonymous"
VERSION: Obj = {"major": "1", "minor": "37", "gitVersion": "v1.37.0+sandbox"}
"""Nothing else is told of the server itself: there is no list of groups and resources."""
SHUTDOWN_SECONDS = 2
"""How long open requests may take to end at the stop."""


def anonymous(request: Request, call: Call | None) -> StatusError:
    """The refusal of a request without a token: a real server takes it for the user system:anonymous."""
    if call is not None:
        return errors.forbidden(call.target, ANONYMOUS, call.verb)
    verb = request.method.lower()
    text = f'forbidden: User "{ANONYMOUS}" cannot {verb} path "{request.url.path}"'
    return StatusError(403, "Forbidden", text)


class ApiServer:
    """All parts of one server. ``on_token`` is called with each new token (to write the kubeconfig)."""

    def __init__(self, cluster: Cluster, token: str, on_token: Callable[[str], None]) -> None:
        self.cluster = cluster
        self.stopping = asyncio.Event()
        self.failed = False
        self._token = token
        self._on_token = on_token
        self.api = Api(cluster, self.stopping)
        self._kubelet = Kubelet(cluster)
        self._controllers = Controllers(cluster, self._kubelet)
        self._recorder = Recorder(cluster.settings.data / "requests.jsonl")
        self._injector = Injector(cluster, self._store_job, self.stopping)
        self.on_failure: Callable[[], None] = lambda: None

    def app(self) -> Starlette:
        """The application with all routes."""
        admin = Admin(self.cluster, self._kubelet, self._recorder, self._set_token)
        routes = [*admin.routes(), Route("/{path:path}", self._serve, methods=METHODS)]
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
            self.cluster.store.close()

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the controllers ended with an error; the server stops", exc_info=error)
            self.failed = True
            self.on_failure()

    async def _serve(self, request: Request) -> Response:
        began = time.monotonic()
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        entry: dict[str, Any] = {
            "time": rfc3339_micro(utc_now()),
            "method": request.method,
            "path": request.url.path,
            "query": dict(request.query_params),
            "token": fingerprint(token),
            "status": 500,
        }
        try:
            response = await self._answer(request, token, entry)
            entry["status"] = response.status_code
        except StatusError as error:
            response = JSONResponse(error.body(), status_code=error.code, headers=error.headers)
            entry["status"], entry["reason"] = error.code, error.reason
        finally:
            entry["faults"] = getattr(request.state, "faults", [])
            entry["seconds"] = round(time.monotonic() - began, 4)
            self._recorder.add(entry)
        return response

    async def _answer(self, request: Request, token: str, entry: dict[str, Any]) -> Response:
        if request.url.path == "/healthz":
            return PlainTextResponse("ok")
        refused: StatusError | None = None
        call, subject = None, None
        try:
            call = await self._call(request)
            if call is not None:
                entry["body"] = call.body
                subject = subject_for(self.cluster, call)
                entry |= {"name": subject.name, "labels": dict(subject.labels)}
        except StatusError as error:
            refused = error  # shown only to a client with a valid token
        if token != self._token and request.url.path.rstrip("/") != "/version":
            raise errors.unauthorized() if token else anonymous(request, call)
        if refused is not None:
            raise refused
        facts = RequestFacts(request.method, request.url.path, subject)
        return await self._injector.run(request, facts, call, lambda call: self._plain_answer(call, request))

    @staticmethod
    async def _call(request: Request) -> Call | None:
        """The request on a resource, None for another path. Raises StatusError."""
        content_type = request.headers.get("content-type", "")
        body = decode_body(await request.body(), content_type)
        target = parse_path(request.url.path)
        if target is None:
            return None
        query = dict(request.query_params)
        verb = verb_of(request.method, target, query.get("watch", "").lower() in ("true", "1"))
        if verb is None:
            raise errors.method_not_allowed()
        return Call(request.method, request.url.path, query, body, content_type, target, verb)

    async def _store_job(self, namespace: str | None, job: Obj) -> None:
        self.cluster.store.add(JOBS, self.api.prepare(JOBS, namespace, job))

    async def _plain_answer(self, call: Call | None, request: Request) -> Response:
        if call is not None:
            return self.api.handle(call)
        if request.method != "GET" or request.url.path.rstrip("/") != "/version":
            raise errors.no_such_path()
        return JSONResponse(VERSION)


class HttpServer(uvicorn.Server):
    """uvicorn that tells followed logs and held requests to end before it waits for them."""

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def shutdown(self, sockets: Any = None) -> None:
        """Stop: first the streams, then the rest."""
        self._stopping.set()
        await super().shutdown(sockets)
