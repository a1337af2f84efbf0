"""Answering an approval: once is not always enough, and an answer that others gave first is no error."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox import airflow_api
from sandbox.airflow_api import AirflowApi, ApiError
from sandbox.stack_wait import DeadlineExceededError

DAG, RUN = "dag", "run"


class Played(AirflowApi):
    """A client whose task goes through given states; each answer is kept."""

    def __init__(self, states: list[str], refusal: ApiError | None = None) -> None:
        super().__init__("http://127.0.0.1:9", "user", "password")
        self.answers: list[str] = []
        self._states = iter(states)
        self._refusal = refusal

    def wait_for_approval(self, *_args: Any, **_kw: Any) -> dict[str, Any]:
        return {"subject": "Delete?"}

    def states(self, *_args: Any, **_kw: Any) -> dict[int, str | None]:
        return {-1: next(self._states)}

    def respond(self, dag_id: str, run_id: str, option: str, *_args: Any, **_kw: Any) -> None:
        self.answers.append(option)
        if self._refusal:
            raise self._refusal

    def failures(self, dag_id: str, run_id: str, lines: int = 15) -> str:
        return "approve[-1]: boom"

    def summary(self, dag_id: str, run_id: str) -> str:
        return "approve awaiting_input x1"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_api, "ANSWER_POLL_SECONDS", 0.0)


def test_one_answer_is_enough_when_it_is_taken() -> None:
    with Played(["awaiting_input", "queued", "running", "success"]) as api:
        assert api.approve(DAG, RUN, 5) == {"subject": "Delete?"}
        assert api.answers == ["Approve"]


@pytest.mark.parametrize(("act", "end", "option"), [("approve", "success", "Approve"), ("reject", "failed", "Reject")])
def test_task_that_asks_again_is_answered_again(act: str, end: str, option: str) -> None:
    with Played(["awaiting_input", "up_for_retry", "running", "awaiting_input", end]) as api:
        getattr(api, act)(DAG, RUN, 5)
        assert api.answers == [option, option]


def test_approved_task_that_fails_is_an_error_with_its_log() -> None:
    with (
        Played(["awaiting_input", "failed"]) as api,
        pytest.raises(RuntimeError, match=r"ended failed: approve\[-1\]: boom"),
    ):
        api.approve(DAG, RUN, 5)


def test_rejected_task_that_ends_well_is_an_error() -> None:
    with Played(["awaiting_input", "success"]) as api, pytest.raises(RuntimeError, match="although it was rejected"):
        api.reject(DAG, RUN, 5)


def test_answer_that_somebody_gave_first_is_no_error_but_another_refusal_is() -> None:
    with Played(["awaiting_input", "success"], ApiError(409, "answered")) as api:
        api.approve(DAG, RUN, 5)
    with (
        Played(["awaiting_input", "success"], ApiError(403, "no right")) as api,
        pytest.raises(ApiError, match="no right"),
    ):
        api.approve(DAG, RUN, 5)


def test_task_that_never_ends_is_given_up_with_the_states() -> None:
    with (
        Played(["awaiting_input"] * 3) as api,
        pytest.raises(DeadlineExceededError, match=r"approve ends after Approve; approve awaiting_input x1"),
    ):
        api.approve(DAG, RUN, 0)
