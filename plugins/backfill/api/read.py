"""From Airflow's database to the facts of a run, in a number of queries that does not depend on the windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from airflow.models.asset import AssetModel
from airflow.models.asset_state_store import AssetStateStoreModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.models.variable import Variable
from sqlalchemy import select
from sqlalchemy.orm import Session, lazyload, selectinload

from backfill.api.access import cluster_of
from backfill.api.memory import Place, memory_of
from backfill.api.windows import (
    HASH,
    SETTLING,
    ByWindow,
    Placed,
    as_json,
    as_list,
    by_window,
    read_makers,
    read_results,
    read_sources,
    read_stages,
    read_tasks,
    read_window,
    under_way,
    windows_of,
)
from backfill.groups import ALL_GROUPS
from backfill.kit.debts import PREFIX, cluster_asset
from backfill.kit.xcoms import NOTES, RUN, TERMS
from backfill.settings import LEARNED_VARIABLE, OVERRIDE_VARIABLE, cluster_config
from backfill.slots import limits_now
from include.scorecard_backfill.graph import task_of, tasks_of
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
from include.scorecard_backfill.overview.results import debt_of
from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.planning.learned import Customer, parse_learned
from include.scorecard_backfill.planning.overrides import Override, OverrideError, in_force
from include.scorecard_backfill.planning.terms import digest
from include.scorecard_backfill.records import STAGES, Order, Stage
from include.scorecard_backfill.sql import window_mutations_statement

T = TypeVar("T")


class Settings(NamedTuple):
    """What a person has set for the cluster, and what is known of its customers."""

    override: Override | None
    override_error: str
    learned: Mapping[str, Customer]


class Links(NamedTuple):
    """Addresses of other systems' pages, with {job}, {workflow_id} and {key} to be filled."""

    job: str = ""
    workflow: str = ""
    mutations: str = ""


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
    windows = windows_of(sources)
    tasks |= read_stages(session, dag_id, run_id, under_way(tasks, windows))
    results, seen = read_results(session, dag_id, run_id, tasks, windows, memory)
    plan = sources["plan"].others
    cluster = cluster_of(dag_id)
    settings = read_settings(session, cluster)
    parameters = _parameters(plan, run)
    links, orders = links_to(cluster), _orders(cluster)
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
        plan_hash=_digest(plan),
        tasks={task_id: fact for (task_id, index), fact in tasks.items() if index < 0},
        passes=_passes(
            windows,
            orders,
            tasks,
            by_window(results, orders),
            by_window(seen, orders),
        ),
        approval=read_approval(session, dag_id, run_id),
        refusal=_refusal(tasks, results, run.note or ""),
        override=settings.override,
        override_error=settings.override_error,
        limits=_limits(cluster, parameters, settings),
        learned=settings.learned,
        job_url=links.job,
        workflow_url=links.workflow,
        debts=read_debts(session, cluster),
        plan_notes=tuple(as_list(plan.get(NOTES))),
    )


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
    """Return the open debts of a cluster, also those that cannot be read: no debt may go unseen."""
    rows = session.execute(
        select(AssetStateStoreModel.key, AssetStateStoreModel.value)
        .join(AssetModel, AssetModel.id == AssetStateStoreModel.asset_id)
        .where(AssetModel.name == cluster_asset(cluster).name, AssetStateStoreModel.key.startswith(PREFIX))
    )
    return [debt for key, value in rows if (debt := debt_of(key.removeprefix(PREFIX), value)) is not None]


def _limits(cluster: str, parameters: Mapping[str, Any], settings: Settings) -> Any:
    try:
        config = cluster_config(cluster)
    except LookupError:
        return ONE
    return limits_now(config, Chosen.read(parameters), settings.override)


def window_at(session: Session, dag_id: str, run_id: str, group: str, index: int) -> WindowFacts | None:
    """Return what is known of one window but for its tasks, None when the run has planned none there."""
    sources = read_sources(session, dag_id, run_id, read_makers(session, dag_id, run_id), memory_of(dag_id, run_id))
    listed = {(at, number): window for windows in windows_of(sources) for at, number, window in windows}
    if (group, index) not in listed:
        return None
    results, seen = read_window(session, dag_id, run_id, (group, index))
    orders, at = _orders(cluster_of(dag_id)), (group, index)
    left, said = by_window(results, orders).get(at, {}), by_window(seen, orders).get(at, {})
    return _window(listed[at], at, orders, {}, left, said)


