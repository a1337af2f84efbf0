"""Faults that tests switch on: rules, and the pure decision which of them applies to a request or an object.

A rule is a JSON object: ``{"kind": ..., "match": {...}, "times": N, "for_seconds": S, ...}``. Without
``times`` and ``for_seconds`` it holds until it is cleared. ``for_seconds`` is the life of the rule from the
moment it is set, ``seconds`` the length of one effect (delay, held pod, slow pull). A rule on an object
stays with the objects it caught while it lives, and catching one counts once.

Patterns in ``match``: ``path`` is searched; ``name``, ``namespace`` and the values of ``labels`` and
``env`` must match as a whole. ``name``, ``labels`` and ``env`` look at the object of the request: the body
of a POST, the stored object, or the Job that a list of pods names by its job-name label. A pod stands for
its Job: name and env are the Job's.

Kinds on requests: ``stored_then_500`` (``status`` and ``message`` may change it) and ``stored_then_cut`` do
what was asked and lose the answer, ``stored_then_hang`` does it and holds the answer back; ``conflict_own``
does it and says 409; ``conflict_foreign`` puts a Job of somebody else under the name first; ``error`` answers
``status`` (with ``retry_after`` seconds) and does nothing; ``unauthorized`` answers 401 until a new token is
made; ``delay`` and ``hang`` hold the request; ``mutate`` merges ``patch`` into the body, as an admission
webhook does (parallelism 0 or 3, suspend); ``empty_pod_list`` hides pods.
Kinds on objects: ``no_pod`` and ``image_pull_backoff`` hold a Job or pod for ``seconds``; ``fail_container`` ends
a container with ``exit_code`` and ``log`` without running its program, once per run of it; ``exit_without_running``
does so with code 0; ``hang_container`` puts a program there that sleeps (for ``seconds``, then ``exit_code``);
``pod_extra_failed`` lets the first pod of a Job fail; ``pod_gone`` removes a pod when its end was counted;
``job_gone`` removes a Job ``seconds`` after it was ``when`` finished or active.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from standins.kubernetes.resources import Obj

REQUEST_KINDS = frozenset(
    {
        "stored_then_500",
        "stored_then_cut",
        "stored_then_hang",
        "error",
        "unauthorized",
        "conflict_own",
        "conflict_foreign",
        "mutate",
        "delay",
        "hang",
        "empty_pod_list",
    }
)
"""Applied when a request arrives."""
OBJECT_KINDS = frozenset(
    {
        "no_pod",
        "image_pull_backoff",
        "pod_gone",
        "job_gone",
        "fail_container",
        "exit_without_running",
        "hang_container",
        "pod_extra_failed",
    }
)
"""Applied by the Job controller and the kubelet."""
_DEFAULT_MATCH: Mapping[str, Mapping[str, str]] = {
    "stored_then_500": {"method": "POST", "path": "/jobs$"},
    "stored_then_cut": {"method": "POST", "path": "/jobs$"},
    "stored_then_hang": {"method": "POST", "path": "/jobs$"},
    "conflict_own": {"method": "POST", "path": "/jobs$"},
    "conflict_foreign": {"method": "POST", "path": "/jobs$"},
    "mutate": {"method": "POST", "path": "/jobs$"},
    "empty_pod_list": {"method": "GET", "path": "/pods$"},
}
_FIRST_KINDS = frozenset({"delay", "mutate"})
"""All of these act on a request, then one of another kind."""
_MATCH_FIELDS = frozenset({"method", "path", "name", "namespace", "labels", "env"})


class FaultRuleError(ValueError):
    """A rule that cannot be used; the text names the field and its value."""


@dataclass(frozen=True)
class Subject:
    """The object that a rule looks at. ``env`` has the plain values of all containers."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    env: Mapping[str, str]


@dataclass(frozen=True)
class RequestFacts:
    """A request as the rules see it; ``subject`` is None if it has no object."""

    method: str
    path: str
    subject: Subject | None


