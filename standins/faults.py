"""The language of fault rules, the same for all stand-ins: what goes wrong, for what, how often.

A rule is a JSON object:

    kind          what happens; each stand-in has a table of its kinds
    match         for what it happens: an object of patterns (regular expressions, any case) by the name of what they
                  are held against; all must fit. A plain text is short for the stand-in's main one
    times         how often it happens; then it is used up
    for_seconds   how long it holds, from when it was set
    seconds       how long one effect lasts (a delay, something held back)

and the fields of its kind. Without `times` and `for_seconds` it holds until it is deleted; what it held back goes on
then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Raw = Mapping[str, Any]

FRAME = ("kind", "match", "times", "for_seconds")
_NAMES: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


class FaultRuleError(ValueError):
    """A rule that cannot be used; the text names kind, field and value."""


@dataclass(frozen=True)
class Field:
    """What a field may be: its type (float takes whole numbers, too), a range, or a choice."""

    type: type
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    def problem(self, value: object) -> str:
        """What is wrong with a value, empty when nothing is. JSON's true is no number."""
        wanted: tuple[type, ...] = (int, float) if self.type is float else (self.type,)
        if not isinstance(value, wanted) or (isinstance(value, bool) and self.type is not bool):
            return f"it must be {_NAMES[self.type]}"
        if self.choices and value not in self.choices:
            return f"it must be one of {', '.join(self.choices)}"
        number = float(value) if isinstance(value, int | float) else 0.0
        if (self.least is not None and number < self.least) or (self.most is not None and number > self.most):
            return (
                f"it must be from {self.least:g} up"
                if self.most is None
                else f"it must be {self.least:g} to {self.most:g}"
            )
        return ""


COUNT = Field(int, least=0)
SECONDS = Field(float, least=0)
_FRAME_FIELDS: Mapping[str, Field] = {"times": COUNT, "for_seconds": SECONDS}


@dataclass(frozen=True)
class Kind:
    """One kind: its own fields, those that it needs, and patterns that hold unless a rule has others."""

    fields: Mapping[str, Field] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    match: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    """Patterns that mean nothing for it."""


@dataclass(frozen=True)
class Language:
    """The kinds of one stand-in, and what its patterns are held against.

    patterns: their names; `name.*` are patterns by key (`{"labels": {"team": "a|b"}}`). main: the one that a plain
    text stands for.
    """

    kinds: Mapping[str, Kind]
    patterns: tuple[str, ...]
    main: str

    def check(self, raw: Raw) -> dict[str, Any]:
        """The patterns of a rule that can be used, the kind's own ones added. Raises FaultRuleError."""
        name = raw.get("kind") if isinstance(raw, Mapping) else None
        if not isinstance(name, str) or name not in self.kinds:
            raise FaultRuleError(f"kind {name!r} is unknown; known kinds: {', '.join(sorted(self.kinds))}")
        kind = self.kinds[name]
        known = {**_FRAME_FIELDS, **kind.fields}
        for key, value in raw.items():
            if key in ("kind", "match") or (value is None and key in known):
                continue
            if key not in known:
                listed = ", ".join((*FRAME, *kind.fields))
                raise FaultRuleError(f"{name}: field {key!r} is unknown; known fields: {listed}")
            if problem := known[key].problem(value):
                raise FaultRuleError(f"{name}: field {key!r} cannot be {value!r}: {problem}")
        for key in kind.needed:
            if not raw.get(key) and raw.get(key) != 0:
                raise FaultRuleError(f"{name}: field {key!r} is missing")
        return {**kind.match, **self._match(name, kind, raw.get("match", {}))}

    def _match(self, name: str, kind: Kind, raw: Any) -> dict[str, Any]:
        patterns = {self.main: raw} if isinstance(raw, str) else raw
        if not isinstance(patterns, Mapping):
            raise FaultRuleError(f"{name}: match cannot be {raw!r}: it must be an object of patterns, or a text")
        single = {entry for entry in self.patterns if not entry.endswith(".*")} - set(kind.without)
        keyed = {entry.removesuffix(".*") for entry in self.patterns if entry.endswith(".*")} - set(kind.without)
        for key, value in patterns.items():
            if key not in single | keyed:
                listed = ", ".join(sorted(single | keyed)) or "none"
                raise FaultRuleError(f"{name}: match looks at no {key!r}; it looks at {listed}")
            for pattern in value.values() if key in keyed and isinstance(value, Mapping) else [value]:
                _check_pattern(name, key, pattern)
        return dict(patterns)


def _check_pattern(kind: str, key: str, pattern: object) -> None:
    try:
        re.compile(pattern)  # type: ignore[call-overload]
    except (re.error, TypeError) as error:
        raise FaultRuleError(f"{kind}: match {key} {pattern!r} is no regular expression: {error}") from error


def fits(pattern: str | None, text: str | None, *, whole: bool = False) -> bool:
    """Whether a text fits a pattern, in any case and over several lines; None is any text, and no text fits nothing."""
    if pattern is None:
        return True
    find = re.fullmatch if whole else re.search
    return text is not None and find(pattern, text, re.IGNORECASE | re.DOTALL) is not None


def is_over(raw: Raw, hits: int, age_seconds: float) -> bool:
    """Whether a rule acts no more: used up, or its life is over."""
    times, life = raw.get("times"), raw.get("for_seconds")
    return (times is not None and hits >= int(times)) or (life is not None and age_seconds >= float(life))


def kinds(names: Iterable[str], **options: Any) -> dict[str, Kind]:
    """The same kind under several names."""
    return {name: Kind(**options) for name in names}
