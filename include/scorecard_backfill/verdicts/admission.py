"""Which waiting window may go: a fixed order, so that no lock is needed.

Every waiting trigger evaluates the same function on a snapshot of the run's task states. A window is *eligible* when it
waits and fewer than ``per_customer`` windows of its customer are admitted and unfinished, counting the eligible ones of
the same customer before it. *Free* slots are ``max_parallel`` minus the admitted and unfinished windows. The first
``free`` eligible windows in plan order go. A window that becomes eligible later always brings the slot that its
predecessor freed, so two triggers never take the same slot, even on snapshots of different age.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from include.scorecard_backfill.plural import number_of
from include.scorecard_backfill.verdicts.base import Verdict, failed, ok, wait

Phase = Literal["waiting", "running", "verified", "failed", "closed"]
"""``closed``: the batch of the window was not opened, and will not be without a person; it takes no place."""

ENDED_BADLY = ("failed", "upstream_failed", "skipped", "removed")
"""Airflow's words for a task that did not do its work and never asks again."""

FAR = 20
"""Windows this far back in the queue are not told their exact place: it would be another text at each step."""

LIVE = frozenset({"running", "queued", "scheduled", "deferred", "up_for_retry", "up_for_reschedule", "restarting"})
"""Airflow's words for a task that has not ended."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A window as admission sees it: who it belongs to and how far it is, in plan order."""

    customer_id: str
    phase: Phase


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a run: windows at once, windows of one customer at once, failures before the breaker opens.

    ``max_failure_share`` (0..1) counts once ``min_windows_for_share`` windows have ended.
    """

    max_parallel: int
    per_customer: int
    max_failures: int
    max_failure_share: float = 1.0
    min_windows_for_share: int = 20


@dataclass(frozen=True, slots=True)
class Work:
    """A window of the run as the slot for its Job sees it, in plan order.

    ``working``: it has a live Job or open workflows. ``waiting``: it is about to make a Job and has neither.
    """

    label: str
    working: bool
    waiting: bool


def judge_job(index: int, works: Sequence[Work], max_parallel: int) -> Verdict:
    """Decide whether the window at ``index`` may make a Job now, by what really works and not by Airflow's states.

    A window that was admitted passes at once. Windows that are cleared after a failure come back without admission:
    they take the slots that are free, in plan order, so that ``max_parallel`` holds for them too. A window that
    begins to work leaves the waiting ones before or after it, so that no two take the same slot.
    """
    working = [w.label for i, w in enumerate(works) if w.working and i != index]
    before = sum(w.waiting for w in works[:index])
    if len(working) + before < max_parallel:
        return ok(f"{len(working)} windows work, {before} come first, {max_parallel} may")
    return wait(
        f"{len(working)} of {max_parallel} windows work ({', '.join(working[:3])}) and {before} cleared ones come first"
    )


def phase_of(admit: str | None, later: Sequence[str | None], opener: str | None = None) -> Phase:
    """Return a window's phase from Airflow's state names of its admit task and of the stages behind it (in order).

    A window is finished when verify succeeded, or when a stage failed for good and none is being run again. ``opener``
    is the state of the task that opens its batch: a window that has no tasks yet waits, as long as that may succeed.
    """
    if admit is None and opener in ENDED_BADLY:
        return "closed"
    if admit != "success":
        # A skipped or removed one never asks again: as a waiting one it would keep its place in the queue for ever.
        return "failed" if admit in ENDED_BADLY else "waiting"
    if later and later[-1] == "success":
        return "verified"
    if any(state in LIVE for state in later):
        return "running"
    if any(state in ENDED_BADLY for state in later):
        return "failed"
    return "running"


def breaker(slots: Sequence[Slot], limits: Limits) -> str:
    """Return why no further window may start because too many failed, or '' while the breaker is closed."""
    count = Counter(slot.phase for slot in slots)
    ended = count["failed"] + count["verified"]
    if count["failed"] >= limits.max_failures:
        return f"{number_of(count['failed'], 'window')} failed, the limit is {limits.max_failures}"
    if ended >= limits.min_windows_for_share and count["failed"] > limits.max_failure_share * ended:
        return f"{count['failed']} of {ended} ended windows failed, the limit is {limits.max_failure_share:.0%}"
    return ""


def eligible(slots: Sequence[Slot], per_customer: int) -> list[int]:
    """Return the indexes of waiting windows that their customer's other windows do not hold back, in plan order."""
    taken = Counter(slot.customer_id for slot in slots if slot.phase == "running")
    result = []
    for index, slot in enumerate(slots):
        if slot.phase == "waiting" and taken[slot.customer_id] < per_customer:
            taken[slot.customer_id] += 1
            result.append(index)
    return result


@dataclass(frozen=True, slots=True)
class Survey:
    """One look at all windows of a run, made once and asked by every waiting window.

    ``waiting``: indexes of the waiting windows. ``places``: place of each eligible one in the queue, from 0, by index.
    ``breaker``: why no further window is started, '' when it is closed.
    """

    customers: Sequence[str]
    waiting: Sequence[int]
    places: Mapping[int, int]
    running: int
    limits: Limits
    breaker: str

    def judge(self, index: int) -> Verdict:
        """Decide whether the window at ``index`` may go now; a wait says in one sentence why."""
        if self.breaker:
            return failed(
                "breaker", f"no further window is started: {self.breaker}; clear the failed ones, then this one"
            )
        place = self.places.get(index)
        if place is None:
            each = self.limits.per_customer
            return wait(f"another window of {self.customers[index]} comes first ({each} at a time)")
        most = self.limits.max_parallel
        if place < most - self.running:
            return ok(f"slot {self.running + place + 1} of {most}")
        if place >= FAR:
            return wait(f"{most} slots at most, and {FAR} or more eligible windows come first")
        return wait(f"{self.running} of {most} slots are taken and {place} eligible windows come first")

    def judge_opening(self, closed: Collection[int]) -> Verdict:
        """Decide whether the next batch is opened. ``closed`` are the windows of this batch and of those after it.

        It is opened when fewer open windows wait than may go at once, so that no slot has to wait for it, or when a
        closed window's turn has come already: while it has no tasks its slot stays empty.
        """
        if self.breaker:
            return failed(
                "breaker", f"no further window is started: {self.breaker}; clear the failed ones, then this task"
            )
        most = self.limits.max_parallel
        if any(place < most - self.running for index, place in self.places.items() if index in closed):
            return ok("the turn of a window that is not open has come")
        ahead = sum(index not in closed for index in self.waiting)
        if ahead < most:
            return ok(f"{ahead} windows before it wait, fewer than {most} (max_parallel)")
        return wait(f"{ahead} windows before it wait; it is opened when fewer than {most} (max_parallel) do")


def survey(slots: Sequence[Slot], limits: Limits) -> Survey:
    """Look at all windows once."""
    return Survey(
        customers=[slot.customer_id for slot in slots],
        waiting=[index for index, slot in enumerate(slots) if slot.phase == "waiting"],
        places={index: place for place, index in enumerate(eligible(slots, limits.per_customer))},
        running=sum(slot.phase == "running" for slot in slots),
        limits=limits,
        breaker=breaker(slots, limits),
    )


def judge(index: int, slots: Sequence[Slot], limits: Limits) -> Verdict:
    """Decide one window by a survey of its own."""
    return survey(slots, limits).judge(index)