@dataclass(frozen=True)
class Match:
    """Patterns that must all hold; None or empty means any."""

    method: str | None = None
    path: str | None = None
    name: str | None = None
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs_subject(self) -> bool:
        """Whether a request without an object cannot match."""
        return bool(self.name or self.namespace or self.labels or self.env)


@dataclass(frozen=True)
class Rule:
    """One fault. Seconds are wall-clock; ``status`` is an HTTP status; ``when`` is for job_gone."""

    kind: str
    match: Match = Match()
    times: int | None = None
    for_seconds: float | None = None
    seconds: float | None = None
    status: int = 500
    reason: str = ""
    message: str = ""
    retry_after: int | None = None
    exit_code: int = 1
    log: str = ""
    when: str = "finished"
    patch: Mapping[str, Any] = field(default_factory=dict)


def parse_rule(raw: Mapping[str, Any]) -> Rule:
    """The rule of a JSON object. Raises FaultRuleError for an unknown kind or field or a bad pattern."""
    kind = raw.get("kind")
    if kind not in REQUEST_KINDS | OBJECT_KINDS:
        raise FaultRuleError(f"kind {kind!r} is unknown; known: {', '.join(sorted(REQUEST_KINDS | OBJECT_KINDS))}")
    unknown = set(raw) - {f.name for f in fields(Rule)}
    if unknown:
        raise FaultRuleError(f"unknown fields {sorted(unknown)} in a rule of kind {kind}")
    values = {key: value for key, value in raw.items() if key != "match"}
    rule = Rule(match=_parse_match(str(kind), raw.get("match", {})), **values)
    _check_values(rule)
    return rule


