"""Waits until the next delete step of a window may be sent: the one before is done, and few of ours are unfinished."""

from __future__ import annotations

import time

from backfill.kit.look import Failed, Look, Wake, wait, waits
from backfill.kit.wait import WaitArgs
from backfill.triggers.mutations import SharedMutationsTrigger, Watch
from include.scorecard_backfill.records import GoEvent
from include.scorecard_backfill.verdicts import mutations as rules
from include.scorecard_backfill.verdicts.base import Verdict


class ChunkArgs(WaitArgs):
    """``table`` is (database, table); ``generation`` and ``chunk`` name the step that must be done first.

    Chunk 0: none has to. ``at`` is when that step was sent (epoch seconds), ``accepted`` are the hosts that are known
    to have it.
    """

    table: tuple[str, str]
    generation: int
    chunk: int = 0
    accepted: tuple[str, ...] = ()
    at: float = 0.0


class ChunkTrigger(SharedMutationsTrigger[ChunkArgs]):
    """Wakes its worker when the step may go."""

    path = "backfill.triggers.chunk.ChunkTrigger"
    stage = "delete"
    model = ChunkArgs
    fails_on_worker = True

    async def prepare(self) -> None:
        """Take what is known of the step before."""
        at = self.args.at or time.time()
        self._sent = rules.Sent(self.args.table, at, frozenset(self.args.accepted))
        self._watch = Watch(self.config.clickhouse)

    def left(self) -> dict[str, int]:
        """Name the generation that a clear may have to repeat."""
        return {"generation": self.args.generation}

    async def look(self) -> Look:
        """Look at the step before, then at what else is unfinished."""
        listed = await self.mutations()
        if self.args.chunk:
            before = await self._before(listed)
            if before.state == "wait":
                return waits(before)
            if before.state == "failed":
                return Failed(self.failure(before))
        if others := rules.altering(listed, self.args.table):
            return wait(*(rules.described(other) for other in others))
        most = self.config.clickhouse.delete.max_own_unfinished_mutations
        ours = {(m.database, m.table, m.marker) for m in listed if m.marker and not m.is_done and not m.is_killed}
        if len(ours) >= most:
            return wait(f"{len(ours)} of our mutations are unfinished (limit {most})")
        return Wake(GoEvent(key=self.args.key, why="the next step may be sent"), "the next step may be sent")

    async def _before(self, listed: list[rules.Mutation]) -> Verdict:
        mine = [m for m in listed if m.marker == (self.args.key, self.args.generation, self.args.chunk)]
        views = self._watch.views(self._sent, mine, [h.name for h in await self.hosts()])
        return self._watch.judge(self._sent, views)
