"""Giants: day by day within the limit when their volume is known, cut and ended green when it was not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import pytest
from temporalio.client import Client

from sandbox.airflow_api import AirflowApi
from sandbox.stack import running_stack
from sandbox.stack_layout import Options
from sandbox.stack_model import AIRFLOW_USER, TEMPORAL_NAMESPACE, Stack
from tests.sandbox.drive import Driver

JANUARY = ("2026-01-01", "2026-02-01")
FEBRUARY = ("2026-02-01", "2026-03-01")
# One profile each, so that a window is one workflow.
SMALL = ["acme-sandbox", "globex.eu", "hooli", "initech", "stark-industries", "wayne"]


@pytest.fixture
def east(stack: Stack, api: AirflowApi) -> Iterator[Driver]:
    driver = Driver(api, stack, stack.cluster("east"))
    yield driver
    driver.set_worker_faults()


def spans(stack: Stack, since: datetime, customers: list[str]) -> list[tuple[datetime, datetime]]:
    """Return start and end of the workflows of these customers that began after a moment."""

    async def ask() -> list[tuple[datetime, datetime]]:
        client = await Client.connect(stack.temporal_address, namespace=TEMPORAL_NAMESPACE)
        found = []
        async for item in client.list_workflows("WorkflowType = 'ReindexConversations'"):
            ours = any(item.id.startswith(f"reindexconversations-{customer}-") for customer in customers)
            if ours and item.start_time >= since:
                assert item.close_time is not None, item.id
                found.append((item.start_time, item.close_time))
        return found

    return asyncio.run(ask())


def most_at_once(found: list[tuple[datetime, datetime]]) -> int:
    """Return the largest number of spans that overlap."""
    events = sorted([(start, 1) for start, _ in found] + [(end, -1) for _, end in found])
    running = most = 0
    for _, change in events:
        running += change
        most = max(most, running)
    return most


def go_day_by_day(east: Driver, small: list[str], end: str, seconds: float) -> None:
    """Run January up to ``end`` with a giant whose days are the windows, and three windows at once."""
    learned = {"umbrella": {"per_minute": 0.0, "too_big": 250, "done": 0}}
    name = f"scorecard_backfill_learned__{east.cluster.name}"
    east.api.request("POST", "/variables", json={"key": name, "value": json.dumps(learned)})
    since = datetime.now().astimezone()
    customers = [*small, "umbrella"]
    run = east.start("giant", customers=customers, max_parallel=3, start_date=JANUARY[0], end_date=end)
    windows = east.plan(run)
    days = [w for w in windows if w["customer_id"] == "umbrella"]
    whole = (date.fromisoformat(end) - date.fromisoformat(JANUARY[0])).days
    # Two quiet days may share a window.
    assert whole - 3 <= len(days) <= whole
    assert len(windows) == len(days) + len(small)
    assert windows[0]["customer_id"] == "umbrella"
    assert "because a window of 250 conversations was too big" in east.api.xcom(east.dag_id, run, "plan", "markdown")

    assert east.finish(run, seconds) == "success", east.api.failures(east.dag_id, run)
    east.check_report(run, JANUARY[0], end, customers)
    found = spans(east.stack, since, customers)
    assert len(found) == len(windows)
    assert most_at_once(found) <= 3
    assert all(set(east.deletes(w).values()) == {1} for w in windows)
    assert all(len(east.jobs_made(w)) == 1 for w in windows)


def test_a_giant_goes_day_by_day_and_the_limit_holds(east: Driver) -> None:
    go_day_by_day(east, SMALL[:4], "2026-01-08", 400)


@pytest.mark.chaos
@pytest.mark.timeout(2400)
def test_a_whole_month_of_a_giant_beside_ten_small_customers(tmp_path: Path) -> None:
    small = {f"small-{number}": 20 + 5 * number for number in range(10)}
    rates = [f"--customer={name}={count}" for name, count in {**small, "umbrella": 3000}.items()]
    options = Options(clusters=("sandbox-east",), data_arguments={"sandbox-east": tuple(rates)})
    with (
        running_stack(tmp_path / "state", options) as stack,
        AirflowApi(stack.airflow_url, AIRFLOW_USER, stack.airflow_password) as api,
    ):
        go_day_by_day(Driver(api, stack, stack.cluster("east")), list(small), JANUARY[1], 2000)


def test_windows_cleared_together_keep_to_the_limit(stack: Stack, east: Driver) -> None:
    customers = ["globex.eu", "hooli", "initech", "stark-industries", "wayne"]
    once = [{"id": f"fail-{c}", "kind": "fail", "customer": c, "start": FEBRUARY[0], "times": 1} for c in customers]
    slow = [{"id": f"slow-{c}", "kind": "slow", "customer": c, "start": FEBRUARY[0], "seconds": 4} for c in customers]
    east.set_worker_faults(*once, *slow)
    limits = {"max_parallel": 2, "max_failures": 10}
    days = {"start_date": FEBRUARY[0], "end_date": FEBRUARY[1]}
    run = east.start("together", customers=customers, approve=True, **limits, **days)
    assert east.finish(run) == "failed"
    assert len(east.failed(run)["windows.wait_workflows"]) == len(customers)

    since = datetime.now().astimezone()
    east.api.clear(east.dag_id, run)
    assert east.finish(run) == "success", east.api.failures(east.dag_id, run)
    east.check_report(run, *FEBRUARY, customers)
    found = spans(stack, since, customers)
    assert len(found) == len(customers)
    assert most_at_once(found) <= 2
    assert all(len(east.jobs_made(w)) == 2 for w in east.plan(run))
    assert all(set(east.deletes(w).values()) == {1} for w in east.plan(run))


def test_a_forced_month_fails_is_cut_twice_and_ends_green(east: Driver) -> None:
    start, end = "2026-02-07", "2026-03-01"
    # The last part fails by its size once more; the rule's first hit is the whole window.
    last = {"id": "last", "kind": "heartbeat_timeout", "customer": "umbrella", "times": 2}
    rule = last | {"start": "2026-02-27", "end": end}
    east.cluster.faults.write_text(json.dumps({"rules": [rule], "limits": {"max_conversations": 1200}}))
    run = east.start("cut", customers=["umbrella"], window="month", start_date=start, end_date=end)
    assert east.finish(run, 500) == "success", east.api.failures(east.dag_id, run)
    assert east.failed(run) == {"windows.wait_workflows": [0], "smaller_windows.wait_workflows": [2]}
    (row,) = east.report(run)["windows"]
    assert row["status"] == "verified"
    assert row["note"] == "cut into 4"
    parts = east.api.xcom(east.dag_id, run, "replan")
    assert [(p["start"], p["end"]) for p in parts] == [
        ("2026-02-07", "2026-02-17"),
        ("2026-02-17", "2026-02-27"),
        ("2026-02-27", "2026-03-01"),
    ]
    days = east.api.xcom(east.dag_id, run, "replan_days")
    assert [d["start"] for d in days] == ["2026-02-27", "2026-02-28"]
    assert [d["part_of"] for d in days] == [parts[2]["key"]] * 2
    east.check_report(run, start, end, ["umbrella"])

    # "Clear only failed" on the green run: the cut window does nothing again, its parts did the work.
    changes = east.changes()
    east.api.clear(east.dag_id, run)
    assert east.finish(run) == "success"
    assert east.changes() == changes
