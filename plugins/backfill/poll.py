"""One poll per cluster: triggers of one process share a snapshot, loaded once per interval by whoever asks first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


@dataclass(slots=True)
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    loaded_at: float = float("-inf")
    value: Any = None


class SharedPoll:
    """Snapshots by key, at most one load per key at a time; entries nobody asked for in an hour are dropped."""

    _FORGET_AFTER = 3600.0

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}
        # What a look must know of the look before it, by key; lost with the process.
        self.memory: dict[Hashable, Any] = {}

    async def get(self, key: Hashable, load: Callable[[], Awaitable[T]], *, max_age: float) -> T:
        """Return the snapshot of ``key``, at most ``max_age`` seconds old, loading it when it is older.

        An exception of ``load`` reaches the caller and leaves the old snapshot out of use; the next caller tries again.
        """
        entry = self._entries.setdefault(key, _Entry())
        async with entry.lock:
            if time.monotonic() - entry.loaded_at > max_age:
                entry.value = await load()
                entry.loaded_at = time.monotonic()
                self._forget(key)
            return entry.value

    def _forget(self, keep: Hashable) -> None:
        limit = time.monotonic() - self._FORGET_AFTER
        for key in [k for k, e in self._entries.items() if k != keep and e.loaded_at < limit and not e.lock.locked()]:
            del self._entries[key]


_polls: WeakKeyDictionary[asyncio.AbstractEventLoop, SharedPoll] = WeakKeyDictionary()


def shared_poll() -> SharedPoll:
    """Return the poll of the running event loop: locks and clients of one loop are of no use in another."""
    return _polls.setdefault(asyncio.get_running_loop(), SharedPoll())
