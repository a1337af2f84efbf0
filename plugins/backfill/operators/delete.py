"""The delete stage: count once, then delete each table once; in reindex_first only what was not written again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator

from backfill import metrics
from backfill.deleting.sender import DeleteSender, Order
from backfill.deleting.standstill import stood_still
from backfill.deleting.sweep import SweepApproval, begin, begun, survey
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit.counting import counted_once
from backfill.kit.debts import DebtBook
from backfill.kit.promises import approval, approved_digest, promise
from backfill.kit.stages import StageError, access_refused, already, event_of, fail, failed_before, group_of, result_of
from backfill.kit.store import GENERATION, SNAPSHOTS, WindowStore
from backfill.settings import cluster_config
from backfill.snapshots import SnapshotError, Snapshots
from include.scorecard_backfill import life
from include.scorecard_backfill.config.rules import can_tell_old_rows
from include.scorecard_backfill.graph import takes_part
from include.scorecard_backfill.records import (
    Counted,
    Deleted,
    FailEvent,
    Failure,
    GoEvent,
    Reindexed,
    TableDays,
    Window,
    attempted,
    read_event,
)
from include.scorecard_backfill.verdicts.causes import cause_of, what_to_do


class DeleteOperator(BaseOperator):
    """Counts the window's rows, keeps the numbers, and deletes them on every node (mode cleanup)."""

    template_fields = ("window",)

    def __init__(self, *, cluster: str, window: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.window = window

    def execute(self, context: Any) -> dict[str, Any]:
        """Return the record that the later stages work by. Raises StageError for what a repetition may mend."""
        window = Window.from_json(self.window)
        self.log.info("window %s, key %s", window.label, window.key)
        config = cluster_config(self.cluster)
        if not takes_part(self.task_id.rsplit(".", 1)[-1], window.order, config.orders):
            return Deleted(key=window.key, window=window, status="nothing").to_json()
        if done := already(context, window):
            self.log.info(
                "%s already in this run; nothing is deleted. To do it again, trigger a new run for %s",
                done,
                window.label,
            )
            return Deleted(key=window.key, window=window, status=done).to_json()
        with metrics.measured(self.cluster, "delete"), access_refused(context, window, "delete"):
            return self._deleted(context, window).to_json()

    def resume(self, context: Any, event: Any = None) -> Any:
        """Go on once the step may be sent. Raises Refusal when the one before cannot end."""
        found = read_event(event)
        if isinstance(found, FailEvent):
            hook = BackfillClickHouse(cluster_config(self.cluster))
            fail(context, stood_still(context, hook, self.log, found.failure))
        assert isinstance(event_of(context, event, "delete"), GoEvent)
        return self.execute(context)

    def answered(self, context: Any, event: Any = None) -> Any:
        """Go on with what a person has said to the sweep."""
        SweepApproval(self, self.cluster).take(context, event)
        return self.execute(context)

    def looked_back(self, context: Any, event: Any = None) -> Any:
        """Go on with what a person had said to the sweep before this try, or ask again."""
        SweepApproval(self, self.cluster).looked_back(context, event)
        return self.execute(context)

    def _deleted(self, context: Any, window: Window) -> Deleted:
        hook = BackfillClickHouse(cluster_config(self.cluster))
        counted = self._counted(context, window, hook)
        kept = Deleted(key=window.key, window=window, status="counted", counted=counted)
        if not window.destructive:
            return kept
        sweeping = window.order == "reindex_first"
        surveyed = survey(hook, window, counted) if sweeping else None
        rows = (begun(context, window) or surveyed.old) if surveyed else counted.now
        facts = self._facts(context, window, rows, surveyed.balance if surveyed else "ok")
        self._refuse(context, window, facts, surveyed.sentences if surveyed else ())
        if not facts.rows_before and self._generation(context, window) == 0:
            self.log.info("no row is there to delete")
            return kept.model_copy(update={"status": "nothing", "digest": approved_digest(context)})
        if surveyed:
            SweepApproval(self, self.cluster).ask(context, window, surveyed)
        snapshots = self._snapshots(context, hook, window, rows)
        promise(context, window, counted, swept=sweeping)
        bound = counted.server_time if sweeping or (facts.written and facts.bounded) else None
        if surveyed and not begun(context, window):
            begin(context, window, rows)
        generation = max(1, self._generation(context, window))
        WindowStore(context, window).set(GENERATION, generation)
        order = Order(window, rows, generation, bound, drop=generation == 1 and not sweeping, facts=facts)
        sent = DeleteSender(self, self.cluster, "delete").send(context, order)
        return kept.model_copy(
            update={
                "status": "deleted",
                "sent": sent,
                "generation": self._generation(context, window),
                "snapshots": tuple(snapshots),
                "bound": bound,
                "digest": approved_digest(context),
            }
        )

    def _generation(self, context: Any, window: Window) -> int:
        return int(WindowStore(context, window).get(GENERATION) or 0)

    def _counted(self, context: Any, window: Window, hook: BackfillClickHouse) -> Counted:
        if window.order == "delete_first":
            return counted_once(context, window, hook, self.log)
        reindexed = result_of(context, "reindex", window)
        if not isinstance(reindexed, Reindexed) or reindexed.counted is None:
            raise StageError(f"{window.label}: the reindex stage has left no count before: clear it, and this with it")
        return reindexed.counted

    def _facts(self, context: Any, window: Window, rows: Sequence[TableDays], balance: life.Balance) -> life.Facts:
        generation = self._generation(context, window)
        before = failed_before(context, window)
        same = before is not None and before.generation == generation
        agreed, differs = approval(context, self.cluster)
        if differs:
            self.log.warning("not what was approved: %s", differs)
        return life.Facts(
            order=window.order,
            destructive=True,
            approval=agreed,
            rows_before=any(table.rows for table in rows),
            written=window.order == "delete_first" and self._was_written(context, window, generation),
            bounded=can_tell_old_rows(cluster_config(self.cluster).clickhouse, window),
            balance=balance,
            others="quiet",
            left=cause_of(before.cause).repeat if before is not None and same else "",
            generation=generation,
        )

    def _was_written(self, context: Any, window: Window, generation: int) -> bool:
        """Return True when rows may be there that were written since the first DELETE, by this run or by another."""
        if attempted(result_of(context, "reindex", window)):
            return True
        return generation > 0 and not DebtBook(window.cluster).owes(window.key)

    def _refuse(self, context: Any, window: Window, facts: life.Facts, sentences: Sequence[str]) -> None:
        """End the stage before anything is sent when the terms have changed or the balance before a sweep is wrong."""
        if facts.approval == "changed":
            _, differs = approval(context, self.cluster)
            fail(context, self._failure(window, facts, "approval_changed", differs))
        if facts.balance == "wrong":
            reason = "; ".join(("nothing was deleted", *sentences))
            fail(context, self._failure(window, facts, "not_rewritten", reason))

    def _failure(self, window: Window, facts: life.Facts, cause: str, reason: str) -> Failure:
        return Failure(
            key=window.key,
            stage="delete",
            cause=cause,
            reason=reason,
            what_to_do=what_to_do(cause),
            generation=facts.generation,
        )

    def _snapshots(
        self, context: Any, hook: BackfillClickHouse, window: Window, rows: Sequence[TableDays]
    ) -> list[str]:
        """Copy the rows before the first DELETE, if the cluster's file says so; once, since later they are gone."""
        config, store = cluster_config(self.cluster), WindowStore(context, window)
        if not config.snapshot.enabled:
            return []
        taken = store.get(SNAPSHOTS)
        if taken is None:
            tables = [table.name for table in rows if table.rows]
            try:
                taken = Snapshots(hook, hook.topology()).take(window, tables, config.snapshot.keep_days)
            except SnapshotError as error:
                raise StageError(str(error)) from error
            store.set(SNAPSHOTS, list(taken))
            self.log.info("snapshots: %s", ", ".join(taken) or "no rows, none taken")
        return list(taken)

    @property
    def group(self) -> str:
        """The task group of the window's pass."""
        return group_of(self.task_id)
