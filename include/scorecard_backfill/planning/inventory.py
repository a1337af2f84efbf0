"""Rows of system tables turned into an inventory: which database holds which tables, pairs and volumes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from types import MappingProxyType

from include.scorecard_backfill.foreign import Row
from include.scorecard_backfill.planning.plan import Volume

_PLAIN = re.compile(r"(Replicated|Shared)?MergeTree")
"""Engines without FINAL."""


def tables_by_database(
    rows: Iterable[Row], hosts: Sequence[str], unfit: Mapping[tuple[str, str], str] = MappingProxyType({})
) -> tuple[dict[str, tuple[str, ...]], dict[str, list[str]]]:
    """Return the usable tables of each database, and by database a problem for each one that is not usable.

    ``rows``: host, database, table, engine, partition_key, engine_full. Usable means: a MergeTree on every one of
    ``hosts`` with one partition key. A Distributed table of that name is a problem: DELETE is refused on it. ``unfit``:
    problems that are known of tables by (database, table), such as a column that is missing.
    """
    seen: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        seen[row["database"], row["table"]][row["host"]] = row
    usable: dict[str, list[str]] = defaultdict(list)
    problems: dict[str, list[str]] = defaultdict(list)
    for (database, table), per_host in sorted(seen.items()):
        problem = _table_problem(f"{database}.{table}", per_host, hosts) or unfit.get((database, table), "")
        if problem:
            problems[database].append(problem)
        else:
            usable[database].append(table)
    return {database: tuple(tables) for database, tables in usable.items()}, dict(problems)


def _table_problem(name: str, per_host: Mapping[str, Row], hosts: Sequence[str]) -> str:
    absent = [host for host in hosts if host not in per_host]
    if absent:
        return f"table {name} is missing on {', '.join(absent)}: DELETE ON CLUSTER would fail there"
    engines = {row["engine"] for row in per_host.values()}
    if any(not engine.endswith("MergeTree") for engine in engines):
        return f"table {name} has engine {', '.join(sorted(engines))}: name the local MergeTree table, not a twin of it"
    if len(engines) > 1 or len({row["partition_key"] for row in per_host.values()}) > 1:
        return f"table {name} differs between hosts (engines {', '.join(sorted(engines))}): make them equal first"
    return ""


def without_final(rows: Iterable[Row], tables: Iterable[str]) -> dict[tuple[str, str], str]:
    """Return a sentence for each (database, table) of ``tables`` whose engine cannot be counted FINAL."""
    wanted = set(tables)
    return {
        (row["database"], row["table"]): (
            f"table {row['database']}.{row['table']} has engine {row['engine']}: it keeps every version of a row and"
            " cannot be counted FINAL; a ReplacingMergeTree is needed"
        )
        for row in rows
        if row["table"] in wanted and _PLAIN.fullmatch(row["engine"])
    }


def in_replicated(rows: Iterable[Row], databases: Iterable[Row]) -> dict[tuple[str, str], str]:
    """Return a sentence for each (database, table) of a database of engine Replicated (rows: ``host, database``)."""
    found = {str(row["database"]): str(row["host"]) for row in databases}
    return {
        (row["database"], row["table"]): (
            f"table {row['database']}.{row['table']}: its database has engine Replicated on {found[row['database']]},"
            " which refuses ON CLUSTER: its windows cannot be deleted by this tool"
        )
        for row in rows
        if row["database"] in found
    }


def pairs_by_database(rows: Iterable[Row]) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return the (customer, profile) pairs of each database from rows database, customer_id, profile_id."""
    pairs: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in rows:
        pairs[row["database"]].add((_text(row["customer_id"]), _text(row["profile_id"])))
    return {database: tuple(sorted(found)) for database, found in sorted(pairs.items())}


def _text(value: str | None) -> str:
    """Return a customer or profile; NULL, which no predicate deletes, as a text that the identity guard refuses."""
    return "NULL" if value is None else value


def volumes(rows: Iterable[Row]) -> tuple[Volume, ...]:
    """Return volumes in a stable order from rows database, table, customer_id, profile_id, day, rows, conversations.

    Shards answer for their own rows only, so equal (database, table, pair, day) rows are added up.
    """
    total: dict[tuple[str, str, str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        owner = _text(row["customer_id"]), _text(row["profile_id"])
        entry = total[row["database"], row["table"], *owner, str(row["day"])]
        entry[0] += int(row["rows"])
        entry[1] += int(row["conversations"])
    return tuple(
        Volume(database, table, customer, profile, date.fromisoformat(day), rows_, conversations)
        for (database, table, customer, profile, day), (rows_, conversations) in sorted(total.items())
    )
