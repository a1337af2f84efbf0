"""The stand-in's own endpoints below ``/_sandbox/``: requests, faults, deny rules, token, processes.

No token needed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from standins.kubernetes.cluster import Cluster
from standins.kubernetes.faults import parse_rule
from standins.kubernetes.kubelet import Kubelet
from standins.kubernetes.rbac import Deny
from standins.kubernetes.recorder import Recorder, fingerprint


class Admin:
    """Handlers of the endpoints; ``set_token`` makes a token the only valid one and writes the kubeconfig
    anew.
    """

    def __init__(
        self, cluster: Cluster, kubelet: Kubelet, recorder: Recorder, set_token: Callable[[str], None]
    ) -> None:
        self._cluster = cluster
        self._kubelet = kubelet
        self._recorder = recorder
        self._set_token = set_token

    def routes(self) -> list[Route]:
        """The routes of all endpoints."""
        return [
            Route("/_sandbox/requests", self.requests, methods=["GET", "DELETE"]),
            Route("/_sandbox/faults", self.faults, methods=["GET", "POST", "DELETE"]),
            Route("/_sandbox/faults/{number:int}", self.drop_fault, methods=["DELETE"]),
            Route("/_sandbox/rbac", self.rbac, methods=["GET", "POST", "DELETE"]),
            Route("/_sandbox/token", self.token, methods=["POST"]),
            Route("/_sandbox/processes", self.processes, methods=["GET"]),
        ]

    async def requests(self, request: Request) -> Response:
        """GET lists the requests (method, path_contains, since_id, mutating=true); DELETE forgets them."""
        if request.method == "DELETE":
            self._recorder.clear()
            return JSONResponse({"cleared": True})
        query = request.query_params
        try:
            since = int(query.get("since_id", "0"))
        except ValueError:
            return JSONResponse({"error": f"since_id is {query['since_id']!r}; it must be a number"}, 400)
        mutating = query.get("mutating", "false").lower() == "true"
        return JSONResponse(self._recorder.select(query.get("method"), query.get("path_contains"), since, mutating))

    async def faults(self, request: Request) -> Response:
        """GET lists the rules; POST adds a rule or a list of rules; DELETE drops all."""
        now = time.monotonic()
        if request.method == "GET":
            return JSONResponse(self._cluster.faults.listing(now))
        if request.method == "DELETE":
            return JSONResponse({"cleared": self._cluster.faults.clear()})
        try:
            raw = await request.json()
            rules = [parse_rule(item) for item in (raw if isinstance(raw, list) else [raw])]
        except ValueError as error:  # FaultRuleError and bad JSON are ValueErrors
            return JSONResponse({"error": str(error)}, 400)
        ids = [self._cluster.faults.add(rule, now) for rule in rules]
        self._cluster.store.wake()
        return JSONResponse({"ids": ids}, 201)

    async def drop_fault(self, request: Request) -> Response:
        """Drop one rule by its number."""
        return JSONResponse({"cleared": self._cluster.faults.clear(number=request.path_params["number"])})

    async def rbac(self, request: Request) -> Response:
        """POST ``{"deny": [...]}`` replaces the deny rules; DELETE drops them; GET counts them."""
        if request.method == "POST":
            try:
                raw = await request.json()
                await self.apply_rights([Deny.model_validate(item) for item in raw["deny"]])
            except (ValueError, KeyError, TypeError) as error:  # pydantic's ValidationError is a ValueError
                return JSONResponse({"error": f'expected {{"deny": [rule, ...]}}: {error}'}, 400)
        elif request.method == "DELETE":
            await self.apply_rights([])
        return JSONResponse({"deny_rules": len(self._cluster.deny)})

    async def apply_rights(self, rules: list[Deny]) -> None:
        """Replace the deny rules. Raises ValueError for rules that cannot be applied."""
        self._cluster.deny[:] = rules

    async def new_token(self, wanted: str | None) -> str:
        """The token to use from now on. Raises ValueError if the wanted one cannot be had."""
        return wanted or secrets.token_urlsafe(24)

    async def token(self, request: Request) -> Response:
        """Make a new token the only valid one (``{"token": ...}`` or a random one) and end unauthorized
        faults.
        """
        body = await request.json() if await request.body() else {}
        try:
            token = await self.new_token(body.get("token"))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        self._set_token(token)
        self._cluster.faults.clear(kind="unauthorized")
        return JSONResponse({"fingerprint": fingerprint(token)})

    async def processes(self, _request: Request) -> Response:
        """The process groups that run now, by ``<pod uid>/<container>``."""
        return JSONResponse(self._kubelet.table.listing())
