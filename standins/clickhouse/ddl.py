"""ON CLUSTER: the queue on the sending side, the work on each host, and the answer with one row per host."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from standins.clickhouse.changes import Changes
from standins.clickhouse.engine import Result
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.faults import Faults, default_message
from standins.clickhouse.keeper import FOREVER, Entry, HostStatus, Keeper
from standins.clickhouse.local import Context, Local
from standins.clickhouse.replica import Replica
from standins.clickhouse.statements import Statement, parse
from standins.clickhouse.system_tables import rows_source
from standins.clickhouse.topology import NodeAddress, Topology
from standins.clickhouse.wire import Unreachable, call, is_alive

Row = dict[str, Any]

DEFAULT_TIMEOUT = "180"
"""ClickHouse's default of distributed_ddl_task_timeout, in seconds."""
# Other processes write their answers into a shared file and cannot wake this one.
_POLL_SECONDS = 0.02
_NOT_QUEUED = ("distributed_ddl_task_timeout", "distributed_ddl_output_mode", "max_execution_time")


_MODES = ("throw", "null_status_on_timeout")


class OnCluster:
    """The side of the node that a client has sent the statement to."""

    def __init__(self, keeper: Keeper, topology: Topology, node: NodeAddress, local: Local, replica: Replica) -> None:
        self._keeper = keeper
        self._topology = topology
        self._node = node
        self._local = local
        self._replica = replica

    def run(self, context: Context, text: str, statement: Statement, fmt: str, files: Path) -> Result:
        """Queue the statement, wait for the hosts, answer. Raises ClickHouseError as the output mode says."""
        if statement.cluster not in (self._topology.cluster, "{cluster}"):
            raise ClickHouseError(701, f"Requested cluster '{statement.cluster}' not found")
        own = context.with_settings(statement.settings)
        mode = own.setting("distributed_ddl_output_mode", "throw")
        if mode not in _MODES:
            raise ClickHouseError(36, f"the sandbox knows no DistributedDDLOutputMode {mode!r}, only {_MODES}")
        timeout = float(own.setting("distributed_ddl_task_timeout", DEFAULT_TIMEOUT))
        settings = {name: value for name, value in own.settings.items() if name not in _NOT_QUEUED}
        body = {
            "sql": text,
            "database": context.database,
            "settings": settings,
            "params": dict(context.params),
            "initiator": self._node.name,
        }
        entry = self._keeper.append("ddl", 0, "", "", body)
        self._wake_all()
        if timeout == 0:
            return Result(b"")
        statuses, missing = self._wait(entry, timeout)
        if missing and mode == "throw":
            raise ClickHouseError(159, self._timeout_text(entry, missing))
        return self._answer(statuses, missing, mode, fmt, files)

    def _wake_all(self) -> None:
        self._replica.wake()
        for node in self._topology.nodes:
            if node.name != self._node.name:
                try:
                    call(node, "/internal/wake", {}, seconds=2.0)
                except Unreachable:
                    # It reads the queue when it is back.
                    continue

    def _wait(self, entry: Entry, timeout: float) -> tuple[list[HostStatus], list[NodeAddress]]:
        """(answers, hosts without one); a negative time-out waits for ever. Raises what a host has answered."""
        end = time.monotonic() + timeout
        while True:
            statuses = self._keeper.statuses(entry.seq)
            answered = {status.node for status in statuses}
            missing = [node for node in self._topology.nodes if node.name not in answered]
            if not missing or (timeout > 0 and time.monotonic() >= end):
                break
            time.sleep(_POLL_SECONDS)
        for status in statuses:
            if status.code:
                node = self._topology.node(status.node)
                raise ClickHouseError(status.code, f"There was an error on [{node.name}:{node.port}]: {status.error}")
        return statuses, missing

    def _answer(
        self, statuses: list[HostStatus], missing: list[NodeAddress], mode: str, fmt: str, files: Path
    ) -> Result:
        """One row for each host; a host that has not answered has no status (NULL)."""
        rows = [
            _status_row(self._topology.node(s.node), s, len(self._topology.nodes) - n)
            for n, s in enumerate(statuses, 1)
        ]
        rows += [_missing_row(node, len(missing) - number) for number, node in enumerate(missing, 1)]
        source = rows_source(rows, _columns(nullable=mode != "throw"), files)
        return self._local.run_text(Context(), f"SELECT * FROM {source}", fmt)

    def _timeout_text(self, entry: Entry, missing: list[NodeAddress]) -> str:
        inactive = sum(not is_alive(node) for node in missing)
        waited = time.time() - entry.created
        return (
            f"Distributed DDL task /clickhouse/task_queue/ddl/query-{entry.seq:010d} is not finished on"
            f" {len(missing)} of {len(self._topology.nodes)} hosts (0 of them are currently executing the task,"
            f" {inactive} are inactive). They are going to execute the query in background."
            f" Was waiting for {waited} seconds, which is longer than distributed_ddl_task_timeout"
        )


