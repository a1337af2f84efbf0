"""A run that was refused or rejected says so in its note, where Airflow's own lists show it.

Airflow has no way for a task to write the note of its run. It calls a listener in the process that ends the run, the
scheduler, with the run in that process' own session. What is done here is one read and one write within it, behind a
savepoint: a failure of theirs must not spoil what the scheduler is doing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.listeners import hookimpl

from backfill.kit.xcoms import REFUSED, REJECTED
from backfill.settings import DAG_ID_PREFIX
from include.scorecard_backfill.notices import NOTE_PREFIX, rejection, run_note

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from sqlalchemy.engine import Connection

SAYING_NO = (("approve", REJECTED), ("plan", REFUSED), ("preflight", REFUSED))
"""Tasks that may refuse a run, the last one first, and under which key they leave why."""


@hookimpl
def on_dag_run_failed(dag_run: DagRun, msg: str) -> None:
    """Write why the run was refused into its note, unless somebody has written one."""
    if connection := _connection_of(dag_run):
        with connection.begin_nested():
            if sentence := _sentence(connection, dag_run):
                _write(connection, dag_run.id, run_note(sentence))


@hookimpl
def on_dag_run_running(dag_run: DagRun, msg: str) -> None:
    """Take the note away that an earlier end of this run has left: it was cleared, and it may end well now."""
    if connection := _connection_of(dag_run):
        with connection.begin_nested():
            _remove(connection, dag_run.id)


def _connection_of(dag_run: DagRun) -> Connection | None:
    """Return the connection of the session that the run is in, None for a DAG that is not ours."""
    if not dag_run.dag_id.startswith(DAG_ID_PREFIX):
        return None
    # Not at the top: workers load this file, too, and have no use for it.
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    return session.connection() if session is not None else None


def _sentence(connection: Connection, dag_run: DagRun) -> str:
    """Return why the run was refused or rejected, '' when it was not."""
    from airflow.models.xcom import XComModel as Left
    from sqlalchemy import select

    columns = select(Left.task_id, Left.key, Left.value)
    found = connection.execute(
        columns.where(
            Left.dag_id == dag_run.dag_id,
            Left.run_id == dag_run.run_id,
            Left.task_id.in_([task_id for task_id, _ in SAYING_NO]),
            Left.key.in_([REFUSED, REJECTED]),
        )
    )
    left = {(task_id, key): value for task_id, key, value in found}
    for said in SAYING_NO:
        if said in left:
            return rejection(left[said]) if said[1] == REJECTED else str(left[said])
    return ""


def _write(connection: Connection, run: int, text: str) -> None:
    """Write a note. One that a person, or whoever has started the run, has written stays."""
    from airflow.models.dagrun import DagRunNote
    from sqlalchemy import insert, select

    _remove(connection, run)
    if connection.scalar(select(DagRunNote.dag_run_id).where(DagRunNote.dag_run_id == run)) is None:
        connection.execute(insert(DagRunNote).values(dag_run_id=run, content=text))


def _remove(connection: Connection, run: int) -> None:
    """Remove a note of ours: it has no author, and begins as all of them do."""
    from airflow.models.dagrun import DagRunNote
    from sqlalchemy import delete

    connection.execute(
        delete(DagRunNote).where(
            DagRunNote.dag_run_id == run, DagRunNote.user_id.is_(None), DagRunNote.content.startswith(NOTE_PREFIX)
        )
    )
