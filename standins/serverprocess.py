"""A stand-in as a process of its own, for tests and scripts: start, wait, stop, and calls to its own endpoints."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
STOP_SECONDS = 15.0
POLL_SECONDS = 0.05
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens 127.0.0.1 without a proxy, whatever the environment says."""


class SandboxError(RuntimeError):
    """A server did not start or stop, or refused a request; the text has its answer or its log's end."""


def send(method: str, url: str, data: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """The answer to a request. Raises SandboxError with the server's text when it is refused."""
    request = urllib.request.Request(url, data=data, method=method, headers=dict(headers or {}))
    try:
        with _DIRECT.open(request, timeout=60) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode(errors="replace")
        raise SandboxError(f"{method} {url} was refused with {error.code}: {text}") from None


class ServerProcess:
    """``python -m <module> <arguments>`` with its output in a file; started again after its end, it appends to it.

    ``good_ends`` are the exit codes of a server that was told to stop and did.
    """

    def __init__(self, name: str, log: Path, good_ends: Sequence[int] = (0,)) -> None:
        self._name = name
        self._log = log
        self._good_ends = good_ends
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id. Raises SandboxError if it is not started."""
        if self._process is None:
            raise SandboxError(f"{self._name} is not started")
        return self._process.pid

    def launch(self, module: str, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        """Start the process; ``env`` is added to this one's environment."""
        command = [sys.executable, "-m", module, *arguments]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT), **env}, stdout=log, stderr=log
            )

    def wait_until_up(self, url: Callable[[], str], seconds: float) -> None:
        """Wait until an address answers, which may be known late (OSError until then). Raises SandboxError."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                raise SandboxError(f"{self._name} ended at its start:\n{self.log_tail()}")
            with contextlib.suppress(OSError), _DIRECT.open(url(), timeout=2):
                return
            time.sleep(POLL_SECONDS)  # a process tells nobody when it listens
        raise SandboxError(f"{self._name} did not answer within {seconds} s:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The end of the server's own log."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def tell_to_stop(self, kill: bool = False) -> None:
        """Send SIGTERM (``kill``: SIGKILL); nothing if it is not started."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)

    def wait_for_end(self, kill: bool = False) -> str:
        """Wait until it has ended; what is wrong with its end, empty for nothing (``kill``: any end is good)."""
        process, self._process = self._process, None
        if process is None:
            return ""
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"{self._name} did not stop within {STOP_SECONDS} s:\n{self.log_tail()}"
        if kill or process.returncode in self._good_ends:
            return ""
        return f"{self._name} ended with exit code {process.returncode}:\n{self.log_tail()}"
