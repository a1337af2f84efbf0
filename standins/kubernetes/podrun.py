"""One pod's life: pull, configure and run its containers, each a local process in a process group of its own."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from standins.kubernetes import podstatus
from standins.kubernetes.clock import rfc3339, rfc3339_micro, utc_now
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.faults import Rule
from standins.kubernetes.guard import bound_to_server, signal_group
from standins.kubernetes.images import ContainerConfigError, Image, container_env
from standins.kubernetes.resources import PODS, Obj

POLL_SECONDS = 0.1
FIRST_PULL_SECONDS = 0.5
"""How long a failing pull shows ErrImagePull before it shows ImagePullBackOff."""
START_ERROR_CODE = 128  # of containerd, for a program that cannot be started
READ_BYTES = 65536
KILL_WAIT_SECONDS = 5.0
"""How long the output may stay open after the group was killed (a child that left the group)."""


class ContainerLog:
    """A log file in which every line starts with its time, as the kubelet keeps it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._at_start = True

    def write(self, data: bytes) -> None:
        """Append output; a part of a line is written at once and continued later."""
        stamp = rfc3339_micro(utc_now()).encode() + b" "
        out = b""
        for line in data.splitlines(keepends=True):
            out += (stamp if self._at_start else b"") + line
            self._at_start = line.endswith(b"\n")
        self._file.write(out)

    async def copy(self, stream: asyncio.StreamReader | None) -> None:
        """Append a program's output to its end, then close the file."""
        try:
            while stream is not None and (data := await stream.read(READ_BYTES)):
                self.write(data)
        finally:
            self._file.close()


async def start_program(argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> asyncio.subprocess.Process:
    """Start a program in a session of its own, its output in a pipe. Raises OSError if it cannot be started."""
    if shutil.which(argv[0], path=env.get("PATH")) is None:
        raise FileNotFoundError(f'exec: "{argv[0]}": executable file not found in $PATH')
    return await asyncio.create_subprocess_exec(
        *bound_to_server(argv),
        env=dict(env),
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


class PodRun:
    """Runs the containers of one pod and keeps its status; ``mark`` is the guard's, for their environment.

    ``processes`` has the running process groups by container.
    """

    def __init__(self, cluster: Cluster, mark: Mapping[str, str], pod: Obj) -> None:
        self._cluster = cluster
        self._mark = mark
        self._pod = pod
        self.uid = str(pod["metadata"]["uid"])
        self._started = rfc3339(utc_now())
        self._states: dict[str, Obj] = {}
        self.processes: dict[str, int] = {}
        self._stopping = False

    async def run(self) -> None:
        """Run all containers to their end (or until this task is cancelled)."""
        meta, containers = self._pod["metadata"], self._pod["spec"]["containers"]
        self._event("Normal", "Scheduled", f"Assigned {meta['namespace']}/{meta['name']} to sandbox-node")
        self._states = {container["name"]: podstatus.waiting("ContainerCreating") for container in containers}
        self._publish()
        async with asyncio.TaskGroup() as group:
            for container in containers:
                group.create_task(self._container(container))

    def stop(self, number: signal.Signals) -> bool:
        """Send a signal to all containers; False if none runs."""
        self._stopping = True
        for pid in self.processes.values():
            signal_group(pid, number)
        return bool(self.processes)

    async def _container(self, container: Obj) -> None:
        image = await self._pull(container)
        env = await self._configure(container, image)
        self._set(container, await self._execute(container, image, env))

    def _set(self, container: Obj, state: Obj) -> None:
        if self._states[container["name"]] != state:
            self._states[container["name"]] = state
            self._publish()

    def _publish(self) -> None:
        self._cluster.store.change(
            PODS, self._pod, lambda pod: podstatus.apply_states(pod, self._states, self._started)
        )

    def _event(self, kind: str, reason: str, message: str) -> None:
        self._cluster.emit(("v1", "Pod", self._pod), kind, reason, message)

    async def _pull(self, container: Obj) -> Image:
        """The program of the image, once no fault holds the pull; never, if the image is not known."""
        name, began = container["image"], time.monotonic()
        image = self._cluster.settings.images.get(name)
        while True:
            subject = self._cluster.subject_of(PODS, self._pod)
            if not self._cluster.faults.holds("image_pull_backoff", subject, self.uid) and image is not None:
                self._event("Normal", "Pulled", f'Container image "{name}" already present on machine')
                return image
            if "ContainerCreating" in str(self._states[container["name"]]):
                self._event("Warning", "Failed", f'Failed to pull image "{name}": not found')
            early = time.monotonic() - began < FIRST_PULL_SECONDS
            reason = "ErrImagePull" if early else "ImagePullBackOff"
            self._set(container, podstatus.waiting(reason, f'Back-off pulling image "{name}": not found'))
            await asyncio.sleep(POLL_SECONDS)

    async def _configure(self, container: Obj, image: Image) -> dict[str, str]:
        """The container's variables, once they can be made (a missing Secret may come later)."""
        while True:
            try:
                if self._pod["spec"].get("initContainers") or self._pod["spec"]["restartPolicy"] != "Never":
                    raise ContainerConfigError("the sandbox runs no init containers, and restarts no container")
                return container_env(self._cluster.store, self._pod, container, image)
            except ContainerConfigError as error:
                self._set(container, podstatus.waiting("CreateContainerConfigError", str(error)))
            await asyncio.sleep(POLL_SECONDS)

    async def _execute(self, container: Obj, image: Image, env: dict[str, str]) -> Obj:
        """Run the program, or what a fault puts in its place; returns the terminated state."""
        output = ContainerLog(self._cluster.settings.log_path(self.uid, container["name"]))
        started = utc_now()
        # Shown as running before the start, so that a server that is killed in between never starts it twice.
        self._set(container, podstatus.running(started))
        self._event("Normal", "Started", f"Container started: {container['name']}")
        argv = [*image.argv, *container.get("args", [])]
        if (rule := self._replacement()) is not None:
            output.write(rule.log.encode() + (b"\n" if rule.log and not rule.log.endswith("\n") else b""))
            if rule.kind == "fail_container":
                await output.copy(None)
                return podstatus.terminated(rule.exit_code, started, utc_now())
            argv = ["sleep", "infinity"]
        try:
            process = await start_program(argv, {**env, **self._mark}, image.cwd)
        except OSError as error:
            await output.copy(None)
            return podstatus.terminated(START_ERROR_CODE, started, utc_now(), "StartError", str(error))
        return await self._await_end(container["name"], process, output, started)

    async def _await_end(
        self, name: str, process: asyncio.subprocess.Process, output: ContainerLog, started: datetime
    ) -> Obj:
        """Wait for the end of the first process, then end the rest of its group."""
        copying = asyncio.create_task(output.copy(process.stdout))
        self.processes[name] = process.pid
        if self._stopping:
            signal_group(process.pid, signal.SIGTERM)
        try:
            code = await process.wait()
        finally:
            signal_group(process.pid, signal.SIGKILL)
            del self.processes[name]
        await asyncio.wait({copying}, timeout=KILL_WAIT_SECONDS)
        copying.cancel()
        return podstatus.terminated(128 - code if code < 0 else code, started, utc_now())

    def _replacement(self) -> Rule | None:
        """A fault that takes the program's place, or None."""
        subject = self._cluster.subject_of(PODS, self._pod)
        kinds = ("fail_container", "hang_container")
        return next(filter(None, (self._cluster.faults.take_object(kind, subject, self.uid) for kind in kinds)), None)