def _columns(nullable: bool) -> dict[str, str]:
    status, error = ("Nullable(Int64)", "Nullable(String)") if nullable else ("Int64", "String")
    return {
        "host": "String",
        "port": "UInt16",
        "status": status,
        "error": error,
        "num_hosts_remaining": "UInt64",
        "num_hosts_active": "UInt64",
    }


def _status_row(node: NodeAddress, status: HostStatus, remaining: int) -> Row:
    return {
        "host": node.name,
        "port": node.port,
        "status": status.code,
        "error": status.error,
        "num_hosts_remaining": remaining,
        "num_hosts_active": 0,
    }


def _missing_row(node: NodeAddress, remaining: int) -> Row:
    return {"host": node.name, "port": node.port, "num_hosts_remaining": remaining, "num_hosts_active": 0}


class DdlWorker:
    """The side of each host: carries out entries of the queue, one after the other."""

    def __init__(self, keeper: Keeper, replica: Replica, changes: Changes, faults: Faults) -> None:
        self._keeper = keeper
        self._replica = replica
        self._changes = changes
        self._faults = faults

    def run(self, entry: Entry) -> None:
        """Carry out one entry and answer for it, unless a fault rule says otherwise."""
        text = str(entry.body["sql"])
        if self._faults.hit("ddl_drop", text) is not None:
            self._keeper.postpone(entry.seq, FOREVER)
            return
        # A host that gets no changes from its replica must not make this one itself.
        held = self._faults.hit("ddl_hold", text) or self._faults.matching("replica_hold", text)
        if held is not None:
            self._keeper.postpone(entry.seq, int(held["id"]))
            return
        self._carry_out(entry)

    def _carry_out(self, entry: Entry) -> None:
        text = str(entry.body["sql"])
        error = self._faults.hit("ddl_error", text)
        if error is not None:
            code = int(error["code"])
            failed = ClickHouseError(code, str(error.get("message", default_message(code))))
            self._keeper.finish(entry.seq, code, failed.body().strip())
            return
        context = Context(entry.body["database"], entry.body["settings"], entry.body["params"])
        try:
            finished = self._execute(entry, parse(text), context)
        except ClickHouseError as failure:
            self._keeper.finish(entry.seq, failure.code, failure.body().strip())
            return
        if finished:
            self._keeper.finish(entry.seq, 0, "")

    def _execute(self, entry: Entry, statement: Statement, context: Context) -> bool:
        """False when another replica of the shard did it: then the answer comes with that change in the log."""
        table = self._changes.replicated_table(statement, context)
        if table is None:
            self._changes.on_this_node(statement, context)
        elif self._keeper.made_by(entry.seq):
            # A held entry may come after that change.
            return self._keeper.has_seen_change_of(entry.seq)
        else:
            body = self._changes.body(statement, table, context)
            self._replica.write_for_ddl("alter", *table, body, entry.seq)
        return True
