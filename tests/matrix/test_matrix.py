"""Whatever a user chooses ends right: rows, statements, Jobs and verdict of each cell of the matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from backfill import settings
from backfill.groups import BATCHES
from standins.clickhouse.client import ClickHouseSandbox, running
from standins.kubernetes.client import KubernetesSandbox
from tests.kit import quick_clients
from tests.kit.mini_airflow import MiniAirflow, air
from tests.kit.reindexer import Reindexer
from tests.matrix.choices import CELLS, LEFT_OUT, Scene, all_pairs, pairs_of, scenes
from tests.matrix.world import NAME, Run, World, connections, create_tables

__all__ = ["air"]

# One scene has up to 28 windows in two runs; each costs some 3 seconds of the servers' processor.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseSandbox]:
    """Two shards, with the customers' tables."""
    with running(ClickHouseSandbox(tmp_path_factory.mktemp("clickhouse"), (1, 1), password="p4ss")) as made:
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
    """The scene's month."""
    for name, value in connections(clickhouse, kubernetes).items():
        monkeypatch.setenv(name, value)
    reindexer.install(monkeypatch)
    quick_clients.install(monkeypatch)
    made = World(request.param, clickhouse, kubernetes, reindexer, air)
    made.configure(tmp_path, monkeypatch)
    yield made
    made.forget()
    settings._load.cache_clear()


def run_before(world: World) -> None:
    """Do what the cell's history says, before the run that is judged."""
    if world.scene.history == "after_success":
        world.good = True
        before = world.run("run0")
        world.good = False
        assert before.state == "success", before.air.errors
        # What this run has written is old for the next one only once it lies behind the skew of the clocks.
        world.wait_until_old()
    if world.scene.history == "after_failure":
        world.fails = "exit"
        before = world.run("run0")
        world.fails = ""
        assert before.state == "failed"


def test_there_are_enough_cells() -> None:
    assert sum(len(scene.behaviours) for scene in scenes()) >= CELLS
    assert len({scene.name for scene in scenes()}) == len(scenes())
    assert [scene.number for scene in scenes()] == list(range(len(scenes())))


def test_every_pair_of_choices_occurs_but_those_that_are_left_out() -> None:
    found = set().union(*(pairs_of(scene) for scene in scenes()))
    assert {tuple(sorted(pair, key=str)) for pair in all_pairs() - found - LEFT_OUT.keys()} == set()
    # What is left out is left out: an entry that occurs after all says nothing any more.
    assert found & LEFT_OUT.keys() == set()
    assert LEFT_OUT.keys() <= all_pairs()


@pytest.mark.parametrize("world", scenes(), ids=lambda scene: scene.name, indirect=True)
def test_every_choice_ends_right(world: World) -> None:
    scene = world.scene
    run_before(world)
    jobs_before, deletes_before = len(world.jobs()), len(world.deletes())
    world.fails = "too big" if scene.history == "after_cut" else ""
    run = world.run("run1")
    cards, scores = world.rows("scorecard"), world.rows("score")
    wrong = [p for customer in scene.present for p in problems_of(run, customer, cards[customer], scores[customer])]
    assert wrong == [], run.air.errors
    _judge_run(run)
    _judge_statements(world, deletes_before)
    jobs = world.jobs()
    assert len(set(jobs)) == len(jobs)
    if not scene.executed:
        assert len(jobs) == jobs_before


def problems_of(run: Run, customer: str, rows: dict[str, int], scores: dict[str, int]) -> list[str]:
    """What is not right of one customer, of whom these scorecards and scores are there."""
    scene = run.scene
    wanted = run.right(customer)
    problems = []
    if rows != wanted.rows:
        problems.append(f"{customer}: rows {_difference(wanted.rows, rows)}")
    if scores != rows:
        problems.append(f"{customer}: scores do not go with the scorecards: {_difference(rows, scores)}")
    if not scene.executed or customer not in scene.behaviours:
        return problems
    causes = run.causes(customer)
    if wanted.causes and not causes & wanted.causes:
        problems.append(f"{customer}: one of {sorted(wanted.causes)} is wanted, told is {sorted(causes)}")
    if causes and not wanted.causes:
        problems.append(f"{customer}: nothing is wrong, told is {sorted(causes)}")
    if run.verified(customer) == bool(wanted.causes):
        problems.append(f"{customer}: verified is {run.verified(customer)}")
    if problems:
        problems.append(f"{customer}: its reindexer: {scene.behaviours[customer]}")
    return problems


