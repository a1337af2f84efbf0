"""A small process that outlives a killed server for a moment and ends the containers' processes.

``python -m standins.kubernetes.guard TABLE OWNER`` waits until its standard input closes, which the kernel does when
the server ends in any way, then kills every group that the table names. The kernel's own signal at a parent's
death (see processes) reaches only the first process of a container; its children are ended here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from standins.kubernetes.processtable import ProcessTable

PROJECT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 5.0


class Guard:
    """The guard of one server; ``start`` before the first container."""

    def __init__(self, table: ProcessTable) -> None:
        self._table = table
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, in a session of its own: a signal to the server's group must not end it too."""
        table, owner = str(self._table.path.resolve()), self._table.owner
        command = [sys.executable, "-S", "-m", "standins.kubernetes.guard", table, owner]
        self._process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, start_new_session=True)

    def stop(self) -> None:
        """Let it end and wait for that. Raises TimeoutExpired if it does not end."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(STOP_SECONDS)
        self._process = None


def main(table: str, owner: str) -> int:
    """Wait for the end of the input, then end what the table names if it is still the owner's."""
    sys.stdin.buffer.read()
    ProcessTable(Path(table)).end_leftovers(owner)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
