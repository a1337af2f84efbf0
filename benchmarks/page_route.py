"""What the page's JSON route costs at the server for a large run: every customer of a cluster, day by day of a month.

A process of its own, as Airflow's home is set before Airflow is imported: `python -m benchmarks.page_route [verified]`.
``verified`` is the share of each customer's windows that are verified, 0.5 when it is not given.
"""

from __future__ import annotations

import sys

from tests.kit import airflow_home  # isort: skip  # noqa: F401  sets Airflow's home before Airflow is imported

import gc
import gzip
import json
import time
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any
from uuid import uuid4

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session

from backfill.api import memory
from backfill.api.cache import GZIP_LEVEL, uncollected
from backfill.api.looks import run_overview
from include.scorecard_backfill.records import (
    Counted,
    Database,
    Deleted,
    Failure,
    MutationsGone,
    Numbers,
    Reindexed,
    Sent,
    TableDays,
    Verified,
    Window,
    WorkflowsClosed,
)
from include.scorecard_backfill.records.proof import DayBalance, Proof, TableBalance
from tests.kit.page_story import DAG, NOON, STAGES, Story, make_tables

CUSTOMERS, DAYS = 95, 31
WORKING, FAILED = 20, 5
LOOKS = 30
RUN = "manual__2026-03-01T12:00:00+00:00"
TABLES = ("scorecard", "score")
PROFILES = ("voice", "chat")
HOSTS = tuple(f"chi-conversations-conversations-{shard}-{replica}" for shard in range(3) for replica in range(3))
BY_TRIGGER = ("admit", "wait_mutations", "wait_workflows", "verify")
"""Stages whose results are stored as JSON text, because a trigger has pushed them."""


def window_of(customer: int, day: int) -> Window:
    """Return one day of a customer with two profiles."""
    start = date(2026, 1, 1) + timedelta(days=day)
    return Window(
        key=f"{customer:03}{day:02}abcdef0123",
        cluster="sandbox-east",
        customer_id=f"customer-{customer:03}",
        start=start,
        end=start + timedelta(days=1),
        mode="cleanup",
        databases=tuple(Database(name=f"c{customer:03}_{p}", profile_id=p, tables=TABLES) for p in PROFILES),
        conversations=9_000,
        rows={"scorecard": 90_000, "score": 900_000},
    )


def names_of(window: Window) -> list[tuple[str, str]]:
    """Return database and table of each of its tables."""
    return [(database.name, table) for database in window.databases for table in database.tables]


def results_of(window: Window, done: int) -> Iterator[tuple[str, Any]]:
    """Yield what the first ``done`` stages have left."""
    day = str(window.start)
    flows = tuple(f"ReindexConversations-{window.customer_id}-{p}-{window.key}" for p in PROFILES)
    numbers = Numbers(rows=90_000, conversations=9_000, ids=90_000, meant=9, fingerprint=2**63, buckets=(1_406,) * 64)
    counts = tuple(TableDays(database=d, table=t, days={day: numbers}) for d, t in names_of(window))
    counted = Counted(key=window.key, now=counts, before=counts, server_time=NOON.timestamp())
    sent = tuple(Sent(database=d, table=t, at=NOON.timestamp(), accepted=HOSTS) for d, t in names_of(window))
    balance: Any = {"before": 90_000, "meant": 9, "after": 89_991, "short": 0, "over": 0, "doubled": 0}
    tables = tuple(
        TableBalance(database=d, table=t, removed=9, moved=0, exact=True, days={day: DayBalance(**balance)}, **balance)
        for d, t in names_of(window)
    )
    proof = Proof(tables=tables, hosts=HOSTS, statements=4, workflows=2, accounted=True)
    made = [
        {"status": "admitted"},
        Deleted(key=window.key, window=window, status="deleted", counted=counted, generation=1, sent=sent).to_json(),
        MutationsGone(key=window.key, status="gone", generation=1, hosts=HOSTS).to_json(),
        Reindexed(
            key=window.key, window=window, status="reindexed", attempt=1, job_name=f"reindex-{window.key}",
            workflow_ids=flows, resources={flow: f"customers/x/jobs/{flow}" for flow in flows},
        ).to_json(),
        WorkflowsClosed(key=window.key, status="completed", attempt=1, workflow_ids=flows, minutes=33.0).to_json(),
        Verified(key=window.key, status="verified", proof=proof).to_json(),
    ]  # fmt: skip
    yield from zip(STAGES[:done], made, strict=False)


