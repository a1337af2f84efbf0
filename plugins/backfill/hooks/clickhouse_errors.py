"""What ClickHouse's errors mean: for a question that may be asked again, and for a statement that changes something.

Numbers and names are those of ClickHouse's ``ErrorCodes.cpp`` (26.x).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clickhouse_connect.driver.exceptions import DatabaseError, InterfaceError, ProgrammingError

from include.scorecard_backfill.verdicts.counts import Host

PERSON_CODES = frozenset({
    6,  # CANNOT_PARSE_TEXT
    8,  # THERE_IS_NO_COLUMN
    16,  # NO_SUCH_COLUMN_IN_TABLE
    36,  # BAD_ARGUMENTS
    38,  # CANNOT_PARSE_DATE
    41,  # CANNOT_PARSE_DATETIME
    42,  # NUMBER_OF_ARGUMENTS_DOESNT_MATCH
    43,  # ILLEGAL_TYPE_OF_ARGUMENT
    44,  # ILLEGAL_COLUMN
    46,  # UNKNOWN_FUNCTION
    47,  # UNKNOWN_IDENTIFIER
    48,  # NOT_IMPLEMENTED
    50,  # UNKNOWN_TYPE
    53,  # TYPE_MISMATCH
    60,  # UNKNOWN_TABLE
    62,  # SYNTAX_ERROR
    81,  # UNKNOWN_DATABASE
    115,  # UNKNOWN_SETTING
    158,  # TOO_MANY_ROWS: a limit of the profile
    164,  # READONLY: a right of the user
    170,  # CLUSTER_DOESNT_EXIST of old servers (BAD_GET)
    181,  # ILLEGAL_FINAL
    192,  # UNKNOWN_USER
    193,  # WRONG_PASSWORD
    194,  # REQUIRED_PASSWORD
    195,  # IP_ADDRESS_NOT_ALLOWED
    291,  # DATABASE_ACCESS_DENIED
    307,  # TOO_MANY_BYTES: a limit of the profile
    344,  # SUPPORT_IS_DISABLED
    386,  # NO_COMMON_TYPE
    396,  # TOO_MANY_ROWS_OR_BYTES: a limit of the profile
    446,  # FUNCTION_NOT_ALLOWED
    452,  # SETTING_CONSTRAINT_VIOLATION
    497,  # ACCESS_DENIED
    516,  # AUTHENTICATION_FAILED
    701,  # CLUSTER_DOESNT_EXIST
})  # fmt: skip
"""Codes that asking again does not change: names, types, rights, settings. On a question every other code may pass."""

ACCESS_CODES = frozenset({164, 192, 193, 194, 195, 291, 497, 516})
"""Of PERSON_CODES those of rights and logins: the account of the connection, not the question, is what is wrong."""

_HTTP_STATUS = re.compile(r"HTTP status (\d{3})")
PASSING_STATUSES = ("408", "425", "429")
"""Of the statuses 4xx by which a proxy answers instead of ClickHouse, the ones that pass."""

REFUSED_CODES = frozenset({
    201,  # QUOTA_EXCEEDED
    202,  # TOO_MANY_SIMULTANEOUS_QUERIES
    373,  # SESSION_IS_LOCKED
    517,  # CANNOT_ASSIGN_ALTER: another ALTER is being applied
    692,  # TOO_MANY_MUTATIONS
    745,  # SERVER_OVERLOADED
})  # fmt: skip
"""Codes by which the node that was asked refuses a statement without having queued anything; sent again later."""

FROM_A_HOST = re.compile(r"There was an error on \[(?P<host>[^\]]+?)(:\d+)?\]: ?(?P<text>.*)", re.DOTALL)
"""The error of one host that comes back through the DDL queue; the other hosts may have executed the statement."""


class TopologyError(RuntimeError):
    """system.clusters and the hosts that answer do not match."""


class NativePortError(RuntimeError):
    """The connection points at a port of the native protocol."""


class PinnedSettingError(RuntimeError):
    """A profile fixes a setting that may cut or change an answer, and this user may not set it."""


@dataclass(frozen=True, slots=True)
class DdlAnswer:
    """What came back from one ON CLUSTER statement.

    ``done``: hosts that executed it; ``refused``: the server said no and nothing was queued; ``unknown``: it may or
    may not take effect, only a look at the hosts tells; ``killed``: a mutation was killed meanwhile. ``code`` is the
    server's, when it gave one.
    """

    outcome: Literal["done", "unknown", "refused", "killed"]
    hosts: frozenset[str] = frozenset()
    errors: Mapping[str, str] | None = None
    text: str = ""
    code: int | None = None


def is_transient(error: BaseException) -> bool:
    """Return True when asking the same question again may help: every error of ClickHouse that no person must mend.

    A code that nobody here has heard of passes, too: a wait is given up by its time of outage, not by a new code.
    """
    if isinstance(error, TopologyError):
        return True
    if isinstance(error, (DatabaseError, InterfaceError)):
        if error.code is not None:
            return error.code not in PERSON_CODES
        if isinstance(error, (ProgrammingError, InterfaceError)):
            return False
        status = _HTTP_STATUS.search(str(error))
        return status is None or status.group(1) in PASSING_STATUSES or not status.group(1).startswith("4")
    return isinstance(error, (ConnectionError, TimeoutError, OSError))


def is_access(error: BaseException) -> bool:
    """Return True when the server does not accept the account, or the account may not do this."""
    return isinstance(error, DatabaseError) and error.code in ACCESS_CODES


def classify_ddl_error(error: BaseException) -> DdlAnswer:
    """Return what an exception of an ON CLUSTER statement means. Raises it when the server surely did nothing."""
    text = str(error)
    code = error.code if isinstance(error, DatabaseError) else None
    if found := FROM_A_HOST.search(text):
        return DdlAnswer("unknown", errors={found.group("host"): found.group("text")}, text=text, code=code)
    if "deleted by the cleaner" in text:
        return DdlAnswer("unknown", text=text, code=code)
    if code in REFUSED_CODES:
        return DdlAnswer("refused", text=text, code=code)
    if code == 341:  # UNFINISHED: a replica is inactive, or the mutation was killed; only the text tells
        return DdlAnswer("killed" if "killed" in text else "unknown", text=text, code=code)
    if is_transient(error):
        return DdlAnswer("unknown", text=text, code=code)
    raise error


def parse_ddl_answer(body: str, hosts: Sequence[Host]) -> DdlAnswer:
    """Return the answer of the per-host table (host, port, status, error, remaining, active), tab separated.

    A NULL status is a host that has not executed it yet; a host without a line was not heard of: both make it unknown.
    The table names hosts as system.clusters lists them.
    """
    done: set[str] = set()
    errors: dict[str, str] = {}
    full = {h.name.split(".")[0]: h.name for h in hosts}
    full |= {h.listed.split(".")[0]: h.name for h in hosts if h.listed}
    full |= {h.name: h.name for h in hosts} | {h.listed: h.name for h in hosts if h.listed}
    for line in body.splitlines():
        cells = line.split("\t")
        if len(cells) < 4:
            continue
        host = full.get(cells[0]) or full.get(cells[0].split(".")[0], cells[0])
        if cells[2] == "0":
            done.add(host)
        elif cells[2] not in ("\\N", ""):
            errors[host] = cells[3]
    complete = done >= {h.name for h in hosts}
    return DdlAnswer("done" if complete and not errors else "unknown", frozenset(done), errors or None, body.strip())
