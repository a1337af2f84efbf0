"""The log of all requests, without secrets."""

from __future__ import annotations

import hashlib
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from standins.jsonlines import JsonLines
from standins.kubernetes.clock import rfc3339_micro, utc_now
from standins.kubernetes.errors import StatusError
from standins.kubernetes.resources import Obj

KEPT = 50_000
"""Requests kept in memory; older ones stay in the file."""
_SECRET_NAME = re.compile(r"pass(word|wd)?|secret|token|credential|api_?key", re.IGNORECASE)
_SECRET_FIELDS = frozenset({"data", "stringData"})
HIDDEN = "***"


def fingerprint(token: str) -> str:
    """Eight characters that tell tokens apart without showing them; empty for no token."""
    return hashlib.sha256(token.encode()).hexdigest()[:8] if token else ""


def bearer(request: Request) -> str:
    """The token of a request, or the empty string."""
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def without_secrets(value: Any, is_secret: bool = False) -> Any:
    """A copy of a body with the values of Secrets and of variables with telling names hidden.

    ``is_secret``: the body is a Secret even if it does not say so, as a client may leave out its kind.
    """
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    if not isinstance(value, dict):
        return value
    if is_secret or value.get("kind") == "Secret":
        return {
            key: dict.fromkeys(inner, HIDDEN) if key in _SECRET_FIELDS and isinstance(inner, dict) else inner
            for key, inner in value.items()
        }
    copy = {key: without_secrets(inner) for key, inner in value.items()}
    if isinstance(copy.get("name"), str) and "value" in copy and _SECRET_NAME.search(copy["name"]):
        copy["value"] = HIDDEN
    return copy


class Choice(BaseModel, frozen=True, extra="forbid"):
    """Which requests are asked for: ``since_id`` is exclusive, ``mutating`` leaves out GET and HEAD."""

    method: str | None = None
    path_contains: str = ""
    since_id: int = 0
    mutating: bool = False


class Recorder:
    """Keeps every request in memory and in a file of JSON lines, over restarts."""

    def __init__(self, path: Path) -> None:
        self._file = JsonLines(path)
        self._entries: deque[Obj] = deque(self._file.read(), maxlen=KEPT)
        self._next = int(self._entries[-1]["id"]) + 1 if self._entries else 1

    async def note(self, request: Request, answer: Callable[[Request, Obj], Awaitable[Response]]) -> Response:
        """The answer to a request, noted before the client gets it; ``answer`` adds what it knows to the entry."""
        began = time.monotonic()
        entry: Obj = {
            "time": rfc3339_micro(utc_now()),
            "method": request.method,
            "path": request.url.path,
            "query": dict(request.query_params),
            "token": fingerprint(bearer(request)),
            "status": 500,
        }
        try:
            response = await answer(request, entry)
            entry["status"] = response.status_code
        except StatusError as error:
            response = error.response()
            entry |= {"status": error.code, "reason": error.reason}
        finally:
            entry["faults"] = getattr(request.state, "faults", [])
            entry["seconds"] = round(time.monotonic() - began, 4)
            self.add(entry)
        return response

    def add(self, entry: Obj) -> None:
        """Keep one request; the number is added."""
        is_secret = re.search(r"/secrets(/|$)", entry["path"]) is not None
        row = {"id": self._next, **entry, "body": without_secrets(entry.get("body"), is_secret)}
        self._next += 1
        self._entries.append(row)
        self._file.add(row)

    def select(self, choice: Choice) -> list[Obj]:
        """The chosen requests in their order."""
        return [
            row
            for row in self._entries
            if row["id"] > choice.since_id
            and choice.method in (None, row["method"])
            and not (choice.mutating and row["method"] in ("GET", "HEAD"))
            and choice.path_contains in row["path"]
        ]

    def close(self) -> None:
        """Close the file."""
        self._file.close()
