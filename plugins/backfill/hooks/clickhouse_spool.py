"""Waits for nothing, but sees to it that rows accepted before now are in their tables: the Distributed spools."""

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


@dataclass(frozen=True, slots=True)
class Spooled:
    """Files of one Distributed table that wait on one host."""

    host: str
    database: str
    table: str
    files: int
    blocked: bool
    exception: str

    @property
    def text(self) -> str:
        """One sentence for a log or a failure."""
        why = "; sending is stopped there (SYSTEM START DISTRIBUTED SENDS starts it)" if self.blocked else ""
        error = f"; last error: {self.exception[:300]}" if self.exception else ""
        return f"{self.host} has {self.files} files of rows for {self.database}.{self.table} not sent yet{why}{error}"


def spooled(hook: Asked, cluster: str, databases: Iterable[str], hosts: Sequence[Host]) -> list[Spooled]:
    """Return what waits on every host. Raises TopologyError when one does not answer."""
    rows = hook.rows(spooled_statement(cluster, sorted(set(databases))))
    silent = sorted({host.name for host in hosts} - {str(row["host"]) for row in rows})
    if silent or len(rows) != len(hosts):
        raise TopologyError(f"no look at the Distributed queues of {', '.join(silent) or 'every host'}")
    found = [
        Spooled(str(row["host"]), str(database), str(table), int(files), bool(blocked), str(exception))
        for row in rows
        for database, table, files, blocked, exception in row["waiting"]
    ]
    return sorted(found, key=lambda waiting: (waiting.host, waiting.database, waiting.table))


def drain(hook: Asked, cluster: str, databases: Iterable[str], hosts: Sequence[Host]) -> list[str]:
    """Return a sentence for each queue from which rows accepted before now may still come; [] when there is none.

    Queues that hold something are flushed. A flush that every host has executed is the proof: what waits after it was
    accepted later. Who may not flush waits until the queues are empty.
    """
    names = sorted(set(databases))
    waiting = spooled(hook, cluster, names, hosts)
    if not waiting:
        return []
    blocked = {(s.database, s.table) for s in waiting if s.blocked}
    flushed = {
        (database, table)
        for database, table in sorted({(s.database, s.table) for s in waiting} - blocked)
        if _flushed(hook, flush_statement(cluster=cluster, database=database, table=table), hosts)
    }
    left = spooled(hook, cluster, names, hosts)
    return [s.text for s in left if (s.database, s.table) not in flushed or s.exception]


def _flushed(hook: Asked, statement: str, hosts: Sequence[Host]) -> bool:
    try:
        return hook.send_ddl(statement, hosts).outcome == "done"
    except ClickHouseError as error:
        log.warning("not flushed, waiting for the queue to empty itself: %s: %s", statement, error)
        return False
