"""Snapshots of windows: taken before rows are deleted, compared after, put back by the undo DAG, removed in time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from backfill.hooks.clickhouse import BackfillClickHouse, sum_days
from include.scorecard_backfill import sql
from include.scorecard_backfill.records import Window
from include.scorecard_backfill.sql import snapshots as sql_snapshot
from include.scorecard_backfill.verdicts.counts import Host

Json = dict[str, Any]


class SnapshotError(RuntimeError):
    """A snapshot is not complete; nothing may be deleted."""


class Snapshots:
    """The snapshots of one cluster. Everything here blocks."""

    def __init__(self, hook: BackfillClickHouse, hosts: Sequence[Host]) -> None:
        self.hook = hook
        self.hosts = hosts
        self.cluster = hook.config.cluster

    def take(self, window: Window, tables: Iterable[tuple[str, str]], keep_days: int) -> list[str]:
        """Copy the window's rows of the (database, table) pairs and return the side tables, as ``database.name``.

        Raises SnapshotError when a host's copy does not hold exactly the rows that the host counts.
        """
        wanted = set(tables)
        until = datetime.now(UTC).date() + timedelta(days=keep_days)
        return [self._take(t, p, window.key, until) for t, p in list(window.slices()) if (p.database, t) in wanted]

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
        counted = sum_days(self.hook.day_counts([(table, part)], self.hosts))[part.database, table]
        statement = sql_snapshot.count_snapshot_statement(cluster=self.cluster, database=part.database, snapshot=name)
        copied = {row["host"]: int(row["rows"]) for row in self.hook.rows(statement)}
        wrong = [f"{host}: {copied.get(host, 0)} of {rows} rows" for host, rows in counted.items()
                 if copied.get(host, 0) != rows]  # fmt: skip
        return ", ".join(wrong)

    def missing(self, window: Window, snapshots: Iterable[str]) -> dict[str, Json]:
        """Return by ``database.table`` how many rows of the copy are not there (``count``), and some ids (``ids``)."""
        known = set(snapshots)
        found: dict[str, Json] = {}
        for table, part in list(window.slices()):
            if f"{part.database}.{sql_snapshot.snapshot_table(table, window['key'])}" not in known:
                continue
            statement = sql_snapshot.missing_statement(
                cluster=self.cluster,
                table=table,
                part=part,
                names=self.hook.names,
                key=window.key,
                id_column=self.hook.config.id_columns[table],
            )
            found[f"{part.database}.{table}"] = self._once_per_shard(self.hook.rows(statement))
        return found

    def _once_per_shard(self, rows: Sequence[Mapping[str, Any]]) -> Json:
        by_host = {row["host"]: row for row in rows}
        first: dict[int, str] = {}
        for host in self.hosts:
            first.setdefault(host.shard, host.name)
        chosen = [by_host[name] for name in first.values() if name in by_host]
        ids = [str(i) for row in chosen for i in row["ids"]]
        return {"count": sum(int(row["missing"]) for row in chosen), "ids": sorted(ids)[: sql_snapshot.EXAMPLES]}

    def existing(self) -> set[str]:
        """Return every side table as ``database.name``."""
        rows = self.hook.rows(sql_snapshot.snapshots_statement(self.cluster))
        return {f"{row['database']}.{row['name']}" for row in rows}

    def restore(self, window: Window, snapshots: Iterable[str]) -> None:
        """Insert the missing rows of every table of the window that has a snapshot."""
        known = set(snapshots)
        for table, part in list(window.slices()):
            if f"{part.database}.{sql_snapshot.snapshot_table(table, window['key'])}" in known:
                self.hook.raw(
                    sql_snapshot.restore_statement(
                        cluster=self.cluster,
                        table=table,
                        distributed=table + self.hook.config.distributed_suffix,
                        part=part,
                        names=self.hook.names,
                        key=window.key,
                        id_column=self.hook.config.id_columns[table],
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
