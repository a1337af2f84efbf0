"""ClickHouse through the official provider's hook: counts, mutations, inventory and DDL of one cluster.

Everything here blocks. Triggers call it in a thread (``asyncio.to_thread``) with a connection that they read with the
async API first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from airflow.providers.clickhousedb.hooks.clickhouse import ClickHouseHook
from airflow.sdk import Connection
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError

from include.scorecard_backfill import sql
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.sql import health as sql_health
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.health import CLICKHOUSE_MEASURES, FREE_DISK, Reading
from include.scorecard_backfill.verdicts.mutations import Mutation

TableName = tuple[str, str]
DayCounts = dict[TableName, dict[str, dict[str, int]]]
"""Rows by (database, table), host and ISO day. A host that answered without rows is there with an empty dict."""

TRANSIENT_CODES = frozenset({
    3,  # UNEXPECTED_END_OF_FILE
    159,  # TIMEOUT_EXCEEDED
    202,  # TOO_MANY_SIMULTANEOUS_QUERIES
    203,  # NO_FREE_CONNECTION
    209,  # SOCKET_TIMEOUT
    210,  # NETWORK_ERROR
    225,  # NO_ZOOKEEPER
    241,  # MEMORY_LIMIT_EXCEEDED
    242,  # TABLE_IS_READ_ONLY
    279,  # ALL_CONNECTION_TRIES_FAILED
    373,  # SESSION_IS_LOCKED
    999,  # KEEPER_EXCEPTION
})  # fmt: skip
"""Server error codes after which the same question may be asked again."""

REFUSED_CODES = frozenset({
    517,  # CANNOT_ASSIGN_ALTER: another ALTER is being applied
    692,  # TOO_MANY_MUTATIONS
})  # fmt: skip
"""Codes by which the server refuses a DELETE without having queued anything; sent again later."""


CLIENT_MARGIN_SECONDS = 30
"""The client waits this much longer than the server may take, so that the server's own answer is what ends a call."""


class TopologyError(RuntimeError):
    """system.clusters and the hosts that answer do not match."""


class NativePortError(RuntimeError):
    """The connection points at a port of the native protocol."""


@dataclass(frozen=True, slots=True)
class DdlAnswer:
    """What came back from one ON CLUSTER statement.

    ``done``: hosts that executed it; ``refused``: the server said no and nothing was queued; ``unknown``: it may or
    may not take effect, only a look at the hosts tells; ``killed``: a mutation was killed meanwhile.
    """

    outcome: Literal["done", "unknown", "refused", "killed"]
    hosts: frozenset[str] = frozenset()
    errors: Mapping[str, str] | None = None
    text: str = ""


def is_transient(error: BaseException) -> bool:
    """Return True when asking again may help: no answer, a broken answer, or a code of :data:`TRANSIENT_CODES`."""
    if isinstance(error, DatabaseError) and error.code is not None:
        return error.code in TRANSIENT_CODES
    return isinstance(error, (OperationalError, ConnectionError, TimeoutError, OSError))


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
        self._given = connection
        self.names = sql.Names(
            time=self.config.time_column,
            customer=self.config.customer_column,
            profile=self.config.profile_column,
            conversation=self.config.conversation_column,
        )

    def get_connection(self, conn_id: str) -> Connection:
        """Return the connection given to the constructor, or read it."""
        return self._given or super().get_connection(conn_id)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Yield a client of its own for one piece of work."""
        try:
            client = self.get_client()
        except ClickHouseError as error:
            if "clickhouse-client" in str(error):
                raise NativePortError(
                    f"connection {self.config.conn_id}: this is a port of the native protocol; use the HTTP(S) port,"
                    " for example 8443, not 9000 or 9440"
                ) from error
            raise
        try:
            yield client
        finally:
            client.close()

    def rows(self, statement: str, settings: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of a SELECT as dicts. Raises the driver's errors; a cut answer is an error."""
        limits = {"max_execution_time": self.config.query_timeout_seconds, "skip_unavailable_shards": 0}
        with self.client() as client:
            return list(client.query(statement, settings={**limits, **(settings or {})}).named_results())

    def raw(self, statement: str) -> str:
        """Send one statement and return its answer as text, tab separated. Raises the driver's errors."""
        with self.client() as client:
            return client.raw_query(statement, fmt="TabSeparatedWithNames").decode()

    def topology(self) -> tuple[Host, ...]:
        """Return the hosts of the cluster by the names they answer with, sorted.

        Raises TopologyError when the cluster is unknown or a listed host does not answer by its name.
        """
        listed = self.rows(sql.topology_statement(self.config.cluster))
        if not listed:
            raise TopologyError(f"ClickHouse knows no cluster {self.config.cluster!r} (see system.clusters)")
        answering = [row["host"] for row in self.rows(sql.answering_hosts_statement(self.config.cluster))]
        return match_hosts(listed, answering)

    def day_counts(self, tables: Sequence[tuple[str, sql.Slice]], hosts: Sequence[Host]) -> DayCounts:
        """Return FINAL counts of the (table, slice) pairs per host and day. Raises TopologyError for a silent host."""
        rows = self.rows(
            sql.count_statement(cluster=self.config.cluster, tables=tables, names=self.names), sql.COUNT_SETTINGS
        )
        answered = {row["host"] for row in rows if not row["database"]}
        missing = sorted({h.name for h in hosts} - answered)
        if missing:
            raise TopologyError(f"no count from {', '.join(missing)}: unknown is not zero")
        counts: DayCounts = {(part.database, table): {h.name: {} for h in hosts} for table, part in tables}
        for row in rows:
            if row["database"]:
                counts[row["database"], row["table"]][row["host"]][row["day"]] = int(row["rows"])
        return counts

    def mutations(self) -> list[Mutation]:
        """Return unfinished mutations of anyone and all listed ones of ours, on every host."""
        return [
            Mutation(
                host=row["host"],
                database=row["database"],
                table=row["table"],
                mutation_id=row["mutation_id"],
                command=row["command"],
                created=int(row["created"]),
                is_done=bool(row["is_done"]),
                parts_to_do=int(row["parts_to_do"]),
                fail_reason=row["latest_fail_reason"] or "",
                is_killed=bool(row.get("is_killed")),
            )
            for row in self.rows(sql.mutations_statement(self.config.cluster))
        ]

    def stale_rows(self, tables: Sequence[tuple[str, sql.Slice]], column: str, equals: str | int) -> int:
        """Return the rows of the (table, slice) pairs in which a column has a value that may not be there."""
        statement = sql_health.stale_statement(
            cluster=self.config.cluster, tables=tables, names=self.names, column=column, equals=equals
        )
        return sum(int(row["rows"]) for row in self.rows(statement, sql.COUNT_SETTINGS))

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

    def running_ddl(self, *needles: str) -> list[str]:
        """Return hosts that still execute a statement holding every needle, also before it is in the DDL queue."""
        return sorted({str(row["host"]) for row in self.rows(sql.running_statement(self.config.cluster, *needles))})

    def send_ddl(self, statement: str, hosts: Sequence[Host]) -> DdlAnswer:
        """Send one ON CLUSTER statement, once, and say what is known afterwards. Raises for errors that are certain."""
        settings = {
            "mutations_sync": 0,
            "replication_wait_for_inactive_replica_timeout": 0,
            "distributed_ddl_task_timeout": self.config.ddl_timeout_seconds,
            "distributed_ddl_output_mode": "null_status_on_timeout",
        }
        try:
            with self.client() as client:
                client.set_client_setting("max_execution_time", self.config.ddl_timeout_seconds + CLIENT_MARGIN_SECONDS)
                body = client.raw_query(statement, settings=settings, fmt="TabSeparated")
        except (ClickHouseError, OSError) as error:
            return classify_ddl_error(error)
        return parse_ddl_answer(body.decode(), hosts)


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


