"""The node: starts what is pending, ends what is deleted, keeps nothing alive after the server."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal

from standins.kubernetes import podstatus
from standins.kubernetes.clock import utc_now
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.guard import Guard
from standins.kubernetes.jobs import pod_phase
from standins.kubernetes.podrun import PodRun
from standins.kubernetes.resources import PODS, Obj

log = logging.getLogger(__name__)


class Kubelet:
    """Runs the pods of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._guard = Guard(cluster.settings.data)
        self._runs: dict[str, tuple[PodRun, asyncio.Task[None]]] = {}
        self._endings: dict[str, asyncio.Task[None]] = {}

    def processes(self) -> dict[str, int]:
        """The process groups that run now, by ``<pod uid>/<container>``."""
        return {f"{run.uid}/{name}": pid for run, _ in self._runs.values() for name, pid in run.processes.items()}

    def recover(self) -> None:
        """At the start: end what an earlier server left, mark the pods Failed that it ran, start the guard."""
        if ended := self._guard.start():
            log.warning("ended %d container processes of an earlier server", ended)
        for pod in self._cluster.store.every(PODS):
            if pod_phase(pod) == "Running":
                self._cluster.store.change(PODS, pod, lambda new: podstatus.lost(new, utc_now()))

    def sync(self) -> None:
        """One step for every pod."""
        for pod in self._cluster.store.every(PODS):
            uid = pod["metadata"]["uid"]
            if pod["metadata"].get("deletionTimestamp"):
                self._end(pod)
            elif pod_phase(pod) == "Pending" and uid not in self._runs:
                run = PodRun(self._cluster, self._guard.env, pod)
                task = asyncio.create_task(run.run(), name=f"pod-{pod['metadata']['name']}")
                task.add_done_callback(self._report)
                self._runs[uid] = (run, task)
        for uid in [uid for uid, (_, task) in self._runs.items() if task.done()]:
            del self._runs[uid]

    @staticmethod
    def _report(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: the run of this pod ended with an error", task.get_name(), exc_info=error)

    def _end(self, pod: Obj) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._runs:
            if uid not in self._endings:
                self._endings[uid] = asyncio.create_task(self._end_run(pod))
            return
        self._endings.pop(uid, None)
        if pod_phase(pod) not in ("Succeeded", "Failed"):
            pod = self._cluster.store.change(PODS, pod, lambda new: new["status"].update(phase="Failed"))
        if not pod["metadata"].get("finalizers"):
            self._cluster.store.remove(PODS, pod)
            shutil.rmtree(self._cluster.settings.log_path(uid, "").parent, ignore_errors=True)

    async def _end_run(self, pod: Obj) -> None:
        run, task = self._runs[pod["metadata"]["uid"]]
        grace = pod["metadata"].get("deletionGracePeriodSeconds", 0)
        grace = min(grace, self._cluster.settings.max_grace_seconds)
        if run.stop(signal.SIGTERM if grace else signal.SIGKILL):
            await asyncio.wait({task}, timeout=grace)
            run.stop(signal.SIGKILL)
            await asyncio.wait({task}, timeout=self._cluster.settings.max_grace_seconds)
        task.cancel()
        await asyncio.wait({task})

    async def stop(self) -> None:
        """Kill all processes and wait until they are gone."""
        tasks = [task for _, task in self._runs.values()]
        for run, _ in self._runs.values():
            run.stop(signal.SIGKILL)
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        for task in [*tasks, *self._endings.values()]:
            task.cancel()
        await asyncio.gather(*tasks, *self._endings.values(), return_exceptions=True)
        await asyncio.to_thread(self._guard.stop)
