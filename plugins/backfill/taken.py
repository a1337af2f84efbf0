"""Whether a task was taken away by a person, or only its process is being ended: only then its Job may be deleted."""

from __future__ import annotations

import threading
from typing import Any

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

ASK_SECONDS = 3.0
"""Limit of the question for the task's state; a process that got SIGTERM has five seconds before SIGKILL."""


def state_now(ti: Any) -> str | None:
    """Return the state of a task instance as Airflow's API server has it, None when it has no state (cleared)."""
    found = RuntimeTaskInstance.get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id])
    name = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    state: str | None = found.get(ti.run_id, {}).get(name)
    return state


def taken_from_worker(ti: Any, log: Any) -> bool:
    """Return True when the task is surely not running any more; False also when Airflow does not answer in time.

    For signal handlers: the question is asked in a thread, since the interrupted call may hold the lock of the
    connection to the supervisor for as long as the handler runs.
    """
    answers: list[str | None] = []

    def ask() -> None:
        try:
            answers.append(state_now(ti))
        except Exception as error:
            log.info("the task's state is not known: %s: %s", type(error).__name__, error)

    asking = threading.Thread(target=ask, name="state of the task", daemon=True)
    asking.start()
    asking.join(ASK_SECONDS)
    return bool(answers) and answers[0] != "running"
