"""Plans a SELECT over cluster sources: what each node reads, and the statement that joins the answers.

A source is `cluster(...)`, `clusterAllReplicas(...)` or a Distributed table. One source with no join is pushed down
whole: WHERE, columns, ORDER BY with LIMIT, and an aggregation as aggregate states (`countState()` on the nodes,
`countMerge(...)` here), as ClickHouse itself does, so every aggregate is exact. Anything else reads `SELECT *` of each
source and works on that.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from standins.clickhouse.catalog import Catalog
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.lexer import Token, closing, opaque, quote_name, render, split_commas, unquote, words
from standins.clickhouse.query import (
    Clause,
    Item,
    Select,
    Source,
    projection,
    replace_source,
    rewrite_queries,
    sources,
)
from standins.clickhouse.states import AggregateCall, Names, find_aggregates, strip_qualifier, substitute

_MODIFIERS = (("WITH", "TOTALS"), ("WITH", "ROLLUP"), ("WITH", "CUBE"))
_VIRTUAL = ("_database", "_table", "_shard_num", "_part", "_partition_id")


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
        if not remote:
            return select.sql()
        if len(found) == 1 and not _is_complicated(select):
            source, cluster = remote[0]
            for qualifier in (source.alias, cluster.name):
                select = strip_qualifier(select, qualifier)
            if select.has("GROUP BY") or select.has("HAVING") or self._aggregates(select):
                return self._aggregation(select, source, cluster)
            return self._listing(select, source, cluster)
        return self._materialised(select, remote)

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
        name = arguments[0][0]
        self._check_cluster(unquote(name.text) if name.kind == "string" else str(name.name))
        local = arguments[1]
        if len(local) == 1 and len(arguments) > 2:
            table = _plain_name(arguments[2][0])
            return _Cluster(f"{quote_name(_plain_name(local[0]))}.{quote_name(table)}", table, all_replicas)
        if len(local) == 1:
            table = _plain_name(local[0])
            return _Cluster(f"{quote_name(self._database)}.{quote_name(table)}", table, all_replicas)
        return _Cluster(render(local), str(local[-1].name or ""), all_replicas)

    def _check_cluster(self, name: str) -> None:
        if name not in (self._cluster, "{cluster}"):
            raise ClickHouseError(701, f"Requested cluster '{name}' not found")

    def _aggregates(self, select: Select) -> list[AggregateCall]:
        tokens: list[Token] = []
        for clause in ("SELECT", "HAVING", "ORDER BY"):
            tokens += select.get(clause)
        return find_aggregates(tokens, self._catalog)

    def _read(self, sql: str, select: Select, cluster: _Cluster) -> str:
        place = f"sandbox_read_{uuid.uuid4().hex}"
        self._plan.reads.append(RemoteRead(place, sql, cluster.all_replicas, _settings(select)))
        return place

    def _inner(self, select: Select, columns: list[str], source: Source, cluster: _Cluster) -> list[str]:
        """The parts of the statement for the nodes up to and including WHERE."""
        parts = [f"WITH {render(select.get('WITH'))}"] if select.get("WITH") else []
        alias = f" AS {quote_name(source.alias)}" if source.alias else ""
        parts.append(f"SELECT {', '.join(columns)}")
        parts.append(f"FROM {cluster.local}{alias}{' FINAL' if source.final else ''}")
        return parts

    def _aggregation(self, select: Select, source: Source, cluster: _Cluster) -> str:
        distinct, items = projection(select.get("SELECT"))
        names = Names(items, select.get("WITH"))
        select = select.changed("WITH", names.subqueries)
        keys, modifiers = self._keys(select, items, names)
        expanded = {
            name: [names.expand(part) for part in split_commas(select.get(name))]
            for name in ("HAVING", "ORDER BY", "LIMIT")
        }
        columns = [names.expand(item.expression, item.alias) for item in items]
        parts = [*columns, *(part for listed in expanded.values() for part in listed)]
        calls: list[AggregateCall] = []
        for part in parts:  # one by one: `count()` before `(...)` would read as a call with parameters
            calls += [call for call in find_aggregates(part, self._catalog) if not any(map(call.is_same, calls))]
        place = self._read_states(select, source, cluster, names, keys, calls)
        texts = {
            "FROM": place,
            "GROUP BY": ", ".join(f"`_k{number}`" for number in range(len(keys))) + modifiers,
            "SELECT": ("DISTINCT " if distinct else "")
            + ", ".join(
                f"{substitute(column, keys, calls)} AS {quote_name(item.label)}"
                for column, item in zip(columns, items, strict=True)
            ),
        }
        texts |= {
            name: ", ".join(substitute(part, keys, calls) for part in listed) for name, listed in expanded.items()
        }
        outer = [
            Clause(clause.name, (opaque(texts.get(clause.name, render(clause.tokens))),))
            for clause in select.clauses
            if clause.name not in ("PREWHERE", "WHERE") and (clause.name != "WITH" or clause.tokens)
        ]
        return Select(tuple(outer)).sql()

    def _read_states(
        self,
        select: Select,
        source: Source,
        cluster: _Cluster,
        names: Names,
        keys: Sequence[list[Token]],
        calls: Sequence[AggregateCall],
    ) -> str:
        """Have the nodes make the aggregate states; returns the place of their answer."""
        columns = [f"{render(key)} AS `_k{number}`" for number, key in enumerate(keys)]
        columns += [f"{call.state()} AS `_a{number}`" for number, call in enumerate(calls)]
        inner = self._inner(select, columns, source, cluster)
        for clause in ("PREWHERE", "WHERE"):
            if select.has(clause):
                inner.append(f"{clause} {render(names.expand(select.get(clause)))}")
        if keys:
            inner.append("GROUP BY " + ", ".join(f"`_k{number}`" for number in range(len(keys))))
        return self._read(_with_settings(inner, select), select, cluster)

    def _keys(self, select: Select, items: list[Item], names: Names) -> tuple[list[list[Token]], str]:
        """Expanded GROUP BY expressions, and `WITH TOTALS` or the like as text."""
        tokens = select.get("GROUP BY")
        tail = ""
        for first, second in _MODIFIERS:
            if len(tokens) > 2 and (tokens[-2].upper, tokens[-1].upper) == (first, second):
                tail = f" {first} {second}"
                tokens = tokens[:-2]
        if len(tokens) == 1 and tokens[0].upper == "ALL":
            parts = [list(item.expression) for item in items]
            parts = [part for part in parts if not find_aggregates(names.expand(part), self._catalog)]
        else:
            parts = [
                list(items[int(part[0].text) - 1].expression) if _is_position(part, items) else part
                for part in split_commas(tokens)
            ]
        keys: list[list[Token]] = []
        for part in parts:
            key = _bare(names.expand(part))
            if [token.text for token in key] not in [[token.text for token in known] for known in keys]:
                keys.append(key)
        return keys, tail

    def _listing(self, select: Select, source: Source, cluster: _Cluster) -> str:
        distinct, items = projection(select.get("SELECT"))
        names = Names(items, [])
        parts = split_commas(select.get("ORDER BY"))
        by_all = len(parts) == 1 and parts[0][0].upper == "ALL"
        orders = [] if by_all else [_split_order(_by_position(part, items)) for part in parts]
        limit_by = _split_limit_by(select)
        extras = [f"{render(names.expand(order))} AS `_o{number}`" for number, (order, _) in enumerate(orders)]
        extras += [f"{render(names.expand(part))} AS `_l{number}`" for number, part in enumerate(limit_by[1])]
        outer_orders = [f"`_o{number}` {render(direction)}".strip() for number, (_, direction) in enumerate(orders)]
        if by_all:
            outer_orders = [render(parts[0])]
        columns = [render(select.get("SELECT")[1:] if distinct else select.get("SELECT")), *extras]
        inner = self._inner(select, columns, source, cluster)
        if distinct:
            inner[-2] = inner[-2].replace("SELECT ", "SELECT DISTINCT ", 1)
        inner += [f"{name} {render(select.get(name))}" for name in ("PREWHERE", "WHERE") if select.has(name)]
        bound = _literal_limit(select)
        if bound is not None and not distinct and not limit_by[1]:
            if outer_orders:
                inner.append("ORDER BY " + ", ".join(outer_orders))
            inner.append(f"LIMIT {bound}")
        place = self._read(_with_settings(inner, select), select, cluster)
        star = f"* EXCEPT ({', '.join(extra.rsplit(' AS ', 1)[1] for extra in extras)})" if extras else "*"
        outer = [f"SELECT {'DISTINCT ' if distinct else ''}{star} FROM {place}"]
        if outer_orders:
            outer.append("ORDER BY " + ", ".join(outer_orders))
        if limit_by[1]:
            listed = ", ".join(f"`_l{number}`" for number in range(len(limit_by[1])))
            outer.append(f"LIMIT {render(limit_by[0])} BY {listed}")
        for clause in select.clauses:
            if clause.name in ("LIMIT", "OFFSET", "SETTINGS") and not _has_by(clause.tokens):
                outer.append(f"{clause.name} {render(clause.tokens)}")
        return " ".join(outer)

    def _materialised(self, select: Select, remote: list[tuple[Source, _Cluster]]) -> str:
        """Read each source whole; for joins, window functions and whatever else is not pushed down."""
        used = {token.name for token in select.all_tokens()}
        virtual = [name for name in _VIRTUAL if name in used]
        tokens = select.get("FROM")
        for source, cluster in reversed(remote):
            final = " FINAL" if source.final else ""
            sql = f"SELECT {', '.join(['*', *virtual])} FROM {cluster.local}{final}"
            place = self._read(_with_settings([sql], select), select, cluster)
            alias = source.alias or cluster.name
            text = f"{place} AS {quote_name(alias)}" if alias else place
            tokens = replace_source(tokens, source, text)
        return select.changed("FROM", tokens).sql()


def _bare(tokens: list[Token]) -> list[Token]:
    """Without the brackets around the whole, which an expanded alias brings along; a tuple keeps them."""
    while len(tokens) > 2 and tokens[0].text == "(" and closing(tokens, 0) == len(tokens) - 1:
        if len(split_commas(tokens[1:-1])) > 1:
            break
        tokens = tokens[1:-1]
    return tokens


def _plain_name(token: Token) -> str:
    return unquote(token.text) if token.kind == "string" else str(token.name)


def _is_complicated(select: Select) -> bool:
    tokens = select.all_tokens()
    capitals = {token.upper for token in tokens}
    if capitals & {"OVER", "QUALIFY", "FILTER", "GROUPING", "FILL", "INTERPOLATE", "SAMPLE"}:
        return True
    if "NULLS" in capitals and capitals & {"RESPECT", "IGNORE"}:
        return True
    return select.has("WINDOW") or "ARRAY" in {token.upper for token in select.get("FROM")}


def _settings(select: Select) -> tuple[tuple[str, str], ...]:
    pairs = []
    for part in split_commas(select.get("SETTINGS")):
        value = part[2] if len(part) == 3 else None
        if value is not None:
            pairs.append((str(part[0].name), unquote(value.text) if value.kind == "string" else value.text))
    return tuple(pairs)


def _with_settings(parts: list[str], select: Select) -> str:
    tail = [f"SETTINGS {render(select.get('SETTINGS'))}"] if select.get("SETTINGS") else []
    return " ".join([*parts, *tail])


def _is_position(part: Sequence[Token], items: Sequence[Item]) -> bool:
    return len(part) == 1 and part[0].text.isdigit() and 1 <= int(part[0].text) <= len(items)


def _by_position(part: list[Token], items: Sequence[Item]) -> list[Token]:
    if _is_position(part[:1], items) and (len(part) == 1 or part[1].kind == "word"):
        return [*items[int(part[0].text) - 1].expression, *part[1:]]
    return part


def _split_order(part: list[Token]) -> tuple[list[Token], list[Token]]:
    for index, token in enumerate(part):
        if token.upper in ("ASC", "DESC", "ASCENDING", "DESCENDING", "NULLS", "COLLATE"):
            return part[:index], part[index:]
    return part, []


def _has_by(tokens: Sequence[Token]) -> bool:
    return any(token.upper == "BY" for token in tokens)


def _split_limit_by(select: Select) -> tuple[list[Token], list[list[Token]]]:
    """(n, expressions) of `LIMIT n BY ...`."""
    for clause in select.clauses:
        if clause.name == "LIMIT" and _has_by(clause.tokens):
            at = next(index for index, token in enumerate(clause.tokens) if token.upper == "BY")
            return list(clause.tokens[:at]), split_commas(clause.tokens[at + 1 :])
    return words(""), []


def _literal_limit(select: Select) -> int | None:
    """Rows that every node has to deliver for `LIMIT n [OFFSET m]`; None when that is not a plain number."""
    total = 0
    for clause in select.clauses:
        if clause.name in ("LIMIT", "OFFSET"):
            numbers = [token for token in clause.tokens if token.text not in (",",) and token.upper != "OFFSET"]
            if not all(token.text.isdigit() for token in numbers):
                return None
            total += sum(int(token.text) for token in numbers)
    return total if select.has("LIMIT") else None
