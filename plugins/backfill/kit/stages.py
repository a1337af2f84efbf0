"""What operators share: the task that starts in the triggerer, what other stages left, and how a stage fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import StartTriggerArgs
from clickhouse_connect.driver.exceptions import DatabaseError

from backfill.groups import group_named
from backfill.hooks.clickhouse_errors import is_access
from backfill.kit import store, xcoms
from backfill.kit.refusal import Refusal
from backfill.kit.wait import DEADLINE_MARGIN_SECONDS
from backfill.notify.watch import tell_failure
from backfill.settings import cluster_config
from include.scorecard_backfill.graph import task_of
from include.scorecard_backfill.records import (
    Deleted,
    Event,
    FailEvent,
    Failure,
    Record,
    RecordError,
    Settled,
    Stage,
    Window,
    read_event,
    settled,
)
from include.scorecard_backfill.verdicts.causes import what_to_do


class StageError(AirflowException):
    """A stage cannot do its work now; Airflow tries it again."""


def group_of(task_id: str) -> str:
    """Return the task group of a stage's task id (``windows.delete`` -> ``windows``)."""
    return task_id.rsplit(".", 1)[0]


def result_of(context: Mapping[str, Any], stage: Stage, window: Window) -> Record | None:
    """Return the record that a stage of the window left, None when it has left none.

    One of another window is none: under another plan of this run its place was another one's.
    """
    ti = context["ti"]
    task = task_of(stage, window.order, cluster_config(window.cluster).orders)
    return xcoms.of_window(xcoms.record(ti, f"{group_of(ti.task_id)}.{task}"), window.key)


def already(context: Mapping[str, Any], window: Window) -> Settled:
    """Return ``verified`` or ``cut`` when this very window needs nothing more in this run, else ''."""
    ti = context["ti"]
    cut_by = group_named(group_of(ti.task_id)).cut_by
    cut = xcoms.pull(ti, cut_by, xcoms.CUT) if cut_by else None
    return settled(window.key, result_of(context, "verify", window), cut)


def failed_before(context: Mapping[str, Any], window: Window) -> Failure | None:
    """Return how the last try of this worker-run stage ended for good, None when it did not. For this window only."""
    kept = store.WindowStore(context, window).get(store.FAILED)
    return Failure.from_json(kept) if kept else None


def fail(context: Mapping[str, Any], failure: Failure) -> NoReturn:
    """Keep a failure for the retry that a clear makes, for replan, report and page, and end the task with it.

    Raises:
        Refusal: always: Airflow's own retries are for killed workers and do not repeat it.
    """
    context["ti"].xcom_push(key=xcoms.RESULT, value=failure.to_json())
    store.RunStore(context).set(store.name_of(store.FAILED, failure.key), failure.to_json())
    tell_failure(context["ti"], failure, _window_of(context))
    raise Refusal(f"{failure.text}\n{failure.what_to_do or what_to_do(failure.cause)}")


def _window_of(context: Mapping[str, Any]) -> Window | None:
    """Return the window of the task when the task names it, as those that run on a worker do."""
    try:
        return Window.from_json(getattr(context.get("task"), "window", None))
    except (RecordError, TypeError):
        return None


@contextmanager
def access_refused(
    context: Mapping[str, Any], window: Window, stage: Stage, resending: Deleted | None = None
) -> Iterator[None]:
    """End the stage for good when ClickHouse does not accept the account: Airflow's retries would change nothing.

    ``resending``: what this stage is sending again, so that its next try goes on with that.
    """
    try:
        yield
    except DatabaseError as error:
        if not is_access(error):
            raise
        conn_id, cause = cluster_config(window.cluster).clickhouse.conn_id, "access_denied"
        reason = f"{window.label}: ClickHouse connection {conn_id!r}: {error}"[:2_000]
        fail(
            context,
            Failure(
                key=window.key,
                stage=stage,
                cause=cause,
                reason=reason,
                what_to_do=what_to_do(cause),
                generation=resending.generation if resending else 0,
                deleted=resending,
            ),
        )


@contextmanager
def kept_refusal(context: Mapping[str, Any]) -> Iterator[None]:
    """Keep the sentence by which a run is refused for report and page."""
    try:
        yield
    except Refusal as error:
        context["ti"].xcom_push(key=xcoms.REFUSED, value=str(error))
        raise


def event_of(context: Mapping[str, Any], value: object, stage: Stage) -> Event:
    """Return the event that woke this worker; one that says that the wait has failed ends the task.

    The failure is kept under ``stage``, the task's own: it may have waited for something that belongs to another one.

    Raises:
        Refusal: the wait has failed, or what came is not an event of ours.
    """
    try:
        event = read_event(value)
    except RecordError as error:
        raise Refusal(str(error)) from None
    if isinstance(event, FailEvent):
        fail(context, event.failure.model_copy(update={"stage": stage}))
    return event


def limit(seconds: float) -> timedelta:
    """Return Airflow's own time-out for a wait that ends itself after ``seconds``."""
    return timedelta(seconds=seconds + DEADLINE_MARGIN_SECONDS)


class TriggeredWait(BaseOperator):
    """A task that starts in the triggerer, where its trigger ends it; a worker is woken only to do something.

    ``arguments`` are those of the trigger's model besides cluster and group. A subclass that can act overrides
    :meth:`act`.
    """

    start_from_trigger = True
    stage: ClassVar[Stage]
    trigger_path: ClassVar[str]

    def __init__(
        self,
        *,
        cluster: str,
        group: str,
        timeout: timedelta | None = None,
        arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # In a pool that counts deferred tasks the waiting windows would hold all slots, and those under way get none.
        # Airflow refuses 0 as an argument only.
        self.pool_slots = 0
        self.cluster = cluster
        self.group = group
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=self.trigger_path,
            trigger_kwargs={"cluster": cluster, "group": group, **(arguments or {})},
            next_method="resume",
            next_kwargs={},
            timeout=timeout,
        )

    def execute(self, context: Any) -> Any:
        """Never called by a scheduler; a run without a triggerer has no business here."""
        raise Refusal(f"{self.task_id} runs in the triggerer only; start one")

    def resume(self, context: Any, event: Any = None, **kwargs: Any) -> Any:
        """End the task as failed, or do what the event asks for."""
        return self.act(context, event_of(context, event, self.stage), **kwargs)

    def act(self, context: Any, event: Event, **kwargs: Any) -> Any:
        """Do what an event asks for. Raises Refusal for one that this stage does not know."""
        raise Refusal(f"{self.task_id}: an event of kind {event.kind!r} is not known here")
