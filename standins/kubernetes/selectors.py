"""Label selectors (the full grammar) and field selectors, as pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from standins.kubernetes.errors import bad_request
from standins.kubernetes.resources import Obj, ResourceType

_KEY = r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_SET = re.compile(rf"\s*({_KEY})\s+(in|notin)\s*\(([^()]*)\)\s*")
_EQUAL = re.compile(rf"\s*({_KEY})\s*(==|=|!=)\s*({_VALUE})\s*")
_EXISTS = re.compile(rf"\s*(!?)\s*({_KEY})\s*")
_FIELD = re.compile(r"^([A-Za-z.]+)(==|=|!=)(.*)$")
_COMMON_FIELDS = frozenset({"metadata.name", "metadata.namespace"})
# Sources: pkg/apis/core/v1/conversion.go and pkg/registry/batch/job/strategy.go of Kubernetes.
_MORE_FIELDS: Mapping[str, frozenset[str]] = {
    "Pod": frozenset(
        {
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
        }
    ),
    "Job": frozenset({"status.successful"}),
    "Namespace": frozenset({"status.phase"}),
    "Secret": frozenset({"type"}),
    "Event": frozenset(
        {f"involvedObject.{f}" for f in ("kind", "name", "namespace", "uid", "apiVersion", "fieldPath")}
        | {"reason", "type", "reportingComponent", "source"}
    ),
}


@dataclass(frozen=True)
class Requirement:
    """One part of a label selector. ``operator`` is one of in, notin, exists, absent."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels meet this part; ``notin`` also holds when the key is absent."""
        if self.operator == "exists":
            return self.key in labels
        if self.operator == "absent":
            return self.key not in labels
        if self.operator == "in":
            return self.key in labels and labels[self.key] in self.values
        return self.key not in labels or labels[self.key] not in self.values


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """The parts of a label selector; empty for an empty text. Raises StatusError 400 for a bad one."""
    requirements: list[Requirement] = []
    position = 0
    while position < len(text.rstrip()):
        requirement, position = _next_requirement(text, position)
        requirements.append(requirement)
        if position < len(text):
            if text[position] != "," or not text[position + 1 :].strip():
                raise _bad_labels(text, position)
            position += 1
    return tuple(requirements)


def _next_requirement(text: str, position: int) -> tuple[Requirement, int]:
    if found := _SET.match(text, position):
        values = frozenset(value.strip() for value in found[3].split(","))
        if all(re.fullmatch(_VALUE, value) for value in values):
            return Requirement(found[1], found[2], values), found.end()
    if found := _EQUAL.match(text, position):
        operator = "notin" if found[2] == "!=" else "in"
        return Requirement(found[1], operator, frozenset({found[3]})), found.end()
    if found := _EXISTS.match(text, position):
        return Requirement(found[2], "absent" if found[1] else "exists"), found.end()
    raise _bad_labels(text, position)


def _bad_labels(text: str, position: int) -> Exception:
    return bad_request(
        f'unable to parse requirement: found "{text[position:]}" at {position} in label selector "{text}"'
    )


def labels_match(requirements: tuple[Requirement, ...], labels: Mapping[str, str]) -> bool:
    """Whether all parts hold for the labels."""
    return all(requirement.matches(labels) for requirement in requirements)


def equalities(requirements: tuple[Requirement, ...]) -> dict[str, str]:
    """The labels that a selector fixes to one value each."""
    return {r.key: next(iter(r.values)) for r in requirements if r.operator == "in" and len(r.values) == 1}


def parse_fields(text: str, resource: ResourceType) -> tuple[tuple[str, bool, str], ...]:
    """The parts (field, wanted equal, value) of a field selector.

    Raises StatusError 400 for a bad or unknown one.
    """
    parts: list[tuple[str, bool, str]] = []
    known = _COMMON_FIELDS | _MORE_FIELDS.get(resource.kind, frozenset())
    for item in filter(None, text.split(",")):
        found = _FIELD.match(item)
        if not found:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{item}'")
        if found[1] not in known:
            raise bad_request(
                f'Unable to find "{resource.api_version}, Resource={resource.plural}" that match '
                f'label selector "", field selector "{text}": field label not supported: {found[1]}'
            )
        parts.append((found[1], found[2] != "!=", found[3]))
    return tuple(parts)


def fields_match(parts: tuple[tuple[str, bool, str], ...], obj: Obj) -> bool:
    """Whether all parts hold for the object; a missing field counts as the empty string."""
    return all((_field(obj, path) == value) is equal for path, equal, value in parts)


def _field(obj: Obj, path: str) -> str:
    if path == "status.successful":
        return str(obj.get("status", {}).get("succeeded", 0))
    if path == "source":
        return str(obj.get("source", {}).get("component", ""))
    value: object = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value)
