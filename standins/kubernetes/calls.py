"""One request as the handlers and the fault rules see it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from standins.kubernetes.cluster import Cluster
from standins.kubernetes.errors import StatusError, bad_request
from standins.kubernetes.faults import Subject, subject_of
from standins.kubernetes.resources import JOBS, PODS, Obj, ResourceType, Target, parse_path, verb_of
from standins.kubernetes.selectors import equalities

STREAMED = ("true", "1")
NOT_JSON = "(not JSON)"
"""Stands for a body that cannot be read; no handler takes a text for an object."""


@dataclass(frozen=True)
class Call:
    """A request on a resource; ``body`` is the decoded JSON, None if there was none."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    content_type: str
    target: Target
    verb: str

    @property
    def resource(self) -> ResourceType:
        """The type that the request addresses."""
        return self.target.resource

    @property
    def name(self) -> str:
        """The object's name in the path, or the empty string."""
        return self.target.name or ""

    def document(self) -> Obj:
        """The body of a request that needs an object. Raises StatusError 400."""
        if not isinstance(self.body, dict):
            raise bad_request("the body of the request must be a JSON object")
        return self.body


async def read_call(request: Request) -> Call | None:
    """The request on a resource, None for another path."""
    target = parse_path(request.url.path)
    if target is None:
        return None
    content, query = await request.body(), dict(request.query_params)
    try:
        body = json.loads(content) if content else None
    except ValueError:
        body = NOT_JSON
    verb = verb_of(request.method, target, query.get("watch", "").lower() in STREAMED)
    content_type = request.headers.get("content-type", "").split(";")[0]
    return Call(request.method, request.url.path, query, body, content_type, target, verb)


def merge_patch(current: Obj, patch: Obj) -> Obj:
    """A JSON merge patch (RFC 7386): null removes, objects merge, everything else replaces; parts are shared."""
    merged = dict(current)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            inner = current.get(key)
            merged[key] = merge_patch(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def subject_for(cluster: Cluster, call: Call) -> Subject:
    """The object that fault rules look at for this request (see faults)."""
    resource, name, namespace = call.resource, call.name, call.target.namespace or ""
    labels: dict[str, str] = {}
    try:
        if call.method == "POST":
            return dataclasses.replace(subject_of(call.document()), namespace=namespace)
        labels = equalities(call.query.get("labelSelector", ""))
    except (StatusError, AttributeError, TypeError, ValueError):  # of another shape; the handler refuses it
        return Subject(name, namespace)
    if resource is PODS and not name:
        resource, name = JOBS, labels.get("job-name") or labels.get("batch.kubernetes.io/job-name") or ""
    obj = cluster.store.find(resource, namespace, name)
    if obj is None:
        return Subject(name, namespace, labels)
    own = cluster.subject_of(resource, obj)
    return dataclasses.replace(own, labels={**own.labels, **labels})
