"""Whatever is killed: each window is deleted once, reindexed by one Job, and green is true.

One run on each cluster is put through all the kills (`scene`); the tests look at what came of it, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sandbox.airflow_api import AirflowApi
from sandbox.stack_model import AIRFLOW_USER, Stack
from sandbox.stack_wait import wait_for
from standins.clickhouse.client import NodeClient
from tests.sandbox.audit import audit
from tests.sandbox.drive import APPROVAL_SECONDS, Driver
from tests.sandbox.killing import (
    AIRFLOW,
    LABEL_WINDOW,
    Killer,
    collect,
    deleted_jobs,
    kill_at,
    kubernetes,
    on_create,
    patiently,
    rule_hit,
)

# Days and months that no other test of the session cleans. East deletes by mutations, west drops a partition.
EAST = {"start_date": "2026-01-10", "end_date": "2026-01-20"}
WEST = {"start_date": "2025-12-01", "end_date": "2026-01-01", "window": "month"}
CUSTOMERS = ["acme", "acme-sandbox", "globex.eu", "hooli", "initech", "stark-industries", "wayne"]
LIMIT_SECONDS = 240

Condition = Callable[[], bool]


@dataclass(frozen=True)
class Scene:
    """Both clusters after all the kills: `run` on east has ended.

    On west reindex of `marked` was marked failed while it waited for the Job `hanging`; `deleted_before` are the Jobs
    that were deleted until then, `others_before` what the run `second` had done.
    """

    east: Driver
    west: Driver
    run: str
    marked: str
    second: str
    hanging: str
    deleted_before: list[str]
    others_before: set[str | None]

    def index(self, customer: str) -> int:
        """Return the map index of a customer's window on east; each customer has one."""
        return index_of(self.east, self.run, customer)


def index_of(driver: Driver, run: str, customer: str) -> int:
    """Return the map index of a customer's window; each customer has one."""
    return [window["customer_id"] for window in driver.plan(run)].index(customer)


def on_node(node: NodeClient, kind: str, seconds: float, match: str) -> Condition:
    """Let a node do something wrong once, and return whether it has begun."""
    (number,) = node.add_faults({"kind": kind, "seconds": seconds, "match": match, "times": 1})
    return rule_hit(node.faults, number)


def alter(database: str, table: str) -> str:
    """Return a pattern of the statements that change a table."""
    return f"ALTER TABLE `{database}`\\.`{table}`"


def triggerer_of(driver: Driver, run: str, task_id: str, index: int) -> int | None:
    """Return the id of the triggerer job that runs a deferred task's trigger."""
    record = patiently(lambda: driver.api.task(driver.dag_id, run, task_id, index))
    job = record.get("triggerer_job") if record["state"] == "deferred" else None
    return int(job["id"]) if job else None


def watched(driver: Driver, job: str, since: int) -> bool:
    """Return whether the Job's trigger has asked for its pods after a request.

    Airflow's record still names the dead triggerer until another one takes the trigger; and a task that is marked
    before a trigger of it runs again is ended by nobody: its Job lives on.
    """
    return any(job in str(record["query"]) for record in driver.kubernetes().requests("GET", "/pods", since))


