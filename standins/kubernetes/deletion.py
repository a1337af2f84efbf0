"""How objects go: graceful deletion of pods, propagation from a Job to its pods."""

from __future__ import annotations

from datetime import timedelta

from standins.kubernetes.clock import rfc3339, utc_now
from standins.kubernetes.defaults import TRACKING_FINALIZER
from standins.kubernetes.resources import JOBS, PODS, Obj
from standins.kubernetes.store import ObjectStore


def delete_pod(store: ObjectStore, pod: Obj, grace_seconds: int | None = None) -> Obj:
    """Mark a pod for deletion; the kubelet ends its processes and removes it.

    ``None`` is the pod's own grace period.
    """
    grace = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace_seconds is None else grace_seconds

    def edit(new: Obj) -> None:
        meta = new["metadata"]
        if "deletionTimestamp" not in meta:
            meta["deletionTimestamp"] = rfc3339(utc_now() + timedelta(seconds=grace))
            meta["deletionGracePeriodSeconds"] = int(grace)

    return store.change(PODS, pod, edit)


def release_pod(store: ObjectStore, pod: Obj, orphan: bool = False) -> Obj:
    """Take the Job's tracking finalizer off a pod, and with ``orphan`` its ownerReferences too."""

    def edit(new: Obj) -> None:
        finalizers = [name for name in new["metadata"].get("finalizers", []) if name != TRACKING_FINALIZER]
        new["metadata"].pop("finalizers", None)
        if finalizers:
            new["metadata"]["finalizers"] = finalizers
        if orphan:
            new["metadata"].pop("ownerReferences", None)

    return store.change(PODS, pod, edit)


def delete_job(store: ObjectStore, job: Obj, orphan: bool = False) -> None:
    """Delete a Job at once. Its pods go by garbage collection, or stay as nobody's with ``orphan``."""
    if orphan:
        for pod in store.every(PODS, job["metadata"]["namespace"]):
            if any(owner["uid"] == job["metadata"]["uid"] for owner in pod["metadata"].get("ownerReferences", [])):
                release_pod(store, pod, orphan=True)
    store.remove(JOBS, job)
