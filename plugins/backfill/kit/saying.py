"""The log lines of all waits of a process, no faster than the triggerer takes them.

A trigger's line is written to a socket, and the write blocks the event loop when the socket is full. The process that
reads it (the supervisor) answers the triggers' questions as well, and its write blocks, too. When the waits say much
at one moment while it sends an answer that is larger than a socket holds, each of the two waits for the other one, for
ever: no trigger of that triggerer goes on, and its heartbeat stops. Such answers are the plan of a thousand windows,
and the fifty triggers that Airflow 3.3.2 starts at once: each brings a copy of its DAG, seven megabytes in all. Seen
with 752 windows at once; and with 256, on a machine where the supervisor, which reads 4 kB between two looks at the
database, took seconds for each.

So a line waits for its turn, and then until most of the socket is free: Airflow's own lines (one for each trigger that
starts) wait for nothing and need the rest. Nobody waits for that without end: a line that finds no room in time is
left out and counted, since what it says stands in the record or on the page, too, and the wait must go on.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fcntl import ioctl
from typing import Any

import structlog

from backfill.kit.poll import shared_poll

LINES_AT_ONCE = 50
LINES_A_SECOND = 100.0
"""What the process that reads them is given to do, also where nothing tells how much of it is still to be read."""

TAKEN_SHARE = 8
"""A line waits while more than this part (an eighth) of the socket's room is taken: 26 kB of 208 kB.

A line of 450 bytes takes 1,280 of them, so that is twenty lines; Linux counts what holds a message, too.
"""

LOGGER_FACTORY = "logger_factory"
"""Where structlog keeps what makes its loggers; Airflow's has the stream as ``io``."""

LOOK_SECONDS = 0.1
"""Between two looks whether there is room."""

ROOM_SECONDS = 30.0
"""A line waits no longer for room; those after it do not wait at all, until there is some."""


class Pace:
    """Gives each line its turn: some at once, then one after another."""

    def __init__(self) -> None:
        self._free_at = float("-inf")

    def turn(self, now: float) -> float:
        """Take the next turn; return the seconds until it comes. ``now`` in seconds of a steady clock."""
        self._free_at = max(self._free_at, now - LINES_AT_ONCE / LINES_A_SECOND) + 1 / LINES_A_SECOND
        return round(max(0.0, self._free_at - now), 6)


@dataclass(slots=True)
class _Queue:
    """What the lines of a process share: who is next, how fast they may follow each other, how many were left out."""

    pace: Pace = field(default_factory=Pace)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    unsaid: int = 0

    async def room(self) -> bool:
        """Wait until there is room for a line; False when there was none in time. Nothing tells it: it is asked."""
        until = time.monotonic() + (0.0 if self.unsaid else ROOM_SECONDS)
        while not has_room(channel()):
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True


async def say(write: Callable[..., Any], text: str, *args: object, **more: Any) -> None:
    """Log a line that many waits may have at the same moment, when its turn comes; ``write`` is a logger's method.

    It is left out when for `ROOM_SECONDS` nobody has read what was logged before.
    """
    queue: _Queue = shared_poll().memory.setdefault(("lines",), _Queue())
    async with queue.lock:
        if seconds := queue.pace.turn(time.monotonic()):
            await asyncio.sleep(seconds)
        if not await queue.room():
            queue.unsaid += 1
            return
        if queue.unsaid:
            write("%d lines of waits were not logged: the triggerer did not read them in time", queue.unsaid)
            queue.unsaid = 0
        write(text, *args, **more)


def channel() -> int | None:
    """Return the descriptor of the socket that this process logs to, None where it logs to something else."""
    stream = getattr(structlog.get_config().get(LOGGER_FACTORY), "io", None)
    try:
        descriptor = stream.fileno()  # type: ignore[union-attr]
        return descriptor if stat.S_ISSOCK(os.fstat(descriptor).st_mode) else None
    except (AttributeError, OSError, ValueError):
        return None


def has_room(descriptor: int | None) -> bool:
    """Return whether most of a socket is free; True for None, and where a system does not tell (Linux does)."""
    if descriptor is None:
        return True
    try:
        waiting = int.from_bytes(ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), "little")
        with socket.socket(fileno=os.dup(descriptor)) as known:
            room = known.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    except OSError:
        return True
    return waiting * TAKEN_SHARE <= room
