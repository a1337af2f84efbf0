"""Sends the delete steps of a window one after the other; a large delete goes day by day, waiting deferred."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow.sdk import BaseOperator

from backfill.deleting.deleter import Deleter, DropRefusedError, own_unfinished
from backfill.deleting.turn import Turn
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit.stages import StageError, fail, limit
from backfill.kit.store import GENERATION, WindowStore
from backfill.settings import cluster_config
from backfill.triggers.chunk import ChunkTrigger
from include.scorecard_backfill import life, sql
from include.scorecard_backfill.config.rules import condition_of
from include.scorecard_backfill.planning.deletes import Step, delete_steps, droppable
from include.scorecard_backfill.planning.partitions import covered_partitions
from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.records import Deleted, Failure, Sent, Stage, TableDays, TableName, Window
from include.scorecard_backfill.sql import health as sql_health
from include.scorecard_backfill.verdicts.causes import what_to_do
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.mutations import Mutation, altering, described


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be deleted of a window.

    ``rows`` are the numbers of the rows that go, per table and day. ``bound`` (epoch seconds): only rows written before
    it go; None: all of the window. ``facts`` are what the stage knows besides the step itself. ``resent`` is the record
    of the DELETE that is sent again; a failure keeps it, so that the next clear goes on with its newest generation.
    """

    window: Window
    rows: Sequence[TableDays]
    generation: int
    bound: float | None
    drop: bool
    facts: life.Facts
    resent: Deleted | None = None

    def again(self, generation: int) -> Order:
        """Return the order of the next generation; it drops no partition, and no failure is about it yet."""
        return replace(self, generation=generation, drop=False, facts=replace(self.facts, left=""))


class _NextGenerationError(Exception):
    def __init__(self, generation: int, text: str) -> None:
        super().__init__(text)
        self.generation = generation


