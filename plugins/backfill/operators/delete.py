"""The delete stage: count, then one DELETE per table that takes effect, found before it is sent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow.sdk import BaseOperator

from backfill.hooks.clickhouse import BackfillClickHouse, DdlAnswer, sum_days
from backfill.operators.common import RunStore, StageError, Store, settled_day_counts, verified
from backfill.settings import cluster_config
from backfill.triggers.mutations import slices
from include.scorecard_backfill import sql
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.mutations import Mutation, own

Json = dict[str, Any]

LOOK_TRIES = 10
LOOK_SECONDS = 1.0
"""After a DELETE whose outcome is unknown the hosts are looked at for ten seconds; then the retry of the task looks."""

REFUSED_TRIES = 6
REFUSED_SECONDS = 5.0
"""Backoff base for a refused DELETE (codes 517, 692): 5, 10, 20, ... seconds within one try."""


@dataclass(frozen=True, slots=True)
class Target:
    """One local table of a window and generation."""

    table: str
    part: sql.Slice
    key: str
    generation: int

    @property
    def name(self) -> tuple[str, str]:
        """(database, local table)."""
        return self.part.database, self.table

    @property
    def marker(self) -> str:
        """The literal that the mutation carries."""
        return sql.marker_literal(self.key, self.generation).strip("'")


class Deleter:
    """Sends the DELETEs of one window and generation; what is there already is found and not sent again."""

    def __init__(self, hook: BackfillClickHouse, hosts: Sequence[Host], store: Store, log: Any) -> None:
        self.hook = hook
        self.hosts = hosts
        self.store = store
        self.log = log

    def run(self, window: Json, tables: Sequence[tuple[str, str]], generation: int) -> list[Json]:
        """Return one record per table: database, table, at (epoch seconds), accepted (hosts). Raises StageError."""
        wanted = set(tables)
        targets = [Target(t, p, window["key"], generation) for t, p in slices(window) if (p.database, t) in wanted]
        mutations = self.hook.mutations()
        self._refuse_crowded(targets, mutations)
        return [self._one(target, mutations) for target in targets]

    def _refuse_crowded(self, targets: Sequence[Target], mutations: Sequence[Mutation]) -> None:
        limit = self.hook.config.max_unfinished_foreign_mutations
        for target in targets:
            others = [m for m in mutations if (m.database, m.table) == target.name and not m.is_done
                      and (m.marker is None or m.marker[0] != target.key)]  # fmt: skip
            if len(others) > limit:
                raise StageError(
                    f"{'.'.join(target.name)} has {len(others)} unfinished mutations of others (limit {limit}), first:"
                    f" {others[0].mutation_id} on {others[0].host}: {others[0].command[:200]}"
                )
            for other in others:
                self.log.info(
                    "foreign mutation on %s, host %s: %s", ".".join(target.name), other.host, other.command[:200]
                )

    def _one(self, target: Target, mutations: Sequence[Mutation]) -> Json:
        key = f"sent:{target.part.database}.{target.table}:{target.generation}"
        seen = self._seen(target, mutations)
        known = self.store.get(key) or {}
        if seen or known.get("state") == "sent":
            self.log.info(
                "%s: the DELETE %s was sent before, it is not sent again", ".".join(target.name), target.marker
            )
            at = known.get("at") or min(m.created for m in own(mutations, target.key, target.generation))
            return self._record(target, at, seen | set(known.get("accepted", [])))
        if known and (found := self._look_after_unknown(target)):
            return self._keep(key, target, known["at"], found)
        return self._send(key, target)

    def _seen(self, target: Target, mutations: Sequence[Mutation]) -> set[str]:
        found = own(mutations, target.key, target.generation)
        return {m.host for m in found if (m.database, m.table) == target.name}

    def _look_after_unknown(self, target: Target) -> set[str] | None:
        """Look for a DELETE that may have been sent; None proves that no host has it or will get it."""
        queued = self.hook.queued_ddl(target.marker)
        if queued:
            self.log.info("%s: the DELETE waits in the DDL queue of %s", ".".join(target.name), ", ".join(queued))
            return self._seen(target, self.hook.mutations())
        for attempt in range(LOOK_TRIES):
            if seen := self._seen(target, self.hook.mutations()):
                return seen
            if attempt < LOOK_TRIES - 1:
                time.sleep(LOOK_SECONDS)
        counts = sum_days(self.hook.day_counts([(target.table, target.part)], self.hosts))[target.name]
        if not any(counts.values()):
            return set(counts)
        return None

    def _send(self, key: str, target: Target) -> Json:
        statement = sql.delete_statement(
            cluster=self.hook.config.cluster,
            table=target.table,
            part=target.part,
            names=self.hook.names,
            key=target.key,
            generation=target.generation,
        )
        at = time.time()
        # Written before the statement leaves: a worker that dies in between must look, not send again.
        self.store.set(key, {"state": "sending", "at": at})
        self.log.info("sending: %s", statement)
        answer = self._patiently(statement)
        if answer.outcome == "refused":
            self.store.set(key, {})
            raise StageError(
                f"{'.'.join(target.name)}: ClickHouse refuses the DELETE, nothing was queued: {answer.text}"
            )
        if answer.errors:
            self.log.warning("%s: errors of the DDL: %s", ".".join(target.name), dict(answer.errors))
        if answer.outcome == "done":
            return self._keep(key, target, at, set(answer.hosts))
        self.log.warning("%s: outcome unknown (%s), looking at the hosts", ".".join(target.name), answer.text[:500])
        found = self._look_after_unknown(target)
        if found is None:
            raise StageError(
                f"{'.'.join(target.name)}: the DELETE was sent, but no host has it: {answer.text[:500]}. The retry"
                " looks again and sends it only if no host has it"
            )
        return self._keep(key, target, at, found | set(answer.hosts))

    def _patiently(self, statement: str) -> DdlAnswer:
        for attempt in range(REFUSED_TRIES):
            answer = self.hook.send_ddl(statement, self.hosts)
            if answer.outcome != "refused" or attempt == REFUSED_TRIES - 1:
                return answer
            pause = REFUSED_SECONDS * 2**attempt
            self.log.info("refused, trying again in %.0f s: %s", pause, answer.text[:300])
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _keep(self, key: str, target: Target, at: float, accepted: set[str]) -> Json:
        record = self._record(target, at, accepted)
        self.store.set(key, {"state": "sent", "at": at, "accepted": record["accepted"]})
        return record

    def _record(self, target: Target, at: float, accepted: set[str]) -> Json:
        return {
            "database": target.part.database,
            "table": target.table,
            "at": float(at),
            "accepted": sorted(accepted),
        }


def dead_generation(mutations: Sequence[Mutation], key: str, generation: int) -> bool:
    """Return True when a generation's mutation was killed somewhere and none of it is still unfinished elsewhere."""
    found = own(mutations, key, generation)
    return any(m.is_killed for m in found) and all(m.is_done or m.is_killed for m in found)


