"""The resource types that the stand-in serves, and how a URL names one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Obj = dict[str, Any]
"""A Kubernetes object as decoded JSON. Stored objects are never changed in place."""

READ_WRITE = ("create", "delete", "get", "list", "patch", "update")


@dataclass(frozen=True)
class ResourceType:
    """One kind of object; ``group`` is empty for the core group."""

    group: str
    plural: str
    kind: str
    namespaced: bool = True
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = READ_WRITE
    version: str = "v1"

    @property
    def api_version(self) -> str:
        """``v1`` or ``group/v1``, as in an object's apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """``pods`` or ``jobs.batch``, as in the server's error texts."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        """``Pod`` or ``Job.batch``, as in the server's validation texts."""
        return f"{self.kind}.{self.group}" if self.group else self.kind


NAMESPACES = ResourceType("", "namespaces", "Namespace", namespaced=False)
PODS = ResourceType("", "pods", "Pod", subresources=("log", "status"))
SECRETS = ResourceType("", "secrets", "Secret")
QUOTAS = ResourceType("", "resourcequotas", "ResourceQuota", subresources=("status",))
EVENTS = ResourceType("", "events", "Event")
JOBS = ResourceType("batch", "jobs", "Job", subresources=("status",))
CRONJOBS = ResourceType("batch", "cronjobs", "CronJob", subresources=("status",))
ACCESS_REVIEWS = ResourceType(
    "authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False, verbs=("create",)
)
RULES_REVIEWS = ResourceType(
    "authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", False, verbs=("create",)
)
ALL_TYPES = (NAMESPACES, PODS, SECRETS, QUOTAS, EVENTS, JOBS, CRONJOBS, ACCESS_REVIEWS, RULES_REVIEWS)
_BY_PLURAL: Mapping[tuple[str, str], ResourceType] = {(t.group, t.plural): t for t in ALL_TYPES}
_BY_KIND: Mapping[tuple[str, str], ResourceType] = {(t.api_version, t.kind): t for t in ALL_TYPES}


@dataclass(frozen=True)
class Target:
    """What a URL addresses; ``namespace`` is None for cluster-wide requests."""

    resource: ResourceType
    namespace: str | None
    name: str | None
    subresource: str | None


def by_kind(api_version: str, kind: str) -> ResourceType | None:
    """The type of an object with these two fields, or None if the stand-in does not serve it."""
    return _BY_KIND.get((api_version, kind))


def parse_path(path: str) -> Target | None:
    """The target of an API path such as ``/apis/batch/v1/namespaces/ns/jobs/name``; None if it names none."""
    parts = path.strip("/").split("/")
    if parts[:2] == ["api", "v1"]:
        group, rest = "", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3 and parts[2] == "v1":
        group, rest = parts[1], parts[3:]
    else:
        return None
    namespace = None
    if len(rest) >= 3 and rest[0] == "namespaces" and (group, rest[2]) in _BY_PLURAL:
        namespace, rest = rest[1], rest[2:]
    if not rest or len(rest) > 3 or "" in rest:
        return None
    resource = _BY_PLURAL.get((group, rest[0]))
    if resource is None or (namespace is not None and not resource.namespaced):
        return None
    name = rest[1] if len(rest) > 1 else None
    subresource = rest[2] if len(rest) > 2 else None
    if subresource is not None and subresource not in resource.subresources:
        return None
    if name is not None and resource.namespaced and namespace is None:
        return None
    return Target(resource, namespace, name, subresource)


def verb_of(method: str, target: Target, watch: bool) -> str | None:
    """The RBAC verb of an HTTP method on a target, or None if the method does not exist there."""
    if method == "GET":
        if target.name is not None:
            return "get"
        return "watch" if watch else "list"
    if target.name is None:
        return {"POST": "create", "DELETE": "deletecollection"}.get(method)
    return {"PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(method)