def kill_workers(east: Driver, west: Driver, run: str, marked: str) -> None:
    """Kill the worker of each window at another boundary of delete and reindex."""
    killer, first, last = Killer(east), east.nodes()[0], east.nodes()[-1]
    keys = {window["customer_id"]: window["key"] for window in east.plan(run)}
    index = {customer: number for number, customer in enumerate(w["customer_id"] for w in east.plan(run))}

    def worker(customer: str, stage: str, *, supervisor: bool = False) -> Condition:
        task = f"windows.{stage}"
        return lambda: killer.kill_worker(run, task, index[customer], supervisor=supervisor)

    dropping = on_node(west.nodes()[-1], "ddl_hold", 10, alter("tyrell_chat", "score"))
    points: dict[str, tuple[Condition, Condition]] = {
        "delete before it sends": (
            on_node(first, "latency", 6, "FINAL.*acme_sandbox_voice"), worker("acme-sandbox", "delete")
        ),
        "delete while it sends": (
            on_node(first, "latency", 6, alter("globex_eu_voice_1", "scorecard")), worker("globex.eu", "delete")
        ),
        "delete while hosts carry it out": (
            on_node(last, "ddl_hold", 12, alter("initech_voice", "scorecard")), worker("initech", "delete")
        ),
        "the supervisor of a delete, whose process goes on": (
            on_node(last, "ddl_hold", 12, alter("hooli_chat", "score")), worker("hooli", "delete", supervisor=True)
        ),
        "reindex before the Job is stored": (
            on_create(east, "hang", keys["stark-industries"]), worker("stark-industries", "reindex")
        ),
        "reindex after the Job is stored": (
            on_create(east, "stored_then_hang", keys["wayne"]), worker("wayne", "reindex")
        ),
        "delete while partitions are dropped": (
            dropping, lambda: Killer(west).kill_worker(marked, "windows.delete", 0)
        ),
    }  # fmt: skip
    for driver, name in ((east, run), (west, marked)):
        driver.api.approve(driver.dag_id, name, APPROVAL_SECONDS)
    kill_at(points, LIMIT_SECONDS)


def kill_parts(east: Driver, run: str, creating: Condition, again: Condition, last: Condition) -> None:
    """Kill the scheduler, the API server, the triggerer, and then all of Airflow, while windows are under way.

    ``last``: what must hold before all of it is killed.
    """
    killer, index = Killer(east), index_of(east, run, "globex.eu")
    held = (east, run, "windows.wait_workflows", index)

    # The scheduler and its workers, one of which makes a Job: its process lives on and is held by the API server.
    wait_for(creating, LIMIT_SECONDS, "a worker makes the Job of acme")
    killer.kill_and_start("scheduler")

    # The API server of Airflow, while the retry makes the same Job; then both requests go on. At once, since a request
    # that is held for longer than the product waits costs one of the few tries.
    wait_for(again, LIMIT_SECONDS, "the retry makes the Job of acme")
    killer.kill("api-server")
    east.kubernetes().clear_faults()
    killer.start("api-server")

    # The triggerer; the second one takes its triggers over.
    before = wait_for(lambda: triggerer_of(*held), LIMIT_SECONDS, "a triggerer has the wait of globex.eu")
    killer.kill("triggerer")
    killer.start("triggerer-2")
    wait_for(lambda: triggerer_of(*held) not in (None, before), 90, "triggerer-2 has the wait of globex.eu")

    wait_for(last, LIMIT_SECONDS, "the Job of tyrell hangs and is waited for")
    killer.kill("triggerer-2", "scheduler", "dag-processor", "api-server")
    killer.start(*AIRFLOW)


@pytest.fixture(scope="module")
def scene(stack: Stack) -> Iterator[Scene]:
    """Put a run on each cluster through the kills."""
    with AirflowApi(stack.airflow_url, AIRFLOW_USER, stack.airflow_password) as api:
        east, west = (Driver(api, stack, stack.cluster(name)) for name in ("east", "west"))
        try:
            yield make_scene(east, west)
        finally:
            Killer(east).restore()
            for driver in (east, west):
                driver.set_worker_faults()
                kubernetes(driver).clear_faults()
                for node in driver.nodes():
                    node.clear_faults()


