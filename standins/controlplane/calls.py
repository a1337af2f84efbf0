"""Calls of the sandbox's own parts to the real API server, as its administrator."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from standins.controlplane.parts import Wiring
from standins.kubernetes.resources import Obj, ResourceType

MERGE = "application/merge-patch+json"
CALL_SECONDS = 10.0
WATCH_SECONDS = 300
_NOT_MADE = 409


class CallError(RuntimeError):
    """A call that the API server refused; ``status`` is its HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status

    @property
    def passing(self) -> bool:
        """Whether the same call may be taken later: the server is starting, or has too much to do."""
        return self.status >= 500 or self.status == httpx.codes.TOO_MANY_REQUESTS


def tls_context(wiring: Wiring) -> ssl.SSLContext:
    """Trusts the cluster's authority only and shows the administrator's certificate."""
    context = ssl.create_default_context(cafile=str(wiring.certs.ca))
    pair = wiring.certs.administrator
    context.load_cert_chain(pair.cert, pair.key)
    return context


def path_of(resource: ResourceType, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
    """The URL path of objects of a type, of one object, or of a part of it."""
    start = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
    parts = [start, *(["namespaces", namespace] if namespace else []), resource.plural, name, subresource]
    return "/".join(part for part in parts if part)


class Calls:
    """A client with the administrator's rights."""

    def __init__(self, wiring: Wiring) -> None:
        timeout = httpx.Timeout(CALL_SECONDS, pool=None)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._client = httpx.AsyncClient(
            base_url=wiring.api_url, verify=tls_context(wiring), timeout=timeout, limits=limits, trust_env=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ready(self) -> bool:
        """Whether the server answers that it is ready."""
        try:
            return (await self._client.get("/readyz")).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    async def send(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Any:
        """The answer's JSON. Raises CallError for a refusal, httpx.TransportError without an answer."""
        content = None if body is None else json.dumps(body).encode()
        answer = await self._client.request(method, path, content=content, headers={"Content-Type": content_type})
        if answer.is_error:
            raise CallError(answer.status_code, f"{method} {path} was refused with {answer.status_code}: {answer.text}")
        return answer.json()

    async def make(self, path: str, body: Mapping[str, Any]) -> bool:
        """Create an object below a path; False if its name is taken."""
        try:
            await self.send("POST", path, body)
        except CallError as error:
            if error.status == _NOT_MADE:
                return False
            raise
        return True

    async def watch(self, path: str, version: str) -> AsyncIterator[Obj]:
        """The events after a version, until the server ends the watch."""
        query: dict[str, str | int] = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        query["timeoutSeconds"] = WATCH_SECONDS
        timeout = httpx.Timeout(CALL_SECONDS, read=WATCH_SECONDS + CALL_SECONDS, pool=None)
        async with self._client.stream("GET", path, params=query, timeout=timeout) as answer:
            if answer.is_error:
                text = (await answer.aread()).decode(errors="replace")
                raise CallError(answer.status_code, f"watch of {path} was refused with {answer.status_code}: {text}")
            async for line in answer.aiter_lines():
                yield json.loads(line)
