"""From Airflow's database to the windows of a run: their tasks, what stages left, what waits said.

What is known for good is remembered, so that a look at a large run reads only what is under way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import and_, false, or_, select
from sqlalchemy.orm import Session

from backfill.api.memory import Place, RunMemory, Source
from backfill.groups import GROUPS, PASSES, placed
from backfill.kit.xcoms import BATCHES, LOOK, NOTES, PLANNED, REFUSED, RESULT, RUN, TERMS
from include.scorecard_backfill.graph import tasks_of
from include.scorecard_backfill.overview.facts import NO_TASK, Planned, Result, Seen, TaskFact
from include.scorecard_backfill.overview.results import planned_of, result_of, seen_of
from include.scorecard_backfill.records import Order, RecordError, plain

T = TypeVar("T")

SETTLING = ("preflight", "plan")
"""Tasks that come before anything is deleted; a failure of theirs refuses the run."""

HASH = "hash"
"""Of plans of earlier releases."""

PLAN_KEYS = (PLANNED, RUN, TERMS, HASH, NOTES, BATCHES)

STAGE_TASKS = tasks_of(("delete_first", "reindex_first"))
MIDDLE_TASKS = tuple(task for task in STAGE_TASKS if task not in ("admit", "verify"))

MANY = 400
"""Up to this many windows are named in a query; beyond it those of all are read."""

NEXT_ONES = 50
"""Waiting windows whose own reason is read: more than any limit of windows at once leaves free."""


Placed = tuple[str, int, Planned]
"""A window of the run: its task group, its map index, and what was planned."""

ByWindow = Mapping[tuple[str, int], Mapping[str, T]]
"""What is known of windows, by group and map index, then by the task's name within the group."""


def by_window(found: Mapping[Place, T], orders: Sequence[Order]) -> ByWindow[T]:
    """Return what was found by window; of tasks that a cluster of these orders does not have, nothing."""
    names = {f"{group}.{name}": (group, name) for group in GROUPS for name in tasks_of(orders)}
    windows: dict[tuple[str, int], dict[str, T]] = {}
    for (task_id, index), one in found.items():
        if task_id in names:
            group, name = names[task_id]
            windows.setdefault((group, index), {})[name] = one
    return windows


def read_tasks(session: Session, dag_id: str, run_id: str) -> dict[Place, TaskFact]:
    """Return the tasks that are not mapped, and the first and the last stage of every window."""
    ends = [f"{group}.{task}" for group in GROUPS for task in ("admit", "verify")]
    wanted = or_(TaskInstance.map_index < 0, TaskInstance.task_id.in_(ends))
    return _tasks(session, dag_id, run_id, and_(wanted, TaskInstance.state.is_not(None)))


def read_stages(session: Session, dag_id: str, run_id: str, places: Collection[Place]) -> dict[Place, TaskFact]:
    """Return the stages between the first and the last of the windows at these places (task group, map index)."""
    if not places:
        return {}
    wanted = and_(TaskInstance.state.is_not(None), _at(TaskInstance, MIDDLE_TASKS, places))
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
    # A cleared task keeps its old end, and one that ends in the triggerer does not get a new one (3.3.2).
    return {
        (task_id, index): TaskFact(
            str(state), start, start if start and end and end < start else end, tries or 0, waits_for or ""
        )
        for task_id, index, state, start, end, tries, waits_for in found
    }


def read_sources(
    session: Session, dag_id: str, run_id: str, tasks: Mapping[Place, TaskFact], memory: RunMemory
) -> dict[str, Source]:
    """Return what plan and the replans left; it is read again only when they have run again."""
    made_by = {groups[0].source: tasks.get((groups[0].source, -1), NO_TASK) for groups in PASSES}
    known = {s: memory.sources[s] for s, task in made_by.items() if s in memory.sources
             and memory.sources[s].made_by == task and task.state == "success"}  # fmt: skip
    wanted = [source for source in made_by if source not in known]
    left: dict[str, dict[str, Any]] = {source: {} for source in wanted}
    if wanted:
        keys = and_(XComModel.task_id == "plan", XComModel.key.in_(PLAN_KEYS))
        parts = and_(XComModel.task_id != "plan", XComModel.key == RESULT)
        found = session.execute(
            select(XComModel.task_id, XComModel.key, XComModel.value).where(
                XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.task_id.in_(wanted), or_(keys, parts)
            )
        )
        for task_id, key, value in found:
            left[task_id][key] = value
    for source in wanted:
        listed = as_list(left[source].pop(PLANNED if source == "plan" else RESULT, None))
        known[source] = Source(made_by[source], [planned_of(w) for w in listed], left[source])
    memory.sources = known
    return known


def read_makers(session: Session, dag_id: str, run_id: str) -> dict[Place, TaskFact]:
    """Return the tasks that list windows, without the windows' own."""
    sources = [groups[0].source for groups in PASSES]
    return _tasks(session, dag_id, run_id, and_(TaskInstance.task_id.in_(sources), TaskInstance.map_index < 0))


def windows_of(sources: Mapping[str, Source]) -> list[list[Placed]]:
    """Return the windows of each pass in the order of its list, also those that are not open yet."""
    found = []
    for groups in PASSES:
        source = sources[groups[0].source]
        found.append(placed(groups, source.windows, as_list(source.others.get(BATCHES))))
    return found


