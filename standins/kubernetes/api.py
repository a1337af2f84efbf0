"""The verbs on resources."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from standins.kubernetes import errors, logs, rbac
from standins.kubernetes.calls import (
    Call,
    check_preconditions,
    check_query,
    check_same,
    delete_options,
    merge_patch,
    unsupported_media,
)
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.defaults import complete, for_update
from standins.kubernetes.deletion import delete_job, delete_pod
from standins.kubernetes.resources import ACCESS_REVIEWS, JOBS, NAMESPACES, PODS, Obj, ResourceType
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
            "patch": self._patch,
            "delete": self._delete,
        }

    def handle(self, call: Call) -> Response:
        """The answer to a request. Raises StatusError."""
        target = call.target
        if not rbac.allowed(self._cluster.deny, call.verb, target.resource.group, target.shown, target.namespace):
            raise errors.forbidden(target, rbac.USER, call.verb)
        if call.verb not in call.resource.verbs:
            raise errors.method_not_allowed()
        check_query(call)
        return self._verbs[call.verb](call)

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

    def _list(self, call: Call) -> Response:
        labels = parse_labels(call.query.get("labelSelector", ""))
        fields = parse_fields(call.query.get("fieldSelector", ""))
        items = [
            {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}
            for obj in self._store.every(call.resource, call.target.namespace)
            if labels_match(labels, obj["metadata"].get("labels") or {}) and fields_match(fields, obj)
        ]
        return JSONResponse(list_object(call.resource, self._store.version, items))

    # Writing

    def _create(self, call: Call) -> Response:
        if call.resource is ACCESS_REVIEWS:
            return JSONResponse(self._review(call), status_code=201)
        prepared = self.prepare(call.resource, call.target.namespace, call.document())
        if "dryRun" not in call.query:
            prepared = self._store.add(call.resource, prepared)
        return JSONResponse(prepared, status_code=201)

    def prepare(self, resource: ResourceType, namespace: str | None, body: Obj) -> Obj:
        """A new object, checked and filled in, not stored. Raises StatusError as the server does."""
        check_schema(resource, body)
        prepared = self._store.prepare(resource, body)
        if namespace is not None:
            if prepared["metadata"].setdefault("namespace", namespace) != namespace:
                raise errors.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            if self._store.find(NAMESPACES, None, namespace) is None:
                raise errors.not_found(NAMESPACES, namespace)
        complete(resource, prepared)
        check_rules(resource, prepared)
        self._store.check_new(resource, prepared)
        return prepared

    def _review(self, call: Call) -> Obj:
        body = call.document()
        check_schema(ACCESS_REVIEWS, body)
        asked = (body.get("spec") or {}).get("resourceAttributes") or {}
        shown = asked.get("resource", "*") + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        verb, group, namespace = asked.get("verb", "*"), asked.get("group", ""), asked.get("namespace") or None
        status: Obj = {"allowed": rbac.allowed(self._cluster.deny, verb, group, shown, namespace)}
        if not status["allowed"]:
            status["reason"] = "no RBAC policy matched"
        return {**body, "kind": ACCESS_REVIEWS.kind, "apiVersion": ACCESS_REVIEWS.api_version, "status": status}

    def _patch(self, call: Call) -> Response:
        if call.content_type.split(";")[0] not in _MERGE_TYPES:
            raise unsupported_media(", ".join(_MERGE_TYPES))
        current = self._store.get(call.resource, call.target.namespace, call.name)
        wanted = merge_patch(current, call.document())
        check_same(call, current, wanted)
        check_schema(call.resource, wanted)
        new = for_update(call.resource, current, wanted)
        check_update(call.resource, current, new)
        check_rules(call.resource, new)
        return JSONResponse(self._store.change(call.resource, current, lambda stored: stored.update(new)))

    # Deleting

    def _delete(self, call: Call) -> Response:
        obj = self._store.get(call.resource, call.target.namespace, call.name)
        options = delete_options(call)
        check_preconditions(call, obj, options)
        if call.resource is PODS:
            return JSONResponse(delete_pod(self._store, obj))
        # batch/v1 keeps the pods unless told otherwise (DefaultGarbageCollectionPolicy of its strategy).
        delete_job(self._store, obj, orphan=options.policy in (None, "Orphan"))
        headers = {"Warning": ORPHAN_WARNING} if options.policy is None else {}
        return JSONResponse(_deleted(obj), headers=headers)


def list_object(resource: ResourceType, version: int, items: list[Obj]) -> Obj:
    """A list of objects as the server sends it."""
    return {
        "kind": f"{resource.kind}List",
        "apiVersion": resource.api_version,
        "metadata": {"resourceVersion": str(version)},
        "items": items,
    }


def _deleted(job: Obj) -> Obj:
    """The answer to the deletion of a Job that is gone."""
    details = {"name": job["metadata"]["name"], "kind": JOBS.plural, "uid": job["metadata"]["uid"], "group": JOBS.group}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
