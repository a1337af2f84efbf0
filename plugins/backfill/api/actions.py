"""What a person may do from the page: checked, done and written to Airflow's audit log in one transaction.

Nothing here decides what a stage does: tasks are cleared or marked as by Airflow's own buttons, limits are written into
the cluster's override Variable, which admission reads anyway.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.dag import DagModel
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.models.variable import Variable
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from fastapi import APIRouter, Depends, HTTPException, status
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from backfill.api.access import MAY_RETRY, MAY_START, OurDag, cluster_of, requires_override
from backfill.api.looks import RunId, answers
from backfill.api.missed import missed_slots
from backfill.api.read import read_settings, run_facts
from backfill.settings import OVERRIDE_VARIABLE, cluster_config
from include.scorecard_backfill.config.fields import Parallel
from include.scorecard_backfill.overview.act import FAILED, RetryError, job_task, retry_tasks
from include.scorecard_backfill.overview.reset import reset_tasks
from include.scorecard_backfill.planning.overrides import MAX_AGE, Override
from include.scorecard_backfill.plural import number_of

router = APIRouter(prefix="/actions")

RESET_MEANS = (
    "All their stages and the report are cleared. A DELETE that was taken is not sent again; a new reindex Job is made"
    " when none of theirs runs."
)

LIMITS = frozenset({"pause", "max_parallel", "windows_per_customer"})
"""Fields of an override that hold windows back or let them go."""

MAX_HOURS = int(MAX_AGE.total_seconds() // 3600)


class Asked(BaseModel):
    """Base of what a person sends: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class Retry(Asked):
    """Retry what failed, of one customer when it is named."""

    customer: str | None = Field(default=None, max_length=200)


class Reset(Asked):
    """Do a customer's windows again that are not verified, with ``day`` only those that hold it.

    ``keys``: the windows that the person was shown; None clears nothing and only says what would be cleared.
    """

    customer: str = Field(min_length=1, max_length=200)
    day: date | None = None
    keys: list[str] | None = Field(default=None, max_length=1_100)


class Pause(Asked):
    """Pause admission for some hours."""

    reason: str = Field(min_length=3, max_length=500)
    hours: int = Field(ge=1, le=MAX_HOURS)


class Limit(Asked):
    """Another number of windows at once for some hours."""

    max_parallel: Parallel
    reason: str = Field(min_length=3, max_length=500)
    hours: int = Field(ge=1, le=MAX_HOURS)


class StartSlot(Asked):
    """Start the run of the slot that was missed: the one that the person was shown."""

    slot: datetime


class EndJob(Asked):
    """End the live Job of a window."""

    key: str = Field(max_length=64)


class Done(BaseModel):
    """What was done, one sentence."""

    done: str


class Resets(Done):
    """What a reset has cleared or would clear: keys and labels of windows, and labels and reasons of those left.

    ``what`` says what that means.
    """

    windows: tuple[tuple[str, str], ...]
    left: tuple[tuple[str, str], ...]
    what: str = RESET_MEANS


class Started(Done):
    """A run that was started."""

    run_id: str


@router.post("/retry", dependencies=[MAY_RETRY])
def retry(dag_id: OurDag, run_id: RunId, body: Retry, session: SessionDep, user: GetUserDep) -> Done:
    """Clear the failed task instances of a run, of one customer when it is named; never an approval that was given."""
    facts = run_facts(session, dag_id, run_id)
    if facts is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"DAG {dag_id} has no run {run_id}.")
    try:
        wanted = set(retry_tasks(facts, body.customer))
    except RetryError as error:
        raise HTTPException(status.HTTP_409_CONFLICT, str(error)) from None
    failed = session.scalars(
        select(TaskInstance).where(
            TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.state.in_(FAILED)
        )
    )
    found = [ti for ti in failed if (ti.task_id, ti.map_index) in wanted]
    clear_task_instances(found, session, DagRunState.QUEUED)
    names = sorted(f"{ti.task_id}[{ti.map_index}]" if ti.map_index >= 0 else ti.task_id for ti in found)
    audit(session, user, "backfill_retry_failed", dag_id, run_id, {"customer": body.customer, "cleared": names})
    answers.forget()
    of = f" of {body.customer}" if body.customer else ""
    was, they = ("was", "it runs again") if len(found) == 1 else ("were", "they run again")
    return Done(done=f"{number_of(len(found), 'failed task')}{of} {was} cleared; {they} as soon as there is room.")