def _check_values(rule: Rule) -> None:
    for name in ("times", "for_seconds", "seconds", "retry_after"):
        value = getattr(rule, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
            raise FaultRuleError(f"{name} is {value!r}; it must be a number from 0 up")
    for name, least, most in (("status", 400, 599), ("exit_code", 0, 255)):
        value = getattr(rule, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise FaultRuleError(f"{name} is {value!r}; it must be a number from {least} to {most}")
    for name in ("reason", "message", "log"):
        if not isinstance(getattr(rule, name), str):
            raise FaultRuleError(f"{name} is {getattr(rule, name)!r}; it must be a text")
    if rule.when not in ("finished", "active"):
        raise FaultRuleError(f"when is {rule.when!r}; it must be finished or active")
    if not isinstance(rule.patch, Mapping) or (rule.kind == "mutate") != bool(rule.patch):
        raise FaultRuleError(f"patch is {rule.patch!r}; mutate needs an object to merge, no other kind takes one")


def _parse_match(kind: str, raw: Mapping[str, Any]) -> Match:
    unknown = set(raw) - _MATCH_FIELDS
    if unknown:
        raise FaultRuleError(f"unknown fields {sorted(unknown)} in match; known: {sorted(_MATCH_FIELDS)}")
    if kind in OBJECT_KINDS and ("method" in raw or "path" in raw):
        raise FaultRuleError(f"{kind} looks at objects: match on name, namespace, labels or env")
    match = Match(**{**_DEFAULT_MATCH.get(kind, {}), **raw})
    for pattern in (match.path, match.name, match.namespace, *match.labels.values(), *match.env.values()):
        try:
            re.compile(pattern or "")
        except (re.error, TypeError) as error:
            raise FaultRuleError(f"pattern {pattern!r} is not a regular expression: {error}") from error
    return match


def subject_matches(match: Match, subject: Subject) -> bool:
    """Whether the object meets name, namespace, labels and env."""
    return (
        _whole(match.name, subject.name)
        and _whole(match.namespace, subject.namespace)
        and all(_whole(pattern, subject.labels.get(key)) for key, pattern in match.labels.items())
        and all(_whole(pattern, subject.env.get(key)) for key, pattern in match.env.items())
    )


def _whole(pattern: str | None, value: str | None) -> bool:
    return pattern is None or (value is not None and re.fullmatch(pattern, value) is not None)


def request_matches(match: Match, facts: RequestFacts) -> bool:
    """Whether the request meets all patterns; HEAD and GET differ, the method's case does not count."""
    if match.method is not None and match.method.upper() != facts.method.upper():
        return False
    if match.path is not None and re.search(match.path, facts.path) is None:
        return False
    if not match.needs_subject:
        return True
    return facts.subject is not None and subject_matches(match, facts.subject)


@dataclass
class ActiveRule:
    """A rule that was set, with what it has caught. ``since`` is a monotonic time in seconds."""

    number: int
    rule: Rule
    since: float
    hits: int = 0
    caught: set[str] = field(default_factory=set)

    def alive(self, now: float) -> bool:
        """Whether its life is not over; a rule that is used up is still alive for what it caught."""
        return self.rule.for_seconds is None or now - self.since < self.rule.for_seconds

    def used_up(self) -> bool:
        """Whether it may not catch anything more."""
        return self.rule.times is not None and self.hits >= self.rule.times


class FaultBook:
    """The rules that are set, in their order. All times are given by the caller."""

    def __init__(self) -> None:
        self._rules: list[ActiveRule] = []
        self._next = 1

    def add(self, rule: Rule, now: float) -> int:
        """Set a rule; returns its number."""
        self._rules.append(ActiveRule(self._next, rule, now))
        self._next += 1
        return self._next - 1

    def clear(self, number: int | None = None, kind: str | None = None) -> int:
        """Drop one rule, the rules of one kind, or all; returns how many."""
        before = len(self._rules)
        self._rules = [
            active
            for active in self._rules
            if (number is not None and active.number != number) or (kind is not None and active.rule.kind != kind)
        ]
        return before - len(self._rules)

    def __bool__(self) -> bool:
        """Whether any rule is set."""
        return bool(self._rules)

    def listing(self, now: float) -> list[Obj]:
        """The rules as JSON: number, kind, hits, whether they still act."""
        return [
            {
                "id": active.number,
                "kind": active.rule.kind,
                "times": active.rule.times,
                "hits": active.hits,
                "active": active.alive(now) and not active.used_up(),
            }
            for active in self._rules
        ]

    def holds(self, number: int, now: float) -> bool:
        """Whether the rule with this number is still set and alive (it may be used up)."""
        return any(active.number == number and active.alive(now) for active in self._rules)

    def take_requests(
        self, facts: RequestFacts, now: float, kinds: Collection[str] = REQUEST_KINDS
    ) -> list[ActiveRule]:
        """The rules of these kinds that act on a request, counted as used: delays and mutations, then one other."""
        taken: list[ActiveRule] = []
        for active in self._rules:
            if active.rule.kind not in kinds or active.used_up() or not active.alive(now):
                continue
            if not request_matches(active.rule.match, facts):
                continue
            decided = any(other.rule.kind not in _FIRST_KINDS for other in taken)
            if active.rule.kind in _FIRST_KINDS or not decided:
                active.hits += 1
                taken.append(active)
        return sorted(taken, key=lambda active: active.rule.kind not in _FIRST_KINDS)

    def take_object(
        self, kind: str, subject: Subject, uid: str, now: float, when: str | None = None
    ) -> ActiveRule | None:
        """The first rule of this kind (and ``when``) that holds the object ``uid`` or catches it now."""
        for active in self._rules:
            if active.rule.kind != kind or not active.alive(now) or when not in (None, active.rule.when):
                continue
            if uid in active.caught:
                return active
            if not active.used_up() and subject_matches(active.rule.match, subject):
                active.hits += 1
                active.caught.add(uid)
                return active
        return None


def subject_of(obj: Obj, pod_spec: Obj | None) -> Subject:
    """The subject of an object; ``pod_spec`` is where its containers are."""
    meta = obj.get("metadata") or {}
    env = {
        str(variable.get("name")): str(variable["value"])
        for container in (pod_spec or {}).get("containers") or []
        for variable in container.get("env") or []
        if variable.get("value") is not None
    }
    return Subject(str(meta.get("name") or ""), str(meta.get("namespace") or ""), meta.get("labels") or {}, env)
