"""Reads the outline of a SELECT: its clauses and sources. Expressions stay token lists."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from standins.clickhouse.lexer import Token, closing, opaque, quote_name, render, split_commas, top_level

Tokens = list[Token]

# Longest first: "GROUP BY" before a bare "GROUP" could match.
_CLAUSES = (
    ("GROUP", "BY"),
    ("ORDER", "BY"),
    ("SELECT",),
    ("FROM",),
    ("PREWHERE",),
    ("WHERE",),
    ("HAVING",),
    ("WINDOW",),
    ("QUALIFY",),
    ("LIMIT",),
    ("OFFSET",),
    ("SETTINGS",),
    ("FORMAT",),
    ("INTO",),
)
_SET_WORDS = ("UNION", "EXCEPT", "INTERSECT")
_JOIN_WORDS = frozenset(
    [
        "JOIN",
        "INNER",
        "LEFT",
        "RIGHT",
        "FULL",
        "OUTER",
        "CROSS",
        "ANY",
        "ALL",
        "ASOF",
        "SEMI",
        "ANTI",
        "GLOBAL",
        "LOCAL",
        "PASTE",
        "NATURAL",
        "ON",
        "USING",
        "ARRAY",
    ]
)
_NOT_ALIAS = _JOIN_WORDS | {"FINAL", "SAMPLE", "AS", "OFFSET", "WHERE", "UNION", "SETTINGS", "FORMAT"}
HOST_FUNCTIONS = frozenset({"hostname", "fqdn", "fullhostname"})


@dataclass(frozen=True)
class Clause:
    """One clause; `name` in capitals with one blank ("GROUP BY"), `tokens` what stands behind it."""

    name: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Select:
    """Clauses of one SELECT in the order they were written."""

    clauses: tuple[Clause, ...]

    def get(self, name: str) -> Tokens:
        """Tokens of the first clause with that name; empty when there is none."""
        return next((list(clause.tokens) for clause in self.clauses if clause.name == name), [])

    def has(self, name: str) -> bool:
        """Whether the clause is there."""
        return any(clause.name == name for clause in self.clauses)

    def all_tokens(self) -> Tokens:
        """Every token of every clause."""
        return [token for clause in self.clauses for token in clause.tokens]

    def changed(self, name: str, tokens: Sequence[Token]) -> Select:
        """The same SELECT with the tokens of one clause replaced."""
        return Select(tuple(Clause(name, tuple(tokens)) if clause.name == name else clause for clause in self.clauses))

    def sql(self) -> str:
        """Text of the whole SELECT."""
        return " ".join(f"{clause.name} {render(clause.tokens)}" for clause in self.clauses)


@dataclass(frozen=True)
class Source:
    """One table expression of a FROM clause; `start` and `end` (exclusive) are places in the clause's tokens."""

    core: tuple[Token, ...]
    alias: str | None
    final: bool
    start: int
    end: int

    @property
    def function(self) -> str | None:
        """Name of the table function; None for a plain table."""
        if len(self.core) > 1 and self.core[1].text == "(":
            return self.core[0].name
        return None

    @property
    def table(self) -> tuple[str | None, str] | None:
        """(database or None, table); None when it is a function or a subquery."""
        names = [token.name for token in self.core]
        if len(names) == 1 and names[0] is not None:
            return None, names[0]
        if len(names) == 3 and names[0] is not None and names[2] is not None and self.core[1].text == ".":
            return names[0], names[2]
        return None

    def arguments(self) -> list[Tokens]:
        """Arguments of the table function."""
        return split_commas(self.core[2:-1])


def is_query(tokens: Sequence[Token]) -> bool:
    """Whether these tokens begin a SELECT (perhaps in brackets, perhaps with WITH)."""
    index = 0
    while index < len(tokens) and tokens[index].text == "(":
        index += 1
    return index < len(tokens) and tokens[index].upper in ("SELECT", "WITH")


def rewrite_queries(tokens: Sequence[Token], rewrite: Callable[[Select], str]) -> str:
    """Rewrite every SELECT of a query expression, innermost first. The result is SQL text."""
    parts: list[str] = []
    for part, joint in _set_parts(list(tokens)):
        if part and part[0].text == "(" and closing(part, 0) == len(part) - 1:
            parts.append(f"({rewrite_queries(part[1:-1], rewrite)})")
        else:
            parts.append(rewrite(split_clauses(fold(part, rewrite))))
        if joint:
            parts.append(render(joint))
    return " ".join(parts)


def fold(tokens: Sequence[Token], rewrite: Callable[[Select], str]) -> Tokens:
    """Replace each bracketed subquery by one opaque token that holds its rewritten text."""
    result: Tokens = []
    index = 0
    while index < len(tokens):
        token = tokens[index]
        if token.text == "(" and token.kind == "op" and is_query(tokens[index + 1 : index + 20]):
            end = closing(tokens, index)
            result.append(opaque(f"({rewrite_queries(tokens[index + 1 : end], rewrite)})"))
            index = end
        else:
            result.append(token)
        index += 1
    return result


