"""Who may do what: everything, but what a deny rule names."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

USER = "system:serviceaccount:airflow:backfill"
"""The name of the only user, as the texts of refusals show it."""
_ANY = frozenset({"*"})


class Deny(BaseModel, frozen=True, extra="forbid"):
    """What is refused: an action that each part covers. ``*`` is any; resources are such as ``jobs``, ``pods/log``."""

    verbs: frozenset[str] = _ANY
    resources: frozenset[str] = _ANY
    groups: frozenset[str] = _ANY
    namespaces: frozenset[str] = _ANY

    def covers(self, verb: str, group: str, resource: str, namespace: str | None) -> bool:
        """Whether this rule refuses the action; ``namespace`` is None for cluster-wide ones."""
        parts = (
            (self.verbs, verb),
            (self.resources, resource),
            (self.groups, group),
            (self.namespaces, namespace or ""),
        )
        return all("*" in allowed or value in allowed for allowed, value in parts)


def allowed(rules: Iterable[Deny], verb: str, group: str, resource: str, namespace: str | None) -> bool:
    """Whether no rule refuses the action."""
    return not any(rule.covers(verb, group, resource, namespace) for rule in rules)
