"""Faults on requests: what happens before, instead of, or after the real answer."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Collection

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from standins.kubernetes import errors
from standins.kubernetes.api import list_object
from standins.kubernetes.calls import Call, merge_patch
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.errors import StatusError
from standins.kubernetes.faults import REQUEST_KINDS, ActiveRule, RequestFacts, Rule
from standins.kubernetes.resources import JOBS, PODS, Obj

Answer = Callable[[Call | None], Awaitable[Response]]
POLL_SECONDS = 0.05
_REASONS = {
    401: ("Unauthorized", "Unauthorized"),
    403: ("Forbidden", "forbidden"),
    404: ("NotFound", "the server could not find the requested resource"),
    409: ("Conflict", "the operation cannot be fulfilled"),
    429: ("TooManyRequests", "the server has received too many requests and has asked us to try again later"),
    500: ("InternalError", "Internal error occurred: etcdserver: request timed out"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: ("Timeout", "Timeout: request did not complete within the allotted timeout"),
}


class CutResponse(Response):
    """An answer that stops after its head: the client sees a connection that breaks."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head and a first byte, then let the server close the connection."""
        headers = [(b"content-type", b"application/json"), (b"content-length", b"4096")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})


def error_of(rule: Rule) -> StatusError:
    """The error that a rule asks for; missing parts are those of a real server with this status."""
    reason, message = _REASONS.get(rule.status, ("InternalError", "an error on the server"))
    return StatusError(rule.status, rule.reason or reason, rule.message or message)


def foreign_job(call: Call) -> Obj:
    """A Job of somebody else under the name that the client wants; it is suspended and starts nothing."""
    name = (call.document().get("metadata") or {}).get("name")
    container = {"name": "main", "image": "registry.invalid/foreign:1", "command": ["true"]}
    template = {"metadata": {}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "somebody-else"}},
        "spec": {"suspend": True, "template": template},
    }


class Injector:
    """Runs the handler of a request under the rules of some kinds that catch it.

    ``store_job`` puts a Job into a namespace (somebody else's, see conflict_foreign).
    """

    def __init__(
        self,
        cluster: Cluster,
        store_job: Callable[[str | None, Obj], Awaitable[None]],
        stopping: asyncio.Event,
        kinds: Collection[str] = REQUEST_KINDS,
    ) -> None:
        self._cluster = cluster
        self._store_job = store_job
        self._stopping = stopping
        self._kinds = kinds

    async def run(self, request: Request, facts: RequestFacts, call: Call | None, answer: Answer) -> Response:
        """The answer, changed by the rules; their kinds are noted in ``request.state.faults``.

        ``call`` is None for paths without a resource. Raises StatusError.
        """
        for active in self._cluster.faults.take_requests(facts, time.monotonic(), self._kinds):
            rule = active.rule
            request.state.faults = [*getattr(request.state, "faults", []), rule.kind]
            if rule.kind == "hang":
                if not await self._hold(request, active):
                    return Response(status_code=499)  # the client has gone: nothing is done
            elif rule.kind == "stored_then_hang":
                stored = await answer(call)
                await self._hold(request, active)
                return stored
            elif rule.kind == "mutate":
                if call is not None:
                    call = dataclasses.replace(call, body=merge_patch(call.document(), dict(rule.patch)))
            else:
                return await self._spoiled(rule, call, answer)
        return await answer(call)

    async def _spoiled(self, rule: Rule, call: Call | None, answer: Answer) -> Response:
        """The answer of a rule that does not only wait."""
        if rule.kind in ("stored_then_500", "stored_then_cut", "conflict_own"):
            await answer(call)
        if rule.kind == "stored_then_cut":
            return CutResponse()
        if rule.kind == "unauthorized":
            raise errors.unauthorized()
        if rule.kind == "conflict_own" and call is not None:
            name = (call.document().get("metadata") or {}).get("name", "")
            raise errors.already_exists(call.resource, str(name))
        if rule.kind == "empty_pod_list":
            return JSONResponse(list_object(PODS, self._cluster.store.version, []))
        if rule.kind == "conflict_foreign":
            if call is not None and call.resource is JOBS:
                await self._store_job(call.target.namespace, foreign_job(call))
            return await answer(call)
        raise error_of(rule)

    async def _hold(self, request: Request, active: ActiveRule) -> bool:
        """Hang until the rule is cleared or its seconds are over; False if the client has gone."""
        end = None if active.rule.seconds is None else time.monotonic() + active.rule.seconds
        while not self._stopping.is_set():
            now = time.monotonic()
            if (end is not None and now >= end) or not self._cluster.faults.holds(active.number, now):
                return True
            if await request.is_disconnected():
                return False
            await asyncio.sleep(POLL_SECONDS)
        return False
