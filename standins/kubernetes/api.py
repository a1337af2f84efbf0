"""The verbs on resources."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping

from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from standins.kubernetes import errors, logs, quota, rbac
from standins.kubernetes.calls import (
    Call,
    DeleteOptions,
    check_preconditions,
    check_query,
    check_same,
    delete_options,
    merge_patch,
    unsupported_media,
)
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.defaults import complete, for_update
from standins.kubernetes.deletion import delete_job, delete_object, delete_pod
from standins.kubernetes.resources import (
    ACCESS_REVIEWS,
    JOBS,
    NAMESPACES,
    PODS,
    RULES_REVIEWS,
    Obj,
    ResourceType,
)
from standins.kubernetes.selectors import fields_match, labels_match, parse_fields, parse_labels
from standins.kubernetes.validation import check_rules, check_schema, check_update

ORPHAN_WARNING = (
    '299 - "child pods are preserved by default when jobs are deleted; '
    'set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning"'
)
_MERGE_TYPES = ("application/merge-patch+json", "application/strategic-merge-patch+json")


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
            "update": self._update,
            "patch": self._update,
            "delete": self._delete,
        }

    def handle(self, call: Call) -> Response:
        """The answer to a request. Raises StatusError."""
        self._authorize(call)
        if call.verb not in call.resource.verbs:
            raise errors.method_not_allowed()
        check_query(call)
        return self._verbs[call.verb](call)

    def _authorize(self, call: Call) -> None:
        target, resource = call.target, call.resource
        shown = f"{resource.plural}/{target.subresource}" if target.subresource else resource.plural
        if not rbac.allowed(self._cluster.deny, call.verb, resource.group, shown, target.namespace):
            raise errors.forbidden(resource, target.name, rbac.USER, call.verb, shown, target.namespace)

    # Reading

    def _get(self, call: Call) -> Response:
        obj = self._store.get(call.resource, call.target.namespace, call.name)
        if call.target.subresource == "log":
            return self._read_log(call, obj)
        return JSONResponse(obj)

    def _read_log(self, call: Call, pod: Obj) -> Response:
        query = logs.parse_query(call.query)
        path, container = logs.choose_file(self._cluster, pod, query)
        if query.follow:
            lines = logs.follow(self._cluster, pod, path, container, query, self._stopping)
            return StreamingResponse(lines, media_type="text/plain")
        return PlainTextResponse(logs.select(logs.read(path), query))

    def _wanted(self, call: Call) -> Callable[[Obj], bool]:
        """The objects that the call's namespace and selectors choose.

        Raises StatusError 400 for a bad selector.
        """
        labels = parse_labels(call.query.get("labelSelector", ""))
        fields = parse_fields(call.query.get("fieldSelector", ""), call.resource)
        namespace = call.target.namespace

        def wanted(obj: Obj) -> bool:
            meta = obj["metadata"]
            return (
                (namespace is None or meta.get("namespace") == namespace)
                and labels_match(labels, meta.get("labels") or {})
                and fields_match(fields, obj)
            )

        return wanted

    def _list(self, call: Call) -> Response:
        wanted = self._wanted(call)
        items = [
            {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}
            for obj in self._store.every(call.resource, call.target.namespace)
            if wanted(obj)
        ]
        return JSONResponse(list_object(call.resource, self._store.version, items))

    # Writing

    def _create(self, call: Call) -> Response:
        if call.resource in (ACCESS_REVIEWS, RULES_REVIEWS):
            return JSONResponse(self._review(call), status_code=201)
        prepared = self.prepare(call.resource, call.target.namespace, call.document(), self._strict(call))
        if not call.dry_run():
            prepared = self._store.add(call.resource, prepared)
        return JSONResponse(prepared, status_code=201)

    @staticmethod
    def _strict(call: Call) -> bool:
        value = call.query.get("fieldValidation", "Strict")
        if value not in ("Strict", "Warn", "Ignore"):
            raise errors.bad_request(f'fieldValidation: Unsupported value: "{value}"')
        return value == "Strict"

    def prepare(self, resource: ResourceType, namespace: str | None, body: Obj, strict: bool) -> Obj:
        """A new object, checked and filled in, not stored. Raises StatusError as the server does."""
        check_schema(resource, body, strict)
        prepared = self._store.prepare(resource, body)
        meta = prepared["metadata"]
        if resource.namespaced:
            if namespace is None:
                raise errors.method_not_allowed()
            if meta.setdefault("namespace", namespace) != namespace:
                raise errors.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            if self._store.find(NAMESPACES, None, namespace) is None:
                raise errors.not_found(NAMESPACES, namespace)
        complete(resource, prepared)
        check_rules(resource, prepared)
        self._store.check_new(resource, prepared)
        quota.check(self._store, resource, prepared)
        return prepared

    def _review(self, call: Call) -> Obj:
        body = call.document()
        check_schema(call.resource, body, strict=True)
        review = {**body, "kind": call.resource.kind, "apiVersion": call.resource.api_version}
        if call.resource is RULES_REVIEWS:
            rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
            return {**review, "status": {"resourceRules": rules, "nonResourceRules": [], "incomplete": True}}
        asked = (body.get("spec") or {}).get("resourceAttributes")
        if asked is None:
            return {**review, "status": {"allowed": True}}
        shown = asked.get("resource", "*") + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        verb, group = asked.get("verb", "*"), asked.get("group", "")
        allowed = rbac.allowed(self._cluster.deny, verb, group, shown, asked.get("namespace") or None)
        return {
            **review,
            "status": {"allowed": allowed} | ({} if allowed else {"reason": "no RBAC policy matched"}),
        }

    def _update(self, call: Call) -> Response:
        current = self._store.get(call.resource, call.target.namespace, call.name)
        body = self._wanted_state(call, current)
        check_same(call, current, body)
        version = (body.get("metadata") or {}).get("resourceVersion")
        if version and version != current["metadata"]["resourceVersion"]:
            raise errors.conflict(call.resource, call.name)
        if (body.get("metadata") or {}).get("name", call.name) != call.name:
            raise errors.bad_request("the name of the object does not match the name on the URL")
        check_schema(call.resource, body, self._strict(call))
        new = for_update(call.resource, current, body, call.target.subresource)
        check_rules(call.resource, new)
        check_update(call.resource, current, new)
        if call.dry_run():
            return JSONResponse(new)

        def edit(stored: Obj) -> None:
            stored.clear()
            stored.update(copy.deepcopy(new))

        return JSONResponse(self._store.change(call.resource, current, edit))

    @staticmethod
    def _wanted_state(call: Call, current: Obj) -> Obj:
        body = call.document()
        if call.verb == "update":
            return body
        if call.content_type.split(";")[0] not in _MERGE_TYPES:
            raise unsupported_media(", ".join(_MERGE_TYPES))
        return merge_patch(current, body)

    # Deleting

    def _delete(self, call: Call) -> Response:
        obj = self._store.get(call.resource, call.target.namespace, call.name)
        options = delete_options(call)
        check_preconditions(call, obj, options.uid, options.version)
        headers = {}
        if call.resource is JOBS and options.policy is None:
            headers["Warning"] = ORPHAN_WARNING
        if options.dry_run:
            return JSONResponse(_deleted(call.resource, obj), headers=headers)
        return JSONResponse(self._remove(call.resource, obj, options), headers=headers)

    def _remove(self, resource: ResourceType, obj: Obj, options: DeleteOptions) -> Obj:
        if resource is PODS:
            return delete_pod(self._store, obj, options.grace_seconds)
        if resource is JOBS:
            # batch/v1 keeps the pods unless told otherwise (DefaultGarbageCollectionPolicy of its strategy).
            left = delete_job(self._store, obj, options.policy or "Orphan")
            return left if self._store.exists(obj["metadata"]["uid"]) else _deleted(resource, obj)
        delete_object(self._store, resource, obj)
        return _deleted(resource, obj)


def list_object(resource: ResourceType, version: int, items: list[Obj]) -> Obj:
    """A list of objects as the server sends it."""
    return {
        "kind": f"{resource.kind}List",
        "apiVersion": resource.api_version,
        "metadata": {"resourceVersion": str(version)},
        "items": items,
    }


def _deleted(resource: ResourceType, obj: Obj) -> Obj:
    details: Obj = {"name": obj["metadata"]["name"], "kind": resource.plural, "uid": obj["metadata"]["uid"]}
    if resource.group:
        details["group"] = resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
