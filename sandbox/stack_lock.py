"""One stack per state folder: the lock, and the sweep that leaves no process of a stack behind."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from sandbox.stack_model import TOKEN_VARIABLE

LOCK_NAME = "stack.lock"
SWEEP_DEADLINE_SECONDS = 10


class StateInUseError(RuntimeError):
    """Another process runs a stack over the same state folder, or the folder is not one of ours."""


@contextmanager
def state_lock(state: Path, token: str) -> Iterator[None]:
    """Hold `<state>/stack.lock` for the time of the block.

    The kernel frees the lock when its holder dies, so a lock file left by a killed process does not block;
    what that process left running is ended first (found by its token). Raises StateInUseError with the
    holder's pid.
    """
    state.mkdir(parents=True, exist_ok=True)
    path = state / LOCK_NAME
    if not path.exists() and any(state.iterdir()):
        raise StateInUseError(f"{state} is not empty and has no {LOCK_NAME}: not a state folder of the sandbox")
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateInUseError(
                f"a sandbox already runs over {state} (pid {_holder(path).get('pid', 'unknown')});"
                f" stop it with `python -m sandbox.stack down --state {state}`, or use another --state"
            ) from None
        old = _holder(path).get("token")
        if isinstance(old, str):
            sweep(old)
        file.seek(0)
        file.truncate()
        file.write(json.dumps({"pid": os.getpid(), "token": token}))
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate()


def holder_pid(state: Path) -> int | None:
    """Return the pid of the process that holds the lock, None when nobody does."""
    path = state / LOCK_NAME
    if not path.exists():
        return None
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _holder(path).get("pid")
            return pid if isinstance(pid, int) else None
    return None


def left_over_token(state: Path) -> str | None:
    """Return the token of a stack whose owner died without clearing up, None when there is none."""
    token = _holder(state / LOCK_NAME).get("token")
    return token if isinstance(token, str) else None


def _holder(path: Path) -> dict[str, object]:
    if not path.exists():
        return {}
    text = path.read_text()
    # Empty after an orderly end; half written only if its writer was killed in between, and then it started
    # nothing.
    with suppress(json.JSONDecodeError):
        value = json.loads(text)
        if isinstance(value, dict):
            return value
    return {}


def processes_of(token: str) -> list[psutil.Process]:
    """Return the living processes that carry the token in their environment, this one excepted."""
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        # Other users' processes and those that end meanwhile are not ours.
        with suppress(psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess, OSError):
            if process.environ().get(TOKEN_VARIABLE) == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def sweep(token: str, deadline_seconds: float = SWEEP_DEADLINE_SECONDS) -> list[str]:
    """Kill (SIGKILL) every process that carries the token, until none is left; return what was killed.

    Repeats because a process may have forked between the look and the kill. Raises RuntimeError with the pids
    that are still alive after `deadline_seconds`.
    """
    killed: list[str] = []
    end = time.monotonic() + deadline_seconds
    while processes := processes_of(token):
        if time.monotonic() > end:
            raise RuntimeError(f"processes of the sandbox cannot be ended: {[p.pid for p in processes]}")
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                killed.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
                process.kill()
        psutil.wait_procs(processes, timeout=1)
    return killed
