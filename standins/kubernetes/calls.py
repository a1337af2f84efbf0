"""One request as the handlers see it, and the checks on its query and options."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from standins.kubernetes import errors
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.errors import bad_request
from standins.kubernetes.faults import Subject, subject_of
from standins.kubernetes.resources import JOBS, PODS, Obj, ResourceType, Target
from standins.kubernetes.selectors import equalities

_LOG_KEYS = frozenset({"container", "follow", "limitBytes", "tailLines", "timestamps"})
_KEYS: Mapping[str, frozenset[str]] = {
    "get": frozenset(),
    "list": frozenset({"fieldSelector", "labelSelector"}),
    "create": frozenset({"dryRun", "fieldManager", "fieldValidation"}),
    "patch": frozenset({"fieldManager"}),
    "delete": frozenset({"propagationPolicy"}),
}
_DELETE_OPTIONS = frozenset({"apiVersion", "kind", "preconditions", "propagationPolicy"})
POLICIES = ("Background", "Foreground", "Orphan")


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


def merge_patch(current: Obj, patch: Obj) -> Obj:
    """The result of a JSON merge patch (RFC 7386): null removes, objects merge, everything else replaces."""
    merged = copy.deepcopy(current)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            inner = merged.get(key)
            merged[key] = merge_patch(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def decode_body(content: bytes, content_type: str) -> Any:
    """The JSON of a request's body, None if it is empty. Raises StatusError 400 or 415."""
    if not content:
        return None
    if content_type and "json" not in content_type:
        raise unsupported_media("application/json")
    try:
        return json.loads(content)
    except ValueError as error:
        raise bad_request(f"error decoding the body: invalid JSON: {error}") from error


def unsupported_media(accepted: str) -> errors.StatusError:
    """415 for a body in a format that is not read."""
    text = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
    return errors.StatusError(415, "UnsupportedMediaType", text)


def check_query(call: Call) -> None:
    """Refuse parameters that are not read here, so that a client's wrong argument shows. Raises StatusError 400."""
    known = _LOG_KEYS if call.target.subresource == "log" else _KEYS[call.verb]
    unknown = sorted(set(call.query) - known - {"pretty"})
    if unknown:
        raise bad_request(f"query parameter {unknown} is not read for {call.verb} on {call.path} by the sandbox")
    for name, only in (("dryRun", "All"), ("fieldValidation", "Strict")):
        if call.query.get(name, only) != only:
            raise bad_request(f'{name}: Unsupported value: "{call.query[name]}": supported values: "{only}"')


@dataclass(frozen=True)
class DeleteOptions:
    """The options of a deletion; None is what was not given."""

    policy: str | None
    uid: str | None
    version: str | None


def delete_options(call: Call) -> DeleteOptions:
    """The options from body and query; the body wins. Raises StatusError 400 or 422."""
    body = call.body or {}
    if not isinstance(body, dict) or set(body) - _DELETE_OPTIONS:
        raise bad_request(f"DeleteOptions cannot be decoded: unknown fields in {sorted(body)}")
    policy = body.get("propagationPolicy", call.query.get("propagationPolicy"))
    if policy is not None and policy not in POLICIES:
        text = (
            f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "{policy}": '
            'supported values: "Background", "Foreground", "Orphan"'
        )
        raise errors.StatusError(422, "Invalid", text)
    conditions = body.get("preconditions") or {}
    return DeleteOptions(policy, conditions.get("uid"), conditions.get("resourceVersion"))


def check_preconditions(call: Call, obj: Obj, options: DeleteOptions) -> None:
    """Raises StatusError 409 if the object to delete is not the one that the client means."""
    meta = obj["metadata"]
    for label, wanted, found, why in (
        ("UID", options.uid, meta["uid"], "deleted and then recreated"),
        ("ResourceVersion", options.version, meta["resourceVersion"], "modified"),
    ):
        if wanted is not None and wanted != found:
            text = (
                f"the {label} in the precondition ({wanted}) does not match the {label} in record ({found}). "
                f"The object might have been {why}"
            )
            raise errors.unmet(call.resource, meta["name"], text)


def check_same(call: Call, current: Obj, new: Obj) -> None:
    """Raises StatusError if a patch is for another object (422) or for another version of it (409)."""
    meta, wanted = current["metadata"], new["metadata"]
    if wanted.get("resourceVersion") not in (None, meta["resourceVersion"]):
        raise errors.conflict(call.resource, call.name)
    if wanted.get("name") != meta["name"]:
        raise bad_request("the name of the object does not match the name on the URL")
    if wanted.get("uid") not in (None, meta["uid"]):
        cause = errors.invalid_value("metadata.uid", wanted["uid"], "field is immutable")
        raise errors.invalid(call.resource, meta["name"], [cause])


def pod_spec_of(resource: ResourceType, obj: Obj) -> Obj | None:
    """Where the containers of an object are, or None."""
    spec = obj.get("spec") or {}
    if resource is JOBS:
        found = (spec.get("template") or {}).get("spec")
        return found if isinstance(found, dict) else None
    return spec if resource is PODS else None


def subject_for(cluster: Cluster, call: Call) -> Subject:
    """The object that fault rules look at for this request (see faults)."""
    resource, namespace = call.resource, call.target.namespace or ""
    if call.target.name:
        obj = cluster.store.find(resource, namespace, call.target.name)
        if obj is None:
            return Subject(call.target.name, namespace, {}, {})
        return cluster.pod_subject(obj) if resource is PODS else subject_of(obj, pod_spec_of(resource, obj))
    if call.method == "POST" and isinstance(call.body, dict):
        try:
            own = subject_of(call.body, pod_spec_of(resource, call.body))
        except (AttributeError, TypeError, ValueError):  # a body of another shape; the schema check refuses it
            return Subject("", namespace, {}, {})
        return Subject(own.name, namespace, own.labels, own.env)
    labels = equalities(call.query.get("labelSelector", ""))
    job_name = labels.get("job-name") or labels.get("batch.kubernetes.io/job-name") or ""
    job = cluster.store.find(JOBS, namespace, job_name) if resource is PODS else None
    if job is None:
        return Subject(job_name, namespace, labels, {})
    own = subject_of(job, pod_spec_of(JOBS, job))
    return Subject(own.name, namespace, {**own.labels, **labels}, own.env)
