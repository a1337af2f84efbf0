"""What is known of a run for good: its plan while the task that made it stays the same, and proofs that were given.

A large run consists mostly of windows that are verified, and its plan is as large as all of them. Neither is read and
parsed again at each look.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from include.scorecard_backfill.overview.facts import Planned, Result, TaskFact
from include.scorecard_backfill.overview.rows import Known

WINDOWS = 10_000
"""Windows that are remembered, those of the runs that were looked at last; 3,000 verified ones are about 34 MB."""

Place = tuple[str, int]
"""Task id and map index."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a task that lists windows has left, parsed. ``others``: its further XComs by key."""

    made_by: TaskFact
    windows: Sequence[Planned]
    others: Mapping[str, Any]


@dataclass(slots=True)
class RunMemory:
    """Of one run: sources by task id, results of verified windows by their verify task's place, their rows by key."""

    sources: dict[str, Source] = field(default_factory=dict)
    proofs: dict[Place, tuple[TaskFact, Mapping[str, Result]]] = field(default_factory=dict)
    rows: Known = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Windows that are remembered."""
        return sum(len(source.windows) for source in self.sources.values())


_lock = threading.Lock()
_runs: OrderedDict[tuple[str, str], RunMemory] = OrderedDict()


def memory_of(dag_id: str, run_id: str) -> RunMemory:
    """Return what is remembered of a run, nothing at first."""
    key = (dag_id, run_id)
    with _lock:
        found = _runs.setdefault(key, RunMemory())
        _runs.move_to_end(key)
        size = sum(one.size for one in _runs.values())
        while size > WINDOWS and next(iter(_runs)) != key:
            size -= _runs.popitem(last=False)[1].size
    return found


def forget() -> None:
    """Forget all runs (for tests)."""
    with _lock:
        _runs.clear()
