"""ClickHouse through the official provider's hook: counts, mutations, inventory and DDL of one cluster.

Everything here blocks. Triggers call it in a thread (``asyncio.to_thread``) with a connection that they read with the
async API first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from airflow.providers.clickhousedb.hooks.clickhouse import ClickHouseHook
from airflow.sdk import Connection
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from backfill.hooks.clickhouse_clients import shared
from backfill.hooks.clickhouse_errors import (
    DdlAnswer,
    NativePortError,
    PinnedSettingError,
    TopologyError,
    classify_ddl_error,
    is_transient,
    parse_ddl_answer,
)
from backfill.hooks.clickhouse_hosts import match_hosts
from backfill.hooks.clickhouse_settings import pinned_settings
from backfill.hooks.clickhouse_spool import drain
from backfill.hooks.secrets import refused, resolved_now
from include.scorecard_backfill import sql
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.rules import census_part, names_of, written
from include.scorecard_backfill.planning.columns import column_problems, wanted_columns
from include.scorecard_backfill.planning.inventory import in_replicated, tables_by_database, without_final
from include.scorecard_backfill.records import Deleted, Window
from include.scorecard_backfill.sql import health as sql_health
from include.scorecard_backfill.sql.census import (
    Value,
    census_statement,
    host_counts_statement,
    not_rewritten,
    value_predicate,
)
from include.scorecard_backfill.verdicts.census import Census, IncompleteError, host_days, read_census
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.health import CLICKHOUSE_MEASURES, FREE_DISK, Reading
from include.scorecard_backfill.verdicts.mutations import Mutation

__all__ = [
    "BackfillClickHouse",
    "DdlAnswer",
    "NativePortError",
    "PinnedSettingError",
    "TopologyError",
    "classify_ddl_error",
    "is_transient",
    "parse_ddl_answer",
]

TableName = tuple[str, str]

CLIENT_MARGIN_SECONDS = 30
"""The client waits this much longer than the server may take, so that the server's own answer is what ends a call."""


AUTHENTICATION_FAILED = 516
"""ClickHouse's code for a wrong user or password."""


