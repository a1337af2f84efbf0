"""Label selectors without sets (``in``, ``notin``), and field selectors by equality, as pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from standins.kubernetes.errors import StatusError, bad_request
from standins.kubernetes.resources import Obj

_KEY = r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_REQUIREMENT = re.compile(rf"\s*(?:(!?)\s*({_KEY})|({_KEY})\s*(==|=|!=)\s*({_VALUE}))\s*")
_FIELDS = ("metadata.name", "involvedObject.name", "involvedObject.uid")


@dataclass(frozen=True)
class Requirement:
    """One part of a label selector: the label has this value (None: any), or not, if it is not ``wanted``."""

    key: str
    value: str | None
    wanted: bool

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels meet this part; ``!=`` also holds when the key is absent."""
        return (self.key in labels and self.value in (None, labels[self.key])) is self.wanted


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """The parts of a label selector; empty for an empty text. Raises StatusError 400 for one that cannot be read."""
    return tuple(_requirement(part, text) for part in text.split(",")) if text.strip() else ()


def _requirement(part: str, text: str) -> Requirement:
    found = _REQUIREMENT.fullmatch(part)
    if found is None:
        raise bad_request(f'unable to parse requirement: found "{part}" in label selector "{text}" (sets are not read)')
    if found[2]:
        return Requirement(found[2], None, not found[1])
    return Requirement(found[3], found[5], found[4] != "!=")


def labels_match(requirements: tuple[Requirement, ...], labels: Mapping[str, str]) -> bool:
    """Whether all parts hold for the labels."""
    return all(requirement.matches(labels) for requirement in requirements)


def equalities(text: str) -> dict[str, str]:
    """The labels that a selector fixes to one value each; none for a selector that cannot be read."""
    try:
        return {r.key: r.value for r in parse_labels(text) if r.wanted and r.value is not None}
    except StatusError:
        return {}


def parse_fields(text: str) -> dict[str, str]:
    """The values that a field selector asks for. Raises StatusError 400 for another operator or field."""
    wanted = {}
    for part in filter(None, text.split(",")):
        field, equal, value = part.partition("=")
        if not equal or field not in _FIELDS:
            raise bad_request(f"field label not supported: {part!r} (the sandbox reads {', '.join(_FIELDS)} with =)")
        wanted[field] = value.removeprefix("=")
    return wanted


def fields_match(wanted: Mapping[str, str], obj: Obj) -> bool:
    """Whether the object has all these values; a missing field counts as the empty string."""
    for field, value in wanted.items():
        part, _, key = field.partition(".")
        if obj.get(part, {}).get(key, "") != value:
            return False
    return True
