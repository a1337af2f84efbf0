"""One delete step so that it takes effect once: what the store and the hosts say of it, and sending it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from tenacity import wait_exponential, wait_fixed

from backfill.hooks.clickhouse import BackfillClickHouse, DdlAnswer
from backfill.kit.retries import until_good
from backfill.kit.stages import StageError
from backfill.kit.store import Store
from include.scorecard_backfill import sql
from include.scorecard_backfill.life import Seen, SentState
from include.scorecard_backfill.planning.deletes import Step
from include.scorecard_backfill.records import KeptStep, Sent
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.mutations import Mutation

LOOK_TRIES = 10
LOOK_SECONDS = 1.0
"""After a DELETE whose outcome is unknown the hosts are looked at for ten seconds; then the retry of the task looks."""

REFUSED_TRIES = 6
REFUSED_SECONDS = 5.0
"""Backoff base for a refused DELETE (codes 517, 692): 5, 10, 20, ... seconds within one try."""


class DropRefusedError(Exception):
    """A host has refused to drop a partition (too large, for example); others may have dropped theirs."""


class Deleter:
    """The steps of one window and generation: what is known of each, and sending it.

    ``check_turn`` raises when this try may not send any more; it is asked right before each statement.
    """

    def __init__(
        self,
        hook: BackfillClickHouse,
        hosts: Sequence[Host],
        store: Store,
        log: Any,
        key: str,
        generation: int,
        check_turn: Callable[[], None],
    ) -> None:
        self.hook = hook
        self.hosts = hosts
        self.store = store
        self.log = log
        self.key = key
        self.generation = generation
        self.check_turn = check_turn

    def again(self, generation: int) -> Deleter:
        """Return the same for another generation."""
        return Deleter(self.hook, self.hosts, self.store, self.log, self.key, generation, self.check_turn)

    def sent_state(self, step: Step) -> SentState:
        """Return what this task itself knows of a step: written before the statement leaves, and after its answer."""
        states: dict[str, SentState] = {"sent": "taken", "sending": "maybe"}
        kept = self._kept(step)
        found = states.get(kept.state, "none")
        if found == "maybe" and not kept.answered and self._never_left(step):
            self.log.info(
                "%s: its worker ended before it was sent; no host and no DDL queue has ever had it", step.label
            )
            return "none"
        return found

    def _never_left(self, step: Step) -> bool:
        """Return True when a statement without an answer is not being executed and never was in the DDL queue.

        After an answer, whatever it was, this would be no proof: the cleaner may have taken the entry away.
        """
        needles = self._needles(step)
        # Without a text to look for nothing is looked at, and unknown is never "no".
        return bool(needles) and not any(self.hook.running_ddl(*t) or self.hook.was_queued(*t) for t in needles)

    def seen(self, step: Step, mutations: Sequence[Mutation]) -> Seen:
        """Return what the hosts show of a step, in the order in which a statement moves, so that it is not passed by.

        The node that it was sent to, the DDL queue, the mutations; at last a count: a DELETE that leaves no trace has
        taken effect when no row is left. ``nothing`` proves that no host has it or will get it.
        """
        mine = self._own(step, mutations)
        if mine:
            return _worst(mine)
        if self.sent_state(step) != "maybe":
            return "nothing"
        needles = self._needles(step)
        for texts in needles:
            if running := self.hook.running_ddl(*texts):
                self.log.info("%s: %s still executes it", step.label, ", ".join(running))
                return "queued"
            if queued := self.hook.queued_ddl(*texts):
                self.log.info("%s: waits in the DDL queue of %s", step.label, ", ".join(queued))
                return "queued"
        if mine := until_good(
            lambda: self._own(step, self.hook.mutations()), good=bool, tries=LOOK_TRIES, pause=wait_fixed(LOOK_SECONDS)
        ):
            return _worst(mine)
        (counted,) = self.hook.host_counts([(step.table, step.part, step.condition)], self.hosts)
        return "nothing" if any(sum(days.values()) for days in counted.values()) else "done"

    def record(self, step: Step, mutations: Sequence[Mutation], seen: Seen) -> Sent:
        """Return the record of a step that is there, and keep it. One that is only queued was taken by no host yet."""
        kept = self._kept(step)
        mine = self._own(step, mutations)
        at = kept.at or min((m.created for m in mine), default=time.time())
        accepted = {*kept.accepted, *(m.host for m in mine)}
        if not accepted and seen == "done":
            # It was found done by a count of every host: finished mutations are not listed for ever.
            accepted = {h.name for h in self.hosts}
        return self._keep(step, float(at), accepted)

    def done_earlier(self, step: Step, mutations: Sequence[Mutation]) -> bool:
        """Return True when an earlier generation has done a step; what is known of that is kept as this one's, too.

        A generation is sent again for the table that it has missed. Of another one, which every host has done and of
        which no host has a row left, there is nothing to send.
        """
        for generation in range(self.generation - 1, 0, -1):
            earlier = self.again(generation)
            if earlier.sent_state(step) != "taken" or not earlier.is_done(step, mutations):
                continue
            (counted,) = self.hook.host_counts([(step.table, step.part, step.condition)], self.hosts)
            if any(sum(days.values()) for days in counted.values()):
                return False
            record = earlier.record(step, mutations, "done")
            self._keep(step, record.at, set(record.accepted))
            return True
        return False

    def send(self, step: Step) -> Sent:
        """Send the statements of a step, once, and return its record.

        Raises:
            StageError: it was refused, or its outcome is not known: the next try looks before anything else.
        """
        if self.generation > 1:
            self._refuse_overtaking(step)
        at = time.time()
        # Written before the statement leaves: a worker that dies in between must look, not send again.
        self._note(step, KeptStep(state="sending", at=at, partitions=step.partitions))
        accepted: set[str] | None = None
        for statement in self._statements(step):
            hosts = self._send_one(step, statement)
            accepted = hosts if accepted is None else accepted & hosts
        return self._keep(step, at, accepted or set())

    def is_done(self, step: Step, mutations: Sequence[Mutation]) -> bool:
        """Return True when no host still works on the step and every host has taken it."""
        mine = self._own(step, mutations)
        taken = set(self._kept(step).accepted)
        return all(m.is_done for m in mine) and taken | {m.host for m in mine} >= {h.name for h in self.hosts}

    def dropped(self, table: str, part: sql.Slice) -> Step | None:
        """Return the step by which partitions of a table were (or may have been) dropped, None when none was.

        Asked again later, the partitions may hold other rows; that must not turn the step into a DELETE by days.
        """
        # The partitions belong to the step: by them its statements are looked for.
        partitions = tuple(self._kept(Step(table, part, kind="drop")).partitions)
        step = Step(table, part, kind="drop", partitions=partitions)
        return step if partitions and self.sent_state(step) != "none" else None

    def drop_was_refused(self, table: str, part: sql.Slice) -> bool:
        """Return True when a host has refused to drop a partition of this table: what is left is deleted by rows."""
        return self._kept(Step(table, part, kind="drop")).state == "refused"

    def refuse_crowded(self, step: Step, mutations: Sequence[Mutation]) -> None:
        """Raise StageError when others have too many unfinished mutations on the step's table; name them otherwise."""
        limit = self.hook.config.max_unfinished_foreign_mutations
        others = [m for m in mutations if (m.database, m.table) == step.name and not m.is_done and not m.marker]
        if len(others) > limit:
            raise StageError(
                f"{'.'.join(step.name)} has {len(others)} unfinished mutations of others (limit {limit}), first:"
                f" {others[0].mutation_id} on {others[0].host}: {others[0].command[:200]}"
            )
        for other in others:
            self.log.info("foreign mutation on %s, host %s: %s", ".".join(step.name), other.host, other.command[:200])

    def _kept(self, step: Step) -> KeptStep:
        return KeptStep.from_json(self.store.get(self._store_key(step)))

    def _note(self, step: Step, kept: KeptStep) -> None:
        self.store.set(self._store_key(step), kept.to_json())

    def _store_key(self, step: Step) -> str:
        return f"sent:{'.'.join(step.name)}:{self.generation}.{step.chunk}{'.drop' if step.kind == 'drop' else ''}"

    def _own(self, step: Step, mutations: Sequence[Mutation]) -> list[Mutation]:
        if step.kind == "drop":
            return []
        mark = (self.key, self.generation, step.chunk)
        return [m for m in mutations if m.marker == mark and (m.database, m.table) == step.name]

    def _needles(self, step: Step) -> list[tuple[str, ...]]:
        """Return, for each statement, texts that together only its entry of the DDL queue holds."""
        if step.kind == "drop":
            return [sql.drop_partition_needles(*step.name, partition) for partition in step.partitions]
        return [sql.delete_needles(*step.name, self.key, self.generation, step.chunk)]

    def _refuse_overtaking(self, step: Step) -> None:
        """Raise StageError while an earlier generation may still come: it would delete what is reindexed by then.

        One in the DDL queue is no danger, since each host executes the queue in its order.
        """
        earlier = [(mark,) for g in range(1, self.generation) for mark in sql.generation_marks(self.key, g)]
        for needles in (*earlier, sql.any_drop_needles(*step.name)):
            if running := self.hook.running_ddl(*needles):
                raise StageError(
                    f"{step.label}: {', '.join(running)} still executes an earlier DELETE of this window (see"
                    " system.processes there); the retry looks again"
                )

    def _statements(self, step: Step) -> list[str]:
        cluster = self.hook.config.cluster
        if step.kind == "drop":
            return [
                sql.drop_partition_statement(
                    cluster=cluster, database=step.part.database, table=step.table, partition_id=partition
                )
                for partition in step.partitions
            ]
        return [
            sql.delete_statement(
                cluster=cluster,
                table=step.table,
                part=step.part,
                names=self.hook.names,
                key=self.key,
                generation=self.generation,
                chunk=step.chunk,
                condition=step.condition,
            )
        ]

    def _send_one(self, step: Step, statement: str) -> set[str]:
        self.log.info("sending: %s", statement)
        answer = self._patiently(statement)
        if answer.outcome == "refused":
            self._note(step, KeptStep())
            raise StageError(f"{step.label}: ClickHouse refuses it, nothing was queued: {answer.text}")
        if answer.errors:
            self.log.warning("%s: errors of the DDL: %s", step.label, dict(answer.errors))
        if answer.errors and step.kind == "drop":
            self._note(step, KeptStep(state="refused"))
            raise DropRefusedError(f"{step.label}: {next(iter(answer.errors.values()))[:300]}")
        if answer.outcome == "done":
            return set(answer.hosts)
        self.log.warning("%s: outcome unknown (%s), looking at the hosts", step.label, answer.text[:500])
        self._note(step, self._kept(step).model_copy(update={"answered": True}))
        if self.seen(step, self.hook.mutations()) == "nothing":
            raise StageError(
                f"{step.label}: it was sent, but no host has it: {answer.text[:500]}. The next try looks again; only a"
                " person's clear sends it again"
            )
        return {m.host for m in self._own(step, self.hook.mutations())} | set(answer.hosts)

    def _patiently(self, statement: str) -> DdlAnswer:
        def send() -> DdlAnswer:
            self.check_turn()
            return self.hook.send_ddl(statement, self.hosts)

        return until_good(
            send,
            good=lambda answer: answer.outcome != "refused",
            tries=REFUSED_TRIES,
            pause=wait_exponential(multiplier=REFUSED_SECONDS),
            say=lambda answer, pause: self.log.info("refused, trying again in %.0f s: %s", pause, answer.text[:300]),
        )

    def _keep(self, step: Step, at: float, accepted: set[str]) -> Sent:
        record = Sent(
            database=step.part.database,
            table=step.table,
            at=at,
            accepted=tuple(sorted(accepted)),
            partitions=step.partitions,
        )
        self._note(step, KeptStep(state="sent", at=at, accepted=record.accepted, partitions=step.partitions))
        return record


def _worst(mine: Sequence[Mutation]) -> Seen:
    """Return what several hosts' views of one statement come to."""
    if any(not m.is_done and not m.is_killed for m in mine):
        return "unfinished"
    return "dead" if any(m.is_killed for m in mine) else "done"


def own_unfinished(mutations: Sequence[Mutation]) -> int:
    """Return how many of our statements are unfinished somewhere in the cluster (hosts counted once)."""
    return len({(m.database, m.table, m.marker) for m in mutations if m.marker and not m.is_done and not m.is_killed})
