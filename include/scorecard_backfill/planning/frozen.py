"""The plan as it was made first; what was approved is what runs, so the run reads it back instead of planning anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.planning.terms import Terms
from include.scorecard_backfill.records import Window


@dataclass(frozen=True, slots=True)
class FrozenPlan:
    """A plan. ``run``: the effective parameters as they travel with the run; ``notes`` are for who reads the plan.

    ``batches``: the batch of each window, () when one has all of them (planning/batches.py).
    """

    windows: Sequence[Window]
    run: Mapping[str, Any]
    terms: Terms
    notes: Sequence[str] = field(default=())
    batches: Sequence[int] = field(default=())

    @property
    def chosen(self) -> Chosen:
        """The parameters, typed."""
        return Chosen.read(self.run)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        return {
            "windows": [w.to_json() for w in self.windows],
            "run": dict(self.run),
            "terms": dict(self.terms),
            "notes": list(self.notes),
            "batches": list(self.batches),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the plan of a value of :meth:`to_json`. Raises RecordError for windows of another release."""
        windows = tuple(Window.from_json(item) for item in value["windows"])
        # A plan of an earlier release has none: all of its windows are in one.
        batches = tuple(value.get("batches", ()))
        return cls(windows, value["run"], value["terms"], tuple(value["notes"]), batches)
