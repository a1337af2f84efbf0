"""From Airflow's database to the facts of a run, in a number of queries that does not depend on the windows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
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
from backfill.api.memory import Place, RunMemory, Source, memory_of
from backfill.groups import GROUPS, PASSES
from backfill.kit.debts import PREFIX, cluster_asset
from backfill.kit.xcoms import LOOK, RESULT
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

PLAN_KEYS = ("planned", "run", "hash", "notes")
STAGE_TASKS = tuple(f"{group}.{stage}" for group in GROUPS for stage in STAGES)
ADMIT_TASKS = tuple(f"{group}.admit" for group in GROUPS)
VERIFY_TASKS = tuple(f"{group}.verify" for group in GROUPS)
CLOSED_TASKS = tuple(f"{group}.wait_workflows" for group in GROUPS)
MIDDLE_TASKS = tuple(task for task in STAGE_TASKS if task not in (*ADMIT_TASKS, *VERIFY_TASKS))

MANY = 400
"""Up to this many windows are named in a query; beyond it those of all are read."""

NEXT_ONES = 50
"""Waiting windows whose own reason is read: more than any limit of windows at once leaves free."""


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
    memory = memory_of(dag_id, run_id)
    tasks = read_tasks(session, dag_id, run_id)
    sources = read_sources(session, dag_id, run_id, tasks, memory)
    windows = [sources[one.source].windows for one in PASSES]
    tasks |= read_stages(session, dag_id, run_id, _under_way(tasks, windows))
    results, seen = read_results(session, dag_id, run_id, tasks, windows, memory)
    plan = sources["plan"].others
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
        plan_hash=_text(plan.get("hash")),
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
        plan_notes=tuple(_list(plan.get("notes"))),
    )


def read_tasks(session: Session, dag_id: str, run_id: str) -> dict[Place, TaskFact]:
    """Return the tasks that are not mapped, and the first and the last stage of every window."""
    wanted = or_(TaskInstance.map_index < 0, TaskInstance.task_id.in_([*ADMIT_TASKS, *VERIFY_TASKS]))
    return _tasks(session, dag_id, run_id, and_(wanted, TaskInstance.state.is_not(None)))


def read_stages(session: Session, dag_id: str, run_id: str, indexes: Collection[int]) -> dict[Place, TaskFact]:
    """Return the stages between the first and the last of the windows at these map indexes, of every pass."""
    if not indexes:
        return {}
    wanted = and_(TaskInstance.task_id.in_(MIDDLE_TASKS), TaskInstance.state.is_not(None))
    if len(indexes) <= MANY:
        wanted = and_(wanted, TaskInstance.map_index.in_(indexes))
    return _tasks(session, dag_id, run_id, wanted)


def _tasks(session: Session, dag_id: str, run_id: str, wanted: Any) -> dict[Place, TaskFact]:
    columns = (
        TaskInstance.task_id,
        TaskInstance.map_index,
        TaskInstance.state,
        TaskInstance.start_date,
        TaskInstance.end_date,
        TaskInstance.try_number,
        TaskInstance.next_method,
    )
    found = session.execute(
        select(*columns).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, wanted)
    )
    return {
        (task_id, index): TaskFact(str(state), start, end, tries or 0, waits_for or "")
        for task_id, index, state, start, end, tries, waits_for in found
    }


def read_sources(
    session: Session, dag_id: str, run_id: str, tasks: Mapping[Place, TaskFact], memory: RunMemory
) -> dict[str, Source]:
    """Return what plan and the replans left; it is read again only when they have run again."""
    made_by = {one.source: tasks.get((one.source, -1), NO_TASK) for one in PASSES}
    known = {s: memory.sources[s] for s, task in made_by.items() if s in memory.sources
             and memory.sources[s].made_by == task and task.state == "success"}  # fmt: skip
    wanted = [source for source in made_by if source not in known]
    left: dict[str, Json] = {source: {} for source in wanted}
    if wanted:
        keys = and_(XComModel.task_id == "plan", XComModel.key.in_(PLAN_KEYS))
        parts = and_(XComModel.task_id != "plan", XComModel.key == "return_value")
        found = session.execute(
            select(XComModel.task_id, XComModel.key, XComModel.value).where(
                XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.task_id.in_(wanted), or_(keys, parts)
            )
        )
        for task_id, key, value in found:
            left[task_id][key] = value
    for source in wanted:
        listed = _list(left[source].pop("planned" if source == "plan" else "return_value", None))
        known[source] = Source(made_by[source], [planned_of(w) for w in listed], left[source])
    memory.sources = known
    return known


def read_results(
    session: Session,
    dag_id: str,
    run_id: str,
    tasks: Mapping[Place, TaskFact],
    windows: Sequence[Sequence[Planned]],
    memory: RunMemory,
) -> tuple[dict[Place, Result], dict[Place, Seen]]:
    """Return what stages left and what waits said, by task id and map index.

    Of verified windows only proof and minutes are read, once; of waiting ones only what the next ones in the queue say.
    """
    under_way = _under_way(tasks, windows)
    fresh = {place for place in _verified(tasks, windows) if memory.proofs.get(place, (None,))[0] != tasks[place]}
    begun = and_(XComModel.task_id.in_(STAGE_TASKS), XComModel.key.in_([RESULT, LOOK]), _at(under_way))
    proven = and_(XComModel.task_id.in_([*VERIFY_TASKS, *CLOSED_TASKS]), XComModel.key == RESULT,
                  _at([index for _, index in fresh]))  # fmt: skip
    turns = and_(XComModel.task_id.in_(ADMIT_TASKS), XComModel.key == LOOK, _at(_next_ones(tasks, windows)))
    refused = and_(XComModel.task_id.in_(SETTLING), XComModel.key == RESULT)
    rows = session.execute(
        select(XComModel.task_id, XComModel.map_index, XComModel.key, XComModel.value).where(
            XComModel.dag_id == dag_id, XComModel.run_id == run_id, or_(begun, proven, turns, refused)
        )
    )
    results: dict[Place, Result] = {}
    seen: dict[Place, Seen] = {}
    for task_id, index, key, value in rows:
        if key == LOOK:
            if (said := seen_of(value)) is not None:
                seen[task_id, index] = said
        elif (result := result_of(value)) is not None:
            results[task_id, index] = result
    _remember(memory, tasks, fresh, results)
    for place in _verified(tasks, windows):
        for stage, result in memory.proofs.get(place, (None, {}))[1].items():
            results[_stage(place, stage), place[1]] = result
    return results, seen


def _remember(
    memory: RunMemory, tasks: Mapping[Place, TaskFact], fresh: Collection[Place], results: Mapping[Place, Result]
) -> None:
    for place in fresh:
        if place in results:
            closed = results.get((_stage(place, "wait_workflows"), place[1]))
            found = {"verify": results[place], **({"wait_workflows": closed} if closed else {})}
            memory.proofs[place] = (tasks[place], found)


def _stage(place: Place, stage: str) -> str:
    """Return the task id of another stage of the same pass."""
    return f"{place[0].rsplit('.', 1)[0]}.{stage}"


def _at(indexes: Collection[int]) -> Any:
    """Return the condition that a map index is one of these; beyond MANY all are read."""
    return XComModel.map_index.in_(indexes) if len(indexes) <= MANY else XComModel.map_index >= 0


def _verified(tasks: Mapping[Place, TaskFact], windows: Sequence[Sequence[Planned]]) -> list[Place]:
    """Return the places of verify tasks that have ended well."""
    places = [(f"{group}.verify", i) for group, listed in _passes(windows) for i in range(len(listed))]
    return [place for place in places if tasks.get(place, NO_TASK).state == "success"]


def _under_way(tasks: Mapping[Place, TaskFact], windows: Sequence[Sequence[Planned]]) -> list[int]:
    """Return the map indexes at which some pass has a window that has begun, or was refused, and is not verified."""
    ended = ("success", "failed", "upstream_failed")
    return sorted(
        {
            index
            for group, listed in _passes(windows)
            for index in range(len(listed))
            if tasks.get((f"{group}.admit", index), NO_TASK).state in ended
            and tasks.get((f"{group}.verify", index), NO_TASK).state != "success"
        }
    )


def _next_ones(tasks: Mapping[Place, TaskFact], windows: Sequence[Sequence[Planned]]) -> list[int]:
    """Return the map indexes of the first waiting windows of each pass."""
    found: set[int] = set()
    for group, listed in _passes(windows):
        waiting = (i for i in range(len(listed)) if tasks.get((f"{group}.admit", i), NO_TASK).state == "deferred")
        found.update(islice(waiting, NEXT_ONES))
    return sorted(found)


def _passes(windows: Sequence[Sequence[Planned]]) -> list[tuple[str, Sequence[Planned]]]:
    return list(zip(GROUPS, windows, strict=True))


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


def _parameters(plan: Mapping[str, Any], run: DagRun) -> Json:
    """Return the effective parameters; before there is a plan, what was sent."""
    found = _plain(plan.get("run"))
    return dict(found) if isinstance(found, dict) else dict(run.conf or {})


def _window(
    planned: Planned,
    group: str,
    index: int,
    tasks: Mapping[Place, TaskFact],
    results: Mapping[Place, Result],
    seen: Mapping[Place, Seen],
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


def _refusal(tasks: Mapping[Place, TaskFact], results: Mapping[Place, Result], note: str) -> str:
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
