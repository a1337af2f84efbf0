"""Rows that a Distributed table has taken and not yet sent: what a background insert leaves on the node's disk."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.faults import Faults

Row = dict[str, Any]

_LOOK_SECONDS = 0.1
"""How often the rules are looked at while anything is spooled."""


@dataclass(frozen=True)
class Spooled:
    """One block of one shard. `rule` is the fault rule that holds it back since `since` (Unix seconds)."""

    id: str
    database: str
    table: str
    """Of the Distributed table."""
    shard: int
    """From 0."""
    rule: int
    since: float
    error: str = ""


class Spool:
    """The files of one node. Thread-safe; they survive the node. `send` delivers one block to its shard."""

    def __init__(self, folder: Path, faults: Faults) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._faults = faults
        self._lock = threading.RLock()
        self._change = threading.Event()
        self._stopping = False
        self._flushing: set[tuple[str, str]] = set()
        self._thread = threading.Thread(target=self._follow, name="spool")
        self.send: Callable[[Spooled, bytes], None] = lambda item, block: None

    def start(self) -> None:
        """Send what no rule holds back from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is spooled stays."""
        self._stopping = True
        self._change.set()
        self._thread.join()

    def keep(self, rule: Row, database: str, table: str, shard: int, block: bytes) -> None:
        """Take a block instead of sending it."""
        item = Spooled(
            uuid.uuid4().hex, database, table, shard, int(rule["id"]), time.time(), str(rule.get("reason", ""))
        )
        with self._lock:
            self._file(item, "native").write_bytes(block)
            self._note(item)
        self._change.set()

    def flush(self, database: str, table: str) -> None:
        """SYSTEM FLUSH DISTRIBUTED: send all of a table now. Raises ClickHouseError when a rule with `reason` holds."""
        with self._lock:
            for item in self._items():
                if (item.database, item.table) != (database, table):
                    continue
                if item.error and not self._faults.is_over(item.rule, item.since):
                    raise ClickHouseError(279, f"All connection tries failed. Log: {item.error}")
                self._deliver(item)

    def flush_soon(self, database: str, table: str) -> None:
        """The same by the thread, for who holds a lock that a delivery needs."""
        with self._lock:
            self._flushing.add((database, table))
        self._change.set()

    def look(self) -> None:
        """Fault rules came or went."""
        self._change.set()

    def rows(self) -> list[Row]:
        """Rows of system.distribution_queue: one per Distributed table and shard that has files."""
        found: dict[tuple[str, str, int], Row] = {}
        with self._lock:
            for item in self._items():
                row = found.setdefault(
                    (item.database, item.table, item.shard),
                    {
                        "database": item.database,
                        "table": item.table,
                        "data_path": str(self._folder / f"shard{item.shard + 1}_all_replicas"),
                        "is_blocked": 0,
                        "error_count": 0,
                        "data_files": 0,
                        "data_compressed_bytes": 0,
                        "last_exception": "",
                    },
                )
                row["data_files"] += 1
                row["data_compressed_bytes"] += self._file(item, "native").stat().st_size
                if item.error:
                    row |= {"error_count": row["error_count"] + 1, "last_exception": item.error}
                    row["last_exception_time"] = int(item.since)
        return list(found.values())

    def _file(self, item: Spooled, kind: str) -> Path:
        return self._folder / f"{item.id}.{kind}"

    def _note(self, item: Spooled) -> None:
        self._file(item, "json").write_text(json.dumps(asdict(item)), encoding="utf-8")

    def _items(self) -> list[Spooled]:
        found = [Spooled(**json.loads(path.read_text(encoding="utf-8"))) for path in self._folder.glob("*.json")]
        return sorted(found, key=lambda item: (item.since, item.shard))

    def _deliver(self, item: Spooled) -> None:
        self.send(item, self._file(item, "native").read_bytes())
        self._file(item, "json").unlink()
        self._file(item, "native").unlink()

    def _tick(self) -> bool:
        """Send what is free; whether anything is left."""
        with self._lock:
            flushing, self._flushing = self._flushing, set()
            for item in self._items():
                asked = (item.database, item.table) in flushing and not item.error
                if not asked and not self._faults.is_over(item.rule, item.since):
                    continue
                try:
                    self._deliver(item)
                except ClickHouseError as error:
                    self._note(Spooled(**{**asdict(item), "error": error.message}))
            return any(self._items())

    def _follow(self) -> None:
        while not self._stopping:
            self._change.clear()
            left = self._tick()
            self._change.wait(_LOOK_SECONDS if left else None)
