"""The record of what clients asked a node to do: a file of JSON lines that survives the node."""

from __future__ import annotations

import threading
import time
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
        for row in self._file.read():
            self._keep(row)
        self._next = max(self._rows, default=0) + 1

    def started(self, row: Row) -> int:
        """Note a statement; returns its number. `outcome` is null until it ends."""
        with self._lock:
            number = self._next
            self._next += 1
            text = str(row["statement"])[:TEXT_KEPT]
            self._write({"id": number, "time": time.time(), **row, "statement": text, "outcome": None})
        return number

    def ended(self, number: int, outcome: str) -> None:
        """Note how it ended: ok, error <code>, or reset/cut with what was done before."""
        with self._lock:
            begun = self._rows.get(number)
            if begun is not None:
                self._write({"id": number, "outcome": outcome, "seconds": round(time.time() - begun["time"], 4)})

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

    def _write(self, row: Row) -> None:
        self._keep(row)
        self._file.add(row)

    def _keep(self, row: Row) -> None:
        self._rows[row["id"]] = {**self._rows.get(row["id"], {}), **row}
