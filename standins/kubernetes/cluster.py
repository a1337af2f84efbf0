"""What the parts of the server share: objects, faults, rules, settings, events; and how pods go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from standins.kubernetes.clock import rfc3339, utc_now
from standins.kubernetes.faults import FaultBook, Subject, subject_of
from standins.kubernetes.images import Image
from standins.kubernetes.rbac import Deny
from standins.kubernetes.resources import EVENTS, JOBS, PODS, Obj, ResourceType
from standins.kubernetes.store import ObjectStore, random_suffix


@dataclass(frozen=True)
class Settings:
    """Paths and times (seconds) of one server."""

    data: Path
    images: Mapping[str, Image]
    backoff_seconds: float = 1.0
    max_grace_seconds: float = 2.0

    def log_path(self, pod_uid: str, container: str) -> Path:
        """Where the log of a container is; a pod has a folder of its own."""
        return self.data / "logs" / pod_uid / f"{container}.log"


@dataclass
class Cluster:
    """The shared state of one server."""

    store: ObjectStore
    settings: Settings
    faults: FaultBook = field(default_factory=FaultBook)
    deny: list[Deny] = field(default_factory=list)

    def job_of(self, pod: Obj) -> Obj | None:
        """The Job that owns a pod, or None."""
        for reference in pod["metadata"].get("ownerReferences", []):
            if reference["kind"] == "Job":
                job = self.store.find(JOBS, pod["metadata"]["namespace"], reference["name"])
                if job is not None and job["metadata"]["uid"] == reference["uid"]:
                    return job
        return None

    def subject_of(self, resource: ResourceType, obj: Obj) -> Subject:
        """The subject of an object; of a pod: the name of its Job (or its own), the labels of both."""
        own = subject_of(obj)
        if resource is not PODS:
            return own
        labels = {**subject_of(self.job_of(obj) or obj).labels, **own.labels}
        return Subject(own.labels.get("job-name", own.name), own.namespace, labels)

    def loses_job(self, job: Obj) -> bool:
        """Whether the fault job_gone takes this Job now."""
        active = bool((job.get("status") or {}).get("active"))
        return active and self.faults.strikes("job_gone", subject_of(job), job["metadata"]["uid"])

    def loses_pod(self, job: Obj, pod: Obj) -> bool:
        """Whether the fault pod_gone takes this pod of a Job now."""
        meta = pod["metadata"]
        counted = pod["status"].get("phase") in ("Succeeded", "Failed") and not meta.get("finalizers")
        return counted and self.faults.strikes("pod_gone", subject_of(job), meta["uid"])

    def delete_pod(self, pod: Obj) -> Obj:
        """Mark a pod for deletion; the kubelet ends its processes and removes it."""
        grace = pod["spec"].get("terminationGracePeriodSeconds", 30)

        def edit(new: Obj) -> None:
            if "deletionTimestamp" not in new["metadata"]:
                new["metadata"]["deletionTimestamp"] = rfc3339(utc_now() + timedelta(seconds=grace))
                new["metadata"]["deletionGracePeriodSeconds"] = int(grace)

        return self.store.change(PODS, pod, edit)

    def release_pod(self, pod: Obj) -> Obj:
        """Take the Job's tracking finalizer off a pod, the only one that a pod has here."""
        return self.store.change(PODS, pod, lambda new: new["metadata"].pop("finalizers", None))

    def emit(self, about: tuple[str, str, Obj], kind: str, reason: str, message: str) -> None:
        """Store an Event on the object ``(apiVersion, kind, object)``; ``kind`` is Normal or Warning."""
        api_version, about_kind, obj = about
        meta = obj["metadata"]
        told = {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion")}
        event: Obj = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name'][:200]}.{random_suffix(16)}", "namespace": meta["namespace"]},
            "involvedObject": {"apiVersion": api_version, "kind": about_kind, **told},
            "type": kind,
            "reason": reason,
            "message": message,
            "lastTimestamp": rfc3339(utc_now()),
        }
        self.store.add(EVENTS, self.store.prepare(EVENTS, event))
