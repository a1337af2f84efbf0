"""Why a window that was not admitted yet waits: the words of admission, and what stands in its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from include.scorecard_backfill.overview.facts import NO_TASK, RunFacts, WindowFacts
from include.scorecard_backfill.verdicts import admission


@dataclass(frozen=True, slots=True)
class Waiting:
    """One sentence, the window in the way ('' when it is none), the place among those whose turn may come, from 1."""

    reason: str
    blocker: str = ""
    place: int | None = None


def waiting_reasons(facts: RunFacts) -> dict[str, Waiting]:
    """Return for each waiting window, by key, why it waits; by the same function that admits it."""
    common = _for_everybody(facts)
    found: dict[str, Waiting] = {}
    for windows in facts.passes:
        if not windows:
            continue
        slots = [admission.Slot(w.window.customer_id, w.phase) for w in windows]
        survey = admission.survey(slots, facts.limits)
        blockers = _blockers(slots, survey, windows)
        for index, slot in enumerate(slots):
            window = windows[index]
            if slot.phase == "closed":
                found[window.window.key] = Waiting(window.not_opened)
            if slot.phase != "waiting":
                continue
            place = survey.places.get(index)
            found[window.window.key] = (
                Waiting(common, place=None if place is None else place + 1)
                if common
                else _own(window, index, survey, blockers)
            )
    return found


def breaker_of(facts: RunFacts) -> str:
    """Return why no further window of the last pass that has windows is started, '' while the breaker is closed."""
    for windows in reversed(facts.passes):
        if windows:
            return admission.breaker([admission.Slot(w.window.customer_id, _begun(w)) for w in windows], facts.limits)
    return ""


def _for_everybody(facts: RunFacts) -> str:
    if facts.approval is not None and not facts.approval.answer and facts.approval.asked_at is not None:
        return "the plan waits for approval"
    if facts.override_error:
        return f"nothing is started while the cluster's override cannot be used: {facts.override_error}"
    if facts.override is not None and facts.override.pause:
        return f"paused {facts.override.text}"
    return ""


def _begun(window: WindowFacts) -> admission.Phase:
    """Return the phase of a window; one that the breaker has kept from starting has not failed by itself."""
    first = window.tasks.get(window.window.stages[0], NO_TASK).state
    return window.phase if first == "success" else "waiting"


def _own(window: WindowFacts, index: int, survey: admission.Survey, blockers: Mapping[str, str]) -> Waiting:
    verdict = survey.judge(index)
    place = survey.places.get(index)
    if verdict.state == "failed":
        return Waiting(verdict.text)
    if place is None:
        return Waiting(verdict.text, blocker=blockers.get(window.window.customer_id, ""))
    if verdict.state == "ok":
        seen = window.seen.get("admit")
        next_step = "at the next look" if window.tasks or not window.opened_by else "when its batch is open"
        return Waiting(seen.reason if seen else f"its turn has come; it starts {next_step}", place=place + 1)
    return Waiting(verdict.text, place=place + 1)


def _blockers(
    slots: Sequence[admission.Slot], survey: admission.Survey, windows: Sequence[WindowFacts]
) -> dict[str, str]:
    """Return by customer the label of its window that works, else of the one whose turn comes first."""
    found: dict[str, str] = {}
    for index in survey.places:
        found.setdefault(slots[index].customer_id, windows[index].window.label)
    for index in reversed(range(len(slots))):
        if slots[index].phase == "running":
            found[slots[index].customer_id] = windows[index].window.label
    return found
