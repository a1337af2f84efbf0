"""The control loop: Jobs, garbage collection, history limits of CronJobs, and faults on objects."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from standins.kubernetes.clock import parse_time, utc_now
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.defaults import TRACKING_FINALIZER, complete
from standins.kubernetes.deletion import delete_job, delete_pod, release_pod
from standins.kubernetes.faults import subject_of
from standins.kubernetes.jobs import JobPlan, condition, expired, finished, plan_job, pod_phase
from standins.kubernetes.kubelet import Kubelet
from standins.kubernetes.resources import CRONJOBS, JOBS, PODS, Obj
from standins.kubernetes.store import random_suffix

REST_SECONDS = 0.02
"""The shortest time between two passes."""
IDLE_SECONDS = 0.5
"""The longest time between two passes while nothing runs; a TTL may end that much late."""


class Controllers:
    """All controllers of one cluster; ``run`` is the loop."""

    def __init__(self, cluster: Cluster, kubelet: Kubelet) -> None:
        self._cluster = cluster
        self._store = cluster.store
        self._kubelet = kubelet
        self._held_since: dict[tuple[int, str], float] = {}

    async def run(self) -> None:
        """Pass after pass: after each change, at least every tick while something runs, else every IDLE_SECONDS."""
        while True:
            changed = self._store.changed
            self.sync()
            waiter = asyncio.ensure_future(changed.wait())
            busy = self._cluster.faults or any(not _at_rest(job) for job in self._store.every(JOBS))
            await asyncio.wait({waiter}, timeout=self._cluster.settings.tick_seconds if busy else IDLE_SECONDS)
            waiter.cancel()
            await asyncio.sleep(REST_SECONDS)

    def sync(self) -> None:
        """One pass over everything."""
        by_owner: dict[str, list[Obj]] = {}
        for pod in self._store.every(PODS):
            for reference in pod["metadata"].get("ownerReferences", []):
                by_owner.setdefault(reference["uid"], []).append(pod)
        for job in self._store.every(JOBS):
            self._sync_job(job, by_owner.get(job["metadata"]["uid"], []))
        self._collect_garbage()
        for cronjob in self._store.every(CRONJOBS):
            self._limit_history(cronjob)
        self._kubelet.sync()

    def _sync_job(self, job: Obj, pods: list[Obj]) -> None:
        final = finished(job.get("status") or {})
        tracked = any(TRACKING_FINALIZER in pod["metadata"].get("finalizers", []) for pod in pods)
        if final and not tracked and not expired(job, final, utc_now()):
            self._lose(job, pods)
            return
        backoff = timedelta(seconds=self._cluster.settings.backoff_seconds)
        self._apply(job, pods, plan_job(job, pods, utc_now(), backoff, self._held(job)))

    def _apply(self, job: Obj, pods: list[Obj], plan: JobPlan) -> None:
        by_name = {pod["metadata"]["name"]: pod for pod in pods}
        with self._store.together():  # a pod that is counted but not released would be counted twice
            made = [self._make_pod(job) for _ in range(plan.create)]
            if plan.status != job.get("status"):
                job = self._store.change(JOBS, job, lambda new: new.update(status=plan.status))
            for name in plan.release:
                release_pod(self._store, by_name[name])
        for name in plan.delete:
            delete_pod(self._store, by_name[name])
        about = ("batch/v1", "Job", job)
        for pod in made:
            text = f"Created pod: {pod['metadata']['name']}"
            self._cluster.emit(about, "Normal", "SuccessfulCreate", text, "job-controller")
        for kind, reason, message in plan.events:
            self._cluster.emit(about, kind, reason, message, "job-controller")
        if plan.expired:
            delete_job(self._store, job)
        else:
            self._lose(job, pods)

    def _make_pod(self, job: Obj) -> Obj:
        meta, template = job["metadata"], job["spec"]["template"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"]}
        pod_meta: Obj = {
            "name": f"{meta['name'][:57]}-{random_suffix()}",
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": dict(template["metadata"]["labels"]),
            "annotations": dict(template["metadata"].get("annotations", {})),
            "finalizers": [TRACKING_FINALIZER],
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        }
        pod = self._store.prepare(PODS, {"metadata": pod_meta, "spec": template["spec"]})
        self._cluster.inject_container(subject_of(job, template["spec"]), pod["metadata"]["uid"], pod["spec"])
        complete(PODS, pod)
        return self._store.add(PODS, pod)

    def _collect_garbage(self) -> None:
        for pod in self._store.every(PODS):
            references = pod["metadata"].get("ownerReferences", [])
            if references and not any(self._store.exists(reference["uid"]) for reference in references):
                delete_pod(self._store, release_pod(self._store, pod))

    def _limit_history(self, cronjob: Obj) -> None:
        uid = cronjob["metadata"]["uid"]
        ended: dict[str, list[tuple[str, Obj]]] = {"Complete": [], "Failed": []}
        for job in self._store.every(JOBS, cronjob["metadata"]["namespace"]):
            references = job["metadata"].get("ownerReferences", [])
            final = finished(job.get("status") or {})
            if final and any(r["uid"] == uid and r.get("controller") for r in references):
                ended[final["type"]].append((job["status"].get("startTime", ""), job))
        limits = (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit"))
        for kind, field in limits:
            rows = sorted(ended[kind], key=lambda row: row[0])
            for _, job in rows[: max(len(rows) - int(cronjob["spec"][field]), 0)]:
                delete_job(self._store, job)

    def _held(self, job: Obj) -> bool:
        """Whether the fault no_pod keeps this Job without pods."""
        subject = subject_of(job, job["spec"]["template"]["spec"])
        uid = job["metadata"]["uid"]
        active = self._cluster.take_fault("no_pod", subject, uid)
        if active is None:
            return False
        since = self._held_since.setdefault((active.number, uid), time.monotonic())
        return active.rule.seconds is None or time.monotonic() - since < active.rule.seconds

    def _lose(self, job: Obj, pods: list[Obj]) -> None:
        """The faults pod_gone and job_gone."""
        if not self._cluster.faults:
            return
        subject = subject_of(job, job["spec"]["template"]["spec"])
        uid = job["metadata"]["uid"]
        for pod in pods:
            meta = pod["metadata"]
            counted = pod_phase(pod) in ("Succeeded", "Failed") and not meta.get("finalizers")
            if counted and self._cluster.take_fault("pod_gone", subject, meta["uid"]):
                delete_pod(self._store, self._store.get(PODS, meta["namespace"], meta["name"]), 0)
        current = self._store.find(JOBS, job["metadata"]["namespace"], job["metadata"]["name"])
        if current is None:
            return
        final = finished(current.get("status") or {})
        wanted = "finished" if final else "active" if current.get("status", {}).get("active") else ""
        active = self._cluster.take_fault("job_gone", subject, uid, wanted) if wanted else None
        if active is None:
            return
        since = parse_time(final["lastTransitionTime"] if final else current["status"]["startTime"])
        if utc_now() >= since + timedelta(seconds=active.rule.seconds or 0):
            delete_job(self._store, current)


def _at_rest(job: Obj) -> bool:
    """Whether only a change, or its TTL, makes this Job move again."""
    status = job.get("status") or {}
    return finished(status) is not None or condition(status, "Suspended") is not None
