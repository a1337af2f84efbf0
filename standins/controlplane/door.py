"""The way in: notes every request, plays the faults on requests, hands the request to the real API server.

Nothing is decided here: token, rights, admission and validation are the API server's. It is plain HTTP on 127.0.0.1, as
the stand-in is; who wants TLS takes the kubeconfig ``direct.yaml`` of the data folder.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import httpx
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from standins.controlplane.parts import Wiring
from standins.kubernetes.calls import STREAMED, Call, read_call, subject_for
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.faults import REQUEST_KINDS, Subject
from standins.kubernetes.injection import Injector
from standins.kubernetes.recorder import Recorder
from standins.kubernetes.resources import Obj

log = logging.getLogger(__name__)
CONNECT_SECONDS = 5.0
_OWN_HEADERS = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "keep-alive"})
_SERVER_HEADERS = _OWN_HEADERS | {"date", "server"}


class Door:
    """Handles the requests of clients; ``url`` is the API server's."""

    def __init__(self, cluster: Cluster, recorder: Recorder, wiring: Wiring, stopping: asyncio.Event) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self._stopping = stopping
        self._injector = Injector(cluster, stopping, REQUEST_KINDS - {"mutate"})
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        self._upstream = httpx.AsyncClient(
            base_url=wiring.api_url, verify=str(wiring.certs.ca), timeout=timeout, limits=limits, trust_env=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._upstream.aclose()

    async def serve(self, request: Request) -> Response:
        """The answer to a request, noted before the client gets it."""
        return await self._recorder.note(request, self._answer)

    async def _answer(self, request: Request, entry: Obj) -> Response:
        content = await request.body()
        call = await read_call(request)
        subject: Subject | None = None
        if call is not None:
            subject = subject_for(self._cluster, call)
            entry |= {"body": call.body, "name": subject.name, "labels": dict(subject.labels)}

        async def forwarded(_call: Call | None) -> Response:
            return await self._forward(request, content, entry)

        return await self._injector.run(request, subject, call, forwarded)

    async def _forward(self, request: Request, content: bytes, entry: Obj) -> Response:
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


def _is_streamed(request: Request) -> bool:
    return any(request.query_params.get(key, "").lower() in STREAMED for key in ("watch", "follow"))


def _headers(answer: httpx.Response) -> dict[str, str]:
    return {key: value for key, value in answer.headers.items() if key not in _SERVER_HEADERS}


def _reason(body: bytes) -> str:
    """The reason of a Status object, empty for another body."""
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    return str(found.get("reason", "")) if isinstance(found, dict) else ""
