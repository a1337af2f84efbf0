"""Waiting for a condition with a deadline and a reason; used by the stack, the demo and the tests."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.25
TAIL_LINES = 40


class DeadlineExceededError(TimeoutError):
    """A condition did not become true in time; the text says what was waited for and what was seen last."""


def wait_for(
    condition: Callable[[], T | None],
    deadline_seconds: float,
    describe: str | Callable[[], str],
    *,
    poll_seconds: float = POLL_SECONDS,
) -> T:
    """Call `condition` until it returns something truthy, and return that.

    deadline_seconds counts from the call, on the monotonic clock; the condition is tried at least once, and
    once more after the deadline has passed. What the condition raises is passed on: only its caller knows
    which errors mean "not yet". Raises DeadlineExceededError with `describe` (a callable is asked only then).
    """
    end = time.monotonic() + deadline_seconds
    while True:
        late = time.monotonic() >= end
        result = condition()
        if result:
            return result
        if late:
            text = describe if isinstance(describe, str) else describe()
            raise DeadlineExceededError(f"not reached within {deadline_seconds:g} s: {text}")
        time.sleep(min(poll_seconds, max(0.0, end - time.monotonic())))


def ports_from(base: int, count: int) -> list[int]:
    """Return the ports base .. base + count - 1.

    Raises OSError naming the first one that is taken.
    """
    ports = list(range(base, base + count))
    for port in ports:
        with socket.socket() as sock:
            # As servers do: a connection in TIME_WAIT from an earlier start does not make the port taken.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError as error:
                raise OSError(error.errno, f"port {port} is taken; choose another --port-base or 'auto'") from error
    return ports


def port_answers(port: int) -> bool:
    """Say whether something accepts TCP connections on 127.0.0.1:port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log file, or a note that there is none."""
    if not path.exists():
        return f"(no log at {path})"
    text = path.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(text) if text else f"({path} is empty)"
