"""Which fault applies to a workflow run or to a Job. Pure: rules, limits and a request in, a directive out.

Faults file (JSON): `{"rules": [{"id": "a", "kind": "fail", "customer": "acme", "times": 1}], "limits": {}}`.
Rule keys: id and kind (required); customer, profile (all when absent); start, end (UTC days, half-open; the
rule matches a request whose range overlaps it); times (runs that it hits, all when absent);
min_conversations; seconds (slow: per batch); share (drop); message (fail, terminate, deadlock); attempts (how
many attempts of the activity fail, 0 = all).
Limit keys: max_conversations (more in one run ends by heartbeat time-out), max_parallel (more runs at once in
one worker end by deadlock); 0 = no limit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from enum import StrEnum
from typing import Any

from sandbox.data.generate import day_ms
from sandbox.reindexer.model import Directive

DEADLOCK_TEXT = "ERROR: deadlock detected (SQLSTATE 40P01)"
"""The text of Postgres for error 40P01, as its Go client prints it."""


class Kind(StrEnum):
    """What a rule does."""

    HEARTBEAT_TIMEOUT = "heartbeat_timeout"
    START_TO_CLOSE_TIMEOUT = "start_to_close_timeout"
    DEADLOCK = "deadlock"
    FAIL = "fail"
    CANCEL = "cancel"
    TERMINATE = "terminate"
    CONTINUE_AS_NEW = "continue_as_new"
    SLOW = "slow"
    DROP = "drop"
    HOLD = "hold"
    JOB_FAIL = "job_fail"
    JOB_FAIL_AFTER_START = "job_fail_after_start"
    JOB_SILENT = "job_silent"


FAILURES = frozenset(
    {
        Kind.HEARTBEAT_TIMEOUT,
        Kind.START_TO_CLOSE_TIMEOUT,
        Kind.DEADLOCK,
        Kind.FAIL,
        Kind.CANCEL,
        Kind.TERMINATE,
        Kind.CONTINUE_AS_NEW,
    }
)
"""Kinds that end a run; only the first matching one applies."""

MODIFIERS = frozenset({Kind.SLOW, Kind.DROP, Kind.HOLD})
"""Kinds that change a run and may be combined with a failure."""

JOB_KINDS = frozenset({Kind.JOB_FAIL, Kind.JOB_FAIL_AFTER_START, Kind.JOB_SILENT})
"""Kinds that the Job's container obeys: exit 1 before or after the starts, or no log lines."""


class FaultFileError(ValueError):
    """A faults file that cannot be understood; the text names the rule, the key and the value."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a faults file; see the module's text for the meaning of each field."""

    id: str
    kind: Kind
    customer: str | None = None
    profile: str | None = None
    start: date | None = None
    end: date | None = None
    times: int | None = None
    min_conversations: int = 0
    seconds: float = 0.0
    share: float = 0.0
    message: str = ""
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one worker; 0 means no limit."""

    max_conversations: int = 0
    max_parallel: int = 0


@dataclass(frozen=True, slots=True)
class FaultSet:
    """Content of a faults file; limits None where the file does not set them."""

    rules: tuple[Rule, ...] = ()
    max_conversations: int | None = None
    max_parallel: int | None = None

    def limits(self, default: Limits) -> Limits:
        """The worker's limits with those of the file put over them."""
        return Limits(
            default.max_conversations if self.max_conversations is None else self.max_conversations,
            default.max_parallel if self.max_parallel is None else self.max_parallel,
        )


@dataclass(frozen=True, slots=True)
class Request:
    """What rules are matched against: range in UTC milliseconds, start inclusive, end exclusive.

    conversations: of this range. profile None stands for a Job, which covers all profiles of its customer.
    """

    customer: str
    profile: str | None
    start_ms: int
    end_ms: int
    conversations: int = 0


def parse_faults(text: str) -> FaultSet:
    """Text of a faults file -> rules and limits; blank text means none. Raises FaultFileError."""
    if not text.strip():
        return FaultSet()
    try:
        document = json.loads(text)
    except ValueError as error:
        raise FaultFileError(f"not JSON: {error}") from error
    if not isinstance(document, dict) or not document.keys() <= {"rules", "limits"}:
        raise FaultFileError('must be an object with "rules" and "limits" only')
    rules = tuple(_rule(entry) for entry in document.get("rules", []))
    ids = [rule.id for rule in rules]
    if len(set(ids)) != len(ids):
        raise FaultFileError(f"rule ids must differ: {ids}")
    limits = document.get("limits", {})
    if not limits.keys() <= {"max_conversations", "max_parallel"}:
        raise FaultFileError(f"limits {sorted(limits)}: known are max_conversations and max_parallel")
    for name, value in limits.items():
        _check(name, value, "limits", lambda number: isinstance(number, int) and number >= 0, "0 or more")
    return FaultSet(rules, limits.get("max_conversations"), limits.get("max_parallel"))


