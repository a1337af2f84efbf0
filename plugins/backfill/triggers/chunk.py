"""Waits until the next delete step of a window may be sent: the one before is done, and few of ours are unfinished."""

from __future__ import annotations

from typing import Any

from backfill.triggers.base import Json, Look
from backfill.triggers.mutations import SharedMutationsTrigger
from include.scorecard_backfill.verdicts.base import failed, ok, wait


class ChunkTrigger(SharedMutationsTrigger):
    """Wakes its worker when the step may go.

    ``table`` is [database, table] and ``generation``/``chunk`` name the step that must be done first; chunk 0: none.
    """

    path = "backfill.triggers.chunk.ChunkTrigger"
    fields = ("table", "generation", "chunk", "accepted")
    fails_on_worker = True

    table: list[str]
    generation: int
    chunk: int
    accepted: list[str]

    async def look(self) -> Look:
        """Look at our unfinished mutations, then at the step before."""
        mutations = await self.mutations()
        name = ".".join(self.table)
        mine = [m for m in mutations if m.marker == (self.key, self.generation, self.chunk) and self.chunk]
        mine = [m for m in mine if [m.database, m.table] == self.table]
        if killed := [m.host for m in mine if m.is_killed]:
            return Look(failed("killed", f"{name}: the DELETE of one day was killed on {', '.join(killed)}"))
        failing = [m for m in mine if m.fail_reason and not m.is_done]
        busy = [m for m in mine if not m.is_done]
        if failing:
            return Look(wait(f"{name}: the DELETE of one day fails on {failing[0].host}: {failing[0].fail_reason}"))
        if busy:
            return Look(wait(f"{name}: day {self.chunk}: {busy[0].parts_to_do} parts to do on {busy[0].host}"))
        missing = sorted({h.name for h in await self.hosts()} - {m.host for m in mine} - set(self.accepted))
        if self.chunk and missing:
            return Look(wait(f"{name}: day {self.chunk} is not on {', '.join(missing)} yet"))
        limit = self.config.clickhouse.delete.max_own_unfinished_mutations
        ours = {(m.database, m.table, m.marker) for m in mutations if m.marker and not m.is_done and not m.is_killed}
        if len(ours) >= limit:
            return Look(wait(f"{len(ours)} of our mutations are unfinished (limit {limit})"))
        return Look(ok("the next step may be sent"), resume=self._go())

    def _go(self) -> Json:
        return {"action": "go", "key": self.key, "chunk": self.chunk}


def event_failed(event: Any) -> bool:
    """Return True for an event that says that the wait has failed."""
    return isinstance(event, dict) and event.get("action") == "fail"
