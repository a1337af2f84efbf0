"""What stages and page ask of a run's parameters, as the plan has left them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Chosen:
    """A run's effective parameters, as far as somebody decides by them; the defaults are those of a run without a plan.

    ``asked_parallel``: windows in flight that the form asked for, None when the cluster's file decides. ``days``: first
    day, and the day after the last one, as they were written.
    """

    mode: str | None = None
    order: str = ""
    days: tuple[str, str] | None = None
    max_parallel: int | None = None
    asked_parallel: int | None = None
    max_failures: int | None = None
    overlap: bool = False
    dry_run: bool = False
    destructive: bool = False
    require_approval: bool = False

    @classmethod
    def read(cls, found: Mapping[str, object]) -> Self:
        """Return the choices of parameters as JSON; what is not there is as in a run without a plan.

        It takes what a release before this one has left, and what was sent with a run that has no plan yet.
        """
        sources = found.get("sources")
        parallel = _whole(found.get("max_parallel"))
        asked = isinstance(sources, Mapping) and sources.get("max_parallel") == "form"
        start, end = found.get("start_date"), found.get("end_date")
        mode = found.get("mode")
        return cls(
            mode=None if mode is None else str(mode),
            order=str(found.get("order") or ""),
            days=(str(start), str(end)) if start and end else None,
            max_parallel=parallel,
            asked_parallel=parallel if asked else None,
            max_failures=_whole(found.get("max_failures")),
            overlap=bool(found.get("overlap")),
            dry_run=bool(found.get("dry_run")),
            destructive=bool(found.get("destructive")),
            require_approval=bool(found.get("require_approval")),
        )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
