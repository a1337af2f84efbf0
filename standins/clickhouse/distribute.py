"""Plans a SELECT over cluster sources: what each node reads, and the statement over all that they have read.

A source is `cluster(...)`, `clusterAllReplicas(...)` or a Distributed table. Each node gives its rows: the columns that
the SELECT names, FINAL applied and, where the source stands alone, filtered by WHERE. The rest of the SELECT (grouping,
joins, windows, order) is done over these rows by the node that was asked, so every aggregate is exact.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from standins.clickhouse.catalog import Catalog
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.lexer import Token, quote_name, render, split_commas, tokens_of, top_level, unquote
from standins.clickhouse.query import (
    HOST_FUNCTIONS,
    Select,
    Source,
    calls,
    replace_calls,
    replace_source,
    rewrite_queries,
    sources,
    split_clauses,
)

_VIRTUAL = ("_database", "_table", "_part", "_partition_id", "_shard_num")
_HOST = "_sandbox_host"
"""Column with the name of the node that a row comes from, where the SELECT asks for hostName()."""


@dataclass(frozen=True)
class RemoteRead:
    """One read that goes to nodes. `place` stands in later statements where its answer belongs."""

    place: str
    sql: str
    all_replicas: bool
    settings: tuple[tuple[str, str], ...] = ()
    """The SELECT's own SETTINGS, as far as they are literals."""


@dataclass
class Plan:
    """Reads in the order in which they must run (a later one may use an earlier one), and the final statement."""

    sql: str = ""
    reads: list[RemoteRead] = field(default_factory=list)


@dataclass(frozen=True)
class _Cluster:
    """A cluster source, resolved: SQL of the table on a node."""

    local: str
    name: str
    """Name that its columns may be qualified with, when it has no alias."""
    all_replicas: bool
    columns: tuple[str, ...] = ()
    """Of a view that names each of its columns; none: they must be asked for."""


