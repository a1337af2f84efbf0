"""The delete stage: count, then delete each table once (whole, by day or by partition), found before it is sent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.operators.common import RunStore, StageError, already, settled_day_counts
from backfill.operators.deleter import (
    Deleter,
    dead_generation,
    inherited_rows,
    is_over,
    own_unfinished,
    show_how_to_kill,
)
from backfill.settings import cluster_config
from backfill.snapshots import SnapshotError, Snapshots
from backfill.triggers.base import DEADLINE_MARGIN_SECONDS
from backfill.triggers.chunk import ChunkTrigger, event_failed
from backfill.triggers.mutations import RESENDABLE, slices
from include.scorecard_backfill import sql
from include.scorecard_backfill.planning.deletes import Step, delete_steps, droppable
from include.scorecard_backfill.planning.partitions import covered_partitions
from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.sql import health as sql_health
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.mutations import Mutation, altering, described

Json = dict[str, Any]
TableName = tuple[str, str]


class SendsDeletes(BaseOperator):
    """Sends the delete steps of a window one after the other; a large delete goes day by day, waiting deferred."""

    cluster: str

    def send_all(
        self, context: Any, window: Json, before: Sequence[Json], generation: int, *, drop: bool
    ) -> list[Json]:
        """Return one record per table, once every step was sent; defers while a step must wait for the one before.

        The subclass is resumed at ``step_may_go`` and must come here again with the same arguments.
        """
        hook = BackfillClickHouse(cluster_config(self.cluster))
        hosts = hook.topology()
        deleter = Deleter(hook, hosts, RunStore(context), self.log, window["key"], generation)
        records: dict[TableName, Json] = {}
        for step in self._steps(deleter, window, before, drop=drop):
            mutations = hook.mutations()
            if deleter.known(step) is None:
                deleter.refuse_crowded(step, mutations)
                self._wait_for_room(hook, mutations, window, step, generation)
            record = deleter.do(step, mutations)
            if step.chunk and not deleter.is_done(step, hook.mutations()):
                self.log.info("%s is sent; the next step waits until it is done on every host", step.label)
                self._defer(window, step, generation, chunk=step.chunk, sent=record)
            records[step.name] = _joined(records.get(step.name), record)
        return list(records.values())

    def step_may_go(self, context: Any, event: Json) -> Any:
        """Go on with the next step. Raises AirflowFailException when the one before cannot end."""
        if event_failed(event):
            record = event["record"]
            store = RunStore(context)
            generation = int(store.get("generation") or 1)
            show_how_to_kill(BackfillClickHouse(cluster_config(self.cluster)), context, self.log, record, generation)
            if record["cause"] in RESENDABLE:
                store.set("given_up", generation)
            raise AirflowFailException(f"{record['cause']}: {record['reason']}. Clear this task for a new try")
        return self.execute(context)

    def _wait_for_room(
        self, hook: BackfillClickHouse, mutations: Sequence[Mutation], window: Json, step: Step, generation: int
    ) -> None:
        limit = hook.config.delete.max_own_unfinished_mutations
        reasons = [described(other) for other in altering(mutations, step.name)]
        if (count := own_unfinished(mutations)) >= limit:
            reasons.append(f"{count} of our mutations are unfinished (limit {limit})")
        if reasons:
            self.log.info("%s waits: %s", step.label, "; ".join(reasons))
            self._defer(window, step, generation, chunk=0, sent={})

    def _defer(self, window: Json, step: Step, generation: int, *, chunk: int, sent: Json) -> None:
        config = cluster_config(self.cluster)
        self.defer(
            trigger=ChunkTrigger(
                cluster=self.cluster,
                key=window["key"],
                not_before=time.time() + config.kubernetes.first_poll_after_seconds,
                table=list(step.name),
                generation=generation,
                chunk=chunk,
                accepted=list(sent.get("accepted", ())),
                at=sent.get("at", 0.0),
            ),
            method_name="step_may_go",
            timeout=timedelta(seconds=config.clickhouse.mutation_deadline_seconds + DEADLINE_MARGIN_SECONDS),
        )

    def _steps(self, deleter: Deleter, window: Json, before: Sequence[Json], *, drop: bool) -> list[Step]:
        hook = deleter.hook
        days: dict[TableName, Mapping[str, int]] = {(b["database"], b["table"]): b["days"] for b in before}
        pairs = slices(window)
        dropped: dict[TableName, Step] = {}
        if drop and hook.config.delete.drop_partition:
            for table, part in pairs:
                if not days.get((part.database, table)):
                    continue
                if step := deleter.dropped(table, part) or self._drop_step(hook, deleter.hosts, table, part):
                    dropped[step.name] = step
        rest = [(table, part) for table, part in pairs if (part.database, table) not in dropped]
        return [*dropped.values(), *delete_steps(rest, days, hook.config.delete.max_rows_per_mutation)]

    def _drop_step(self, hook: BackfillClickHouse, hosts: Sequence[Host], table: str, part: sql.Slice) -> Step | None:
        """Return the step that drops whole partitions, None when the window does not consist of droppable ones."""
        keys = hook.partition_keys(part.database, table)
        wanted = (
            covered_partitions(keys[0], hook.names.time, DateRange(part.start, part.end)) if len(keys) == 1 else None
        )
        if not wanted:
            return None
        cluster = hook.config.cluster
        names = {"cluster": cluster, "database": part.database, "table": table}
        rows = hook.rows(sql_health.partition_statement(**names, partition_ids=wanted, parts=[part], names=hook.names))
        sizes = hook.rows(sql_health.partition_sizes_statement(**names))
        reason = droppable(rows, sizes, wanted, [h.name for h in hosts], hook.config.delete.max_partition_bytes)
        if reason:
            self.log.info("%s.%s is deleted by mutation: %s", part.database, table, reason)
            return None
        here = tuple(p for p in wanted if any(r["partition_id"] == p for r in rows))
        return Step(table, part, kind="drop", partitions=here) if here else None


class DeleteOperator(SendsDeletes):
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
        store = RunStore(context)
        if done := already(context, window):
            self.log.info(
                "%s already in this run; nothing is deleted. To do it again, trigger a new run for %s, %s to %s",
                done,
                window["customer_id"],
                window["start"],
                window["end"],
            )
            return self._result(window, list(store.get("before") or []), [], 0) | {"status": done}
        before = self._before(store, window)
        if window["mode"] != "cleanup":
            return self._result(window, before, [], 0) | {"status": "counted"}
        snapshots = self._snapshots(store, window, before)
        generation = self._generation(store, window)
        # Only the first generation drops partitions: what came back since must not be taken by a repetition.
        sent = self.send_all(context, window, before, generation, drop=generation == 1)
        status = "deleted" if sent else "nothing"
        return self._result(window, before, sent, generation) | {"status": status, "snapshots": snapshots}

    def _snapshots(self, store: RunStore, window: Json, before: Sequence[Json]) -> list[str]:
        """Copy the rows before the first DELETE, if the cluster's file says so; once, since later they are gone."""
        config = cluster_config(self.cluster)
        if not config.snapshot.enabled:
            return []
        taken = store.get("snapshots")
        if taken is None:
            hook = BackfillClickHouse(config)
            tables = [(b["database"], b["table"]) for b in before if b["now"]]
            try:
                taken = Snapshots(hook, hook.topology()).take(window, tables, config.snapshot.keep_days)
            except SnapshotError as error:
                raise StageError(str(error)) from error
            store.set("snapshots", taken)
            self.log.info("snapshots: %s", ", ".join(taken) or "no rows, none taken")
        return list(taken)

    def _generation(self, store: RunStore, window: Json) -> int:
        generation = int(store.get("generation") or 1)
        mutations = BackfillClickHouse(cluster_config(self.cluster)).mutations()
        given_up = store.get("given_up") == generation and is_over(mutations, window["key"], generation)
        if given_up or dead_generation(mutations, window["key"], generation):
            generation += 1
            store.set("generation", generation)
            self.log.info("the mutation was killed or lost: sending the DELETE again as generation %d", generation)
        return generation

    def _before(self, store: RunStore, window: Json) -> list[Json]:
        """Count once and keep it: after the DELETE nobody can count the rows before it any more."""
        kept = store.get("before")
        if kept:
            return list(kept)
        hook = BackfillClickHouse(cluster_config(self.cluster))
        counted = settled_day_counts(hook, window, hook.topology())
        before = []
        for (database, table), days in sorted(counted.items()):
            now = sum(days.values())
            rows = inherited_rows(window, database, table, now)
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


def _joined(first: Json | None, last: Json) -> Json:
    """Return one record of a table's steps: the earliest time, the hosts that have taken the last step."""
    return last if first is None else {**last, "at": min(first["at"], last["at"])}