class DeleteSender:
    """Sends a window's DELETE for the operator that holds it; `delete` and `wait_mutations` both do.

    It defers the operator while a step must wait for the one before, and the operator must come here again with the
    same order when it is resumed.
    """

    def __init__(self, operator: BaseOperator, cluster: str, stage: Stage) -> None:
        self.operator = operator
        self.config = cluster_config(cluster)
        self.stage = stage
        self.log = operator.log

    def send(self, context: Mapping[str, Any], order: Order) -> tuple[Sent, ...]:
        """Return one record per table, once every step was sent or found.

        Raises:
            TaskDeferred: a step must wait.
            StageError: what a repetition by Airflow may mend.
            Refusal: what only a person's clear repeats; the failure is kept.
        """
        key, turn = order.window.key, Turn(context, order.window)
        # Before the first look: what an earlier try, left over from a dead scheduler, has not sent by now it may not.
        turn.check()
        hook = BackfillClickHouse(self.config)
        store = WindowStore(context, order.window)
        deleter = Deleter(hook, hook.topology(), store, self.log, key, order.generation, turn.check)
        while True:
            try:
                return self._all(context, deleter, order, turn)
            except DropRefusedError as error:
                self.log.warning("%s; what is left of it is deleted by rows", error)
            except _NextGenerationError as error:
                self.log.info("%s; generation %d", error, error.generation)
                store.set(GENERATION, error.generation)
                order = order.again(error.generation)
                deleter = deleter.again(order.generation)

    def _all(self, context: Mapping[str, Any], deleter: Deleter, order: Order, turn: Turn) -> tuple[Sent, ...]:
        records: dict[TableName, Sent] = {}
        for step in self._steps(deleter, order):
            ahead = turn.ahead()
            mutations = deleter.hook.mutations()
            record = self._one(context, deleter, order, step, mutations, ahead)
            if step.chunk and not deleter.is_done(step, deleter.hook.mutations()):
                self.log.info("%s is sent; the next step waits until it is done on every host", step.label)
                self._defer(order, step, chunk=step.chunk, sent=record)
            records[step.name] = _joined(records.get(step.name), record)
        return tuple(records.values())

    def _one(
        self,
        context: Mapping[str, Any],
        deleter: Deleter,
        order: Order,
        step: Step,
        mutations: Sequence[Mutation],
        ahead: int,
    ) -> Sent:
        sent = deleter.sent_state(step)
        seen = deleter.seen(step, mutations)
        if seen == "done" and order.facts.left == "delete" and not deleter.is_done(step, mutations):
            # Done where it was taken, and a person has cleared a wait for the hosts that never took it.
            seen = "dead"
        if (sent, seen) == ("none", "nothing") and deleter.done_earlier(step, mutations):
            seen = "done"
        facts = replace(order.facts, sent=sent, seen=seen, rows_before=True, generation=order.generation)
        decided = life.next_step("delete", facts)
        if decided.action == "done":
            self.log.info("%s: %s", step.label, decided.why)
            return deleter.record(step, mutations, seen)
        if decided.action == "resend":
            raise _NextGenerationError(decided.number, f"{step.label}: {decided.why}")
        if decided.action == "send":
            deleter.refuse_crowded(step, mutations)
            self._wait_for_room(deleter, mutations, order, step, ahead)
            return deleter.send(step)
        if decided.action == "fail":
            fail(context, self._failure(order, decided.cause, f"{step.label}: {decided.why}"))
        raise StageError(f"{step.label}: {decided.why}; the next try looks again")

    def _failure(self, order: Order, cause: str, reason: str) -> Failure:
        return Failure(
            key=order.window.key,
            stage=self.stage,
            cause=cause,
            reason=reason,
            what_to_do=what_to_do(cause),
            generation=order.generation,
            deleted=order.resent.model_copy(update={"generation": order.generation}) if order.resent else None,
        )

    def _wait_for_room(
        self, deleter: Deleter, mutations: Sequence[Mutation], order: Order, step: Step, ahead: int
    ) -> None:
        most = deleter.hook.config.delete.max_own_unfinished_mutations
        reasons = [described(other) for other in altering(mutations, step.name)]
        if (count := own_unfinished(mutations)) + ahead >= most:
            before = f", and {ahead} windows before this one are sending" if ahead else ""
            reasons.append(f"{count} of our mutations are unfinished{before} (limit {most})")
        if reasons:
            self.log.info("%s waits: %s", step.label, "; ".join(reasons))
            self._defer(order, step, chunk=0, sent=None)

    def _defer(self, order: Order, step: Step, *, chunk: int, sent: Sent | None) -> None:
        self.operator.defer(
            trigger=ChunkTrigger(
                cluster=self.config.name,
                key=order.window.key,
                not_before=time.time() + self.config.waits.first_poll_after_seconds,
                table=list(step.name),
                generation=order.generation,
                chunk=chunk,
                accepted=list(sent.accepted) if sent else [],
                at=sent.at if sent else 0.0,
            ),
            method_name="resume",
            timeout=limit(self.config.clickhouse.mutation_deadline_seconds),
        )

    def _steps(self, deleter: Deleter, order: Order) -> list[Step]:
        days = {table.name: {day: n.rows for day, n in table.days.items()} for table in order.rows}
        pairs = list(order.window.slices())
        dropped: dict[TableName, Step] = {}
        if order.drop and deleter.hook.config.delete.drop_partition:
            for table, part in pairs:
                if not days.get((part.database, table)) or deleter.drop_was_refused(table, part):
                    continue
                if step := self._dropped(deleter, order, table, part):
                    dropped[step.name] = step
        rest = [(table, part) for table, part in pairs if (part.database, table) not in dropped]
        steps = delete_steps(rest, days, deleter.hook.config.delete.max_rows_per_mutation)
        return [
            *dropped.values(),
            *(replace(s, condition=condition_of(self.config.clickhouse, s.table, order.bound)) for s in steps),
        ]

    def _dropped(self, deleter: Deleter, order: Order, table: str, part: sql.Slice) -> Step | None:
        """Return the step of dropped partitions: the one that is there, else a new one, which no bound may limit."""
        before = deleter.dropped(table, part)
        if order.bound is None:
            return before or self._drop_step(deleter.hook, deleter.hosts, table, part)
        # A clear after the reindex began: what was taken is not deleted a second time, by rows.
        return before if before is not None and deleter.sent_state(before) == "taken" else None

    def _drop_step(self, hook: BackfillClickHouse, hosts: Sequence[Host], table: str, part: sql.Slice) -> Step | None:
        """Return the step that drops whole partitions, None when the window does not consist of droppable ones."""
        keys = hook.partition_keys(part.database, table)
        wanted = (
            covered_partitions(keys[0], hook.names.time, DateRange(part.start, part.end)) if len(keys) == 1 else None
        )
        if not wanted:
            return None
        cluster = hook.config.cluster
        held = hook.held_partitions(table, part, wanted, hosts)
        sizes = hook.rows(sql_health.partition_sizes_statement(cluster=cluster, database=part.database, table=table))
        reason = droppable(held, sizes, wanted, [h.name for h in hosts], hook.config.delete.max_partition_bytes)
        if reason:
            self.log.info("%s.%s is deleted by mutation: %s", part.database, table, reason)
            return None
        there = {partition for found in held.values() for partition, _, _ in found}
        here = tuple(partition for partition in wanted if partition in there)
        return Step(table, part, kind="drop", partitions=here) if here else None


def _joined(first: Sent | None, last: Sent) -> Sent:
    """Return one record of a table's steps: the earliest time, the hosts that have taken the last step."""
    return last if first is None else last.model_copy(update={"at": min(first.at, last.at)})
