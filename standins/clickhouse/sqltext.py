"""SQL as sqlglot reads and writes it, with every function as it was sent; quoting; calls that other SQL stands for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

from sqlglot import Token, exp, parse_one
from sqlglot.dialects.clickhouse import ClickHouse
from sqlglot.errors import ParseError, TokenError
from sqlglot.parsers.clickhouse import ClickHouseParser

from standins.clickhouse.errors import ClickHouseError

HOST_FUNCTIONS = frozenset({"hostname", "fqdn", "fullhostname"})


class Dialect(ClickHouse):
    """ClickHouse's without known functions: sqlglot would write some of them in another way, and so rename columns."""

    class Tokenizer(ClickHouse.Tokenizer):
        """Backquotes for names; SYSTEM and OPTIMIZE are not taken for commands whose rest is one token."""

        COMMANDS: ClassVar = set()
        IDENTIFIERS: ClassVar = ["`", '"']

    class Parser(ClickHouseParser):
        """Any function may have parameters in front of its arguments; CAST and COLUMNS have a syntax of their own."""

        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar = {name: ClickHouseParser.FUNCTION_PARSERS[name] for name in ("CAST", "COLUMNS")}
        NO_PAREN_FUNCTION_PARSERS: ClassVar = {
            name: parser for name, parser in ClickHouseParser.NO_PAREN_FUNCTION_PARSERS.items() if name != "IF"
        }

        @classmethod
        def _resolve_clickhouse_agg(cls, name: str) -> tuple[str, Sequence[str]]:
            return name, ()


_DIALECT = Dialect()


def tree_of(query: str) -> exp.Query | None:
    """The tree of a SELECT in any form; None for what sqlglot cannot read: the engine has the last word about it."""
    tree = _parsed(query)
    return None if tree is None else tree.copy()


@lru_cache(maxsize=128)
def _parsed(query: str) -> exp.Query | None:
    """Kept, because who waits for something asks the same again and again."""
    try:
        tree = parse_one(query, dialect=_DIALECT)
    except (ParseError, TokenError):
        return None
    return tree if isinstance(tree, exp.Query) else None


def sql_of(tree: exp.Expr) -> str:
    """The text of a tree, which is not to be used afterwards."""
    return tree.sql(_DIALECT, normalize_functions=False, copy=False)


def tokens_of(text: str) -> list[Token]:
    """The tokens, with their places and without quotes. Raises ClickHouseError 62 on an open quote."""
    try:
        return _DIALECT.tokenize(text)
    except TokenError as error:
        raise ClickHouseError(62, f"Syntax error: a quote is not closed: {error}") from error


def settings_of(query: exp.Query | None) -> dict[str, str]:
    """The SETTINGS of a query itself; strings without their quotes."""
    pairs = query.args.get("settings") or [] if query is not None else []
    return {
        pair.this.name: pair.expression.name if isinstance(pair.expression, exp.Literal) else sql_of(pair.expression)
        for pair in pairs
    }


def read_settings(text: str) -> dict[str, str]:
    """The same of the text of a SETTINGS clause without the word."""
    return settings_of(tree_of(f"SELECT 1 SETTINGS {text}")) if text else {}


def replace_calls(nodes: Iterable[exp.Expr], texts: Mapping[str, str]) -> bool:
    """Put SQL in place of calls without arguments (names in small letters); whether there was one.

    A column that is only such a call keeps its name.
    """
    found = [
        node
        for node in nodes
        if isinstance(node, exp.AnonymousAggFunc) and node.name.lower() in texts and not node.expressions
    ]
    for call in found:
        value: exp.Expr = exp.Var(this=texts[call.name.lower()])
        if isinstance(call.parent, exp.Select) and call.arg_key == "expressions":
            value = exp.alias_(value, f"{call.name}()", quoted=True)
        call.replace(value)
    return bool(found)


def quote_name(name: str) -> str:
    """An identifier in backquotes."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def quote_string(value: str) -> str:
    """A string literal in single quotes."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
