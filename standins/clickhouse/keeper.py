"""What ZooKeeper is to a real cluster: the order of all changes, shared by the nodes through one folder.

One SQLite database holds the DDL queue and the replication log of every shard in one sequence, how far each replica is,
the answers of the hosts to ON CLUSTER statements, and the mutations with the ids that all replicas of a shard show.
A node that was down reads on where it was, so killing nodes never makes replicas differ.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, shard INTEGER NOT NULL, database TEXT NOT NULL,
    tbl TEXT NOT NULL, body TEXT NOT NULL, ddl INTEGER, created REAL NOT NULL);
CREATE INDEX IF NOT EXISTS log_ddl ON log (ddl, shard) WHERE ddl IS NOT NULL;
CREATE TABLE IF NOT EXISTS ddl_status (
    seq INTEGER, node TEXT, code INTEGER NOT NULL, error TEXT NOT NULL, finished REAL NOT NULL,
    PRIMARY KEY (seq, node));
CREATE TABLE IF NOT EXISTS progress (node TEXT PRIMARY KEY, data_id TEXT NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS postponed (
    node TEXT, seq INTEGER, rule INTEGER NOT NULL, since REAL NOT NULL, PRIMARY KEY (node, seq));
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS mutations (
    node TEXT, database TEXT, tbl TEXT, native_id TEXT, mutation_id TEXT NOT NULL, command TEXT NOT NULL,
    rule INTEGER, created REAL NOT NULL, PRIMARY KEY (node, database, tbl, native_id));
"""
FOREVER = 0
"""In place of a fault rule's id: never carried out."""
DDL_KEPT = 1000
"""Entries that system.distributed_ddl_queue shows, like the real default of max_tasks_in_queue."""


@dataclass(frozen=True)
class Entry:
    """One change. `shard` 0 is an ON CLUSTER statement, for every node; others are for the replicas of one shard."""

    seq: int
    kind: str
    """ddl, insert, alter or kill."""
    shard: int
    database: str
    table: str
    body: Mapping[str, Any]
    ddl: int | None
    """The ON CLUSTER statement that this change came from."""
    created: float
    """Unix seconds."""


@dataclass(frozen=True)
class HostStatus:
    """How one host ended an ON CLUSTER statement; code 0 is success."""

    node: str
    code: int
    error: str
    finished: float


@dataclass(frozen=True)
class MutationRecord:
    """Which id and command a native mutation is shown with on one node, and the fault rule that it fell under."""

    database: str
    table: str
    native_id: str
    mutation_id: str
    command: str
    """Shown instead of the native one when not empty."""
    rule: int | None
    created: float


