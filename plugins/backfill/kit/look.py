"""What one look of a wait comes to: it waits, it is done, it has failed, or a worker must act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from include.scorecard_backfill.records import Event, Failure, Record
from include.scorecard_backfill.verdicts.base import Verdict


@dataclass(frozen=True, slots=True)
class Wait:
    """Not decided yet; the reasons go to the log.

    ``done`` of ``total`` conversations are written again, when the workflows say so. ``word`` is the reason in one
    word, for metrics: paused, override, busy, budget, queue, outage, or work for what takes its time.
    """

    reasons: tuple[str, ...]
    done: int | None = None
    total: int | None = None
    word: str = "work"

    def __post_init__(self) -> None:
        if not self.reasons:
            raise ValueError("a wait needs a reason")

    @property
    def text(self) -> str:
        """Every reason in one line."""
        return "; ".join(self.reasons)


@dataclass(frozen=True, slots=True)
class Done:
    """The task ends well with this result: a record, or JSON of our own when no stage reads it."""

    result: Record | dict[str, Any]
    why: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The task cannot come to a good end by itself."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Wake:
    """A worker must act on this event."""

    event: Event
    why: str


Look = Wait | Done | Failed | Wake


def wait(*reasons: str, word: str = "work") -> Wait:
    """Return a wait with its reasons."""
    return Wait(reasons, word=word)


def waits(verdict: Verdict, word: str = "work") -> Wait:
    """Return the wait of a verdict that is not decided yet."""
    return Wait(verdict.reasons, word=word)
