"""Counts a window again until two looks agree, proves what an option postponed, and asks whether the books balance."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from backfill.groups import group_named
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit import xcoms
from backfill.kit.counting import table_days
from backfill.kit.debts import DebtBook
from backfill.kit.look import Done, Failed, Look, Wake, wait
from backfill.kit.poll import shared_poll
from backfill.kit.putback import put_back_between
from backfill.kit.wait import WaitArgs, WaitTrigger
from backfill.snapshots import Snapshots
from include.scorecard_backfill import life
from include.scorecard_backfill.config.rules import judging, told_tables
from include.scorecard_backfill.proof import judge
from include.scorecard_backfill.records import (
    Deleted,
    Failure,
    MissingRows,
    MutationsGone,
    Proof,
    Reindexed,
    ReindexEvent,
    TableBalance,
    TableDays,
    TableName,
    Verified,
    WorkflowsClosed,
    settled,
)
from include.scorecard_backfill.records.proof import IDS_NAMED
from include.scorecard_backfill.rewriting import Rewriting, Rewritten, judge_rewriting
from include.scorecard_backfill.verdicts.base import Verdict, failed, ok
from include.scorecard_backfill.verdicts.causes import cause_of
from include.scorecard_backfill.verdicts.census import Census, DayTallies
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.mutations import Mutation, seen_of
from include.scorecard_backfill.verdicts.started import Ids

NOT_CLOSED = (
    "wait_workflows left no proof that the workflows are closed (it was marked by hand?): clear it (wait_workflows) and"
    " this task with it"
)
NOT_DELETED = "the delete stage left no result: clear it (delete) and this task with it"


class VerifyArgs(WaitArgs):
    """``attempt`` names a reindex that this task has made itself, ``workflow_ids`` its closed workflows (0: none)."""

    attempt: int = 0
    workflow_ids: tuple[str, ...] = ()


class VerifyTrigger(WaitTrigger[VerifyArgs]):
    """Ends the task as verified, hands a failure to a worker, or asks a worker for a new reindex."""

    path = "backfill.triggers.verify.VerifyTrigger"
    stage = "verify"
    model = VerifyArgs
    fails_on_worker = True

    @property
    def poll_seconds(self) -> float:
        """Interval of counting."""
        return self.config.clickhouse.verify_poll_seconds

    async def prepare(self) -> None:
        """Read what was deleted, what was reindexed, and how an earlier try of this task ended."""
        deleted = xcoms.expect(Deleted, await self.result_of("delete"), NOT_DELETED)
        self._deleted = deleted
        previous = await xcoms.arecord(self.ti, self.ti.task_id)
        cut_by = group_named(self.args.group).cut_by
        cut = await xcoms.apull(self.ti, cut_by, xcoms.CUT) if cut_by else None
        self._settled = settled(deleted.key, previous, cut)
        self._previous = previous if isinstance(previous, Verified) else None
        waited, gone = await self.result_of("wait_workflows"), await self.result_of("wait_mutations")
        self._closed = waited if isinstance(waited, WorkflowsClosed) else None
        self._gone = gone if isinstance(gone, MutationsGone) else None
        before = previous if isinstance(previous, Failure) and previous.key == deleted.key else None
        made = self._closed.attempt if self._closed else 0
        self._attempt = max(self.args.attempt, made, before.attempt if before else 0)
        earlier = self._closed.workflow_ids if self._closed else ()
        self._workflow_ids = self.args.workflow_ids if self.args.attempt else earlier
        # After a failed try that made an attempt of its own they are those of an older one.
        self._ids_are_its_own = self._attempt == (self.args.attempt or made)
        self._left: life.Left = cause_of(before.cause).repeat if before and before.attempt == self._attempt else ""
        self._last: tuple[tuple[TableDays, ...], Mapping[TableName, DayTallies]] | None = None
        self._unwritten: tuple[str, ...] = ()
        # Workflows that still run would go on writing after the counts were found to balance.
        if not self._settled and self._closed is None and not self.args.attempt:
            raise ValueError(NOT_CLOSED)
        self._put_back = bool(deleted.sent) and not self._settled and await self._rows_were_put_back()

    async def _rows_were_put_back(self) -> bool:
        """Return True when an undo has put rows back after the DELETE and before the Job whose work is judged.

        Old rows would then make up for those that it did not write. What is put back after it completes a window by a
        person's will. Of a Job that another stage has made it is not known when that was.
        """
        counted, reindexed = self._deleted.counted, await self.result_of("reindex")
        mine = reindexed if isinstance(reindexed, Reindexed) and reindexed.attempt == self._attempt else None
        made = mine.made_at if mine else 0.0
        since = counted.server_time if counted else 0.0
        return await put_back_between(self.args.cluster, self._deleted.window, since, made or math.inf)

    def left(self) -> dict[str, Any]:
        """Name the attempt that did not bring the rows back, so that a clear makes the next one."""
        return {"attempt": self._attempt}

    async def look(self) -> Look:
        """Count every table on every replica; totals must be settled and equal to those of the look before."""
        if self._settled:
            return self._nothing_to_do()
        if self._put_back:
            # Old rows would make up for those that were not written again.
            said = f"an undo has put rows of {self._deleted.window.label} back between the DELETE and the reindex"
            return Failed(self.failure(failed("put_back", said)))
        hosts = await self.hosts()
        hook = await self.clickhouse()
        spooled = await asyncio.to_thread(hook.drain_spool, self._deleted.window, hosts)
        if spooled:
            return wait(*spooled)
        census = await asyncio.to_thread(hook.census, list(self._deleted.window.slices()), hosts, self._before_job())
        if census.unsettled:
            return wait(census.unsettled)
        after = table_days(census)
        # What is written again in between changes no count.
        counted = after, census.old
        if counted != self._last:
            self._last = counted
            rows = ", ".join(f"{t.database}.{t.table}={t.rows}" for t in after)
            return wait(f"counts must be equal in two looks in a row: {rows}")
        ids = {name: total.ids for name, total in census.total.items()}
        verdict, tables = judge(self._deleted.before, after, judging(self.config.clickhouse, self._deleted.window), ids)
        rewriting = self._rewriting(census)
        if verdict.state == "ok" and rewriting.verdict.state != "ok":
            verdict = rewriting.verdict
        self._unwritten = rewriting.doubts
        stale = await self._stale(hook, hosts)
        seen = await self._seen(hook, hosts)
        facts = life.Facts(
            order=self._deleted.window.order,
            seen=seen,
            rows="left" if stale else "gone",
            balance="ok" if verdict.state == "ok" else "wrong",
            others="quiet",
            left=self._left,
            attempt=self._attempt,
        )
        return await self._decide(life.next_step("verify", facts), verdict, stale, tables, hook, hosts)

    def _before_job(self) -> datetime | None:
        """Return the moment before the first Job in mode reindex, where that what is there tells nothing by itself."""
        counted = self._deleted.counted
        if self._deleted.window.destructive or counted is None:
            return None
        return datetime.fromtimestamp(counted.server_time, UTC)

    def _rewriting(self, census: Census) -> Rewriting:
        """Return whether the rows were written again; in mode cleanup nothing else could be there."""
        window, house = self._deleted.window, self.config.clickhouse
        if window.destructive:
            return Rewriting(ok("rows were deleted"))
        found = {name: Rewritten(one.rewritten, one.old) for name, one in census.tables.items()}
        told = told_tables(house, window) if self._before_job() else frozenset()
        return judge_rewriting(
            self._deleted.before, found, judging(house, window), told=told, idle=self._idle_databases()
        )

    def _idle_databases(self) -> set[str]:
        """Return the databases of profiles without a workflow, which wait_workflows has proven to have no work."""
        if not self._workflow_ids:
            return set()
        window = self._deleted.window
        ids = Ids(self.config.temporal.workflow_id_prefix, window.customer_id, window.profiles)
        lacking = ids.lacking(self._workflow_ids)
        return {database.name for database in window.databases if database.profile_id in lacking}

    def _nothing_to_do(self) -> Look:
        if self._settled == "cut":
            result = Verified(key=self._deleted.key, status="cut")
            return Done(result, "this window was cut; its parts are verified instead")
        assert self._previous is not None
        return Done(
            self._previous,
            "verified already in this run; to do this window again, trigger a new run for its customer and days",
        )

    async def _decide(
        self,
        step: life.Step,
        verdict: Verdict,
        stale: Sequence[str],
        tables: tuple[TableBalance, ...],
        hook: BackfillClickHouse,
        hosts: Sequence[Host],
    ) -> Look:
        if step.action == "wait":
            return wait(step.why)
        if step.action == "make":
            event = ReindexEvent(window=self._deleted.window, attempt=self._attempt)
            return Wake(event, f"{step.why}: {verdict.text}")
        missing = await self._missing(hook, hosts)
        named = [
            f"{m.database}.{m.table}: {m.count} rows of the snapshot, such as {', '.join(m.ids[:IDS_NAMED])}"
            for m in missing
            if m.count
        ]
        if step.action == "fail":
            exact = failed(step.cause, *stale) if stale else verdict
            if exact.state != "failed":
                exact = failed(step.cause, step.why)
            return Failed(self.failure(failed(exact.cause, *exact.reasons, *named)))
        await DebtBook(self.args.cluster).apay(self._deleted.key)
        found = Verified(
            key=self._deleted.key,
            status="verified",
            attempt=self._attempt,
            workflow_ids=self._workflow_ids if self._ids_are_its_own else (),
            proof=self._proof(tables, missing, hosts),
        )
        return Done(found, verdict.text)

    def _proof(
        self, tables: tuple[TableBalance, ...], missing: tuple[MissingRows, ...], hosts: Sequence[Host]
    ) -> Proof:
        return Proof(
            tables=tables,
            hosts=tuple(host.name for host in hosts),
            statements=len(self._deleted.sent),
            workflows=len(self._workflow_ids),
            accounted=all(table.meant is not None for table in tables),
            missing=missing,
            unwritten=self._unwritten,
        )

    async def _seen(self, hook: BackfillClickHouse, hosts: Sequence[Host]) -> life.Seen:
        """What the hosts show of the DELETE; what wait_mutations has proven is not asked again."""
        if not self._deleted.sent:
            return "nothing"
        if self._gone is not None and self._gone.status == "gone":
            return "done"

        async def load() -> list[Mutation]:
            return await asyncio.to_thread(hook.mutations)

        poll = self.config.clickhouse.mutation_poll_seconds
        listed = await shared_poll().get(("mutations", self.args.cluster), load, max_age=poll / 2)
        return seen_of(self._deleted, listed, [host.name for host in hosts])

    async def _stale(self, hook: BackfillClickHouse, hosts: Sequence[Host]) -> list[str]:
        """Return a sentence for each host with rows that may not be there any more."""
        if not self._deleted.window.destructive:
            return []
        # Where no row was left before the Job, whatever is there now was written since, also with an old time.
        proven = self._gone is not None and self._gone.status == "gone"
        return await asyncio.to_thread(hook.stale_rows, self._deleted, hosts, proven_gone=proven)

    async def _missing(self, hook: BackfillClickHouse, hosts: Sequence[Host]) -> tuple[MissingRows, ...]:
        """Return which rows of the snapshots did not come back; they are named, the balance decides."""
        snapshots = self._deleted.snapshots
        if not snapshots:
            return ()
        return await asyncio.to_thread(Snapshots(hook, hosts).missing, self._deleted.window, snapshots)