class Planner:
    """Makes one Plan. `database` is where unqualified tables live."""

    def __init__(self, catalog: Catalog, cluster: str, database: str) -> None:
        self._catalog = catalog
        self._cluster = cluster
        self._database = database or "default"
        self._plan = Plan()

    def plan(self, tokens: Sequence[Token]) -> Plan:
        """Plan a query expression. Raises ClickHouseError 701 for an unknown cluster."""
        self._plan.sql = rewrite_queries(tokens, self._select)
        return self._plan

    def _select(self, select: Select) -> str:
        found = [(source, self._resolve(source)) for source in sources(select.get("FROM"))]
        remote = [(source, cluster) for source, cluster in found if cluster is not None]
        alone = len(found) == 1 and "ARRAY" not in {token.upper for token in select.get("FROM")}
        filters = [clause for clause in select.clauses if clause.name in ("PREWHERE", "WHERE")]
        filters = filters if alone and not _names_aliases(select) else []
        outer = Select(tuple(clause for clause in select.clauses if clause not in filters))
        by_host = alone and any(calls(clause.tokens, HOST_FUNCTIONS) for clause in outer.clauses)
        tokens = select.get("FROM")
        for source, cluster in reversed(remote):
            name = source.alias or cluster.name
            alias = f" AS {quote_name(name)}" if name else ""
            columns = self._columns(select, cluster) + ([f"hostName() AS {_HOST}"] if by_host else [])
            final = " FINAL" if source.final else ""
            parts = [f"SELECT {', '.join(columns) or '1'} FROM {cluster.local}{alias}{final}"]
            parts += [f"{clause.name} {render(clause.tokens)}" for clause in filters]
            place = self._read(" ".join(parts), cluster.all_replicas, _settings(select))
            tokens = replace_source(tokens, source, place + alias)
        if not remote:
            return select.sql()
        outer = outer.changed("FROM", tokens)
        return (replace_calls(outer, dict.fromkeys(HOST_FUNCTIONS, _HOST)) if by_host else outer).sql()

    def _read(self, sql: str, all_replicas: bool, settings: tuple[tuple[str, str], ...]) -> str:
        """The place of a read. What a statement reads in several places is read once, as one snapshot would be."""
        for read in self._plan.reads:
            if (read.sql, read.all_replicas, read.settings) == (sql, all_replicas, settings):
                return read.place
        place = f"sandbox_read_{uuid.uuid4().hex}"
        self._plan.reads.append(RemoteRead(place, sql, all_replicas, settings))
        return place

    def _columns(self, select: Select, cluster: _Cluster) -> list[str]:
        """The columns that the SELECT may mean: all where it says `*`, else those of the source whose name it has."""
        tokens = select.all_tokens()
        used = {token.name for token in tokens}
        virtual = [name for name in _VIRTUAL if name in used]
        known = dict.fromkeys(cluster.columns, False) or self._catalog.columns(cluster.local, self._database)
        # `count(*)` means no column, `a * b` these two: then there are too many, which does no harm.
        if not known or "COLUMNS" in {token.upper for token in tokens} or _has_star(tokens):
            return ["*", *virtual]
        # A system table under an overlay rule has none of its ALIAS columns; the SELECT's own alias is meant then.
        made = _aliases(select)
        named = [name for name, is_alias in known.items() if name in used and not (is_alias and name in made)]
        return [quote_name(name) for name in named] + virtual

    def _resolve(self, source: Source) -> _Cluster | None:
        function = (source.function or "").lower()
        if function in ("cluster", "clusterallreplicas"):
            return self._function(source, function == "clusterallreplicas")
        if source.table is None:
            return None
        database, table = source.table
        target = self._catalog.target(database or self._database, table)
        if target is None:
            return None
        self._check_cluster(target.cluster)
        return _Cluster(f"{quote_name(target.database)}.{quote_name(target.table)}", table, False)

    def _function(self, source: Source, all_replicas: bool) -> _Cluster:
        arguments = source.arguments()
        if len(arguments) < 2:
            raise ClickHouseError(42, f"Table function '{source.core[0].text}' requires from 2 to 4 parameters")
        self._check_cluster(_plain_name(arguments[0][0]))
        local = arguments[1]
        if len(local) > 1:
            if local[0].upper == "VIEW" and local[1].kind == "opaque":
                # As a subquery it is the same, and the engine analyses it once.
                return _Cluster(local[1].text, "", all_replicas, _named(list(tokens_of(local[1].text[1:-1]))))
            return _Cluster(render(local), str(local[-1].name or ""), all_replicas)
        database, table = self._database, _plain_name(local[0])
        if len(arguments) > 2:
            database, table = table, _plain_name(arguments[2][0])
        return _Cluster(f"{quote_name(database)}.{quote_name(table)}", table, all_replicas)

    def _check_cluster(self, name: str) -> None:
        if name not in (self._cluster, "{cluster}"):
            raise ClickHouseError(701, f"Requested cluster '{name}' not found")


def _plain_name(token: Token) -> str:
    return unquote(token.text) if token.kind == "string" else str(token.name)


def _named(query: Sequence[Token]) -> tuple[str, ...]:
    """The columns of a single SELECT whose every column has its name behind AS; else none."""
    if any(query[index].upper in ("UNION", "EXCEPT", "INTERSECT") for index in top_level(query)):
        return ()
    items = split_commas(split_clauses(query).get("SELECT"))
    names = tuple(item[-1].name for item in items if len(item) > 2 and item[-2].upper == "AS")
    return tuple(name for name in names if name is not None) if len(names) == len(items) else ()


def _aliases(select: Select) -> set[str | None]:
    items = select.get("SELECT")
    return {follows.name for token, follows in pairwise(items) if token.upper == "AS"}


def _names_aliases(select: Select) -> bool:
    """Whether a filter may name something that only the whole SELECT knows: an alias (behind AS), a name of WITH."""
    known = _aliases(select) | {token.name for token in select.get("WITH")}
    used = {token.name for clause in ("PREWHERE", "WHERE") for token in select.get(clause)}
    return bool((known & used) - {None})


def _has_star(tokens: Sequence[Token]) -> bool:
    for index, token in enumerate(tokens):
        around = [*tokens[index - 1 : index], *tokens[index + 1 : index + 2]]
        if token.text == "*" and [neighbour.text for neighbour in around] != ["(", ")"]:
            return True
    return False


def _settings(select: Select) -> tuple[tuple[str, str], ...]:
    pairs = []
    for part in split_commas(select.get("SETTINGS")):
        value = part[2] if len(part) == 3 else None
        if value is not None:
            pairs.append((str(part[0].name), unquote(value.text) if value.kind == "string" else value.text))
    return tuple(pairs)
