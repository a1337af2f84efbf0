"""Containers as local processes: each in its own process group, its output in a log file with times."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from standins.kubernetes.clock import rfc3339_micro, utc_now
from standins.kubernetes.processtable import signal_group

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

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def bound_to_server(argv: Sequence[str]) -> list[str]:
    """The command line that dies with the server even if that is killed, by setpriv of util-linux.

    Without setpriv the guard does it alone, a moment later.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *argv] if setpriv else list(argv)


class ContainerProcess:
    """One run of a container's program."""

    def __init__(self, process: asyncio.subprocess.Process, log: ContainerLog) -> None:
        self._process = process
        self._log = log
        self._copying = asyncio.create_task(self._copy())

    @classmethod
    async def start(
        cls, argv: Sequence[str], env: Mapping[str, str], cwd: str | None, log: ContainerLog
    ) -> ContainerProcess:
        """Start the program. Raises OSError if it cannot be started."""
        if shutil.which(argv[0], path=env.get("PATH")) is None:
            raise FileNotFoundError(f'exec: "{argv[0]}": executable file not found in $PATH')
        process = await asyncio.create_subprocess_exec(
            *bound_to_server(argv),
            env=dict(env),
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        return cls(process, log)

    @property
    def pid(self) -> int:
        """The id of the process and of its group."""
        return self._process.pid

    async def _copy(self) -> None:
        stream = self._process.stdout
        while stream is not None and (data := await stream.read(READ_BYTES)):
            self._log.write(data)

    async def wait(self) -> int:
        """Wait for the end of the first process, end the rest of its group; returns the exit code (128+N by
        signal).
        """
        try:
            code = await self._process.wait()
        finally:
            signal_group(self.pid, signal.SIGKILL)
        done, _ = await asyncio.wait({self._copying}, timeout=KILL_WAIT_SECONDS)
        if not done:
            self._copying.cancel()
        self._log.close()
        return 128 - code if code < 0 else code

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the group."""
        signal_group(self.pid, number)