class Keeper:
    """The shared folder as one node sees it. Thread-safe."""

    def __init__(self, folder: Path, node: str, shard: int, data_id: str) -> None:
        self.blocks = folder / "blocks"
        self.blocks.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._node = node
        self._shard = shard
        self._lock = threading.RLock()
        self._db = sqlite3.connect(folder / "keeper.sqlite", timeout=30, check_same_thread=False, isolation_level=None)
        # Two nodes that start at once may both switch to WAL; the busy time-out does not cover that.
        with self._start_lock(folder / "start.lock"):
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            self._register(data_id)

    @contextmanager
    def _start_lock(self, path: Path) -> Iterator[None]:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _register(self, data_id: str) -> None:
        """Take the node's place. Another data folder than last time reads the log from its start."""
        known = self._row("SELECT data_id FROM progress WHERE node = ?", self._node)
        if known is not None and known[0] == data_id:
            return
        self._run("DELETE FROM mutations WHERE node = ?", self._node)
        self._run("DELETE FROM postponed WHERE node = ?", self._node)
        self._run("INSERT OR REPLACE INTO progress VALUES (?, ?, 0)", self._node, data_id)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    @contextmanager
    def shard_lock(self) -> Iterator[None]:
        """Hold the right to change this node's shard, against all processes. Given up by itself when one dies."""
        with (self._folder / f"shard-{self._shard}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def version(self) -> int:
        """A number that changes when another process has written."""
        row = self._row("PRAGMA data_version")
        return int(row[0]) if row else 0

    def append(
        self, kind: str, shard: int, database: str, table: str, body: Mapping[str, Any], ddl: int | None = None
    ) -> Entry:
        """Add a change at the end of the log."""
        created = time.time()
        with self._lock:
            cursor = self._db.execute(
                "INSERT INTO log (kind, shard, database, tbl, body, ddl, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (kind, shard, database, table, json.dumps(body), ddl, created),
            )
            seq = int(cursor.lastrowid or 0)
        return Entry(seq, kind, shard, database, table, body, ddl, created)

    def remove(self, entry: Entry) -> None:
        """Take back an entry that could not be carried out."""
        self._run("DELETE FROM log WHERE seq = ?", entry.seq)

    def next_entry(self) -> Entry | None:
        """The first change that this node has not looked at."""
        row = self._row(
            "SELECT * FROM log WHERE seq > (SELECT seq FROM progress WHERE node = ?) AND shard IN (0, ?)"
            " ORDER BY seq LIMIT 1",
            self._node,
            self._shard,
        )
        return None if row is None else _entry(row)

    def advance(self, seq: int) -> None:
        """Note that this node has looked at everything up to `seq`."""
        self._run("UPDATE progress SET seq = max(seq, ?) WHERE node = ?", seq, self._node)

    def position(self, node: str) -> int:
        """How far a node is; 0 for an unknown one."""
        row = self._row("SELECT seq FROM progress WHERE node = ?", node)
        return int(row[0]) if row else 0

    def backlog(self) -> list[Entry]:
        """Changes of this node's shard that it has not carried out."""
        rows = self._rows(
            "SELECT * FROM log WHERE shard = ? AND (seq > (SELECT seq FROM progress WHERE node = ?)"
            " OR seq IN (SELECT seq FROM postponed WHERE node = ?)) ORDER BY seq",
            self._shard,
            self._node,
            self._node,
        )
        return [_entry(row) for row in rows]

    def made_by(self, ddl: int) -> bool:
        """Whether a replica of this shard has carried out the ON CLUSTER statement as a change of the shard."""
        return self._row("SELECT 1 FROM log WHERE ddl = ? AND shard = ?", ddl, self._shard) is not None

    def has_seen_change_of(self, ddl: int) -> bool:
        """Whether this node is past the change that another replica made for an ON CLUSTER statement."""
        row = self._row(
            "SELECT 1 FROM log WHERE ddl = ? AND shard = ? AND seq <= (SELECT seq FROM progress WHERE node = ?)",
            ddl,
            self._shard,
            self._node,
        )
        return row is not None

    def postpone(self, seq: int, rule: int) -> None:
        """Leave a change for later on this node, because of a fault rule (FOREVER: for good)."""
        self._run("INSERT OR IGNORE INTO postponed VALUES (?, ?, ?, ?)", self._node, seq, rule, time.time())

    def postponed(self) -> list[tuple[Entry, float, int]]:
        """(entry, since when in Unix seconds, fault rule) of what this node has left for later."""
        rows = self._rows(
            "SELECT log.*, since, rule FROM postponed JOIN log USING (seq) WHERE node = ? AND rule != ? ORDER BY seq",
            self._node,
            FOREVER,
        )
        return [(_entry(row[:-2]), float(row[-2]), int(row[-1])) for row in rows]

    def is_postponed(self, seq: int) -> bool:
        """Whether this node has left the entry for later, or for good."""
        return self._row("SELECT 1 FROM postponed WHERE node = ? AND seq = ?", self._node, seq) is not None

    def resume(self, seq: int) -> None:
        """Forget that the entry was left for later."""
        self._run("DELETE FROM postponed WHERE node = ? AND seq = ?", self._node, seq)

    def finish(self, seq: int, code: int, error: str) -> None:
        """Give this host's answer to an ON CLUSTER statement; the first answer stays."""
        self._run("INSERT OR IGNORE INTO ddl_status VALUES (?, ?, ?, ?, ?)", seq, self._node, code, error, time.time())

    def statuses(self, seq: int) -> list[HostStatus]:
        """Answers of the hosts so far, in the order in which they came."""
        rows = self._rows("SELECT node, code, error, finished FROM ddl_status WHERE seq = ? ORDER BY finished", seq)
        return [HostStatus(*row) for row in rows]

    def ddl_entries(self) -> list[Entry]:
        """The last ON CLUSTER statements, oldest first."""
        rows = self._rows("SELECT * FROM log WHERE shard = 0 ORDER BY seq DESC LIMIT ?", DDL_KEPT)
        return [_entry(row) for row in reversed(rows)]

    def count_up(self, name: str) -> int:
        """The next number of a counter, from 0."""
        with self._lock:
            row = self._db.execute(
                "INSERT INTO counters VALUES (?, 0) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
                (name,),
            ).fetchone()
        return int(row[0])

    def save_mutation(self, record: MutationRecord) -> None:
        """Note how a native mutation of this node is shown."""
        self._run(
            "INSERT OR REPLACE INTO mutations VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            self._node,
            record.database,
            record.table,
            record.native_id,
            record.mutation_id,
            record.command,
            record.rule,
            record.created,
        )

    def mutations(self) -> dict[tuple[str, str, str], MutationRecord]:
        """Records of this node by (database, table, native id)."""
        rows = self._rows(
            "SELECT database, tbl, native_id, mutation_id, command, rule, created FROM mutations WHERE node = ?",
            self._node,
        )
        return {(row[0], row[1], row[2]): MutationRecord(*row) for row in rows}

    def forget_mutations(self, database: str, table: str | None) -> None:
        """A table (None: a whole database) was dropped here: native ids start again in a new one."""
        self._run(
            "DELETE FROM mutations WHERE node = ? AND database = ? AND tbl = coalesce(?, tbl)",
            self._node,
            database,
            table,
        )

    def new_block(self, data: bytes) -> str:
        """Store rows in Native format for the replicas of a shard; returns the file's name."""
        name = f"{uuid.uuid4().hex}.native"
        (self.blocks / name).write_bytes(data)
        return name

    def knows_block(self, name: str) -> bool:
        """Whether an insert with these rows is in the log (its sender may have missed the answer)."""
        row = self._row(
            "SELECT 1 FROM (SELECT body FROM log WHERE kind = 'insert' ORDER BY seq DESC LIMIT 1000)"
            " WHERE json_extract(body, '$.block') = ?",
            name,
        )
        return row is not None

    def drop_block(self, entry: Entry, replicas: list[str]) -> None:
        """Delete an insert's rows once every replica is past it."""
        held = self._row("SELECT 1 FROM postponed WHERE seq = ?", entry.seq)
        if held is None and all(self.position(name) >= entry.seq for name in replicas):
            (self.blocks / str(entry.body["block"])).unlink(missing_ok=True)

    def _run(self, sql: str, *values: object) -> None:
        with self._lock:
            self._db.execute(sql, values)

    def _row(self, sql: str, *values: object) -> Any:
        with self._lock:
            return self._db.execute(sql, values).fetchone()

    def _rows(self, sql: str, *values: object) -> list[Any]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()


def _entry(row: tuple[Any, ...]) -> Entry:
    seq, kind, shard, database, table, body, ddl, created = row
    return Entry(seq, kind, shard, database, table, json.loads(body), ddl, created)
