"""The loop of every wait: look, decide, say why, sleep; a deadline, patience with outages, and an end of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Generic, TypeVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.sdk import BaseHook, Connection
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.triggers.base import BaseTrigger, TaskFailedEvent, TaskSuccessEvent, TriggerEvent
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_fixed

from backfill.groups import BATCHES, Group, pass_of, placed
from backfill.hooks import clickhouse, kubernetes, temporal
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.hooks.clickhouse_errors import is_access
from backfill.hooks.secrets import resolved
from backfill.kit import xcoms
from backfill.kit.look import Done, Failed, Look, Wait, Wake
from backfill.kit.poll import shared_poll
from backfill.kit.saying import say
from backfill.notify.watch import Watch
from backfill.settings import cluster_config
from backfill.slots import Place
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.graph import task_of
from include.scorecard_backfill.intervals import pause
from include.scorecard_backfill.records import FailEvent, Failure, Part, Record, RecordError, Stage, Window
from include.scorecard_backfill.verdicts.base import Verdict
from include.scorecard_backfill.verdicts.causes import what_to_do
from include.scorecard_backfill.verdicts.counts import Host

REPEAT_REASON_SECONDS = 300.0
"""An unchanged reason is logged again this often, so that a reader sees that the wait is alive."""

DEADLINE_MARGIN_SECONDS = 30.0
"""A wait ends itself this long before Airflow's own time-out would, because only it can say what it waited for."""

PREPARE_PAUSE_SECONDS = 5.0
"""Between two tries to read what earlier stages have left."""

PLAN_SECONDS = 60.0
"""How long the list of a run's windows is taken from the snapshot; a plan that was cleared may be another one."""

SHOW_EVERY_SECONDS = 10.0
"""The reason of a wait is written for the page at most this often."""

TOPOLOGY_SECONDS = 60.0
"""How long the list of hosts is taken from the snapshot; a host does not join a cluster within a minute."""


class WaitArgs(Part):
    """Arguments that every wait has, and a base of those of each trigger; all of them JSON.

    ``group`` is the task group of the window, ``key`` the window's. ``not_before`` in epoch seconds: a trigger that
    puts its task back to a worker before the scheduler has handled the event of the worker that deferred to it makes
    Airflow fail the task. A success ends the task here, which no late event changes.
    """

    cluster: str
    group: str = ""
    key: str = ""
    not_before: float = 0.0


Args = TypeVar("Args", bound=WaitArgs)


async def places_of(ti: xcoms.Instance, groups: Sequence[Group]) -> list[Place]:
    """Return the windows of a pass in the order of its list, [] when it was not reached; also those not yet opened."""
    source = groups[0].source
    numbers = await xcoms.apull(ti, source, xcoms.BATCHES) if groups == BATCHES else None
    listed = await xcoms.apull(ti, source, xcoms.PLANNED if numbers else xcoms.RESULT) or []
    return [Place(group, index, Window.from_json(item)) for group, index, item in placed(groups, listed, numbers or ())]


def is_transient(error: BaseException) -> bool:
    """Return True when a client calls the error passing, or a host or Airflow's own API has not answered."""
    if isinstance(error, (clickhouse.TopologyError, AirflowRuntimeError)):
        return True
    return clickhouse.is_transient(error) or kubernetes.is_transient(error) or temporal.is_transient(error)


