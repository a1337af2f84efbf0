"""The activities: read the source store, write to ClickHouse, heartbeat, and fail where a fault says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from sandbox.data.generate import DAY_MS, day_ms, day_of
from sandbox.data.loader import Target
from sandbox.data.source import Batch, SourceReader, iso_utc, parse_utc
from sandbox.data.spec import database_name
from sandbox.data.tables import reindex_blocks
from sandbox.reindexer.faultfile import FaultFile
from sandbox.reindexer.faults import DEADLOCK_TEXT, Kind, Limits, Request, deadlocks, decide, is_dropped
from sandbox.reindexer.model import (
    PREPARE_ACTIVITY,
    PROGRESS_DONE,
    PROGRESS_TOTAL,
    REINDEX_ACTIVITY,
    Directive,
    ReindexPlan,
    ReindexRequest,
    ReindexResult,
)

HEARTBEAT_SECONDS = 0.2
"""Time between two heartbeats; far below every heartbeat time-out used here."""

HOLD_POLL_SECONDS = 0.1
"""How often a held activity looks whether its rule is gone."""

_Value = TypeVar("_Value")


class ClosableTarget(Target, Protocol):
    """A Target that holds a connection."""

    def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True)
class Settings:
    """Settings of a worker. Times in seconds, sizes in conversations.

    short_timeout replaces the heartbeat or start-to-close time-out of a run that is to end by it.
    """

    source: Path
    limits: Limits = field(default_factory=Limits)
    batch_size: int = 500
    seconds_per_batch: float = 0.0
    heartbeat_timeout: float = 15.0
    start_to_close_timeout: float = 3600.0
    short_timeout: float = 1.5
    max_attempts: int = 2


@dataclass
class _Progress:
    """Counts of one attempt of the activity."""

    total: int
    conversations: int = 0
    seen: int = 0
    scorecards: int = 0
    scores: int = 0

    def details(self) -> dict[str, int]:
        return {PROGRESS_DONE: self.conversations, PROGRESS_TOTAL: self.total}


@dataclass
class ReindexActivities:
    """The two activities of one worker. `connect` opens a target for one attempt, in a thread."""

    settings: Settings
    faults: FaultFile
    connect: Callable[[], ClosableTarget]
    client: Client
    _running: set[tuple[str, int]] = field(default_factory=set)
    _deadlocked: set[str] = field(default_factory=set)

    @activity.defn(name=PREPARE_ACTIVITY)
    async def prepare(self, request: ReindexRequest) -> ReindexPlan:
        """Count the conversations and decide, once per run, what goes wrong."""
        start, end = _range(request)
        total = await _in_thread(lambda: self._count(request, start, end))
        run = _run_id()
        faults = self.faults.read()
        directive = decide(
            Request(request.customer_id, request.profile_id, start, end, total),
            faults,
            self.faults.used(run),
            faults.limits(self.settings.limits),
        )
        self.faults.record(directive.fired, run)
        part_end = _half(start, end) if directive.failure == Kind.CONTINUE_AS_NEW else None
        if part_end is not None:
            total = await _in_thread(lambda: self._count(request, start, part_end))
        return self._plan(total, directive, part_end)

    @activity.defn(name=REINDEX_ACTIVITY)
    async def reindex(self, request: ReindexRequest, plan: ReindexPlan) -> ReindexResult:
        """Insert the ordinary scorecards and scores of the range; a repeat writes the same keys again."""
        key = (_run_id(), activity.info().attempt)
        self._running.add(key)
        progress = _Progress(plan.total)
        try:
            async with _heartbeats(progress) as beat:
                self._check_deadlock(key[0])
                await self._hold(plan.directive)
                await self._write(request, plan, progress, beat)
        finally:
            self._running.discard(key)
        return ReindexResult(progress.conversations, progress.scorecards, progress.scores)

    def _plan(self, total: int, directive: Directive, part_end: int | None) -> ReindexPlan:
        settings = self.settings
        by_heartbeat = directive.failure == Kind.HEARTBEAT_TIMEOUT
        by_length = directive.failure == Kind.START_TO_CLOSE_TIMEOUT
        return ReindexPlan(
            total=total,
            directive=directive,
            heartbeat_timeout=settings.short_timeout if by_heartbeat else settings.heartbeat_timeout,
            start_to_close_timeout=settings.short_timeout if by_length else settings.start_to_close_timeout,
            max_attempts=settings.max_attempts,
            part_end="" if part_end is None else iso_utc(part_end),
        )

    def _count(self, request: ReindexRequest, start: int, end: int) -> int:
        reader = SourceReader(self.settings.source)
        try:
            return reader.count(request.customer_id, request.profile_id, iso_utc(start), iso_utc(end))
        finally:
            reader.close()

    def _check_deadlock(self, run: str) -> None:
        """A run that came on top of too many others fails, and so do its retries."""
        limits = self.faults.read().limits(self.settings.limits)
        if run not in self._deadlocked and deadlocks(len({other for other, _ in self._running}), limits):
            self._deadlocked.add(run)
        if run in self._deadlocked:
            raise ApplicationError(DEADLOCK_TEXT, type="PgError")

    async def _hold(self, directive: Directive) -> None:
        """Wait until the rule is gone from the faults file."""
        if not directive.hold_rule:
            return
        # A file has no event to wait for.
        while directive.hold_rule in {rule.id for rule in self.faults.read().rules}:  # noqa: ASYNC110
            await asyncio.sleep(HOLD_POLL_SECONDS)

    async def _write(
        self, request: ReindexRequest, plan: ReindexPlan, progress: _Progress, beat: asyncio.Task[None]
    ) -> None:
        start, end = _range(request)
        after, end_text = (iso_utc(start), ""), plan.part_end or iso_utc(end)
        reader = SourceReader(self.settings.source)
        pause = plan.directive.seconds_per_batch or self.settings.seconds_per_batch
        target: ClosableTarget | None = None
        try:
            target = await _in_thread(self.connect)
            while True:
                if progress.conversations * 2 >= plan.total and _fails_now(plan.directive):
                    await self._fail(plan, beat)
                batch = await _in_thread(self._reading(reader, request, after, end_text))
                if batch is None:
                    return
                await asyncio.sleep(pause)
                await _in_thread(self._writing(target, request, plan.directive, batch, progress))
                after = batch.last
        finally:
            reader.close()
            if target is not None:
                target.close()

    def _reading(
        self, reader: SourceReader, request: ReindexRequest, after: tuple[str, str], end: str
    ) -> Callable[[], Batch | None]:
        size = self.settings.batch_size
        return lambda: reader.batch(request.customer_id, request.profile_id, after, end, size)

    def _writing(
        self,
        target: ClosableTarget,
        request: ReindexRequest,
        directive: Directive,
        batch: Batch,
        progress: _Progress,
    ) -> Callable[[], None]:
        def write() -> None:
            lost = {
                card.scorecard_id
                for index, card in enumerate(batch.scorecards, start=progress.seen)
                if is_dropped(index, directive.drop_share)
            }
            cards, scores = reindex_blocks(
                request.customer_id,
                request.profile_id,
                (card for card in batch.scorecards if card.scorecard_id not in lost),
                (score for score in batch.scores if score.scorecard.scorecard_id not in lost),
                time.time_ns() // 1_000_000,
            )
            database = database_name(request.customer_id, request.profile_id)
            target.insert(database, cards)
            target.insert(database, scores)
            progress.seen += len(batch.scorecards)
            # A silent loss is not counted: the workflow itself believes that it wrote everything.
            progress.scorecards += len(batch.scorecards)
            progress.scores += len(batch.scores)
            progress.conversations += batch.conversations

        return write

    async def _fail(self, plan: ReindexPlan, beat: asyncio.Task[None]) -> NoReturn:
        """End this attempt as the directive says, about half-way through the conversations."""
        directive, info = plan.directive, activity.info()
        kind = Kind(directive.failure)
        if kind is Kind.DEADLOCK:
            raise ApplicationError(directive.message or DEADLOCK_TEXT, type="PgError")
        if kind is Kind.FAIL:
            raise ApplicationError(directive.message or "reindex failed on purpose", type="ReindexError")
        if kind is Kind.HEARTBEAT_TIMEOUT:
            beat.cancel()
        handle = self.client.get_workflow_handle(info.workflow_id or "", run_id=info.workflow_run_id)
        if kind is Kind.CANCEL:
            await handle.cancel()
        if kind is Kind.TERMINATE:
            await handle.terminate(reason=directive.message or "terminated by operations")
        # The server ends the attempt from outside; 10 times the time-out is only a bound for this task.
        await asyncio.sleep(10 * max(plan.heartbeat_timeout, self.settings.short_timeout))
        raise ApplicationError(f"fault {kind.value} had no effect on {info.workflow_id}", non_retryable=True)


def _fails_now(directive: Directive) -> bool:
    if not directive.failure or directive.failure == Kind.CONTINUE_AS_NEW:
        return False
    return directive.attempts == 0 or activity.info().attempt <= directive.attempts


def _range(request: ReindexRequest) -> tuple[int, int]:
    """[start, end) of the request in UTC milliseconds; a bad text fails the workflow without a retry."""
    try:
        return parse_utc(request.start), parse_utc(request.end)
    except ValueError as error:
        raise ApplicationError(str(error), type="BadRange", non_retryable=True) from error


def _half(start_ms: int, end_ms: int) -> int | None:
    """The day boundary in the middle of a range, None for a range of less than two days."""
    if end_ms - start_ms < 2 * DAY_MS:
        return None
    return day_ms(day_of((start_ms + end_ms) // 2))


def _run_id() -> str:
    return activity.info().workflow_run_id or activity.info().activity_id


@asynccontextmanager
async def _heartbeats(progress: _Progress) -> AsyncIterator[asyncio.Task[None]]:
    """Heartbeat the progress until the block ends; cancel the task to stop heartbeating early."""

    async def beat() -> None:
        while True:
            activity.heartbeat(progress.details())
            await asyncio.sleep(HEARTBEAT_SECONDS)

    task = asyncio.create_task(beat())
    try:
        yield task
    finally:
        task.cancel()


async def _in_thread(function: Callable[[], _Value]) -> _Value:
    """Run a blocking call in a thread; a cancelled caller still waits for it, so no connection is closed
    under its feet."""
    task = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