def read_window(
    session: Session, dag_id: str, run_id: str, place: Place
) -> tuple[dict[Place, Result], dict[Place, Seen]]:
    """Return what the stages of one window left and what its waits said. ``place``: task group and map index."""
    group, index = place
    tasks = [f"{group}.{task}" for task in STAGE_TASKS]
    rows = session.execute(
        select(XComModel.task_id, XComModel.map_index, XComModel.key, XComModel.value).where(
            XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.map_index == index,
            XComModel.task_id.in_(tasks), XComModel.key.in_([RESULT, LOOK]),
        )
    )  # fmt: skip
    return _read(rows)


def read_results(
    session: Session,
    dag_id: str,
    run_id: str,
    tasks: Mapping[Place, TaskFact],
    windows: Sequence[Sequence[Placed]],
    memory: RunMemory,
) -> tuple[dict[Place, Result], dict[Place, Seen]]:
    """Return what stages left and what waits said, by task id and map index.

    Of verified windows only proof and minutes are read, once; of waiting ones only what the next ones in the queue say.
    """
    begun_at = under_way(tasks, windows)
    fresh = {place for place in _verified(tasks, windows) if memory.proofs.get(place, (None,))[0] != tasks[place]}
    begun = and_(XComModel.key.in_([RESULT, LOOK]), _at(XComModel, STAGE_TASKS, begun_at))
    fresh_at = [(_group(task_id), index) for task_id, index in fresh]
    proven = and_(XComModel.key == RESULT, _at(XComModel, ("verify", "wait_workflows"), fresh_at))
    turns = and_(XComModel.key == LOOK, _at(XComModel, ("admit",), _next_ones(tasks, windows)))
    refused = and_(XComModel.task_id.in_(SETTLING), XComModel.key == REFUSED)
    rows = session.execute(
        select(XComModel.task_id, XComModel.map_index, XComModel.key, XComModel.value).where(
            XComModel.dag_id == dag_id, XComModel.run_id == run_id, or_(begun, proven, turns, refused)
        )
    )
    results, seen = _read(rows)
    _remember(memory, tasks, fresh, results)
    for place in _verified(tasks, windows):
        for stage, result in memory.proofs.get(place, (None, {}))[1].items():
            results[_stage(place, stage), place[1]] = result
    return results, seen


def _read(rows: Iterable[Any]) -> tuple[dict[Place, Result], dict[Place, Seen]]:
    results: dict[Place, Result] = {}
    seen: dict[Place, Seen] = {}
    for task_id, index, key, value in rows:
        if key == LOOK:
            if (said := seen_of(value)) is not None:
                seen[task_id, index] = said
        elif key == REFUSED:
            results[task_id, index] = Result(status="failed", reason=str(value))
        elif (result := result_of(value)) is not None:
            results[task_id, index] = result
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
    return f"{_group(place[0])}.{stage}"


def _group(task_id: str) -> str:
    return task_id.rsplit(".", 1)[0]


def _at(model: Any, names: Sequence[str], places: Collection[Place]) -> Any:
    """Return the condition that a row is of one of these tasks at one of these places; beyond MANY all are read.

    ``names`` are ids within a group, ``places`` task groups and map indexes.
    """
    if len(places) > MANY:
        return and_(model.task_id.in_([f"{group}.{name}" for group in GROUPS for name in names]), model.map_index >= 0)
    indexes: dict[str, list[int]] = {}
    for group, index in places:
        indexes.setdefault(group, []).append(index)
    return or_(
        false(),
        *(
            and_(model.task_id.in_([f"{group}.{name}" for name in names]), model.map_index.in_(found))
            for group, found in indexes.items()
        ),
    )


def _verified(tasks: Mapping[Place, TaskFact], windows: Sequence[Sequence[Placed]]) -> list[Place]:
    """Return the places of verify tasks that have ended well."""
    places = [(f"{group}.verify", index) for listed in windows for group, index, _ in listed]
    return [place for place in places if tasks.get(place, NO_TASK).state == "success"]


def under_way(tasks: Mapping[Place, TaskFact], windows: Sequence[Sequence[Placed]]) -> list[Place]:
    """Return task group and map index of the windows that have begun, or were refused, and are not verified."""
    ended = ("success", "failed", "upstream_failed")
    return [
        (group, index)
        for listed in windows
        for group, index, _ in listed
        if tasks.get((f"{group}.admit", index), NO_TASK).state in ended
        and tasks.get((f"{group}.verify", index), NO_TASK).state != "success"
    ]


def _next_ones(tasks: Mapping[Place, TaskFact], windows: Sequence[Sequence[Placed]]) -> list[Place]:
    """Return task group and map index of the first waiting windows of each pass."""
    found: list[Place] = []
    for listed in windows:
        waiting = ((g, i) for g, i, _ in listed if tasks.get((f"{g}.admit", i), NO_TASK).state == "deferred")
        found += islice(waiting, NEXT_ONES)
    return found


def as_json(value: Any) -> Any:
    """Return what an XCom holds as JSON; text that is none is text for people."""
    try:
        return plain(value)
    except RecordError:
        return value


def as_list(value: Any) -> list[Any]:
    """Return a list that an XCom holds, [] for anything else."""
    found = as_json(value)
    return found if isinstance(found, list) else []
