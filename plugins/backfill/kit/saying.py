"""The log lines of all waits of a process, no faster than the triggerer takes them.

A trigger's line is written to a socket, and the write blocks the event loop when the socket is full. The process that
reads it (the supervisor) answers the triggers' questions as well, and its write blocks, too. When some hundred windows
give their reasons at one moment while it sends an answer that is larger than a socket holds, such as the plan of a
thousand windows, each of the two waits for the other one, for ever: no trigger of that triggerer goes on, and its
heartbeat stops. Seen with 752 windows at once under Airflow 3.3.2.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from backfill.kit.poll import shared_poll

LINES_AT_ONCE = 50
LINES_A_SECOND = 100.0
"""Of some 450 bytes each, where a socket of Linux holds 208 kB: the supervisor may look away for four seconds."""


class Pace:
    """Gives each line its turn: some at once, then one after another."""

    def __init__(self) -> None:
        self._free_at = float("-inf")

    def turn(self, now: float) -> float:
        """Take the next turn; return the seconds until it comes. ``now`` in seconds of a steady clock."""
        self._free_at = max(self._free_at, now - LINES_AT_ONCE / LINES_A_SECOND) + 1 / LINES_A_SECOND
        return round(max(0.0, self._free_at - now), 6)


async def say(write: Callable[..., Any], text: str, *args: object) -> None:
    """Log a line that many waits may have at the same moment, when its turn comes; ``write`` is a logger's method."""
    pace: Pace = shared_poll().memory.setdefault(("pace",), Pace())
    if seconds := pace.turn(time.monotonic()):
        await asyncio.sleep(seconds)
    write(text, *args)
