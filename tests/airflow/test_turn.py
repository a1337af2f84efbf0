"""A worker that wakes when another try has its place, or a person has ended it, sends no DELETE any more."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from backfill.deleting import deleter as module
from backfill.deleting.deleter import Deleter
from backfill.deleting.turn import Turn
from backfill.kit.stages import StageError
from backfill.kit.store import RunStore
from include.scorecard_backfill.planning.deletes import Step
from include.scorecard_backfill.verdicts.counts import Host
from tests.airflow.test_deleter import KEY, NAMES, PART
from tests.kit.store import Store
from tests.kit.waits import context, window

Json = dict[str, Any]

GONE = AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"message": "not found"}))


def turn(monkeypatch: pytest.MonkeyPatch, state: str | None, *, store: Store | None = None) -> Turn:
    """The turn of a try whose task has this state for Airflow."""
    task = context("windows.delete", task_state_store=store or Store())
    states = {"manual__1": {"windows.delete_0": state}}
    monkeypatch.setattr("backfill.taken.RuntimeTaskInstance.get_task_states", lambda **_: states)
    return Turn(task, window())


class Replaced(Store):
    """The state store of a try that was retried or cleared: the API server knows its id no more."""

    def get(self, key: str, default: Any = None) -> Any:
        """As Airflow: what is not found is the default, also when the task instance is not."""
        return default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Refused."""
        raise GONE


def test_the_try_that_runs_may_send(monkeypatch: pytest.MonkeyPatch) -> None:
    turn(monkeypatch, "running").check()


@pytest.mark.parametrize("state", ["success", "failed", "deferred", "queued", "up_for_retry", "removed", None])
def test_one_that_was_marked_or_cleared_may_not(state: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StageError, match=f"nothing is sent: this task is {state or 'without state'} for Airflow"):
        turn(monkeypatch, state).check()


def test_one_whose_place_another_try_has_may_not_although_the_task_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StageError, match="nothing is sent: Airflow does not have try 1 of this task") as refused:
        turn(monkeypatch, "running", store=Replaced()).check()
    assert refused.value.__cause__ is GONE


def tries(store: Store, number: int, identity: str, monkeypatch: pytest.MonkeyPatch) -> Turn:
    """A try of the task instance with this id, over what earlier ones have kept."""
    task = context("windows.delete", task_state_store=store)
    task["ti"].try_number, task["ti"].id = number, identity
    monkeypatch.setattr(
        RuntimeTaskInstance, "get_task_states", lambda **_: {"manual__1": {"windows.delete_0": "running"}}
    )
    return Turn(task, window())


def test_a_try_that_its_dead_scheduler_left_behind_may_not_send_beside_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Airflow puts a task of a dead scheduler back with the same id: both tries may write, and the task runs."""
    store = Store()
    left_behind, following = (tries(store, number, "the same", monkeypatch) for number in (1, 2))
    left_behind.check()
    following.check()
    with pytest.raises(StageError, match="nothing is sent: try 2 of this task has its place; this one, 1, is left"):
        left_behind.check()
    # It has not taken the turn back.
    following.check()


@pytest.mark.parametrize(("number", "identity"), [(1, "another"), (2, "the same"), (3, "the same")])
def test_who_comes_later_or_is_another_instance_may_send(
    number: int, identity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window's task instance that was made anew counts its tries from 1."""
    store = Store()
    tries(store, 2, "the same", monkeypatch).check()
    tries(store, number, identity, monkeypatch).check()


def sending(outcomes: list[str], turns: list[bool]) -> tuple[list[str], Deleter]:
    """A deleter whose server answers so, and that has its turn as often as it says, and what it has sent."""
    sent: list[str] = []
    left = iter(turns)

    def check() -> None:
        if not next(left):
            raise StageError("nothing is sent")

    def send_ddl(text: str, hosts: Any) -> Any:
        sent.append(text)
        return SimpleNamespace(outcome=outcomes[len(sent) - 1], errors={}, hosts=("node-1",), text="")

    hook: Any = SimpleNamespace(config=SimpleNamespace(cluster="conversations"), names=NAMES, send_ddl=send_ddl)
    store = RunStore({"task_state_store": Store()})
    return sent, Deleter(hook, [Host("node-1", 1)], store, logging.getLogger(__name__), KEY, 1, check)


@pytest.mark.parametrize(
    ("step", "outcomes", "turns", "leave"),
    [
        (Step("scorecard", PART), ["done"], [False], 0),
        (Step("scorecard", PART), ["refused", "done"], [True, False], 1),
        (Step("scorecard", PART, kind="drop", partitions=("1", "2")), ["done", "done"], [True, False], 1),
    ],
    ids=["before the first", "while a refusal is sat out", "between two partitions"],
)
def test_it_is_asked_right_before_each_statement(
    step: Step, outcomes: list[str], turns: list[bool], leave: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFUSED_SECONDS", 0.0)
    sent, deleter = sending(outcomes, turns)
    with pytest.raises(StageError, match="nothing is sent"):
        deleter.send(step)
    assert len(sent) == leave
    # What was not sent is looked for by the next try; it is not taken for sent.
    assert deleter.store.get(deleter._store_key(step))["state"] == "sending"


@pytest.mark.parametrize("state", ["scheduled", "queued", "running", "restarting"])
def test_a_window_before_this_one_that_has_a_worker_may_be_sending(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ahead(monkeypatch, "windows_2.delete", 1, {"windows_2.delete_0": state}) == 1


@pytest.mark.parametrize("state", ["deferred", "success", "failed", "up_for_retry", None])
def test_one_that_waits_or_has_ended_is_not_sending(state: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ahead(monkeypatch, "windows_2.delete", 1, {"windows_2.delete_0": state}) == 0


def test_windows_are_before_this_one_in_the_plans_order_over_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    others = dict.fromkeys(
        ("windows.delete_30", "windows_2.delete_0", "windows_2.wait_mutations_1", "windows_2.delete_2",
         "windows_2.delete_10", "windows_3.delete_0", "smaller_windows.delete_0"), "running",
    )  # fmt: skip
    assert ahead(monkeypatch, "windows_2.delete", 2, others) == 3
    assert ahead(monkeypatch, "windows_2.wait_mutations", 10, others) == 4
    assert ahead(monkeypatch, "single_days.delete", 0, others) == 7


def test_a_window_with_two_busy_stages_is_one_and_tasks_without_windows_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = {"windows.delete_0": "running", "windows.wait_mutations_0": "queued", "windows_2.delete": "scheduled"}
    assert ahead(monkeypatch, "windows.delete", 1, both) == 1


def test_nothing_is_sent_when_airflow_does_not_say_who_else_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StageError, match="nothing is sent: Airflow does not say which other windows are sending"):
        ahead(monkeypatch, "windows.delete", 1, GONE)


def ahead(monkeypatch: pytest.MonkeyPatch, task_id: str, index: int, said: Json | Exception) -> int:
    """How many windows are ahead of a task instance, when Airflow says this of all."""
    task = context(task_id, task_state_store=Store())
    task["ti"].map_index = index

    def states(*, task_ids: list[str], **_: Any) -> Json:
        if isinstance(said, Exception):
            raise said
        assert all(name.rpartition("_")[0] in task_ids for name in said if name[-1].isdigit())
        return {"manual__1": said}

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", states)
    return Turn(task, window()).ahead()
