"""Snapshots of windows: taken before rows are deleted, compared after, put back by the undo DAG, removed in time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

from backfill.hooks.clickhouse import BackfillClickHouse
from include.scorecard_backfill import sql
from include.scorecard_backfill.config.rules import meant_rule
from include.scorecard_backfill.putback import Places, PutBackError, columns_to_put_back
from include.scorecard_backfill.records import MissingRows, TableName, Window
from include.scorecard_backfill.sql import snapshots as sql_snapshot
from include.scorecard_backfill.verdicts.counts import Host


class SnapshotError(RuntimeError):
    """A snapshot is not complete; nothing may be deleted."""


class Snapshots:
    """The snapshots of one cluster. Everything here blocks."""

    def __init__(self, hook: BackfillClickHouse, hosts: Sequence[Host]) -> None:
        self.hook = hook
        self.hosts = hosts
        self.cluster = hook.config.cluster

    def take(self, window: Window, tables: Iterable[TableName], keep_days: int) -> tuple[str, ...]:
        """Copy the window's rows of the (database, table) pairs and return the side tables, as ``database.name``.

        Raises SnapshotError when a host's copy does not hold exactly the rows that the host counts.
        """
        wanted = set(tables)
        until = datetime.now(UTC).date() + timedelta(days=keep_days)
        parts = [(table, part) for table, part in window.slices() if (part.database, table) in wanted]
        return tuple(self._take(table, part, window.key, until) for table, part in parts)

    def _take(self, table: str, part: sql.Slice, key: str, until: date) -> str:
        name = sql_snapshot.snapshot_table(table, key)
        if self._differs(table, part, name, self._listed(part.database, name)):
            # What an earlier try left half done; nothing has been deleted yet, so the rows are still in the table.
            self._send(
                sql_snapshot.drop_snapshot_statement(cluster=self.cluster, database=part.database, snapshot=name)
            )
            self._send(
                sql_snapshot.create_snapshot_statement(
                    cluster=self.cluster, table=table, part=part, names=self.hook.names, key=key, until=until
                )
            )
            if wrong := self._differs(table, part, name, self._listed(part.database, name)):
                raise SnapshotError(f"snapshot {part.database}.{name} is not complete, nothing is deleted: {wrong}")
        return f"{part.database}.{name}"

    def _send(self, statement: str) -> None:
        answer = self.hook.send_ddl(statement, self.hosts)
        if answer.outcome == "refused" or answer.errors:
            raise SnapshotError(f"refused, nothing is deleted: {statement}: {answer.text}")

    def _listed(self, database: str, name: str) -> int:
        rows = self.hook.rows(sql_snapshot.snapshots_statement(self.cluster))
        return sum(row["database"] == database and row["name"] == name for row in rows)

    def _differs(self, table: str, part: sql.Slice, name: str, copies: int) -> str:
        if copies < len(self.hosts):
            return f"{copies} of {len(self.hosts)} hosts have it"
        (counted,) = self.hook.host_counts([(table, part, "")], self.hosts)
        statement = sql_snapshot.count_snapshot_statement(cluster=self.cluster, database=part.database, snapshot=name)
        copied = {str(row["host"]): int(row["rows"]) for row in self.hook.rows(statement)}
        there = {host: sum(days.values()) for host, days in counted.items()}
        # A host that has not answered has no copy, whatever it counts.
        wrong = [f"{host}: {copied.get(host, 'none')} of {rows} rows" for host, rows in there.items()
                 if copied.get(host) != rows]  # fmt: skip
        return ", ".join(wrong)

    def missing(self, window: Window, snapshots: Iterable[str]) -> tuple[MissingRows, ...]:
        """Return for each snapshot how many of its rows are in the table no more, on no shard and on no other day.

        Those that were meant to go are counted apart; ids are some of the others.
        """
        found = []
        for copy in self._copies(window, snapshots):
            (row,) = self.hook.rows(
                sql_snapshot.missing_statement(cluster=self.cluster, names=self.hook.names, copy=copy)
            )
            found.append(
                MissingRows(
                    database=copy.part.database,
                    table=copy.table,
                    meant=int(row["meant"]),
                    count=int(row["missing"]),
                    ids=tuple(sorted(str(i) for i in row["ids"])),
                )
            )
        return tuple(found)

    def _copies(self, window: Window, snapshots: Iterable[str]) -> Iterator[sql_snapshot.Copy]:
        """Yield the copies of a window that are there, each with the rule about what was meant to go of it."""
        known = set(snapshots)
        there: dict[str, set[str]] = {}
        for table, part in window.slices():
            if f"{part.database}.{sql_snapshot.snapshot_table(table, window.key)}" in known:
                there.setdefault(part.database, set()).add(table)
        config = self.hook.config
        for table, part in window.slices():
            beside = there.get(part.database, set())
            if table in beside:
                meant = meant_rule(config, table, beside)
                yield sql_snapshot.Copy(table, part, window.key, config.id_columns[table], meant)

    def columns(self, copy: sql_snapshot.Copy) -> tuple[str, ...]:
        """Return the columns that go back. Raises PutBackError for a table from which they cannot."""
        house, database = self.hook.config, copy.part.database
        places = Places(
            database=database,
            copy=sql_snapshot.snapshot_table(copy.table, copy.key),
            table=copy.table,
            twin=copy.table + house.distributed_suffix,
            known_by=(copy.id_column, house.time_column, house.customer_column, house.profile_column),
        )
        statement = sql_snapshot.columns_statement(
            cluster=self.cluster, database=database, tables=(places.copy, places.table, places.twin)
        )
        return columns_to_put_back(self.hook.rows(statement), places, [host.name for host in self.hosts])

    def refusals(self, window: Window, snapshots: Iterable[str]) -> list[str]:
        """Return a sentence for each table of the window whose rows cannot be put back as they were."""
        found = []
        for copy in self._copies(window, snapshots):
            try:
                self.columns(copy)
            except PutBackError as error:
                found.append(str(error))
        return found

    def existing(self) -> set[str]:
        """Return every side table as ``database.name``."""
        rows = self.hook.rows(sql_snapshot.snapshots_statement(self.cluster))
        return {f"{row['database']}.{row['name']}" for row in rows}

    def restore(self, window: Window, snapshots: Iterable[str], *, meant: bool) -> None:
        """Insert the missing rows of every table of the window that has a snapshot.

        ``meant``: also those that were meant to go, which undoes the cleanup itself. Raises PutBackError before
        anything of the window is inserted when a table's columns have changed so that values would be lost.
        """
        copies = [(copy, self.columns(copy)) for copy in self._copies(window, snapshots)]
        for copy, columns in copies:
            self.hook.raw(
                sql_snapshot.restore_statement(
                    cluster=self.cluster,
                    distributed=copy.table + self.hook.config.distributed_suffix,
                    columns=columns,
                    names=self.hook.names,
                    copy=copy,
                    meant=meant,
                )
            )

    def remove_expired(self) -> list[str]:
        """Drop the side tables whose days are over and return them."""
        today = datetime.now(UTC).date()
        rows = self.hook.rows(sql_snapshot.snapshots_statement(self.cluster))
        over = sorted({(r["database"], r["name"]) for r in rows if sql_snapshot.expired(r["comment"], today)})
        for database, name in over:
            self._send(sql_snapshot.drop_snapshot_statement(cluster=self.cluster, database=database, snapshot=name))
        return [f"{database}.{name}" for database, name in over]
