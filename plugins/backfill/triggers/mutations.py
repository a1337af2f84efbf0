"""Waits until a window's own mutations are done on every host and its rows are gone from every replica."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from backfill.groups import group_named
from backfill.kit import xcoms
from backfill.kit.debts import DebtBook
from backfill.kit.look import Done, Failed, Look, Wait, Wake, wait
from backfill.kit.poll import shared_poll
from backfill.kit.saying import say
from backfill.kit.wait import WaitArgs, WaitTrigger
from include.scorecard_backfill import life, sql
from include.scorecard_backfill.config import ClickHouseConfig
from include.scorecard_backfill.config.rules import can_tell_old_rows, condition_of
from include.scorecard_backfill.graph import takes_part
from include.scorecard_backfill.records import (
    Deleted,
    Failure,
    GoEvent,
    MutationsGone,
    ResendEvent,
    attempted,
    settled,
)
from include.scorecard_backfill.verdicts import mutations as rules
from include.scorecard_backfill.verdicts.base import Verdict, failed, ok
from include.scorecard_backfill.verdicts.causes import cause_of


class Watch:
    """What one wait has seen of its tables' mutations, look after look; it judges by what changed and what did not."""

    def __init__(self, limits: ClickHouseConfig) -> None:
        self._limits = limits
        self._failing: dict[rules.TableName, float] = {}
        self._progress: dict[rules.TableName, tuple[Any, float]] = {}
        self._seen: dict[rules.TableName, set[str]] = {}

    def views(self, sent: rules.Sent, found: Iterable[rules.Mutation], hosts: Sequence[str]) -> list[rules.HostView]:
        """Return the state on each host. A host on which it was seen once has it: finished ones are soon unlisted."""
        mine = [m for m in found if (m.database, m.table) == sent.table]
        seen = self._seen.setdefault(sent.table, set())
        seen.update(m.host for m in mine)
        return rules.host_views(replace(sent, accepted=sent.accepted | seen), mine, hosts)

    def judge(self, sent: rules.Sent, views: Sequence[rules.HostView]) -> Verdict:
        """Decide one table by the state of its hosts and by how long it has been like that."""
        now, name, limits = time.monotonic(), sent.table, self._limits
        progress = [(v.host, v.state, v.parts_to_do) for v in views]
        if self._progress.get(name, (None, 0.0))[0] != progress:
            self._progress[name] = (progress, now)
        if any(v.state == "failing" for v in views):
            self._failing.setdefault(name, now)
        else:
            self._failing.pop(name, None)
        return rules.judge_table(
            sent,
            views,
            now=datetime.now(UTC).timestamp(),
            failing_for=now - self._failing.get(name, now),
            unchanged_for=now - self._progress[name][1],
            patience=rules.Patience(
                not_picked_up=limits.not_picked_up_seconds,
                failing=limits.fail_reason_polls * limits.mutation_poll_seconds,
                stalled=limits.mutation_stall_seconds,
            ),
        )


Args = TypeVar("Args", bound=WaitArgs)


class SharedMutationsTrigger(WaitTrigger[Args]):
    """A wait that looks at system.mutations: one query for all waits of the cluster in this process."""

    @property
    def poll_seconds(self) -> float:
        """Interval of looking at system.mutations."""
        return self.config.clickhouse.mutation_poll_seconds

    async def mutations(self) -> list[rules.Mutation]:
        """Return the shared snapshot."""

        async def load() -> list[rules.Mutation]:
            hook = await self.clickhouse()
            return await asyncio.to_thread(hook.mutations)

        return await shared_poll().get(("mutations", self.args.cluster), load, max_age=self.pause_seconds / 2)


class MutationsArgs(WaitArgs):
    """``deleted`` is set after this task has sent the DELETE again itself: what it waits for then."""

    deleted: Deleted | None = None


