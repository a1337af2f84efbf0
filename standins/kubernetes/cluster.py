"""What the parts of the server share: objects, faults, rules, settings, events."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from standins.kubernetes.clock import rfc3339, utc_now
from standins.kubernetes.faults import ActiveRule, FaultBook, Subject, subject_of
from standins.kubernetes.rbac import Deny
from standins.kubernetes.resources import EVENTS, JOBS, Obj
from standins.kubernetes.store import ObjectStore, random_suffix


@dataclass(frozen=True)
class Settings:
    """Paths and times (seconds) of one server."""

    data: Path
    images: Path
    backoff_seconds: float = 1.0
    max_grace_seconds: float = 2.0
    tick_seconds: float = 0.1

    @property
    def logs(self) -> Path:
        """The folder of the containers' logs: ``<pod uid>/<container>/<restart>.log``."""
        return self.data / "logs"


@dataclass
class Cluster:
    """The shared state of one server."""

    store: ObjectStore
    settings: Settings
    faults: FaultBook = field(default_factory=FaultBook)
    deny: list[Deny] = field(default_factory=list)

    def take_fault(
        self, kind: str, subject: Subject, uid: str, when: str | None = None, container: str = ""
    ) -> ActiveRule | None:
        """The rule of this kind that holds the object now, or None (see faults)."""
        return self.faults.take_object(kind, subject, uid, time.monotonic(), when, container)

    def inject_container(self, subject: Subject, uid: str, spec: Obj) -> None:
        """The fault inject_container, in place, on the spec of a new pod."""
        active = self.take_fault("inject_container", subject, uid)
        if active is not None:
            spec["containers"] = [dict(active.rule.inject), *spec["containers"]]

    def job_of(self, pod: Obj) -> Obj | None:
        """The Job that owns a pod, or None."""
        for reference in pod["metadata"].get("ownerReferences", []):
            if reference["kind"] == "Job":
                job = self.store.find(JOBS, pod["metadata"]["namespace"], reference["name"])
                if job is not None and job["metadata"]["uid"] == reference["uid"]:
                    return job
        return None

    def pod_subject(self, pod: Obj) -> Subject:
        """The subject of a pod: the name of its Job (or its own), the labels of both, its environment."""
        own = subject_of(pod, pod["spec"])
        job = self.job_of(pod)
        labels = {**((job or pod)["metadata"].get("labels") or {}), **own.labels}
        return Subject(own.labels.get("job-name", own.name), own.namespace, labels, own.env)

    def emit(self, about: tuple[str, str, Obj], kind: str, reason: str, message: str, component: str) -> None:
        """Store an Event on the object ``(apiVersion, kind, object)``; ``kind`` is Normal or Warning."""
        api_version, about_kind, obj = about
        meta, now = obj["metadata"], rfc3339(utc_now())
        event: Obj = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name'][:200]}.{random_suffix(16)}", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": api_version,
                "kind": about_kind,
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "eventTime": None,
            "source": {"component": component},
            "reportingComponent": component,
            "reportingInstance": "",
        }
        self.store.add(EVENTS, self.store.prepare(EVENTS, event))
