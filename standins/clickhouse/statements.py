"""What kind of statement a client sent, and its parts: table, ON CLUSTER, FORMAT, SETTINGS, data of an INSERT."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.lexer import Token, render, split_commas, tokens_of, top_level, unquote

QUERY_WORDS = frozenset({"SELECT", "WITH", "("})
_MUTATING = (
    ("DELETE",),
    ("UPDATE",),
    ("MATERIALIZE",),
    ("CLEAR",),
    ("MODIFY", "COLUMN"),
    ("ALTER", "COLUMN"),
    ("RENAME", "COLUMN"),
    ("DROP", "COLUMN"),
    ("DROP", "INDEX"),
    ("DROP", "PROJECTION"),
)
"""ALTER commands that leave a row in system.mutations."""
HEAD_BYTES = 65_536
"""An INSERT's statement (before its data) must end within this many bytes."""
_BEFORE_DATA = re.compile(r"[ \t\f]*(?:\r?\n)?")


@dataclass(frozen=True)
class Statement:
    """One statement that is no INSERT. `tokens` are without ON CLUSTER, FORMAT and a closing semicolon."""

    verb: str
    """First word in capitals (`(` for a bracketed SELECT)."""
    tokens: tuple[Token, ...]
    cluster: str | None = None
    format: str | None = None
    table: tuple[str | None, str] | None = None
    """(database or None, table) that an ALTER, DELETE, TRUNCATE or OPTIMIZE names."""
    settings: dict[str, str] = field(default_factory=dict)
    """Its own SETTINGS clause, which is not part of `tokens` then (kept in a SELECT and in a CREATE)."""

    @property
    def is_query(self) -> bool:
        """Whether it is a SELECT in any form."""
        return self.verb in QUERY_WORDS

    @property
    def is_ddl(self) -> bool:
        """Whether it changes something (and is recorded by default)."""
        return not self.is_query and self.verb not in ("SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "CHECK")

    @property
    def is_mutation(self) -> bool:
        """Whether it leaves a row in system.mutations."""
        if self.verb != "ALTER":
            return self.verb == "DELETE"
        words = tuple(token.upper for token in self.command[:2])
        return any(words[: len(known)] == known for known in _MUTATING)

    @property
    def keeps_columns(self) -> bool:
        """Whether it changes rows only, if anything: the tables and their columns stay as they are."""
        if self.verb != "ALTER":
            return self.is_query or self.verb in ("DELETE", "TRUNCATE", "OPTIMIZE")
        words = [token.upper for token in self.command[:2]]
        return words[:1] in (["DELETE"], ["UPDATE"]) or words in (["DROP", "PARTITION"], ["DROP", "PART"])

    @property
    def command(self) -> tuple[Token, ...]:
        """Tokens after the table's name (the commands of an ALTER)."""
        if self.table is None:
            return ()
        return self.tokens[_after_table(self.tokens) :]

    def text(self) -> str:
        """SQL for one node."""
        return render(self.tokens)


@dataclass(frozen=True)
class Insert:
    """One INSERT: target, columns as written (with brackets, or empty), and where its rows come from."""

    table: tuple[str | None, str]
    target: str
    columns: str
    settings: str
    """Text of its SETTINGS clause without the word."""
    format: str | None
    """Format of the data that follow; None for INSERT ... SELECT."""
    query: tuple[Token, ...] = ()
    data: bytes = b""


def is_insert(raw: bytes) -> bool:
    """Whether a request is an INSERT (comments in front are skipped)."""
    first = next(tokens_of(_head(raw)), None)
    return first is not None and first.upper == "INSERT"


@lru_cache(maxsize=256)
def parse(text: str) -> Statement:
    """Read a statement: the record, the fault rules and who carries it out all ask for the same one.

    Raises ClickHouseError 62 for no statement, several, or an open quote or bracket.
    """
    tokens = list(tokens_of(text))
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    if not tokens:
        raise ClickHouseError(62, "Syntax error: Empty query.")
    if any(tokens[index].text == ";" and tokens[index].kind == "op" for index in top_level(tokens)):
        raise ClickHouseError(62, "Syntax error: Multi-statements are not allowed.")
    verb = "(" if tokens[0].text == "(" else tokens[0].upper
    tokens, fmt = _cut_format(tokens)
    if verb == "SYSTEM" and fmt is not None:
        raise ClickHouseError(62, f"Syntax error: failed at FORMAT {fmt}: SYSTEM takes no FORMAT.")
    if verb in QUERY_WORDS:
        return Statement(verb, tuple(tokens), format=fmt)
    tokens, cluster = _cut_cluster(tokens)
    settings: dict[str, str] = {}
    if verb in ("ALTER", "DELETE", "TRUNCATE", "OPTIMIZE", "DROP", "UPDATE"):
        tokens, settings = _cut_settings(tokens)
    return Statement(verb, tuple(tokens), cluster, fmt, _table(verb, tokens), settings)


def parse_insert(raw: bytes) -> Insert:
    """Read an INSERT; its data begin after the format's name, blanks and one line break.

    Raises ClickHouseError 62 when it cannot be read.
    """
    head = _head(raw)
    reader = _Reader(head)
    reader.expect("INSERT")
    reader.expect("INTO")
    reader.accept("TABLE")
    target = reader.name()
    columns = reader.brackets()
    settings = reader.settings() if reader.accept("SETTINGS") else ""
    table = _split_name(target)
    if reader.peek() in QUERY_WORDS:
        statement = parse(raw[len(head[: reader.position].encode("utf-8", "surrogateescape")) :].decode())
        return Insert(table, target, columns, settings, None, statement.tokens)
    fmt = reader.format()
    blanks = _BEFORE_DATA.match(head, reader.end)
    start = reader.end if blanks is None else blanks.end()
    data = raw[len(head[:start].encode("utf-8", "surrogateescape")) :]
    return Insert(table, target, columns, settings, fmt, (), data)


def insert_head(raw: bytes) -> str:
    """The text of an INSERT without the data behind it (a SELECT behind it is kept)."""
    insert = parse_insert(raw)
    return raw[: len(raw) - len(insert.data)].decode(errors="replace").strip()


class _Reader:
    """Walks over the lazily read tokens of an INSERT's head."""

    def __init__(self, head: str) -> None:
        self._tokens = tokens_of(head)
        self._next = next(self._tokens, None)
        self.end = 0

    @property
    def position(self) -> int:
        """Where the next token starts."""
        return self._next.start if self._next is not None else self.end

    def peek(self) -> str:
        """The next token in capitals, or its text when it is no word."""
        return "" if self._next is None else self._next.upper or self._next.text

    def take(self) -> Token:
        """The next token. Raises ClickHouseError 62 at the end."""
        token = self._next
        if token is None:
            raise ClickHouseError(62, "Syntax error: the INSERT ends too early.")
        self.end = token.end
        # The data behind FORMAT or VALUES is not SQL: do not read ahead into it.
        self._next = None if token.upper in ("VALUES", "FORMAT") else next(self._tokens, None)
        return token

    def accept(self, word: str) -> bool:
        """Take the word if it comes next."""
        if self.peek() == word:
            self.take()
            return True
        return False

    def expect(self, word: str) -> None:
        """Take the word. Raises ClickHouseError 62."""
        if not self.accept(word):
            raise ClickHouseError(62, f"Syntax error: failed at position {self.position + 1}: expected {word}.")

    def name(self) -> str:
        """A table name with or without database."""
        parts = [self.take().text]
        while self.accept("."):
            parts += [".", self.take().text]
        return "".join(parts)

    def brackets(self) -> str:
        """Text of a bracketed list that comes next; empty when none does."""
        if self.peek() != "(":
            return ""
        tokens, depth = [], 0
        while True:
            token = self.take()
            tokens.append(token)
            depth += {"(": 1, ")": -1}.get(token.text, 0) if token.kind == "op" else 0
            if depth == 0:
                return render(tokens)

    def settings(self) -> str:
        """Text of `a = 1, b = 2`."""
        tokens = []
        while self.peek() not in ("FORMAT", "VALUES", "SELECT", "WITH", ""):
            tokens.append(self.take())
        return render(tokens)

    def format(self) -> str:
        """Take `FORMAT name` or `VALUES`."""
        if self.accept("VALUES"):
            return "Values"
        self.expect("FORMAT")
        name = next(self._tokens, None)
        if name is None or name.kind != "word":
            raise ClickHouseError(62, "Syntax error: expected the name of a format after FORMAT.")
        self.end = name.end
        return "Values" if name.upper == "VALUES" else name.text


def _head(raw: bytes) -> str:
    return raw[:HEAD_BYTES].decode("utf-8", "surrogateescape")


def _cut_format(tokens: list[Token]) -> tuple[list[Token], str | None]:
    for index in reversed(range(1, len(tokens) - 1)):
        follows = tokens[index + 2 : index + 3]
        named = tokens[index].upper == "FORMAT" and tokens[index + 1].kind == "word"
        if named and (not follows or follows[0].upper == "SETTINGS"):
            return tokens[:index] + tokens[index + 2 :], tokens[index + 1].text
    return tokens, None


def _cut_cluster(tokens: list[Token]) -> tuple[list[Token], str | None]:
    for index in top_level(tokens):
        if tokens[index].upper == "ON" and index + 2 < len(tokens) and tokens[index + 1].upper == "CLUSTER":
            token = tokens[index + 2]
            name = unquote(token.text) if token.kind == "string" else token.name
            if name is None:
                raise ClickHouseError(62, f"Syntax error: {token.text} cannot be the name of a cluster.")
            return tokens[:index] + tokens[index + 3 :], name
    return tokens, None


def _cut_settings(tokens: list[Token]) -> tuple[list[Token], dict[str, str]]:
    for index in top_level(tokens):
        if (
            index
            and tokens[index].upper == "SETTINGS"
            and [token.text for token in tokens[index + 2 : index + 3]] == ["="]
        ):
            return tokens[:index], read_settings(tokens[index + 1 :])
    return tokens, {}


def read_settings(tokens: Sequence[Token]) -> dict[str, str]:
    """Values of `a = 1, b = 'x'`; strings without their quotes."""
    values = {}
    for part in split_commas(tokens):
        text = render(part[2:])
        values[str(part[0].name)] = unquote(text) if part[2:] and part[2].kind == "string" else text
    return values


def written_settings(tokens: Sequence[Token]) -> dict[str, str]:
    """Values of `name = value` behind any SETTINGS of a query, subqueries included; only plain values are seen."""
    found: dict[str, str] = {}
    inside = False
    for index, token in enumerate(tokens[:-2]):
        if token.upper == "SETTINGS":
            inside = True
        elif token.text == ")" or token.upper in ("SELECT", "FORMAT"):
            inside = False
        if inside and token.name is not None and tokens[index + 1].text == "=":
            value = tokens[index + 2]
            found[token.name] = unquote(value.text) if value.kind == "string" else value.text
    return found


def _table(verb: str, tokens: Sequence[Token]) -> tuple[str | None, str] | None:
    if verb not in ("ALTER", "DELETE", "TRUNCATE", "OPTIMIZE"):
        return None
    start, end = _table_place(tokens)
    return _split_name(render(tokens[start:end]).replace(" ", "")) if end > start else None


def _table_place(tokens: Sequence[Token]) -> tuple[int, int]:
    """Where the table's name stands: (start, end), after ALTER TABLE, DELETE FROM and the like."""
    start = 1
    skipped = ("TABLE", "FROM", "IF", "EXISTS", "TEMPORARY")
    while start < len(tokens) and tokens[start].upper in skipped:
        start += 1
    if start >= len(tokens) or tokens[start].name is None or tokens[start].upper in ("DATABASE", "USER", "ROLE"):
        return start, start
    end = start + 1
    if end + 1 < len(tokens) and tokens[end].text == ".":
        end += 2
    return start, end


def _after_table(tokens: Sequence[Token]) -> int:
    return _table_place(tokens)[1]


def _split_name(text: str) -> tuple[str | None, str]:
    names = [token.name for token in tokens_of(text) if token.text != "."]
    if not names or any(name is None for name in names):
        raise ClickHouseError(62, f"Syntax error: {text} cannot be the name of a table.")
    return (None if len(names) == 1 else names[0]), str(names[-1])


def without_effect(tokens: Sequence[Token]) -> str:
    """The statement with its (last) WHERE made false: it does all that it did before, to no row."""
    places = [index for index in top_level(tokens) if tokens[index].upper == "WHERE"]
    if not places:
        raise ClickHouseError(36, f"no WHERE in {render(tokens)}: it cannot be made to leave its rows")
    head, condition = tokens[: places[-1] + 1], tokens[places[-1] + 1 :]
    return f"{render(head)} 0 AND ({render(condition)})"
