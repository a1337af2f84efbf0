"""Names and aggregate calls inside expressions: what turns a distributed aggregation into states and merges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from standins.clickhouse.catalog import Catalog
from standins.clickhouse.lexer import Token, closing, opaque, render, split_commas
from standins.clickhouse.query import Clause, Item, Select

Tokens = list[Token]


@dataclass(frozen=True)
class AggregateCall:
    """One call of an aggregate function; `parameters` is None without a first bracket (`quantile(0.5)(x)`)."""

    function: str
    parameters: str | None
    arguments: str
    tokens: tuple[Token, ...]

    def is_same(self, other: AggregateCall) -> bool:
        """Whether both are written alike."""
        return _same(self.tokens, other.tokens)

    def state(self) -> str:
        """The call that makes the state on a node."""
        return f"{self.function}State{self._parameters()}({self.arguments})"

    def merge(self, column: str) -> str:
        """The call that finishes the states of all nodes."""
        return f"{self.function}Merge{self._parameters()}({column})"

    def _parameters(self) -> str:
        return "" if self.parameters is None else f"({self.parameters})"


def find_aggregates(tokens: Sequence[Token], catalog: Catalog) -> list[AggregateCall]:
    """Different aggregate calls, outermost only, in order of appearance; opaque subqueries are not looked into."""
    calls: list[AggregateCall] = []
    index = 0
    while index < len(tokens):
        call = _call_at(tokens, index, catalog)
        if call is None:
            index += 1
            continue
        if not any(map(call.is_same, calls)):
            calls.append(call)
        index += len(call.tokens)
    return calls


def _call_at(tokens: Sequence[Token], index: int, catalog: Catalog) -> AggregateCall | None:
    token = tokens[index]
    follows = tokens[index + 1] if index + 1 < len(tokens) else None
    if token.kind != "word" or follows is None or follows.text != "(":
        return None
    if index > 0 and tokens[index - 1].text == ".":
        return None
    function = catalog.aggregate(token.text)
    if function is None:
        return None
    end = closing(tokens, index + 1)
    inside = list(tokens[index + 2 : end])
    parameters: str | None = None
    if end + 1 < len(tokens) and tokens[end + 1].text == "(":
        parameters = render(inside)
        start, end = end + 2, closing(tokens, end + 1)
        inside = list(tokens[start:end])
    if inside and inside[0].upper == "DISTINCT":
        function, inside = f"{function}Distinct", inside[1:]
    arguments = "" if [part.text for part in inside] == ["*"] else render(inside)
    return AggregateCall(function, parameters, arguments, tuple(tokens[index : end + 1]))


class Names:
    """Aliases of one SELECT: its projection items and the scalar part of its WITH."""

    def __init__(self, items: Sequence[Item], with_clause: Sequence[Token]) -> None:
        self._aliases = {item.alias: list(item.expression) for item in items if item.alias is not None}
        self.subqueries: Tokens = []
        for part in split_commas(with_clause):
            # `name AS (SELECT ...)` has the query last, `expression AS name` the name.
            if part[-1].kind == "opaque" and len(part) == 3:
                if self.subqueries:
                    self.subqueries.append(Token("op", ","))
                self.subqueries += part
            elif len(part) >= 3 and part[-1].name is not None:
                self._aliases.setdefault(part[-1].name, list(part[:-2]))

    def expand(self, tokens: Sequence[Token], within: str | None = None) -> Tokens:
        """Put the expressions in place of aliases. `within` is the alias whose own expression this is."""
        return self._expand(tokens, frozenset() if within is None else frozenset({within}))

    def _expand(self, tokens: Sequence[Token], closed: frozenset[str]) -> Tokens:
        result: Tokens = []
        index = 0
        while index < len(tokens):
            token = tokens[index]
            if token.text == "{" and token.kind == "op":
                end = closing(tokens, index)
                result += tokens[index : end + 1]
                index = end + 1
                continue
            name = token.name
            if name is None or name in closed or name not in self._aliases or not is_column(tokens, index):
                result.append(token)
            else:
                inner = self._expand(self._aliases[name], closed | {name})
                result += inner if len(inner) == 1 else [Token("op", "("), *inner, Token("op", ")")]
            index += 1
        return result if len(result) != len(tokens) or result != list(tokens) else list(tokens)


def is_column(tokens: Sequence[Token], index: int) -> bool:
    """Whether the identifier at `index` can only be a column: no function, qualifier, alias, type or unit."""
    before = tokens[index - 1] if index else None
    follows = tokens[index + 1] if index + 1 < len(tokens) else None
    if before is not None and (before.text == "." or before.upper == "AS"):
        return False
    if follows is not None and (follows.text in ("(", ".") or follows.kind == "string"):
        return False
    return not (index >= 2 and tokens[index - 2].upper == "INTERVAL")


def substitute(tokens: Sequence[Token], keys: Sequence[Sequence[Token]], calls: Sequence[AggregateCall]) -> str:
    """Text of an expression in the outer statement: keys and aggregate calls become columns of the nodes' answers."""
    choices: list[tuple[Sequence[Token], str]] = [
        (call.tokens, call.merge(f"`_a{number}`")) for number, call in enumerate(calls)
    ]
    choices += [(key, f"`_k{number}`") for number, key in enumerate(keys)]
    choices.sort(key=lambda choice: -len(choice[0]))
    result: Tokens = []
    index = 0
    while index < len(tokens):
        for wanted, text in choices:
            if not _same(tokens[index : index + len(wanted)], wanted):
                continue
            if len(wanted) == 1 and tokens[index].name is not None and not is_column(tokens, index):
                continue
            result.append(opaque(text))
            index += len(wanted)
            break
        else:
            result.append(tokens[index])
            index += 1
    return render(result)


def strip_qualifier(select: Select, qualifier: str | None) -> Select:
    """`t.column` -> `column` for the only source of a SELECT, so that both spellings are one expression."""
    if not qualifier:
        return select
    clauses = []
    for clause in select.clauses:
        if clause.name == "FROM":
            clauses.append(clause)
            continue
        result: Tokens = []
        index = 0
        while index < len(clause.tokens):
            follows = clause.tokens[index + 1 : index + 3]
            if clause.tokens[index].name == qualifier and len(follows) == 2 and follows[0].text == ".":
                result.append(Token(follows[1].kind, follows[1].text))
                index += 3
                continue
            result.append(clause.tokens[index])
            index += 1
        clauses.append(Clause(clause.name, tuple(result)))
    return Select(tuple(clauses))


def _same(left: Sequence[Token], right: Sequence[Token]) -> bool:
    return len(left) == len(right) and all(
        (a.name == b.name if a.name is not None else a.text == b.text) for a, b in zip(left, right, strict=True)
    )
