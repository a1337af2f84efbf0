"""Sends one delete step so that it takes effect once: found before it is sent, looked for after an unknown outcome."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from backfill.hooks.clickhouse import BackfillClickHouse, DdlAnswer, sum_days
from backfill.operators.common import StageError, Store
from include.scorecard_backfill import sql
from include.scorecard_backfill.planning.deletes import Step
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.mutations import Mutation, own

Json = dict[str, Any]

LOOK_TRIES = 10
LOOK_SECONDS = 1.0
"""After a DELETE whose outcome is unknown the hosts are looked at for ten seconds; then the retry of the task looks."""

REFUSED_TRIES = 6
REFUSED_SECONDS = 5.0
"""Backoff base for a refused DELETE (codes 517, 692): 5, 10, 20, ... seconds within one try."""


class Deleter:
    """Sends the steps of one window and generation; what is there already is found and not sent again."""

    def __init__(
        self, hook: BackfillClickHouse, hosts: Sequence[Host], store: Store, log: Any, key: str, generation: int
    ) -> None:
        self.hook = hook
        self.hosts = hosts
        self.store = store
        self.log = log
        self.key = key
        self.generation = generation

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

    def known(self, step: Step) -> Json | None:
        """Return the record of a step that was sent for sure, None otherwise."""
        kept = self.store.get(self._store_key(step)) or {}
        return self._record(step, kept["at"], set(kept["accepted"])) if kept.get("state") == "sent" else None

    def dropped(self, table: str, part: sql.Slice) -> Step | None:
        """Return the step by which a table's partitions were dropped for sure, None when they were not.

        Asked again later, the partitions may hold other rows; that must not turn the step into a DELETE by days.
        """
        step = Step(table, part, kind="drop")
        kept = self.store.get(self._store_key(step)) or {}
        partitions = tuple(kept.get("partitions") or ()) if kept.get("state") == "sent" else ()
        return Step(table, part, kind="drop", partitions=partitions) if partitions else None

    def do(self, step: Step, mutations: Sequence[Mutation]) -> Json:
        """Return the record of a step (database, table, at, accepted hosts, partitions), sending it if it is not there.

        Raises StageError when it was refused, or when its outcome is unknown and no host shows it.
        """
        if record := self.known(step):
            self.log.info("%s: was sent before, it is not sent again", step.label)
            return record
        kept = self.store.get(self._store_key(step)) or {}
        if seen := self._seen(step, mutations):
            self.log.info("%s: its mutation is there already, it is not sent again", step.label)
            at = kept.get("at") or min(m.created for m in own(mutations, self.key, self.generation))
            return self._keep(step, at, seen)
        if kept and (found := self._look_after_unknown(step)) is not None:
            return self._keep(step, kept["at"], found)
        return self._send(step)

    def is_done(self, step: Step, mutations: Sequence[Mutation]) -> bool:
        """Return True when no host still works on the step and every host has taken it."""
        record = self.known(step)
        mine = self._own(step, mutations)
        taken = set(record["accepted"]) if record else set()
        return all(m.is_done for m in mine) and taken | {m.host for m in mine} >= {h.name for h in self.hosts}

    def _store_key(self, step: Step) -> str:
        return f"sent:{'.'.join(step.name)}:{self.generation}.{step.chunk}"

    def _own(self, step: Step, mutations: Sequence[Mutation]) -> list[Mutation]:
        mark = (self.key, self.generation, step.chunk)
        return [m for m in mutations if m.marker == mark and (m.database, m.table) == step.name]

    def _seen(self, step: Step, mutations: Sequence[Mutation]) -> set[str]:
        return {m.host for m in self._own(step, mutations)}

    def _needles(self, step: Step) -> list[tuple[str, ...]]:
        """Return, for each statement, texts that together only its entry of the DDL queue holds."""
        if step.kind == "drop":
            return [sql.drop_partition_needles(*step.name, partition) for partition in step.partitions]
        return [(sql.marker_literal(self.key, self.generation, step.chunk),)]

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

    def _look_after_unknown(self, step: Step) -> set[str] | None:
        """Look for a step that may have been sent; None proves that no host has it or will get it.

        In the order in which a statement moves, so that it is not passed by: the node that it was sent to, the DDL
        queue, the mutations.
        """
        needles = self._needles(step)
        if running := sorted({host for texts in needles for host in self.hook.running_ddl(*texts)}):
            self.log.info("%s: %s still executes it", step.label, ", ".join(running))
            return self._seen(step, self.hook.mutations())
        if queued := sorted({host for texts in needles for host in self.hook.queued_ddl(*texts)}):
            self.log.info("%s: waits in the DDL queue of %s", step.label, ", ".join(queued))
            return self._seen(step, self.hook.mutations())
        for attempt in range(LOOK_TRIES):
            if seen := self._seen(step, self.hook.mutations()):
                return seen
            if attempt < LOOK_TRIES - 1:
                time.sleep(LOOK_SECONDS)
        counts = sum_days(self.hook.day_counts([(step.table, step.part)], self.hosts))[step.name]
        return None if any(counts.values()) else set(counts)

    def _statements(self, step: Step) -> list[str]:
        cluster = self.hook.config.cluster
        if step.kind == "drop":
            return [
                sql.drop_partition_statement(
                    cluster=cluster, database=step.part.database, table=step.table, partition_id=partition
                )
                for partition in step.partitions
            ]
        statement = sql.delete_statement(
            cluster=cluster,
            table=step.table,
            part=step.part,
            names=self.hook.names,
            key=self.key,
            generation=self.generation,
            chunk=step.chunk,
        )
        return [statement]

    def _send(self, step: Step) -> Json:
        if self.generation > 1:
            self._refuse_overtaking(step)
        at = time.time()
        # Written before the statement leaves: a worker that dies in between must look, not send again.
        self.store.set(self._store_key(step), {"state": "sending", "at": at})
        accepted: set[str] | None = None
        for statement in self._statements(step):
            hosts = self._send_one(step, statement)
            accepted = hosts if accepted is None else accepted & hosts
        return self._keep(step, at, accepted or set())

    def _send_one(self, step: Step, statement: str) -> set[str]:
        self.log.info("sending: %s", statement)
        answer = self._patiently(statement)
        if answer.outcome == "refused":
            self.store.set(self._store_key(step), {})
            raise StageError(f"{step.label}: ClickHouse refuses it, nothing was queued: {answer.text}")
        if answer.errors:
            self.log.warning("%s: errors of the DDL: %s", step.label, dict(answer.errors))
        if answer.outcome == "done":
            return set(answer.hosts)
        self.log.warning("%s: outcome unknown (%s), looking at the hosts", step.label, answer.text[:500])
        found = self._look_after_unknown(step)
        if found is None and answer.outcome == "killed":
            self.store.set(self._store_key(step), {})
            raise AirflowFailException(
                f"{step.label}: its mutation was killed and no host has it: {answer.text[:500]}. Clear this task to"
                " send it again"
            )
        if found is None:
            raise StageError(
                f"{step.label}: it was sent, but no host has it: {answer.text[:500]}. The retry looks again and"
                " sends it only if no host has it"
            )
        return found | set(answer.hosts)

    def _patiently(self, statement: str) -> DdlAnswer:
        for attempt in range(REFUSED_TRIES):
            answer = self.hook.send_ddl(statement, self.hosts)
            if answer.outcome != "refused" or attempt == REFUSED_TRIES - 1:
                return answer
            pause = REFUSED_SECONDS * 2**attempt
            self.log.info("refused, trying again in %.0f s: %s", pause, answer.text[:300])
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _keep(self, step: Step, at: float, accepted: set[str]) -> Json:
        record = self._record(step, at, accepted)
        kept = {name: record[name] for name in ("at", "accepted", "partitions")}
        self.store.set(self._store_key(step), {"state": "sent", **kept})
        return record

    def _record(self, step: Step, at: float, accepted: set[str]) -> Json:
        return {
            "database": step.part.database,
            "table": step.table,
            "at": float(at),
            "accepted": sorted(accepted),
            "partitions": list(step.partitions),
        }


def own_unfinished(mutations: Sequence[Mutation]) -> int:
    """Return how many of our statements are unfinished somewhere in the cluster (hosts counted once)."""
    return len({(m.database, m.table, m.marker) for m in mutations if m.marker and not m.is_done and not m.is_killed})


def is_over(mutations: Sequence[Mutation], key: str, generation: int) -> bool:
    """Return True when no host still works on a mutation of the generation."""
    return all(m.is_done or m.is_killed for m in own(mutations, key, generation))


def dead_generation(mutations: Sequence[Mutation], key: str, generation: int) -> bool:
    """Return True when a generation's mutation was killed somewhere and none of it is still unfinished elsewhere."""
    return any(m.is_killed for m in own(mutations, key, generation)) and is_over(mutations, key, generation)


