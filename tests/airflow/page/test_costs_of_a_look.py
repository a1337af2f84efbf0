"""What a look costs, counted in calls and not in time: a machine that is busy makes neither more nor fewer of them."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable

import pytest
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from fastapi import FastAPI

from backfill.api import memory
from benchmarks import page_route
from tests.kit.page_story import DAG

CALLS_OF_A_FIRST_LOOK = 310
"""Of each further window, half of them verified. They were 328 before, and are 292 now."""

CALLS_OF_A_LATER_LOOK = 135
"""They are 118."""


def calls_for(customers: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Return the calls of a process's first look at a run of 31 windows for each customer, and of its next one."""
    monkeypatch.setattr(page_route, "CUSTOMERS", customers)
    monkeypatch.setattr(page_route, "RUN", f"manual__costs-{customers}")
    page_route.write(0.5)
    page_route.answer()
    memory.forget()
    found = calls(page_route.answer), calls(page_route.answer)
    with create_session() as session:
        for run in session.query(DagRun).filter(DagRun.dag_id == DAG):
            session.delete(run)
    return found


def calls(what: Callable[[], object]) -> int:
    profile = cProfile.Profile()
    profile.runcall(what)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


def test_a_look_at_more_windows_costs_its_share_and_no_more(fresh: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = calls_for(4, monkeypatch), calls_for(12, monkeypatch)
    first, later = ((more - less) / (8 * page_route.DAYS) for less, more in zip(few, many, strict=True))
    assert first < CALLS_OF_A_FIRST_LOOK
    assert later < CALLS_OF_A_LATER_LOOK
