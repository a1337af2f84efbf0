"""Is the cluster well enough for another window? Limits with hysteresis, so that a gate does not flutter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from include.scorecard_backfill.config import HealthConfig, Hysteresis

FREE_DISK = "free_disk_bytes"
RUNNING_WORKFLOWS = "running_workflows"
MEASURES: Mapping[str, str] = {
    "unfinished_mutations": "unfinished mutations",
    "active_parts": "active parts in one partition",
    "replication_queue": "entries in the replication queue",
    RUNNING_WORKFLOWS: "open reindex workflows",
    FREE_DISK: "free bytes on disk",
}
"""What is looked at, by the name of its limit, in words."""


CLICKHOUSE_MEASURES = tuple(name for name in MEASURES if name != RUNNING_WORKFLOWS)
"""What ClickHouse knows; the rest is asked elsewhere."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The worst value of one measure, and the host that has it ('' for the cluster as a whole)."""

    value: int
    host: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """Which measures hold new windows back now, each with its sentence."""

    closed: Mapping[str, str]

    @property
    def open(self) -> bool:
        """True when nothing holds a window back."""
        return not self.closed

    @property
    def text(self) -> str:
        """Every reason in one line."""
        return "; ".join(self.closed.values())


def judge(readings: Mapping[str, Reading], config: HealthConfig, before: Gate) -> Gate:
    """Return the gate after these readings; ``before`` is the gate of the look before, for the hysteresis.

    A measure that has a limit and no reading closes the gate: unknown is never ok.
    """
    closed: dict[str, str] = {}
    for name in MEASURES:
        reason = _disk(readings, config) if name == FREE_DISK else _above(name, readings, config, name in before.closed)
        if reason:
            closed[name] = reason
    return Gate(closed)


def _above(name: str, readings: Mapping[str, Reading], config: HealthConfig, was_closed: bool) -> str:
    limit: Hysteresis | None = getattr(config, name)
    if limit is None:
        return ""
    reading = readings.get(name)
    if reading is None:
        return f"the cluster's {MEASURES[name]} are not known"
    where = f" on {reading.host}" if reading.host else ""
    if reading.value > limit.stop_above:
        return f"{reading.value} {MEASURES[name]}{where} (more than {limit.stop_above})"
    if was_closed and reading.value >= limit.resume_below:
        return f"{reading.value} {MEASURES[name]}{where} (goes on below {limit.resume_below})"
    return ""


def _disk(readings: Mapping[str, Reading], config: HealthConfig) -> str:
    if config.min_free_disk_bytes == 0:
        return ""
    reading = readings.get(FREE_DISK)
    if reading is None:
        return f"the cluster's {MEASURES[FREE_DISK]} are not known"
    if reading.value >= config.min_free_disk_bytes:
        return ""
    where = f" on {reading.host}" if reading.host else ""
    return f"{reading.value:,} {MEASURES[FREE_DISK]}{where} (less than {config.min_free_disk_bytes:,})"
