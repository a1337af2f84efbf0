"""For tests and scripts: the stand-in's own endpoints, and the stand-in as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from standins.kubernetes.kubeconfig import NAMESPACE
from standins.kubernetes.resources import Obj
from standins.serverprocess import POLL_SECONDS, PROJECT, SandboxError, ServerProcess, send

__all__ = ["CRONJOB", "KIND", "NAMESPACE", "PROJECT", "KubernetesAdmin", "KubernetesSandbox", "SandboxError", "is_real"]

START_SECONDS = 180.0
"""A real control plane starts in some 10 s on two idle cores."""
KIND = "SANDBOX_KUBERNETES"
"""Environment variable: ``real`` starts a real control plane (standins.controlplane) in the stand-in's place."""
CALL_SECONDS = 10.0
RESTART_SECONDS = 120.0
CRONJOB = "cron-batch-reindex-conversations"


def is_real() -> bool:
    """Whether a real control plane is asked for. Raises ValueError for a value that means nothing."""
    value = os.environ.get(KIND, "standin")
    if value not in ("standin", "real"):
        raise ValueError(f"{KIND} is {value!r}; it must be standin or real")
    return value == "real"


class KubernetesAdmin:
    """The stand-in's own endpoints at an address, whoever started the server.

    They need no token; only ``token``, ``jobs`` and ``patch_cronjob`` need the kubeconfig that the server wrote.
    """

    def __init__(self, url: str, kubeconfig: Path | None = None) -> None:
        self._url = url
        self._kubeconfig = kubeconfig

    @property
    def url(self) -> str:
        """The address of the server."""
        return self._url

    @property
    def token(self) -> str:
        """The token that is valid now. Raises SandboxError without a kubeconfig."""
        return str(self._config()["users"][0]["user"]["token"])

    def _config(self) -> Obj:
        if self._kubeconfig is None:
            raise SandboxError(f"the token of {self.url} is in its kubeconfig, and no path of one was given")
        document: Obj = yaml.safe_load(self._kubeconfig.read_text(encoding="utf-8"))
        return document

    def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = "",
        content: str = "application/json",
        seconds: float = CALL_SECONDS,
    ) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content} | ({"Authorization": f"Bearer {token}"} if token else {})
        return json.loads(send(method, self.url + path, data, headers, seconds))

    def requests(
        self, method: str | None = None, path_contains: str | None = None, since_id: int = 0, mutating: bool = False
    ) -> list[Obj]:
        """The recorded requests in their order, without those on the stand-in's own endpoints.

        A row has id, time, method, path, query, status, seconds, token (a fingerprint) and faults (the kinds that
        acted on it); on a resource also name, labels (of the body of a POST, else of the stored object) and body as
        the client sent it; reason if it was refused.
        """
        given = {"method": method, "path_contains": path_contains, "since_id": since_id, "mutating": mutating}
        text = urllib.parse.urlencode({key: value for key, value in given.items() if value})
        rows: list[Obj] = self._call("GET", f"/_sandbox/requests?{text}")
        return rows

    def mutations(self, path_contains: str | None = None, since_id: int = 0) -> list[Obj]:
        """The recorded requests that may change something: POST, PUT, PATCH and DELETE, also refused ones."""
        return self.requests(path_contains=path_contains, since_id=since_id, mutating=True)

    def last_request_id(self) -> int:
        """The number of the newest request, 0 if there is none; what comes later has a higher one."""
        rows = self.requests()
        return int(rows[-1]["id"]) if rows else 0

    def set_faults(self, *rules: Mapping[str, Any]) -> list[int]:
        """Add fault rules (see faults); returns their numbers. Raises SandboxError for a bad rule."""
        ids: list[int] = self._call("POST", "/_sandbox/faults", list(rules))["ids"]
        return ids

    def faults(self) -> list[Obj]:
        """The rules that are set, with their hits."""
        rows: list[Obj] = self._call("GET", "/_sandbox/faults")
        return rows

    def wait_for_hits(self, number: int, hits: int = 1, limit_seconds: float = 30.0) -> None:
        """Wait until a rule has acted so often. Raises SandboxError when the limit is over."""
        end = time.monotonic() + limit_seconds
        while not any(row["id"] == number and row["hits"] >= hits for row in self.faults()):
            if time.monotonic() > end:
                raise SandboxError(f"rule {number} had fewer than {hits} hits after {limit_seconds} s: {self.faults()}")
            time.sleep(POLL_SECONDS)

    def clear_faults(self, number: int | None = None) -> None:
        """Drop one rule, or all."""
        self._call("DELETE", "/_sandbox/faults" + (f"/{number}" if number is not None else ""))

    def deny(self, *rules: Mapping[str, Any]) -> None:
        """Replace the deny rules (see rbac); none allows everything."""
        self._call("POST", "/_sandbox/rbac", {"deny": list(rules)})

    def rotate_token(self) -> None:
        """Make a new token the only valid one; the kubeconfig is written anew."""
        self._call("POST", "/_sandbox/token")

    def restart_api_server(self) -> None:
        """Kill kube-apiserver and wait until it is ready again; pods run on. Only a real control plane has it."""
        self._call("POST", "/_sandbox/restart", seconds=RESTART_SECONDS)

    def processes(self) -> dict[str, int]:
        """The running process groups by ``<pod uid>/<container>``."""
        rows: dict[str, int] = self._call("GET", "/_sandbox/processes")
        return rows

    def jobs(self, selector: str = "", namespace: str = NAMESPACE) -> list[Obj]:
        """The stored Jobs that a label selector chooses. Raises SandboxError without a kubeconfig."""
        query = urllib.parse.urlencode({"labelSelector": selector})
        rows: list[Obj] = self._call("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs?{query}", token=self.token)[
            "items"
        ]
        return rows

    def patch_cronjob(self, patch: Mapping[str, Any]) -> Obj:
        """Merge a patch into the CronJob, such as ``{"spec": {"jobTemplate": {"spec": {"parallelism": 0}}}}``."""
        path = f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs/{CRONJOB}"
        result: Obj = self._call("PATCH", path, patch, token=self.token, content="application/merge-patch+json")
        return result


