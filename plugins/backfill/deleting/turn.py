"""Whose turn it is to send: a worker that was halted for hours may wake when another try has done its work.

The scheduler gives a try up whose supervisor sends no heartbeat, and a supervisor that wakes ends its worker; but a
worker that wakes together with it may be faster. What it would send then, unbounded, would take rows that were
reindexed meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from backfill.groups import GROUPS
from backfill.kit.stages import StageError
from backfill.kit.store import WindowStore
from backfill.taken import state_now
from include.scorecard_backfill.records import Window

SENDER = "sender"
"""[id of the task instance, number of the try] that has asked last whether it may send."""

SENDING_STAGES = ("delete", "wait_mutations")
"""Stages whose worker sends statements; one that waits for something is deferred meanwhile."""

NOWHERE = (-1, -1)

ABOUT_TO_SEND = frozenset({"scheduled", "queued", "running", "restarting"})


class Turn:
    """One try of a stage, asked anew before each statement that deletes."""

    def __init__(self, context: Mapping[str, Any], window: Window) -> None:
        self._ti: RuntimeTaskInstance = context["ti"]
        self._store = WindowStore(context, window)

    def check(self) -> None:
        """Return when Airflow still has this very try as the one that runs; nothing may stand between this and sending.

        A try that was retried or cleared has given its id up: the API server does not let it write any more. One that a
        person has marked keeps its id, and is not running. One whose scheduler has died keeps its id, too, and shares
        it with the next try, which runs beside it until its supervisor's next heartbeat.

        Raises:
            StageError: another try has its place, a person has ended it, or Airflow does not say.
        """
        mine = [str(self._ti.id), self._ti.try_number]
        try:
            last: Any = self._store.get(SENDER)
            if is_later(last, mine):
                raise StageError(
                    f"nothing is sent: try {last[1]} of this task has its place; this one, {mine[1]}, is left over from"
                    " a scheduler that has died"
                )
            self._store.set(SENDER, mine)
            state = state_now(self._ti)
        except AirflowRuntimeError as error:
            raise StageError(
                f"nothing is sent: Airflow does not have try {self._ti.try_number} of this task as the one that runs"
                f" (it was halted, and another try has its place, or the API server cannot be asked): {error}"
            ) from error
        if state != "running":
            raise StageError(
                f"nothing is sent: this task is {state or 'without state'} for Airflow and not running; try"
                f" {self._ti.try_number} of it was ended or cleared meanwhile"
            )

    def ahead(self) -> int:
        """Return how many windows before this one have a worker that may be sending at this moment.

        Windows that look at the same moment all see the same room for statements; the plan's order says whose it is.
        Ask this before the look: whoever is not counted here any more has sent what the look shows.

        Raises:
            StageError: Airflow does not say.
        """
        tasks = [f"{group}.{stage}" for group in GROUPS for stage in SENDING_STAGES]
        run_id = self._ti.run_id
        try:
            found = RuntimeTaskInstance.get_task_states(dag_id=self._ti.dag_id, task_ids=tasks, run_ids=[run_id])
        except AirflowRuntimeError as error:
            raise StageError(
                f"nothing is sent: Airflow does not say which other windows are sending: {error}"
            ) from error
        busy = {_place(name) for name, state in found.get(run_id, {}).items() if state in ABOUT_TO_SEND}
        mine = _place(f"{self._ti.task_id}_{self._ti.map_index}")
        return sum(NOWHERE < place < mine for place in busy)


def is_later(last: object, mine: Sequence[object]) -> bool:
    """Whether a later try of the same task instance has asked already. Both: (id, number of the try)."""
    return isinstance(last, list) and last[:1] == [*mine[:1]] and last[1:] > [*mine[1:]]


def _place(name: str) -> tuple[int, int]:
    """Return where in the plan the window of ``group.stage_index`` is, NOWHERE for a task that has no window."""
    task_id, _, index = name.rpartition("_")
    return (GROUPS.index(task_id.rpartition(".")[0]), int(index)) if index.isdigit() else NOWHERE