def _set_parts(tokens: Tokens) -> list[tuple[Tokens, Tokens]]:
    """Split at UNION, EXCEPT and INTERSECT: (query, the words that join it to the next)."""
    parts: list[tuple[Tokens, Tokens]] = []
    begin = 0
    for index in list(top_level(tokens)):
        if index < begin or tokens[index].upper not in _SET_WORDS:
            continue
        end = index + 1
        if end < len(tokens) and tokens[end].upper in ("ALL", "DISTINCT"):
            end += 1
        if is_query(tokens[end : end + 20]):  # `SELECT * EXCEPT (a)` is not a set operation
            parts.append((tokens[begin:index], tokens[index:end]))
            begin = end
    return [*parts, (tokens[begin:], [])]


def split_clauses(tokens: Sequence[Token]) -> Select:
    """Split one SELECT (no set operation at its top level) into clauses."""
    clauses: list[Clause] = []
    name, begin = "", 0
    skip_to = 0
    for index in list(top_level(tokens)):
        if index < skip_to:
            continue
        found = _clause_at(tokens, index, name)
        if found is None:
            continue
        if name or tokens[begin:index]:
            clauses.append(Clause(name, tuple(tokens[begin:index])))
        name = " ".join(found)
        begin = skip_to = index + len(found)
    clauses.append(Clause(name, tuple(tokens[begin:])))
    return Select(tuple(clauses))


def _clause_at(tokens: Sequence[Token], index: int, current: str) -> tuple[str, ...] | None:
    if index == 0 and tokens[0].upper == "WITH":
        return ("WITH",)
    before = tokens[index - 1] if index else None
    if before is not None and (before.text == "." or before.upper == "AS"):
        return None
    if current == "SETTINGS" and [token.text for token in tokens[index + 1 : index + 2]] == ["="]:
        return None
    for words in _CLAUSES:
        if tuple(token.upper for token in tokens[index : index + len(words)]) == words:
            if words == ("FORMAT",) and not _is_format(tokens, index):
                return None
            if words == ("SETTINGS",) and not _is_settings(tokens, index):
                return None
            if words == ("SELECT",) and current not in ("", "WITH"):
                return None
            return words
    return None


def _is_format(tokens: Sequence[Token], index: int) -> bool:
    follows = tokens[index + 1 : index + 3]
    return bool(follows) and follows[0].kind == "word" and (len(follows) == 1 or follows[1].upper == "SETTINGS")


def _is_settings(tokens: Sequence[Token], index: int) -> bool:
    follows = tokens[index + 1 : index + 3]
    return len(follows) == 2 and follows[0].name is not None and follows[1].text == "="


def calls(tokens: Sequence[Token], names: Collection[str]) -> list[int]:
    """Where these functions (in small letters) are called without arguments."""
    return [
        index
        for index, token in enumerate(tokens)
        if token.kind == "word"
        and token.text.lower() in names
        and [follows.text for follows in tokens[index + 1 : index + 3]] == ["(", ")"]
        and (index == 0 or tokens[index - 1].text != ".")
    ]


def replace_calls(select: Select, texts: Mapping[str, str]) -> Select:
    """The SELECT with calls without arguments replaced by SQL; a column that is only such a call keeps its name."""
    clauses = []
    for clause in select.clauses:
        tokens = list(clause.tokens)
        for index in reversed(calls(tokens, texts)):
            text = texts[tokens[index].text.lower()]
            before, follows = tokens[index - 1 : index], tokens[index + 3 : index + 4]
            begins = not before or before[0].text == "," or before[0].upper == "DISTINCT"
            if clause.name == "SELECT" and begins and (not follows or follows[0].text == ","):
                text += f" AS {quote_name(tokens[index].text + '()')}"
            tokens[index : index + 3] = [replace(opaque(text), space=tokens[index].space)]
        clauses.append(Clause(clause.name, tuple(tokens)))
    return Select(tuple(clauses))


def sources(tokens: Sequence[Token]) -> list[Source]:
    """Table expressions of a FROM clause whose subqueries are already opaque."""
    found: list[Source] = []
    index, expected = 0, True
    while index < len(tokens):
        token = tokens[index]
        if expected and token.upper not in _JOIN_WORDS and token.text != "(":
            source = _source_at(tokens, index)
            found.append(source)
            index, expected = source.end, False
            continue
        if token.text == "," or (token.upper == "JOIN" and not _is_array_join(tokens, index)):
            expected = True
        elif token.text == "(" and not expected:
            index = closing(tokens, index)
        index += 1
    return found


def _is_array_join(tokens: Sequence[Token], index: int) -> bool:
    return index > 0 and tokens[index - 1].upper == "ARRAY"


def _source_at(tokens: Sequence[Token], start: int) -> Source:
    end = start + 1
    if tokens[start].name is not None and end < len(tokens) and tokens[end].text == "(":
        end = closing(tokens, end) + 1
    elif end + 1 < len(tokens) and tokens[end].text == ".":
        end += 2
    core = tuple(tokens[start:end])
    alias: str | None = None
    final = False
    while end < len(tokens):
        token = tokens[end]
        if token.upper == "FINAL":
            final = True
        elif token.upper == "AS" and end + 1 < len(tokens):
            end += 1
            alias = tokens[end].name
        elif token.name is not None and alias is None and token.upper not in _NOT_ALIAS:
            alias = token.name
        else:
            break
        end += 1
    return Source(core, alias, final, start, end)


def replace_source(tokens: Sequence[Token], source: Source, text: str) -> Tokens:
    """The FROM clause with one source's table expression (alias and FINAL included) replaced by SQL text."""
    middle = replace(opaque(text), space=True)
    return [*tokens[: source.start], middle, *tokens[source.end :]]
