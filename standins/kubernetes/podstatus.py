"""The status of a pod, from the states of its containers (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from standins.kubernetes.clock import rfc3339
from standins.kubernetes.resources import Obj


def waiting(reason: str, message: str = "") -> Obj:
    """The state of a container that has not started."""
    return {"waiting": {"reason": reason, "message": message}}


def running(started: datetime) -> Obj:
    """The state of a container that runs."""
    return {"running": {"startedAt": rfc3339(started)}}


def terminated(code: int, started: datetime, ended: datetime, reason: str = "", message: str = "") -> Obj:
    """The state of a container that has ended; the reason is Completed or Error unless given."""
    times = {"startedAt": rfc3339(started), "finishedAt": rfc3339(ended)}
    reason = reason or ("Completed" if code == 0 else "Error")
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, **times}}


def _container_status(container: Obj, state: Obj) -> Obj:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "restartCount": 0,
        "ready": "running" in state,
        "started": "running" in state,
        "state": state,
    }


def phase_of(states: Mapping[str, Obj]) -> str:
    """The phase that the states of the containers make."""
    if all("terminated" in state for state in states.values()):
        failed = any(state["terminated"]["exitCode"] != 0 for state in states.values())
        return "Failed" if failed else "Succeeded"
    return "Pending" if all("waiting" in state for state in states.values()) else "Running"


def apply_states(pod: Obj, states: Mapping[str, Obj], started: str) -> None:
    """Write the containers' states, phase and conditions into a pod, in place; ``started``: when it was scheduled."""
    phase = phase_of(states)
    ready = all("running" in state for state in states.values())
    done = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "ContainersNotReady")
    blocked = {} if ready else {"status": "False", "reason": done}
    rows: Mapping[str, Obj] = {"PodScheduled": {}, "Initialized": {}, "ContainersReady": blocked, "Ready": blocked}
    pod["status"] |= {
        "phase": phase,
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": started, **more} for kind, more in rows.items()
        ],
        "startTime": started,
        "containerStatuses": [_container_status(one, states[one["name"]]) for one in pod["spec"]["containers"]],
    }


def lost(pod: Obj, now: datetime) -> None:
    """Mark a pod Failed whose processes are gone although nobody saw them end, in place."""
    text = "The container could not be located when the pod was terminated"
    states = {entry["name"]: entry["state"] for entry in pod["status"].get("containerStatuses", [])}
    for container in pod["spec"]["containers"]:
        if "terminated" not in states.get(container["name"], {}):
            states[container["name"]] = terminated(137, now, now, "ContainerStatusUnknown", text)
    apply_states(pod, states, pod["status"].get("startTime", rfc3339(now)))
    pod["status"]["phase"] = "Failed"
