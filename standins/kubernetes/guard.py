"""Nothing outlives its server: what it starts carries a mark in its environment, and whoever carries it is ended.

``python -m standins.kubernetes.guard MARK`` waits until its standard input closes, which the kernel does when the
server ends in any way, then kills every process with the mark (standard library only). What a server and its guard
leave when both are killed is ended at the next start in the same folder. Children inherit the mark.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PROC = Path("/proc")
VARIABLE = "SANDBOX_SERVER_OF"
STOP_SECONDS = 5.0
ROUND_SECONDS = 0.02


def bound_to_server(argv: Sequence[str]) -> list[str]:
    """The command line that the kernel ends with the server (setpriv of util-linux); without it the guard does it."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *argv] if setpriv else list(argv)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process group; a group that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def marked(mark: str) -> Iterator[int]:
    """The processes whose mark begins so; one that ends meanwhile, or is somebody else's, is none."""
    wanted = f"{VARIABLE}={mark}".encode()
    for entry in PROC.iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and any(
                variable.startswith(wanted) for variable in (entry / "environ").read_bytes().split(b"\0")
            ):
                yield int(entry.name)


def end_marked(mark: str) -> int:
    """Kill the processes whose mark begins so, until no new one is found; returns how many there were."""
    ended: set[int] = set()
    while found := set(marked(mark)) - ended:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended |= found
        time.sleep(ROUND_SECONDS)  # a process may have begun another one before it was killed
    return len(ended)


class Guard:
    """The guard of a server with this folder; ``env`` is the environment to start its processes with."""

    def __init__(self, folder: Path) -> None:
        self._folder = f"{folder.resolve()}:"
        self._mark = f"{self._folder}{os.getpid()}-{time.time_ns()}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> Mapping[str, str]:
        """The mark as an environment variable."""
        return {VARIABLE: self._mark}

    def start(self) -> int:
        """Before the first process: end what an earlier server left (returns how many), start the guard.

        It is in a session of its own: a signal to the server's group must not end it too.
        """
        ended = end_marked(self._folder)
        command = [sys.executable, "-S", "-m", "standins.kubernetes.guard", self._mark]
        self._process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, start_new_session=True)
        return ended

    def stop(self) -> None:
        """Let it end and wait for that. Raises TimeoutExpired if it does not end."""
        if self._process is not None:
            self._process.communicate(timeout=STOP_SECONDS)
            self._process = None


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_marked(sys.argv[1])
