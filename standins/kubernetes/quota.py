"""ResourceQuotas on the number of Jobs and pods: whether one more fits."""

from __future__ import annotations

from collections.abc import Mapping

from standins.kubernetes.errors import StatusError
from standins.kubernetes.resources import JOBS, PODS, QUOTAS, Obj, ResourceType
from standins.kubernetes.store import ObjectStore

COUNTS: Mapping[str, tuple[str, ...]] = {JOBS.qualified: ("count/jobs.batch",), PODS.qualified: ("count/pods", "pods")}
"""The quota names that one object of a type counts for."""


def _used(store: ObjectStore, namespace: str, name: str) -> int:
    """The objects that count; ``pods`` leaves out those that have ended."""
    if name == "count/jobs.batch":
        return len(store.every(JOBS, namespace))
    ended = ("Succeeded", "Failed") if name == "pods" else ()
    return sum(pod["status"].get("phase") not in ended for pod in store.every(PODS, namespace))


def usage(store: ObjectStore, quota: Obj) -> Obj:
    """The status of a quota."""
    hard = quota["spec"].get("hard") or {}
    known = {name for names in COUNTS.values() for name in names} & set(hard)
    used = {name: str(_used(store, quota["metadata"]["namespace"], name)) for name in sorted(known)}
    return {"hard": dict(hard), "used": used}


def check(store: ObjectStore, resource: ResourceType, obj: Obj) -> None:
    """Raises StatusError 403, worded as the real admission plugin does, if one more object is too many."""
    namespace = obj["metadata"].get("namespace", "")
    for quota in store.every(QUOTAS, namespace):
        hard = quota["spec"].get("hard") or {}
        over = [
            name
            for name in COUNTS.get(resource.qualified, ())
            if name in hard and _used(store, namespace, name) + 1 > int(hard[name])
        ]
        if over:
            requested = ",".join(f"{name}=1" for name in over)
            used = ",".join(f"{name}={_used(store, namespace, name)}" for name in over)
            limited = ",".join(f"{name}={hard[name]}" for name in over)
            text = (
                f'{resource.qualified} "{obj["metadata"]["name"]}" is forbidden: exceeded quota: '
                f"{quota['metadata']['name']}, requested: {requested}, used: {used}, limited: {limited}"
            )
            details: Obj = {"name": obj["metadata"]["name"], "kind": resource.plural}
            if resource.group:
                details["group"] = resource.group
            raise StatusError(403, "Forbidden", text, details)