def standing(customer: int, day: int, verified: float) -> tuple[int, str]:
    """Return how many stages of a window are done and the state of the next one."""
    if day < int(DAYS * verified):
        return 6, ""
    if day == int(DAYS * verified) and customer < WORKING + FAILED:
        return 4, "deferred" if customer < WORKING else "failed"
    return 0, "deferred"


def write(verified: float) -> None:
    """Write the run into Airflow's database."""
    make_tables()
    tasks: list[dict[str, Any]] = []
    left: list[dict[str, Any]] = []
    with create_session() as session:
        told = Story(session, RUN)
        at = {"dag_id": DAG, "run_id": RUN}

        def leave(task: str, key: str, value: Any, index: int) -> None:
            text = json.dumps(value) if task in BY_TRIGGER else value
            left.append({**at, "dag_run_id": told.run.id, "task_id": f"windows.{task}", "map_index": index, "key": key,
                         "value": text, "timestamp": NOON})  # fmt: skip

        windows = [window_of(customer, day) for customer in range(CUSTOMERS) for day in range(DAYS)]
        told.plan([window.to_json() for window in windows])
        for index, window in enumerate(windows):
            done, state = standing(*divmod(index, DAYS), verified)
            states = ["success"] * done + [state] + ["upstream_failed" if state == "failed" else None] * 5
            for stage, one in zip(STAGES, states[: len(STAGES)], strict=True):
                tasks.append({**at, "id": uuid4(), "task_id": f"windows.{stage}", "map_index": index, "state": one,
                              "try_number": 1, "pool": "default_pool", "pool_slots": 1, "start_date": NOON,
                              "end_date": NOON + timedelta(minutes=1), "span_status": "not_started"})  # fmt: skip
            for stage, result in results_of(window, done):
                leave(stage, "return_value", result, index)
            if state == "failed":
                failure = Failure(key=window.key, stage="wait_workflows", cause="heartbeat_timeout", reason="no sign")
                leave("wait_workflows", "return_value", failure.to_json(), index)
            elif state and done:
                leave("wait_workflows", "look", {"since": 1.77e9, "reason": "runs", "done": 100, "total": 9_000}, index)
        session.execute(TaskInstance.__table__.insert(), tasks)
        session.execute(XComModel.__table__.insert(), left)


def look() -> float:
    """Make an answer as the route does, and return its CPU seconds."""
    began = time.process_time()
    with uncollected():
        answer()
    return time.process_time() - began


def answer() -> tuple[int, str]:
    """Return how many bytes are sent, and the headline."""
    with create_session() as session:
        view = run_overview(session, DAG, RUN)
        return len(gzip.compress(view.model_dump_json().encode(), GZIP_LEVEL)), view.headline


def main(verified: float) -> None:
    """Print what a process's first look at the run costs, and later ones."""
    write(verified)
    size, headline = answer()
    memory.forget()
    first = look()
    gc.collect()  # what writing the run has left behind
    later = sorted(look() for _ in range(LOOKS))
    print(f"page, {headline} {size / 1_000:.0f} kB: CPU of a process's first look {first * 1_000:.0f} ms, of later ones"
          f" {later[LOOKS // 2] * 1_000:.0f} ms, at most {later[-1] * 1_000:.0f} ms")  # fmt: skip


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.5)
