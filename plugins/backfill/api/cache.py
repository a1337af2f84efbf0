"""One answer for all who look: made once per interval, by whoever asks first, while the others wait for it."""

from __future__ import annotations

import gc
import gzip
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SECONDS = 2.0
"""How old an answer may be; a person does not see the difference, and a hundred people cost as much as one."""

ENTRIES = 200
"""Answers that are kept; the oldest goes first."""

GZIP_LEVEL = 5
"""Airflow's own level; packed here once, instead of by its middleware for everybody."""


@dataclass(slots=True)
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    made_at: float = 0.0
    packed: bytes = b""


@contextmanager
def uncollected() -> Iterator[None]:
    """Let nothing look for reference cycles while an answer is made.

    An answer is many small values that live for a tenth of a second and hold no cycles. Counted as survivors they make
    Python walk over all of the server's objects, which takes longer than the answer itself (of 2,945 windows, every
    tenth answer: 0.6 s instead of 0.16 s of CPU). Threads that overlap may end it early, which costs time only.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class AnswerCache:
    """Packed answers by key. Thread-safe; an error is raised to everybody who waited and is not kept."""

    def __init__(self, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return the gzip of what ``make`` returned at most ``seconds`` ago."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > ENTRIES:
                self._entries.popitem(last=False)
        with entry.lock:
            if not entry.packed or self._clock() - entry.made_at >= self._seconds:
                with uncollected():
                    entry.packed = gzip.compress(make(), GZIP_LEVEL)
                entry.made_at = self._clock()
            return entry.packed

    def forget(self) -> None:
        """Forget all answers: somebody has changed something and wants to see it."""
        with self._lock:
            self._entries.clear()
