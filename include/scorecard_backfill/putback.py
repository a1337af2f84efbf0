"""Which columns of a snapshot go back into their table: by name, and never with a value lost without a word."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from include.scorecard_backfill.foreign import Row

COMPUTED = frozenset({"MATERIALIZED", "ALIAS"})
"""Kinds of columns whose values ClickHouse makes itself and takes from no INSERT; EPHEMERAL ones are not stored."""

_NOT_STORED = COMPUTED | {"EPHEMERAL"}


class PutBackError(ValueError):
    """Rows of a snapshot cannot be put back as they were; the text names the columns and what to do."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its type, and its kind as system.columns names it ('' or DEFAULT: an ordinary one)."""

    type: str
    kind: str


Columns = Mapping[str, Column]


@dataclass(frozen=True, slots=True)
class Places:
    """Names of the side table, the local table and its distributed twin, and the columns that a row is known by."""

    database: str
    copy: str
    table: str
    twin: str
    known_by: Sequence[str]


def columns_to_put_back(rows: Iterable[Row], places: Places, hosts: Sequence[str]) -> tuple[str, ...]:
    """Return the columns to be named in INSERT and SELECT, in the order of the snapshot's names.

    ``rows``: host, table, columns as (name, type, kind) of the three tables. A column that was added since gets its
    default, one that was removed is left out, one that is computed now is computed; order means nothing.

    Raises:
        PutBackError: hosts differ, a value would be lost or changed, or a row would not be known again.
    """
    found = _by_table(rows)
    copy = _everywhere(found, places, places.copy, hosts)
    table = _everywhere(found, places, places.table, hosts)
    twin = _everywhere(found, places, places.twin, sorted(found.get(places.twin, {})) or hosts)
    name = f"{places.database}.{places.table}"
    common = sorted(n for n in copy if n in table and table[n].kind not in _NOT_STORED)
    if lost := sorted(set(places.known_by) - set(common)):
        raise PutBackError(f"{name} has no column {_listed(lost)} any more, by which its rows are known")
    gone = sorted(n for n in copy if n not in table)
    new = sorted(n for n, c in table.items() if n not in copy and c.kind not in _NOT_STORED)
    if gone and new:
        raise PutBackError(
            f"{name} has lost {_listed(gone)} since the snapshot was taken and has {_listed(new)} instead: whether they"
            f" were renamed is not known. Copy by hand what belongs where, from {places.database}.{places.copy}"
        )
    if other := [n for n in common if not _takes(table[n].type, copy[n].type)]:
        types = "; ".join(f"{n}: {copy[n].type} in the snapshot, {table[n].type} in the table" for n in other)
        raise PutBackError(
            f"{name} has other types since the snapshot was taken ({types}): values may be changed by an INSERT. Copy"
            f" by hand, from {places.database}.{places.copy}"
        )
    if missing := [n for n in common if n not in twin or twin[n].kind in _NOT_STORED]:
        raise PutBackError(
            f"{places.database}.{places.twin} does not have {_listed(missing)} as {name} does, so an INSERT through it"
            " would lose the values. Give it the columns of its local table, then clear this task"
        )
    return tuple(common)


def _by_table(rows: Iterable[Row]) -> dict[str, dict[str, Columns]]:
    found: dict[str, dict[str, Columns]] = {}
    for row in rows:
        columns = {str(name): Column(str(type_), str(kind)) for name, type_, kind in row["columns"]}
        found.setdefault(str(row["table"]), {})[str(row["host"])] = columns
    return found


def _everywhere(
    found: Mapping[str, Mapping[str, Columns]], places: Places, table: str, hosts: Sequence[str]
) -> Columns:
    """Return the columns of a table, which must be the same on these hosts."""
    per_host = found.get(table, {})
    if missing := [host for host in hosts if host not in per_host]:
        raise PutBackError(f"the columns of {places.database}.{table} on {', '.join(missing)} are not known")
    first = per_host[hosts[0]]
    for host in hosts[1:]:
        differing = sorted(n for n in {*first, *per_host[host]} if first.get(n) != per_host[host].get(n))
        if differing:
            raise PutBackError(
                f"{places.database}.{table} has {_listed(differing)} not alike on {hosts[0]} and {host}: make the"
                " hosts equal first"
            )
    return first


def _takes(table: str, copy: str) -> bool:
    """Return True when a column takes every value of another type as it is."""
    mine, theirs = (re.sub(r"LowCardinality\((.*)\)$", r"\1", text) for text in (table, copy))
    return mine in (theirs, f"Nullable({theirs})")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
