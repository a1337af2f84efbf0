"""From Airflow's database to the windows of a run: their tasks, what stages left, what waits said.

What is known for good is remembered, so that a look at a large run reads only what is under way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from backfill.api.memory import Place, RunMemory, Source
from backfill.groups import GROUPS, PASSES
from backfill.kit.xcoms import LOOK, NOTES, PLANNED, REFUSED, RESULT, RUN, TERMS
from include.scorecard_backfill.graph import tasks_of
from include.scorecard_backfill.overview.facts import NO_TASK, Planned, Result, Seen, TaskFact
from include.scorecard_backfill.overview.results import planned_of, result_of, seen_of
from include.scorecard_backfill.records import Order, RecordError, plain

T = TypeVar("T")

SETTLING = ("preflight", "plan")
"""Tasks that come before anything is deleted; a failure of theirs refuses the run."""

HASH = "hash"
"""Of plans of earlier releases."""

PLAN_KEYS = (PLANNED, RUN, TERMS, HASH, NOTES)

STAGE_TASKS = tuple(f"{group}.{task}" for group in GROUPS for task in tasks_of(("delete_first", "reindex_first")))
ADMIT_TASKS = tuple(f"{group}.admit" for group in GROUPS)
VERIFY_TASKS = tuple(f"{group}.verify" for group in GROUPS)
CLOSED_TASKS = tuple(f"{group}.wait_workflows" for group in GROUPS)
MIDDLE_TASKS = tuple(task for task in STAGE_TASKS if task not in (*ADMIT_TASKS, *VERIFY_TASKS))

MANY = 400
"""Up to this many windows are named in a query; beyond it those of all are read."""

NEXT_ONES = 50
"""Waiting windows whose own reason is read: more than any limit of windows at once leaves free."""


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
    made_by = {one.source: tasks.get((one.source, -1), NO_TASK) for one in PASSES}
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
    sources = [one.source for one in PASSES]
    return _tasks(session, dag_id, run_id, and_(TaskInstance.task_id.in_(sources), TaskInstance.map_index < 0))


def read_window(
    session: Session, dag_id: str, run_id: str, place: Place
) -> tuple[dict[Place, Result], dict[Place, Seen]]:
    """Return what the stages of one window left and what its waits said. ``place``: task group and map index."""
    group, index = place
    tasks = [task for task in STAGE_TASKS if task.startswith(f"{group}.")]
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
    windows: Sequence[Sequence[Planned]],
    memory: RunMemory,
) -> tuple[dict[Place, Result], dict[Place, Seen]]:
    """Return what stages left and what waits said, by task id and map index.

    Of verified windows only proof and minutes are read, once; of waiting ones only what the next ones in the queue say.
    """
    begun_at = under_way(tasks, windows)
    fresh = {place for place in _verified(tasks, windows) if memory.proofs.get(place, (None,))[0] != tasks[place]}
    begun = and_(XComModel.task_id.in_(STAGE_TASKS), XComModel.key.in_([RESULT, LOOK]), _at(begun_at))
    proven = and_(XComModel.task_id.in_([*VERIFY_TASKS, *CLOSED_TASKS]), XComModel.key == RESULT,
                  _at([index for _, index in fresh]))  # fmt: skip
    turns = and_(XComModel.task_id.in_(ADMIT_TASKS), XComModel.key == LOOK, _at(_next_ones(tasks, windows)))
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
    return f"{place[0].rsplit('.', 1)[0]}.{stage}"


def _at(indexes: Collection[int]) -> Any:
    """Return the condition that a map index is one of these; beyond MANY all are read."""
    return XComModel.map_index.in_(indexes) if len(indexes) <= MANY else XComModel.map_index >= 0


def _verified(tasks: Mapping[Place, TaskFact], windows: Sequence[Sequence[Planned]]) -> list[Place]:
    """Return the places of verify tasks that have ended well."""
    places = [(f"{group}.verify", i) for group, listed in _passes(windows) for i in range(len(listed))]
    return [place for place in places if tasks.get(place, NO_TASK).state == "success"]


def under_way(tasks: Mapping[Place, TaskFact], windows: Sequence[Sequence[Planned]]) -> list[int]:
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