class KubernetesSandbox(KubernetesAdmin):
    """One stand-in server in a folder of its own. ``images`` is what the images file holds."""

    def __init__(
        self,
        folder: Path,
        images: Mapping[str, Any],
        context: str,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.kubeconfig = folder / "kubeconfig.yaml"
        super().__init__("", self.kubeconfig)  # the address is known when the server has written the file
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.context = context
        self._images = folder / "images.json"
        self._images.write_text(json.dumps(images), encoding="utf-8")
        self._env = dict(env or {})
        self._options = list(options)
        # uvicorn ends by the signal that has told it to stop.
        self._process = ServerProcess("the server", folder / "server.log", good_ends=(0, -signal.SIGTERM))
        self._port = 0

    @property
    def url(self) -> str:
        """The address of the server, from the kubeconfig."""
        return str(self._config()["clusters"][0]["cluster"]["server"])

    @property
    def pid(self) -> int:
        """The server's process id. Raises SandboxError if it is not started."""
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait until it answers. Raises SandboxError."""
        self.kubeconfig.unlink(missing_ok=True)
        module = "standins.controlplane" if is_real() else "standins.kubernetes"
        arguments = ["--port", str(self._port), "--data", str(self.folder / "data"), "--context", self.context]
        arguments += ["--kubeconfig", str(self.kubeconfig), "--images", str(self._images), *self._options]
        self._process.launch(module, arguments, self._env)
        try:
            self._process.wait_until_up(lambda: f"{self.url}/healthz", START_SECONDS)
        except BaseException:
            self.stop(kill=True)
            raise
        self._port = int(self.url.rpartition(":")[2])

    def stop(self, kill: bool = False) -> None:
        """Stop the server (``kill``: with SIGKILL) and wait for its end.

        Raises SandboxError if it does not end.
        """
        self._process.tell_to_stop(kill)
        if problem := self._process.wait_for_end(kill):
            raise SandboxError(problem)

    def restart(self, kill: bool = False) -> None:
        """Stop and start on the same port with the same objects, the same token and the same recorded requests."""
        self.stop(kill)
        self.start()
