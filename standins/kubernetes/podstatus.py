"""The status of a pod, from the states of its containers (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

from standins.kubernetes.clock import rfc3339
from standins.kubernetes.resources import Obj


def waiting(reason: str, message: str = "") -> Obj:
    """The state of a container that has not started."""
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def running(started: datetime) -> Obj:
    """The state of a container that runs."""
    return {"running": {"startedAt": rfc3339(started)}}


def terminated(code: int, started: datetime, ended: datetime, reason: str = "", message: str = "") -> Obj:
    """The state of a container that has ended; the reason is Completed or Error unless given."""
    inner: Obj = {
        "exitCode": code,
        "reason": reason or ("Completed" if code == 0 else "Error"),
        "startedAt": rfc3339(started),
        "finishedAt": rfc3339(ended),
    }
    if message:
        inner["message"] = message
    return {"terminated": inner}


def container_status(container: Obj, state: Obj, restarts: int, last_state: Obj, pod_uid: str) -> Obj:
    """One entry of containerStatuses."""
    entry: Obj = {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "restartCount": restarts,
        "ready": "running" in state,
        "started": "running" in state,
        "state": state,
        "lastState": last_state,
    }
    if "waiting" not in state:
        digest = hashlib.sha256(f"{pod_uid}/{container['name']}/{restarts}".encode()).hexdigest()
        entry["containerID"] = f"containerd://{digest}"
        entry["imageID"] = f"{container['image']}@sha256:{hashlib.sha256(container['image'].encode()).hexdigest()}"
        if "terminated" in state:
            state["terminated"]["containerID"] = entry["containerID"]
    return entry


def phase_of(states: Sequence[Obj]) -> str:
    """The phase that the containers' states make; a state that will be restarted is given as waiting."""
    if all("terminated" in state for state in states):
        failed = any(state["terminated"]["exitCode"] != 0 for state in states)
        return "Failed" if failed else "Succeeded"
    if any("running" in state or "terminated" in state for state in states):
        return "Running"
    return "Pending"


def containers_of(pod: Obj) -> list[Obj]:
    """All containers of a pod, the init containers first."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def is_sidecar(container: Obj) -> bool:
    """Whether an init container goes on beside the main ones (a main container has no such field)."""
    return bool(container.get("restartPolicy") == "Always")


def _initialised(pod: Obj, entries: Mapping[str, Obj]) -> bool | None:
    """Whether the init containers are through; None when one has failed for good."""
    for container in pod["spec"].get("initContainers", []):
        state = entries[container["name"]]["state"]
        if is_sidecar(container):
            if "waiting" in state and not entries[container["name"]]["restartCount"]:
                return False
        elif "terminated" not in state:
            return False
        elif state["terminated"]["exitCode"] != 0:
            return None
    return True


def conditions(phase: str, ready: bool, started: str, initialised: bool = True) -> list[Obj]:
    """The pod's conditions in the server's order; ``started`` is the time of scheduling."""
    done = {"reason": "PodCompleted"} if phase == "Succeeded" else {"reason": "PodFailed"} if phase == "Failed" else {}
    blocked = done or ({} if ready else {"reason": "ContainersNotReady"})
    rows: Mapping[str, tuple[bool, Obj]] = {
        "PodReadyToStartContainers": (phase == "Running", {}),
        "Initialized": (
            initialised,
            {"reason": "PodCompleted"}
            if phase == "Succeeded"
            else {}
            if initialised
            else {"reason": "ContainersNotInitialized"},
        ),
        "Ready": (ready, blocked),
        "ContainersReady": (ready, blocked),
        "PodScheduled": (True, {}),
    }
    return [
        {"type": kind, "status": str(value), "lastProbeTime": None, "lastTransitionTime": started, **more}
        for kind, (value, more) in rows.items()
    ]


def apply_states(pod: Obj, entries: Mapping[str, Obj], started: str, backing_off: bool = False) -> None:
    """Write container entries, phase and conditions into a pod, in place.

    ``backing_off``: has run, waits to restart.
    """
    order = [entries[container["name"]] for container in pod["spec"]["containers"]]
    inits = [entries[container["name"]] for container in pod["spec"].get("initContainers", [])]
    initialised = _initialised(pod, entries)
    phase = phase_of([entry["state"] for entry in order])
    if initialised is not True:
        phase = "Failed" if initialised is None else "Pending"
    elif backing_off and phase == "Pending":
        phase = "Running"
    if phase in ("Succeeded", "Failed") and any("running" in entry["state"] for entry in inits):
        phase = "Running"  # until the sidecars have ended
    ready = phase == "Running" and all(entry["ready"] for entry in order)
    status = pod["status"]
    status["phase"] = phase
    status["conditions"] = conditions(phase, ready, started, initialised is True)
    status["startTime"] = started
    status["containerStatuses"] = order
    if inits:
        status["initContainerStatuses"] = inits
    status["hostIP"] = status["podIP"] = "127.0.0.1"
    status["hostIPs"] = status["podIPs"] = [{"ip": "127.0.0.1"}]


def lost(pod: Obj, now: datetime) -> None:
    """Mark a pod Failed whose processes are gone although nobody saw them end, in place."""
    text = "The container could not be located when the pod was terminated"
    entries = {}
    status = pod["status"]
    known = {e["name"]: e for e in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]}
    for container in containers_of(pod):
        old = known.get(container["name"])
        restarts = int(old["restartCount"]) if old else 0
        state = terminated(137, now, now, "ContainerStatusUnknown", text)
        if old and "terminated" in old["state"]:
            state = old["state"]
        entries[container["name"]] = container_status(container, state, restarts, {}, pod["metadata"]["uid"])
    apply_states(pod, entries, pod["status"].get("startTime", rfc3339(now)))
    pod["status"]["phase"] = "Failed"
