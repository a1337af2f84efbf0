"""The resource types that the stand-in serves, and how a URL names one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

Obj = dict[str, Any]
"""A Kubernetes object as decoded JSON. Stored objects are never changed in place."""

TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"
"""Of a pod that its Job has not counted yet."""
READ = ("get", "list")
_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/v1(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<subresource>[^/]+))?)?/?"
)


@dataclass(frozen=True)
class ResourceType:
    """One kind of object; ``group`` is empty for the core group. All are served in one version."""

    version: ClassVar[str] = "v1"
    group: str
    plural: str
    kind: str
    verbs: tuple[str, ...]
    namespaced: bool = True
    subresources: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """``v1`` or ``group/v1``, as in an object's apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """``pods`` or ``jobs.batch``, as in the server's error texts."""
        return f"{self.plural}.{self.group}".rstrip(".")

    @property
    def qualified_kind(self) -> str:
        """``Pod`` or ``Job.batch``, as in the server's validation texts."""
        return f"{self.kind}.{self.group}".rstrip(".")


NAMESPACES = ResourceType("", "namespaces", "Namespace", READ, namespaced=False)
PODS = ResourceType("", "pods", "Pod", (*READ, "delete"), subresources=("log",))
SECRETS = ResourceType("", "secrets", "Secret", (*READ, "create"))
EVENTS = ResourceType("", "events", "Event", READ)
JOBS = ResourceType("batch", "jobs", "Job", (*READ, "create", "delete", "patch"), subresources=("status",))
CRONJOBS = ResourceType("batch", "cronjobs", "CronJob", (*READ, "patch"))
ACCESS_REVIEWS = ResourceType(
    "authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", ("create",), namespaced=False
)
ALL_TYPES = (NAMESPACES, PODS, SECRETS, EVENTS, JOBS, CRONJOBS, ACCESS_REVIEWS)
_BY_PLURAL = {(kind.group, kind.plural): kind for kind in ALL_TYPES}
BY_KIND = {(kind.api_version, kind.kind): kind for kind in ALL_TYPES}


@dataclass(frozen=True)
class Target:
    """What a URL addresses; ``namespace`` is None for types without one."""

    resource: ResourceType
    namespace: str | None
    name: str | None
    subresource: str | None

    @property
    def shown(self) -> str:
        """The resource with its subresource, such as ``pods/log``, as rights name it."""
        return f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural


def parse_path(path: str) -> Target | None:
    """The target of an API path such as ``/apis/batch/v1/namespaces/ns/jobs/name``; None if it names none."""
    found = _PATH.fullmatch(path)
    resource = _BY_PLURAL.get((found["group"] or "", found["plural"])) if found else None
    if found is None or resource is None or resource.namespaced != (found["namespace"] is not None):
        return None
    if found["subresource"] not in (None, *resource.subresources):
        return None
    return Target(resource, found["namespace"], found["name"], found["subresource"])


def verb_of(method: str, target: Target, watch: bool) -> str:
    """The RBAC verb of an HTTP method on a target, empty if the method does not exist there."""
    if target.name is None:
        return {"GET": "watch" if watch else "list", "POST": "create"}.get(method, "")
    return {"GET": "get", "PATCH": "patch", "DELETE": "delete"}.get(method, "")
