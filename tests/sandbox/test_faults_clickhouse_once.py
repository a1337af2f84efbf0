"""A DELETE whose outcome is not known is looked for and takes effect once, whatever dies or is cleared."""

from __future__ import annotations

import time
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from backfill.deleting import deleter
from backfill.hooks import clickhouse
from backfill.kit.stages import StageError
from include.scorecard_backfill.records import Failure
from tests.kit.store import Store
from tests.sandbox.faults_clickhouse_fixtures import KilledWorkerError, Scene, die_at_send, rows_before, scene, verified
from tests.standins.clickhouse_fixtures import cluster, nodes, until

__all__ = ["cluster", "nodes", "scene"]

CLEANER = "Cannot provide query execution status. The query's node has been deleted by the cleaner (UNFINISHED)"
INACTIVE = "Mutation is not finished because some replicas are inactive right now: 2. Mutation will be done later"
KILLED = "Mutation 0000000003 was killed (UNFINISHED)"

UNKNOWN: dict[str, dict[str, Any]] = {
    "reset": {"kind": "reset"},
    "159": {"kind": "reply", "code": 159, "message": "Watching task is executing longer than 180 seconds"},
    "341 cleaner": {"kind": "reply", "code": 341, "message": CLEANER},
    "341 inactive": {"kind": "reply", "code": 341, "message": INACTIVE},
    "999": {"kind": "reply", "code": 999, "message": "Coordination error: Session expired"},
    "242": {"kind": "reply", "code": 242, "message": "Table is in readonly mode"},
}


@pytest.fixture(autouse=True)
def _january(scene: Scene) -> None:
    """Rows in the window and beside it."""
    scene.fill("2026-01-05")
    scene.fill("2026-02-05", 7)


def test_both_shards_and_all_replicas_are_deleted(scene: Scene) -> None:
    before = scene.rows()
    assert all(before.values())
    assert rows_before(scene.delete(scene.window())) == {"scorecard": 40}
    assert scene.wait_mutations().status == "gone"
    assert scene.mutations() == scene.everywhere("1")
    assert set(scene.rows("scorecard_time < '2026-02-01'").values()) == {0}
    assert scene.total() == 7


@pytest.mark.parametrize("what", ["reset", "159", "341 cleaner", "341 inactive"])
def test_unknown_outcome_of_a_delete_that_was_taken(scene: Scene, what: str) -> None:
    scene.fault("node-1-1", match=f"{scene.database}.*DELETE WHERE", execute="first", **UNKNOWN[what])
    scene.delete(scene.window())
    assert scene.wait_mutations().status == "gone"
    assert scene.markers() == ["1"]
    assert scene.total() == 7


@pytest.mark.parametrize("what", ["reset", "341 cleaner", "999", "242"])
def test_unknown_outcome_of_a_delete_that_was_not_taken(scene: Scene, what: str) -> None:
    scene.fault("node-1-1", match=f"{scene.database}.*DELETE WHERE", execute="never", times=1, **UNKNOWN[what])
    with pytest.raises(StageError, match="it was sent, but no host has it"):
        scene.delete(scene.window())
    with pytest.raises(AirflowFailException, match="delete_unknown"):
        scene.delete(scene.window())
    assert scene.markers() == ["1"]  # Airflow's own repetitions send nothing
    assert scene.delete(scene.window()).generation == 2
    assert scene.wait_mutations().status == "gone"
    assert scene.mutations() == scene.everywhere("2")


def test_cleaner_answer_while_the_mutation_still_runs(scene: Scene) -> None:
    scene.fault("node-1-1", kind="reply", match="DELETE WHERE", execute="first", code=341, message=CLEANER)
    scene.fault(kind="mutation", match=scene.database)
    scene.delete(scene.window())
    assert scene.wait_mutations(scene.heal).status == "gone"
    assert scene.markers() == ["1"]


