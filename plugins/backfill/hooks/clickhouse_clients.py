"""Clients of ClickHouse that one process keeps between two looks.

A client asks three questions of its own before the first statement (version, settings, protocol). Whoever waits would
ask four times as much as there is to know, so a client that has answered is given to the next who asks.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client

KEPT_SECONDS = 300.0
"""What a client has read of the server's settings is believed as long as a password is (hooks/secrets.py)."""

MOST_IDLE = 8
"""Of all clusters together: what more threads than this needed at one moment is closed afterwards."""


@dataclass(frozen=True)
class _Idle:
    key: Hashable
    client: Client
    since: float


class Clients:
    """Idle clients, by what they were made of. One thread at a time has a client; a forked process makes its own."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._idle: list[_Idle] = []

    @contextmanager
    def taken(self, key: Hashable, make: Callable[[], Client]) -> Iterator[Client]:
        """Yield a client for one piece of work. One whose work ended with an error is closed and not kept.

        Args:
            key: everything that a client is made of; equal keys share clients.
            make: makes one. Its errors are the caller's.
        """
        key = (os.getpid(), key)
        idle = self._found(key)
        client, since = (idle.client, idle.since) if idle else (make(), self._now())
        try:
            yield client
        except BaseException:
            client.close()
            raise
        self._keep(_Idle(key, client, since))

    def close(self) -> None:
        """Close all idle ones."""
        with self._lock:
            over, self._idle = self._idle, []
        for idle in over:
            idle.client.close()

    def _found(self, key: Hashable) -> _Idle | None:
        with self._lock:
            # The youngest: those that are not needed any more grow old.
            found = next((i for i in reversed(self._idle) if i.key == key and self._is_fresh(i)), None)
            if found:
                self._idle.remove(found)
            return found

    def _keep(self, idle: _Idle) -> None:
        with self._lock:
            known = [*self._idle, idle]
            fresh = [i for i in known if self._is_fresh(i)][-MOST_IDLE:]
            over, self._idle = [i for i in known if i not in fresh], fresh
        for gone in over:
            gone.client.close()

    def _is_fresh(self, idle: _Idle) -> bool:
        return self._now() - idle.since < KEPT_SECONDS


shared = Clients()
"""Of this process."""
atexit.register(shared.close)
