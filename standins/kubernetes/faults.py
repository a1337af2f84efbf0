"""Faults that tests switch on: rules, and the pure decision which of them applies to a request or an object.

The language is that of standins.faults. A rule on an object stays with the objects it caught while it lives, and
catching one counts once.

Patterns in ``match``: ``path`` is searched; ``method``, ``name``, ``namespace`` and the values of ``labels`` and
``env`` must fit as a whole. ``name``, ``labels`` and ``env`` look at the object of the request: the body
of a POST, the stored object, or the Job that a list of pods names by its job-name label. A pod stands for
its Job: name and env are the Job's. A plain text is a ``path``.

Kinds on requests: ``stored_then_500`` (``status`` and ``message`` may change it) and ``stored_then_cut`` do
what was asked and lose the answer, ``stored_then_hang`` does it and holds the answer back; ``conflict_own``
does it and says 409; ``conflict_foreign`` puts a Job of somebody else under the name first; ``error`` answers
``status`` (with ``reason`` and ``message``, as a full quota or a policy does) and does nothing; ``unauthorized``
answers 401 until a new token is made; ``hang`` holds the request; ``mutate`` merges ``patch`` into the body, as an
admission webhook does (parallelism 0 or 3, suspend); ``empty_pod_list`` hides pods.
Kinds on objects: ``inject_container`` puts ``inject`` in front of the containers of new pods, as a service mesh does;
``no_pod`` and ``image_pull_backoff`` hold a Job or pod for ``seconds``; ``fail_container`` ends a container
(``container``: only the one of this name) with ``exit_code`` and ``log`` without running its program;
``hang_container`` puts a program there that sleeps (for ``seconds``, then ``exit_code``); ``pod_gone`` removes a pod
when its end was counted; ``job_gone`` removes a Job ``seconds`` after it was ``when`` finished or active.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from standins.faults import SECONDS, FaultRuleError, Field, Kind, Language, fits, kinds
from standins.kubernetes.resources import Obj

Match = Mapping[str, Any]
"""Patterns by name that must all hold, as in a rule's JSON."""
_ANSWER = {
    "status": Field(int, 400, 599),
    "reason": Field(str),
    "message": Field(str),
}
_RUN = {"exit_code": Field(int, 0, 255), "log": Field(str), "container": Field(str), "seconds": SECONDS}
_HELD = {"seconds": SECONDS}
_CREATE = {"method": "POST", "path": "/jobs$"}
_REQUESTS: Mapping[str, Kind] = {
    "stored_then_500": Kind(_ANSWER, match=_CREATE),
    "stored_then_hang": Kind(_HELD, match=_CREATE),
    **kinds(("stored_then_cut", "conflict_own", "conflict_foreign"), match=_CREATE),
    "mutate": Kind({"patch": Field(dict)}, ("patch",), _CREATE),
    "error": Kind(_ANSWER),
    "unauthorized": Kind(),
    "hang": Kind(_HELD),
    "empty_pod_list": Kind(match={"method": "GET", "path": "/pods$"}),
}
_OBJECTS: Mapping[str, Kind] = {
    **kinds(("fail_container", "hang_container"), fields=_RUN, without=("method", "path")),
    "no_pod": Kind(_HELD, without=("method", "path")),
    "image_pull_backoff": Kind(_HELD, without=("method", "path")),
    "inject_container": Kind({"inject": Field(dict)}, ("inject",), without=("method", "path")),
    "pod_gone": Kind(without=("method", "path")),
    "job_gone": Kind(_HELD | {"when": Field(str, choices=("finished", "active"))}, without=("method", "path")),
}
REQUEST_KINDS = frozenset(_REQUESTS)
"""Applied when a request arrives."""
LANGUAGE = Language(
    {**_REQUESTS, **_OBJECTS}, ("method", "path", "name", "namespace", "labels.*", "env.*"), main="path"
)


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
class Rule:
    """One fault. Seconds are wall-clock; ``status`` is an HTTP status; ``when`` is for job_gone."""

    kind: str
    match: Match = field(default_factory=dict)
    times: int | None = None
    for_seconds: float | None = None
    seconds: float | None = None
    status: int = 500
    reason: str = ""
    message: str = ""
    exit_code: int = 1
    log: str = ""
    when: str = "finished"
    patch: Mapping[str, Any] = field(default_factory=dict)
    inject: Mapping[str, Any] = field(default_factory=dict)
    container: str = ""


def parse_rule(raw: Mapping[str, Any]) -> Rule:
    """The rule of a JSON object. Raises FaultRuleError."""
    match = LANGUAGE.check(raw)
    rule = Rule(match=match, **{key: value for key, value in raw.items() if key != "match" and value is not None})
    if rule.kind == "inject_container" and not rule.inject.get("name"):
        raise FaultRuleError(f"inject_container: field 'inject' cannot be {rule.inject!r}: it must be a container")
    return rule


def subject_matches(match: Match, subject: Subject) -> bool:
    """Whether the object meets name, namespace, labels and env."""
    return (
        fits(match.get("name"), subject.name, whole=True)
        and fits(match.get("namespace"), subject.namespace, whole=True)
        and all(fits(pattern, subject.labels.get(key), whole=True) for key, pattern in match.get("labels", {}).items())
        and all(fits(pattern, subject.env.get(key), whole=True) for key, pattern in match.get("env", {}).items())
    )


def request_matches(match: Match, facts: RequestFacts) -> bool:
    """Whether the request meets all patterns; one without an object meets none on objects."""
    if not fits(match.get("method"), facts.method, whole=True) or not fits(match.get("path"), facts.path):
        return False
    if set(match) <= {"method", "path"}:
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
        """The rules of these kinds that act on a request, counted as used: all mutations, then one other."""
        mutations: list[ActiveRule] = []
        others: list[ActiveRule] = []
        for active in self._rules:
            if active.rule.kind not in kinds or active.used_up() or not active.alive(now):
                continue
            taken = mutations if active.rule.kind == "mutate" else others
            if (taken is mutations or not others) and request_matches(active.rule.match, facts):
                active.hits += 1
                taken.append(active)
        return mutations + others

    def take_object(
        self, kind: str, subject: Subject, uid: str, now: float, when: str | None = None, container: str = ""
    ) -> ActiveRule | None:
        """The first rule of this kind (and ``when``) that holds the object ``uid`` or catches it now."""
        for active in self._rules:
            if active.rule.kind != kind or not active.alive(now) or when not in (None, active.rule.when):
                continue
            if container and active.rule.container not in ("", container):
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
