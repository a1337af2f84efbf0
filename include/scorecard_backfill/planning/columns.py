"""Which columns the statements need of each table, and whether every host has them, of a type that serves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from include.scorecard_backfill.config.clickhouse import ClickHouseConfig
from include.scorecard_backfill.foreign import Row

TableName = tuple[str, str]

Kind = Literal["time", "id", "value", "written time", "written number"]
"""``value`` is compared with a text or a number and may have any type; the others say what they have to be.

Rows without an id could not be told from each other: none of them would be missed.
"""

_SERVES: Mapping[Kind, re.Pattern[str]] = {
    "time": re.compile(r"(Nullable\()?Date(Time(64)?)?(\(.*\))?\)?"),
    "id": re.compile(r"(?!Nullable\().*"),
    "value": re.compile(r".*"),
    "written time": re.compile(r"DateTime(64)?(\(.*\))?"),
    "written number": re.compile(r"U?Int(32|64|128|256)"),
}
_NEEDS: Mapping[Kind, str] = {
    "time": "a DateTime or DateTime64",
    "id": "a type that is not Nullable",
    "value": "any type",
    "written time": "a DateTime or DateTime64 that is not Nullable",
    "written number": "an integer that is not Nullable",
}
_VERSION = re.compile(r"Replacing\w*MergeTree\((?:'[^']*', '[^']*',? ?)?(?P<version>`?\w+`?)?")


def wanted_columns(config: ClickHouseConfig) -> dict[str, dict[str, Kind]]:
    """Return the columns that statements name, by table and column."""
    wanted: dict[str, dict[str, Kind]] = {}
    for table in dict.fromkeys((*config.tables, config.volume_table)):
        columns = wanted.setdefault(table, {})
        for name in (config.customer_column, config.profile_column, config.conversation_column):
            columns[name] = "value"
        columns[config.time_column] = "time"
    for table in config.tables:
        wanted[table][config.id_columns[table]] = "id"
    for table, rule in (config.meant_to_go or {}).items():
        for named in (rule.column, rule.id_column):
            if named is not None:
                wanted[table].setdefault(named, "value")
    for forbidden in config.must_be_zero:
        wanted[forbidden.table].setdefault(forbidden.column, "value")
    for table, written in config.written_columns.items():
        wanted[table][written.column] = "written time" if written.unit == "time" else "written number"
    return wanted


def column_problems(
    rows: Iterable[Row], tables: Mapping[str, Sequence[str]], hosts: Sequence[str], config: ClickHouseConfig
) -> dict[TableName, str]:
    """Return a sentence for each (database, table) whose columns do not serve the statements.

    ``rows``: host, database, table, columns as (name, type) pairs. ``tables`` by database are those that exist on every
    one of ``hosts``.
    """
    found: dict[TableName, dict[str, dict[str, str]]] = {}
    for row in rows:
        columns = {str(name): str(kind) for name, kind in row["columns"]}
        found.setdefault((row["database"], row["table"]), {})[row["host"]] = columns
    wanted = wanted_columns(config)
    problems = {}
    for database, names in tables.items():
        for table in names:
            problem = _problem(wanted.get(table, {}), found.get((database, table), {}), hosts)
            if problem:
                problems[database, table] = f"table {database}.{table} {problem}"
    return problems


def _problem(wanted: Mapping[str, Kind], per_host: Mapping[str, Mapping[str, str]], hosts: Sequence[str]) -> str:
    for name, kind in sorted(wanted.items()):
        types = {host: per_host.get(host, {}).get(name) for host in hosts}
        missing = [host for host, type_ in types.items() if type_ is None]
        if missing:
            where = "every host" if len(missing) == len(hosts) else ", ".join(missing)
            return f"has no column {name!r} on {where}"
        listed = sorted({str(type_) for type_ in types.values()})
        if len(listed) > 1:
            return f"has column {name!r} of different types: {', '.join(listed)}; make the hosts equal first"
        plain = re.sub(r"^LowCardinality\((.*)\)$", r"\1", listed[0])
        if not _SERVES[kind].fullmatch(plain):
            return f"has column {name!r} of type {listed[0]}, which must be {_NEEDS[kind]}"
    return ""


def version_column(engine_full: str) -> str:
    """Return the version column of a ReplacingMergeTree by its ``engine_full``, '' when it has none.

    >>> version_column("ReplicatedReplacingMergeTree('/t/{shard}', '{replica}', updated_at) ORDER BY id")
    'updated_at'
    >>> version_column("ReplacingMergeTree ORDER BY id")
    ''
    """
    found = _VERSION.search(engine_full)
    return (found.group("version") or "").strip("`") if found else ""
