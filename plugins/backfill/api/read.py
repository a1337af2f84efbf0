"""From Airflow's database to the facts of a run, in a number of queries that does not depend on the windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from airflow.models.asset import AssetModel
from airflow.models.asset_state_store import AssetStateStoreModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.models.variable import Variable
from airflow.models.xcom import XComModel
from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session, lazyload, selectinload

from backfill.api.access import cluster_of
from backfill.groups import GROUPS, PASSES
from backfill.kit.debts import PREFIX, cluster_asset
from backfill.settings import LEARNED_VARIABLE, OVERRIDE_VARIABLE, cluster_config
from backfill.slots import limits_now
from include.scorecard_backfill.overview.facts import (
    NO_TASK,
    ONE,
    Approval,
    DebtFact,
    Planned,
    Result,
    RunFacts,
    Seen,
    TaskFact,
    WindowFacts,
)
from include.scorecard_backfill.overview.results import debt_of, planned_of, result_of, seen_of
from include.scorecard_backfill.planning.learned import Customer, parse_learned
from include.scorecard_backfill.planning.overrides import Override, OverrideError, in_force
from include.scorecard_backfill.records import STAGES, RecordError, plain

Json = dict[str, Any]

SETTLING = ("preflight", "plan")
"""Tasks that come before anything is deleted; a failure of theirs refuses the run."""

STAGE_TASKS = tuple(f"{group}.{stage}" for group in GROUPS for stage in STAGES)
VERIFY_TASKS = tuple(f"{group}.verify" for group in GROUPS)
SEEN_KEY = "look"
"""XCom in which a wait says what it saw last."""

MANY = 400
"""Up to this many windows are named in a query; beyond it the results of all are read."""


class Settings(NamedTuple):
    """What a person has set for the cluster, and what is known of its customers."""

    override: Override | None
    override_error: str
    learned: Mapping[str, Customer]


def run_facts(session: Session, dag_id: str, run_id: str) -> RunFacts | None:
    """Return the facts of a run, None when there is no such run."""
    run = session.scalars(
        select(DagRun)
        .where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        .options(lazyload("*"), selectinload(DagRun.dag_run_note))
    ).one_or_none()
    if run is None:
        return None
    tasks = read_tasks(session, dag_id, run_id)
    plan = read_plan(session, dag_id, run_id)
    windows = [_windows(plan, group.source) for group in PASSES]
    results, seen = read_results(session, dag_id, run_id, _unverified(tasks, windows))
    cluster = cluster_of(dag_id)
    settings = read_settings(session, cluster)
    parameters = _parameters(plan, run)
    return RunFacts(
        dag_id=dag_id,
        run_id=run_id,
        cluster=cluster,
        state=str(run.state or ""),
        run_type=str(run.run_type),
        asked_by=run.triggering_user_name or "",
        queued=run.queued_at,
        started=run.start_date,
        ended=run.end_date,
        note=run.note or "",
        run=parameters,
        plan_hash=_text(plan.get(("plan", "hash"))),
        tasks={task_id: fact for (task_id, index), fact in tasks.items() if index < 0},
        passes=[
            [_window(planned, one.group, index, tasks, results, seen) for index, planned in enumerate(listed)]
            for one, listed in zip(PASSES, windows, strict=True)
        ],
        approval=read_approval(session, dag_id, run_id),
        refusal=_refusal(tasks, results, run.note or ""),
        override=settings.override,
        override_error=settings.override_error,
        limits=_limits(cluster, parameters, settings),
        learned=settings.learned,
        debts=read_debts(session, cluster),
        plan_notes=tuple(_list(plan.get(("plan", "notes")))),
    )


def read_tasks(session: Session, dag_id: str, run_id: str) -> dict[tuple[str, int], TaskFact]:
    """Return every task instance of a run by task id and map index."""
    columns = (
        TaskInstance.task_id,
        TaskInstance.map_index,
        TaskInstance.state,
        TaskInstance.start_date,
        TaskInstance.end_date,
        TaskInstance.try_number,
        TaskInstance.next_method,
    )
    found = session.execute(select(*columns).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id))
    return {
        (task_id, index): TaskFact(str(state) if state else None, start, end, tries or 0, waits_for or "")
        for task_id, index, state, start, end, tries, waits_for in found
    }


def read_plan(session: Session, dag_id: str, run_id: str) -> dict[tuple[str, str], Any]:
    """Return what plan and the replans left, by task id and key."""
    wanted = or_(
        and_(XComModel.task_id == "plan", XComModel.key.in_(["planned", "run", "hash", "notes"])),
        and_(XComModel.task_id.in_([one.source for one in PASSES[1:]]), XComModel.key == "return_value"),
    )
    found = session.execute(
        select(XComModel.task_id, XComModel.key, XComModel.value).where(
            XComModel.dag_id == dag_id, XComModel.run_id == run_id, wanted
        )
    )
    return {(task_id, key): value for task_id, key, value in found}


def read_results(
    session: Session, dag_id: str, run_id: str, unverified: Sequence[int]
) -> tuple[dict[tuple[str, int], Result], dict[tuple[str, int], Seen]]:
    """Return what stages left and what waits said, by task id and map index.

    Of verified windows only the proof is read: it has every number, and a large run is mostly made of them.
    """
    every = and_(XComModel.task_id.in_([*VERIFY_TASKS, *SETTLING]), XComModel.key == "return_value")
    others = and_(XComModel.task_id.in_(STAGE_TASKS), XComModel.key.in_(["return_value", SEEN_KEY]))
    if len(unverified) <= MANY:
        others = and_(others, XComModel.map_index.in_(unverified))
    # The minutes of finished windows say how fast customers are.
    speeds = and_(
        XComModel.task_id.in_([f"{group}.wait_workflows" for group in GROUPS]), XComModel.key == "return_value"
    )
    rows = session.execute(
        select(XComModel.task_id, XComModel.map_index, XComModel.key, XComModel.value, XComModel.timestamp).where(
            XComModel.dag_id == dag_id, XComModel.run_id == run_id, or_(every, others, speeds)
        )
    )
    results: dict[tuple[str, int], Result] = {}
    seen: dict[tuple[str, int], Seen] = {}
    for task_id, index, key, value, _ in rows:
        if key == SEEN_KEY:
            if (said := seen_of(value)) is not None:
                seen[task_id, index] = said
        elif (result := result_of(value)) is not None:
            results[task_id, index] = result
    return results, seen


def read_approval(session: Session, dag_id: str, run_id: str) -> Approval | None:
    """Return the question about the plan, None when none was asked."""
    columns = (HITLDetail.created_at, HITLDetail.responded_at, HITLDetail.responded_by, HITLDetail.chosen_options)
    detail = session.execute(
        select(*columns)
        .join(TaskInstance, TaskInstance.id == HITLDetail.ti_id)
        .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == "approve")
    ).first()
    if detail is None:
        return None
    return Approval(
        asked_at=detail.created_at,
        answered_at=detail.responded_at,
        answered_by=str((detail.responded_by or {}).get("name") or ""),
        answer=(detail.chosen_options or [""])[0],
    )


def read_settings(session: Session, cluster: str) -> Settings:
    """Return the cluster's override and the learned speeds, in one query; what cannot be read says so or is left out.

    Learned speeds only make an estimate better: a spoiled text costs the estimate, not the page.
    """
    names = [LEARNED_VARIABLE.format(cluster=cluster), OVERRIDE_VARIABLE.format(cluster=cluster)]
    found = {v.key: v.get_val() for v in session.scalars(select(Variable).where(Variable.key.in_(names)))}
    try:
        learned: Mapping[str, Customer] = parse_learned(found.get(names[0]))
    except ValueError:
        learned = {}
    try:
        return Settings(in_force(found.get(names[1]), datetime.now(UTC)), "", learned)
    except OverrideError as error:
        return Settings(None, str(error), learned)


def read_debts(session: Session, cluster: str) -> list[DebtFact]:
    """Return the open debts of a cluster. Raises RecordError for one that cannot be read: no debt may go unseen."""
    values = session.scalars(
        select(AssetStateStoreModel.value)
        .join(AssetModel, AssetModel.id == AssetStateStoreModel.asset_id)
        .where(AssetModel.name == cluster_asset(cluster).name, AssetStateStoreModel.key.startswith(PREFIX))
    )
    return [debt for value in values if (debt := debt_of(value)) is not None]


def _limits(cluster: str, parameters: Json, settings: Settings) -> Any:
    try:
        config = cluster_config(cluster)
    except LookupError:
        return ONE
    run = {"max_parallel": config.admission.max_parallel, **{k: v for k, v in parameters.items() if v is not None}}
    return limits_now(config, run, settings.override)


def _parameters(plan: Mapping[tuple[str, str], Any], run: DagRun) -> Json:
    """Return the effective parameters; before there is a plan, what was sent."""
    found = _plain(plan.get(("plan", "run")))
    return dict(found) if isinstance(found, dict) else dict(run.conf or {})


def _windows(plan: Mapping[tuple[str, str], Any], source: str) -> list[Planned]:
    return [planned_of(w) for w in _list(plan.get((source, "planned" if source == "plan" else "return_value")))]


def _unverified(tasks: Mapping[tuple[str, int], TaskFact], windows: Sequence[Sequence[Planned]]) -> list[int]:
    """Return the map indexes at which some pass has a window that has begun and is not verified."""
    return sorted(
        {
            index
            for group, listed in zip(GROUPS, windows, strict=True)
            for index in range(len(listed))
            if tasks.get((f"{group}.admit", index), NO_TASK).state is not None
            and tasks.get((f"{group}.verify", index), NO_TASK).state != "success"
        }
    )


def _window(
    planned: Planned,
    group: str,
    index: int,
    tasks: Mapping[tuple[str, int], TaskFact],
    results: Mapping[tuple[str, int], Result],
    seen: Mapping[tuple[str, int], Seen],
) -> WindowFacts:
    at = {stage: (f"{group}.{stage}", index) for stage in STAGES}
    return WindowFacts(
        window=planned,
        group=group,
        index=index,
        tasks={stage: tasks[place] for stage, place in at.items() if place in tasks},
        results={stage: results[place] for stage, place in at.items() if place in results},
        seen={stage: seen[place] for stage, place in at.items() if place in seen},
    )


def _refusal(tasks: Mapping[tuple[str, int], TaskFact], results: Mapping[tuple[str, int], Result], note: str) -> str:
    """Return why preflight or plan has refused the run, '' when neither has."""
    for task_id in SETTLING:
        if tasks.get((task_id, -1), NO_TASK).state == "failed":
            found = results.get((task_id, -1))
            said = found.reason if found is not None and found.status == "failed" else note
            return said or f"{task_id} has failed; the end of its log says why."
    return ""


def _plain(value: Any) -> Any:
    try:
        return plain(value)
    except RecordError:
        return value


def _list(value: Any) -> list[Any]:
    found = _plain(value)
    return found if isinstance(found, list) else []


def _text(value: Any) -> str | None:
    return None if value is None else str(value).strip('"')
