"""What the API server fills in, and what it resets, before it checks an object."""

from __future__ import annotations

import base64
import copy

from standins.kubernetes.resources import CRONJOBS, JOBS, NAMESPACES, PODS, SECRETS, Obj, ResourceType

TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"
PREFIX = "batch.kubernetes.io/"


def pod_defaults(spec: Obj) -> None:
    """Fill in a pod's spec, in place."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    for container in spec.get("containers", []):
        image = container.get("image") or ""
        tag = image.rpartition("/")[2].partition(":")[2]
        container.setdefault("imagePullPolicy", "Always" if tag in ("", "latest") else "IfNotPresent")
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")


def job_labels(name: str, uid: str) -> dict[str, str]:
    """The labels that every pod of a Job carries."""
    values = {"controller-uid": uid, "job-name": name}
    return values | {PREFIX + key: value for key, value in values.items()}


def job_spec_defaults(spec: Obj) -> None:
    """Fill in the numbers of a Job's spec and its pod template, in place."""
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")
    pod_defaults(spec.setdefault("template", {}).setdefault("spec", {}))


def job_identity(job: Obj) -> None:
    """Give a new Job its generated selector and its pods their labels, in place."""
    spec, meta = job["spec"], job["metadata"]
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    for key, value in job_labels(meta.get("name", ""), meta["uid"]).items():
        labels.setdefault(key, value)
    spec.setdefault("selector", {"matchLabels": {PREFIX + "controller-uid": meta["uid"]}})
    if not meta.get("labels"):
        meta["labels"] = dict(labels)


def cronjob_defaults(cronjob: Obj) -> None:
    """Fill in a CronJob, in place."""
    spec = cronjob["spec"]
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    template = spec.get("jobTemplate", {}).get("spec", {}).get("template", {})
    if "spec" in template:
        pod_defaults(template["spec"])


def fill_in(resource: ResourceType, obj: Obj) -> None:
    """The defaults that hold for new and changed objects, in place."""
    obj["kind"], obj["apiVersion"] = resource.kind, resource.api_version
    if resource is JOBS:
        job_spec_defaults(obj.setdefault("spec", {}))
    elif resource is CRONJOBS:
        cronjob_defaults(obj)
    elif resource is PODS:
        pod_defaults(obj["spec"])
    elif resource is SECRETS:
        obj.setdefault("type", "Opaque")
        for key, value in obj.pop("stringData", {}).items():
            obj.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()


def complete(resource: ResourceType, prepared: Obj) -> None:
    """Fill in a new object of any type, in place; ``prepared`` has its uid."""
    fill_in(resource, prepared)
    if resource is JOBS:
        job_identity(prepared)
    if resource in (JOBS, CRONJOBS):
        prepared["status"] = {}
    elif resource is PODS:
        prepared["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    elif resource is NAMESPACES:
        prepared["status"] = {"phase": "Active"}


def for_update(resource: ResourceType, current: Obj, wanted: Obj) -> Obj:
    """The object that a change makes of ``wanted``: fields that a client cannot set keep their value."""
    new = copy.deepcopy(wanted)
    fill_in(resource, new)
    old = current["metadata"]
    for field in ("name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion"):
        new["metadata"][field] = old[field]
    new["status"] = copy.deepcopy(current["status"])
    return new
