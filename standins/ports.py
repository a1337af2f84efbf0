"""Ports of 127.0.0.1 for servers that bind them a while later, and again when they are started anew.

A port that the kernel chooses (bind to 0) can be gone before its server binds it: to the next process that asks, and
to any outgoing connection. So ports are taken from below the kernel's own range, and a byte of one file is locked for
each: two processes of one user never have the same one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

# Linux gives away 32768 to 60999 unless told otherwise (ip(7), ip_local_port_range), macOS 49152 and above.
CANDIDATES = range(15_000, 32_768)

_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that nobody listens on, kept for this process until it ends.

    Raises OSError (EADDRNOTAVAIL) when there are not so many left.
    """
    start = random.randrange(len(CANDIDATES))
    ports: list[int] = []
    for step in range(len(CANDIDATES)):
        if len(ports) == count:
            break
        port = CANDIDATES[(start + step) % len(CANDIDATES)]
        if _take(port):
            ports.append(port)
    if len(ports) < count:
        raise OSError(errno.EADDRNOTAVAIL, f"{count} ports wanted, {len(ports)} left of {CANDIDATES}")
    return ports


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]


def _take(port: int) -> bool:
    """Whether the port is ours now."""
    if port in _given:
        return False
    with suppress(BlockingIOError, PermissionError):
        # A lock of a process, not of a file: it is gone with the process, and children do not inherit it.
        fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        _given.add(port)
        return _can_be_bound(port)
    return False


@cache
def _locks() -> int:
    """The open file of locks. It is never closed: closing any descriptor of it would end all locks of the process."""
    path = Path(tempfile.gettempdir()) / f"standins-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _can_be_bound(port: int) -> bool:
    with socket.socket() as sock, suppress(OSError):
        # As servers do: a connection in TIME_WAIT from an earlier start does not make the port taken.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        return True
    return False
