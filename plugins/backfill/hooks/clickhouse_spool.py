"""Waits for nothing, but sees to it that rows accepted before now are in their tables: spools, queues and buffers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from clickhouse_connect.driver.exceptions import ClickHouseError

from backfill.hooks.clickhouse_errors import DdlAnswer, TopologyError
from include.scorecard_backfill.sql.spool import flush_statement, spooled_statement
from include.scorecard_backfill.verdicts.counts import Host

log = logging.getLogger(__name__)


class Asked(Protocol):
    """The part of the hook that is used here."""

    def rows(self, statement: str, settings: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of a query."""

    def send_ddl(self, statement: str, hosts: Sequence[Host]) -> DdlAnswer:
        """Send one ON CLUSTER statement."""


YOUNG_SECONDS = 2
"""Age up to which a queued asynchronous insert is the normal case: servers empty this queue within a second."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """What waits in one queue of one host. ``amount``: files of a Distributed table, seconds of an insert's age."""

    host: str
    kind: str
    database: str
    table: str
    amount: int
    blocked: bool
    exception: str

    @property
    def queue(self) -> tuple[str, str, str]:
        """What one flush empties on every host."""
        whole = self.kind == "asynchronous"
        return (self.kind, "", "") if whole else (self.kind, self.database, self.table)

    @property
    def text(self) -> str:
        """One sentence for a log or a failure."""
        name = f"{self.database}.{self.table}"
        if self.kind == "asynchronous":
            return (
                f"{self.host} has asynchronous inserts into {name} queued for {self.amount} s; this user may not flush"
                " them (SYSTEM FLUSH ASYNC INSERT QUEUE)"
            )
        if self.kind == "buffer":
            return (
                f"{name} on {self.host} is a Buffer table, and whether rows wait in it is not known: this user may not"
                " flush it (OPTIMIZE)"
            )
        why = "; sending is stopped there (SYSTEM START DISTRIBUTED SENDS starts it)" if self.blocked else ""
        error = f"; last error: {self.exception[:300]}" if self.exception else ""
        return f"{self.host} has {self.amount} files of rows for {name} not sent yet{why}{error}"


def spooled(hook: Asked, cluster: str, databases: Iterable[str], hosts: Sequence[Host]) -> list[Spooled]:
    """Return what waits on every host. Raises TopologyError when one does not answer."""
    rows = hook.rows(spooled_statement(cluster, sorted(set(databases))))
    silent = sorted({host.name for host in hosts} - {str(row["host"]) for row in rows})
    if silent or len(rows) != len(hosts):
        raise TopologyError(f"no look at the queues of accepted rows of {', '.join(silent) or 'every host'}")
    found = [
        Spooled(str(row["host"]), str(kind), str(database), str(table), int(amount), bool(blocked), str(exception))
        for row in rows
        for kind, database, table, amount, blocked, exception in row["waiting"]
    ]
    return sorted(found, key=lambda waiting: (waiting.host, *waiting.queue))


def drain(hook: Asked, cluster: str, databases: Iterable[str], hosts: Sequence[Host]) -> list[str]:
    """Return a sentence for each queue from which rows accepted before now may still come; [] when there is none.

    Queues that hold something are flushed. A flush that every host has executed is the proof: what waits after it was
    accepted later. Who may not flush waits until the queues are empty. Buffers come first: they may lead to the others.
    """
    names = sorted(set(databases))
    waiting = spooled(hook, cluster, names, hosts)
    if not waiting:
        return []
    blocked = {s.queue for s in waiting if s.blocked}
    order = ("buffer", "asynchronous", "distributed")
    queues = sorted({s.queue for s in waiting} - blocked, key=lambda queue: (order.index(queue[0]), queue))
    flushed = {queue for queue in queues if _flushed(hook, cluster, queue, hosts)}
    left = [s for s in spooled(hook, cluster, names, hosts) if s.queue not in flushed or s.exception]
    return [s.text for s in left if s.kind != "asynchronous" or s.amount > YOUNG_SECONDS]


def _flushed(hook: Asked, cluster: str, queue: tuple[str, str, str], hosts: Sequence[Host]) -> bool:
    kind, database, table = queue
    statement = flush_statement(cluster=cluster, kind=kind, database=database, table=table)
    try:
        return hook.send_ddl(statement, hosts).outcome == "done"
    except ClickHouseError as error:
        log.warning("not flushed, waiting for the queue to empty itself: %s: %s", statement, error)
        return False
