"""The verbs on resources."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from starlette.responses import JSONResponse, Response

from standins.kubernetes import errors, logs, rbac
from standins.kubernetes.calls import Call, merge_patch
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.defaults import complete, for_update
from standins.kubernetes.errors import StatusError, bad_request
from standins.kubernetes.resources import ACCESS_REVIEWS, JOBS, NAMESPACES, PODS, Obj, ResourceType
from standins.kubernetes.selectors import fields_match, labels_match
from standins.kubernetes.validation import check_rules, check_schema, check_update

_MERGE_TYPES = ("application/merge-patch+json", "application/strategic-merge-patch+json")
_POLICIES = ("Background", "Foreground")
_DELETE_OPTIONS = frozenset({"apiVersion", "kind", "preconditions", "propagationPolicy"})
_QUERY: Mapping[str, frozenset[str]] = {
    "get": frozenset(),
    "list": frozenset({"fieldSelector", "labelSelector"}),
    "create": frozenset({"dryRun", "fieldManager", "fieldValidation"}),
    "patch": frozenset({"fieldManager"}),
    "delete": frozenset({"propagationPolicy"}),
}


class Api:
    """Answers the requests on resources of one cluster."""

    def __init__(self, cluster: Cluster, stopping: asyncio.Event) -> None:
        self._cluster = cluster
        self._store = cluster.store
        self._stopping = stopping
        self._verbs: Mapping[str, Callable[[Call], Response]] = {
            "get": self._get,
            "list": self._list,
            "create": self._create,
            "patch": self._patch,
            "delete": self._delete,
        }

    def handle(self, call: Call) -> Response:
        """The answer to a request. Raises StatusError."""
        target = call.target
        if not rbac.allowed(self._cluster.deny, call.verb, target.resource.group, target.shown, target.namespace):
            raise errors.forbidden(target, rbac.USER, call.verb)
        if call.verb not in call.resource.verbs:
            text = "the server does not allow this method on the requested resource"
            raise StatusError(405, "MethodNotAllowed", text)
        if target.subresource != "log":
            _check_query(call)
        return self._verbs[call.verb](call)

    # Reading

    def _get(self, call: Call) -> Response:
        obj = self._store.get(call.resource, call.target.namespace, call.name)
        if call.target.subresource == "log":
            return logs.answer(self._cluster, obj, call.query, self._stopping)
        return JSONResponse(obj)

    def _list(self, call: Call) -> Response:
        has_labels = labels_match(call.query.get("labelSelector", ""))
        has_fields = fields_match(call.query.get("fieldSelector", ""))
        items = [
            {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}
            for obj in self._store.every(call.resource, call.target.namespace)
            if has_labels(obj["metadata"].get("labels") or {}) and has_fields(obj)
        ]
        return JSONResponse(list_object(call.resource, self._store.version, items))

    # Writing

    def _create(self, call: Call) -> Response:
        if call.resource is ACCESS_REVIEWS:
            return JSONResponse(self._review(call), 201)
        made = self.create(call.resource, call.target.namespace, call.document(), "dryRun" in call.query)
        return JSONResponse(made, 201)

    def create(self, resource: ResourceType, namespace: str | None, body: Obj, dry_run: bool = False) -> Obj:
        """A new object, checked, filled in, and stored but in a dry run. Raises StatusError as the server does."""
        check_schema(resource, body)
        prepared = self._store.prepare(resource, body)
        if namespace is not None:
            if prepared["metadata"].setdefault("namespace", namespace) != namespace:
                raise bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            self._store.get(NAMESPACES, None, namespace)
        complete(resource, prepared)
        check_rules(resource, prepared)
        return self._store.add(resource, prepared, dry_run)

    def _review(self, call: Call) -> Obj:
        body = call.document()
        check_schema(ACCESS_REVIEWS, body)
        asked = (body.get("spec") or {}).get("resourceAttributes") or {}
        shown = asked.get("resource", "*") + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        verb, group, namespace = asked.get("verb", "*"), asked.get("group", ""), asked.get("namespace") or None
        status = {"allowed": rbac.allowed(self._cluster.deny, verb, group, shown, namespace)}
        return {**body, "kind": ACCESS_REVIEWS.kind, "apiVersion": ACCESS_REVIEWS.api_version, "status": status}

    def _patch(self, call: Call) -> Response:
        if call.content_type not in _MERGE_TYPES:
            text = f"the body of the request was in an unknown format - accepted media types include: {_MERGE_TYPES}"
            raise StatusError(415, "UnsupportedMediaType", text)
        current = self._store.get(call.resource, call.target.namespace, call.name)
        wanted = merge_patch(current, call.document())
        _check_same(call, current["metadata"], wanted["metadata"])
        check_schema(call.resource, wanted)
        new = for_update(call.resource, current, wanted)
        check_update(call.resource, current, new)
        check_rules(call.resource, new)
        return JSONResponse(self._store.change(call.resource, current, lambda stored: stored.update(new)))

    # Deleting

    def _delete(self, call: Call) -> Response:
        obj = self._store.get(call.resource, call.target.namespace, call.name)
        options = call.document() if call.body is not None else {}
        if unknown := set(options) - _DELETE_OPTIONS:
            raise bad_request(f"DeleteOptions cannot be decoded: unknown fields {sorted(unknown)}")
        _check_preconditions(call, obj["metadata"], options.get("preconditions") or {})
        if call.resource is PODS:
            return JSONResponse(self._cluster.delete_pod(obj))
        policy = options.get("propagationPolicy", call.query.get("propagationPolicy"))
        if policy not in _POLICIES:
            text = f'Unsupported value: "{policy}": supported values: {_POLICIES} (the sandbox orphans no pods)'
            message = f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: {text}'
            raise StatusError(422, "Invalid", message)
        self._store.remove(JOBS, obj)  # its pods go by garbage collection
        details = {"name": call.name, "group": JOBS.group, "kind": JOBS.plural, "uid": obj["metadata"]["uid"]}
        success = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return JSONResponse(success)


def list_object(resource: ResourceType, version: int, items: list[Obj]) -> Obj:
    """A list of objects as the server sends it."""
    head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
    return {**head, "metadata": {"resourceVersion": str(version)}, "items": items}


def _check_query(call: Call) -> None:
    """Refuse parameters that are not read here, so that a client's wrong argument shows. Raises StatusError 400."""
    if unknown := sorted(set(call.query) - _QUERY[call.verb] - {"pretty"}):
        raise bad_request(f"query parameter {unknown} is not read for {call.verb} on {call.path} by the sandbox")
    for name, only in (("dryRun", "All"), ("fieldValidation", "Strict")):
        if call.query.get(name, only) != only:
            raise bad_request(f'{name}: Unsupported value: "{call.query[name]}": supported values: "{only}"')


def _check_preconditions(call: Call, meta: Obj, wanted: Obj) -> None:
    """Raises StatusError 409 if the object to delete is not the one that the client means."""
    for key, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if wanted.get(key) not in (None, meta[key]):
            text = f"the {label} in the precondition ({wanted[key]}) does not match the {label} in record ({meta[key]})"
            raise errors.conflict(call.resource, call.name, text, of_kind=True)


def _check_same(call: Call, meta: Obj, wanted: Obj) -> None:
    """Raises StatusError if a patch is for another object (400, 422) or for another version of it (409)."""
    if wanted.get("resourceVersion") not in (None, meta["resourceVersion"]):
        text = "the object has been modified; please apply your changes to the latest version and try again"
        raise errors.conflict(call.resource, call.name, text)
    if wanted.get("name") != meta["name"]:
        raise bad_request("the name of the object does not match the name on the URL")
    if wanted.get("uid") not in (None, meta["uid"]):
        cause = errors.invalid_value("metadata.uid", wanted["uid"], "field is immutable")
        raise errors.invalid(call.resource, call.name, [cause])
