"""The undo's question: an answer stays given, and a rejection is final."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators import hitl
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput

from backfill.kit import answers
from backfill.operators.undo import UndoApproval
from tests.kit.waits import NAME, cluster, context, deferral, only_event

__all__ = ["cluster"]

Json = dict[str, Any]
MARCH = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Json]:
    """Questions that reached Airflow."""
    found: list[Json] = []
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **fields: found.append(fields))
    return found


def approval() -> tuple[UndoApproval, Json]:
    """The task and what it gets."""
    operator = UndoApproval(task_id="approve", cluster=NAME, subject="Put rows back?", body="31", fail_on_reject=True)
    made = context("approve", {})
    made["ti"].id = "ti"
    made["task_instance"] = SimpleNamespace(id="ti")
    return operator, made


def answer(*chosen: str) -> Json:
    """What Airflow hands to a task."""
    return {"chosen_options": list(chosen), "params_input": {}, "responded_at": MARCH,
            "responded_by_user": {"id": "1", "name": "jane"}}  # fmt: skip


def kept(monkeypatch: pytest.MonkeyPatch, *chosen: str) -> None:
    """Let the API server keep this answer to the question."""
    detail = SimpleNamespace(chosen_options=list(chosen), response_received=bool(chosen), params_input={},
                             responded_at=MARCH, responded_by_user=SimpleNamespace(id="1", name="jane"))  # fmt: skip
    monkeypatch.setattr(answers, "get_hitl_detail_content_detail", lambda ti_id: detail)


def looked_up(operator: UndoApproval, made: Json) -> Json:
    """Run the task again, as a retry does, and return what its trigger finds."""
    _, kwargs = deferral(operator.execute, made).trigger.serialize()
    return dict(asyncio.run(only_event(answers.AnswerTrigger(**kwargs | {"not_before": 0.0}))).payload)


def test_an_answer_that_airflow_has_lost_is_taken_by_the_next_try(
    cluster: str, asked: list[Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, made = approval()
    with pytest.raises(TaskAwaitingInput):
        operator.execute(made)
    kept(monkeypatch, "Approve")
    assert operator.looked_back(made, event=looked_up(operator, made))["chosen_options"] == ["Approve"]
    assert len(asked) == 1
    # Cleared by a person after that, it asks again: the old answer is spent.
    with pytest.raises(TaskAwaitingInput):
        operator.execute(made)
    assert len(asked) == 2


def test_a_question_without_an_answer_is_asked_again(
    cluster: str, asked: list[Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, made = approval()
    with pytest.raises(TaskAwaitingInput):
        operator.execute(made)
    kept(monkeypatch)
    with pytest.raises(TaskAwaitingInput):
        operator.looked_back(made, event=looked_up(operator, made))
    assert len(asked) == 2


def test_a_rejection_is_final_and_no_retry_asks_again(cluster: str) -> None:
    operator, made = approval()
    with pytest.raises(AirflowFailException, match="rejected; nothing was put back"):
        operator.execute_complete(made, answer("Reject"))
