"""Counting that proves itself complete: one row for each table and host, also when it counts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from include.scorecard_backfill.sql.statements import (
    Names,
    Slice,
    qualified,
    quote_identifier,
    quote_string,
    window_predicate,
)

OTHER_TABLE_MARGIN = timedelta(days=1)
"""How far outside of the window the row may lie whose id decides about a row of the window (:class:`IdsOf`)."""

EXAMPLES = 20
"""Ids that are named of each table; the number of rows is always exact."""

BUCKETS = 64
"""Classes by hash into which a day's ids are counted: new ids of one class do not make up for lost ones of another."""

Unit = Literal["time", "seconds", "milliseconds", "microseconds", "nanoseconds"]
_PER_SECOND: Mapping[str, int] = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}


@dataclass(frozen=True, slots=True)
class Value:
    """Rows in which one column has one value."""

    column: str
    equals: str | int


@dataclass(frozen=True, slots=True)
class IdsOf:
    """Rows whose ``column`` holds an id (``their_column``) of the rows of another table in which ``value`` holds."""

    column: str
    table: str
    their_column: str
    value: Value


Rule = Value | IdsOf
"""Which rows are meant to go."""


@dataclass(frozen=True, slots=True)
class Written:
    """A column that every write sets, and the moment that splits old rows from written ones (``since`` is written)."""

    column: str
    since: datetime
    unit: Unit = "time"


@dataclass(frozen=True, slots=True)
class CensusPart:
    """What is counted of one local table: the rows of ``part``, their ids, and the optional rules about them."""

    table: str
    part: Slice
    id_column: str
    meant: Rule | None = None
    written: Written | None = None

    @property
    def name(self) -> tuple[str, str]:
        """(database, local table)."""
        return self.part.database, self.table


def value_literal(value: str | int) -> str:
    """Return a configured value as a literal."""
    return str(value) if isinstance(value, int) else quote_string(value)


def value_predicate(value: Value) -> str:
    """Return ``column = value``."""
    return f"{quote_identifier(value.column)} = {value_literal(value.equals)}"


def certain(condition: str) -> str:
    """Return a condition as 0 or 1: a row of which it is not known (NULL) is none of those for which it holds.

    Without this such a row would be neither among these nor among the others, and nobody would miss it.
    """
    return f"ifNull({condition}, 0)"


