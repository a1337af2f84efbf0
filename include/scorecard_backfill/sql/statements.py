"""Every ClickHouse statement of the project.

Identifiers and literals go through :func:`quote_identifier` and :func:`quote_string` only. One predicate
(:func:`window_predicate`) is shared by count, delete and verify, so that what is counted is what is deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

MARKER_PREFIX = "backfill:"
"""Start of the literal that marks our own mutations; ``system.mutations.command`` keeps it."""

_MARKER = re.compile(r"'backfill:([0-9a-f]{16}):([0-9]+)(?:\.([0-9]+))?'")
_PLAIN_NAME = re.compile(r"[\w.-]+", re.ASCII)
_UNSAFE_IN_NAME = re.compile(r"[\x00-\x1f]")
_ESCAPES = {"\\": "\\\\", "'": "\\'", "\0": "\\0", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True, slots=True)
class Names:
    """Names of the columns that statements use; they come from the cluster's configuration."""

    time: str
    customer: str
    profile: str
    conversation: str


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows of one customer, profile and half-open UTC day range in one database (``start`` in, ``end`` out)."""

    database: str
    customer_id: str
    profile_id: str
    start: date
    end: date


def quote_identifier(name: str) -> str:
    """Return ``name`` as a back-quoted identifier. Raises ValueError when empty or holding control characters.

    >>> quote_identifier("globex_eu_voice_1")
    '`globex_eu_voice_1`'
    """
    if not name or _UNSAFE_IN_NAME.search(name):
        raise ValueError(f"{name!r} cannot be the name of a database, table or column: empty or control characters")
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def quote_string(value: str) -> str:
    r"""Return ``value`` as a single-quoted literal with ClickHouse's backslash escapes.

    >>> print(quote_string("O'Neil; DROP"))
    'O\'Neil; DROP'
    """
    return "'" + "".join(_ESCAPES.get(char, char) for char in value) + "'"


def qualified(database: str, table: str) -> str:
    """Return the quoted ``database.table``."""
    return f"{quote_identifier(database)}.{quote_identifier(table)}"


def day_literal(day: date) -> str:
    """Return the first instant of a UTC day; valid against DateTime and DateTime64 columns of any zone.

    Not toDateTime: against a DateTime64 partition column the engine (26.9) reads ``< midnight`` as ``<= 23:59:59``, and
    passes over a part that lies within the last second of the day, in a DELETE as in a SELECT without FINAL.
    """
    return f"toDateTime64({quote_string(f'{day.isoformat()} 00:00:00')}, 3, 'UTC')"


def time_predicate(column: str, start: date, end: date) -> str:
    """Return ``start <= column < end`` over UTC days (end exclusive, never BETWEEN)."""
    name = quote_identifier(column)
    return f"{name} >= {day_literal(start)} AND {name} < {day_literal(end)}"


def window_predicate(names: Names, part: Slice) -> str:
    """Return the predicate that count, delete and verify share.

    It names the customer and profile although each has a database of its own: a sanitiser collision can then never
    take another customer's rows.
    """
    return f"{time_predicate(names.time, part.start, part.end)} AND {owner_predicate(names, part)}"


def owner_predicate(names: Names, part: Slice) -> str:
    """Return the part of the predicate that names customer and profile, for rows of any day."""
    return (
        f"{quote_identifier(names.customer)} = {quote_string(part.customer_id)}"
        f" AND {quote_identifier(names.profile)} = {quote_string(part.profile_id)}"
    )


def marker_literal(key: str, generation: int, chunk: int = 0) -> str:
    """Return the literal that marks mutations of a window (16 hex digits), generation (from 1), chunk (0: whole)."""
    literal = f"'{MARKER_PREFIX}{key}:{generation}{f'.{chunk}' if chunk else ''}'"
    if not _MARKER.fullmatch(literal):
        raise ValueError(f"window key {key!r} / generation {generation!r} cannot be a marker (16 hex digits, integer)")
    return literal


def generation_marks(key: str, generation: int) -> tuple[str, str]:
    """Return two texts of which each of a generation's statements holds one: its marker as a whole, or by chunks.

    Generation 1 does not take generation 10 along: the marker ends with its quote, or with the point before a chunk.
    """
    marker = marker_literal(key, generation)
    return marker, f"{marker[:-1]}."


def parse_marker(command: str) -> tuple[str, int, int] | None:
    """Return (window key, generation, chunk) of a mutation's command, or None for a mutation that is not ours.

    The last marker counts: a customer id may look like one, but stands before it.
    """
    found = _MARKER.findall(command)
    if not found:
        return None
    key, generation, chunk = found[-1]
    return key, int(generation), int(chunk or 0)


def delete_statement(
    *,
    cluster: str,
    table: str,
    part: Slice,
    names: Names,
    key: str,
    generation: int,
    chunk: int = 0,
    condition: str = "",
) -> str:
    """Return the heavy DELETE on the local table of every node.

    ``condition`` is one of ours (:func:`~include.scorecard_backfill.sql.census.old_predicate`), '' for none: of the
    window's rows only those for which it is true are deleted.
    """
    more = f" AND ({condition})" if condition else ""
    return (
        f"ALTER TABLE {qualified(part.database, table)} ON CLUSTER {quote_string(cluster)}"
        f" DELETE WHERE {window_predicate(names, part)}{more} AND {marker_literal(key, generation, chunk)} != ''"
    )


def drop_partition_statement(*, cluster: str, database: str, table: str, partition_id: str) -> str:
    """Return DROP PARTITION by id on the local table of every node."""
    return (
        f"ALTER TABLE {qualified(database, table)} ON CLUSTER {quote_string(cluster)}"
        f" DROP PARTITION ID {quote_string(partition_id)}"
    )


def delete_needles(database: str, table: str, key: str, generation: int, chunk: int = 0) -> tuple[str, ...]:
    """Return texts that together only the entries of one table's DELETE hold in a DDL queue or a list of processes.

    The marker alone is not enough: the DELETEs of a window's other tables have the same. A name that the server may
    write in more ways than with or without backticks is left out.
    """
    return (*_altered(database, table), marker_literal(key, generation, chunk))


def _altered(database: str, table: str) -> tuple[str, ...]:
    """Return how an ALTER of this table begins, up to the blank after its name; () for a name that is not plain."""
    name = f"{database}.{table}"
    return (f"TABLE {name} ",) if _PLAIN_NAME.fullmatch(name) else ()


def drop_partition_needles(database: str, table: str, partition_id: str) -> tuple[str, ...]:
    """Return texts that together only this statement's entry of the DDL queue holds.

    The partition alone is not enough: other customers drop one of the same id. The server writes names with or without
    quotes.
    """
    return (*(_altered(database, table) or (database, table)), f"DROP PARTITION ID {quote_string(partition_id)}")


def any_drop_needles(database: str, table: str) -> tuple[str, ...]:
    """Return texts that together every DROP PARTITION of a table holds."""
    return (*(_altered(database, table) or (database, table)), "DROP PARTITION ID ")


def topology_statement(cluster: str) -> str:
    """Return the hosts that a cluster is made of: ``shard, replica, host``."""
    return (
        "SELECT shard_num AS shard, replica_num AS replica, host_name AS host FROM system.clusters"
        f" WHERE cluster = {quote_string(cluster)} ORDER BY shard, replica"
    )


def answering_hosts_statement(cluster: str) -> str:
    """Return one row of each node: ``host``, the name by which it calls itself, and ``own``.

    ``own`` are the (shard, replica) entries of the cluster's definition that the node takes for itself (by address).
    """
    view = (
        "SELECT hostName() AS host, groupArray((toUInt32(shard_num), toUInt32(replica_num))) AS own"
        f" FROM system.clusters WHERE cluster = {quote_string(cluster)} AND is_local"
    )
    return f"SELECT host, own FROM clusterAllReplicas({quote_string(cluster)}, view({view}))"


def places_statement(cluster: str) -> str:
    """Return one row of each node: ``host, place``.

    ``place``: clusterAllReplicas numbers the replicas of all shards through, from 1, in the order of their definition.
    """
    return (
        f"SELECT _shard_num AS place, hostName() AS host FROM clusterAllReplicas({quote_string(cluster)}, system.one)"
    )


def mutations_statement(cluster: str) -> str:
    """Return one row of each host: ``host, expected, listed``, its unfinished mutations and all of ours as tuples.

    ``expected`` is how many hosts the cluster has.

    A tuple is database, table, mutation id, command, time of creation (epoch seconds), is_done, parts_to_do, latest
    fail reason, and [is_killed]; the last one is no column of every supported version, and [] there.
    """
    columns = (
        "database, table, mutation_id, command, toUnixTimestamp(create_time), is_done, toInt64(parts_to_do),"
        " latest_fail_reason, CAST(array(COLUMNS('^is_killed$')) AS Array(UInt8))"
    )
    view = (
        f"SELECT hostName() AS host, groupArray(({columns})) AS listed FROM system.mutations"
        f" WHERE is_done = 0 OR position(command, {quote_string(MARKER_PREFIX)}) > 0"
    )
    expected = f"(SELECT count() FROM system.clusters WHERE cluster = {quote_string(cluster)})"
    return f"SELECT host, {expected} AS expected, listed FROM clusterAllReplicas({quote_string(cluster)}, view({view}))"


def window_mutations_statement(cluster: str, key: str) -> str:
    """Return what a person asks about a window's mutations, a row for each host, table and mutation."""
    view = (
        "SELECT hostName() AS host, database, table, mutation_id, create_time, is_done, parts_to_do,"
        " latest_fail_reason, command FROM system.mutations"
        f" WHERE position(command, {quote_string(f'{MARKER_PREFIX}{key}:')}) > 0"
    )
    return f"SELECT * FROM clusterAllReplicas({quote_string(cluster)}, view({view})) ORDER BY database, table, host"


