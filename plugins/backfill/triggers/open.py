"""When a batch of windows comes into being: its opener asks what a waiting window asks, for all of them at once."""

from __future__ import annotations

from airflow.triggers.base import TaskSkippedEvent, TriggerEvent

from backfill.groups import BATCHES
from backfill.kit import xcoms
from backfill.kit.look import Done, Failed, Look, Wait, Wake, waits
from backfill.triggers.admit import AdmitTrigger
from include.scorecard_backfill.records import GoEvent


class OpenTrigger(AdmitTrigger):
    """Wakes a worker when few windows of the open batches wait. Skips its task when the plan ends before its batch."""

    path = "backfill.triggers.open.OpenTrigger"
    fails_on_worker = True

    async def _find_window(self) -> None:
        """Take the batch's name: an opener belongs to no window."""
        self.label = self.args.group

    async def prepare(self) -> None:
        """Find the windows that are not open: those of this batch and of the batches after it.

        Raises:
            ValueError: there is no whole plan; a batch must not be skipped for that.
        """
        source = BATCHES[0].source
        # Written last: while it is missing, the plan is being made again.
        if await xcoms.apull(self.ti, source) is None:
            raise ValueError(f"{source} has left no windows, not even none: clear it, or this task when it has ended")
        later = [one.group for one in BATCHES]
        later = later[later.index(self.args.group) :]
        places = await self.places()
        self._closed = frozenset(index for index, place in enumerate(places) if place.group in later)
        self._windows = sum(place.group == self.args.group for place in places)
        if self._closed and not self._windows:
            raise ValueError(f"the plan has no windows in {self.args.group}, and {len(self._closed)} in later batches")

    async def look(self) -> Look:
        """Decide the batch on the run's states, on the look that every waiting window shares."""
        if not self._windows:
            return Done({}, "the plan has no windows for this batch; it is skipped")
        override = await self.override()
        if isinstance(override, Wait):
            return override
        verdict = (await self.survey(override)).judge_opening(self._closed)
        if verdict.state == "wait":
            return waits(verdict, "queue")
        if verdict.state == "failed":
            return Failed(self.failure(verdict))
        return Wake(GoEvent(key="", why=verdict.text), f"{self._windows} windows are opened: {verdict.text}")

    async def _final_event(self, look: Look) -> TriggerEvent:
        # With no windows the groups of this batch and the openers after it must not run: Airflow skips them with it.
        event = await super()._final_event(look)
        return TaskSkippedEvent() if isinstance(look, Done) else event
