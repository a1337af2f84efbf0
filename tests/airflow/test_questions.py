"""Questions to a person: who is asked; an answer stays given, and it is one to the text that was shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators import hitl
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError, ErrorType, TaskAwaitingInput
from airflow.sdk.execution_time.comms import ErrorResponse

from backfill.kit import answers
from backfill.operators.approve import PlanApproval
from backfill.operators.question import Question
from backfill.operators.undo import UndoApproval
from tests.kit.waits import NAME, cluster, context, deferral, only_event

__all__ = ["cluster"]

Json = dict[str, Any]
Asking = tuple[Question, Json]

MARCH = datetime(2026, 3, 2, 6, tzinfo=UTC)

TERMS: Json = {"mode": "cleanup", "windows": "0123"}


def approval(run: Json, planned: Any = ("w",), terms: Json = TERMS) -> tuple[PlanApproval, Json]:
    """The approve task of a run with these parameters."""
    operator = PlanApproval(task_id="approve", cluster=NAME, subject="Delete?", body="plan", fail_on_reject=True)
    left = {("plan", "run"): run, ("plan", "planned"): list(planned), ("plan", "terms"): terms}
    made = context("approve", left)
    made["ti"].id = "ti"
    made["task_instance"] = SimpleNamespace(id="ti")
    made["ti"].map_index = -1
    return operator, made


ASKS: Json = {"destructive": True, "require_approval": True}


def undo() -> tuple[UndoApproval, Json]:
    """The approve task of an undo."""
    operator = UndoApproval(task_id="approve", cluster=NAME, subject="Put rows back?", body="31", fail_on_reject=True)
    made = context("approve", {})
    made["ti"].id = "ti"
    made["task_instance"] = SimpleNamespace(id="ti")
    return operator, made


def plan() -> Asking:
    """The approve task of a cleanup."""
    return approval(ASKS)


EVERY = pytest.mark.parametrize("question", [plan, undo])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Json]:
    """Questions that reached Airflow."""
    found: list[Json] = []
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **fields: found.append(fields))
    return found


def answer(option: str) -> Json:
    """A person's answer as Airflow hands it to the task."""
    user = {"id": "1", "name": "jane"}
    return {"chosen_options": [option], "params_input": {}, "responded_at": MARCH, "responded_by_user": user}


def detail(*chosen: str) -> Any:
    """What the API server keeps of a question."""
    return SimpleNamespace(chosen_options=list(chosen), response_received=bool(chosen), params_input={},
                           responded_at=MARCH, responded_by_user=SimpleNamespace(id="1", name="jane"))  # fmt: skip


def looked_up(operator: Question, made: Json) -> Json:
    """Run the task again, as a retry does, and return what its trigger finds."""
    found = deferral(operator.execute, made)
    assert found.method_name == "looked_back"
    path, kwargs = found.trigger.serialize()
    assert path == "backfill.kit.answers.AnswerTrigger"
    return dict(asyncio.run(only_event(answers.AnswerTrigger(**kwargs | {"not_before": 0.0}))).payload)


@EVERY
def test_an_answer_that_airflow_has_lost_is_taken_by_the_next_try(
    monkeypatch: pytest.MonkeyPatch, cluster: str, asked: list[Json], question: Callable[[], Asking]
) -> None:
    operator, made = question()
    with pytest.raises(TaskAwaitingInput):
        operator.execute(made)
    # Answered before the scheduler has seen it wait: Airflow fails the task, and its retry comes.
    monkeypatch.setattr(answers, "get_hitl_detail_content_detail", lambda ti_id: detail("Approve"))
    found = looked_up(operator, made)
    assert operator.looked_back(made, event=found)["chosen_options"] == ["Approve"]
    if question is plan:
        assert made["ti"].xcoms["approve", "terms"] == TERMS
    assert len(asked) == 1
    # Cleared by a person after that, it asks again: the old answer is spent.
    with pytest.raises(TaskAwaitingInput):
        operator.execute(made)
    assert len(asked) == 2


def unknown(ti_id: str) -> Any:
    raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))


