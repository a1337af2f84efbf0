"""What must be true of a run when its dust has settled, from what the servers and the report say. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Job:
    """One Job that the API server stored; epoch seconds. ``ended`` None: it is still live."""

    name: str
    made: float
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """One window. ``deletes``: statements that the nodes carried out, by ``database.table``; every table that had rows
    is in it, with 0 when there was none. ``rows`` and ``truth``: rows now and right ones, by table. ``status``: what
    the report says.
    """

    label: str
    deletes: Mapping[str, int]
    jobs: Sequence[Job]
    rows: Mapping[str, int]
    truth: Mapping[str, int]
    status: str


def audit(
    run_state: str, windows: Iterable[Seen], jobs: Mapping[str, int] | None = None, *, deletes: Container[int] = (1,)
) -> list[str]:
    """Return a sentence for each thing that is wrong, [] when a run is green and did everything once.

    ``jobs`` says how many Jobs a window must have, by label, where it is not 1 (a person asked for a new one);
    ``deletes`` how often rows of each table of a window may have been deleted.
    """
    listed = list(windows)
    problems = [] if listed else ["the plan has no windows"]
    if run_state != "success":
        problems.append(f"the run is {run_state}")
    for window in listed:
        wanted = (jobs or {}).get(window.label, 1)
        found = [*_deletes(window, deletes), *_jobs(window, wanted), *_rows(window)]
        problems += [f"{window.label}: {text}" for text in found]
    return problems


def _deletes(window: Seen, wanted: Container[int]) -> list[str]:
    return [
        f"{table} was deleted {count} times" for table, count in sorted(window.deletes.items()) if count not in wanted
    ]


def _jobs(window: Seen, wanted: int) -> list[str]:
    names = ", ".join(job.name for job in window.jobs)
    problems = [] if len(window.jobs) == wanted else [f"{len(window.jobs)} Jobs instead of {wanted} ({names})"]
    for first, second in pairwise(sorted(window.jobs, key=lambda job: job.made)):
        if first.ended is None or first.ended > second.made:
            problems.append(f"{second.name} was made while {first.name} was live")
    return problems + [f"{job.name} is still live" for job in window.jobs if job.ended is None]


def _rows(window: Seen) -> list[str]:
    wrong = [
        f"{window.rows.get(table, 0)} rows of {table} instead of {right}"
        for table, right in sorted(window.truth.items())
        if window.rows.get(table, 0) != right
    ]
    if window.status != "verified":
        return [*wrong, f"the report says {window.status!r}"]
    return [f"called verified, but {text}" for text in wrong]