class BackfillClickHouse(ClickHouseHook):
    """The cluster of one configuration. ``connection`` is given by triggers, which may not read it themselves."""

    def __init__(self, config: ClusterConfig, connection: Connection | None = None) -> None:
        self.config = config.clickhouse
        super().__init__(
            clickhouse_conn_id=self.config.conn_id,
            # A session id per client would lock parallel queries out (code 373); a retry of a DELETE is ours to decide.
            client_kwargs={
                "autogenerate_session_id": False,
                "query_retries": 0,
                "connect_timeout": 10,
                "send_receive_timeout": max(self.config.query_timeout_seconds, self.config.ddl_timeout_seconds)
                + CLIENT_MARGIN_SECONDS,
            },
        )
        # Not `_connection`: the base class keeps one of its own under that name.
        self._given, self._read = connection, connection
        self._kubernetes = (config.kubernetes.conn_id, config.kubernetes.context)
        self.names = names_of(self.config)

    def get_connection(self, conn_id: str) -> Connection:
        """Return the connection given to the constructor, or read it, once: in a worker that is a call to Airflow."""
        if self._read is None:
            self._read = resolved_now(super().get_connection(conn_id), *self._kubernetes)
        return self._read

    def _is_rotated(self) -> bool:
        """Whether the refused password came from the Secret; it is read again then, also by this hook."""
        rotated = refused(self.get_connection(self.config.conn_id).password)
        self._read = self._given
        return rotated

    @contextmanager
    def client(self, *, own: bool = False) -> Iterator[Client]:
        """Yield a client for one piece of work: one that is kept for the next, or with ``own`` one made for it."""
        try:
            if own:
                with closing(self.get_client()) as client:
                    yield client
                return
            # A digest, so that no password is kept as a key.
            made_of = sha256(repr(sorted(self._get_client_kwargs().items())).encode()).digest()
            with shared.taken(made_of, self.get_client) as client:
                yield client
        except ClickHouseError as error:
            if "clickhouse-client" in str(error):
                raise NativePortError(
                    f"connection {self.config.conn_id}: this is a port of the native protocol; use the HTTP(S) port,"
                    " for example 8443, not 9000 or 9440"
                ) from error
            # A password that was rotated: the Secret is read again with the next look, so this error passes.
            if getattr(error, "code", None) == AUTHENTICATION_FAILED and self._is_rotated():
                raise ConnectionError(
                    f"connection {self.config.conn_id}: ClickHouse refuses the password that was read from the Secret;"
                    " it is read again"
                ) from error
            raise

    def rows(self, statement: str, settings: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of a SELECT as dicts. Raises the driver's errors; a cut answer is an error."""
        limits = {"max_execution_time": self.config.query_timeout_seconds}
        with self.client() as client:
            pinned = pinned_settings(client, self.config.conn_id)
            return list(client.query(statement, settings={**limits, **pinned, **(settings or {})}).named_results())

    def answers(self, statements: Sequence[str]) -> list[str]:
        """Return the only value of each statement; for those that take no FORMAT. Raises the driver's errors."""
        with self.client() as client:
            return [str(client.command(statement)) for statement in statements]

    def raw(self, statement: str) -> str:
        """Send one statement and return its answer as text, tab separated. Raises the driver's errors."""
        with self.client() as client:
            return client.raw_query(
                statement, settings=pinned_settings(client, self.config.conn_id), fmt="TabSeparatedWithNames"
            ).decode()

    def topology(self) -> tuple[Host, ...]:
        """Return the hosts of the cluster by the names they answer with, sorted.

        Raises TopologyError when the cluster is unknown or a listed host does not answer by its name.
        """
        cluster = self.config.cluster
        listed = self.rows(sql.topology_statement(cluster))
        if not listed:
            raise TopologyError(f"ClickHouse knows no cluster {cluster!r} (see system.clusters)")
        answering = self.rows(sql.answering_hosts_statement(cluster))
        return match_hosts(listed, answering, lambda: self.rows(sql.places_statement(cluster)))

    def server_time(self) -> datetime:
        """Return ClickHouse's own time (UTC): what a row that is written now would carry."""
        (row,) = self.rows(sql_health.SERVER_TIME)
        return datetime.fromtimestamp(int(row["now"]) / 1000, UTC)

    def census(
        self, parts: Sequence[tuple[str, sql.Slice]], hosts: Sequence[Host], since: datetime | None = None
    ) -> Census:
        """Count the (table, slice) pairs on every host and over all shards, FINAL, by UTC day.

        With ``since`` (ClickHouse's time before the first write) rows written since then are told from older ones,
        for the tables that have a `written_columns`. Raises TopologyError when a host does not answer.
        """
        beside: dict[str, set[str]] = defaultdict(set)
        for table, part in parts:
            beside[part.database].add(table)
        counted = [census_part(self.config, table, part, beside[part.database], since) for table, part in parts]
        if not counted:
            return Census("", {})
        statement = census_statement(cluster=self.config.cluster, parts=counted, names=self.names)
        try:
            return read_census(
                self.rows(statement),
                [part.name for part in counted],
                hosts,
                meant=[part.meant is not None for part in counted],
            )
        except IncompleteError as error:
            raise TopologyError(str(error)) from error

    def host_counts(
        self, parts: Sequence[tuple[str, sql.Slice, str]], hosts: Sequence[Host]
    ) -> list[dict[str, dict[str, int]]]:
        """Return rows (FINAL) by host and day for each (table, slice, condition; '' for none), in their order.

        Raises TopologyError when a host does not answer.
        """
        if not parts:
            return []
        statement = host_counts_statement(cluster=self.config.cluster, parts=parts, names=self.names)
        try:
            return host_days(self.rows(statement), len(parts), hosts)
        except IncompleteError as error:
            raise TopologyError(str(error)) from error

    def mutations(self) -> list[Mutation]:
        """Return unfinished mutations of anyone and all listed ones of ours, on every host.

        Raises TopologyError when a host does not answer: a host without mutations has a row, too.
        """
        rows = self.rows(sql.mutations_statement(self.config.cluster))
        answered = {str(row["host"]) for row in rows}
        if not rows or any(int(row["expected"]) != len(answered) for row in rows):
            expected = rows[0]["expected"] if rows else "some"
            raise TopologyError(
                f"{len(answered)} of {expected} hosts have listed their mutations"
                f" ({', '.join(sorted(answered)) or 'none'}): unknown is not none"
            )
        return [_mutation(str(row["host"]), item) for row in rows for item in row["listed"]]

    def forbidden_rows(
        self, tables: Sequence[tuple[str, sql.Slice]], hosts: Sequence[Host]
    ) -> list[tuple[str, dict[str, int]]]:
        """Return for each `must_be_zero` rule its sentence and the rows by host that are there all the same.

        Raises TopologyError when a host does not answer.
        """
        asked = [
            (rule, table, part) for rule in self.config.must_be_zero for table, part in tables if table == rule.table
        ]
        conditions = [value_predicate(Value(rule.column, rule.equals)) for rule, _, _ in asked]
        legs = [(table, part, condition) for (_, table, part), condition in zip(asked, conditions, strict=True)]
        return [
            (
                f"{part.database}.{table} with {rule.column} = {rule.equals!r}",
                {host: sum(days.values()) for host, days in counted.items()},
            )
            for (rule, table, part), counted in zip(asked, self.host_counts(legs, hosts), strict=True)
        ]

    def stale_rows(self, deleted: Deleted, hosts: Sequence[Host], *, proven_gone: bool) -> list[str]:
        """Return a sentence for each host and table with rows of a deleted window that may not be there any more.

        Looked for on every host: the `must_be_zero` rules, rows written before the DELETE (tables that have a
        `written_columns`; unless it is proven that none was left: ``proven_gone``), and rows that are still on their
        way from before. Raises TopologyError for a silent host.
        """
        parts = list(deleted.window.slices())
        wrong = [
            f"{rows} rows of {said} are there on {host}"
            for said, counted in self.forbidden_rows(parts, hosts)
            for host, rows in counted.items()
            if rows
        ]
        moment = deleted.bound or (deleted.counted.server_time if deleted.counted else None)
        if moment is not None and deleted.sent and not proven_gone:
            wrong += self._old_rows(parts, datetime.fromtimestamp(moment, UTC), hosts)
        return [*wrong, *self.drain_spool(deleted.window, hosts)]

    def _old_rows(self, parts: Sequence[tuple[str, sql.Slice]], since: datetime, hosts: Sequence[Host]) -> list[str]:
        asked = [(table, part, old) for table, part in parts if (old := written(self.config, table, since))]
        counted = self.host_counts([(table, part, not_rewritten(old)) for table, part, old in asked], hosts)
        return [
            f"{sum(days.values())} rows of {part.database}.{table} on {host} were written before"
            f" {old.since:%Y-%m-%d %H:%M:%S} UTC ({old.column}) and should be gone"
            for (table, part, old), per_host in zip(asked, counted, strict=True)
            for host, days in per_host.items()
            if days
        ]

    def drain_spool(self, window: Window, hosts: Sequence[Host]) -> list[str]:
        """Return a sentence for each Distributed queue from which rows accepted before now may still come, [] for none.

        What waits is flushed first. Raises TopologyError for a silent host.
        """
        return drain(self, self.config.cluster, [database.name for database in window.databases], hosts)

    def tables(
        self, hosts: Sequence[Host]
    ) -> tuple[dict[str, tuple[str, ...]], dict[str, list[str]], list[dict[str, Any]]]:
        """Return the usable tables by database, the problems of the others, and the rows of system.tables, per host.

        Three queries, whatever the number of databases. Usable: planning/inventory.py and planning/columns.py say.
        """
        wanted = wanted_columns(self.config)
        names = [host.name for host in hosts]
        rows = self.rows(sql.tables_statement(self.config.cluster, wanted))
        columns = sorted({name for of_table in wanted.values() for name in of_table})
        kinds = self.rows(sql.columns_statement(self.config.cluster, wanted, columns))
        usable, _ = tables_by_database(rows, names)
        unfit = column_problems(kinds, usable, names, self.config) | without_final(rows, self.config.tables)
        unfit |= in_replicated(rows, self.rows(sql_health.replicated_databases_statement(self.config.cluster)))
        return *tables_by_database(rows, names, unfit), rows

    def held_partitions(
        self, table: str, part: sql.Slice, wanted: Sequence[str], hosts: Sequence[Host]
    ) -> dict[str, list[tuple[str, int, int]]]:
        """Return by host (partition id, rows, foreign rows) of wanted partitions and of others with rows of the slice.

        Raises TopologyError when a host does not answer.
        """
        statement = sql_health.partition_statement(
            cluster=self.config.cluster,
            database=part.database,
            table=table,
            partition_ids=wanted,
            parts=[part],
            names=self.names,
        )
        held = {str(row["host"]): row["partitions"] for row in self.rows(statement)}
        if silent := sorted({host.name for host in hosts} - set(held)):
            raise TopologyError(f"no look at the partitions of {', '.join(silent)}: unknown is not empty")
        return {host: [(str(p), int(rows), int(foreign)) for p, rows, foreign in found] for host, found in held.items()}

    def partition_keys(self, database: str, table: str) -> list[str]:
        """Return the partition keys of a local table on all hosts, each once; more than one means that hosts differ."""
        rows = self.rows(sql.tables_statement(self.config.cluster, [table]))
        return sorted({str(row["partition_key"]) for row in rows if row["database"] == database})

    def health(self, hosts: Sequence[Host]) -> dict[str, Reading]:
        """Return the worst reading of each measure. Raises TopologyError when a host does not answer."""
        values: dict[str, dict[str, int]] = defaultdict(dict)
        for row in self.rows(sql_health.health_statement(self.config.cluster)):
            values[row["measure"]][row["host"]] = int(row["value"])
        silent = sorted({h.name for h in hosts} - set(values["answers"]))
        if silent:
            raise TopologyError(f"no answer from {', '.join(silent)}: unknown is not well")
        return worst_readings(values)

    def queued_ddl(self, *needles: str) -> list[str]:
        """Return hosts on which a DDL entry holding every needle is not finished yet."""
        return sorted({str(row["host"]) for row in self.rows(sql.ddl_queue_statement(self.config.cluster, *needles))})

    def was_queued(self, *needles: str) -> bool:
        """Return True when the DDL queue has an entry that holds every needle, whatever became of it."""
        return bool(self.rows(sql.ddl_trace_statement(self.config.cluster, *needles)))

    def running_ddl(self, *needles: str) -> list[str]:
        """Return hosts that still execute a statement holding every needle, also before it is in the DDL queue."""
        return sorted({str(row["host"]) for row in self.rows(sql.running_statement(self.config.cluster, *needles))})

    def send_ddl(self, statement: str, hosts: Sequence[Host]) -> DdlAnswer:
        """Send one ON CLUSTER statement, once, and say what is known afterwards. Raises for errors that are certain."""
        try:
            # SYSTEM takes no FORMAT; an answer without one is tab separated, too.
            body = self._send(statement, None if statement.startswith("SYSTEM ") else "TabSeparated")
        except (ClickHouseError, OSError) as error:
            return classify_ddl_error(error)
        return parse_ddl_answer(body.decode(), hosts)

    def try_ddl_settings(self) -> None:
        """Send a question with the settings of an ON CLUSTER statement. Raises the driver's error when one is fixed."""
        self._send("SELECT 1", "TabSeparated")

    def _send(self, statement: str, fmt: str | None) -> bytes:
        settings = {
            "mutations_sync": 0,
            "replication_wait_for_inactive_replica_timeout": 0,
            "distributed_ddl_task_timeout": self.config.ddl_timeout_seconds,
            "distributed_ddl_output_mode": "null_status_on_timeout",
        }
        # Of its own, so that no connection which grew old decides whether a statement has arrived.
        with self.client(own=True) as client:
            client.set_client_setting("max_execution_time", self.config.ddl_timeout_seconds + CLIENT_MARGIN_SECONDS)
            return client.raw_query(statement, settings=settings, fmt=fmt)


def _mutation(host: str, item: Sequence[Any]) -> Mutation:
    database, table, mutation_id, command, created, is_done, parts_to_do, fail_reason, killed = item
    return Mutation(
        host=host,
        database=database,
        table=table,
        mutation_id=mutation_id,
        command=command,
        created=int(created),
        is_done=bool(is_done),
        parts_to_do=int(parts_to_do),
        fail_reason=fail_reason or "",
        is_killed=any(killed),
    )


def worst_readings(values: Mapping[str, Mapping[str, int]]) -> dict[str, Reading]:
    """Return the worst host of each measure: the least free disk, the most of everything else; no row means 0."""
    worst = {}
    for name in CLICKHOUSE_MEASURES:
        per_host = values.get(name) or {}
        if name == FREE_DISK:
            if per_host:
                host = min(per_host, key=lambda h: per_host[h])
                worst[name] = Reading(per_host[host], host)
        else:
            host = max(per_host, key=lambda h: per_host[h], default="")
            worst[name] = Reading(per_host.get(host, 0), host)
    return worst