def tables_statement(cluster: str, tables: Iterable[str]) -> str:
    """Return the tables of interest on every host: ``host, database, table, engine, partition_key, engine_full``."""
    listed = ", ".join(quote_string(table) for table in tables)
    return (
        "SELECT hostName() AS host, database, name AS table, engine, partition_key, engine_full"
        f" FROM clusterAllReplicas({quote_string(cluster)}, system.tables)"
        f" WHERE name IN ({listed}) AND database NOT IN ('system', 'INFORMATION_SCHEMA', 'information_schema')"
    )


def columns_statement(cluster: str, tables: Iterable[str], columns: Iterable[str]) -> str:
    """Return the columns of interest of tables on every host: ``host, database, table, columns`` as (name, type)."""
    of_tables, names = (", ".join(quote_string(item) for item in items) for items in (tables, columns))
    return (
        "SELECT hostName() AS host, database, table, groupArray((name, type)) AS columns"
        f" FROM clusterAllReplicas({quote_string(cluster)}, system.columns)"
        f" WHERE table IN ({of_tables}) AND name IN ({names})"
        " AND database NOT IN ('system', 'INFORMATION_SCHEMA', 'information_schema') GROUP BY host, database, table"
    )


def _merge_source(cluster: str, databases: Iterable[str], tables: Iterable[str]) -> str:
    def regexp(items: Iterable[str]) -> str:
        return quote_string("^(" + "|".join(re.escape(item) for item in items) + ")$")

    return f"cluster({quote_string(cluster)}, merge(REGEXP({regexp(databases)}), {regexp(tables)}))"


