"""Puts rows of other nodes in place of what a query reads from them.

A source is `cluster(...)`, `clusterAllReplicas(...)` or a Distributed table. Each node gives its rows: the columns that
the SELECT names, FINAL applied and, where the source stands alone, filtered by WHERE. The rest of the SELECT (grouping,
joins, windows, order) is done over these rows by the node that was asked, so every aggregate is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlglot import exp

from standins.clickhouse.catalog import Catalog
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.sqltext import HOST_FUNCTIONS, quote_name, replace_calls, settings_of, sql_of

SHARD_NUMBER = "sandbox_shard_number"
"""Stands in a read for the number of the group (from 1) that is asked."""
_VIRTUAL = {
    **{name: name for name in ("_database", "_table", "_part", "_partition_id")},
    "_shard_num": f"{SHARD_NUMBER} AS _shard_num",
}
_HOST = "_sandbox_host"
"""Column with the name of the node that a row comes from, where the SELECT asks for hostName()."""


@dataclass(frozen=True)
class RemoteRead:
    """One read that goes to nodes."""

    sql: str
    all_replicas: bool
    settings: tuple[tuple[str, str], ...] = ()
    """The SETTINGS of the SELECT and of the queries around it."""


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
    """Resolves one query. `database` is where unqualified tables live; `fetch` gives SQL for the rows of a read."""

    def __init__(self, catalog: Catalog, cluster: str, database: str, fetch: Callable[[RemoteRead], str]) -> None:
        self._catalog = catalog
        self._cluster = cluster
        self._database = database or "default"
        self._fetch = fetch
        self._fetched: dict[RemoteRead, str] = {}

    def resolve(self, query: exp.Query) -> bool:
        """Change the tree; whether there was a cluster source. Raises ClickHouseError 701 for an unknown cluster."""
        # The innermost ones first: what is read outside may use what was read inside.
        resolved = [self._select(select) for select in reversed(list(query.find_all(exp.Select)))]
        return any(resolved)

    def _select(self, select: exp.Select) -> bool:
        tables = [table for table in _tables(select) if isinstance(table, exp.Table)]
        remote = [(table, cluster) for table in tables if (cluster := self._resolve(table)) is not None]
        if not remote:
            return False
        alone = not select.args.get("joins")
        nodes = list(_own_nodes(select))
        filters = [select.args[name] for name in ("prewhere", "where") if select.args.get(name)] if alone else []
        # What only the whole SELECT knows: an alias, a name of WITH.
        if _name_any(filters, {node.alias for node in nodes if isinstance(node, exp.Alias | exp.CTE)}):
            filters = []
        for table, cluster in remote:
            columns = self._columns(nodes, cluster)
            for part in filters:
                part.pop()
            if alone and replace_calls(_own_nodes(select), dict.fromkeys(HOST_FUNCTIONS, _HOST)):
                columns.append(f"hostName() AS {_HOST}")
            self._read(select, table, cluster, columns, filters)
        return True

    def _read(
        self, select: exp.Select, table: exp.Table, cluster: _Cluster, columns: list[str], filters: list[exp.Expr]
    ) -> None:
        """Put the rows in the table's place. What is read in several places is read once, as by one snapshot."""
        name = table.alias or cluster.name
        parts = [f"SELECT {', '.join(columns) or '1'} FROM {cluster.local}"]
        parts += [f"AS {quote_name(name)}"] if name else []
        parts += ["FINAL"] if isinstance(table.parent, exp.Final) else []
        parts += [sql_of(part).strip() for part in filters]
        settings: dict[str, str] = {}
        for query in (select, *_around(select)):
            settings = settings_of(query) | settings
        read = RemoteRead(" ".join(parts), cluster.all_replicas, tuple(settings.items()))
        if read not in self._fetched:
            self._fetched[read] = self._fetch(read)
        alias = exp.TableAlias(this=exp.to_identifier(name, quoted=True)) if name else None
        place = table.parent if isinstance(table.parent, exp.Final) else table
        place.replace(exp.Table(this=exp.Var(this=self._fetched[read]), alias=alias))

    def _columns(self, nodes: list[exp.Expr], cluster: _Cluster) -> list[str]:
        """The columns that the SELECT may mean: all where it says `*`, else those of the source whose name it has."""
        used = {node.name for node in nodes if isinstance(node, exp.Identifier)}
        virtual = [sql for name, sql in _VIRTUAL.items() if name in used]
        known = dict.fromkeys(cluster.columns, False) or self._catalog.columns(cluster.local, self._database)
        if not known or any(isinstance(node, exp.Columns) or _is_star(node) for node in nodes):
            return ["*", *virtual]
        # A system table under an overlay rule has none of its ALIAS columns; the SELECT's own alias is meant then.
        made = {node.alias for node in nodes if isinstance(node, exp.Alias)}
        named = [name for name, is_alias in known.items() if name in used and not (is_alias and name in made)]
        return [quote_name(name) for name in named] + virtual

    def _resolve(self, table: exp.Table) -> _Cluster | None:
        if isinstance(table.this, exp.AnonymousAggFunc):
            function = table.this.name.lower()
            if function not in ("cluster", "clusterallreplicas"):
                return None
            return self._function(table.this, function == "clusterallreplicas")
        target = self._catalog.target(table.db or self._database, table.name)
        if target is None:
            return None
        self._check_cluster(target.cluster)
        return _Cluster(f"{quote_name(target.database)}.{quote_name(target.table)}", table.name, False)

    def _function(self, function: exp.Expr, all_replicas: bool) -> _Cluster:
        arguments = function.expressions
        if len(arguments) < 2:
            raise ClickHouseError(42, f"Table function '{function.name}' requires from 2 to 4 parameters")
        self._check_cluster(arguments[0].name)
        local = arguments[1]
        if isinstance(local, exp.AnonymousAggFunc):
            if local.name.lower() == "view":
                # As a subquery it is the same, and the engine analyses it once.
                (query,) = local.expressions
                return _Cluster(f"({sql_of(query)})", "", all_replicas, _named(query))
            return _Cluster(sql_of(local), "", all_replicas)
        if len(arguments) == 2 and local.args.get("table"):
            return _Cluster(sql_of(local), local.name, all_replicas)
        database, name = (self._database, local.name) if len(arguments) == 2 else (local.name, arguments[2].name)
        return _Cluster(f"{quote_name(database)}.{quote_name(name)}", name, all_replicas)

    def _check_cluster(self, name: str) -> None:
        if name not in (self._cluster, "{cluster}"):
            raise ClickHouseError(701, f"Requested cluster '{name}' not found")


