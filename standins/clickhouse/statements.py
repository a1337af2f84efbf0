"""What kind of statement a client sent, and its parts: table, ON CLUSTER, FORMAT, SETTINGS, data of an INSERT."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from sqlglot import Token, TokenType

from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.sqltext import read_settings, tokens_of

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
_CHANGES_OF_TABLES = frozenset({"ALTER", "DELETE", "TRUNCATE", "OPTIMIZE"})
_BEFORE_NAME = frozenset({"TABLE", "DATABASE", "FROM", "IF", "EXISTS", "TEMPORARY", "FLUSH", "DISTRIBUTED"})
HEAD_BYTES = 65_536
"""An INSERT's statement (before its data) must end within this many bytes."""
_NAME = rb'(?:`(?:[^`\\]|\\.)+`|"(?:[^"\\]|\\.)+"|[A-Za-z_]\w*)'
_INSERT_WORD = re.compile(rb"(?:\s|--[^\n]*\n|/\*.*?\*/)*INSERT\b", re.IGNORECASE | re.DOTALL)
_INSERT = re.compile(
    rb"\s+INTO\s+(?:TABLE\s+)?(?P<table>" + _NAME + rb"(?:\s*\.\s*" + _NAME + rb")?)"
    rb"\s*(?P<columns>\([^()]*\))?\s*(?:SETTINGS\s+(?P<settings>.*?)\s+)?"
    rb"(?:FORMAT\s+(?P<format>\w+)|(?P<values>VALUES)\b|(?=SELECT\b|WITH\b))"
    # The data begin behind blanks and one line break.
    rb"[ \t\f]*(?:\r?\n)?",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Statement:
    """One statement that is no INSERT. `text` and `words` are without ON CLUSTER, FORMAT and a closing semicolon."""

    text: str
    words: tuple[str, ...]
    """Texts of its tokens; names and strings without their quotes."""
    cluster: str | None = None
    format: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    """SETTINGS of a statement that changes a table, which are not part of the text then."""

    @property
    def verb(self) -> str:
        """First word in capitals (`(` for a bracketed SELECT)."""
        return self.words[0].upper()

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
        return any(self.command[: len(known)] == known for known in _MUTATING)

    @property
    def changes_table(self) -> bool:
        """Whether it changes one table, which `table` names."""
        return self.verb in _CHANGES_OF_TABLES

    @property
    def keeps_columns(self) -> bool:
        """Whether it changes rows only, if anything: the tables and their columns stay as they are."""
        if self.verb != "ALTER":
            return self.is_query or self.changes_table
        return self.command[:1] in (("DELETE",), ("UPDATE",)) or self.command[:2] == ("DROP", "PARTITION")

    @property
    def table(self) -> tuple[str | None, str]:
        """(database or None, name) of what an ALTER, DELETE, DROP, SYSTEM FLUSH DISTRIBUTED and the like names."""
        start, end = self._name_place()
        return (self.words[start] if end - start > 1 else None), self.words[end - 1]

    @property
    def command(self) -> tuple[str, ...]:
        """The two words behind the table's name in capitals: which command of an ALTER it is."""
        end = self._name_place()[1]
        return tuple(word.upper() for word in self.words[end : end + 2])

    def starts_with(self, words: str) -> bool:
        """Whether these are its first words."""
        wanted = words.split()
        return [word.upper() for word in self.words[: len(wanted)]] == wanted

    def _name_place(self) -> tuple[int, int]:
        start = min(1, len(self.words) - 1)
        while start < len(self.words) - 1 and self.words[start].upper() in _BEFORE_NAME:
            start += 1
        return start, start + (3 if self.words[start + 1 : start + 2] == (".",) else 1)


@dataclass(frozen=True)
class Insert:
    """One INSERT: target, columns as written (with brackets, or empty), and where its rows come from."""

    table: tuple[str | None, str]
    target: str
    columns: str
    settings: dict[str, str]
    format: str | None
    """Format of the data that follow; None for INSERT ... SELECT."""
    query: str = ""
    data: bytes = b""


def is_insert(raw: bytes) -> bool:
    """Whether a request is an INSERT (comments in front are skipped)."""
    return _INSERT_WORD.match(raw, 0, HEAD_BYTES) is not None


@lru_cache(maxsize=256)
def parse(text: str) -> Statement:
    """Read a statement: the record, the fault rules and who carries it out all ask for the same one.

    Raises ClickHouseError 62 for no statement, several, or an open quote.
    """
    tokens = tokens_of(text)
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens.pop()
    if not tokens:
        raise ClickHouseError(62, "Syntax error: Empty query.")
    if any(token.token_type is TokenType.SEMICOLON for token in tokens):
        raise ClickHouseError(62, "Syntax error: Multi-statements are not allowed.")
    verb = tokens[0].text.upper()
    tokens, fmt = _cut_format(tokens)
    cluster, settings = None, ""
    if verb == "SYSTEM" and fmt is not None:
        raise ClickHouseError(62, f"Syntax error: failed at FORMAT {fmt}: SYSTEM takes no FORMAT.")
    if verb not in QUERY_WORDS:
        tokens, cluster = _cut_cluster(tokens)
    if verb in (*_CHANGES_OF_TABLES, "DROP") and (place := _settings_place(tokens)):
        tokens, settings = tokens[:place], _text(text, tokens[place + 1 :])
    words = tuple(token.text for token in tokens)
    return Statement(_text(text, tokens), words, cluster, fmt, read_settings(settings))


def parse_insert(raw: bytes) -> Insert:
    """Read an INSERT; its data begin after the format's name, blanks and one line break.

    Raises ClickHouseError 62 when it cannot be read.
    """
    word = _INSERT_WORD.match(raw)
    found = _INSERT.match(raw, word.end(), HEAD_BYTES) if word else None
    if found is None:
        raise ClickHouseError(62, "Syntax error: expected INSERT INTO a table, and VALUES, FORMAT or SELECT.")
    target, columns, settings, named = (
        (found[part] or b"").decode() for part in ("table", "columns", "settings", "format")
    )
    names = [token.text for token in tokens_of(target) if token.token_type is not TokenType.DOT]
    table = (names[0] if len(names) > 1 else None, names[-1])
    fmt = "Values" if found["values"] or named.upper() == "VALUES" else named or None
    rest = raw[found.end() :]
    query = parse(rest.decode()).text if fmt is None else ""
    return Insert(table, target, columns, read_settings(settings), fmt, query, b"" if fmt is None else rest)


def insert_head(raw: bytes) -> str:
    """The text of an INSERT without the data behind it (a SELECT behind it is kept)."""
    return raw[: len(raw) - len(parse_insert(raw).data)].decode(errors="replace").strip()


def without_effect(text: str) -> str:
    """The statement with its WHERE made false: it does all that it did before, to no row."""
    head, where, condition = re.split(r"(\bWHERE\b)", text, maxsplit=1, flags=re.IGNORECASE)
    return f"{head}{where} 0 AND ({condition.strip()})"


def _text(source: str, tokens: Sequence[Token]) -> str:
    """The text of these tokens, with the blanks between them; one blank where tokens or comments were left out."""
    parts, end = [], 0
    for token in tokens:
        gap = source[end : token.start]
        parts += [" " if gap.strip() else gap, source[token.start : token.end + 1]]
        end = token.end + 1
    return "".join(parts).strip()


def _cut_format(tokens: list[Token]) -> tuple[list[Token], str | None]:
    for index in reversed(range(1, len(tokens) - 1)):
        if tokens[index].token_type is TokenType.FORMAT and tokens[index + 1].text.isidentifier():
            follows = [token.token_type for token in tokens[index + 2 : index + 3]]
            if follows in ([], [TokenType.SETTINGS]):
                return tokens[:index] + tokens[index + 2 :], tokens[index + 1].text
    return tokens, None


def _cut_cluster(tokens: list[Token]) -> tuple[list[Token], str | None]:
    for index in range(len(tokens) - 2):
        if tokens[index].token_type is TokenType.ON and tokens[index + 1].text.upper() == "CLUSTER":
            return tokens[:index] + tokens[index + 3 :], tokens[index + 2].text
    return tokens, None


def _settings_place(tokens: Sequence[Token]) -> int | None:
    """Where the statement's own SETTINGS stand: behind every bracket, so not those of a subquery."""
    kinds = [token.token_type for token in tokens]
    for index in reversed(range(1, len(tokens))):
        if kinds[index] is TokenType.R_PAREN:
            return None
        if kinds[index] is TokenType.SETTINGS and kinds[index + 2 : index + 3] == [TokenType.EQ]:
            return index
    return None