def moment_literal(moment: datetime, unit: Unit) -> str:
    """Return a moment, cut to whole seconds, for a column of that unit. Raises ValueError for one without a zone.

    Whole seconds, because a DateTime column keeps no more: a row written within the moment's second is never old.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no zone")
    whole = moment.astimezone(UTC).replace(microsecond=0)
    if unit == "time":
        return f"toDateTime64({quote_string(f'{whole:%Y-%m-%d %H:%M:%S}')}, 3, 'UTC')"
    return str(int(whole.timestamp()) * _PER_SECOND[unit])


def old_predicate(written: Written) -> str:
    """Return the condition of rows that were written before the moment. It is NULL for a row without a written time."""
    return f"{quote_identifier(written.column)} < {moment_literal(written.since, written.unit)}"


def not_rewritten(written: Written) -> str:
    """Return the condition of rows that are not proven to be written since the moment, as 0 or 1.

    A row without a written time is counted here, but :func:`old_predicate` deletes it never.
    """
    return f"ifNull({old_predicate(written)}, 1)"


def meant_predicate(cluster: str, names: Names, part: Slice, rule: Rule) -> str:
    """Return the condition of the rows that are meant to go, as 0 or 1; ids are collected over all shards."""
    if isinstance(rule, Value):
        return certain(value_predicate(rule))
    wide = replace(part, start=part.start - OTHER_TABLE_MARGIN, end=part.end + OTHER_TABLE_MARGIN)
    return certain(
        f"{quote_identifier(rule.column)} GLOBAL IN (SELECT {quote_identifier(rule.their_column)}"
        f" FROM cluster({quote_string(cluster)}, {qualified(part.database, rule.table)}) FINAL"
        f" WHERE {window_predicate(names, wide)} AND {value_predicate(rule.value)})"
    )


def unwritten_statement(*, cluster: str, counted: CensusPart, names: Names) -> str:
    """Return one row about the old rows that nobody means to go and whose id was not written again: ``number, ids``.

    What was written again is looked for over all shards, because a row may go to another one, and a day around the
    window, because it may have moved. Raises ValueError for a part whose written rows cannot be told.
    """
    part, written = counted.part, counted.written
    if written is None:
        raise ValueError(f"{'.'.join(counted.name)} has no column that tells what was written again")
    source = f"cluster({quote_string(cluster)}, {qualified(part.database, counted.table)}) FINAL"
    wide = replace(part, start=part.start - OTHER_TABLE_MARGIN, end=part.end + OTHER_TABLE_MARGIN)
    column, old = quote_identifier(counted.id_column), not_rewritten(written)
    meant = f" AND NOT ({meant_predicate(cluster, names, part, counted.meant)})" if counted.meant else ""
    again = f"SELECT {column} FROM {source} WHERE {window_predicate(names, wide)} AND NOT {old}"
    return (
        f"SELECT count() AS number, groupArray({EXAMPLES})(toString({column})) AS ids FROM {source}"
        f" WHERE {window_predicate(names, part)} AND {old}{meant} AND {column} GLOBAL NOT IN ({again})"
    )


def _day(names: Names) -> str:
    return f"toString(toDate({quote_identifier(names.time)}, 'UTC'))"


def host_leg(number: int, *, cluster: str, table: str, part: Slice, names: Names, condition: str = "") -> str:
    """Return a SELECT with exactly one row for each host: ``leg, host, days``, FINAL, days as (ISO day, [rows]).

    The view runs whole on each host, and an aggregate without GROUP BY has a row over nothing, too.
    """
    more = f" AND {condition}" if condition else ""
    per_day = (
        f"SELECT {_day(names)} AS b_day, count() AS b_rows FROM {qualified(part.database, table)} FINAL"
        f" WHERE {window_predicate(names, part)}{more} GROUP BY b_day"
    )
    view = f"SELECT hostName() AS host, groupArray((b_day, [b_rows])) AS days FROM ({per_day})"
    return (
        f"SELECT toUInt32({number}) AS leg, host, days FROM clusterAllReplicas({quote_string(cluster)}, view({view}))"
    )


def cluster_leg(number: int, *, cluster: str, counted: CensusPart, names: Names) -> str:
    """Return a SELECT with one row over all shards: ``leg, host, days``; host is '', the day of the total is ''.

    days: (ISO day, numbers), the numbers being rows, distinct conversations, distinct ids, rows meant to go (0 without
    a rule) and the fingerprint of the ids that are not meant to go (a sum of hashes modulo 2**64); with ``written`` the
    same five of the rows written since the moment, and of the others. Last come BUCKETS numbers: of all rows, the
    distinct ids that are not meant to go, by class of their hash.
    """
    part = counted.part
    meant = meant_predicate(cluster, names, part, counted.meant) if counted.meant else "0"
    columns = list(_numbers("1", names, counted.id_column, meant))
    if counted.written:
        old = not_rewritten(counted.written)
        columns += _numbers(f"NOT {old}", names, counted.id_column, meant)
        columns += _numbers(old, names, counted.id_column, meant)
    listed = ", ".join(f"{column} AS b_{number}" for number, column in enumerate(columns))
    packed = ", ".join(f"b_{number}" for number in range(len(columns)))
    buckets = _buckets(counted.id_column, meant)
    per_day = (
        f"SELECT {_day(names)} AS b_day, {listed}, {buckets} AS b_buckets"
        f" FROM cluster({quote_string(cluster)}, {qualified(part.database, counted.table)}) FINAL"
        f" WHERE {window_predicate(names, part)} GROUP BY b_day WITH ROLLUP"
    )
    packed = f"arrayConcat([{packed}], b_buckets)"
    return f"SELECT toUInt32({number}) AS leg, '' AS host, groupArray((b_day, {packed})) AS days FROM ({per_day})"


def _numbers(condition: str, names: Names, id_column: str, meant: str) -> tuple[str, ...]:
    return (
        f"countIf({condition})",
        f"uniqExactIf({quote_identifier(names.conversation)}, {condition})",
        f"uniqExactIf({quote_identifier(id_column)}, {condition})",
        f"countIf(({condition}) AND ({meant}))",
        # Each id once: a row that was doubled before is not missing when it is there once afterwards.
        f"sumDistinctIf(cityHash64(toString({quote_identifier(id_column)})), ({condition}) AND NOT ({meant}))",
    )


def _buckets(id_column: str, meant: str) -> str:
    column = quote_identifier(id_column)
    bucket = f"cityHash64(toString({column})) % {BUCKETS}"
    return f"uniqExactIfResample(0, {BUCKETS}, 1)({column}, NOT ({meant}), {bucket})"


def census_statement(*, cluster: str, parts: Sequence[CensusPart], names: Names) -> str:
    """Return the census of the parts: leg 2n is part n on each host, leg 2n + 1 is part n over all shards.

    Raises ValueError without parts, and for a table that is listed twice.
    """
    if not parts or len({part.name for part in parts}) != len(parts):
        raise ValueError(f"a census needs tables, each of them once, not {[part.name for part in parts]}")
    legs = []
    for number, part in enumerate(parts):
        legs.append(host_leg(2 * number, cluster=cluster, table=part.table, part=part.part, names=names))
        legs.append(cluster_leg(2 * number + 1, cluster=cluster, counted=part, names=names))
    return " UNION ALL ".join(legs)


def host_counts_statement(*, cluster: str, parts: Sequence[tuple[str, Slice, str]], names: Names) -> str:
    """Return counts of (table, slice, condition) on every host: ``leg`` (their place), ``host, days``."""
    if not parts:
        raise ValueError("there is nothing to count")
    return " UNION ALL ".join(
        host_leg(number, cluster=cluster, table=table, part=part, names=names, condition=condition)
        for number, (table, part, condition) in enumerate(parts)
    )
