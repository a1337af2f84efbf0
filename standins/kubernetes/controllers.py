"""The control loop: Jobs, garbage collection, history limits of CronJobs, and faults on objects."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from functools import partial

from standins.kubernetes import quota
from standins.kubernetes.calls import merge_patch
from standins.kubernetes.clock import parse_time, utc_now
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.defaults import TRACKING_FINALIZER, complete
from standins.kubernetes.deletion import FOREGROUND_FINALIZER, delete_job, delete_pod, owned_pods, release_pod
from standins.kubernetes.errors import StatusError
from standins.kubernetes.faults import RequestFacts, subject_of
from standins.kubernetes.jobs import JobPlan, condition, finished, plan_job, pod_phase
from standins.kubernetes.kubelet import Kubelet
from standins.kubernetes.resources import CRONJOBS, JOBS, PODS, QUOTAS, Obj
from standins.kubernetes.store import random_suffix

log = logging.getLogger(__name__)
REST_SECONDS = 0.02
"""The shortest time between two passes."""
IDLE_SECONDS = 0.5
"""The longest time between two passes while nothing runs; a TTL may end that much late."""
EVENT_SWEEP_SECONDS = 60.0


class Controllers:
    """All controllers of one cluster; ``run`` is the loop."""

    def __init__(self, cluster: Cluster, kubelet: Kubelet) -> None:
        self._cluster = cluster
        self._store = cluster.store
        self._kubelet = kubelet
        self._held_since: dict[tuple[int, str], float] = {}
        self._over_quota: set[str] = set()

    async def run(self) -> None:
        """Pass after pass: after each change, at least every tick while something runs, else every IDLE_SECONDS."""
        swept = time.monotonic()
        while True:
            changed = self._store.changed
            self.sync()
            if time.monotonic() - swept > EVENT_SWEEP_SECONDS:
                self._cluster.drop_old_events()
                swept = time.monotonic()
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
            pods = by_owner.get(job["metadata"]["uid"], [])
            if job["metadata"].get("deletionTimestamp"):
                self._end_job(job, pods)
            else:
                self._sync_job(job, pods)
        self._collect_garbage()
        for cronjob in self._store.every(CRONJOBS):
            self._limit_history(cronjob)
        for limits in self._store.every(QUOTAS):
            self._store.change(QUOTAS, limits, partial(_set_status, status=quota.usage(self._store, limits)))
        self._kubelet.sync()

    def _sync_job(self, job: Obj, pods: list[Obj]) -> None:
        final = finished(job.get("status") or {})
        tracked = any(TRACKING_FINALIZER in pod["metadata"].get("finalizers", []) for pod in pods)
        if final and not tracked and not _expired(job, final):
            self._lose(job, pods)
            return
        backoff = timedelta(seconds=self._cluster.settings.backoff_seconds)
        plan = plan_job(job, pods, utc_now(), backoff, self._held(job))
        if plan.create and self._refused(job):
            plan.status["active"] -= plan.create
            plan.create = 0
        self._apply(job, pods, plan)

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
            delete_job(self._store, job, "Foreground")
        else:
            self._lose(job, pods)

    def _make_pod(self, job: Obj) -> Obj:
        meta, template = job["metadata"], job["spec"]["template"]
        labels = template.get("metadata", {}).get("labels", {})
        pod_meta: Obj = {
            "name": f"{meta['name'][:57]}-{random_suffix()}",
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": dict(labels),
            "finalizers": [TRACKING_FINALIZER],
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": meta["name"],
                    "uid": meta["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        }
        if annotations := template.get("metadata", {}).get("annotations"):
            pod_meta["annotations"] = dict(annotations)
        body = self._admitted(job, {"metadata": pod_meta, "spec": template["spec"]})
        pod = self._store.prepare(PODS, body)
        subject = subject_of(job, job["spec"]["template"]["spec"])
        self._cluster.inject_container(subject, pod["metadata"]["uid"], pod["spec"])
        complete(PODS, pod)
        return self._store.add(PODS, pod)

    def _admitted(self, job: Obj, pod: Obj) -> Obj:
        """The pod as the mutate rules for pods leave it: a webhook sees what the controller makes, too."""
        subject = subject_of(job, job["spec"]["template"]["spec"])
        facts = RequestFacts("POST", f"/api/v1/namespaces/{job['metadata']['namespace']}/pods", subject)
        for active in self._cluster.faults.take_requests(facts, time.monotonic(), {"mutate"}):
            pod = merge_patch(pod, dict(active.rule.patch))
        return pod

    def _end_job(self, job: Obj, pods: list[Obj]) -> None:
        """A Job that is marked for deletion: its pods go first if it has the foreground finalizer."""
        for pod in pods:
            release_pod(self._store, pod)
        if FOREGROUND_FINALIZER not in job["metadata"].get("finalizers", []):
            return
        remaining = owned_pods(self._store, job)
        for pod in remaining:
            delete_pod(self._store, pod)
        if not remaining:
            self._store.change(JOBS, job, lambda new: new["metadata"]["finalizers"].remove(FOREGROUND_FINALIZER))

    def _collect_garbage(self) -> None:
        for job in self._store.every(JOBS):
            if self._orphaned(job) and not job["metadata"].get("deletionTimestamp"):
                delete_job(self._store, job, "Background")
        for pod in self._store.every(PODS):
            if self._orphaned(pod):
                release_pod(self._store, pod)
                delete_pod(self._store, self._store.get(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"]))

    def _orphaned(self, obj: Obj) -> bool:
        references = obj["metadata"].get("ownerReferences", [])
        return bool(references) and not any(self._store.exists(reference["uid"]) for reference in references)

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
                if not job["metadata"].get("deletionTimestamp"):
                    delete_job(self._store, job, "Background")

    def _held(self, job: Obj) -> bool:
        """Whether the fault no_pod keeps this Job without pods."""
        if not self._cluster.faults:
            return False
        subject = subject_of(job, job["spec"]["template"]["spec"])
        uid = job["metadata"]["uid"]
        active = self._cluster.take_fault("no_pod", subject, uid)
        if active is None:
            return False
        since = self._held_since.setdefault((active.number, uid), time.monotonic())
        return active.rule.seconds is None or time.monotonic() - since < active.rule.seconds

    def _refused(self, job: Obj) -> bool:
        """Whether a quota keeps this Job from getting a pod; the first time in a row an Event says so."""
        meta = job["metadata"]
        pod = {"metadata": {"name": f"{meta['name'][:57]}-{random_suffix()}", "namespace": meta["namespace"]}}
        try:
            quota.check(self._store, PODS, pod)
        except StatusError as error:
            if meta["uid"] not in self._over_quota:
                self._over_quota.add(meta["uid"])
                text = f"Error creating: {error.message}"
                self._cluster.emit(("batch/v1", "Job", job), "Warning", "FailedCreate", text, "job-controller")
            return True
        self._over_quota.discard(meta["uid"])
        return False

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
            delete_job(self._store, current, "Background")


def _expired(job: Obj, final: Obj) -> bool:
    """Whether the TTL of a Job with this final condition is over."""
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    return ttl is not None and utc_now() >= parse_time(final["lastTransitionTime"]) + timedelta(seconds=ttl)


def _set_status(obj: Obj, status: Obj) -> None:
    obj["status"] = status


def _at_rest(job: Obj) -> bool:
    """Whether only a change, or its TTL, makes this Job move again."""
    if job["metadata"].get("deletionTimestamp"):
        return False
    status = job.get("status") or {}
    return finished(status) is not None or condition(status, "Suspended") is not None
