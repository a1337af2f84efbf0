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


def container_status(container: Obj, state: Obj, pod_uid: str) -> Obj:
    """One entry of containerStatuses."""
    entry: Obj = {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "restartCount": 0,
        "ready": "running" in state,
        "started": "running" in state,
        "state": state,
        "lastState": {},
    }
    if "waiting" not in state:
        digest = hashlib.sha256(f"{pod_uid}/{container['name']}".encode()).hexdigest()
        entry["containerID"] = f"containerd://{digest}"
        entry["imageID"] = f"{container['image']}@sha256:{hashlib.sha256(container['image'].encode()).hexdigest()}"
        if "terminated" in state:
            state["terminated"]["containerID"] = entry["containerID"]
    return entry


def phase_of(states: Sequence[Obj]) -> str:
    """The phase that the states of the main containers make."""
    if all("terminated" in state for state in states):
        failed = any(state["terminated"]["exitCode"] != 0 for state in states)
        return "Failed" if failed else "Succeeded"
    if any("running" in state or "terminated" in state for state in states):
        return "Running"
    return "Pending"


def conditions(phase: str, ready: bool, started: str) -> list[Obj]:
    """The pod's conditions in the server's order; ``started`` is the time of scheduling."""
    done = {"reason": "PodCompleted"} if phase == "Succeeded" else {"reason": "PodFailed"} if phase == "Failed" else {}
    blocked = done or ({} if ready else {"reason": "ContainersNotReady"})
    rows: Mapping[str, tuple[bool, Obj]] = {
        "PodReadyToStartContainers": (phase == "Running", {}),
        "Initialized": (True, done if phase == "Succeeded" else {}),
        "Ready": (ready, blocked),
        "ContainersReady": (ready, blocked),
        "PodScheduled": (True, {}),
    }
    return [
        {"type": kind, "status": str(value), "lastProbeTime": None, "lastTransitionTime": started, **more}
        for kind, (value, more) in rows.items()
    ]


def apply_states(pod: Obj, entries: Mapping[str, Obj], started: str) -> None:
    """Write container entries, phase and conditions into a pod, in place."""
    order = [entries[container["name"]] for container in pod["spec"]["containers"]]
    phase = phase_of([entry["state"] for entry in order])
    ready = phase == "Running" and all(entry["ready"] for entry in order)
    status = pod["status"]
    status["phase"] = phase
    status["conditions"] = conditions(phase, ready, started)
    status["startTime"] = started
    status["containerStatuses"] = order
    status["hostIP"] = status["podIP"] = "127.0.0.1"
    status["hostIPs"] = status["podIPs"] = [{"ip": "127.0.0.1"}]


def lost(pod: Obj, now: datetime) -> None:
    """Mark a pod Failed whose processes are gone although nobody saw them end, in place."""
    text = "The container could not be located when the pod was terminated"
    states = {entry["name"]: entry["state"] for entry in pod["status"].get("containerStatuses", [])}
    entries = {}
    for container in pod["spec"]["containers"]:
        state = states.get(container["name"], {})
        if "terminated" not in state:
            state = terminated(137, now, now, "ContainerStatusUnknown", text)
        entries[container["name"]] = container_status(container, state, pod["metadata"]["uid"])
    apply_states(pod, entries, pod["status"].get("startTime", rfc3339(now)))
    pod["status"]["phase"] = "Failed"