class WaitTrigger(BaseTrigger, Generic[Args]):
    """A wait that ends its task by itself, or wakes a worker when something must be done.

    Subclasses name their stage, their ``path`` and the model of their arguments, and implement :meth:`look`. What other
    stages have left is not among the arguments: :meth:`prepare` reads it, so that a waiting window carries references
    and no lists.
    """

    path: ClassVar[str]
    stage: ClassVar[Stage]
    model: ClassVar[type[WaitArgs]]

    fails_on_worker: ClassVar[bool] = False
    """True for tasks with retries: Airflow would repeat a failure that a trigger reports; a worker ends it for good."""

    args: Args
    config: ClusterConfig
    window: Window

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        unknown = set(kwargs) - set(self.model.model_fields)
        if unknown or "cluster" not in kwargs:
            raise TypeError(f"{type(self).__name__} takes {', '.join(self.model.model_fields)}, not {sorted(unknown)}")
        self.given = dict(kwargs)
        # Set by the triggerer: the task instance's absolute time-out, which restarts and hand-overs keep.
        self.timeout_after: datetime | None = None
        self.label = ""
        self._shown: dict[str, Any] = {}
        self._reason = ""
        self._looking_since: float | None = None
        self._shown_at = self._since = datetime.min.replace(tzinfo=UTC)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the one class path and exactly the constructor's arguments."""
        return self.path, dict(self.given)

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        """Render nothing, since the arguments are references, and let go of the DAG.

        Airflow deserializes the whole DAG for each trigger that a task starts with, and keeps it and a context full of
        it for as long as the trigger runs: most of the memory of a waiting window. Nothing reads either of them here.
        """
        context.clear()
        self.task_instance.task = None  # type: ignore[union-attr]

    @property
    def poll_seconds(self) -> float:
        """Longest interval between two looks (seconds)."""
        raise NotImplementedError

    @property
    def pause_seconds(self) -> float:
        """Seconds until the next look, which grow with the wait. What a look shares is at most half as old."""
        waited = 0.0 if self._looking_since is None else time.monotonic() - self._looking_since
        return pause(waited, self.poll_seconds)

    @property
    def outage_seconds(self) -> float:
        """Seconds for which the other side may be unreachable before the wait fails."""
        return float(self.config.waits.outage_seconds)

    async def look(self) -> Look:
        """Look at the facts once."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """Read what other stages and earlier tries have left, once. Raises ValueError for what cannot be used."""

    @property
    def ti(self) -> Any:
        """The waiting task instance: dag_id, run_id, task_id, map_index, try_number."""
        return self.task_instance

    async def result_of(self, stage: Stage) -> Record | None:
        """Return the record that a stage left of this very window, None when it has left none."""
        task = task_of(stage, self.window.order, self.config.orders)
        return xcoms.of_window(await xcoms.arecord(self.ti, f"{self.args.group}.{task}"), self.window.key)

    async def places(self) -> list[Place]:
        """Return the windows of this pass in plan order: one list for all that wait in this process."""
        ti, groups = self.ti, pass_of(self.args.group)

        async def load() -> list[Place]:
            return await places_of(ti, groups)

        key = ("places", ti.dag_id, ti.run_id, groups[0].group)
        return await shared_poll().get(key, load, max_age=PLAN_SECONDS)

    async def _find_window(self) -> None:
        """Take this window from the plan. A trigger to which a worker deferred outside of a group has none."""
        if not self.args.group:
            return
        windows = [place.window for place in await self.places() if place.group == self.args.group]
        index = int(self.ti.map_index)
        if not 0 <= index < len(windows):
            raise ValueError(f"map index {index} is not in the plan of {len(windows)} windows")
        self.window = windows[index]
        self.label = self.window.label
        self.args = self.args.model_copy(update={"key": self.window.key})
        # The first line, whatever comes of it: Airflow shows an instance that starts here by its bare map index.
        await say(self.log.info, "window %s, key %s", self.label, self.args.key)

    def left(self) -> dict[str, Any]:
        """Return the fields of :class:`Failure` that a failure of this wait leaves to its next try."""
        return {}

    def failure(self, verdict: Verdict) -> Failure:
        """Return the failure of a verdict, with what its cause asks a person to do."""
        return Failure(
            key=self.args.key,
            stage=self.stage,
            cause=verdict.cause,
            reason=verdict.text,
            what_to_do=what_to_do(verdict.cause),
            **self.left(),
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is decided; the last thing yielded ends or resumes the task."""
        self.args = self.model.model_construct(**self.given)  # type: ignore[assignment]
        try:
            self.config = cluster_config(self.args.cluster)
            self.args = self.model.model_validate(self.given)  # type: ignore[assignment]
            await self._prepared()
        except (LookupError, ValueError, TypeError) as error:
            # A ValidationError of pydantic and a RecordError are ValueErrors.
            await self._until_it_may_fire()
            yield await self._final_event(self._broken(error))
            return
        watch = Watch(self.config, self.task_instance, self.stage, self.label, getattr(self, "window", None))
        look: Look | None = None
        try:
            look = await self._until_decided(watch)
        finally:
            watch.ended(look, on_worker=self.fails_on_worker)
        if not isinstance(look, Done):
            await self._until_it_may_fire()
        yield await self._final_event(look)

    async def _prepared(self) -> None:
        """Prepare, with patience: Airflow's own API may be away while it restarts."""
        retrying = AsyncRetrying(
            stop=stop_after_delay(self.outage_seconds),
            wait=wait_fixed(PREPARE_PAUSE_SECONDS),
            retry=retry_if_exception_type(AirflowRuntimeError),
            before_sleep=self._say_unreadable,
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    if not self.label:
                        await self._find_window()
                    await self.prepare()
        except AirflowRuntimeError as error:
            raise ValueError(f"what earlier stages left cannot be read: {error}") from error

    async def _say_unreadable(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        await say(self.log.info, "waiting: what earlier stages left cannot be read, trying again: %s", error)

    def _broken(self, error: Exception) -> Failed:
        kind = "" if isinstance(error, RecordError) else f"{type(error).__name__}: "
        verdict = Verdict("failed", (f"{kind}{error}",), "configuration")
        return Failed(
            Failure(
                key=str(self.args.key),
                stage=self.stage,
                cause=verdict.cause,
                reason=verdict.text,
                what_to_do=what_to_do(verdict.cause),
            )
        )

    async def _final_event(self, look: Look) -> TriggerEvent:
        if isinstance(look, Done):
            await say(self.log.info, "done: %s", look.why)
            result = look.result if isinstance(look.result, dict) else look.result.to_json()
            return TaskSuccessEvent(xcoms={"return_value": result})
        if isinstance(look, Wake):
            await say(self.log.info, "a worker goes on: %s", look.why)
            return TriggerEvent(look.event.to_json())
        assert isinstance(look, Failed)
        # All that wait fail at one moment when a run stops itself.
        await say(self.log.error, "%s failed: %s\n%s", self.stage, look.failure.text, look.failure.what_to_do)
        if self.fails_on_worker:
            return TriggerEvent(FailEvent(failure=look.failure).to_json())
        return TaskFailedEvent(xcoms={"return_value": look.failure.to_json()})

    async def _until_it_may_fire(self) -> None:
        await asyncio.sleep(max(0.0, float(self.args.not_before) - time.time()))

    async def _until_decided(self, watch: Watch) -> Look:
        outage_since: float | None = None
        said, said_at = "", 0.0
        self._looking_since = time.monotonic()
        while True:
            try:
                look = await self.look()
                outage_since = None
            except Exception as error:
                # A wait ends by verdicts only: what passes is waited for, everything else fails loudly with its text.
                outage_since = outage_since or time.monotonic()
                look = await self._after_error(error, time.monotonic() - outage_since)
            if not isinstance(look, Wait):
                return look
            if late := self._too_late():
                return Failed(self.failure(Verdict("failed", (late, *look.reasons), "deadline")))
            if look.text != said or time.monotonic() - said_at >= REPEAT_REASON_SECONDS:
                said, said_at = look.text, time.monotonic()
                await say(self.log.info, "waiting: %s", said)
            watch.waits(look)
            await self._show(look)
            await asyncio.sleep(self.pause_seconds)

    def shown(self) -> dict[str, Any]:
        """Return what the page is told besides the reason."""
        return {}

    async def _show(self, look: Wait) -> None:
        """Leave the reason for the page; nothing is decided by it, so that a failure is only logged."""
        now = datetime.now(UTC)
        if look.text != self._reason:
            self._since, self._reason = now, look.text
        shown = {"since": self._since.isoformat(), "reason": look.text, "done": look.done, "total": look.total}
        shown |= self.shown()
        if self.ti is None or shown == self._shown or (now - self._shown_at).total_seconds() < SHOW_EVERY_SECONDS:
            return
        self._shown, self._shown_at = shown, now
        ti = self.ti
        try:
            await BaseXCom.aset(
                xcoms.LOOK,
                {"at": now.isoformat(), **shown},
                dag_id=ti.dag_id,
                task_id=ti.task_id,
                run_id=ti.run_id,
                map_index=ti.map_index,
            )
        except Exception:
            await say(self.log.warning, "the reason cannot be shown on the page", exc_info=True)

    async def _after_error(self, error: Exception, for_seconds: float) -> Look:
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, AirflowNotFoundException):
            reason = f"a connection is missing in the triggerer: {text}"
            return Failed(self.failure(Verdict("failed", (reason,), "configuration")))
        if not is_transient(error):
            await say(self.log.error, "cannot go on", exc_info=error)
            house = is_access(error)
            if house:
                text = f"ClickHouse connection {self.config.clickhouse.conn_id!r}: {text}"
            cause = "access_denied" if house or kubernetes.is_permission(error) else "error"
            return Failed(self.failure(Verdict("failed", (text,), cause)))
        if temporal.is_lost(error):
            shared_poll().drop(("temporal", self.args.cluster))
        if for_seconds >= self.outage_seconds:
            reason = f"unreachable for {for_seconds:.0f} s: {text}"
            return Failed(self.failure(Verdict("failed", (reason,), "outage")))
        return Wait((f"unreachable for {for_seconds:.0f} s, trying again: {text}",), word="outage")

    def _too_late(self) -> str:
        """Return the sentence of a passed deadline. It runs from the start of the try, whatever was restarted since."""
        if self.timeout_after is None:
            return ""
        end = self.timeout_after if self.timeout_after.tzinfo else self.timeout_after.replace(tzinfo=UTC)
        end -= timedelta(seconds=DEADLINE_MARGIN_SECONDS)
        now = datetime.now(UTC)
        return f"not decided by {end:%Y-%m-%d %H:%M:%S} UTC" if now >= end else ""

    async def connection(self, conn_id: str) -> Connection:
        """Return a connection, read by the event loop's own call: a blocking one would hold up every trigger."""
        return await BaseHook.aget_connection(conn_id)

    async def clickhouse(self) -> BackfillClickHouse:
        """Return a hook for calls in a thread."""
        connection = await self.connection(self.config.clickhouse.conn_id)
        kubernetes = self.config.kubernetes
        return BackfillClickHouse(self.config, await resolved(connection, kubernetes.conn_id, kubernetes.context))

    async def hosts(self) -> tuple[Host, ...]:
        """Return the cluster's hosts from the shared snapshot."""

        async def load() -> tuple[Host, ...]:
            hook = await self.clickhouse()
            return await asyncio.to_thread(hook.topology)

        return await shared_poll().get(("hosts", self.args.cluster), load, max_age=TOPOLOGY_SECONDS)
