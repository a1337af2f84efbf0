"""XComs of the stages: their keys in one place, and reading them typed, from a worker and from a trigger."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from airflow.sdk.bases.xcom import BaseXCom

from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.records import Record, RecordError, Result, plain, read

RESULT = "return_value"
"""A stage's result or its failure; of the replans: the windows of a pass; of `plan`: those of its first batch."""

RUN = "run"
"""Of `plan`: the effective parameters of the run."""

CUSTOMERS = "customers"
"""Of `plan` and the replans: customer ids in the order of the windows."""

PLANNED = "planned"
"""Of `plan`: the windows, also of a dry run, whose result is empty."""

BATCHES = "batches"
"""Of `plan`: the batch of each planned window, from 0; not there when its result lists all of them."""

MARKDOWN = "markdown"
"""Of `plan` and `report`: what a person reads."""

TERMS = "terms"
"""Of `plan` and `approve`: what is to be executed, and its digest (planning/terms.py)."""

NOTES = "notes"
"""Of ``plan``: sentences about it, such as debts that it takes in and windows that are smaller than asked for."""

REFUSED = "refused"
"""Of `preflight` and `plan`: the sentence by which a run was refused before anything was done."""

REJECTED = "rejected"
"""Of `approve`: who has rejected the plan."""

CUT = "cut"
"""Of the replans: keys of the windows that were cut."""

SUMMARY = "summary"
"""Of `report`: the report without its windows."""

LOOK = "look"
"""Of a wait: since when it waits, for what, and how far the workflows are."""

R = TypeVar("R", bound=Record)


class Instance(Protocol):
    """The part of a task instance by which its run's XComs are found."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int


async def apull(ti: Instance, task_id: str, key: str = RESULT, map_index: int = -1) -> Any:
    """Return an XCom of the same run as plain JSON, None when there is none. For triggers.

    ``map_index`` is always named: without it Airflow asks for the XComs of all indexes.
    """
    found = await BaseXCom.aget_one(key=key, dag_id=ti.dag_id, run_id=ti.run_id, task_id=task_id, map_index=map_index)
    return plain(found)


async def achosen(ti: Instance) -> Chosen:
    """Return what the run's plan has left of its parameters, the defaults without a plan. For triggers."""
    return Chosen.read(await apull(ti, "plan", RUN) or {})


async def arecord(ti: Instance, task_id: str, key: str = RESULT) -> Record | None:
    """Return the record that a task of the same run and map index left, None when there is none. For triggers.

    Raises:
        RecordError: something else is there.
    """
    return read(await apull(ti, task_id, key, ti.map_index))


def pull(ti: Any, task_id: str, key: str = RESULT, map_index: int = -1) -> Any:
    """Return an XCom of the same run as plain JSON, None when there is none. For workers."""
    return plain(ti.xcom_pull(task_ids=task_id, key=key, map_indexes=map_index))


def chosen(ti: Any) -> Chosen | None:
    """Return what the run's plan has left of its parameters, None without a plan. For workers."""
    found = pull(ti, "plan", RUN)
    return Chosen.read(found) if found else None


def text(ti: Any, task_id: str, key: str) -> str:
    """Return an XCom that is text for people, '' when there is none. For workers."""
    return str(ti.xcom_pull(task_ids=task_id, key=key, map_indexes=-1) or "")


def record(ti: Any, task_id: str, key: str = RESULT) -> Record | None:
    """Return the record that a task of the same run and map index left, None when there is none. For workers.

    Raises:
        RecordError: something else is there.
    """
    return read(pull(ti, task_id, key, ti.map_index))


def of_window(found: Record | None, key: str) -> Record | None:
    """Return a record only when it is of this window: at its map index another plan of the run had another one."""
    return found if isinstance(found, Result) and found.key == key else None


def expect(kind: type[R], found: Record | None, what: str) -> R:
    """Return a record that must be of this kind.

    Raises:
        RecordError: it is not there, or the stage before has failed; ``what`` says what to do about it.
    """
    if not isinstance(found, kind):
        is_there = "nothing" if found is None else f"a record of kind {found.kind!r}"
        raise RecordError(f"{what} (found {is_there})")
    return found