def pairs_statement(*, cluster: str, databases: Iterable[str], table: str, names: Names) -> str:
    """Return which (customer, profile) pairs each database holds, over all time: the identity guard's source.

    Rows: ``database, customer_id, profile_id``; one query for all databases.
    """
    return (
        f"SELECT _database AS database, {quote_identifier(names.customer)} AS customer_id,"
        f" {quote_identifier(names.profile)} AS profile_id"
        f" FROM {_merge_source(cluster, databases, [table])} GROUP BY database, customer_id, profile_id"
    )


def volumes_statement(
    *, cluster: str, databases: Iterable[str], tables: Iterable[str], names: Names, start: date, end: date
) -> str:
    """Return rows and distinct conversations per database, table, pair and UTC day; one query for all databases.

    Rows: ``database, table, customer_id, profile_id, day, rows, conversations``.
    """
    return (
        f"SELECT _database AS database, _table AS table, {quote_identifier(names.customer)} AS customer_id,"
        f" {quote_identifier(names.profile)} AS profile_id,"
        f" toString(toDate({quote_identifier(names.time)}, 'UTC')) AS day, count() AS rows,"
        f" uniqExact({quote_identifier(names.conversation)}) AS conversations"
        f" FROM {_merge_source(cluster, databases, tables)}"
        f" WHERE {time_predicate(names.time, start, end)}"
        " GROUP BY database, table, customer_id, profile_id, day"
    )