def test_killed_mutation_that_nobody_has_is_sent_again_by_a_person_only(scene: Scene) -> None:
    scene.fault("node-1-1", kind="reply", match="DELETE WHERE", code=341, message=KILLED, times=1)
    with pytest.raises(StageError, match="it was sent, but no host has it"):
        scene.delete(scene.window())
    with pytest.raises(AirflowFailException, match="delete_unknown"):
        scene.delete(scene.window())
    assert scene.markers() == ["1"]
    assert scene.delete(scene.window()).generation == 2
    assert scene.wait_mutations().status == "gone"
    assert scene.mutations() == scene.everywhere("2")


def test_killed_mutation_that_is_listed_fails_the_wait(scene: Scene) -> None:
    scene.fault("node-1-1", kind="reply", match="DELETE WHERE", code=341, message=KILLED, execute="first")
    scene.fault(kind="mutation", match=scene.database, killed=True)
    scene.delete(scene.window())
    assert scene.failure().cause == "killed"
    assert scene.markers() == ["1"]


@pytest.mark.parametrize("code", [517, 692])
def test_refused_twice_then_taken(scene: Scene, code: int) -> None:
    scene.fault("node-1-1", kind="reply", match="DELETE WHERE", code=code, times=2)
    scene.delete(scene.window())
    assert scene.wait_mutations().status == "gone"
    assert scene.markers() == ["1", "1", "1"]
    assert scene.mutations() == scene.everywhere("1")


def test_refused_for_long_leaves_it_to_a_retry(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deleter, "REFUSED_TRIES", 3)
    scene.fault("node-1-1", kind="reply", match="DELETE WHERE", code=692, times=3)
    with pytest.raises(StageError, match=r"refuses it, nothing was queued.*692"):
        scene.delete(scene.window())
    assert scene.mutations() == scene.everywhere()
    scene.delete(scene.window())
    assert scene.mutations() == scene.everywhere("1")


