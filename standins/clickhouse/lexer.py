"""ClickHouse tokens. Statements are rewritten token by token, so whatever is not touched stays as it was sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from standins.clickhouse.errors import ClickHouseError

_SKIP = re.compile(r"(?:\s+|--[^\n]*|#[ !][^\n]*|/\*.*?\*/)+", re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<string>'(?:[^'\\]|\\.|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
      | (?P<quoted>`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*")
      | (?P<number>0[xX][0-9a-fA-F]+|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<op>->|::|<=>|<=|>=|<>|!=|==|\|\||.)""",
    re.DOTALL | re.VERBOSE,
)
_OPEN = {"(": ")", "[": "]", "{": "}"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}


@dataclass(frozen=True)
class Token:
    """One token. `start` and `end` are offsets in the text that was read (-1 for made tokens)."""

    kind: str
    """string, quoted (an identifier), number, word, op, or opaque (SQL text that nobody looks into)."""
    text: str
    start: int = -1
    end: int = -1
    space: bool = True
    """Whether a blank stood (or must stand) before it."""

    @property
    def upper(self) -> str:
        """The word in capitals; empty for anything that is not a bare word."""
        return self.text.upper() if self.kind == "word" else ""

    @property
    def name(self) -> str | None:
        """The identifier without its quotes; None when it is none."""
        if self.kind == "word":
            return self.text
        return unquote(self.text) if self.kind == "quoted" else None


def tokens_of(text: str) -> Iterator[Token]:
    """Yield the tokens of `text` lazily, without comments. Raises ClickHouseError 62 on an open quote."""
    position = 0
    while position < len(text):
        skipped = _SKIP.match(text, position)
        if skipped is not None:
            position = skipped.end()
            if position >= len(text):
                return
        found = _TOKEN.match(text, position)
        if found is None or found.group() in ("'", "`", '"'):
            quote = text[position]
            message = f"Syntax error: failed at position {position + 1} ({quote}): quote is not closed."
            raise ClickHouseError(62, message)
        kind = "string" if found.lastgroup == "tag" else str(found.lastgroup)
        yield Token(kind, found.group(), position, found.end(), skipped is not None)
        position = found.end()


def render(tokens: Iterable[Token]) -> str:
    """Text of the tokens, with the blanks they had."""
    return "".join((" " if token.space else "") + token.text for token in tokens).strip()


def opaque(text: str) -> Token:
    """A token that holds finished SQL."""
    return Token("opaque", text)


def words(text: str) -> list[Token]:
    """Made tokens of a piece of SQL that this package writes itself."""
    return [replace(token, start=-1, end=-1, space=True) for token in tokens_of(text)]


def closing(tokens: Sequence[Token], start: int) -> int:
    """Index of the bracket that closes the one at `start`. Raises ClickHouseError 62 when there is none."""
    stack: list[str] = []
    for index in range(start, len(tokens)):
        text = tokens[index].text if tokens[index].kind == "op" else ""
        if text in _OPEN:
            stack.append(_OPEN[text])
        elif stack and text == stack[-1]:
            stack.pop()
            if not stack:
                return index
    raise ClickHouseError(62, f"Syntax error: Unmatched parentheses: {tokens[start].text}.")


def top_level(tokens: Sequence[Token]) -> Iterator[int]:
    """Indices of the tokens outside every bracket; an opening bracket itself is included, its content is not."""
    index = 0
    while index < len(tokens):
        yield index
        if tokens[index].kind == "op" and tokens[index].text in _OPEN:
            index = closing(tokens, index)
        index += 1


def split_commas(tokens: Sequence[Token]) -> list[list[Token]]:
    """Parts of a comma list, brackets respected. An empty list has no part."""
    parts: list[list[Token]] = [[]]
    cuts = {index for index in top_level(tokens) if tokens[index].kind == "op" and tokens[index].text == ","}
    for index, token in enumerate(tokens):
        if index in cuts:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def unquote(text: str) -> str:
    """Value of a quoted string or identifier, by ClickHouse's escapes."""
    if text.startswith("$"):
        tag = text.index("$", 1) + 1
        return text[tag:-tag]
    quote = text[0]
    body = text[1:-1].replace(quote * 2, f"\\{quote}")

    def value(match: re.Match[str]) -> str:
        if match.group(1) is not None:
            return chr(int(match.group(1), 16))
        return _ESCAPES.get(match.group(2), match.group(2))

    return re.sub(r"\\(?:x([0-9a-fA-F]{2})|(.))", value, body, flags=re.DOTALL)


def quote_name(name: str) -> str:
    """An identifier in backquotes."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def quote_string(value: str) -> str:
    """A string literal in single quotes."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
