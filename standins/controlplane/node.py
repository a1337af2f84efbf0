"""The node: registers itself, binds pending pods to itself, runs them with the stand-in's kubelet, plays faults."""

from __future__ import annotations

import asyncio
import logging

import httpx

from standins.controlplane.calls import MERGE, CallError, Calls, path_of
from standins.controlplane.mirror import NODE, Mirror
from standins.kubernetes.clock import rfc3339, utc_now
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.kubelet import Kubelet
from standins.kubernetes.resources import JOBS, PODS, Obj

log = logging.getLogger(__name__)
REST_SECONDS = 0.02
BUSY_SECONDS = 0.1
IDLE_SECONDS = 1.0
ALL_GONE = (404, 409)


class Node:
    """The only node of a cluster; ``port`` is where it serves logs (HTTPS)."""

    def __init__(self, cluster: Cluster, mirror: Mirror, calls: Calls, kubelet: Kubelet, port: int) -> None:
        self._cluster = cluster
        self._mirror = mirror
        self._calls = calls
        self._kubelet = kubelet
        self._port = port
        self._bound: set[str] = set()

    async def register(self) -> None:
        """Make the Node, or say again where it is and that it is ready."""
        labels = {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}
        await self._calls.make("/api/v1/nodes", {"metadata": {"name": NODE, "labels": labels}})
        size = {"cpu": "64", "memory": "256Gi", "pods": "1000"}
        now = rfc3339(utc_now())
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "runs local processes"}
        status = {
            "capacity": size,
            "allocatable": size,
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": NODE}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "conditions": [{**ready, "lastHeartbeatTime": now, "lastTransitionTime": now}],
        }
        await self._calls.send("PATCH", f"/api/v1/nodes/{NODE}/status", {"status": status}, MERGE)

    async def run(self) -> None:
        """Pass after pass, after each change and at least every second, until cancelled."""
        while True:
            changed = self._mirror.changed
            for pod in self._mirror.unbound():
                self._bind(pod)
            self._kubelet.sync()
            if self._cluster.faults:
                self._lose()
            waiter = asyncio.ensure_future(changed.wait())
            await asyncio.wait({waiter}, timeout=BUSY_SECONDS if self._cluster.faults else IDLE_SECONDS)
            waiter.cancel()
            await asyncio.sleep(REST_SECONDS)

    def _bind(self, pod: Obj) -> None:
        meta = pod["metadata"]
        if meta["uid"] not in self._bound:
            self._bound.add(meta["uid"])
            self._mirror.behind(self._bind_until_told(meta))

    async def _bind_until_told(self, meta: Obj) -> None:
        path = path_of(PODS, meta["namespace"], meta["name"], "binding")
        body = {"metadata": {"name": meta["name"], "uid": meta["uid"]}, "target": {"kind": "Node", "name": NODE}}
        while True:
            try:
                await self._calls.send("POST", path, body)
                return
            except CallError as error:
                if error.status in ALL_GONE:
                    return
                if not error.passing:
                    raise
            except httpx.TransportError as error:
                log.debug("pod %s is bound again: %s", meta["name"], error)
            await asyncio.sleep(BUSY_SECONDS)

    def _lose(self) -> None:
        """The faults pod_gone and job_gone."""
        for pod in self._mirror.every(PODS):
            job = self._cluster.job_of(pod)
            if job is not None and self._cluster.loses_pod(job, pod):
                self._mirror.remove(PODS, pod)
        for job in self._mirror.every(JOBS):
            meta = job["metadata"]
            if not meta.get("deletionTimestamp") and self._cluster.loses_job(job):
                body = {"propagationPolicy": "Background", "preconditions": {"uid": meta["uid"]}}
                self._mirror.behind(self._calls.send("DELETE", path_of(JOBS, meta["namespace"], meta["name"]), body))
