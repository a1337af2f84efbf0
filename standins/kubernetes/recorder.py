"""The log of all requests, without secrets."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from pathlib import Path
from typing import Any

from standins.jsonlines import JsonLines
from standins.kubernetes.resources import Obj

KEPT = 50_000
"""Requests kept in memory; older ones stay in the file."""
_SECRET_NAME = re.compile(r"pass(word|wd)?|secret|token|credential|api_?key", re.IGNORECASE)
_SECRET_FIELDS = frozenset({"data", "stringData"})
HIDDEN = "***"


def fingerprint(token: str) -> str:
    """Eight characters that tell tokens apart without showing them; empty for no token."""
    return hashlib.sha256(token.encode()).hexdigest()[:8] if token else ""


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


class Recorder:
    """Keeps every request in memory and in a file of JSON lines, over restarts."""

    def __init__(self, path: Path) -> None:
        self._file = JsonLines(path)
        self._entries: deque[Obj] = deque(self._file.read(), maxlen=KEPT)
        self._next = int(self._entries[-1]["id"]) + 1 if self._entries else 1

    def add(self, entry: Obj) -> None:
        """Note one request; the number is added. The file is written before the client gets its answer."""
        is_secret = re.search(r"/secrets(/|$)", entry["path"]) is not None
        row = {"id": self._next, **entry, "body": without_secrets(entry.get("body"), is_secret)}
        self._next += 1
        self._entries.append(row)
        self._file.add(row)

    def select(
        self, method: str | None = None, path_contains: str | None = None, since_id: int = 0, mutating: bool = False
    ) -> list[Obj]:
        """The requests in their order; ``since_id`` is exclusive, ``mutating`` leaves out GET and HEAD."""
        return [
            row
            for row in self._entries
            if row["id"] > since_id
            and (method is None or row["method"] == method.upper())
            and not (mutating and row["method"] in ("GET", "HEAD"))
            and (path_contains is None or path_contains in row["path"])
        ]

    def clear(self) -> None:
        """Forget all requests, also in the file; numbers go on until the server is started again."""
        self._entries.clear()
        self._file.clear()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
