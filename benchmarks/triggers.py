"""Waiting windows in one triggerer: memory and CPU of the triggers alone, beside triggers that keep what they get."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import answer, environment

Json = dict[str, Any]


def triggers(counts: Sequence[int], seconds: float, state: Path) -> Json:
    """Measure each number of windows in a process of its own."""
    env = environment(state / "triggers")
    found = []
    for count in counts:
        ours: Json = answer("benchmarks.trigger_child", count, seconds, env=env)
        kept: Json = answer("benchmarks.trigger_child", count, seconds, "as-airflow", env=env)
        found.append({**ours, "as_airflow_mb": kept["grown_mb"]})
    return {"windows": found}
