"""Statements that look at the state of the cluster's hosts, for the health gate and for dropping partitions."""

from __future__ import annotations

from collections.abc import Iterable

from include.scorecard_backfill.sql import Names, Slice, qualified, quote_string, window_predicate


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
    """Return what the partitions hold on every host: ``host, partition_id, rows, foreign_rows``.

    ``foreign_rows`` are rows that none of the slices (the windows' own predicate) holds: another customer, another
    day, or a NULL, of which the predicate is neither true nor false. Only a partition without any on every host may be
    dropped.
    """
    listed = ", ".join(quote_string(p) for p in partition_ids)
    inside = " OR ".join(f"({window_predicate(names, part)})" for part in parts)
    return (
        "SELECT hostName() AS host, _partition_id AS partition_id, count() AS rows,"
        f" countIf(ifNull(NOT ({inside}), 1)) AS foreign_rows"
        f" FROM clusterAllReplicas({quote_string(cluster)}, {qualified(database, table)})"
        f" WHERE _partition_id IN ({listed}) GROUP BY host, partition_id"
    )


def partition_sizes_statement(*, cluster: str, database: str, table: str) -> str:
    """Return bytes on disk of every active partition of a table on every host: ``host, partition_id, bytes``."""
    return (
        "SELECT hostName() AS host, partition_id, sum(bytes_on_disk) AS bytes"
        f" FROM {_everywhere(cluster, 'parts')}"
        f" WHERE active AND database = {quote_string(database)} AND table = {quote_string(table)}"
        " GROUP BY host, partition_id"
    )
