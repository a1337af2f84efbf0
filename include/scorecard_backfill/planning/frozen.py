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
    """A plan. ``run``: the effective parameters as they travel with the run; ``notes`` are for who reads the plan."""

    windows: Sequence[Window]
    run: Mapping[str, Any]
    terms: Terms
    notes: Sequence[str] = field(default=())

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
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the plan of a value of :meth:`to_json`. Raises RecordError for windows of another release."""
        windows = tuple(Window.from_json(item) for item in value["windows"])
        return cls(windows, value["run"], value["terms"], tuple(value["notes"]))
