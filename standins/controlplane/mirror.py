"""The objects as the real API server has them: read from watches, changed by calls.

The node and the faults of the stand-in read and write an ObjectStore; this one is a copy of what the API server holds.
A pod's status is the node's own: what it has set counts at once, and is sent in the background.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from pathlib import Path

import httpx

from standins.controlplane.calls import MERGE, CallError, Calls, path_of
from standins.kubernetes.resources import CRONJOBS, EVENTS, JOBS, PODS, SECRETS, Obj, ResourceType
from standins.kubernetes.store import ObjectStore, key_of

log = logging.getLogger(__name__)
WATCHED = (PODS, JOBS, CRONJOBS, SECRETS)
AGAIN_SECONDS = 0.3
NODE = "sandbox-node"


class Mirror(ObjectStore):
    """A copy in memory of the watched types; see the module."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(Path(":memory:"))
        self._calls = calls
        self._statuses: dict[str, Obj] = {}
        self._unsent: dict[str, Obj] = {}
        self._going: dict[str, Obj] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[None]] = set()
        self._filled = {resource.qualified: asyncio.Event() for resource in WATCHED}

    # Reading

    def every(self, resource: ResourceType, namespace: str | None = None) -> list[Obj]:
        """As in ObjectStore; only pods that are bound to the node."""
        rows = super().every(resource, namespace)
        return rows if resource is not PODS else [pod for pod in rows if pod["spec"].get("nodeName") == NODE]

    def unbound(self) -> list[Obj]:
        """The pods that no node has."""
        return [
            pod
            for pod in super().every(PODS)
            if not pod["spec"].get("nodeName")
            and not pod["spec"].get("schedulingGates")
            and not pod["metadata"].get("deletionTimestamp")
        ]

    async def filled(self) -> None:
        """Wait until every watched type was listed once."""
        for event in self._filled.values():
            await event.wait()

    async def follow(self) -> None:
        """Keep the copy until cancelled."""
        async with asyncio.TaskGroup() as group:
            for resource in WATCHED:
                group.create_task(self._follow(resource), name=f"watch-{resource.plural}")

    async def _follow(self, resource: ResourceType) -> None:
        path = path_of(resource)
        while True:
            try:
                listed = await self._calls.send("GET", path)
                self._replace(resource, listed["items"])
                version = str(listed["metadata"]["resourceVersion"])
                self._filled[resource.qualified].set()
                while version:
                    version = await self._events(resource, path, version)
            except (httpx.TransportError, CallError) as error:
                log.debug("watch of %s begins again: %s", path, error)
                await asyncio.sleep(AGAIN_SECONDS)

    async def _events(self, resource: ResourceType, path: str, version: str) -> str:
        """Take in the events of one watch; returns where the next begins, empty to list anew."""
        async for event in self._calls.watch(path, version):
            if event["type"] == "ERROR":
                return ""
            obj = event["object"]
            version = str(obj["metadata"]["resourceVersion"])
            self.version = int(version)
            if event["type"] != "BOOKMARK":
                self._take(event["type"], resource, obj)
        return version

    def _replace(self, resource: ResourceType, items: list[Obj]) -> None:
        kept = {item["metadata"]["uid"] for item in items}
        for obj in super().every(resource):
            if obj["metadata"]["uid"] not in kept:
                self._take("DELETED", resource, obj)
        for item in items:
            self._take("ADDED", resource, {"kind": resource.kind, "apiVersion": resource.api_version, **item})

    def _take(self, kind: str, resource: ResourceType, obj: Obj) -> None:
        rows = self._objects.setdefault(resource.qualified, {})
        uid, key = obj["metadata"]["uid"], key_of(obj)
        if kind == "DELETED":
            if rows.get(key, obj)["metadata"]["uid"] == uid:
                rows.pop(key, None)
            self._statuses.pop(uid, None)
            self._going.pop(uid, None)
        else:
            if resource is PODS and uid in self._statuses:
                obj["status"] = self._statuses[uid]
            rows[key] = obj
        self.wake()

    # Writing

    def prepare(self, resource: ResourceType, obj: Obj) -> Obj:
        """A copy; the server fills in the rest."""
        return copy.deepcopy(obj)

    def add(self, resource: ResourceType, prepared: Obj, dry_run: bool = False) -> Obj:
        """Send an Event in the background; nothing else is made here."""
        if resource is not EVENTS:
            raise NotImplementedError(f"the node makes no {resource.plural}")
        self.behind(self._calls.send("POST", path_of(EVENTS, prepared["metadata"]["namespace"]), prepared))
        return prepared

    def change(self, resource: ResourceType, current: Obj, edit: Callable[[Obj], object]) -> Obj:
        """Change a pod's status: at once in the copy, soon in the server."""
        if resource is not PODS:
            raise NotImplementedError(f"the node changes no {resource.plural}")
        stored, uid = self.current(PODS, current), current["metadata"]["uid"]
        if stored is None:
            return current
        new = copy.deepcopy(stored)
        edit(new)
        if new["status"] == stored["status"]:
            return stored
        self._objects[PODS.qualified][key_of(new)] = new
        self._statuses[uid] = new["status"]
        self._unsent[uid] = new
        self._send(uid)
        self.wake()
        return new

    def remove(self, resource: ResourceType, obj: Obj) -> None:
        """Tell the server that nothing of a pod is left on the node; its watch takes it out of the copy."""
        uid = obj["metadata"]["uid"]
        if uid not in self._going:
            self._going[uid] = obj
            self._send(uid)

    def _send(self, uid: str) -> None:
        if uid not in self._sending:
            task = self._sending[uid] = asyncio.create_task(self._send_all(uid), name=f"status-{uid}")
            task.add_done_callback(_report)

    async def _send_all(self, uid: str) -> None:
        """Send the newest status of a pod, then its end, until nothing is left to send."""
        told = False
        try:
            while uid in self._unsent or (uid in self._going and not told):
                pod = self._unsent.pop(uid, None)
                try:
                    if pod is not None:
                        await self._send_status(pod)
                    else:
                        told = True
                        await self._send_end(self._going[uid])
                except (httpx.TransportError, CallError) as error:
                    if isinstance(error, CallError) and not error.passing:
                        raise
                    log.debug("status of pod %s is sent again: %s", uid, error)
                    told = False
                    if pod is not None:
                        self._unsent.setdefault(uid, pod)
                    await asyncio.sleep(AGAIN_SECONDS)
        finally:
            del self._sending[uid]

    async def _send_status(self, pod: Obj) -> None:
        meta = pod["metadata"]
        body = {"metadata": {"uid": meta["uid"]}, "status": pod["status"]}
        await self._tell("PATCH", path_of(PODS, meta["namespace"], meta["name"], "status"), body, MERGE)

    async def _send_end(self, pod: Obj) -> None:
        meta = pod["metadata"]
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
        await self._tell("DELETE", path_of(PODS, meta["namespace"], meta["name"]), body)

    async def _tell(self, method: str, path: str, body: Obj, content_type: str = "application/json") -> None:
        """Send; a pod that is gone, or another one by now (422 for its uid), needs no word."""
        try:
            await self._calls.send(method, path, body, content_type)
        except CallError as error:
            if error.status not in (404, 409, 422):
                raise
            log.info("%s", error)

    def behind(self, sending: object) -> None:
        """Run a call in the background; its failure is logged."""
        task = asyncio.ensure_future(_quietly(sending))
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def flushed(self, seconds: float) -> None:
        """Wait until everything was sent, at most so long."""
        waiting = [*self._sending.values(), *self._others]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _quietly(sending: object) -> None:
    try:
        await sending  # type: ignore[misc]
    except (CallError, httpx.TransportError) as error:
        log.info("a call in the background failed: %s", error)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s: not sent", task.get_name(), exc_info=error)