def replicas_statement(cluster: str) -> str:
    """Return replicated tables that are read-only, which means that their Keeper session is lost: ``host, tables``."""
    return (
        "SELECT hostName() AS host, count() AS tables"
        f" FROM clusterAllReplicas({quote_string(cluster)}, system.replicas)"
        " WHERE is_readonly = 1 GROUP BY host"
    )


def _holds(needle: str) -> str:
    """Return the condition that a statement holds a text, with names in backticks or not, in one line or in several."""
    plain = "replaceAll(replaceAll(query, '`', ''), '\\n', ' ')"
    return f"position({plain}, {quote_string(needle.replace('`', ''))}) > 0"


def ddl_queue_statement(cluster: str, *needles: str) -> str:
    """Return entries of the DDL queue that hold every needle and are not finished somewhere: ``host, status``."""
    held = "".join(f" AND {_holds(needle)}" for needle in needles)
    return (
        "SELECT host, toString(status) AS status FROM system.distributed_ddl_queue"
        f" WHERE cluster = {quote_string(cluster)}{held}"
        " AND status NOT IN ('Finished', 'Removing')"
    )


def ddl_trace_statement(cluster: str, *needles: str) -> str:
    """Return entries of the DDL queue that hold every needle, finished ones too: ``host, status``.

    ClickHouse keeps them for a week or for the last 1,000 (task_max_lifetime, max_tasks_in_queue): a statement of the
    last minutes without an entry was never queued.
    """
    held = "".join(f" AND {_holds(needle)}" for needle in needles)
    return (
        "SELECT host, toString(status) AS status FROM system.distributed_ddl_queue"
        f" WHERE cluster = {quote_string(cluster)}{held}"
    )


def running_statement(cluster: str, *needles: str) -> str:
    """Return the hosts on which a statement that holds every needle is being executed: ``host``.

    An ON CLUSTER statement is listed on the node that it was sent to until it is answered, also before it is in the DDL
    queue, and also when its client has given up. Queries are left out: this one holds the needles, too.
    """
    held = " AND ".join(_holds(needle) for needle in needles)
    return (
        f"SELECT DISTINCT hostName() AS host FROM clusterAllReplicas({quote_string(cluster)}, system.processes)"
        f" WHERE NOT startsWith(query, 'SELECT') AND {held}"
    )


def kill_mutation_statement(*, cluster: str, database: str, table: str, key: str, generation: int, test: bool) -> str:
    """Return KILL MUTATION for our own mutations of one window and generation on one table, on every host.

    Their ids differ between shards, the marker does not. ``test`` only shows what would be killed.
    """
    found = [f"position(command, {quote_string(text)}) > 0" for text in generation_marks(key, generation)]
    return (
        f"KILL MUTATION ON CLUSTER {quote_string(cluster)} WHERE database = {quote_string(database)}"
        f" AND table = {quote_string(table)} AND ({' OR '.join(found)}){' TEST' if test else ''}"
    )