def matches(rule: Rule, request: Request, used: int) -> bool:
    """Whether the rule hits the request, when it has hit `used` other runs before."""
    return (
        rule.customer in (None, request.customer)
        and (rule.profile is None or request.profile in (None, rule.profile))
        and (rule.start is None or request.end_ms > day_ms(rule.start))
        and (rule.end is None or request.start_ms < day_ms(rule.end))
        and (rule.times is None or used < rule.times)
        and request.conversations >= rule.min_conversations
    )


def decide(request: Request, faults: FaultSet, used: Mapping[str, int], limits: Limits) -> Directive:
    """The directive for one workflow run: the first matching failure and the first rule of each modifier.

    used: how many other runs each rule has hit. Without a failing rule, a run with more conversations than
    the limit ends by heartbeat time-out.
    """
    hits = [rule for rule in faults.rules if matches(rule, request, used.get(rule.id, 0))]
    failure = next((rule for rule in hits if rule.kind in FAILURES), None)
    slow, drop, hold = (_first(hits, kind) for kind in (Kind.SLOW, Kind.DROP, Kind.HOLD))
    too_big = 0 < limits.max_conversations < request.conversations
    return Directive(
        failure=failure.kind.value if failure else Kind.HEARTBEAT_TIMEOUT.value if too_big else "",
        message=failure.message if failure else "",
        attempts=failure.attempts if failure else 0,
        seconds_per_batch=slow.seconds if slow else 0.0,
        drop_share=drop.share if drop else 0.0,
        hold_rule=hold.id if hold else "",
        fired=[rule.id for rule in (failure, slow, drop, hold) if rule],
    )


def decide_job(request: Request, faults: FaultSet, used: Mapping[str, int]) -> Rule | None:
    """The first rule for the Job's container that matches, None when there is none."""
    hits = (rule for rule in faults.rules if rule.kind in JOB_KINDS)
    return next((rule for rule in hits if matches(rule, request, used.get(rule.id, 0))), None)


def deadlocks(running: int, limits: Limits) -> bool:
    """Whether a run that starts as one of `running` (itself counted) ends by deadlock."""
    return 0 < limits.max_parallel < running


def is_dropped(index: int, share: float) -> bool:
    """Whether the scorecard number `index` (from 0) is silently lost; of n the share is lost, rounded down.

    >>> sum(is_dropped(i, 0.1) for i in range(100))
    10
    """
    return int((index + 1) * share + 1e-9) > int(index * share + 1e-9)


def _first(rules: Iterable[Rule], kind: Kind) -> Rule | None:
    return next((rule for rule in rules if rule.kind is kind), None)


def _rule(entry: Any) -> Rule:
    known = {field.name for field in fields(Rule)}
    if not isinstance(entry, dict) or not {"id", "kind"} <= entry.keys() <= known:
        raise FaultFileError(f"rule {entry!r}: needs id and kind; known keys: {', '.join(sorted(known))}")
    where = f"rule {entry['id']!r}"
    if entry["kind"] not in list(Kind):
        raise FaultFileError(f"{where}: kind {entry['kind']!r} is unknown; known: {', '.join(Kind)}")
    for name in ("times", "min_conversations", "attempts", "seconds", "share"):
        if entry.get(name) is not None:
            _check(name, entry[name], where, lambda n: isinstance(n, int | float) and n >= 0, "0 or more")
    _check("share", entry.get("share", 0), where, lambda number: number <= 1, "at most 1")
    values = dict(entry, kind=Kind(entry["kind"]))
    for name in ("start", "end"):
        if values.get(name) is not None:
            values[name] = _day(values[name], name, where)
    return Rule(**values)


def _day(text: Any, name: str, where: str) -> date:
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise FaultFileError(f"{where}: {name} is {text!r}, must be a day like 2026-01-31") from error


def _check(name: str, value: Any, where: str, valid: Callable[[Any], bool], wanted: str) -> None:
    if isinstance(value, bool) or not valid(value):
        raise FaultFileError(f"{where}: {name} is {value!r}, must be {wanted}")


def used_by_others(log: Sequence[Mapping[str, str]], run: str) -> dict[str, int]:
    """Count, per rule id, the different runs in the log of hits other than `run`."""
    runs: dict[str, set[str]] = {}
    for entry in log:
        if entry["run"] != run:
            runs.setdefault(entry["rule"], set()).add(entry["run"])
    return {rule: len(others) for rule, others in runs.items()}
