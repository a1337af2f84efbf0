"""One pod's life: pull, configure, run and restart its containers."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from datetime import datetime
from pathlib import Path

from standins.kubernetes import podstatus
from standins.kubernetes.clock import rfc3339, utc_now
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.faults import ActiveRule, Rule
from standins.kubernetes.images import ContainerConfigError, Image, ImagesFileError, container_env, load_images
from standins.kubernetes.processes import ContainerLog, ContainerProcess
from standins.kubernetes.processtable import ProcessTable
from standins.kubernetes.resources import PODS, Obj

log = logging.getLogger(__name__)
POLL_SECONDS = 0.1
FIRST_PULL_SECONDS = 0.5
"""How long a failing pull shows ErrImagePull before it shows ImagePullBackOff."""
START_ERROR_CODE = 128  # of containerd, for a program that cannot be started


class PodRun:
    """Runs the containers of one pod and keeps its status."""

    def __init__(self, cluster: Cluster, table: ProcessTable, pod: Obj) -> None:
        self._cluster = cluster
        self._table = table
        self._pod = pod
        self._uid = str(pod["metadata"]["uid"])
        self._started = rfc3339(utc_now())
        self._processes: dict[str, ContainerProcess] = {}
        self._entries: dict[str, Obj] = {}
        self.stopping = False

    async def run(self) -> None:
        """Run all containers to their end (or until this task is cancelled)."""
        self._event("Normal", "Scheduled", f"Successfully assigned {self._where} to sandbox-node")
        for container in self._pod["spec"]["containers"]:
            self._entries[container["name"]] = self._status(container, podstatus.waiting("ContainerCreating"))
        self._publish()
        async with asyncio.TaskGroup() as group:
            for container in self._pod["spec"]["containers"]:
                group.create_task(self._container(container))

    @property
    def _where(self) -> str:
        meta = self._pod["metadata"]
        return f"{meta['namespace']}/{meta['name']}"

    def stop(self, number: signal.Signals) -> bool:
        """Send a signal to all containers; False if none runs."""
        self.stopping = True
        for process in self._processes.values():
            process.terminate(number)
        return bool(self._processes)

    async def _container(self, container: Obj) -> None:
        """Run one container to its end."""
        image = await self._pull(container)
        env = await self._configure(container, image)
        self._set(container, await self._execute(container, image, env))

    def _status(self, container: Obj, state: Obj) -> Obj:
        return podstatus.container_status(container, state, self._uid)

    def _set(self, container: Obj, state: Obj) -> None:
        self._entries[container["name"]] = self._status(container, state)
        self._publish()

    def _publish(self) -> None:
        meta = self._pod["metadata"]
        current = self._cluster.store.find(PODS, meta["namespace"], meta["name"])
        if current is None or current["metadata"]["uid"] != self._uid:
            return

        def edit(pod: Obj) -> None:
            podstatus.apply_states(pod, self._entries, self._started)

        self._pod = self._cluster.store.change(PODS, current, edit)

    def _event(self, kind: str, reason: str, message: str) -> None:
        self._cluster.emit(("v1", "Pod", self._pod), kind, reason, message, "kubelet")

    def _fault(self, kind: str, container: str = "") -> ActiveRule | None:
        """The rule that holds this pod, or its container of this name."""
        return self._cluster.take_fault(kind, self._cluster.pod_subject(self._pod), self._uid, container=container)

    async def _pull(self, container: Obj) -> Image:
        """The program of the image, once it is there and no fault holds the pull."""
        name, began = container["image"], time.monotonic()
        told = False
        while True:
            held = self._fault("image_pull_backoff")
            over = held is not None and held.rule.seconds is not None
            if held is not None and over and time.monotonic() - began >= (held.rule.seconds or 0):
                held = None
            image, reason = self._image(name)
            if held is None and image is not None:
                self._event("Normal", "Pulled", f'Container image "{name}" already present on machine')
                return image
            if not told:
                self._event("Warning", "Failed", f'Failed to pull image "{name}": not found')
                told = True
            self._set_waiting(container, self._pull_state(name, reason, time.monotonic() - began))
            await asyncio.sleep(POLL_SECONDS)

    def _image(self, name: str) -> tuple[Image | None, str]:
        """The image, or the waiting reason of a file that cannot be used; the file may change at any time."""
        try:
            return load_images(self._cluster.settings.images).get(name), ""
        except (ImagesFileError, OSError) as error:
            log.error("the images file cannot be used: %s", error)
            return None, "RegistryUnavailable"

    @staticmethod
    def _pull_state(image: str, reason: str, elapsed: float) -> Obj:
        if reason:
            return podstatus.waiting(reason, f'{reason}: image "{image}"')
        if elapsed < FIRST_PULL_SECONDS:
            text = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": not found'
            return podstatus.waiting("ErrImagePull", text)
        return podstatus.waiting("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: not found')

    def _set_waiting(self, container: Obj, state: Obj) -> None:
        if self._entries[container["name"]]["state"] != state:
            self._set(container, state)

    async def _configure(self, container: Obj, image: Image) -> dict[str, str]:
        """The container's variables, once they can be made (a missing Secret may come later)."""
        while True:
            try:
                if self._pod["spec"].get("initContainers") or self._pod["spec"]["restartPolicy"] != "Never":
                    raise ContainerConfigError("the sandbox runs no init containers, and restarts no container")
                return container_env(self._cluster.store, self._pod, container, image)
            except ContainerConfigError as error:
                self._set_waiting(container, podstatus.waiting("CreateContainerConfigError", str(error)))
            await asyncio.sleep(POLL_SECONDS)

    def _log(self, container: Obj) -> ContainerLog:
        return ContainerLog(log_path(self._cluster.settings.logs, self._uid, container["name"]))

    async def _execute(self, container: Obj, image: Image, env: dict[str, str]) -> Obj:
        """Run the program, or what a fault puts in its place; returns the terminated state."""
        output, started = self._log(container), utc_now()
        # Shown as running before the start, so that a server that is killed in between never starts it twice.
        self._set(container, podstatus.running(started))
        self._event("Normal", "Started", f"Container started: {container['name']}")
        argv = [*image.argv, *container.get("args", [])]
        active = self._replacement(container)
        if active is not None:
            rule, text = active.rule, active.rule.log
            output.write(text.encode() + (b"\n" if text and not text.endswith("\n") else b""))
            if rule.kind == "fail_container":
                output.close()
                return podstatus.terminated(rule.exit_code, started, utc_now())
            argv = hanging(rule)
        try:
            process = await ContainerProcess.start(argv, env, image.cwd, output)
        except OSError as error:
            output.close()
            return podstatus.terminated(START_ERROR_CODE, started, utc_now(), "StartError", str(error))
        return await self._await_end(container["name"], process, started)

    async def _await_end(self, name: str, process: ContainerProcess, started: datetime) -> Obj:
        key = f"{self._uid}/{name}"
        self._processes[name] = process
        self._table.add(key, process.pid)
        if self.stopping:
            process.terminate()
        try:
            code = await process.wait()
        finally:
            del self._processes[name]
            self._table.drop(key)
        return podstatus.terminated(code, started, utc_now())

    def _replacement(self, container: Obj) -> ActiveRule | None:
        """A fault that takes the program's place, or None."""
        return self._fault("fail_container", container["name"]) or self._fault("hang_container", container["name"])


def hanging(rule: Rule) -> list[str]:
    """The program of a container that hangs: for ever, or for the rule's seconds and then ends with its code."""
    if rule.seconds is None:
        return ["sleep", "infinity"]
    return ["sh", "-c", f"sleep {float(rule.seconds)}; exit {rule.exit_code}"]


def log_path(logs: Path, pod_uid: str, container: str) -> Path:
    """Where the log of a container is."""
    return logs / pod_uid / f"{container}.log"
