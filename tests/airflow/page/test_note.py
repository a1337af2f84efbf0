"""Why a run was refused stands in its note, written in the scheduler's session by Airflow's own call of listeners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from airflow.models.dagrun import DagRun, DagRunNote
from airflow.utils.session import create_session
from airflow.utils.sqlalchemy import prohibit_commit
from airflow.utils.state import DagRunState
from sqlalchemy import delete, event, select
from sqlalchemy.orm import Session

from backfill import listener
from tests.kit.page_story import DAG, OTHER, Story

SENTENCE = "plan refused, nothing was deleted:\n- unknown customer 'soylnt': did you mean soylent?"


@pytest.fixture
def session(story: Session) -> Iterator[Session]:
    yield story
    story.rollback()
    with create_session() as other:
        other.execute(delete(DagRun).where(DagRun.dag_id == OTHER))


def refused(session: Session, run_id: str, *left: tuple[str, str, Any]) -> DagRun:
    """A run in which these XComs (task, key, value) were left."""
    told = Story(session, run_id)
    for task_id, key, value in left:
        told.task(task_id, "failed")
        told.xcom(task_id, key, value)
    session.flush()
    return told.run


def ends(session: Session, run: DagRun, state: DagRunState) -> str | None:
    """Airflow's own announcement of a state, as the scheduler makes it: nothing may commit meanwhile. The note."""
    with prohibit_commit(session) as guard:
        run.set_state(state)
        run.notify_dagrun_state_changed(msg="task_failure")
        session.flush()
        guard.commit()
    return session.scalar(select(DagRunNote.content).where(DagRunNote.dag_run_id == run.id))


@pytest.mark.parametrize("task_id", ["preflight", "plan"])
def test_the_note_is_the_sentence(session: Session, task_id: str) -> None:
    run = refused(session, f"note-{task_id}", (task_id, "refused", SENTENCE))
    assert ends(session, run, DagRunState.FAILED) == f"Refused: {SENTENCE}"


def test_a_rejected_plan_says_by_whom(session: Session) -> None:
    run = refused(session, "note-rejected", ("approve", "rejected", {"by": "jane"}))
    assert ends(session, run, DagRunState.FAILED) == "Refused: The plan was rejected by jane; nothing was deleted."


def test_a_run_that_failed_otherwise_gets_no_note(session: Session) -> None:
    assert ends(session, refused(session, "note-none", ("plan", "planned", [])), DagRunState.FAILED) is None


def test_what_a_person_wrote_stays(session: Session) -> None:
    run = refused(session, "note-person", ("plan", "refused", SENTENCE))
    run.note = ("ticket 123", "joe")
    session.flush()
    assert ends(session, run, DagRunState.FAILED) == "ticket 123"
    assert ends(session, run, DagRunState.RUNNING) == "ticket 123"


def test_what_started_the_run_and_wrote_without_a_name_stays(session: Session) -> None:
    run = refused(session, "note-started", ("plan", "refused", SENTENCE))
    run.note = "started by the monthly audit"
    session.flush()
    assert ends(session, run, DagRunState.FAILED) == "started by the monthly audit"


def test_a_run_that_was_cleared_loses_it(session: Session) -> None:
    run = refused(session, "note-again", ("plan", "refused", SENTENCE))
    assert ends(session, run, DagRunState.FAILED)
    assert ends(session, run, DagRunState.RUNNING) is None
    assert ends(session, run, DagRunState.FAILED)
    assert ends(session, run, DagRunState.SUCCESS)
    assert ends(session, run, DagRunState.RUNNING) is None


def test_a_note_that_cannot_be_written_spoils_nothing_of_the_scheduler(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = refused(session, "note-broken", ("plan", "refused", SENTENCE))

    def broken(connection: Any, run_id: int, text: str) -> None:
        connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")

    monkeypatch.setattr(listener, "_write", broken)
    assert ends(session, run, DagRunState.FAILED) is None
    session.expire(run)
    assert run.state == DagRunState.FAILED


def test_other_dags_cost_no_query(session: Session) -> None:
    run = refused(session, "note-other", ("plan", "refused", SENTENCE))
    asked: list[str] = []
    event.listen(session.get_bind(), "before_cursor_execute", lambda *args: asked.append(args[2]))
    listener.on_dag_run_failed(DagRun(dag_id=OTHER, run_id="x"), "")
    listener.on_dag_run_running(DagRun(dag_id=OTHER, run_id="x"), "")
    assert asked == []
    listener.on_dag_run_failed(run, "")
    assert len([one for one in asked if one.startswith(("SELECT", "DELETE", "INSERT"))]) == 4
    assert run.dag_id == DAG
