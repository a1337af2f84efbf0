"""Statements that look at the state of the cluster's hosts, for the health gate and for dropping partitions."""

from __future__ import annotations

from collections.abc import Iterable

from include.scorecard_backfill.sql import Names, Slice, qualified, quote_string, window_predicate

SERVER_TIME = "SELECT toUnixTimestamp64Milli(now64(3)) AS now"
"""The clock of the node that is asked, in milliseconds since 1970."""

WRITE_SETTINGS = "SELECT name, value FROM system.settings WHERE name IN ('readonly', 'allow_ddl')"
"""Settings by which a user may not change anything, whatever its rights are."""


def clocks_statement(cluster: str) -> str:
    """Return the clock of every host, asked at about the same moment: ``host, now`` in milliseconds since 1970."""
    view = f"SELECT hostName() AS host, now FROM ({SERVER_TIME})"
    return f"SELECT host, now FROM clusterAllReplicas({quote_string(cluster)}, view({view}))"


def replicated_databases_statement(cluster: str) -> str:
    """Return the databases that replicate statements by themselves and refuse ON CLUSTER: ``host, database``."""
    return (
        "SELECT hostName() AS host, name AS database FROM"
        f" {_everywhere(cluster, 'databases')} WHERE engine = 'Replicated'"
    )


def _everywhere(cluster: str, table: str) -> str:
    return f"clusterAllReplicas({quote_string(cluster)}, system.{table})"


def health_statement(cluster: str) -> str:
    """Return the load of every host in one query: ``host, measure, value``.

    Measures: ``answers`` (1, so that a silent host is seen), ``unfinished_mutations``, ``active_parts`` (of the fullest
    partition), ``replication_queue`` (entries), ``free_disk_bytes`` (of the fullest local disk). A measure without
    anything to count has no row: it is 0 for a host that answers.
    """
    per_partition = (
        "SELECT hostName() AS host, database, table, partition_id, count() AS parts"
        f" FROM {_everywhere(cluster, 'parts')} WHERE active GROUP BY host, database, table, partition_id"
    )
    return " UNION ALL ".join(
        [
            "SELECT hostName() AS host, 'answers' AS measure, toInt64(count()) AS value"
            f" FROM {_everywhere(cluster, 'one')} GROUP BY host",
            "SELECT hostName() AS host, 'unfinished_mutations' AS measure, toInt64(count()) AS value"
            f" FROM {_everywhere(cluster, 'mutations')} WHERE is_done = 0 GROUP BY host",
            "SELECT host, 'active_parts' AS measure, toInt64(max(parts)) AS value"
            f" FROM ({per_partition}) GROUP BY host",
            "SELECT hostName() AS host, 'replication_queue' AS measure, toInt64(count()) AS value"
            f" FROM {_everywhere(cluster, 'replication_queue')} GROUP BY host",
            "SELECT hostName() AS host, 'free_disk_bytes' AS measure, toInt64(min(free_space)) AS value"
            f" FROM {_everywhere(cluster, 'disks')} WHERE type = 'Local' GROUP BY host",
        ]
    )


def partition_statement(
    *, cluster: str, database: str, table: str, partition_ids: Iterable[str], parts: Iterable[Slice], names: Names
) -> str:
    """Return one row of each host: ``host, partitions`` as (partition id, rows, foreign rows).

    Listed are the named partitions and every other one that holds rows of the slices: the server's zone need not be
    UTC, and then the last hours of a month lie in the next partition. Foreign rows are those that none of the slices
    (the windows' own predicate) holds: another customer, another day, or a NULL, of which the predicate is neither true
    nor false. Only a partition without any on every host may be dropped.
    """
    listed = ", ".join(quote_string(p) for p in partition_ids)
    inside = " OR ".join(f"({window_predicate(names, part)})" for part in parts)
    per_partition = (
        f"SELECT _partition_id AS b_partition, count() AS b_rows, countIf(ifNull(NOT ({inside}), 1)) AS b_foreign"
        f" FROM {qualified(database, table)} WHERE _partition_id IN ({listed}) OR ({inside}) GROUP BY b_partition"
    )
    view = (
        f"SELECT hostName() AS host, groupArray((b_partition, b_rows, b_foreign)) AS partitions FROM ({per_partition})"
    )
    return f"SELECT host, partitions FROM clusterAllReplicas({quote_string(cluster)}, view({view}))"


def partition_sizes_statement(*, cluster: str, database: str, table: str) -> str:
    """Return bytes on disk of every active partition of a table on every host: ``host, partition_id, bytes``."""
    return (
        "SELECT hostName() AS host, partition_id, sum(bytes_on_disk) AS bytes"
        f" FROM {_everywhere(cluster, 'parts')}"
        f" WHERE active AND database = {quote_string(database)} AND table = {quote_string(table)}"
        " GROUP BY host, partition_id"
    )