class DeleteOperator(BaseOperator):
    """Counts the window's rows, keeps the numbers, and deletes them on every node (mode cleanup)."""

    template_fields = ("window",)

    def __init__(self, *, cluster: str, window: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.window = window

    def execute(self, context: Any) -> Json:
        """Return the record that the later stages work by. Raises StageError for what a retry can mend."""
        window: Json = self.window
        self.log.info("window %s, key %s", window["label"], window["key"])
        done = verified(context, window)
        if done:
            self.log.info(
                "verified already in this run; nothing is deleted. To do it again, trigger a new run for %s, %s to %s",
                window["customer_id"],
                window["start"],
                window["end"],
            )
            return self._result(window, [], [], 0) | {"status": "verified"}
        hook = BackfillClickHouse(cluster_config(self.cluster))
        hosts = hook.topology()
        store = RunStore(context)
        before = self._before(hook, hosts, store, window)
        if window["mode"] != "cleanup":
            return self._result(window, before, [], 0) | {"status": "counted"}
        tables = [(b["database"], b["table"]) for b in before if b["now"]]
        generation = int(store.get("generation") or 1)
        if dead_generation(hook.mutations(), window["key"], generation):
            generation += 1
            store.set("generation", generation)
        sent = Deleter(hook, hosts, store, self.log).run(window, tables, generation)
        return self._result(window, before, sent, generation) | {"status": "deleted" if sent else "nothing"}

    def _before(self, hook: BackfillClickHouse, hosts: Sequence[Host], store: Store, window: Json) -> list[Json]:
        """Count once and keep it: after the DELETE nobody can count the rows before it any more."""
        kept = store.get("before")
        if kept:
            return list(kept)
        counted = settled_day_counts(hook, window, hosts)
        inherited: Mapping[str, Mapping[str, int]] = window.get("before") or {}
        before = []
        for (database, table), days in sorted(counted.items()):
            now = sum(days.values())
            rows = inherited.get(database, {}).get(table, now) if window.get("part_of") else now
            before.append({"database": database, "table": table, "rows": rows, "now": now, "days": days})
            self.log.info("%s.%s: %d rows now%s", database, table, now, f", {rows} before" if rows != now else "")
        store.set("before", before)
        return before

    def _result(self, window: Json, before: list[Json], sent: list[Json], generation: int) -> Json:
        rows: dict[str, int] = {}
        for item in before:
            rows[item["table"]] = rows.get(item["table"], 0) + item["rows"]
        return {
            "key": window["key"],
            "window": window,
            "generation": generation,
            "before": before,
            "rows_before": rows,
            "sent": sent,
            "statements": len(sent),
        }
