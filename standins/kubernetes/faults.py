"""Faults that tests switch on: rules, and the pure decision which of them applies to a request or an object.

The language is that of standins.faults. A rule on an object stays with the objects it caught while it lives, and
catching one counts once.

Patterns in ``match``: ``path`` is searched; ``method``, ``name``, ``namespace`` and the values of ``labels`` must
fit as a whole. ``name`` and ``labels`` look at the object of the request: the body of a POST, the stored object, or
the Job that a list of pods names by its job-name label. A pod stands for its Job. A plain text is a ``path``.

Kinds on requests: ``stored_then_500`` (``status``, ``reason`` and ``message`` may change it: a 409 AlreadyExists, say)
and ``stored_then_cut`` do what was asked and lose the answer, ``stored_then_hang`` does it and holds the answer back;
``error`` answers ``status`` (with ``reason`` and ``message``, as a full quota or a policy does) and does nothing;
``unauthorized`` answers 401 until a new token is made; ``hang`` holds the request; ``mutate`` merges ``patch`` into the
body, as an admission webhook does (parallelism 0 or 3, suspend); ``empty_pod_list`` hides pods.
Kinds on objects: ``no_pod`` and ``image_pull_backoff`` hold a Job or pod for ``seconds``; ``fail_container`` ends a
pod's containers with ``exit_code`` and ``log`` without running their program; ``hang_container`` puts a program there
that sleeps; ``pod_gone`` removes a pod when its end was counted; ``job_gone`` removes a Job that has been active for
``seconds``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from standins.faults import SECONDS, Field, Kind, Language, fits, kinds
from standins.kubernetes.resources import Obj

_ANSWER = {"status": Field(int, 400, 599), "reason": Field(str), "message": Field(str)}
_RUN = {"exit_code": Field(int, 0, 255), "log": Field(str)}
_HELD = {"seconds": SECONDS}
_CREATE = {"method": "POST", "path": "/jobs$"}
_REQUESTS: Mapping[str, Kind] = {
    "stored_then_500": Kind(_ANSWER, match=_CREATE),
    "stored_then_hang": Kind(_HELD, match=_CREATE),
    "stored_then_cut": Kind(match=_CREATE),
    "mutate": Kind({"patch": Field(dict)}, ("patch",), _CREATE),
    "error": Kind(_ANSWER),
    "unauthorized": Kind(),
    "hang": Kind(_HELD),
    "empty_pod_list": Kind(match={"method": "GET", "path": "/pods$"}),
}
_OBJECTS: Mapping[str, Kind] = {
    **kinds(("fail_container", "hang_container"), fields=_RUN, without=("method", "path")),
    **kinds(("no_pod", "image_pull_backoff", "job_gone"), fields=_HELD, without=("method", "path")),
    "pod_gone": Kind(without=("method", "path")),
}
REQUEST_KINDS = frozenset(_REQUESTS)
"""Applied when a request arrives."""
LANGUAGE = Language({**_REQUESTS, **_OBJECTS}, ("method", "path", "name", "namespace", "labels.*"), main="path")


@dataclass(frozen=True)
class Subject:
    """The object that a rule looks at."""

    name: str = ""
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def subject_of(obj: Obj) -> Subject:
    """The subject of an object as it is stored or sent."""
    meta = obj.get("metadata") or {}
    return Subject(str(meta.get("name") or ""), str(meta.get("namespace") or ""), meta.get("labels") or {})


@dataclass
class Rule:
    """One fault that was set, and what it has caught.

    ``since`` and the values of ``caught`` (by uid) are monotonic times in seconds; ``status`` is an HTTP status.
    """

    number: int
    since: float
    kind: str
    match: Mapping[str, Any] = field(default_factory=dict)
    times: int | None = None
    for_seconds: float | None = None
    seconds: float | None = None
    status: int = 500
    reason: str = ""
    message: str = ""
    exit_code: int = 1
    log: str = ""
    patch: Mapping[str, Any] = field(default_factory=dict)
    hits: int = 0
    caught: dict[str, float] = field(default_factory=dict)

    def alive(self, now: float) -> bool:
        """Whether its life is not over; a rule that is used up is still alive for what it caught."""
        return self.for_seconds is None or now - self.since < self.for_seconds

    def used_up(self) -> bool:
        """Whether it may not catch anything more."""
        return self.times is not None and self.hits >= self.times

    def fits(self, subject: Subject | None, **request: str) -> bool:
        """Whether an object and a request (its method and path) meet all patterns; no object meets none on objects."""
        facts: Mapping[str, Any] = {**(vars(subject) if subject else {}), **request}
        return all(
            all(fits(part, facts.get(key, {}).get(name), whole=True) for name, part in pattern.items())
            if isinstance(pattern, Mapping)
            else fits(pattern, facts.get(key), whole=key != "path")
            for key, pattern in self.match.items()
        )


class FaultBook:
    """The rules that are set, in their order. ``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rules: list[Rule] = []
        self._next = 1

    def add(self, *raws: Mapping[str, Any]) -> list[int]:
        """Set rules, all or none; returns their numbers. Raises FaultRuleError."""
        matches = [LANGUAGE.check(raw) for raw in raws]
        first = self._next
        for raw, match in zip(raws, matches, strict=True):
            given = {key: value for key, value in raw.items() if value is not None}
            self._rules.append(Rule(self._next, self._clock(), **{**given, "match": match}))
            self._next += 1
        return list(range(first, self._next))

    def clear(self, number: int | None = None, kind: str | None = None) -> int:
        """Drop one rule, the rules of one kind, or all; returns how many."""
        before = len(self._rules)
        self._rules = [
            rule
            for rule in self._rules
            if (number is not None and rule.number != number) or (kind is not None and rule.kind != kind)
        ]
        return before - len(self._rules)

    def __bool__(self) -> bool:
        """Whether any rule is set."""
        return bool(self._rules)

    def listing(self) -> list[Obj]:
        """The rules as JSON: number, kind, hits, whether they still act."""
        now = self._clock()
        return [
            {"id": rule.number, "kind": rule.kind, "times": rule.times, "hits": rule.hits}
            | {"active": rule.alive(now) and not rule.used_up()}
            for rule in self._rules
        ]

    def stands(self, rule: Rule) -> bool:
        """Whether a rule is still set and alive (it may be used up)."""
        return rule in self._rules and rule.alive(self._clock())

    def take_requests(
        self, subject: Subject | None, method: str, path: str, kinds: Collection[str] = REQUEST_KINDS
    ) -> list[Rule]:
        """The rules of these kinds that act on a request, counted as used: all mutations, then one other."""
        mutations: list[Rule] = []
        others: list[Rule] = []
        for rule in self._rules:
            if rule.kind not in kinds or rule.used_up() or not rule.alive(self._clock()):
                continue
            taken = mutations if rule.kind == "mutate" else others
            if (taken is mutations or not others) and rule.fits(subject, method=method, path=path):
                rule.hits += 1
                taken.append(rule)
        return mutations + others

    def take_object(self, kind: str, subject: Subject, uid: str) -> Rule | None:
        """The first rule of this kind that holds the object ``uid`` or catches it now."""
        for rule in self._rules:
            if rule.kind != kind or not rule.alive(self._clock()):
                continue
            if uid not in rule.caught and not rule.used_up() and rule.fits(subject):
                rule.hits += 1
                rule.caught[uid] = self._clock()
            if uid in rule.caught:
                return rule
        return None

    def holds(self, kind: str, subject: Subject, uid: str) -> bool:
        """Whether a rule of this kind holds the object now: for its ``seconds`` from the catch, or for ever."""
        rule = self.take_object(kind, subject, uid)
        return rule is not None and (rule.seconds is None or self._clock() - rule.caught[uid] < rule.seconds)

    def strikes(self, kind: str, subject: Subject, uid: str) -> bool:
        """Whether a rule of this kind takes the object away now: when its ``seconds`` from the catch are over."""
        rule = self.take_object(kind, subject, uid)
        return rule is not None and self._clock() - rule.caught[uid] >= (rule.seconds or 0)
