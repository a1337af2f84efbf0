"""What is known of a run for good: its plan while the task that made it stays the same, and proofs that were given.

A large run consists mostly of windows that are verified, and its plan is as large as all of them. Neither is read and
parsed again at each look.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from include.scorecard_backfill.overview.facts import Planned, Result, TaskFact
from include.scorecard_backfill.overview.rows import Known

RUNS = 50
"""Runs that are remembered, the last ones that were looked at; a run of 3,000 windows is about 10 MB."""

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


_runs: OrderedDict[tuple[str, str], RunMemory] = OrderedDict()


def memory_of(dag_id: str, run_id: str) -> RunMemory:
    """Return what is remembered of a run, nothing at first."""
    found = _runs.setdefault((dag_id, run_id), RunMemory())
    _runs.move_to_end((dag_id, run_id))
    while len(_runs) > RUNS:
        _runs.popitem(last=False)
    return found


def forget() -> None:
    """Forget all runs (for tests)."""
    _runs.clear()
