"""Which tasks a reset means: windows of a customer that are not verified are done again from their first stage on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from include.scorecard_backfill.overview.act import RetryError, TaskPlace, every_task
from include.scorecard_backfill.overview.facts import NO_TASK, RunFacts, WindowFacts
from include.scorecard_backfill.verdicts.admission import LIVE

REPORT = "report"


@dataclass(frozen=True, slots=True)
class Reset:
    """What a reset clears, and what it leaves alone.

    ``windows``: keys and labels of the windows that are done again. ``left``: labels of the others of this customer
    (and day), each with the reason. ``places``: the task instances to be cleared, the report among them.
    """

    windows: tuple[tuple[str, str], ...]
    left: tuple[tuple[str, str], ...]
    places: tuple[TaskPlace, ...]


def reset_tasks(facts: RunFacts, customer: str, day: date | None = None, keys: Collection[str] | None = None) -> Reset:
    """Return what a reset of a customer's windows clears, with ``day`` only of the windows that hold this UTC day.

    ``keys``: those that a person was shown; none besides them is cleared.

    Raises:
        RetryError: the run has nothing of this customer that could be done again, or not any more what was shown.
    """
    if facts.approval is not None and facts.approval.answer == "Reject":
        raise RetryError("The plan was rejected. Start a new run; a reset must not ask again.")
    of = f" of {customer}" + (f" that holds {day.isoformat()}" if day else "")
    if facts.run.get("dry_run"):
        raise RetryError(f"This run is a dry run: no window{of} was begun.")
    meant = [w for windows in facts.passes for w in windows if _meant(w, customer, day)]
    if not meant:
        raise RetryError(f"The run has no window{of}.")
    cut = {w.window.part_of for windows in facts.passes for w in windows}
    reasons = {w.window.key: _why_not(w, cut) for w in meant}
    found = [w for w in meant if not reasons[w.window.key]]
    left = tuple((w.window.label, reasons[w.window.key]) for w in meant if reasons[w.window.key])
    if keys is not None:
        _unchanged(found, keys)
        found = [w for w in found if w.window.key in keys]
    if not found:
        raise RetryError(f"No window{of} can be reset: " + "; ".join(f"{label}: {why}" for label, why in left))
    places = [(task_id, w.index) for w in found for task_id, task in every_task(w) if task.state is not None]
    if facts.tasks.get(REPORT, NO_TASK).state not in (None, *LIVE):
        places.append((REPORT, -1))
    return Reset(tuple((w.window.key, w.window.label) for w in found), left, tuple(places))


def _meant(window: WindowFacts, customer: str, day: date | None) -> bool:
    if window.window.customer_id != customer:
        return False
    return day is None or window.window.start <= day.isoformat() < window.window.end


def _why_not(window: WindowFacts, cut: Collection[str]) -> str:
    """Return why a window is left alone, '' when it may be done again."""
    if window.verified and window.window.key not in cut:
        return "verified; to do it again, start a new run for its days"
    if window.window.key in cut:
        return "was cut smaller; its parts do its work"
    if any(task.state in LIVE for _, task in every_task(window)):
        return "in work or waiting; end its Job first, or wait"
    if window.not_opened:
        return window.not_opened
    if not any(task.state is not None for _, task in every_task(window)):
        return "not begun; it starts by itself"
    return ""


def _unchanged(found: Collection[WindowFacts], keys: Collection[str]) -> None:
    gone = sorted(set(keys) - {w.window.key for w in found})
    if gone:
        raise RetryError(f"{len(gone)} of the windows that were shown cannot be reset any more; look again.")