@pytest.fixture
def held(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that gives up at once; a node that holds DELETEs, before they are in the DDL queue, until healed."""
    scene.configure(monkeypatch, query_timeout_seconds=2, ddl_timeout_seconds=2, not_picked_up_seconds=60)
    monkeypatch.setattr(clickhouse, "CLIENT_MARGIN_SECONDS", 0)
    scene.fault("node-1-1", kind="latency", match="DELETE WHERE", seconds=600)


def test_a_delete_that_a_node_holds_before_the_ddl_queue_is_not_sent_twice(scene: Scene, held: None) -> None:
    scene.delete(scene.window())
    assert scene.mutations() == scene.everywhere()
    # A worker that was killed at that moment has no answer, and comes back with nothing but its note.
    note = {"state": "sending", "at": time.time()}
    scene.stores["delete"].set(f"sent:{scene.database}.scorecard:1.0", note, retention=NEVER_EXPIRE)
    scene.delete(scene.window())
    assert scene.markers() == ["1"]
    assert scene.wait_mutations(scene.heal).status == "gone"
    assert scene.mutations() == scene.everywhere("1")


def test_no_second_generation_is_sent_while_a_node_holds_the_first(
    scene: Scene, held: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.delete(scene.window())
    scene.configure(monkeypatch, not_picked_up_seconds=2)
    assert scene.failure().cause == "not_picked_up"
    with pytest.raises(StageError, match="node-1-1 still executes an earlier DELETE"):
        scene.wait_mutations()
    assert scene.markers() == ["1"]
    scene.heal()
    until(lambda: scene.mutations() == scene.everywhere("1"), "the held DELETE is everywhere")
    assert scene.wait_mutations().status == "gone"
    assert scene.total() == 7


@pytest.mark.parametrize("sent", [False, True], ids=["before sending", "after sending"])
def test_worker_killed_around_the_send(scene: Scene, monkeypatch: pytest.MonkeyPatch, sent: bool) -> None:
    die_at_send(monkeypatch, number=1, sent=sent)
    with pytest.raises(KilledWorkerError):
        scene.delete(scene.window())
    assert scene.markers() == ["1"] * sent
    result = scene.delete(scene.window())
    assert rows_before(result) == {"scorecard": 40}
    assert scene.wait_mutations().status == "gone"
    assert scene.markers() == ["1"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_worker_killed_at_each_note_that_it_keeps(scene: Scene, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real, calls = Store.set, iter(range(1, 100))

    def dying(self: Store, key: str, value: Any, *, retention: Any = None) -> None:
        if next(calls) == number:
            raise KilledWorkerError
        real(self, key, value, retention=retention)

    monkeypatch.setattr(Store, "set", dying)
    with pytest.raises(KilledWorkerError):
        scene.delete(scene.window())
    assert rows_before(scene.delete(scene.window())) == {"scorecard": 40}
    assert scene.wait_mutations().status == "gone"
    assert scene.markers() == ["1"]


def test_mutation_that_is_there_without_a_note_is_found(scene: Scene) -> None:
    scene.delete(scene.window())
    scene.forget()
    scene.delete(scene.window())
    assert scene.markers() == ["1"]


def test_delete_that_is_done_and_forgotten_when_the_worker_comes_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_at_send(monkeypatch, number=1, sent=True)
    with pytest.raises(KilledWorkerError):
        scene.delete(scene.window())
    scene.fault(kind="overlay", table="mutations", match="backfill:", drop=True)
    result = scene.delete(scene.window())
    assert scene.markers() == ["1"]
    assert list(result.sent[0].accepted) == scene.sandbox.names
    assert scene.wait_mutations().status == "gone"


def test_cleared_after_the_rows_came_back_nothing_is_deleted_again(scene: Scene) -> None:
    scene.delete(scene.window())
    scene.wait_mutations()
    scene.fill("2026-01-05", version=2)
    scene.delete(scene.window())
    assert scene.markers() == ["1"]
    assert scene.total() == 47


@pytest.mark.parametrize("how", ["verified", "cut"])
def test_cleared_window_that_is_verified_or_cut_is_left_alone(scene: Scene, how: str) -> None:
    window = scene.window()
    scene.delete(window)
    scene.wait_mutations()
    scene.fill("2026-01-05", version=2)
    if how == "verified":
        assert verified(scene.verify()).status == "verified"
    else:
        scene.leave("replan", [window.key], "cut")
    for again in (lambda: None, scene.forget):
        again()
        scene.sandbox.clear()
        assert scene.delete(window).status == how
        assert scene.sent() == []
    if how == "verified":
        assert scene.wait_mutations().status == "verified"
    assert scene.total() == 47


def test_window_without_rows_sends_nothing_and_goes_on(scene: Scene) -> None:
    result = scene.delete(scene.window("2026-03-01", "2026-04-01"))
    assert (result.status, result.sent) == ("nothing", ())
    assert scene.wait_mutations().status == "nothing"
    assert scene.sent() == []


def test_mode_reindex_deletes_nothing(scene: Scene) -> None:
    assert scene.delete(scene.window(mode="reindex")).status == "counted"
    assert scene.wait_mutations().status == "nothing"
    assert scene.sent() == []
    assert scene.total() == 47


def test_a_worker_that_wakes_after_its_task_was_marked_sends_nothing(scene: Scene) -> None:
    scene.memory.marked[scene.run_id, "windows.delete"] = "success"
    with pytest.raises(StageError, match="nothing is sent: this task is success for Airflow and not running"):
        scene.delete(scene.window())
    assert scene.sent() == []
    # A person has cleared it: nothing is known to have left, and it is sent once.
    scene.memory.marked.clear()
    scene.delete(scene.window())
    assert scene.markers() == ["1"]


def test_a_right_that_was_taken_away_is_final_names_the_connection_and_a_clear_sends_once(scene: Scene) -> None:
    scene.fault("node-1-1", kind="reply", match="DELETE WHERE", code=497, message="Not enough privileges", times=1)
    # AirflowFailException: Airflow's own retries do not repeat it.
    with pytest.raises(AirflowFailException, match=r"access_denied: .*ClickHouse connection 'clickhouse_"):
        scene.delete(scene.window())
    found = scene.left("delete")
    assert isinstance(found, Failure)
    assert found.cause == "access_denied"
    assert scene.total("scorecard_time < '2026-02-01'") == 40
    assert scene.delete(scene.window()).generation == 1
    assert scene.wait_mutations().status == "gone"
    assert scene.mutations() == scene.everywhere("1")