@router.post("/reset", dependencies=[MAY_RETRY])
def reset(dag_id: OurDag, run_id: RunId, body: Reset, session: SessionDep, user: GetUserDep) -> Resets:
    """Clear every stage of a customer's windows that have ended and are not verified; without keys only say which."""
    facts = run_facts(session, dag_id, run_id)
    if facts is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"DAG {dag_id} has no run {run_id}.")
    try:
        wanted = reset_tasks(facts, body.customer, body.day, body.keys)
    except RetryError as error:
        raise HTTPException(status.HTTP_409_CONFLICT, str(error)) from None
    count = f"{number_of(len(wanted.windows), 'window')} of {body.customer}"
    verb = "is" if len(wanted.windows) == 1 else "are"
    shown: dict[str, Any] = {"windows": wanted.windows, "left": wanted.left}
    if body.keys is None:
        return Resets(done=f"{count} would be done again from the first stage on; nothing was changed.", **shown)
    places = set(wanted.places)
    ids = {task_id for task_id, _ in places}
    listed = session.scalars(
        select(TaskInstance).where(
            TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id.in_(ids)
        )
    )
    found = [ti for ti in listed if (ti.task_id, ti.map_index) in places]
    clear_task_instances(found, session, DagRunState.QUEUED)
    extra = {"customer": body.customer, "day": body.day and body.day.isoformat(), "cleared": len(found),
             "windows": [label for _, label in wanted.windows]}  # fmt: skip
    audit(session, user, "backfill_reset", dag_id, run_id, extra)
    answers.forget()
    return Resets(
        done=f"{count} {verb} done again from the first stage on, as soon as there is room.",
        **shown,
    )


@router.post("/pause", dependencies=[Depends(requires_override)])
def pause(dag_id: OurDag, body: Pause, session: SessionDep, user: GetUserDep) -> Done:
    """Admit no further window until the pause ends; what is in work goes on."""
    until = _write(session, user, dag_id, body.hours, body.reason, {"pause": True})
    audit(session, user, "backfill_pause", dag_id, None, body.model_dump())
    return Done(done=f"Admission is paused until {until:%Y-%m-%d %H:%M} UTC.")


@router.post("/resume", dependencies=[Depends(requires_override)])
def resume(dag_id: OurDag, body: Asked, session: SessionDep, user: GetUserDep) -> Done:
    """End a pause; other limits of the override stay in force. The body is {}."""
    cluster = cluster_of(dag_id)
    now = read_settings(session, cluster).override
    name = OVERRIDE_VARIABLE.format(cluster=cluster)
    if now and (now.max_parallel or now.windows_per_customer):
        rest = now.model_dump(mode="json", exclude_none=True) | {"pause": False}
        Variable.set(name, json.dumps(rest), session=session)
    else:
        Variable.delete(name, session=session)
    audit(session, user, "backfill_resume", dag_id, None, {})
    answers.forget()
    return Done(done="Admission goes on.")


@router.post("/limit", dependencies=[Depends(requires_override)])
def limit(dag_id: OurDag, body: Limit, session: SessionDep, user: GetUserDep) -> Done:
    """Let another number of windows be in flight until the override ends."""
    until = _write(session, user, dag_id, body.hours, body.reason, {"max_parallel": body.max_parallel})
    audit(session, user, "backfill_change_limit", dag_id, None, body.model_dump())
    return Done(done=f"{body.max_parallel} windows at once until {until:%Y-%m-%d %H:%M} UTC.")


