"""The stand-in's own endpoints below ``/_sandbox/``: requests, faults, deny rules, token, processes.

No token needed.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from standins.kubernetes.cluster import Cluster
from standins.kubernetes.kubelet import Kubelet
from standins.kubernetes.rbac import Deny
from standins.kubernetes.recorder import Choice, Recorder, fingerprint

Handler = Callable[[Request], Awaitable[object]]


def _checked(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """The handler's value as JSON; 400 for a body or a query that cannot be used."""

    async def answer(request: Request) -> Response:
        try:
            return JSONResponse(await handler(request))
        except (ValueError, KeyError, TypeError) as error:  # those of pydantic, JSON and fault rules are ValueErrors
            return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 400)

    return answer


class Admin:
    """Handlers of the endpoints; ``set_token`` makes a token the only valid one and writes the kubeconfig."""

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
            Route("/_sandbox/requests", _checked(self.requests)),
            Route("/_sandbox/faults", _checked(self.faults)),
            Route("/_sandbox/faults", _checked(self.add_faults), methods=["POST"]),
            Route("/_sandbox/faults", _checked(self.clear_faults), methods=["DELETE"]),
            Route("/_sandbox/faults/{number:int}", _checked(self.clear_faults), methods=["DELETE"]),
            Route("/_sandbox/rbac", _checked(self.rbac), methods=["POST"]),
            Route("/_sandbox/token", _checked(self.token), methods=["POST"]),
            Route("/_sandbox/processes", _checked(self.processes)),
        ]

    async def requests(self, request: Request) -> object:
        """The requests that the query chooses (see Choice)."""
        return self._recorder.select(Choice.model_validate(dict(request.query_params)))

    async def faults(self, _request: Request) -> object:
        """The fault rules."""
        return self._cluster.faults.listing()

    async def add_faults(self, request: Request) -> object:
        """Add the rules of a list, all or none."""
        ids = self._cluster.faults.add(*await request.json())
        self._cluster.store.wake()
        return {"ids": ids}

    async def clear_faults(self, request: Request) -> object:
        """Drop one rule by its number, or all."""
        return {"cleared": self._cluster.faults.clear(request.path_params.get("number"))}

    async def rbac(self, request: Request) -> object:
        """Replace the deny rules by those of ``{"deny": [...]}``."""
        await self.apply_rights([Deny.model_validate(item) for item in (await request.json())["deny"]])
        return {"deny_rules": len(self._cluster.deny)}

    async def apply_rights(self, rules: list[Deny]) -> None:
        """Replace the deny rules. Raises ValueError for rules that cannot be applied."""
        self._cluster.deny[:] = rules

    async def new_token(self) -> str:
        """The token to use from now on."""
        return secrets.token_urlsafe(24)

    async def token(self, _request: Request) -> object:
        """Make a new token the only valid one and end unauthorized faults."""
        token = await self.new_token()
        self._set_token(token)
        self._cluster.faults.clear(kind="unauthorized")
        return {"fingerprint": fingerprint(token)}

    async def processes(self, _request: Request) -> object:
        """The process groups that run now, by ``<pod uid>/<container>``."""
        return self._kubelet.processes()
