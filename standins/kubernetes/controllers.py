"""The control loop: Jobs, garbage collection, history limits of CronJobs, and faults on objects."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from standins.kubernetes.clock import utc_now
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.defaults import complete
from standins.kubernetes.faults import subject_of
from standins.kubernetes.jobs import JobPlan, condition, finished, plan_job
from standins.kubernetes.kubelet import Kubelet
from standins.kubernetes.resources import CRONJOBS, JOBS, PODS, TRACKING_FINALIZER, Obj
from standins.kubernetes.store import random_suffix

REST_SECONDS = 0.02
"""The shortest time between two passes."""
TICK_SECONDS = 0.1
"""The longest time between two passes while a Job runs or a fault is set."""
IDLE_SECONDS = 0.5
"""The longest time between two passes while nothing runs; a TTL may end that much late."""


class Controllers:
    """All controllers of one cluster; ``run`` is the loop."""

    def __init__(self, cluster: Cluster, kubelet: Kubelet) -> None:
        self._cluster = cluster
        self._store = cluster.store
        self._kubelet = kubelet

    async def run(self) -> None:
        """Pass after pass: after each change, at least every TICK_SECONDS or IDLE_SECONDS."""
        while True:
            changed = self._store.changed
            self.sync()
            waiter = asyncio.ensure_future(changed.wait())
            busy = self._cluster.faults or any(not _at_rest(job) for job in self._store.every(JOBS))
            await asyncio.wait({waiter}, timeout=TICK_SECONDS if busy else IDLE_SECONDS)
            waiter.cancel()
            await asyncio.sleep(REST_SECONDS)

    def sync(self) -> None:
        """One pass over everything."""
        by_owner: dict[str, list[Obj]] = {}
        for pod in self._store.every(PODS):
            if (owner := self._cluster.job_of(pod)) is not None:
                by_owner.setdefault(owner["metadata"]["uid"], []).append(pod)
            elif pod["metadata"].get("ownerReferences"):
                self._cluster.delete_pod(self._cluster.release_pod(pod))
        for job in self._store.every(JOBS):
            self._sync_job(job, by_owner.get(job["metadata"]["uid"], []))
        for cronjob in self._store.every(CRONJOBS):
            self._limit_history(cronjob)
        self._kubelet.sync()

    def _sync_job(self, job: Obj, pods: list[Obj]) -> None:
        held = self._cluster.faults.holds("no_pod", subject_of(job), job["metadata"]["uid"])
        backoff = timedelta(seconds=self._cluster.settings.backoff_seconds)
        self._apply(job, pods, plan_job(job, pods, utc_now(), backoff, held))
        for pod in pods:
            current = self._store.current(PODS, pod)
            if current is not None and self._cluster.loses_pod(job, current):
                self._cluster.delete_pod(current)
        if self._cluster.loses_job(job):
            self._store.remove(JOBS, job)

    def _apply(self, job: Obj, pods: list[Obj], plan: JobPlan) -> None:
        by_name = {pod["metadata"]["name"]: pod for pod in pods}
        with self._store.together():  # a pod that is counted but not released would be counted twice
            made = [self._make_pod(job) for _ in range(plan.create)]
            if plan.status != job["status"]:
                self._store.change(JOBS, job, lambda new: new.update(status=plan.status))
            for name in plan.release:
                self._cluster.release_pod(by_name[name])
        for name in plan.delete:
            self._cluster.delete_pod(by_name[name])
        created = [("Normal", "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}") for pod in made]
        for event in created + plan.events:
            self._cluster.emit(("batch/v1", "Job", job), *event)
        if plan.expired:
            self._store.remove(JOBS, job)

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
        complete(PODS, pod)
        return self._store.add(PODS, pod)

    def _limit_history(self, cronjob: Obj) -> None:
        uid, namespace = cronjob["metadata"]["uid"], cronjob["metadata"]["namespace"]
        for kind, field in (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")):
            ended = [
                job
                for job in self._store.every(JOBS, namespace)
                if condition(job.get("status") or {}, kind)
                and any(r["uid"] == uid and r.get("controller") for r in job["metadata"].get("ownerReferences", []))
            ]
            ended.sort(key=lambda job: str(job["status"].get("startTime", "")))
            for job in ended[: max(len(ended) - int(cronjob["spec"][field]), 0)]:
                self._store.remove(JOBS, job)


def _at_rest(job: Obj) -> bool:
    """Whether only a change, or its TTL, makes this Job move again."""
    status = job.get("status") or {}
    return finished(status) is not None or condition(status, "Suspended") is not None
