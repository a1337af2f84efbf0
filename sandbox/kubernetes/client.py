"""For tests and scripts: start the stand-in as a process of its own and use its own endpoints."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sandbox.kubernetes.resources import Obj

PROJECT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
STOP_SECONDS = 15.0


class SandboxError(RuntimeError):
    """The server did not start or stop, or refused a request; the text has its answer or its log's end."""


class KubernetesSandbox:
    """One stand-in server in a folder of its own. ``images`` is what the images file holds."""

    def __init__(
        self,
        folder: Path,
        images: Mapping[str, Any],
        context: str = "sandbox_dev",
        manifests: Path | None = None,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.context = context
        self.kubeconfig = folder / "kubeconfig.yaml"
        self.images_file = folder / "images.json"
        self.images_file.write_text(json.dumps(images), encoding="utf-8")
        self._manifests = manifests
        self._env = dict(env or {})
        self._options = list(options)
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The address of the server, from the kubeconfig."""
        return str(self._config()["clusters"][0]["cluster"]["server"])

    @property
    def token(self) -> str:
        """The token that is valid now, from the kubeconfig."""
        return str(self._config()["users"][0]["user"]["token"])

    def _config(self) -> Obj:
        document: Obj = yaml.safe_load(self.kubeconfig.read_text(encoding="utf-8"))
        return document

    def start(self) -> None:
        """Start the process and wait until it answers. Raises SandboxError."""
        self.kubeconfig.unlink(missing_ok=True)
        command = [sys.executable, "-m", "sandbox.kubernetes", "--port", str(self._port)]
        command += ["--data", str(self.folder / "data"), "--context", self.context]
        command += ["--kubeconfig", str(self.kubeconfig), "--images", str(self.images_file), *self._options]
        if self._manifests is not None:
            command += ["--manifests", str(self._manifests)]
        env = {**os.environ, "PYTHONPATH": str(PROJECT), **self._env}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=PROJECT, env=env, stdout=log, stderr=log)
        try:
            self._wait_until_up()
        except BaseException:
            self.stop(kill=True)
            raise

    def _wait_until_up(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                raise SandboxError(f"the server ended at its start:\n{self.log_tail()}")
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url + "/healthz", timeout=2):
                self._port = int(self.url.rpartition(":")[2])
                return
            time.sleep(0.05)
        raise SandboxError(f"the server did not answer within {START_SECONDS} s:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The end of the server's own log."""
        return (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")[-3000:]

    def stop(self, kill: bool = False) -> None:
        """Stop the server (``kill``: with SIGKILL) and wait for its end.

        Raises SandboxError if it does not end.
        """
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.wait()
            raise SandboxError(f"the server did not stop within {STOP_SECONDS} s:\n{self.log_tail()}") from error
        finally:
            self._process = None

    def restart(self, kill: bool = False) -> None:
        """Stop and start on the same port with the same objects; the token is new unless the environment
        fixes it.
        """
        self.stop(kill)
        self.start()

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise SandboxError(f"{method} {path} was refused with {error.code}: {text}") from error

    def requests(self, method: str | None = None, path_contains: str | None = None, since_id: int = 0) -> list[Obj]:
        """The recorded requests in their order, without those on the stand-in's own endpoints."""
        query = {"method": method, "path_contains": path_contains, "since_id": since_id or None}
        text = urllib.parse.urlencode({key: value for key, value in query.items() if value is not None})
        rows: list[Obj] = self._call("GET", f"/_sandbox/requests?{text}")
        return rows

    def clear_requests(self) -> None:
        """Forget the recorded requests."""
        self._call("DELETE", "/_sandbox/requests")

    def set_faults(self, *rules: Mapping[str, Any]) -> list[int]:
        """Add fault rules (see faults); returns their numbers. Raises SandboxError for a bad rule."""
        ids: list[int] = self._call("POST", "/_sandbox/faults", list(rules))["ids"]
        return ids

    def faults(self) -> list[Obj]:
        """The rules that are set, with their hits."""
        rows: list[Obj] = self._call("GET", "/_sandbox/faults")
        return rows

    def clear_faults(self, number: int | None = None) -> None:
        """Drop one rule, or all."""
        self._call("DELETE", "/_sandbox/faults" + (f"/{number}" if number is not None else ""))

    def deny(self, *rules: Mapping[str, Any]) -> None:
        """Replace the deny rules (see rbac); none allows everything."""
        self._call("POST", "/_sandbox/rbac", {"deny": list(rules)})

    def rotate_token(self, token: str | None = None) -> None:
        """Make a new token the only valid one; the kubeconfig is written anew."""
        self._call("POST", "/_sandbox/token", {"token": token})

    def processes(self) -> dict[str, int]:
        """The running process groups by ``<pod uid>/<container>``."""
        rows: dict[str, int] = self._call("GET", "/_sandbox/processes")
        return rows


@contextlib.contextmanager
def running(sandbox: KubernetesSandbox) -> Iterator[KubernetesSandbox]:
    """Start the server, stop it at the end in any case."""
    sandbox.start()
    try:
        yield sandbox
    finally:
        sandbox.stop()
