"""Faults on requests: what happens before, instead of, or after the real answer."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from standins.kubernetes import errors
from standins.kubernetes.api import list_object
from standins.kubernetes.calls import Call, merge_patch
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.errors import StatusError
from standins.kubernetes.faults import REQUEST_KINDS, Rule, Subject
from standins.kubernetes.resources import PODS

Answer = Callable[[Call | None], Awaitable[Response]]
POLL_SECONDS = 0.05
_REASONS = {500: "InternalError", 504: "Timeout"}
"""Where the API's word is not that of HTTP."""


class CutResponse(Response):
    """An answer that stops after its head: the client sees a connection that breaks."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head and a first byte, then let the server close the connection."""
        headers = [(b"content-type", b"application/json"), (b"content-length", b"4096")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})


def error_of(rule: Rule) -> StatusError:
    """The error that a rule asks for; missing parts are those of a real server with this status."""
    phrase = HTTPStatus(rule.status).phrase
    reason = rule.reason or _REASONS.get(rule.status, phrase.replace(" ", ""))
    return StatusError(rule.status, reason, rule.message or f"{phrase} (sandbox)")


class Injector:
    """Runs the handler of a request under the rules of some kinds that catch it."""

    def __init__(self, cluster: Cluster, stopping: asyncio.Event, kinds: Collection[str] = REQUEST_KINDS) -> None:
        self._cluster = cluster
        self._stopping = stopping
        self._kinds = kinds

    async def run(self, request: Request, subject: Subject | None, call: Call | None, answer: Answer) -> Response:
        """The answer, changed by the rules; their kinds are noted in ``request.state.faults``.

        ``call`` and ``subject`` are None for paths without a resource. Raises StatusError.
        """
        rules = self._cluster.faults.take_requests(subject, request.method, request.url.path, self._kinds)
        request.state.faults = [rule.kind for rule in rules]
        for rule in rules:
            if rule.kind == "mutate":
                if call is not None:
                    call = dataclasses.replace(call, body=merge_patch(call.document(), dict(rule.patch)))
            elif rule.kind == "hang":
                if not await self._hold(request, rule):
                    return Response(status_code=499)  # the client has gone: nothing is done
            else:
                return await self._spoiled(request, rule, call, answer)
        return await answer(call)

    async def _spoiled(self, request: Request, rule: Rule, call: Call | None, answer: Answer) -> Response:
        """The answer of a rule that does not only wait before it."""
        if rule.kind == "unauthorized":
            raise errors.unauthorized()
        if rule.kind == "empty_pod_list":
            return JSONResponse(list_object(PODS, self._cluster.store.version, []))
        if rule.kind != "error":
            stored = await answer(call)
            if rule.kind == "stored_then_cut":
                return CutResponse()
            if rule.kind == "stored_then_hang":
                await self._hold(request, rule)
                return stored
        raise error_of(rule)

    async def _hold(self, request: Request, rule: Rule) -> bool:
        """Hang until the rule is cleared or its seconds are over; False if the client has gone."""
        end = None if rule.seconds is None else time.monotonic() + rule.seconds
        while not self._stopping.is_set():
            if (end is not None and time.monotonic() >= end) or not self._cluster.faults.stands(rule):
                return True
            if await request.is_disconnected():
                return False
            await asyncio.sleep(POLL_SECONDS)
        return False
