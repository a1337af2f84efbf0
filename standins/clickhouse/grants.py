"""SHOW GRANTS and CHECK GRANT: what a user may do, by GRANT and REVOKE lines, its roles included."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from standins.clickhouse.engine import Engine
from standins.clickhouse.errors import ClickHouseError

_NAME = r"(?:`[^`]+`|[\w*]+)"
_ON = rf"\s+ON\s+(?P<database>{_NAME})\.(?P<table>{_NAME})"
_LINE = re.compile(
    rf"(?P<verb>GRANT|REVOKE)\s+(?P<what>[^()]+?)(?:{_ON})?\s+(?:TO|FROM)\s+(?P<who>[^()]+?)(?:\s+WITH GRANT OPTION)?",
    re.IGNORECASE,
)
_ASKED = re.compile(rf"CHECK\s+GRANT\s+(?P<what>[^()]+?){_ON}", re.IGNORECASE)

Scope = tuple[str, str]
"""(database, table); `*` stands for all."""


@dataclass(frozen=True)
class Line:
    """One GRANT or REVOKE, of privileges (in capitals) or of roles: then `scope` is None."""

    text: str
    gives: bool
    what: frozenset[str]
    scope: Scope | None
    grantees: frozenset[str]


class Privileges:
    """The engine's own tree of privileges: ALTER holds ALTER TABLE, that holds ALTER DELETE, and so on."""

    def __init__(self, engine: Engine) -> None:
        with engine.session() as session:
            rows = session.rows(
                "SELECT privilege, arrayStringConcat(aliases, '|'), toString(parent_group) FROM system.privileges"
            )
        self._names = {name: frozenset([name, *filter(None, aliases.split("|"))]) for name, aliases, _ in rows}
        self._parents = {name: parent for name, _, parent in rows}

    def givers(self, privilege: str) -> frozenset[str]:
        """All that brings a privilege along: its names and those of the groups above it. Raises ClickHouseError 62."""
        name = next((name for name, names in self._names.items() if privilege in names), None)
        if name is None:
            raise ClickHouseError(62, f"Syntax error: {privilege!r} is no privilege.")
        found = frozenset({"ALL"})
        while name in self._names:
            found |= self._names[name]
            name = self._parents[name]
        return found


def read_lines(text: str) -> list[Line]:
    """Read GRANT and REVOKE statements without lists of columns, one a line. Raises ClickHouseError 62."""
    return [_line(line.strip()) for line in text.splitlines() if line.strip()]


def shown(text: str) -> str:
    """The lines without those of the roles that they give, which SHOW GRANTS does not show."""
    lines = read_lines(text)
    roles = {role for line in lines if line.scope is None for role in line.what}
    return "\n".join(line.text for line in lines if not line.grantees & roles)


def may(user: str, text: str, statement: str, privileges: Privileges) -> bool:
    """Whether the lines give the user what a CHECK GRANT asks for. Raises ClickHouseError 62."""
    asked = _ASKED.fullmatch(statement)
    if asked is None:
        raise ClickHouseError(62, "Syntax error: expected CHECK GRANT, privileges, ON and what they are for.")
    lines = read_lines(text)
    holders = _with_roles(user, lines)
    wanted = [privileges.givers(name.upper()) for name in _listed(asked["what"])]
    return all(any(_has(holder, lines, givers, _scope(asked)) for holder in holders) for givers in wanted)


def answer(rule: Mapping[str, object] | None, user: str) -> str:
    """The lines that hold now: a fault rule's, or everything."""
    return f"GRANT ALL ON *.* TO {user} WITH GRANT OPTION" if rule is None else str(rule["text"])


def _with_roles(user: str, lines: Iterable[Line]) -> set[str]:
    known, open_ = set[str](), {user}
    while open_:
        known |= open_
        open_ = {role for line in lines if line.scope is None and line.grantees & open_ for role in line.what} - known
    return known


def _has(holder: str, lines: Iterable[Line], givers: frozenset[str], scope: Scope) -> bool:
    found = False
    for line in lines:
        if holder not in line.grantees or line.scope is None or not givers & line.what:
            continue
        if line.gives:
            found |= _covers(line.scope, scope)
        elif _covers(line.scope, scope) or _covers(scope, line.scope):
            found = False
    return found


def _covers(wide: Scope, narrow: Scope) -> bool:
    return all(mine in ("*", other) for mine, other in zip(wide, narrow, strict=True))


def _line(text: str) -> Line:
    found = _LINE.fullmatch(text)
    if found is None:
        raise ClickHouseError(62, f"Syntax error: {text} is neither GRANT nor REVOKE.")
    scope = _scope(found) if found["database"] else None
    what = _listed(found["what"] if scope is None else found["what"].upper())
    return Line(text, found["verb"].upper() == "GRANT", what, scope, _listed(found["who"]))


def _scope(found: re.Match[str]) -> Scope:
    return found["database"].strip("`"), found["table"].strip("`")


def _listed(text: str) -> frozenset[str]:
    return frozenset(name.strip().strip("`") for name in text.split(","))
