"""Carries out the changes of the shared log on this node, in their order, and adds changes of its own shard.

Every change is made under the shard's lock: first whatever is open, then the new one here, then the other replicas are
told. A replica that is down reads the log when it is back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from standins.clickhouse.engine import Engine
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.faults import Faults
from standins.clickhouse.keeper import Entry, Keeper
from standins.clickhouse.local import Context
from standins.clickhouse.mutations import Mutations
from standins.clickhouse.sqltext import quote_name, quote_string
from standins.clickhouse.statements import parse
from standins.clickhouse.topology import NodeAddress, Topology
from standins.clickhouse.wire import Unreachable, call

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
"""How often the log is looked at without being told."""
BUSY_SECONDS = 0.05
"""The same while something is held back."""


class Replica:
    """This node's copy of its shard. `run_ddl` carries out an ON CLUSTER statement."""

    def __init__(
        self,
        engine: Engine,
        keeper: Keeper,
        mutations: Mutations,
        faults: Faults,
        topology: Topology,
        node: NodeAddress,
    ) -> None:
        self._engine = engine
        self._keeper = keeper
        self._mutations = mutations
        self._faults = faults
        self._node = node
        self._shard = [replica.name for replica in topology.replicas_of(node.name)]
        self._peers = [replica for replica in topology.replicas_of(node.name) if replica.name != node.name]
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._stopping = False
        self._changed = True
        self._pool = ThreadPoolExecutor(max(1, len(self._peers)), thread_name_prefix="peers")
        self._thread = threading.Thread(target=self._follow, name="log")
        self.run_ddl: Callable[[Entry], None] = lambda entry: None
        self.table_changed: Callable[[], None] = lambda: None
        """Told of each ALTER: a table may have other columns since."""

    def start(self) -> None:
        """Catch up with the log and follow it from now on."""
        with self._lock:
            self._mutations.tick()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self._pool.shutdown()

    def wake(self) -> None:
        """Look at the log now, without waiting for it."""
        self._wake.set()

    def rules_changed(self) -> None:
        """Fault rules came or went: look again at what is held back."""
        self._changed = True
        self._wake.set()

    def catch_up(self) -> None:
        """Carry out everything that the log holds for this node."""
        with self._keeper.shard_lock(), self._lock:
            self._carry_out_all()

    def write(self, kind: str, database: str, table: str, body: Mapping[str, Any]) -> None:
        """Change a table of this shard on all replicas. Raises ClickHouseError when it cannot be done here."""
        with self._keeper.shard_lock(), self._lock:
            self._carry_out_all()
            if kind == "insert" and self._keeper.knows_block(str(body["block"])):
                return
            entry = self._keeper.append(kind, self._node.shard, database, table, body)
            # ON CLUSTER statements do not need the shard's lock: one may have come in between.
            self._carry_out_all(until=entry.seq)
        list(self._pool.map(self._tell, self._peers))

    def write_for_ddl(self, kind: str, database: str, table: str, body: Mapping[str, Any], ddl: int) -> None:
        """The same while an ON CLUSTER statement is carried out: the shard's lock is held already."""
        entry = self._keeper.append(kind, self._node.shard, database, table, {**body, "made_by": self._node.name}, ddl)
        try:
            self._carry_out(entry)
        except ClickHouseError:
            self._keeper.remove(entry)
            raise

    def _tell(self, peer: NodeAddress) -> None:
        with suppress(Unreachable):
            call(peer, "/internal/sync", {})

    def _carry_out_all(self, until: int | None = None) -> None:
        """Carry out what is open. Entry `until` is this node's own: a failed one is taken back, its error raised."""
        while (entry := self._keeper.next_entry()) is not None:
            if entry.seq == until:
                self._carry_out_own(entry)
            elif entry.kind == "ddl":
                self.run_ddl(entry)
            elif not self._is_done(entry) and not self._is_held(entry):
                self._follow_entry(entry)
            self._keeper.advance(entry.seq)

    def _carry_out_own(self, entry: Entry) -> None:
        try:
            self._carry_out(entry)
        except ClickHouseError:
            self._keeper.remove(entry)
            raise

    def _is_done(self, entry: Entry) -> bool:
        """Whether this node made the change itself, for an ON CLUSTER statement (and did not die over it)."""
        if entry.ddl is None or entry.body.get("made_by") != self._node.name:
            return False
        return any(status.node == self._node.name for status in self._keeper.statuses(entry.ddl))

    def _is_held(self, entry: Entry) -> bool:
        text = entry.body.get("sql") or f"INSERT INTO {entry.database}.{entry.table}"
        rule = self._faults.hit("replica_hold", str(text))
        if rule is not None:
            self._keeper.postpone(entry.seq, int(rule["id"]))
        return rule is not None

    def _retry(self) -> bool:
        """Carry out what was left for later and whose rule is over; whether any is still held back."""
        still = False
        for entry, since, rule in self._keeper.postponed():
            if not self._faults.is_over(rule, since):
                still = True
                continue
            self._keeper.resume(entry.seq)
            if entry.kind == "ddl":
                self.run_ddl(entry)
            else:
                self._follow_entry(entry)
        return still

    def _follow_entry(self, entry: Entry) -> None:
        try:
            self._carry_out(entry)
        except ClickHouseError as error:
            log.warning("entry %d (%s of %s.%s): %s", entry.seq, entry.kind, entry.database, entry.table, error)
        if entry.ddl is not None and not self._keeper.is_postponed(entry.ddl):
            self._keeper.finish(entry.ddl, 0, "")

    def _carry_out(self, entry: Entry) -> None:
        table = (entry.database, entry.table)
        if entry.kind == "insert":
            self._insert(entry)
        elif entry.kind == "kill":
            self._mutations.kill(*table, str(entry.body["mutation_id"]))
        else:
            context = Context(entry.body["database"], entry.body["settings"], entry.body["params"])
            statement = parse(entry.body["sql"])
            self._mutations.apply(statement, table, entry.body["mutation_id"], context)
            if not statement.keeps_columns:
                self.table_changed()

    def _insert(self, entry: Entry) -> None:
        block = self._keeper.blocks / str(entry.body["block"])
        if not block.exists():
            log.warning("entry %d: the rows for %s.%s are no longer kept", entry.seq, entry.database, entry.table)
            return
        target = f"{quote_name(entry.database)}.{quote_name(entry.table)}"
        with self._engine.session({"async_insert": "0"}) as session:
            session.run(f"INSERT INTO {target} FROM INFILE {quote_string(str(block))} FORMAT Native")
        others = [name for name in self._shard if name != self._node.name]
        self._keeper.drop_block(entry, others)

    def _follow(self) -> None:
        version = -1
        while not self._stopping:
            now = self._keeper.version()
            if now != version or self._wake.is_set():
                self._wake.clear()
                version = now
                self._guarded(self.catch_up)
            busy = self._guarded(self._tick)
            self._wake.wait(BUSY_SECONDS if busy else IDLE_SECONDS)

    def _tick(self) -> bool:
        if not self._keeper.postponed() and not self._mutations.holding and not self._changed:
            return False
        self._changed = False
        with self._keeper.shard_lock(), self._lock:
            self._mutations.tick()
            postponed = self._retry()
        return postponed or self._mutations.holding

    def _guarded(self, step: Callable[[], bool | None]) -> bool:
        """The thread must live on: an error of one entry is logged and the entry is tried again."""
        try:
            return bool(step())
        except Exception:
            log.exception("the log could not be carried on; trying again in %s s", IDLE_SECONDS)
            return False
