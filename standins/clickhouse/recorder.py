"""The record of what clients asked a node to do: a file of JSON lines that survives the node, and what runs now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from standins.jsonlines import JsonLines, Row

TEXT_KEPT = 100_000
"""Characters of a statement that are kept; the data of an INSERT never are."""


class Recorder:
    """Writes a line when a statement arrives and one when it ends, so that a killed node leaves its last one too."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file = JsonLines(path)
        self._rows: dict[int, Row] = {}
        self._running: dict[int, Row] = {}
        for row in self._file.read():
            self._keep(row)
        self._next = max(self._rows, default=0) + 1

    @contextmanager
    def running(self, row: Mapping[str, object]) -> Iterator[Callable[[str], None]]:
        """Note a statement, and list it as long as the block runs. What is given tells how it ended.

        That is ok, error <code>, or reset/cut with what was done before; until then `outcome` is null.
        """
        with self._lock:
            number = self._next
            self._next += 1
            text = str(row["statement"])[:TEXT_KEPT]
            self._running[number] = {"id": number, "time": time.time(), **row, "statement": text, "outcome": None}
            self._write(self._running[number])
        try:
            yield lambda outcome: self._ended(number, outcome)
        finally:
            with self._lock:
                del self._running[number]

    def processes(self) -> list[Row]:
        """Rows of system.processes, oldest first; columns that are missing have their default."""
        with self._lock:
            return [
                {
                    "is_initial_query": 1,
                    **dict.fromkeys(("user", "initial_user"), row["user"]),
                    **dict.fromkeys(("query_id", "initial_query_id"), row["query_id"]),
                    "query": row["statement"],
                    "elapsed": time.time() - row["time"],
                }
                for row in self._running.values()
            ]

    def select(self, *, queries: bool, since: int, contains: str) -> list[Row]:
        """Rows in order: `since` is an exclusive id, `queries` adds SELECT, SHOW and the like."""
        with self._lock:
            return [
                dict(row)
                for row in self._rows.values()
                if row["id"] > since and (queries or row["changes"]) and contains in row["statement"]
            ]

    def clear(self) -> None:
        """Forget everything; numbers go on."""
        with self._lock:
            self._rows.clear()
            self._file.clear()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def _ended(self, number: int, outcome: str) -> None:
        with self._lock:
            if number in self._rows:
                seconds = round(time.time() - self._rows[number]["time"], 4)
                self._write({"id": number, "outcome": outcome, "seconds": seconds})

    def _write(self, row: Row) -> None:
        self._keep(row)
        self._file.add(row)

    def _keep(self, row: Row) -> None:
        self._rows[row["id"]] = {**self._rows.get(row["id"], {}), **row}
