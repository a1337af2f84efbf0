"""The loop of every wait: look, decide, say why, sleep; a deadline, patience with outages, and an end of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.sdk import BaseHook, Connection
from airflow.triggers.base import BaseTrigger, TaskFailedEvent, TaskSuccessEvent, TriggerEvent

from backfill.hooks import clickhouse, kubernetes, temporal
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit.poll import shared_poll
from backfill.settings import cluster_config
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.verdicts.base import Verdict, failed
from include.scorecard_backfill.verdicts.counts import Host

Json = dict[str, Any]

REPEAT_REASON_SECONDS = 300.0
"""An unchanged reason is logged again this often, so that a reader sees that the wait is alive."""

DEADLINE_MARGIN_SECONDS = 30.0
"""A wait ends itself this long before Airflow's own time-out would, because only it can say what it waited for."""

TOPOLOGY_SECONDS = 60.0
"""How long the list of hosts is taken from the snapshot; a host does not join a cluster within a minute."""


def is_transient(error: BaseException) -> bool:
    """Return True when one of the three clients calls the error passing, or a listed host has not answered."""
    if isinstance(error, clickhouse.TopologyError):
        return True
    return clickhouse.is_transient(error) or kubernetes.is_transient(error) or temporal.is_transient(error)


@dataclass(slots=True)
class Look:
    """Result of one look: the verdict, what the task returns when it is ok, and what a failure leaves to its retry.

    ``resume`` is set when the answer is that a worker must act: the payload of the event that wakes it.
    """

    verdict: Verdict
    result: Json = field(default_factory=dict)
    resume: Json | None = None


class WaitTrigger(BaseTrigger):
    """A wait that ends its task by itself.

    Subclasses set ``fields`` (names of their constructor arguments, all JSON) and implement :meth:`look`.
    """

    path: ClassVar[str]
    fields: ClassVar[tuple[str, ...]] = ()

    fails_on_worker: ClassVar[bool] = False
    """True for tasks with retries: Airflow would repeat a failure that a trigger reports; a worker ends it for good."""

    def __init__(self, cluster: str, key: Any = "", not_before: float = 0.0, **kwargs: Any) -> None:
        super().__init__()
        unknown = set(kwargs) - set(self.fields)
        if unknown:
            raise TypeError(f"{type(self).__name__} takes no {', '.join(sorted(unknown))}")
        self.cluster = cluster
        self.key = key
        # Epoch seconds. A trigger that fires before the scheduler handled the event of the worker that deferred to it
        # makes Airflow fail the task.
        self.not_before = not_before
        # Set by the triggerer: the task instance's absolute time-out, which restarts and hand-overs keep.
        self.timeout_after: datetime | None = None
        for name in self.fields:
            setattr(self, name, kwargs.get(name, ""))

    def serialize(self) -> tuple[str, Json]:
        """Return the one class path and exactly the constructor's arguments."""
        names = ("cluster", "key", "not_before", *self.fields)
        return self.path, {name: getattr(self, name) for name in names}

    @property
    def poll_seconds(self) -> float:
        """Seconds between two looks."""
        raise NotImplementedError

    @property
    def outage_seconds(self) -> float:
        """Seconds for which the other side may be unreachable before the wait fails."""
        return float(self.config.kubernetes.outage_seconds)

    async def look(self) -> Look:
        """Look at the facts once."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is decided; the last thing yielded ends or resumes the task."""
        try:
            self.config: ClusterConfig = cluster_config(self.cluster)
            self.prepare()
        except (LookupError, ValueError, KeyError, TypeError) as error:
            yield self._failure(failed("configuration", f"{type(error).__name__}: {error}"))
            return
        await asyncio.sleep(max(0.0, self.not_before - time.time()))
        async for look in self._looks():
            if look.resume is not None:
                yield TriggerEvent(look.resume)
            elif look.verdict.state == "ok":
                self.log.info("done: %s", look.verdict.text)
                yield TaskSuccessEvent(xcoms={"return_value": look.result})
            else:
                yield self._failure(look.verdict, look.result)
            return

    def prepare(self) -> None:
        """Parse the kwargs, once, after they were rendered. Raises ValueError for what cannot be used."""

    async def _looks(self) -> AsyncIterator[Look]:
        outage_since: float | None = None
        said, said_at = "", 0.0
        while True:
            try:
                look = await self.look()
                outage_since = None
            except Exception as error:
                # A wait ends by verdicts only: what passes is waited for, everything else fails loudly with its text.
                outage_since = outage_since or time.monotonic()
                look = self._after_error(error, time.monotonic() - outage_since)
            if look.verdict.state == "wait" and (late := self._too_late()):
                look = Look(failed("deadline", late, *look.verdict.reasons), look.result)
            if look.verdict.state != "wait" or look.resume is not None:
                yield look
                return
            if look.verdict.text != said or time.monotonic() - said_at >= REPEAT_REASON_SECONDS:
                said, said_at = look.verdict.text, time.monotonic()
                self.log.info("waiting: %s", said)
            await asyncio.sleep(self.poll_seconds)

    def _after_error(self, error: Exception, for_seconds: float) -> Look:
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, AirflowNotFoundException):
            return Look(failed("configuration", f"a connection is missing in the triggerer: {text}"))
        if not is_transient(error):
            self.log.exception("cannot go on")
            return Look(failed("error", text))
        if temporal.is_lost(error):
            shared_poll().drop(("temporal", self.cluster))
        if for_seconds >= self.outage_seconds:
            return Look(failed("outage", f"unreachable for {for_seconds:.0f} s: {text}"))
        return Look(Verdict("wait", (f"unreachable for {for_seconds:.0f} s, trying again: {text}",)))

    def _too_late(self) -> str:
        """Return the sentence of a passed deadline. It runs from the start of the try, whatever was restarted since."""
        if self.timeout_after is None:
            return ""
        end = self.timeout_after if self.timeout_after.tzinfo else self.timeout_after.replace(tzinfo=UTC)
        if datetime.now(UTC) < end - timedelta(seconds=DEADLINE_MARGIN_SECONDS):
            return ""
        return f"not decided by {end.isoformat(timespec='seconds')}, the deadline of this try"

    def _failure(self, verdict: Verdict, result: Json | None = None) -> TriggerEvent:
        self.log.error("failed (%s): %s", verdict.cause, verdict.text)
        record = {
            **(result or {}),
            "key": self.key,
            "status": "failed",
            "cause": verdict.cause,
            "reason": verdict.text[:2_000],
        }
        if self.fails_on_worker:
            return TriggerEvent({"action": "fail", "record": record})
        return TaskFailedEvent(xcoms={"return_value": record})

    async def connection(self, conn_id: str) -> Connection:
        """Read a connection with the async API; sync access inside a trigger can lock the triggerer."""
        return await BaseHook.aget_connection(conn_id)

    async def clickhouse(self) -> BackfillClickHouse:
        """Return the cluster's ClickHouse hook; its calls block, so they go through ``asyncio.to_thread``."""
        return BackfillClickHouse(self.config, await self.connection(self.config.clickhouse.conn_id))

    async def hosts(self) -> tuple[Host, ...]:
        """Return the hosts of the cluster, from the shared snapshot."""

        async def load() -> tuple[Host, ...]:
            hook = await self.clickhouse()
            return await asyncio.to_thread(hook.topology)

        return await shared_poll().get(("hosts", self.cluster), load, max_age=TOPOLOGY_SECONDS)