def _difference(wanted: dict[str, int], found: dict[str, int]) -> str:
    more, less = Counter(found) - Counter(wanted), Counter(wanted) - Counter(found)
    return f"too many {sorted(more)}, missing {sorted(less)}"


def _judge_run(run: Run) -> None:
    scene = run.scene
    asked = run.air.asked.count("approve")
    if not scene.executed:
        assert run.found["verified"] == 0
        assert (run.state == "success") == scene.dry_run
        assert bool(run.found.get("dry_run")) == scene.dry_run
        assert ("jane" in run.found["refused"]) == scene.rejected
        return
    if scene.history != "after_cut":
        # The report lists the parts of what was cut.
        assert bool(run.opened) == (scene.batches and len(run.found["windows"]) > 1)
    wanted = all(not run.right(customer).causes for customer in scene.behaviours)
    assert (run.state == "success") == wanted, run.air.errors
    assert {row["customer_id"] for row in run.found["windows"]} == set(scene.behaviours)
    assert bool(asked) == (scene.mode == "cleanup" and scene.approval != "not asked")
    # Nobody is asked about a sweep that takes nothing but what is meant to go.
    assert set(run.air.asked) <= {"approve"}


def _judge_statements(world: World, before: int) -> None:
    scene = world.scene
    sent = world.deletes()
    # No statement twice: the marker in each names window, generation and part.
    assert _twice(text for text in sent if "DELETE WHERE" in text) == []
    new = sent[before:]
    # A dropped partition has no marker; a run drops it once, and another run may drop what was written since.
    assert _twice(sent[:before]) == _twice(new) == []
    if not scene.executed or scene.mode == "reindex":
        assert new == []
        return
    drops = [text for text in new if "DROP PARTITION" in text]
    if scene.order == "reindex_first" or not scene.drop:
        assert drops == []
    if scene.order == "delete_first" and scene.history in ("first", "after_success"):
        assert new
        assert bool(drops) == scene.drop


def _twice(texts: Iterable[str]) -> list[str]:
    return [text for text, count in Counter(texts).items() if count > 1]


def failing_cleanup(*, drop: bool) -> Scene:
    """The cheapest cleanup in the order delete_first in which a customer's rows all come back."""
    fitting = [
        scene
        for scene in scenes()
        if (scene.mode, scene.order, scene.history, scene.drop) == ("cleanup", "delete_first", "first", drop)
        and scene.executed and not scene.batches and "all" in scene.behaviours.values()
    ]  # fmt: skip
    return min(fitting, key=lambda scene: scene.cost)


@pytest.mark.parametrize(
    "world", [failing_cleanup(drop=False), failing_cleanup(drop=True)], ids=lambda scene: scene.name, indirect=True
)
def test_windows_that_are_reset_are_reindexed_again_and_no_delete_is_sent_again(world: World) -> None:
    """What `reset` does: every stage of windows that have failed is cleared, from the first one on."""
    world.fails = "exit"
    run = world.run("run0")
    world.fails = ""
    assert run.state == "failed"
    deletes, jobs = world.deletes(), world.jobs()
    assert deletes
    done_before = {customer for customer in world.scene.behaviours if run.verified(customer)}

    for of_run, task_id, index in list(world.air.states):
        if of_run == "run0" and "." in task_id:
            world.air.clear("run0", task_id, index)
    for index, window in enumerate(world.air.result("run0", BATCHES[0].source)):
        run.window(BATCHES[0].group, index, window)
    run.report()

    assert world.deletes() == deletes
    assert len(world.jobs()) == 2 * len(jobs)
    good = {customer for customer, how in world.scene.behaviours.items() if how == "all"}
    assert not good & done_before
    assert {customer for customer in good if run.verified(customer)} == good, run.air.errors
