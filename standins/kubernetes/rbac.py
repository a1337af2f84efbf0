"""Who may do what: everything, but what a deny rule names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

USER = "system:serviceaccount:airflow:backfill"
"""The name of the only user, as the texts of refusals show it."""


class DenyRuleError(ValueError):
    """A deny rule that cannot be used; the text names the field."""


@dataclass(frozen=True)
class Deny:
    """What is refused.

    Each part is a set of words, ``*`` means any; resources are such as ``jobs`` or ``pods/log``.
    """

    verbs: frozenset[str]
    resources: frozenset[str]
    groups: frozenset[str]
    namespaces: frozenset[str]

    def covers(self, verb: str, group: str, resource: str, namespace: str | None) -> bool:
        """Whether this rule refuses the action; ``namespace`` is None for cluster-wide ones."""
        parts = (
            (self.verbs, verb),
            (self.resources, resource),
            (self.groups, group),
            (self.namespaces, namespace or ""),
        )
        return all("*" in allowed or value in allowed for allowed, value in parts)


def parse_deny(raw: Mapping[str, Any]) -> Deny:
    """The rule of ``{"verbs": [...], "resources": [...], "groups": [...], "namespaces": [...]}``; missing
    means any.
    """
    names = ("verbs", "resources", "groups", "namespaces")
    unknown = set(raw) - set(names)
    if unknown:
        raise DenyRuleError(f"unknown fields {sorted(unknown)} in a deny rule; known: {list(names)}")
    for name in names:
        if not isinstance(raw.get(name, []), list):
            raise DenyRuleError(f"{name} is {raw[name]!r}; it must be a list of words")
    return Deny(**{name: frozenset(raw.get(name, ["*"])) for name in names})


def allowed(rules: Iterable[Deny], verb: str, group: str, resource: str, namespace: str | None) -> bool:
    """Whether no rule refuses the action."""
    return not any(rule.covers(verb, group, resource, namespace) for rule in rules)
