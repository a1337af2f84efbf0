"""Waits until a window's own mutations are done on every host and its rows are gone from every replica."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from backfill.hooks.clickhouse import sum_days
from backfill.kit.poll import shared_poll
from backfill.records import parse_record, settled
from backfill.triggers.base import Json, Look, WaitTrigger
from include.scorecard_backfill import sql
from include.scorecard_backfill.config.clickhouse import ClickHouseConfig
from include.scorecard_backfill.verdicts import mutations as rules
from include.scorecard_backfill.verdicts.base import Verdict, failed, ok, wait

RESENDABLE = frozenset({"killed", "not_picked_up", "rows_left"})
"""Failures after which a person's clear makes the DELETE be sent again, once no own mutation is unfinished."""


def slices(window: Json) -> list[tuple[str, sql.Slice]]:
    """Return every (local table, slice) of a window record."""
    return [
        (table, sql.Slice(db["name"], window["customer_id"], db["profile_id"],
                          date.fromisoformat(window["start"]), date.fromisoformat(window["end"])))
        for db in window["databases"]
        for table in db["tables"]
    ]  # fmt: skip


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


class SharedMutationsTrigger(WaitTrigger):
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

        return await shared_poll().get(("mutations", self.cluster), load, max_age=self.poll_seconds / 2)


class MutationsTrigger(SharedMutationsTrigger):
    """``deleted`` is the result of the delete stage, ``previous`` what a failed try of this task left behind."""

    path = "backfill.triggers.mutations.MutationsTrigger"
    fields = ("deleted", "previous", "verified", "cut", "overlap")
    fails_on_worker = True

    deleted: Any
    previous: Any
    verified: Any
    cut: Any
    overlap: Any

    def prepare(self) -> None:
        """Choose the newest delete: the stage's, or the one that an earlier try of this task sent again."""
        deleted, previous = parse_record(self.deleted), parse_record(self.previous)
        self._failed_before = previous if previous.get("status") == "failed" else {}
        newer = self._failed_before.get("deleted") or {}
        same_window = newer.get("key") == deleted.get("key")
        self._deleted = newer if same_window and newer.get("generation", 0) > deleted.get("generation", 0) else deleted
        if not self._deleted.get("window"):
            raise ValueError("the delete stage left no result: clear it (windows.delete) and this task with it")
        self.key = self._deleted["key"]
        self._settled = settled(self.key, self.verified, self.cut)
        self._sent = [_sent(item) for item in self._deleted.get("sent", [])]
        self._overlap = str(self.overlap) == "True"
        self._watch = Watch(self.config.clickhouse)
        self._rows_left_since = 0.0

    async def look(self) -> Look:
        """Decide on the shared snapshot, then by a count of this window."""
        if self._settled:
            return Look(ok(f"this window is {self._settled} already"), {"key": self.key, "status": self._settled})
        if not self._sent:
            return Look(ok("nothing was deleted, nothing to wait for"), {"key": self.key, "status": "nothing"})
        hosts = await self.hosts()
        listed = await self.mutations()
        found = rules.own(listed, self.key, self._deleted["generation"])
        if self._must_resend(found):
            return Look(wait("sending the DELETE again"), resume={"action": "resend", "deleted": self._deleted})
        names = [h.name for h in hosts]
        verdicts = [self._judge(await self._with_queue(sent, names), found, names) for sent in self._sent]
        bad = next((v for v in verdicts if v.state == "failed"), None)
        if bad:
            return Look(bad, {"deleted": self._deleted})
        waiting = [v for v in verdicts if v.state == "wait"]
        if waiting:
            others = [rules.described(m) for sent in self._sent for m in rules.altering(listed, sent.table)]
            return Look(wait(*(r for v in waiting for r in v.reasons), *others))
        return await self._count(names)

    async def _with_queue(self, sent: rules.Sent, hosts: list[str]) -> rules.Sent:
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

    def _must_resend(self, found: list[rules.Mutation]) -> bool:
        if self._failed_before.get("cause") not in RESENDABLE:
            return False
        if self._failed_before.get("deleted", {}).get("generation") != self._deleted["generation"]:
            return False
        return all(m.is_done or m.is_killed for m in found)

    def _judge(self, sent: rules.Sent, found: list[rules.Mutation], hosts: list[str]) -> Verdict:
        views = self._watch.views(sent, found, hosts)
        verdict = self._watch.judge(sent, views)
        name = ".".join(sent.table)
        if (
            self._overlap
            and verdict.state == "wait"
            and all(v.state in ("running", "done", "forgotten") for v in views)
        ):
            return ok(f"{name}: every host has the mutation (overlap)")
        return verdict

    async def _count(self, hosts: list[str]) -> Look:
        if self._overlap:
            return Look(ok("every host has the mutations (overlap)"), {"key": self.key, "status": "overlap"})
        hook = await self.clickhouse()
        wanted = {sent.table for sent in self._sent}
        pairs = [(t, part) for t, part in slices(self._deleted["window"]) if (part.database, t) in wanted]
        counts = sum_days(await asyncio.to_thread(hook.day_counts, pairs, await self.hosts()))
        verdict = rules.judge_rows(counts, hosts)
        if verdict.state == "ok":
            return Look(verdict, {"key": self.key, "status": "gone", "generation": self._deleted["generation"]})
        if verdict.state == "failed":
            # A replica may apply the end of the mutation a moment after it says so; rows that stay are a failure.
            self._rows_left_since = self._rows_left_since or time.monotonic()
            if time.monotonic() - self._rows_left_since < self.config.clickhouse.not_picked_up_seconds:
                return Look(wait(*verdict.reasons))
            return Look(failed(verdict.cause, *verdict.reasons), {"deleted": self._deleted})
        return Look(verdict)


def _sent(item: Json) -> rules.Sent:
    return rules.Sent(
        table=(item["database"], item["table"]),
        at=float(item["at"]),
        accepted=frozenset(item["accepted"]),
        partitions=tuple(item.get("partitions") or ()),
    )