@EVERY
@pytest.mark.parametrize("known", [lambda ti_id: detail(), unknown])
def test_a_question_without_an_answer_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, cluster: str, asked: list[Json], known: Any, question: Callable[[], Asking]
) -> None:
    monkeypatch.setattr(answers, "get_hitl_detail_content_detail", known)
    operator, made = question()
    with pytest.raises(TaskAwaitingInput):
        operator.execute(made)
    found = looked_up(operator, made)
    assert found == {}
    with pytest.raises(TaskAwaitingInput):
        operator.looked_back(made, event=found)
    assert len(asked) == 2


@EVERY
def test_a_rejection_is_final_and_no_retry_asks_again(
    cluster: str, asked: list[Json], question: Callable[[], Asking]
) -> None:
    operator, made = question()
    with pytest.raises(AirflowFailException, match=r"was rejected by jane; nothing was"):
        operator.execute_complete(made, answer("Reject"))


def test_another_plan_is_not_asked_about_under_the_text_of_the_first(cluster: str, asked: list[Json]) -> None:
    operator, made = plan()
    with pytest.raises(TaskAwaitingInput):
        operator.execute(made)
    made["ti"].xcoms["plan", "terms"] = TERMS | {"mode": "reindex"}
    with pytest.raises(AirflowFailException, match=r"the plan is another one .* start a new run"):
        operator.execute(made)
    assert len(asked) == 1


def test_other_rows_are_not_put_back_under_the_text_of_the_first_ones(cluster: str, asked: list[Json]) -> None:
    operator, made = undo()
    with pytest.raises(TaskAwaitingInput):
        operator.execute(made)
    operator.body = "3,100"
    with pytest.raises(AirflowFailException, match=r"other rows are missing .* nothing was put back. Start a new run"):
        operator.execute(made)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("run", "planned", "why"),
    [
        (ASKS | {"destructive": False}, ["w"], "nothing is deleted"),
        (ASKS | {"require_approval": False}, ["w"], "the run does not ask for one"),
        (ASKS, [], "the plan has no window"),
    ],
)
def test_nobody_is_asked_when_there_is_nothing_to_approve(run: Json, planned: list[str], why: str) -> None:
    operator, made = approval(run, planned)
    assert operator.execute(made) == {"chosen_options": ["not needed"], "reason": why}


def test_where_each_sweep_asks_the_plan_does_not() -> None:
    terms = TERMS | {"a person is asked at": "sweep"}
    operator, made = approval(ASKS, terms=terms)
    assert operator.execute(made)["reason"] == "each sweep asks, with its numbers (approve: sweep)"
    # What goes on unasked is bound all the same.
    assert made["ti"].xcoms["approve", "terms"] == terms


@pytest.mark.parametrize("at", ["plan", "both"])
def test_otherwise_the_plan_asks(monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **fields: None)
    operator, made = approval(ASKS, terms=TERMS | {"a person is asked at": at})
    with pytest.raises(TaskAwaitingInput):
        operator.execute(made)


def test_a_plan_that_deletes_asks_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Json] = []
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **fields: asked.append(fields))
    operator, made = approval(ASKS)
    with pytest.raises(TaskAwaitingInput):
        operator.execute(made)
    assert asked[0]["options"] == ["Approve", "Reject"]
    # Nothing that comes by itself with time may count as a yes.
    assert asked[0]["defaults"] is None


def test_a_rejected_plan_is_final_and_is_not_asked_again_by_a_retry() -> None:
    operator, made = approval(ASKS)
    with pytest.raises(AirflowFailException, match="the plan was rejected by jane; nothing was deleted"):
        operator.execute_complete(made, answer("Reject"))
    assert made["ti"].xcoms["approve", "rejected"] == {"by": "jane"}
    assert ("approve", "terms") not in made["ti"].xcoms


def test_an_approved_plan_goes_on() -> None:
    operator, made = approval(ASKS)
    assert operator.execute_complete(made, answer("Approve"))["chosen_options"] == ["Approve"]
    # What was approved, for each destructive step to compare.
    assert made["ti"].xcoms["approve", "terms"] == TERMS


def test_an_answer_that_nobody_was_offered_is_no_approval() -> None:
    operator, made = approval(ASKS)
    with pytest.raises(ValueError, match="not in"):
        operator.execute_complete(made, answer("Maybe"))
