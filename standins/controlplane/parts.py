"""The three programs as child processes: their command lines, their start in order, their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from standins.controlplane.certs import Certificates
from standins.kubernetes.guard import Guard, bound_to_server

ISSUER = "https://kubernetes.default.svc"
SERVICE_RANGE = "10.96.0.0/16"
CONTROLLERS = (
    "cronjob-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "pod-garbage-collector-controller",
    "resourcequota-controller",
    "serviceaccount-controller",
    "ttl-after-finished-controller",
)
END_SECONDS = 5.0


def listening() -> socket.socket:
    """A socket that listens on a free port of 127.0.0.1."""
    return socket.create_server(("127.0.0.1", 0))


@dataclass(frozen=True)
class Wiring:
    """Folders and ports of one control plane."""

    programs: Path
    data: Path
    certs: Certificates
    etcd_port: int
    peer_port: int
    api_port: int

    @property
    def api_url(self) -> str:
        """The address of the API server."""
        return f"https://127.0.0.1:{self.api_port}"

    @property
    def etcd_url(self) -> str:
        """The address of etcd."""
        return f"http://127.0.0.1:{self.etcd_port}"


def etcd_command(wiring: Wiring) -> list[str]:
    """etcd with one member; it does not wait for the disk, as nothing here outlives the machine."""
    peer = f"http://127.0.0.1:{wiring.peer_port}"
    return [
        str(wiring.programs / "etcd"),
        f"--data-dir={wiring.data / 'etcd'}",
        f"--listen-client-urls={wiring.etcd_url}",
        f"--advertise-client-urls={wiring.etcd_url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver_command(wiring: Wiring) -> list[str]:
    """kube-apiserver with RBAC, service accounts and the admission plugins that are on by default."""
    certs = wiring.certs
    return [
        str(wiring.programs / "kube-apiserver"),
        f"--etcd-servers={wiring.etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={wiring.api_port}",
        f"--tls-cert-file={certs.server.cert}",
        f"--tls-private-key-file={certs.server.key}",
        f"--client-ca-file={certs.ca}",
        f"--kubelet-certificate-authority={certs.ca}",
        f"--kubelet-client-certificate={certs.kubelet_client.cert}",
        f"--kubelet-client-key={certs.kubelet_client.key}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={certs.accounts}",
        f"--service-account-signing-key-file={certs.accounts}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--endpoint-reconciler-type=none",
        "--authorization-mode=RBAC",
        "--profiling=false",
    ]


def controllers_command(wiring: Wiring) -> list[str]:
    """kube-controller-manager with the controllers that a Job, its pods and their namespaces need."""
    return [
        str(wiring.programs / "kube-controller-manager"),
        f"--kubeconfig={administrator_config(wiring)}",
        f"--controllers={','.join(CONTROLLERS)}",
        f"--service-account-private-key-file={wiring.certs.accounts}",
        f"--root-ca-file={wiring.certs.ca}",
        "--leader-elect=false",
        "--secure-port=0",
        "--profiling=false",
    ]


def administrator_config(wiring: Wiring) -> Path:
    """Write the administrator's kubeconfig; returns its path."""
    path = wiring.data / "administrator.yaml"
    pair = wiring.certs.administrator
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "real", "cluster": {"server": wiring.api_url, "certificate-authority": str(wiring.certs.ca)}}
        ],
        "users": [{"name": "admin", "user": {"client-certificate": str(pair.cert), "client-key": str(pair.key)}}],
        "contexts": [{"name": "real", "context": {"cluster": "real", "user": "admin"}}],
        "current-context": "real",
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


class PartEnded(RuntimeError):
    """A program of the control plane ended by itself; the text has the end of its log."""


class Parts:
    """The running programs. ``on_end`` is called once with the reason if one of them ends by itself."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[tuple[str, asyncio.subprocess.Process, asyncio.Task[None]]] = []
        self._commands: dict[str, Sequence[str]] = {}
        self._guard = Guard(logs)
        self._wanted: set[int] = set()
        self._stopping = False
        self.ended: list[str] = []
        self.on_end: Callable[[str], None] = lambda _text: None

    def guard(self) -> None:
        """Before the first start: end what an earlier server left, and have somebody end what this one leaves."""
        self._logs.mkdir(parents=True, exist_ok=True)
        self._guard.start()

    async def start(self, name: str, command: Sequence[str]) -> None:
        """Start a program; it dies with this process. Its output is in ``<logs>/<name>.log``."""
        with (self._logs / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *bound_to_server(command),
                env={**os.environ, **self._guard.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        task = asyncio.create_task(self._watch(name, process), name=name)
        self._commands[name] = command
        self._running.append((name, process, task))

    async def restart(self, name: str) -> None:
        """Kill a running program and start it again as it was. Raises KeyError for one that does not run."""
        process = {running: process for running, process, _ in self._running}[name]
        self._wanted.add(process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        self._running = [row for row in self._running if row[1] is not process]
        await self.start(name, self._commands[name])

    async def _watch(self, name: str, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if not self._stopping and process.pid not in self._wanted:
            text = f"{name} ended with {code}:\n{self.tail(name)}"
            self.ended.append(text)
            self.on_end(text)

    def tail(self, name: str) -> str:
        """The end of a program's log."""
        path = self._logs / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace")[-2000:] if path.exists() else ""

    def check(self) -> None:
        """Raises PartEnded if a program has ended by itself."""
        if self.ended:
            raise PartEnded(self.ended[0])

    def processes(self) -> dict[str, int]:
        """Process ids by name."""
        return {name: process.pid for name, process, _ in self._running}

    async def stop(self) -> None:
        """End all: etcd properly, the others at once, since all that they know is in etcd."""
        self._stopping = True
        for name, process, _ in reversed(self._running):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM if name == "etcd" else signal.SIGKILL)
        tasks = [task for _, _, task in self._running]
        if tasks:
            await asyncio.wait(tasks, timeout=END_SECONDS)
        for _, process, _ in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*tasks)
        await asyncio.to_thread(self._guard.stop)
