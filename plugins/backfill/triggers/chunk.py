"""Waits until the next delete step of a window may be sent: the one before is done, and few of ours are unfinished."""

from __future__ import annotations

import time
from typing import Any

from backfill.triggers.base import Json, Look
from backfill.triggers.mutations import SharedMutationsTrigger, Watch
from include.scorecard_backfill.verdicts import mutations as rules
from include.scorecard_backfill.verdicts.base import Verdict, ok, wait


class ChunkTrigger(SharedMutationsTrigger):
    """Wakes its worker when the step may go.

    ``table`` is [database, table] and ``generation``/``chunk`` name the step that must be done first; chunk 0: none.
    ``at`` is when that step was sent (epoch seconds), ``accepted`` are the hosts that are known to have it.
    """

    path = "backfill.triggers.chunk.ChunkTrigger"
    fields = ("table", "generation", "chunk", "accepted", "at")
    fails_on_worker = True

    table: list[str]
    generation: int
    chunk: int
    accepted: list[str]
    at: float

    def prepare(self) -> None:
        """Take what is known of the step before."""
        self._name = (str(self.table[0]), str(self.table[1]))
        self._sent = rules.Sent(self._name, float(self.at or time.time()), frozenset(self.accepted or ()))
        self._watch = Watch(self.config.clickhouse)

    async def look(self) -> Look:
        """Look at the step before, then at what else is unfinished."""
        listed = await self.mutations()
        if self.chunk:
            before = await self._before(listed)
            if before.state != "ok":
                return Look(before)
        if others := rules.altering(listed, self._name):
            return Look(wait(*(rules.described(other) for other in others)))
        limit = self.config.clickhouse.delete.max_own_unfinished_mutations
        ours = {(m.database, m.table, m.marker) for m in listed if m.marker and not m.is_done and not m.is_killed}
        if len(ours) >= limit:
            return Look(wait(f"{len(ours)} of our mutations are unfinished (limit {limit})"))
        return Look(ok("the next step may be sent"), resume=self._go())

    async def _before(self, listed: list[rules.Mutation]) -> Verdict:
        mine = [m for m in listed if m.marker == (self.key, self.generation, self.chunk)]
        views = self._watch.views(self._sent, mine, [h.name for h in await self.hosts()])
        return self._watch.judge(self._sent, views)

    def _go(self) -> Json:
        return {"action": "go", "key": self.key, "chunk": self.chunk}


def event_failed(event: Any) -> bool:
    """Return True for an event that says that the wait has failed."""
    return isinstance(event, dict) and event.get("action") == "fail"
