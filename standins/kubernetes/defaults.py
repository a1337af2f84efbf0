"""What the API server fills in, and what it resets, before it checks an object."""

from __future__ import annotations

import base64
import copy
from collections.abc import Mapping
from typing import Any

from standins.kubernetes.resources import CRONJOBS, JOBS, PODS, SECRETS, Obj, ResourceType

PREFIX = "batch.kubernetes.io/"
_POD = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst"}
_CONTAINER = {"resources": {}, "terminationMessagePolicy": "File"}
_JOB = {"parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False}
_CRONJOB = {"suspend": False, "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1}
_STATUS: Mapping[ResourceType, Obj] = {JOBS: {}, CRONJOBS: {}, PODS: {"phase": "Pending"}}


def _fill(obj: Obj, defaults: Mapping[str, Any]) -> None:
    for key, value in defaults.items():
        obj.setdefault(key, copy.deepcopy(value))


def pod_defaults(spec: Obj) -> None:
    """Fill in a pod's spec, in place."""
    _fill(spec, _POD)
    for container in spec.get("containers") or []:
        tag = (container.get("image") or "").rpartition("/")[2].partition(":")[2]
        _fill(container, {"imagePullPolicy": "Always" if tag in ("", "latest") else "IfNotPresent", **_CONTAINER})


def job_spec_defaults(spec: Obj) -> None:
    """Fill in the numbers of a Job's spec and its pod template, in place."""
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    _fill(spec, _JOB)
    pod_defaults(spec.setdefault("template", {}).setdefault("spec", {}))


def selector_of(job: Obj) -> Obj:
    """The selector that the server gives a Job."""
    return {"matchLabels": {PREFIX + "controller-uid": job["metadata"]["uid"]}}


def _job_identity(job: Obj) -> None:
    """Give a new Job its generated selector and its pods their labels, in place."""
    spec, meta = job["spec"], job["metadata"]
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    for key, value in (("controller-uid", meta["uid"]), ("job-name", meta.get("name", ""))):
        _fill(labels, {key: value, PREFIX + key: value})
    _fill(spec, {"selector": selector_of(job)})
    meta["labels"] = meta.get("labels") or dict(labels)


def _fill_in(resource: ResourceType, obj: Obj) -> None:
    """The defaults that hold for new and changed objects, in place."""
    obj["kind"], obj["apiVersion"] = resource.kind, resource.api_version
    if resource is JOBS:
        job_spec_defaults(obj.setdefault("spec", {}))
    elif resource is CRONJOBS:
        _fill(obj["spec"], _CRONJOB)
        pod_defaults(obj["spec"]["jobTemplate"]["spec"]["template"]["spec"])
    elif resource is PODS:
        pod_defaults(obj["spec"])
    elif resource is SECRETS:
        obj.setdefault("type", "Opaque")
        for key, value in obj.pop("stringData", {}).items():
            obj.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()


def complete(resource: ResourceType, prepared: Obj) -> None:
    """Fill in a new object of any type, in place; ``prepared`` has its uid."""
    _fill_in(resource, prepared)
    if resource is JOBS:
        _job_identity(prepared)
    if resource in _STATUS:
        prepared["status"] = dict(_STATUS[resource])


def for_update(resource: ResourceType, current: Obj, wanted: Obj) -> Obj:
    """The object that a change makes of ``wanted``: fields that a client cannot set keep their value."""
    new = copy.deepcopy(wanted)
    _fill_in(resource, new)
    kept = ("name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion")
    new["metadata"] |= {field: current["metadata"][field] for field in kept}
    new["status"] = copy.deepcopy(current["status"])
    return new