def links_to(cluster: str) -> Links:
    """Return the addresses of other systems' pages, as far as the cluster's file names them."""
    try:
        config = cluster_config(cluster)
    except LookupError:
        return Links()
    links = config.links
    namespaces = (config.kubernetes.namespace, config.temporal.namespace)
    job, workflow = (
        url.replace("{namespace}", quote(namespace, safe=""))
        for url, namespace in zip((links.job, links.temporal_ui), namespaces, strict=True)
    )
    query = quote(window_mutations_statement(config.clickhouse.cluster, "{key}"), safe="{}")
    return Links(job, workflow, links.mutations.replace("{query}", query))


def _parameters(plan: Mapping[str, Any], run: DagRun) -> Mapping[str, Any]:
    """Return the effective parameters; before there is a plan, what was sent."""
    found = as_json(plan.get(RUN))
    return dict(found) if isinstance(found, dict) else dict(run.conf or {})


def _passes(
    windows: Sequence[Sequence[Placed]],
    orders: Sequence[Order],
    tasks: Mapping[Place, TaskFact],
    results: ByWindow[Result],
    seen: ByWindow[Seen],
) -> list[list[WindowFacts]]:
    """Return the windows of each pass with what is known of them, by stage."""
    own = by_window(tasks, orders)
    opened_by = {one.group: one.opened_by for one in ALL_GROUPS if one.opened_by}
    passes = []
    for listed in windows:
        found = []
        for group, index, planned in listed:
            at = (group, index)
            window = _window(planned, at, orders, own.get(at, {}), results.get(at, {}), seen.get(at, {}))
            if opener := opened_by.get(group, ""):
                window = replace(window, opened_by=opener, opener=tasks.get((opener, -1), NO_TASK))
            found.append(window)
        passes.append(found)
    return passes


def _window(
    planned: Planned,
    at: Place,
    orders: Sequence[Order],
    tasks: Mapping[str, TaskFact],
    results: Mapping[str, Result],
    seen: Mapping[str, Seen],
) -> WindowFacts:
    """Return the facts of a window; what is known of it is given by the names of its tasks.

    A result that names another window is one of an earlier plan of the run, which had that one at this map index.
    """
    results = {task: found for task, found in results.items() if found.key in ("", planned.key)}
    if len(set(orders)) == 1:
        # Every task is called like its stage.
        return WindowFacts(planned, *at, tasks, results, seen)
    names = {stage: task_of(stage, planned.order, orders) for stage in STAGES}
    others = [name for name in tasks_of(orders) if name not in names.values()]
    return WindowFacts(
        window=planned,
        group=at[0],
        index=at[1],
        tasks=_by_stage(names, tasks),
        results=_by_stage(names, results),
        seen=_by_stage(names, seen),
        task_ids={stage: name for stage, name in names.items() if name != stage},
        idle={name: tasks[name] for name in others if name in tasks},
    )


def _by_stage(names: Mapping[Stage, str], known: Mapping[str, T]) -> dict[str, T]:
    return {stage: known[name] for stage, name in names.items() if name in known}


def _orders(cluster: str) -> tuple[Order, ...]:
    """Return the orders that the cluster's file allows, which say what its tasks are called."""
    try:
        return cluster_config(cluster).orders
    except LookupError:
        return ("delete_first",)


def _refusal(tasks: Mapping[Place, TaskFact], results: Mapping[Place, Result], note: str) -> str:
    """Return why preflight or plan has refused the run, '' when neither has."""
    for task_id in SETTLING:
        if tasks.get((task_id, -1), NO_TASK).state == "failed":
            found = results.get((task_id, -1))
            said = found.reason if found is not None and found.status == "failed" else note
            return said or f"{task_id} has failed; the end of its log says why."
    return ""


def _digest(plan: Mapping[str, Any]) -> str | None:
    """Return the digest of what is to be approved, None while there is no plan."""
    terms = as_json(plan.get(TERMS))
    if isinstance(terms, dict):
        return digest(terms)
    found = plan.get(HASH)
    return None if found is None else str(found).strip('"')
