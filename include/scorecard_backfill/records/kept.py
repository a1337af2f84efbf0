"""What a stage keeps for its own next try, in Airflow's task state store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from include.scorecard_backfill.records.base import Part


def window_of(kept: object) -> str:
    """Return the key of the window that a kept record names, '' for a value that names none."""
    return str(kept.get("key") or "") if isinstance(kept, Mapping) else ""


class Kept(Part):
    """Base of what is kept. Only what was set is written, so that nothing is kept as known that is not."""

    def to_json(self) -> dict[str, Any]:
        """Return what was set, as JSON types."""
        return self.model_dump(mode="json", exclude_unset=True)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return what is kept; nothing (None, {}) is the record without anything set."""
        return cls.model_validate(value or {})


class KeptStep(Kept):
    """One delete step: written before its statement leaves, after its answer, and when a host has refused it.

    ``at``: epoch seconds of the first sending. ``answered``: an answer has come, whatever it was.
    """

    state: Literal["", "sending", "sent", "refused"] = ""
    at: float | None = None
    accepted: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    answered: bool = False


class MadeJob(Kept):
    """The newest Job that the window's stages have made: its attempt (from 1) and creation in epoch seconds."""

    attempt: int = 0
    made_at: float = 0.0
