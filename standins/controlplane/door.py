"""The way in: notes every request, plays the faults on requests, hands the request to the real API server.

Nothing is decided here: token, rights, admission and validation are the API server's. It is plain HTTP on 127.0.0.1, as
the stand-in is; who wants TLS takes the kubeconfig ``direct.yaml`` of the data folder.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from standins.controlplane.calls import Calls, path_of
from standins.controlplane.parts import Wiring
from standins.kubernetes.calls import Call, decode_body, subject_for
from standins.kubernetes.clock import rfc3339_micro, utc_now
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.errors import StatusError
from standins.kubernetes.faults import REQUEST_KINDS, RequestFacts, Subject
from standins.kubernetes.injection import Injector
from standins.kubernetes.recorder import Recorder, fingerprint
from standins.kubernetes.resources import JOBS, Obj, parse_path, verb_of

log = logging.getLogger(__name__)
CONNECT_SECONDS = 5.0
_OWN_HEADERS = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "keep-alive"})
_SERVER_HEADERS = _OWN_HEADERS | {"date", "server"}
_STREAMED = frozenset({"true", "1"})


class Door:
    """Handles the requests of clients; ``url`` is the API server's."""

    def __init__(
        self, cluster: Cluster, recorder: Recorder, calls: Calls, wiring: Wiring, stopping: asyncio.Event
    ) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self._calls = calls
        self._stopping = stopping
        self._injector = Injector(cluster, self._store_job, stopping, REQUEST_KINDS - {"mutate"})
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        self._upstream = httpx.AsyncClient(
            base_url=wiring.api_url, verify=str(wiring.certs.ca), timeout=timeout, limits=limits, trust_env=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._upstream.aclose()

    async def _store_job(self, namespace: str | None, job: Obj) -> None:
        await self._calls.send("POST", path_of(JOBS, namespace), job)

    async def serve(self, request: Request) -> Response:
        """The answer to a request, noted before the client gets it."""
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
            response = await self._answer(request, entry)
            entry["status"] = response.status_code
        except StatusError as error:  # a fault's
            response = JSONResponse(error.body(), status_code=error.code, headers=error.headers)
            entry["reason"] = error.reason
            entry["status"] = error.code
        finally:
            entry["faults"] = getattr(request.state, "faults", [])
            entry["seconds"] = round(time.monotonic() - began, 4)
            self._recorder.add(entry)
        return response

    async def _answer(self, request: Request, entry: dict[str, Any]) -> Response:
        content = await request.body()
        call = _call(request, content)
        subject: Subject | None = None
        if call is not None:
            entry["body"] = call.body
            subject = subject_for(self._cluster, call)
            entry |= {"name": subject.name, "labels": dict(subject.labels)}

        async def forwarded(_call: Call | None) -> Response:
            return await self._forward(request, content, entry)

        facts = RequestFacts(request.method, request.url.path, subject)
        return await self._injector.run(request, facts, call, forwarded)

    async def _forward(self, request: Request, content: bytes, entry: dict[str, Any]) -> Response:
        headers = [(key, value) for key, value in request.headers.items() if key not in _OWN_HEADERS]
        url = httpx.URL(path=request.url.path, query=request.url.query.encode())
        sent = self._upstream.build_request(request.method, url, headers=headers, content=content or None)
        sent.headers["Accept-Encoding"] = "identity"
        try:
            answer = await self._upstream.send(sent, stream=True)
            if _is_streamed(request):
                lines = self._lines(answer)
                kept = _headers(answer)
                return StreamingResponse(lines, answer.status_code, kept, background=BackgroundTask(answer.aclose))
            body = await answer.aread()
        except httpx.TransportError as error:
            log.warning("%s %s: the API server does not answer: %s", request.method, request.url.path, error)
            return PlainTextResponse(f"the API server does not answer: {error}", 502)
        if answer.is_error:
            entry["reason"] = _reason(body)
        return Response(body, answer.status_code, _headers(answer))

    async def _lines(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        """The parts of a stream until either side ends it or this server stops."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        parts = answer.aiter_raw()
        try:
            while True:
                part = asyncio.ensure_future(anext(parts))
                await asyncio.wait({part, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not part.done():
                    part.cancel()
                    return
                yield part.result()
        except (StopAsyncIteration, httpx.TransportError):
            return
        finally:
            stopping.cancel()
            await answer.aclose()


def _call(request: Request, content: bytes) -> Call | None:
    """The request as fault rules see it; None if it names no object or cannot be read."""
    target = parse_path(request.url.path)
    if target is None:
        return None
    query = dict(request.query_params)
    content_type = request.headers.get("content-type", "")
    try:
        body = decode_body(content, content_type)
    except StatusError:
        body = None
    verb = verb_of(request.method, target, query.get("watch", "").lower() in _STREAMED) or ""
    return Call(request.method, request.url.path, query, body, content_type, target, verb)


def _is_streamed(request: Request) -> bool:
    return any(request.query_params.get(key, "").lower() in _STREAMED for key in ("watch", "follow"))


def _headers(answer: httpx.Response) -> dict[str, str]:
    return {key: value for key, value in answer.headers.items() if key not in _SERVER_HEADERS}


def _reason(body: bytes) -> str:
    """The reason of a Status object, empty for another body."""
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    return str(found.get("reason", "")) if isinstance(found, dict) else ""