class MutationsTrigger(SharedMutationsTrigger[MutationsArgs]):
    """Ends the task once the rows are gone, or asks a worker to send the DELETE again after a person's clear."""

    path = "backfill.triggers.mutations.MutationsTrigger"
    stage = "wait_mutations"
    model = MutationsArgs
    fails_on_worker = True

    async def prepare(self) -> None:
        """Choose the newest delete: the stage's, or one that an earlier try of this task has sent again."""
        previous = await xcoms.arecord(self.ti, self.ti.task_id)
        cut_by = group_named(self.args.group).cut_by
        cut = await xcoms.apull(self.ti, cut_by, xcoms.CUT) if cut_by else None
        self._settled = settled(self.window.key, await self.result_of("verify"), cut)
        task = self.ti.task_id.rsplit(".", 1)[-1]
        self._idle = not takes_part(task, self.window.order, self.config.orders)
        if self._settled or self._idle:
            return
        what = "the delete stage left no result: clear it (delete) and this task with it"
        deleted = self.args.deleted or xcoms.expect(Deleted, await self.result_of("delete"), what)
        before = previous if isinstance(previous, Failure) and previous.key == deleted.key else None
        if before and before.deleted and before.deleted.generation > deleted.generation:
            deleted = before.deleted
        self._resending = deleted is not self.args.deleted and before is not None and deleted is before.deleted
        self._deleted = deleted
        self._done_before = previous if isinstance(previous, MutationsGone) and previous.key == deleted.key else None
        same = before is not None and before.generation == deleted.generation
        self._left: life.Left = cause_of(before.cause).repeat if before and same else ""
        self._sent = [_sent(item) for item in deleted.sent]
        self._written = self.window.order == "delete_first" and await self._was_written()
        self._overlap = (await xcoms.achosen(self.ti)).overlap and await self._may_overlap()
        self._watch = Watch(self.config.clickhouse)
        self._rows_left_since = 0.0

    async def _may_overlap(self) -> bool:
        """Return True when verify can prove what overlap postpones: that no row from before the DELETE is left.

        A mutation may end well and leave rows, which then count as having come back.
        """
        told = can_tell_old_rows(self.config.clickhouse, self.window)
        if not told:
            why = "not every table has written_columns, which tell old rows from new ones"
            await say(self.log.info, "overlap is not used: %s", why)
        return told

    async def _was_written(self) -> bool:
        """Return True when rows may be there that were written since the DELETE, by this run or by another.

        What another run has done matters only after a clear: while a run is going it is its cluster's only one.
        """
        if attempted(await self.result_of("reindex")):
            return True
        repeats = bool(self._sent) and self._left in ("delete", "never")
        if not repeats and (self._sent or not self._resending):
            return False
        return not await DebtBook(self.args.cluster).aowes(self.window.key)

    def left(self) -> dict[str, Any]:
        """Name the generation that had no effect, so that a clear sends the next one."""
        return {"generation": self._deleted.generation, "deleted": self._deleted}

    async def look(self) -> Look:
        """Decide on the shared snapshot, then by a count of this window."""
        key = self.window.key
        if self._settled:
            return Done(MutationsGone(key=key, status=self._settled), f"this window is {self._settled} already")
        if not self._idle and self._resending and not self._sent:
            return self._unfinished_resend()
        if self._idle or not self._sent:
            return Done(MutationsGone(key=key, status="nothing"), "nothing was deleted, nothing to wait for")
        if self._done_before and self._done_before.generation > self._deleted.generation:
            return Done(self._done_before, "done before, by a DELETE that this task has sent again")
        names = [h.name for h in await self.hosts()]
        listed = await self.mutations()
        found = rules.own(listed, key, self._deleted.generation)
        verdicts = [self._judge(await self._with_queue(sent, names), found, names) for sent in self._sent]
        seen, verdict = self._seen(verdicts, found)
        if seen == "unknown":
            return Failed(self.failure(verdict))
        rows: life.Rows = "unknown"
        if seen == "done" and not self._overlap:
            counted = await self._count(names)
            if isinstance(counted, Wait):
                return counted
            rows, verdict = counted
        if seen == "unfinished" and not self._have_it(verdicts):
            others = [rules.described(m) for sent in self._sent for m in rules.altering(listed, sent.table)]
            # Also those of a table whose mutation was killed on one host, while another one still works on it.
            return wait(*(r for v in verdicts if v.state != "ok" for r in v.reasons), *others)
        return self._act(self._facts(seen, rows), verdict, names)

    def _unfinished_resend(self) -> Look:
        """An earlier try failed while it sent the DELETE again: go on there, or with the next generation.

        Neither where it would take rows that were written since: what is not sent yet is a repetition, too.
        """
        facts = self._facts("dead", "unknown")
        if self._left == "delete" or (facts.written and not facts.bounded):
            why = failed("killed", "an earlier try ended before it had sent the whole DELETE again")
            return self._act(replace(facts, left="delete"), why, ())
        return Wake(GoEvent(key=self.window.key, why="the DELETE is not sent whole"), "the DELETE is not sent whole")

    def _facts(self, seen: life.Seen, rows: life.Rows) -> life.Facts:
        return life.Facts(
            order=self.window.order,
            sent="taken",
            seen=seen,
            overlap=self._overlap,
            rows=rows,
            written=self._written,
            bounded=self._deleted.bound is not None or can_tell_old_rows(self.config.clickhouse, self.window),
            left=self._left,
            generation=self._deleted.generation,
        )

    def _act(self, facts: life.Facts, verdict: Verdict, hosts: Sequence[str]) -> Look:
        step = life.next_step("wait_mutations", facts)
        if step.action == "done":
            gone = MutationsGone(
                key=self.window.key,
                status="overlap" if facts.overlap else "gone",
                generation=self._deleted.generation,
                hosts=tuple(hosts),
            )
            return Done(gone, step.why)
        if step.action == "resend":
            return Wake(ResendEvent(deleted=self._deleted, generation=step.number), step.why)
        if step.action == "fail":
            reasons = verdict.reasons if verdict.state == "failed" else ()
            return Failed(self.failure(failed(step.cause, *(reasons or (step.why,)))))
        return wait(step.why)

    def _seen(self, verdicts: Sequence[Verdict], found: Sequence[rules.Mutation]) -> tuple[life.Seen, Verdict]:
        """Return what the hosts show of the DELETE; ``unknown`` for a failure that no row of the table knows."""
        bad = next((v for v in verdicts if v.state == "failed"), None)
        over = all(m.is_done or m.is_killed for m in found)
        if bad is None:
            return ("unfinished" if any(v.state == "wait" for v in verdicts) else "done"), ok("done")
        if bad.cause == "killed":
            return ("dead" if over else "unfinished"), bad
        if bad.cause == "not_picked_up":
            return ("nothing" if over else "unfinished"), bad
        return "unknown", bad

    def _have_it(self, verdicts: Sequence[Verdict]) -> bool:
        """True when, in overlap, no host lacks the mutation any more."""
        return self._overlap and not any("not on" in reason for v in verdicts for reason in v.reasons)

    def _judge(self, sent: rules.Sent, found: Sequence[rules.Mutation], hosts: Sequence[str]) -> Verdict:
        return self._watch.judge(sent, self._watch.views(sent, found, hosts))

    async def _with_queue(self, sent: rules.Sent, hosts: Sequence[str]) -> rules.Sent:
        """Return what is known now of a DROP PARTITION, which leaves no mutation.

        Hosts that had not answered have had their turn once no entry of the DDL queue is unfinished; the count decides.
        """
        if not sent.partitions or sent.accepted >= set(hosts):
            return sent
        hook = await self.clickhouse()
        for partition in sent.partitions:
            if await asyncio.to_thread(hook.queued_ddl, *sql.drop_partition_needles(*sent.table, partition)):
                return sent
        return replace(sent, accepted=frozenset(hosts))

    async def _count(self, hosts: Sequence[str]) -> tuple[life.Rows, Verdict] | Wait:
        """Count what the DELETE should have taken; rows that stay are a failure only after a while.

        A replica may apply the end of the mutation a moment after it says so.
        """
        hook = await self.clickhouse()
        wanted = {sent.table for sent in self._sent}
        parts = [
            (table, part, condition_of(self.config.clickhouse, table, self._deleted.bound))
            for table, part in self.window.slices()
            if (part.database, table) in wanted
        ]
        counted = await asyncio.to_thread(hook.host_counts, parts, await self.hosts())
        counts = {
            (part.database, table): {host: sum(days.values()) for host, days in per_host.items()}
            for (table, part, _), per_host in zip(parts, counted, strict=True)
        }
        verdict = rules.judge_rows(counts, hosts)
        if verdict.state == "ok":
            return "gone", verdict
        if verdict.state == "failed":
            self._rows_left_since = self._rows_left_since or time.monotonic()
            if time.monotonic() - self._rows_left_since >= self.config.clickhouse.not_picked_up_seconds:
                return "left", verdict
        return wait(*verdict.reasons)


def _sent(item: Any) -> rules.Sent:
    return rules.Sent(item.name, item.at, frozenset(item.accepted), item.partitions)
