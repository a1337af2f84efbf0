"""Asking the server what the user may do, and reading what an older server can answer instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from include.scorecard_backfill.sql.statements import quote_identifier, quote_string

SYSTEM_TABLES = (
    "asynchronous_inserts",
    "clusters",
    "columns",
    "disks",
    "distributed_ddl_queue",
    "distribution_queue",
    "mutations",
    "one",
    "parts",
    "processes",
    "replicas",
    "replication_queue",
    "settings",
    "tables",
)
"""System tables that the stages read."""


@dataclass(frozen=True, slots=True)
class Right:
    """One privilege on a database and table; None: on all of them."""

    privilege: str
    database: str | None = None
    table: str | None = None

    @property
    def text(self) -> str:
        """As GRANT and CHECK GRANT write it."""
        database = "*" if self.database is None else quote_identifier(self.database)
        table = "*" if self.table is None else quote_identifier(self.table)
        return f"{self.privilege} ON {database}.{table}"


def check_grant_statement(right: Right) -> str:
    """Return the statement that answers 1 when the user has the right, by its roles, too, else 0."""
    return f"CHECK GRANT {right.text}"


def row_policies_statement(cluster: str, tables: Iterable[str]) -> str:
    """Return one row of each host: ``host, policies`` as (database, table, policy, for_us), for_us being 0 or 1.

    Listed are policies on tables of these names, and those on whole databases, whose table is ''. A policy for all but
    us hides nothing from us. Policies belong to a host, and so does the user that reads there.
    """
    listed = ", ".join(quote_string(table) for table in tables)
    # Roles that a role brings along count, too.
    mine = "hasAny({}, arrayConcat([currentUser()], enabledRoles()))"
    excepted, named = mine.format("apply_to_except"), mine.format("apply_to_list")
    view = (
        "SELECT hostName() AS host, groupArray((database, table, short_name,"
        f" toUInt8(if(apply_to_all, NOT {excepted}, {named})))) AS policies"
        f" FROM system.row_policies WHERE table IN ({listed}, '')"
    )
    return f"SELECT host, policies FROM clusterAllReplicas({quote_string(cluster)}, view({view}))"


def shown_statement(cluster: str, database: str, table: str) -> str:
    """Return one row of each host: ``host, shown, held``, the rows of a table that we see, and those of its parts."""
    held = (
        "SELECT sum(rows) FROM system.parts WHERE active"
        f" AND database = {quote_string(database)} AND table = {quote_string(table)}"
    )
    name = f"{quote_identifier(database)}.{quote_identifier(table)}"
    view = f"SELECT hostName() AS host, count() AS shown, toUInt64(ifNull(({held}), 0)) AS held FROM {name}"
    return f"SELECT host, shown, held FROM clusterAllReplicas({quote_string(cluster)}, view({view}))"


_IMPLIED: dict[str, tuple[str, ...]] = {
    "ALTER DELETE": ("ALL", "ALTER", "ALTER TABLE", "ALTER DELETE", "DELETE"),
    "SELECT": ("ALL", "SELECT"),
    "CLUSTER": ("ALL", "CLUSTER"),
    "CREATE TABLE": ("ALL", "CREATE", "CREATE TABLE"),
    "DROP TABLE": ("ALL", "DROP", "DROP TABLE"),
    "INSERT": ("ALL", "INSERT"),
}
_NAME = r"(?:`[^`]*`|[\w*]+)"
_LINE = re.compile(rf"(?P<verb>GRANT|REVOKE) (?P<what>.+) ON (?P<on>{_NAME}\.{_NAME}) (?:TO|FROM) ")


def granted(lines: Sequence[str], right: Right) -> Literal["yes", "no", "unknown"]:
    """Return what lines of SHOW GRANTS say about a right; for servers that know no CHECK GRANT (before 24.10).

    A role's own rights are not among the lines: then a right that no line gives is unknown, and is not a no. A revoke
    of a narrower scope comes after the grant that it narrows.
    """
    has, roles = False, False
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            roles = roles or line.startswith("GRANT ")
            continue
        privileges = {part.strip().upper() for part in re.sub(r"\([^)]*\)", "()", found.group("what")).split(",")}
        if privileges & set(_IMPLIED[right.privilege]) and _covers(found.group("on"), right):
            has = found.group("verb") == "GRANT"
    if has:
        return "yes"
    return "unknown" if roles else "no"


def _covers(on: str, right: Right) -> bool:
    database, table = (part.strip("`") for part in re.findall(_NAME, on))
    return database in ("*", right.database) and table in ("*", right.table)