def make_scene(east: Driver, west: Driver) -> Scene:
    """Start the runs, kill, and wait for the end of the one on east."""
    run = east.start("kill-east", approve=False, customers=CUSTOMERS, max_parallel=len(CUSTOMERS), **EAST)
    marked = west.start("kill-west", approve=False, customers=["tyrell"], **WEST)
    second = west.start("kill-second", approve=False, customers=["soylent"], **WEST)
    for driver, name in ((east, run), (west, marked)):
        driver.api.wait_for_approval(driver.dag_id, name, APPROVAL_SECONDS)
    (acme,) = (window["key"] for window in east.plan(run) if window["customer_id"] == "acme")
    (tyrell,) = west.plan(marked)
    creating, again = on_create(east, "hang", acme), on_create(east, "hang", acme)
    east.set_worker_faults({"id": "held", "kind": "hold", "customer": "globex.eu"})
    kubernetes(west).set_faults(
        {"kind": "hang_container", "match": {"labels": {LABEL_WINDOW: tyrell["key"]}}, "times": 1}
    )
    kill_workers(east, west, run, marked)

    def waits_for_job() -> bool:
        return triggerer_of(west, marked, "windows.reindex", 0) is not None

    kill_parts(east, run, creating, again, waits_for_job)
    east.set_worker_faults()
    # The run asked for at the same time waits for the first one.
    since = west.kubernetes().last_request_id()
    others = {task.state for task in west.api.tasks(west.dag_id, second)} | {west.api.run_state(west.dag_id, second)}
    (job,) = kubernetes(west).jobs(f"{LABEL_WINDOW}={tyrell['key']}")
    name = job["metadata"]["name"]
    wait_for(lambda: watched(west, name, since), LIMIT_SECONDS, "a triggerer watches the Job again")
    deleted = deleted_jobs(west)
    assert west.api.task(west.dag_id, marked, "windows.reindex", 0)["state"] == "deferred", "it waits for its Job"
    west.api.mark(west.dag_id, marked, "windows.reindex", "failed", 0)
    assert patiently(lambda: east.finish(run)) == "success", east.api.failures(east.dag_id, run)
    return Scene(east, west, run, marked, second, name, deleted, others)


def test_each_window_was_deleted_once_and_has_one_job(scene: Scene) -> None:
    east = scene.east
    assert audit("success", collect(east, scene.run)) == []
    assert deleted_jobs(east) == []
    east.check_report(scene.run, EAST["start_date"], EAST["end_date"], CUSTOMERS)


def test_what_a_clear_takes_along_does_nothing_again(scene: Scene) -> None:
    east, index = scene.east, scene.index("globex.eu")
    changes = east.changes()
    cleared = east.api.clear(east.dag_id, scene.run, [("windows.delete", index)], only_failed=False, downstream=True)
    assert {task.task_id for task in cleared} >= {"windows.delete", "windows.reindex", "windows.verify", "report"}
    assert east.finish(scene.run) == "success", east.api.failures(east.dag_id, scene.run)
    assert east.changes() == changes
    for stage in ("delete", "reindex"):
        task: dict[str, Any] = east.api.task(east.dag_id, scene.run, f"windows.{stage}", index)
        log = east.api.log(east.dag_id, scene.run, f"windows.{stage}", index, task["try_number"])
        assert "verified already in this run" in log
    assert audit("success", collect(east, scene.run)) == []


def test_a_job_is_deleted_when_its_deferred_task_is_marked_and_only_then(scene: Scene) -> None:
    west, run = scene.west, scene.marked
    # Workers, triggerer, scheduler, API server and all of Airflow were killed before.
    assert scene.deleted_before == []
    wait_for(lambda: deleted_jobs(west), 60, "the Job of the marked task is deleted")
    assert west.finish(run) == "failed"
    assert set(deleted_jobs(west)) == {scene.hanging}
    assert [row["status"] for row in west.report(run)["windows"]] == ["deleted, not yet reindexed"]


def test_the_second_run_goes_on_after_the_first_and_a_clear_ends_that_green(scene: Scene) -> None:
    west, run = scene.west, scene.marked
    assert scene.others_before <= {None, "queued"}
    changes = west.changes()
    west.api.reject(west.dag_id, scene.second, APPROVAL_SECONDS)
    assert west.finish(scene.second) == "failed"
    assert west.changes() == changes

    west.api.clear(west.dag_id, run)
    assert west.finish(run) == "success", west.api.failures(west.dag_id, run)
    (window,) = west.plan(run)
    assert audit("success", collect(west, run), {window["label"]: 2}) == []
