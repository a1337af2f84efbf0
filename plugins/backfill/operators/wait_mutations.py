"""The wait for mutations: in the triggerer, unless a person's clear asks for the DELETE to be sent again."""

from __future__ import annotations

import time
from typing import Any, NoReturn

from backfill.deleting.sender import DeleteSender, Order
from backfill.deleting.standstill import stood_still
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit.promises import approval, promise
from backfill.kit.refusal import Refusal
from backfill.kit.stages import TriggeredWait, access_refused, already, fail, group_of, limit
from backfill.kit.store import GENERATION, RunStore, WindowStore, name_of
from backfill.settings import cluster_config
from backfill.triggers.mutations import MutationsTrigger
from include.scorecard_backfill import life
from include.scorecard_backfill.config.rules import can_tell_old_rows
from include.scorecard_backfill.records import (
    Deleted,
    Event,
    FailEvent,
    Failure,
    GoEvent,
    MutationsGone,
    ResendEvent,
    read_event,
)
from include.scorecard_backfill.verdicts.causes import what_to_do

RESENDING = "resending"
"""Record `deleted` of the DELETE that this task is sending again."""


class WaitMutationsOperator(TriggeredWait):
    """Waits for the window's mutations; cleared after one was killed or is missing, it has the DELETE sent again."""

    stage = "wait_mutations"
    trigger_path = "backfill.triggers.mutations.MutationsTrigger"

    def __init__(self, *, cluster: str, group: str, **kwargs: Any) -> None:
        timeout = limit(cluster_config(cluster).clickhouse.mutation_deadline_seconds)
        super().__init__(cluster=cluster, group=group, timeout=timeout, **kwargs)

    def resume(self, context: Any, event: Any = None, **kwargs: Any) -> Any:
        """Say how to end a mutation that stands still before the task fails by it; else as every wait."""
        found = read_event(event)
        if isinstance(found, FailEvent):
            failure = found.failure
            if failure.deleted is None:
                failure = failure.model_copy(update={"deleted": _resending(context, failure.key)})
            hook = BackfillClickHouse(cluster_config(self.cluster))
            fail(context, stood_still(context, hook, self.log, failure))
        return super().resume(context, event, **kwargs)

    def act(self, context: Any, event: Event, **kwargs: Any) -> Any:
        """Send the DELETE again under the next generation and wait for that one."""
        if isinstance(event, ResendEvent):
            deleted = event.deleted.model_copy(update={"generation": event.generation, "sent": ()})
            store = WindowStore(context, deleted.window)
            store.set(RESENDING, deleted.to_json())
            store.set(GENERATION, event.generation)
            return self._resend(context, deleted)
        if isinstance(event, GoEvent):
            going_on = _resending(context, event.key)
            if going_on is None:
                raise Refusal(
                    f"{self.task_id}: no DELETE of window {event.key} is being sent again: clear this task and delete"
                )
            return self._resend(context, going_on)
        raise Refusal(f"{self.task_id}: an event of kind {event.kind!r} is not known here")

    def _resend(self, context: Any, deleted: Deleted) -> Any:
        window = deleted.window
        if done := already(context, window):
            return MutationsGone(key=window.key, status=done).to_json()
        agreed, differs = approval(context, self.cluster)
        if agreed == "changed":
            self._refuse(context, deleted, "approval_changed", differs)
        config = cluster_config(self.cluster)
        bounded = deleted.bound is not None or can_tell_old_rows(config.clickhouse, window)
        bound = deleted.bound
        if bound is None and bounded and deleted.counted is not None:
            # Rows that were written since are not taken by a repetition.
            bound = deleted.counted.server_time
        counted = deleted.counted
        if counted is not None:
            # Its debt may have been taken over, or settled, by another run since.
            promise(context, window, counted, swept=window.order == "reindex_first")
        facts = life.Facts(order=window.order, balance="ok", bounded=bounded, generation=deleted.generation)
        rows = counted.now if counted else ()
        order = Order(window, rows, deleted.generation, bound, drop=False, facts=facts, resent=deleted)
        with access_refused(context, window, "wait_mutations", deleted):
            sent = DeleteSender(self, self.cluster, "wait_mutations").send(context, order)
        generation = int(WindowStore(context, window).get(GENERATION) or deleted.generation)
        return self._wait_for(deleted.model_copy(update={"sent": sent, "generation": generation, "bound": bound}))

    def _refuse(self, context: Any, deleted: Deleted, cause: str, reason: str) -> None:
        fail(
            context,
            Failure(
                key=deleted.key,
                stage="wait_mutations",
                cause=cause,
                reason=reason,
                what_to_do=what_to_do(cause),
                generation=deleted.generation - 1,
            ),
        )

    def _wait_for(self, deleted: Deleted) -> NoReturn:
        config = cluster_config(self.cluster)
        self.defer(
            trigger=MutationsTrigger(
                cluster=self.cluster,
                group=group_of(self.task_id),
                not_before=time.time() + config.waits.first_poll_after_seconds,
                deleted=deleted.to_json(),
            ),
            method_name="resume",
            timeout=limit(config.clickhouse.mutation_deadline_seconds),
        )


def _resending(context: Any, key: str) -> Deleted | None:
    """Return the DELETE of a window (its key) that this task is sending again, None when it is sending none."""
    store = RunStore(context)
    # By the bare name as earlier releases kept it; the record says whose it is.
    kept = store.get(name_of(RESENDING, key)) or store.get(RESENDING)
    found = Deleted.from_json(kept) if kept else None
    return found if found is not None and found.key == key else None
