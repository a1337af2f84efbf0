"""Counts a window again until two looks agree and decides whether what came back is complete."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backfill.hooks.clickhouse import BackfillClickHouse, DayCounts, days_of_cluster, sum_days
from backfill.records import parse_record, settled
from backfill.snapshots import Snapshots
from backfill.triggers.base import Json, Look, WaitTrigger
from backfill.triggers.mutations import slices
from include.scorecard_backfill.verdicts import counts as rules
from include.scorecard_backfill.verdicts.base import Verdict, failed, ok, wait

REPEATABLE = frozenset({"lost_rows", "empty_day", "stale_rows"})
"""Failures that another reindex may mend; a cleared verify that meets one of them again asks for it."""


class VerifyTrigger(WaitTrigger):
    """Ends the task as verified, or hands the failure to a worker.

    ``deleted`` is the result of the delete stage with the counts before, ``waited`` that of wait_workflows,
    ``previous`` this task's last result; ``attempt`` names a reindex that this task has made itself (0: none).
    """

    path = "backfill.triggers.verify.VerifyTrigger"
    fields = ("deleted", "waited", "previous", "cut", "attempt")
    fails_on_worker = True

    deleted: Any
    waited: Any
    previous: Any
    cut: Any
    attempt: Any

    @property
    def poll_seconds(self) -> float:
        """Interval of counting."""
        return self.config.clickhouse.verify_poll_seconds

    def prepare(self) -> None:
        """Parse what the delete stage counted."""
        self._previous = parse_record(self.previous)
        self._deleted = parse_record(self.deleted)
        if not self._deleted.get("window"):
            raise ValueError("the delete stage left no result: clear it (delete) and this task with it")
        self.key = self._deleted["key"]
        self._settled = settled(self.key, self._previous, self.cut)
        before = self._deleted["before"]
        self._before = {(b["database"], b["table"]): int(b["rows"]) for b in before}
        self._days_before = {(b["database"], b["table"]): b["days"] for b in before}
        self._cleanup = self._deleted["window"]["mode"] == "cleanup"
        waited = parse_record(self.waited).get("attempt") or 0
        self._attempt = max(int(self.attempt or 0), int(waited), self._failed_attempt())
        self._last: dict[tuple[str, str], int] | None = None

    def _failed_attempt(self) -> int:
        """Return the attempt that an earlier try of this task saw fail, 0 when there is none."""
        if self._previous.get("status") != "failed":
            return 0
        return int(self._previous.get("attempt") or (self._previous.get("reindexed") or {}).get("attempt") or 0)

    async def look(self) -> Look:
        """Count every table on every replica; totals must be settled and equal to those of the look before."""
        if self._settled == "verified":
            text = "verified already in this run; to do this window again, trigger a new run for its customer and days"
            return Look(ok(text), self._previous)
        if self._settled == "cut":
            return Look(ok("this window was cut; its parts are verified instead"), {"key": self.key, "status": "cut"})
        hosts = await self.hosts()
        hook = await self.clickhouse()
        counts: DayCounts = await asyncio.to_thread(hook.day_counts, slices(self._deleted["window"]), hosts)
        counted = sum_days(counts)
        after = rules.totals(counted, hosts)
        if after is None:
            return Look(wait(rules.unsettled(counted, hosts)))
        verdict = rules.judge(self._before, after, self._last, self._bands(), self._band("*"))
        self._last = after
        if verdict.state == "ok":
            verdict = self._judge_days(verdict, days_of_cluster(counts, hosts))
        if verdict.state == "ok" and self._cleanup:
            verdict = await self._judge_stale(verdict)
        missing = {} if verdict.state == "wait" else await self._missing(hook, hosts)
        return self._decided(verdict, after, missing)

    async def _missing(self, hook: BackfillClickHouse, hosts: Sequence[rules.Host]) -> dict[str, Json]:
        """Return which rows of the snapshots did not come back; they are reported, the band decides."""
        snapshots = self._deleted.get("snapshots") or []
        if not snapshots:
            return {}
        missing = await asyncio.to_thread(Snapshots(hook, hosts).missing, self._deleted["window"], snapshots)
        for name, found in missing.items():
            self.log.info("%s: %d rows of the snapshot are not there, such as %s", name, found["count"], found["ids"])
        return missing

    def _judge_days(self, verdict: Verdict, after: Mapping[tuple[str, str], Mapping[str, int]]) -> Verdict:
        empty = rules.empty_days(self._days_before, after, self.config.clickhouse.verify_day_min_rows)
        return failed("empty_day", *empty[:20]) if empty else verdict

    async def _judge_stale(self, verdict: Verdict) -> Verdict:
        """Count the rows that may not be there any more (must_be_zero of the cluster's file)."""
        stale = []
        for rule in self.config.clickhouse.must_be_zero:
            parts = [(t, p) for t, p in slices(self._deleted["window"]) if t == rule.table]
            if not parts:
                continue
            hook = await self.clickhouse()
            rows = await asyncio.to_thread(hook.stale_rows, parts, rule.column, rule.equals)
            stale += [f"{rows} rows of {rule.table} with {rule.column} = {rule.equals!r} are there"] if rows else []
        return failed("stale_rows", *stale) if stale else verdict

    def _decided(self, verdict: Verdict, after: Mapping[tuple[str, str], int], missing: Mapping[str, Json]) -> Look:
        shown = {"missing": dict(missing)} if missing else {}
        if verdict.state != "failed":
            return Look(verdict, self._result(after) | shown)
        if verdict.cause in REPEATABLE and self._attempt and self._failed_attempt() == self._attempt:
            window = self._deleted["window"]
            text = replace(verdict, state="wait", reasons=(*verdict.reasons, "cleared: making a new reindex"))
            return Look(text, resume={"action": "reindex", "window": window, "attempt": self._attempt})
        return Look(verdict, {"attempt": self._attempt, "tables": self._tables(after)} | shown)

    def _bands(self) -> dict[str, rules.Band]:
        return {table: self._band(table) for table in self.config.clickhouse.tables}

    def _band(self, table: str) -> rules.Band:
        band = self.config.clickhouse.band_of(table)
        # A reindex without a delete may add rows that were missing: no upper limit.
        return rules.Band(band.min_ratio, band.max_ratio if self._cleanup else None)

    def _result(self, after: Mapping[tuple[str, str], int]) -> Json:
        return {"key": self.key, "status": "verified", "tables": self._tables(after)}

    def _tables(self, after: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
        tables: dict[str, dict[str, int]] = defaultdict(lambda: {"before": 0, "after": 0, "removed": 0})
        for (database, table), rows in sorted(after.items()):
            before = self._before[database, table]
            tables[table]["before"] += before
            tables[table]["after"] += rows
            tables[table]["removed"] += before - rows
        return dict(tables)
