"""Counts a window again until two looks agree and decides whether what came back is complete."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from backfill.hooks.clickhouse import sum_days
from backfill.triggers.base import Json, Look, WaitTrigger, parse_record
from backfill.triggers.mutations import slices
from include.scorecard_backfill.verdicts import counts as rules
from include.scorecard_backfill.verdicts.base import ok, wait

ANY_NUMBER = float("inf")
"""A reindex without a delete may add rows that were missing: no upper limit."""


class VerifyTrigger(WaitTrigger):
    """``deleted`` is the result of the delete stage with the counts before, ``previous`` this task's last result."""

    path = "backfill.triggers.verify.VerifyTrigger"
    fields = ("deleted", "previous")

    deleted: Any
    previous: Any

    @property
    def poll_seconds(self) -> float:
        """Interval of counting."""
        return self.config.clickhouse.verify_poll_seconds

    def prepare(self) -> None:
        """Parse what the delete stage counted."""
        self._previous = parse_record(self.previous)
        self._deleted = parse_record(self.deleted)
        if self._previous.get("status") == "verified":
            self.key = self._previous["key"]
            return
        if not self._deleted.get("window"):
            raise ValueError("the delete stage left no result: clear it (delete) and this task with it")
        self.key = self._deleted["key"]
        self._before = {(b["database"], b["table"]): int(b["rows"]) for b in self._deleted["before"]}
        self._last: dict[tuple[str, str], int] | None = None

    async def look(self) -> Look:
        """Count every table on every replica; totals must be settled and equal to those of the look before."""
        if self._previous.get("status") == "verified":
            text = "verified already in this run; to do this window again, trigger a new run for its customer and days"
            return Look(ok(text), self._previous)
        hosts = await self.hosts()
        hook = await self.clickhouse()
        counted = sum_days(await asyncio.to_thread(hook.day_counts, slices(self._deleted["window"]), hosts))
        after = rules.totals(counted, hosts)
        if after is None:
            return Look(wait(rules.unsettled(counted, hosts)))
        verdict = rules.judge(self._before, after, self._last, self._bands(), self._band("*"))
        self._last = after
        return Look(verdict, self._result(after))

    def _bands(self) -> dict[str, rules.Band]:
        return {table: self._band(table) for table in self.config.clickhouse.tables}

    def _band(self, table: str) -> rules.Band:
        band = self.config.clickhouse.band_of(table)
        cleanup = self._deleted["window"]["mode"] == "cleanup"
        return rules.Band(band.min_ratio, band.max_ratio if cleanup else ANY_NUMBER)

    def _result(self, after: dict[tuple[str, str], int]) -> Json:
        tables: dict[str, dict[str, int]] = defaultdict(lambda: {"before": 0, "after": 0, "removed": 0})
        for (database, table), rows in sorted(after.items()):
            before = self._before[database, table]
            tables[table]["before"] += before
            tables[table]["after"] += rows
            tables[table]["removed"] += before - rows
        return {"key": self.key, "status": "verified", "tables": dict(tables)}
