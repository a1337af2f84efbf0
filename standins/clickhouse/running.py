"""The statements that clients have sent to a node and that have not been answered yet: rows of system.processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class _Statement:
    query_id: str
    user: str
    text: str
    since: float


class Running:
    """Knows what runs. Thread-safe; nothing of it survives the process, as in a real server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statements: dict[object, _Statement] = {}

    @contextmanager
    def statement(self, query_id: str, user: str, text: str) -> Iterator[None]:
        """List a statement for as long as the block runs, also when its client has gone meanwhile."""
        key = object()
        with self._lock:
            self._statements[key] = _Statement(query_id, user, text, time.monotonic())
        try:
            yield
        finally:
            with self._lock:
                del self._statements[key]

    def rows(self) -> list[Row]:
        """Rows of system.processes, oldest first; columns that are missing have their default."""
        with self._lock:
            listed = list(self._statements.values())
        return [
            {
                "is_initial_query": 1,
                "user": s.user,
                "initial_user": s.user,
                "query_id": s.query_id,
                "initial_query_id": s.query_id,
                "query": s.text,
                "elapsed": time.monotonic() - s.since,
            }
            for s in listed
        ]