def show_how_to_kill(hook: BackfillClickHouse, context: Any, log: Any, record: Json, generation: int) -> None:
    """Say which statement ends a mutation that stands still; run it only if the run's parameters ask for that.

    The record's cause becomes ``killed`` then, so that a clear sends the DELETE again.
    """
    if record.get("cause") not in ("stalled", "fail_reason"):
        return
    found = own(hook.mutations(), record["key"], generation)
    for database, table in sorted({(m.database, m.table) for m in found if not m.is_done}):
        statements = {
            test: sql.kill_mutation_statement(
                cluster=hook.config.cluster,
                database=database,
                table=table,
                key=record["key"],
                generation=generation,
                test=test,
            )
            for test in (True, False)
        }
        log.warning("tried with TEST: %s\n%s", statements[True], hook.raw(statements[True]))
        if context["params"].get("kill_stalled_mutations"):
            log.warning("killing, as the run asks: %s\n%s", statements[False], hook.raw(statements[False]))
            record["cause"] = "killed"
        else:
            log.warning("to end it, run (or set kill_stalled_mutations): %s", statements[False])


def inherited_rows(window: Mapping[str, Any], database: str, table: str, now: int) -> int:
    """Return the rows before: of the window that this one was cut from when there is one, else what is there now."""
    inherited: Mapping[str, Mapping[str, int]] = window.get("before") or {}
    return int(inherited.get(database, {}).get(table, now)) if window.get("part_of") else now
