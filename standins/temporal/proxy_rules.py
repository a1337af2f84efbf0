"""Which fault the proxy puts in the way of a call. Pure: rules, their history and a call in, a rule out.

Faults file (JSON): `{"rules": [{"id": "a", "kind": "unavailable", "for_seconds": 5}]}`. Rule keys: id and
kind (required); methods (names such as DescribeWorkflowExecution; each kind has a default); contains (text
that the query or the workflow id must contain); times (calls that it hits); for_seconds (life, from when the
proxy first reads the rule); seconds (delay); code (of code and describe_status). Without times and for_seconds
a rule holds until it is removed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

LISTING = frozenset({"ListWorkflowExecutions", "CountWorkflowExecutions"})
READING_ONE = frozenset({"DescribeWorkflowExecution", "GetWorkflowExecutionHistory"})


class ProxyKind(StrEnum):
    """What happens to a call.

    list_empty: an empty list or count. list_stale: the list shows every workflow as running. list_hides: the
    list leaves out workflows whose id has the text of `contains`. not_found: as after retention.
    invalid_query: refuses queries with the text (default STARTS_WITH). delay: waits `seconds`, then goes on.
    drop: the proxy closes all connections and does not listen. code: answers with the gRPC status named in
    `code`. describe_status: a description's status is the number of `code`. The others answer with that status.
    """

    LIST_EMPTY = "list_empty"
    LIST_STALE = "list_stale"
    LIST_HIDES = "list_hides"
    NOT_FOUND = "not_found"
    INVALID_QUERY = "invalid_query"
    UNAVAILABLE = "unavailable"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    PERMISSION_DENIED = "permission_denied"
    INTERNAL = "internal"
    DELAY = "delay"
    DROP = "drop"
    CODE = "code"
    DESCRIBE_STATUS = "describe_status"


_DEFAULT_METHODS = {
    ProxyKind.LIST_EMPTY: LISTING,
    ProxyKind.LIST_STALE: LISTING,
    ProxyKind.LIST_HIDES: LISTING,
    ProxyKind.INVALID_QUERY: LISTING,
    ProxyKind.NOT_FOUND: READING_ONE,
    ProxyKind.DESCRIBE_STATUS: frozenset({"DescribeWorkflowExecution"}),
}


class ProxyFaultError(ValueError):
    """A faults file that cannot be understood; the text names the rule, the key and the value."""


@dataclass(frozen=True, slots=True)
class ProxyRule:
    """One rule; see the module's text. methods empty = every method. Times in seconds."""

    id: str
    kind: ProxyKind
    methods: frozenset[str] = frozenset()
    contains: str = ""
    times: int | None = None
    for_seconds: float | None = None
    seconds: float = 0.0
    code: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the method's short name and the query or workflow id in it ("" when it has none)."""

    method: str
    subject: str = ""


@dataclass(slots=True)
class History:
    """What happened to one rule: monotonic second at which it was first read, and calls that it hit."""

    since: float
    hits: int = 0


def parse_proxy_rules(text: str) -> tuple[ProxyRule, ...]:
    """Text of a faults file -> rules; blank text means none. Raises ProxyFaultError."""
    if not text.strip():
        return ()
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ProxyFaultError(f"not JSON: {error}") from error
    if not isinstance(document, dict) or not document.keys() <= {"rules"}:
        raise ProxyFaultError('must be an object with "rules" only')
    rules = tuple(_rule(entry) for entry in document.get("rules", []))
    if len({rule.id for rule in rules}) != len(rules):
        raise ProxyFaultError(f"rule ids must differ: {[rule.id for rule in rules]}")
    return rules


def is_alive(rule: ProxyRule, history: History, now: float) -> bool:
    """Whether the rule still holds at the monotonic second `now`."""
    young = rule.for_seconds is None or now < history.since + rule.for_seconds
    return young and (rule.times is None or history.hits < rule.times)


def choose(call: Call, rules: tuple[ProxyRule, ...], histories: Mapping[str, History], now: float) -> ProxyRule | None:
    """The first living rule that applies to the call; drop rules apply to connections, not to calls."""
    for rule in rules:
        if rule.kind is not ProxyKind.DROP and _applies(rule, call) and is_alive(rule, histories[rule.id], now):
            return rule
    return None


def drops(rules: tuple[ProxyRule, ...], histories: Mapping[str, History], now: float) -> bool:
    """Whether the proxy must be unreachable now."""
    return any(rule.kind is ProxyKind.DROP and is_alive(rule, histories[rule.id], now) for rule in rules)


def _applies(rule: ProxyRule, call: Call) -> bool:
    if rule.methods and call.method not in rule.methods:
        return False
    # list_hides looks at the workflows of the answer, not at the query.
    return rule.kind is ProxyKind.LIST_HIDES or rule.contains in call.subject


def _rule(entry: Any) -> ProxyRule:
    known = {field.name for field in fields(ProxyRule)}
    if not isinstance(entry, dict) or not {"id", "kind"} <= entry.keys() <= known:
        raise ProxyFaultError(f"rule {entry!r}: needs id and kind; known keys: {', '.join(sorted(known))}")
    where = f"rule {entry['id']!r}"
    if entry["kind"] not in list(ProxyKind):
        raise ProxyFaultError(f"{where}: kind {entry['kind']!r} is unknown; known: {', '.join(ProxyKind)}")
    kind = ProxyKind(entry["kind"])
    for name in ("times", "for_seconds", "seconds"):
        value = entry.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ProxyFaultError(f"{where}: {name} is {value!r}, must be 0 or more")
    if kind is ProxyKind.LIST_HIDES and not entry.get("contains"):
        raise ProxyFaultError(f"{where}: list_hides needs `contains`, a part of the ids to hide")
    if (kind in (ProxyKind.CODE, ProxyKind.DESCRIBE_STATUS)) is not bool(entry.get("code")):
        raise ProxyFaultError(f"{where}: {kind} {'needs' if not entry.get('code') else 'takes no'} `code`")
    methods: frozenset[str] = frozenset(entry.get("methods") or _DEFAULT_METHODS.get(kind, frozenset()))
    contains = entry.get("contains") or ("STARTS_WITH" if kind is ProxyKind.INVALID_QUERY else "")
    return ProxyRule(**(entry | {"kind": kind, "methods": methods, "contains": contains}))
