"""A record of what clients asked for: JSON lines in a file that survives its server, also a killed one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class JsonLines:
    """Rows that are appended to a file, each before ``add`` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists():
            data = path.read_bytes()
            # A line without its end was cut off by a kill; the next one must not be written behind it.
            path.write_bytes(data[: data.rfind(b"\n") + 1])
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def read(self) -> list[Row]:
        """All rows of the file."""
        with self._path.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    def add(self, row: Row) -> None:
        """Append a row."""
        self._file.write(json.dumps(row) + "\n")

    def clear(self) -> None:
        """Remove all rows."""
        self._file.truncate(0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