def _tables(select: exp.Select) -> Iterator[exp.Expr]:
    sources = [select.args["from_"]] if select.args.get("from_") else []
    for source in [*sources, *(select.args.get("joins") or [])]:
        yield source.this.this if isinstance(source.this, exp.Final) else source.this


def _own_nodes(select: exp.Select) -> Iterator[exp.Expr]:
    """What is written in a SELECT itself, without its subqueries."""
    return select.walk(prune=lambda node: node is not select and isinstance(node, exp.Query))


def _around(select: exp.Select) -> Iterator[exp.Query]:
    query = select.find_ancestor(exp.Query)
    while query is not None:
        yield query
        query = query.find_ancestor(exp.Query)


def _named(query: exp.Expr) -> tuple[str, ...]:
    """The columns of a single SELECT whose every column has its name behind AS; else none."""
    columns = query.expressions if isinstance(query, exp.Select) else []
    return tuple(item.alias for item in columns) if all(isinstance(item, exp.Alias) for item in columns) else ()


def _name_any(filters: list[exp.Expr], names: set[str]) -> bool:
    return any(found.name in names for part in filters for found in part.find_all(exp.Identifier))


def _is_star(node: exp.Expr) -> bool:
    """Whether all columns are meant: `*` anywhere but in `count(*)`."""
    return isinstance(node, exp.Star) and not (
        isinstance(node.parent, exp.AnonymousAggFunc) and node.parent.name.lower() == "count"
    )