@router.post("/end-job", dependencies=[MAY_RETRY])
def end_job(dag_id: OurDag, run_id: RunId, body: EndJob, session: SessionDep, user: GetUserDep) -> Done:
    """Mark the task that waits for a window's Job as failed: its trigger then deletes the Job."""
    facts = run_facts(session, dag_id, run_id)
    task = job_task(facts, body.key) if facts is not None else None
    run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    if task is None or run is None:
        raise HTTPException(status.HTTP_409_CONFLICT, "This window has no live Job that a task waits for.")
    task_id, index, label = task
    dag = DBDagBag(load_op_links=False).get_dag_for_run(run, session=session)
    if dag is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"DAG {dag_id} is not known to Airflow any more.")
    dag.set_task_instance_state(
        task_id=task_id,
        map_indexes=[index],
        run_id=run_id,
        state=TaskInstanceState.FAILED,
        commit=True,
        session=session,
    )
    extra = {"window": label, "task": f"{task_id}[{index}]"}
    audit(session, user, "backfill_end_job", dag_id, run_id, extra, task_id=task_id, map_index=index)
    answers.forget()
    return Done(done=f"The Job of {label} is being deleted; its rows are not back until you retry the window.")


@router.post("/start-slot", dependencies=[MAY_START])
def start_slot(dag_id: OurDag, body: StartSlot, session: SessionDep, user: GetUserDep) -> Started:
    """Start the run that the schedule would have started at a slot that was missed; each slot once."""
    now = datetime.now(UTC)
    missed = missed_slots(session, [dag_id], now).get(dag_id)
    if missed is None or missed.slot != body.slot:
        raise HTTPException(
            status.HTTP_409_CONFLICT,
            "This slot is not missed any more: it was started, or a later one counts. Look again.",
        )
    if session.scalar(select(DagModel.is_paused).where(DagModel.dag_id == dag_id)):
        raise HTTPException(
            status.HTTP_409_CONFLICT, f"The DAG {dag_id} is paused in Airflow: a run would not start. Unpause it first."
        )
    dag = DBDagBag(load_op_links=False).get_latest_version_of_dag(dag_id, session=session)
    if dag is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"DAG {dag_id} is not known to Airflow any more.")
    run_id = f"slot__{missed.slot.isoformat()}"
    # Two people at once: only one of them makes the run, whose name is unique in Airflow's database.
    if session.scalar(select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)):
        raise HTTPException(status.HTTP_409_CONFLICT, f"This slot was started before: see the run {run_id}.")
    conf = cluster_config(cluster_of(dag_id)).schedule.conf_for(missed.days)
    dag.create_dagrun(
        run_id=run_id,
        run_after=now,
        conf=conf,
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.UI,
        triggering_user_name=user.get_name(),
        state=DagRunState.QUEUED,
        session=session,
    )
    audit(session, user, "backfill_start_slot", dag_id, run_id, {"slot": missed.slot.isoformat(), "conf": conf})
    answers.forget()
    return Started(done=f"The run {run_id} was started for {missed.days.label}.", run_id=run_id)


def _write(session: Session, user: Any, dag_id: str, hours: int, reason: str, fields: Mapping[str, Any]) -> datetime:
    """Write the override over the one in force: what is not named stays as it was. Return when it ends.

    It ends no earlier than what stays was to end: whoever changes a limit for an hour ends nobody's pause by that.
    """
    cluster = cluster_of(dag_id)
    until = datetime.now(UTC) + timedelta(hours=hours, minutes=-1 if hours == MAX_HOURS else 0)
    now = read_settings(session, cluster).override
    before = now.model_dump(mode="json", exclude_none=True) if now else {}
    if now and any(before.get(name) for name in LIMITS - fields.keys()):
        until = max(until, now.until)
        reason = f"{reason}; {now.text}"[:500]
    made = Override.model_validate(
        {**before, **fields, "author": user.get_name(), "until": until.isoformat(), "reason": reason}
    )
    text = made.model_dump_json(exclude_none=True)
    Variable.set(
        OVERRIDE_VARIABLE.format(cluster=cluster), text, description="Written by the page Backfill", session=session
    )
    answers.forget()
    return until


def audit(
    session: Session, user: Any, event: str, dag_id: str, run_id: str | None, extra: Mapping[str, Any], **more: Any
) -> None:
    """Write who did what into Airflow's audit log, in the transaction of the deed."""
    name = user.get_name()
    session.add(
        Log(event=event, owner=name, owner_display_name=name, extra=json.dumps(extra), dag_id=dag_id,
            run_id=run_id, **more)
    )  # fmt: skip
