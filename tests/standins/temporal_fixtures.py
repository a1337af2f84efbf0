"""Helpers of the Temporal tests: a real dev server as a child process, ports, waiting."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from standins.ports import free_port

ROOT = Path(__file__).parents[2]
NAMESPACE = "ingestion"
LIMIT_SECONDS = 20.0


def python_environment(**extra: str) -> dict[str, str]:
    """Environment of a child process that imports the project."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | extra


@contextmanager
def child(*command: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python module as a child process, ended with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=python_environment(**environment),
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until something listens; fails with the log when the process ends or the limit is over."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"nothing listens on port {port}: {log.read_text()}")
        time.sleep(0.05)


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """A dev server of its own; gives host:port."""
    port = free_port()
    log = folder / "temporal.log"
    arguments = ("--port", str(port), "--data", str(folder / "temporal"))
    with child("standins.temporal.server", *arguments, log=log) as process:
        wait_for_port(port, process, log)
        yield f"127.0.0.1:{port}"


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = LIMIT_SECONDS) -> None:
    """Poll until the condition holds; fails naming `what` after the limit."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.05)
