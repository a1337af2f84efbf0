"""What Airflow says about a task whose process is being ended: only a person's decision about this try ends its Job."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from asgiref.sync import sync_to_async

from backfill.kit.saying import say
from include.scorecard_backfill.ownership import Owner, asked_to_end

T = TypeVar("T")

ASK_SECONDS = 3.0
"""Limit of the question for the task's state; a process that got SIGTERM has five seconds before SIGKILL."""


def me(ti: Any) -> Owner:
    """Return the try of a task instance as an owner of Jobs."""
    return Owner(ti.run_id, ti.task_id, ti.map_index if ti.map_index is not None else -1, ti.try_number)


def state_now(ti: Any) -> str | None:
    """Return the state of a task instance as Airflow's API server has it, None when it has no state (cleared)."""
    found = RuntimeTaskInstance.get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id])
    name = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    state: str | None = found.get(ti.run_id, {}).get(name)
    return state


def in_thread(do: Callable[[], T], seconds: float | None, log: Any, what: str) -> T | None:
    """Run something in a thread; None when it fails or does not end in time, which is logged.

    For signal handlers: the interrupted call may hold the lock of the connection to the supervisor, or an event loop,
    for as long as the handler runs.
    """
    answers: list[T] = []

    def ask() -> None:
        try:
            answers.append(do())
        except Exception as error:
            log.warning("%s: %s: %s", what, type(error).__name__, error)

    asking = threading.Thread(target=ask, name=what, daemon=True)
    asking.start()
    asking.join(seconds)
    if not answers and asking.is_alive():
        log.warning("%s: no answer within %s s", what, seconds)
    return answers[0] if answers else None


def run_in_thread(work: Callable[[], Coroutine[Any, Any, T]], seconds: float | None, log: Any, what: str) -> T | None:
    """Run a coroutine to its end in a thread with an event loop of its own (see :func:`in_thread`)."""
    return in_thread(lambda: asyncio.run(work()), seconds, log, what)


def person_ended_worker_task(ti: Any, log: Any) -> bool:
    """Return True when a person has ended the running try; False also when Airflow does not answer in time."""
    return asked_to_end(in_thread(lambda: state_now(ti), ASK_SECONDS, log, "asking for the task's state"))


async def person_ended_deferred_task(ti: Any, log: Any) -> bool:
    """Return True when a person has ended the deferred try; False also when Airflow does not answer in time.

    A triggerer that shuts down has no connection any more; then nothing may be deleted.
    """
    if ti is None:
        return False
    try:
        state = await asyncio.wait_for(sync_to_async(state_now)(ti), ASK_SECONDS)
    except Exception as error:
        await say(log.info, "the task's state is not known (%s): its Job is left alone", type(error).__name__)
        return False
    if not asked_to_end(state):
        known = state or "without state"
        await say(log.info, "the task is %s now, nobody has ended this try: its Job is left alone", known)
        return False
    return True
