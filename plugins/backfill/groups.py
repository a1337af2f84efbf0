"""The passes of a run: windows as planned, then those that were too big in parts, then their parts in single days."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pass:
    """One task group, the task whose result lists its windows, and the task that cuts those that were too big."""

    group: str
    source: str
    cut_by: str


PASSES = (
    Pass("windows", "plan", "replan"),
    Pass("smaller_windows", "replan", "replan_days"),
    Pass("single_days", "replan_days", ""),
)
GROUPS = tuple(one.group for one in PASSES)


def pass_of(group: str) -> Pass:
    """Return the pass of a task group. Raises LookupError for a group that is none."""
    for one in PASSES:
        if one.group == group:
            return one
    raise LookupError(f"{group!r} is none of {', '.join(GROUPS)}")
