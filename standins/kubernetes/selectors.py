"""Label selectors without sets (``in``, ``notin``), and field selectors by equality, as pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from standins.kubernetes.errors import bad_request
from standins.kubernetes.resources import Obj

_KEY = r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_REQUIREMENT = re.compile(rf"\s*(?P<absent>!?)\s*(?P<key>{_KEY})\s*(?:(?P<sign>==|=|!=)\s*(?P<value>{_VALUE}))?\s*")
_FIELDS = ("metadata.name", "involvedObject.name", "involvedObject.uid")


def _requirements(text: str) -> list[re.Match[str]]:
    found = []
    for part in text.split(",") if text.strip() else ():
        match = _REQUIREMENT.fullmatch(part)
        if match is None or (match["absent"] and match["sign"]):
            raise bad_request(f'unable to parse requirement "{part}" in label selector "{text}" (sets are not read)')
        found.append(match)
    return found


def labels_match(text: str) -> Callable[[Mapping[str, str]], bool]:
    """Whether labels meet a label selector; ``!=`` also holds when the key is absent. Raises StatusError 400."""
    wanted = _requirements(text)

    def fit(labels: Mapping[str, str]) -> bool:
        return all(
            (one["key"] in labels and one["value"] in (None, labels[one["key"]]))
            is not (one["absent"] == "!" or one["sign"] == "!=")
            for one in wanted
        )

    return fit


def equalities(text: str) -> dict[str, str]:
    """The labels that a selector fixes to one value each. Raises StatusError 400."""
    return {one["key"]: one["value"] for one in _requirements(text) if one["sign"] in ("=", "==")}


def fields_match(text: str) -> Callable[[Obj], bool]:
    """Whether an object has the values of a field selector; a missing field is empty. Raises StatusError 400."""
    wanted = [part.replace("==", "=").partition("=") for part in text.split(",") if part]
    for field, equal, _ in wanted:
        if not equal or field not in _FIELDS:
            raise bad_request(f"field label not supported: {field!r} (the sandbox reads {', '.join(_FIELDS)} with =)")

    def fit(obj: Obj) -> bool:
        places = [(obj.get(field.partition(".")[0], {}), field.partition(".")[2], value) for field, _, value in wanted]
        return all(place.get(key, "") == value for place, key, value in places)

    return fit
