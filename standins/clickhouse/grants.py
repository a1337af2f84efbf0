"""SHOW GRANTS and CHECK GRANT: what a user may do, by GRANT and REVOKE lines, its roles included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from standins.clickhouse.engine import Engine
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.lexer import Token, closing, split_commas, tokens_of, top_level

Scope = tuple[str | None, str | None]
"""(database, table); None stands for all."""


@dataclass(frozen=True)
class Right:
    """One privilege as written (in capitals), and the columns that it is limited to (empty: all)."""

    privilege: str
    columns: frozenset[str]


@dataclass(frozen=True)
class Line:
    """One GRANT or REVOKE. `scope` is None when it gives a role."""

    gives: bool
    rights: tuple[Right, ...]
    scope: Scope | None
    grantees: tuple[str, ...]

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that it gives."""
        return tuple(right.privilege for right in self.rights) if self.scope is None else ()


class Privileges:
    """The engine's own tree of privileges: ALTER holds ALTER TABLE, that holds ALTER DELETE, and so on."""

    def __init__(self, engine: Engine) -> None:
        with engine.session() as session:
            rows = session.rows(
                "SELECT privilege, arrayStringConcat(aliases, '|'), toString(parent_group) FROM system.privileges"
            )
        self._names = {alias: name for name, aliases, _ in rows for alias in [name, *filter(None, aliases.split("|"))]}
        self._names |= {"ALL PRIVILEGES": "ALL"}
        self._children: dict[str, list[str]] = {}
        for name, _, parent in rows:
            self._children.setdefault(parent, []).append(name)

    def leaves(self, name: str) -> frozenset[str]:
        """The privileges without parts of their own that a privilege stands for. Raises ClickHouseError 62."""
        known = self._names.get(name)
        if known is None:
            raise ClickHouseError(62, f"Syntax error: {name!r} is no privilege.")
        if known == "ALL" or known in self._children:
            parts = self._children.get(known, []) + (self._children.get("\\N", []) if known == "ALL" else [])
            return frozenset().union(*(self.leaves(part) for part in parts if part != known))
        return frozenset() if known in ("NONE", "USAGE") else frozenset({known})


def read_lines(text: str) -> list[Line]:
    """Read GRANT and REVOKE statements, one a line. Raises ClickHouseError 62."""
    return [_line(list(tokens_of(line))) for line in text.splitlines() if line.strip()]


def shown(text: str) -> str:
    """The lines without those of the roles that they give, which SHOW GRANTS does not show."""
    lines = read_lines(text)
    roles = {role for line in lines for role in line.roles}
    raw = [line for line in text.splitlines() if line.strip()]
    return "\n".join(kept for kept, line in zip(raw, lines, strict=True) if not set(line.grantees) & roles)


def may(user: str, text: str, asked: Sequence[Token], privileges: Privileges) -> bool:
    """Whether the lines give the user what `CHECK GRANT <asked>` names. Raises ClickHouseError 62."""
    rights, scope, _ = _rights_on(list(asked))
    lines = read_lines(text)
    grantees = _with_roles(user, lines)
    return all(
        any(_has(name, lines, leaf, column, scope, privileges) for name in grantees)
        for right in rights
        for leaf in privileges.leaves(right.privilege)
        for column in right.columns or (None,)
    )


def _with_roles(user: str, lines: Iterable[Line]) -> set[str]:
    known, open_ = set[str](), {user}
    while open_:
        known |= open_
        open_ = {role for line in lines if set(line.grantees) & open_ for role in line.roles} - known
    return known


def _has(name: str, lines: Iterable[Line], leaf: str, column: str | None, scope: Scope, privileges: Privileges) -> bool:
    found = False
    for line in lines:
        if name not in line.grantees or line.scope is None:
            continue
        for right in line.rights:
            if leaf not in privileges.leaves(right.privilege):
                continue
            if line.gives:
                found |= _covers(line.scope, scope) and (not right.columns or column in right.columns)
            elif (_covers(line.scope, scope) or _covers(scope, line.scope)) and (
                not right.columns or column is None or column in right.columns
            ):
                found = False
    return found


def _covers(wide: Scope, narrow: Scope) -> bool:
    return all(mine is None or mine == other for mine, other in zip(wide, narrow, strict=True))


def _line(tokens: list[Token]) -> Line:
    gives = tokens[0].upper == "GRANT"
    if not gives and tokens[0].upper != "REVOKE":
        raise ClickHouseError(62, f"Syntax error: {tokens[0].text} is neither GRANT nor REVOKE.")
    word = "TO" if gives else "FROM"
    end = next((index for index in top_level(tokens) if tokens[index].upper == word), len(tokens))
    names = [part[0].name or "" for part in split_commas(tokens[end + 1 :])]
    body = tokens[1:end]
    if any(token.upper == "ON" for token in body):
        rights, scope, _ = _rights_on(body)
        return Line(gives, rights, scope, tuple(names))
    roles = tuple(Right(part[0].name or "", frozenset()) for part in split_commas(body))
    return Line(gives, roles, None, tuple(names))


def _rights_on(tokens: list[Token]) -> tuple[tuple[Right, ...], Scope, list[Token]]:
    """(rights, scope, what follows) of `SELECT(a, b), ALTER DELETE ON db.*`."""
    on = next((index for index in top_level(tokens) if tokens[index].upper == "ON"), None)
    if on is None or on + 1 >= len(tokens):
        raise ClickHouseError(62, "Syntax error: expected ON and what the privileges are for.")
    rights = tuple(_right(part) for part in split_commas(tokens[:on]))
    target = tokens[on + 1 : on + 4]
    if len(target) == 3 and target[1].text == ".":
        return rights, (_name(target[0]), _name(target[2])), tokens[on + 4 :]
    return rights, (None if target[0].text == "*" else "default", _name(target[0])), tokens[on + 2 :]


def _name(token: Token) -> str | None:
    return None if token.text == "*" else token.name


def _right(part: list[Token]) -> Right:
    at = next((index for index, token in enumerate(part) if token.text == "("), len(part))
    columns = part[at + 1 : closing(part, at)] if at < len(part) else []
    listed = frozenset(name for token in columns if (name := token.name) is not None)
    return Right(" ".join(token.upper for token in part[:at]), listed)


def answer(rule: Mapping[str, object] | None, user: str) -> str:
    """The lines that hold now: a fault rule's, or everything."""
    return f"GRANT ALL ON *.* TO {user} WITH GRANT OPTION" if rule is None else str(rule["text"])
