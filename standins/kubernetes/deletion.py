"""How objects go: graceful deletion of pods, propagation from a Job to its pods."""

from __future__ import annotations

from datetime import timedelta

from standins.kubernetes.clock import rfc3339, utc_now
from standins.kubernetes.defaults import TRACKING_FINALIZER
from standins.kubernetes.resources import JOBS, NAMESPACES, PODS, Obj, ResourceType
from standins.kubernetes.store import ObjectStore

FOREGROUND_FINALIZER = "foregroundDeletion"


def owned_pods(store: ObjectStore, job: Obj) -> list[Obj]:
    """The pods that an ownerReference ties to this Job."""
    uid = job["metadata"]["uid"]
    return [
        pod
        for pod in store.every(PODS, job["metadata"]["namespace"])
        if any(reference["uid"] == uid for reference in pod["metadata"].get("ownerReferences", []))
    ]


def mark(obj: Obj, grace_seconds: float = 0) -> None:
    """Set the deletion's time on an object, in place, unless it has one."""
    meta = obj["metadata"]
    if "deletionTimestamp" not in meta:
        meta["deletionTimestamp"] = rfc3339(utc_now() + timedelta(seconds=grace_seconds))
        meta["deletionGracePeriodSeconds"] = int(grace_seconds)


def delete_pod(store: ObjectStore, pod: Obj, grace_seconds: int | None = None) -> Obj:
    """Mark a pod for deletion; the kubelet ends its processes and removes it.

    ``None`` is the pod's own grace period.
    """
    grace = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace_seconds is None else grace_seconds
    return store.change(PODS, pod, lambda new: mark(new, grace))


def release_pod(store: ObjectStore, pod: Obj, orphan: bool = False) -> None:
    """Take the Job's tracking finalizer off a pod, and with ``orphan`` its ownerReferences too."""

    def edit(new: Obj) -> None:
        finalizers = [name for name in new["metadata"].get("finalizers", []) if name != TRACKING_FINALIZER]
        new["metadata"].pop("finalizers", None)
        if finalizers:
            new["metadata"]["finalizers"] = finalizers
        if orphan:
            new["metadata"].pop("ownerReferences", None)

    store.change(PODS, pod, edit)


def delete_job(store: ObjectStore, job: Obj, policy: str) -> Obj:
    """Delete a Job with Foreground, Background or Orphan; returns its last state.

    With Background the pods go by garbage collection once the Job is gone.
    """
    if policy == "Orphan":
        for pod in owned_pods(store, job):
            release_pod(store, pod, orphan=True)

    def edit(new: Obj) -> None:
        mark(new)
        finalizers = new["metadata"].get("finalizers", [])
        if policy == "Foreground" and FOREGROUND_FINALIZER not in finalizers:
            new["metadata"]["finalizers"] = [*finalizers, FOREGROUND_FINALIZER]

    return store.change(JOBS, job, edit)


def delete_object(store: ObjectStore, resource: ResourceType, obj: Obj) -> Obj:
    """Remove an object of a type without graceful deletion; a namespace takes its objects with it."""
    if resource is NAMESPACES:
        name = obj["metadata"]["name"]
        for job in store.every(JOBS, name):
            delete_job(store, job, "Background")
        for pod in store.every(PODS, name):
            release_pod(store, pod)
            delete_pod(store, store.get(PODS, name, pod["metadata"]["name"]), 0)
    store.remove(resource, obj)
    return obj
