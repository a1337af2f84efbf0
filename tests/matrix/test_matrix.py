"""Whatever a user chooses ends right: rows, statements, Jobs and verdict of each cell of the matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from backfill import settings
from standins.clickhouse.client import ClickHouseSandbox, running
from standins.kubernetes.client import KubernetesSandbox
from tests.kit.mini_airflow import MiniAirflow, air
from tests.kit.reindexer import Reindexer
from tests.matrix.cells import CUSTOMERS, cells, right
from tests.matrix.world import NAME, SCORES, Run, World, connections, create_tables

__all__ = ["air"]


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseSandbox]:
    """Two shards with two replicas each, with the customers' tables."""
    with running(ClickHouseSandbox(tmp_path_factory.mktemp("clickhouse"), (2, 2), password="p4ss")) as made:
        create_tables(made)
        yield made


@pytest.fixture(scope="session")
def reindexer() -> Iterator[Reindexer]:
    """Whom the pods ask."""
    made = Reindexer()
    yield made
    made.close()


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory, reindexer: Reindexer) -> Iterator[KubernetesSandbox]:
    """The stand-in whose pods ask the reindexer."""
    made = KubernetesSandbox(tmp_path_factory.mktemp("kubernetes"), reindexer.images, NAME)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    clickhouse: ClickHouseSandbox,
    kubernetes: KubernetesSandbox,
    reindexer: Reindexer,
    air: MiniAirflow,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """The cell's month."""
    for name, value in connections(clickhouse, kubernetes).items():
        monkeypatch.setenv(name, value)
    reindexer.install(monkeypatch)
    made = World(request.param, clickhouse, kubernetes, reindexer, air)
    made.configure(tmp_path, monkeypatch)
    yield made
    settings._load.cache_clear()


def run_before(world: World) -> None:
    """Do what the cell's history says, before the run that is judged."""
    if world.cell.history == "after_success" and world.cell.executed:
        world.good = True
        before = world.run("run0")
        world.good = False
        assert before.state == "success", before.air.errors
    if world.cell.history == "after_failure":
        world.fails = "exit"
        before = world.run("run0")
        world.fails = ""
        assert (before.state == "failed") == (world.cell.ends != "dry run")


@pytest.mark.parametrize("world", cells(), ids=lambda cell: cell.name, indirect=True)
def test_every_choice_ends_right(world: World) -> None:
    cell = world.cell
    run_before(world)
    jobs_before, deletes_before = len(world.jobs()), len(world.deletes())
    world.fails = "too big" if cell.history == "after_cut" else ""
    run = world.run("run1")
    wrong = [problem for customer in CUSTOMERS["all"] for problem in problems_of(run, customer)]
    assert wrong == [], run.air.errors
    _judge_run(run)
    _judge_statements(world, deletes_before)
    jobs = world.jobs()
    assert len(set(jobs)) == len(jobs)
    if not cell.executed:
        assert len(jobs) == jobs_before


def problems_of(run: Run, customer: str) -> list[str]:
    """What is not right of one customer."""
    cell, world = run.cell, run.world
    wanted = right(cell, customer)
    rows, scores = world.rows(customer), world.rows(customer, "score")
    problems = []
    if rows != wanted.rows:
        problems.append(f"{customer}: rows {_difference(wanted.rows, rows)}")
    if scores != {f"{i}-{s}": n for i, n in wanted.rows.items() for s in SCORES}:
        problems.append(f"{customer}: scores do not go with the scorecards")
    if not cell.executed or customer not in cell.chosen:
        return problems
    causes = run.causes(customer)
    if wanted.causes and not causes & wanted.causes:
        problems.append(f"{customer}: one of {sorted(wanted.causes)} is wanted, told is {sorted(causes)}")
    if causes and not wanted.causes:
        problems.append(f"{customer}: nothing is wrong, told is {sorted(causes)}")
    if run.verified(customer) == bool(wanted.causes):
        problems.append(f"{customer}: verified is {run.verified(customer)}")
    return problems


def _difference(wanted: dict[str, int], found: dict[str, int]) -> str:
    more, less = Counter(found) - Counter(wanted), Counter(wanted) - Counter(found)
    return f"too many {sorted(more)}, missing {sorted(less)}"


def _judge_run(run: Run) -> None:
    cell = run.cell
    asked = run.air.asked.count("approve")
    if not cell.executed:
        assert run.found["verified"] == 0
        assert (run.state == "success") == (cell.ends == "dry run")
        assert bool(run.found.get("dry_run")) == (cell.ends == "dry run")
        assert ("jane" in run.found["refused"]) == (cell.ends == "rejected")
        return
    wanted = all(not right(cell, customer).causes for customer in cell.chosen)
    assert (run.state == "success") == wanted, run.air.errors
    assert {row["customer_id"] for row in run.found["windows"]} == set(cell.chosen)
    assert bool(asked) == (cell.mode == "cleanup" and cell.ends != "not asked")
    # Nobody is asked about a sweep that takes nothing but what is meant to go.
    assert set(run.air.asked) <= {"approve"}


def _judge_statements(world: World, before: int) -> None:
    cell = world.cell
    sent = world.deletes()
    # No statement twice: the marker in each names window, generation and part.
    assert [text for text, count in Counter(sent).items() if count > 1] == []
    new = sent[before:]
    if not cell.executed or cell.mode == "reindex":
        assert new == []
        return
    drops = [text for text in new if "DROP PARTITION" in text]
    if cell.order == "reindex_first" or not cell.drop:
        assert drops == []
    if cell.order == "delete_first" and cell.history in ("first", "after_success"):
        assert new
        assert bool(drops) == cell.drop