def match_hosts(listed: Sequence[Mapping[str, Any]], answering: Sequence[str]) -> tuple[Host, ...]:
    """Return the hosts of system.clusters by the names by which they answer: equal, or equal up to the first dot.

    Raises TopologyError naming the ones without a partner.
    """
    by_name = {name: name for name in answering} | {name.split(".")[0]: name for name in answering}
    hosts = []
    silent = []
    for row in listed:
        name = by_name.get(row["host"]) or by_name.get(row["host"].split(".")[0])
        if name is None:
            silent.append(row["host"])
        else:
            hosts.append(Host(name, int(row["shard"])))
    if silent or len({h.name for h in hosts}) != len(listed):
        raise TopologyError(
            f"system.clusters lists {', '.join(row['host'] for row in listed)}, but {', '.join(answering)} answered:"
            f" {', '.join(silent) or 'names are not unique'}"
        )
    return tuple(sorted(hosts, key=lambda h: h.name))


def classify_ddl_error(error: BaseException) -> DdlAnswer:
    """Return what an exception of an ON CLUSTER statement means. Raises it when the server surely did nothing."""
    text = str(error)
    code = error.code if isinstance(error, DatabaseError) else None
    if code in REFUSED_CODES:
        return DdlAnswer("refused", text=text)
    if code == 341:  # UNFINISHED: a replica is inactive, or the mutation was killed; only the text tells
        return DdlAnswer("killed" if "killed" in text else "unknown", text=text)
    if code == 159 or "deleted by the cleaner" in text or (code is None and is_transient(error)):
        return DdlAnswer("unknown", text=text)
    if code is not None and code in TRANSIENT_CODES:
        return DdlAnswer("unknown", text=text)
    raise error


def parse_ddl_answer(body: str, hosts: Sequence[Host]) -> DdlAnswer:
    """Return the answer of the per-host table (host, port, status, error, remaining, active), tab separated.

    A NULL status is a host that has not executed it yet; a host without a line was not heard of: both make it unknown.
    """
    done: set[str] = set()
    errors: dict[str, str] = {}
    full = {h.name: h.name for h in hosts} | {h.name.split(".")[0]: h.name for h in hosts}
    for line in body.splitlines():
        cells = line.split("\t")
        if len(cells) < 4:
            continue
        host = full.get(cells[0]) or full.get(cells[0].split(".")[0], cells[0])
        if cells[2] == "0":
            done.add(host)
        elif cells[2] not in ("\\N", ""):
            errors[host] = cells[3]
    complete = done >= {h.name for h in hosts}
    return DdlAnswer("done" if complete and not errors else "unknown", frozenset(done), errors or None, body.strip())


def sum_days(counts: DayCounts) -> dict[TableName, dict[str, int]]:
    """Return rows per table and host over all days."""
    return {table: {host: sum(days.values()) for host, days in hosts.items()} for table, hosts in counts.items()}


def days_of_cluster(counts: DayCounts, hosts: Sequence[Host]) -> dict[TableName, dict[str, int]]:
    """Return rows per table and day over all shards, reading one replica of each (replicas must agree already)."""
    first: dict[int, str] = {}
    for host in hosts:
        first.setdefault(host.shard, host.name)
    result: dict[TableName, dict[str, int]] = {}
    for table, per_host in counts.items():
        days: dict[str, int] = defaultdict(int)
        for name in first.values():
            for day, rows in per_host[name].items():
                days[day] += rows
        result[table] = dict(sorted(days.items()))
    return result
