"""Which fault the proxy puts in the way of a call. Pure: rules, their history and a call in, a rule out.

Faults file (JSON): `{"rules": [{"id": "a", "kind": "unavailable", "for_seconds": 5}]}`, in the language of
standins.faults; the life of a rule begins when the proxy first reads it. `id` (required) tells the rules of the file
apart. `match` looks at `method` (as a whole, such as DescribeWorkflowExecution; each kind has a default) and at `text`
(searched: the query or the workflow id); a plain text is a `text`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from standins.faults import SECONDS, FaultRuleError, Field, Kind, Language, fits, is_over, kinds

LISTING = {"method": "ListWorkflowExecutions|CountWorkflowExecutions"}
READING_ONE = {"method": "DescribeWorkflowExecution|GetWorkflowExecutionHistory"}


class ProxyKind(StrEnum):
    """What happens to a call.

    list_empty: an empty list or count. list_stale: the list shows every workflow as running. list_hides: the
    list leaves out workflows whose id fits `text`. not_found: as after retention.
    invalid_query: refuses queries that fit `text` (default STARTS_WITH). delay: waits `seconds`, then goes on.
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


_ID = {"id": Field(str)}
_CODE = _ID | {"code": Field(str)}
_NEEDED = ("id",)
LANGUAGE = Language(
    {
        **kinds([kind.value for kind in ProxyKind], fields=_ID, needed=_NEEDED),
        **kinds(("list_empty", "list_stale"), fields=_ID, needed=_NEEDED, match=LISTING),
        "list_hides": Kind(_ID, _NEEDED, LISTING),
        "invalid_query": Kind(_ID, _NEEDED, LISTING | {"text": "STARTS_WITH"}),
        "not_found": Kind(_ID, _NEEDED, READING_ONE),
        "code": Kind(_CODE, (*_NEEDED, "code")),
        "describe_status": Kind(_CODE, (*_NEEDED, "code"), {"method": "DescribeWorkflowExecution"}),
        "delay": Kind(_ID | {"seconds": SECONDS}, _NEEDED),
    },
    ("method", "text"),
    main="text",
)


class ProxyFaultError(ValueError):
    """A faults file that cannot be understood; the text names the rule, the key and the value."""


@dataclass(frozen=True, slots=True)
class ProxyRule:
    """One rule; see the module's text. `method` and `text` are patterns, None fits all. Times in seconds."""

    id: str
    kind: ProxyKind
    method: str | None = None
    text: str | None = None
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
    return not is_over({"times": rule.times, "for_seconds": rule.for_seconds}, history.hits, now - history.since)


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
    # list_hides looks at the workflows of the answer, not at the query.
    shown = rule.kind is ProxyKind.LIST_HIDES or fits(rule.text, call.subject)
    return shown and fits(rule.method, call.method, whole=True)


def _rule(entry: Any) -> ProxyRule:
    try:
        match = LANGUAGE.check(entry)
    except FaultRuleError as error:
        raise ProxyFaultError(f"rule {entry!r}: {error}") from error
    if entry["kind"] == ProxyKind.LIST_HIDES and not match.get("text"):
        raise ProxyFaultError(f"rule {entry['id']!r}: list_hides needs a pattern `text` of the ids to hide")
    plain = {key: value for key, value in entry.items() if key != "match" and value is not None}
    return ProxyRule(**(plain | match | {"kind": ProxyKind(entry["kind"])}))
