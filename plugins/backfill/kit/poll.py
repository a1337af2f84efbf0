"""One poll per cluster: triggers of one process share a snapshot, loaded once per interval by whoever asks first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

FAILURE_SECONDS = 1.0
"""For this long a failed load is the answer to everybody: a server in trouble is not asked once for each waiter."""


@dataclass(slots=True)
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    loaded_at: float = float("-inf")
    value: Any = None
    failed_at: float = float("-inf")
    error: Exception | None = None


class SharedPoll:
    """Snapshots by key, at most one load per key at a time; entries nobody asked for in an hour are dropped."""

    _FORGET_AFTER = 3600.0

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}
        # What a look must know of the look before it, by key; lost with the process.
        self.memory: dict[Hashable, Any] = {}

    async def get(self, key: Hashable, load: Callable[[], Awaitable[T]], *, max_age: float) -> T:
        """Return the snapshot of ``key``, at most ``max_age`` seconds old, loading it when it is older.

        An exception of ``load`` reaches the caller, and whoever asks within the next second or waits already; the old
        snapshot is out of use.
        """
        entry = self._entries.setdefault(key, _Entry())
        asked_at = time.monotonic()
        async with entry.lock:
            now = time.monotonic()
            if now - entry.loaded_at <= max_age:
                return entry.value
            if entry.error and (entry.failed_at >= asked_at or now - entry.failed_at < min(max_age, FAILURE_SECONDS)):
                raise entry.error.with_traceback(None)
            try:
                entry.value = await load()
            except Exception as error:
                entry.error, entry.failed_at = error, time.monotonic()
                raise
            entry.error, entry.loaded_at = None, time.monotonic()
            self._forget(key)
            return entry.value

    def drop(self, key: Hashable) -> None:
        """Have the snapshot of ``key`` loaded anew by the next who asks."""
        if entry := self._entries.get(key):
            entry.loaded_at = float("-inf")

    def _forget(self, keep: Hashable) -> None:
        limit = time.monotonic() - self._FORGET_AFTER
        for key, entry in list(self._entries.items()):
            if key != keep and max(entry.loaded_at, entry.failed_at) < limit and not entry.lock.locked():
                del self._entries[key]


_polls: WeakKeyDictionary[asyncio.AbstractEventLoop, SharedPoll] = WeakKeyDictionary()


def shared_poll() -> SharedPoll:
    """Return the poll of the running event loop: locks and clients of one loop are of no use in another."""
    return _polls.setdefault(asyncio.get_running_loop(), SharedPoll())
