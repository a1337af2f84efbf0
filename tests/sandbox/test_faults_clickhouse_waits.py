"""wait_mutations against hosts that hang, fail, lose, forget or do not answer: never ok too early, never for ever."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from clickhouse_connect.driver.exceptions import ClickHouseError

from backfill.kit.stages import StageError
from tests.sandbox.faults_clickhouse_fixtures import Scene, rows_before, scene
from tests.standins.clickhouse_fixtures import cluster, nodes, until

__all__ = ["cluster", "nodes", "scene"]


@pytest.fixture(autouse=True)
def _january(scene: Scene) -> None:
    """Rows in the window and beside it."""
    scene.fill("2026-01-05")
    scene.fill("2026-02-05", 7)


def cleared_is_mended(scene: Scene) -> None:
    """After the fault is gone, a clear of the red wait sends generation 2, and the window is done."""
    scene.heal()
    gone = scene.wait_mutations()
    assert (gone.status, gone.generation) == ("gone", 2)
    assert scene.markers() == ["1", "2"]
    assert scene.total() == 7


def test_stalled_names_host_and_parts_and_only_tries_the_kill(scene: Scene) -> None:
    scene.fault("node-2-1", kind="mutation", match=scene.database, parts=12)
    scene.delete(scene.window())
    record = scene.failure()
    assert record.cause == "stalled"
    assert "12 parts to do on node-2-1, no change for" in record.reason
    kills = scene.sent("KILL MUTATION")
    assert len(kills) == 1
    assert "TEST" in kills[0]
    assert f"backfill:{record.key}:1" in kills[0]
    scene.heal()
    assert scene.wait_mutations().status == "gone"
    assert scene.markers() == ["1"]


def test_stalled_is_killed_when_the_run_asks_and_sent_again_when_cleared(scene: Scene) -> None:
    scene.params["kill_stalled_mutations"] = True
    scene.fault(kind="mutation", match=f"{scene.database}.*:1'", parts=12)
    scene.fault(kind="mutation", match="someone else's")
    scene.delete(scene.window())
    assert scene.failure().cause == "killed"
    assert ["TEST" in text for text in scene.sent("KILL MUTATION")] == [True, False]
    assert scene.mutations() == scene.everywhere()
    assert scene.total() == 47
    cleared_is_mended(scene)


def test_fail_reason_that_stays_fails_the_window_with_it(scene: Scene) -> None:
    scene.fault("node-1-2", kind="mutation", match=scene.database, reason="Code: 53. TYPE_MISMATCH")
    scene.delete(scene.window())
    record = scene.failure()
    assert record.cause == "fail_reason"
    assert "fails on node-1-2: Code: 53. TYPE_MISMATCH" in record.reason
    assert scene.markers() == ["1"]


def test_fail_reason_that_passes_is_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.configure(monkeypatch, fail_reason_polls=50)
    scene.fault("node-1-2", kind="mutation", match=scene.database, reason="Code: 241. MEMORY_LIMIT_EXCEEDED")
    scene.delete(scene.window())
    assert scene.wait_mutations(scene.heal).status == "gone"


def test_killed_on_one_host_then_found_done_sends_nothing_again(scene: Scene) -> None:
    """The clear looks at the facts: the host lists the mutation as done by now, and no row is left anywhere."""
    scene.fault("node-1-2", kind="overlay", table="mutations", match=":1'", set={"is_killed": 1, "is_done": 0})
    scene.delete(scene.window())
    record = scene.failure()
    assert record.cause == "killed"
    assert "node-1-2" in record.reason
    scene.heal()
    gone = scene.wait_mutations()
    assert (gone.status, gone.generation) == ("gone", 1)
    assert scene.markers() == ["1"]
    assert scene.total() == 7


def test_killed_and_still_listed_is_sent_again_when_cleared(scene: Scene) -> None:
    scene.fault(kind="mutation", match=f"{scene.database}.*:1'")
    scene.fault(kind="kill_lists", match="DELETE")
    scene.delete(scene.window())
    kill = f"KILL MUTATION ON CLUSTER 'conversations' WHERE database = '{scene.database}'"
    scene.sandbox.nodes()[0].query(kill)
    assert scene.failure().cause == "killed"
    cleared_is_mended(scene)


def test_killed_and_gone_is_rows_left_then_cleared(scene: Scene) -> None:
    scene.fault(kind="mutation", match=f"{scene.database}.*:1'")
    scene.delete(scene.window())
    kill = f"KILL MUTATION ON CLUSTER 'conversations' WHERE database = '{scene.database}'"
    scene.sandbox.nodes()[0].query(kill)
    assert scene.mutations() == scene.everywhere()
    assert scene.failure().cause == "rows_left"
    cleared_is_mended(scene)


def test_rows_left_on_one_replica(scene: Scene) -> None:
    scene.fault("node-2-2", kind="rows_left", match=scene.database)
    scene.delete(scene.window())
    record = scene.failure()
    assert record.cause == "rows_left"
    assert "left on node-2-2" in record.reason
    assert "node-2-1" not in record.reason
    cleared_is_mended(scene)


def test_ddl_that_no_host_picks_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.configure(monkeypatch, ddl_timeout_seconds=1)
    scene.fault(kind="ddl_drop", match=scene.database)
    scene.delete(scene.window())
    record = scene.failure()
    assert record.cause == "not_picked_up"
    assert all(name in record.reason for name in scene.sandbox.names)
    assert scene.markers() == ["1"]
    cleared_is_mended(scene)


def test_ddl_that_one_shard_refuses(scene: Scene) -> None:
    for name in ("node-2-1", "node-2-2"):
        scene.fault(name, kind="ddl_error", match=scene.database, code=242, message="Table is in readonly mode")
    assert scene.delete(scene.window()).sent[0].accepted == ("node-1-1", "node-1-2")
    record = scene.failure()
    assert record.cause == "not_picked_up"
    assert "not picked up by node-2-1, node-2-2" in record.reason
    cleared_is_mended(scene)


def test_host_that_takes_it_later_is_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.configure(monkeypatch, ddl_timeout_seconds=1, not_picked_up_seconds=30)
    scene.fault("node-2-2", kind="replica_hold", match=scene.database)
    assert "node-2-2" not in scene.delete(scene.window()).sent[0].accepted
    left = {}

    def look_then_heal() -> None:
        left.update(scene.rows("scorecard_time < '2026-02-01'"))
        scene.heal()

    assert scene.wait_mutations(look_then_heal).status == "gone"
    assert left["node-2-2"] > 0
    assert scene.markers() == ["1"]


def test_resent_delete_that_nobody_has_is_sent_again_by_the_next_clear(scene: Scene) -> None:
    scene.params["kill_stalled_mutations"] = True
    scene.fault(kind="mutation", match=f"{scene.database}.*:1'", parts=12)
    scene.delete(scene.window())
    assert scene.failure().cause == "killed"
    scene.heal()
    lost = {"kind": "reply", "match": f"{scene.database}.*:2'", "code": 341, "message": "was killed", "times": 1}
    scene.fault("node-1-1", **lost, execute="never")
    with pytest.raises(StageError, match="it was sent, but no host has it"):
        scene.wait_mutations()
    record = scene.failure()
    assert (record.cause, record.generation) == ("delete_unknown", 2)
    gone = scene.wait_mutations()
    assert (gone.status, gone.generation) == ("gone", 3)
    assert scene.markers() == ["1", "2", "3"]
    assert scene.total() == 7


def test_finished_and_forgotten_is_decided_by_a_count(scene: Scene) -> None:
    scene.fault(kind="overlay", table="mutations", match="backfill:", drop=True)
    scene.delete(scene.window())
    assert scene.wait_mutations().status == "gone"
    assert scene.markers() == ["1"]


def test_late_host_is_seen_once_and_then_forgotten(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.configure(monkeypatch, ddl_timeout_seconds=1, not_picked_up_seconds=15, mutation_stall_seconds=60)
    node = scene.sandbox.node("node-2-2")
    (hold,) = node.add_faults({"kind": "replica_hold", "match": scene.database})
    (busy,) = node.add_faults({"kind": "mutation", "match": scene.database})
    scene.delete(scene.window())

    def taken() -> None:
        node.clear_faults(hold)
        until(lambda: scene.mutations()["node-2-2"] == ["1"], "node-2-2 takes it")

    def forgotten() -> None:
        node.add_faults({"kind": "overlay", "table": "mutations", "match": "backfill:", "drop": True})
        node.clear_faults(busy)

    assert scene.wait_mutations(taken, forgotten).status == "gone"


@pytest.mark.parametrize(
    ("table", "mode"), [("system.one", "omit"), ("system.one", "error"), ("mutations", "omit"), ("scorecard", "omit")]
)
def test_host_missing_from_answers_is_not_done(scene: Scene, table: str, mode: str) -> None:
    scene.fault("node-2-2", kind="mutation", match=scene.database)
    scene.delete(scene.window())
    scene.fault("node-2-2", kind="silent", match=table, mode=mode)
    healed = []

    def heal() -> None:
        healed.append(scene.rows("scorecard_time < '2026-02-01'")["node-2-2"])
        scene.heal()

    assert scene.wait_mutations(lambda: None, heal).status == "gone"
    assert healed[0] > 0
    assert scene.total() == 7


BROKEN: dict[str, dict[str, Any]] = {
    "cut mutations": {"kind": "cut", "bytes": 20, "match": "system.mutations"},
    "cut count": {"kind": "cut", "bytes": 20, "match": "FINAL"},
    "reset": {"kind": "reset", "match": "system.mutations"},
    "241": {"kind": "reply", "code": 241, "match": "FINAL"},
}


@pytest.mark.parametrize("rule", BROKEN.values(), ids=BROKEN)
def test_broken_answer_is_asked_again(scene: Scene, rule: dict[str, Any]) -> None:
    scene.delete(scene.window())
    scene.fault("node-1-1", times=2, **rule)
    assert scene.wait_mutations().status == "gone"
    assert [r["hits"] for r in scene.sandbox.node("node-1-1").faults()] == [2]


def test_cut_count_before_a_delete_is_an_error_and_not_zero(scene: Scene) -> None:
    scene.fault("node-1-1", kind="cut", match="FINAL", bytes=20)
    with pytest.raises(ClickHouseError):
        scene.delete(scene.window())
    assert scene.sent() == []
    scene.heal()
    assert rows_before(scene.delete(scene.window())) == {"scorecard": 40}


def test_replicas_that_differ_are_not_deleted(scene: Scene) -> None:
    scene.fault("node-1-2", kind="replica_hold", match=f"INSERT INTO {scene.database}")
    scene.fill("2026-01-06")
    with pytest.raises(StageError, match=r"replicas of .*scorecard differ.*nothing was deleted"):
        scene.delete(scene.window())
    assert scene.sent() == []


def test_error_that_no_patience_mends_fails_loudly(scene: Scene) -> None:
    scene.delete(scene.window())
    scene.fault("node-1-1", kind="reply", match="system.mutations", code=497, message="Not enough privileges")
    record = scene.failure()
    assert record.cause == "access_denied"
    assert "ClickHouse connection 'clickhouse_faults'" in record.reason
    assert "Not enough privileges" in record.reason


def test_overlap_goes_on_once_every_host_has_the_mutation(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"scorecard": {"column": "updated_at"}}
    scene.configure(
        monkeypatch, ddl_timeout_seconds=1, not_picked_up_seconds=30, mutation_stall_seconds=60, written_columns=told
    )
    scene.params["overlap"] = True
    (hold,) = scene.sandbox.node("node-2-2").add_faults({"kind": "replica_hold", "match": scene.database})
    scene.fault(kind="mutation", match=scene.database)
    scene.delete(scene.window())
    seen = []

    def release() -> None:
        seen.append(scene.mutations()["node-2-2"])
        scene.sandbox.node("node-2-2").clear_faults(hold)

    assert scene.wait_mutations(release).status == "overlap"
    assert seen == [[]]
    assert scene.mutations() == scene.everywhere("1")
    assert scene.total() == 47


def test_overlap_waits_for_the_end_where_nobody_could_prove_it_later(scene: Scene) -> None:
    """The mutation ends well and its rows stay: they could not be told from those that come back."""
    scene.params["overlap"] = True
    scene.fault(kind="rows_left", match=scene.database)
    scene.delete(scene.window())
    assert scene.failure().cause == "rows_left"


def foreign(scene: Scene, command: str, rows: int = 1) -> None:
    """Unfinished mutations of someone else on this customer's table."""
    row = {"database": scene.database, "table": "scorecard", "mutation_id": "0000000099", "command": command}
    scene.fault("node-1-2", kind="overlay", table="mutations", add=[row] * rows)


def test_mutations_of_others_are_not_waited_for(scene: Scene) -> None:
    foreign(scene, "(UPDATE _row_exists = 0 WHERE customer_id = 'initech')")
    scene.delete(scene.window())
    assert scene.wait_mutations().status == "gone"


def test_table_with_too_many_mutations_of_others_is_left_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.configure(monkeypatch, max_unfinished_foreign_mutations=1)
    foreign(scene, "(DELETE WHERE customer_id = 'initech')", rows=2)
    with pytest.raises(StageError, match=r"2 unfinished mutations of others \(limit 1\).*node-1-2.*initech"):
        scene.delete(scene.window())
    assert scene.sent() == []
    scene.heal()
    scene.delete(scene.window())
    assert scene.markers() == ["1"]


def test_column_change_of_others_is_waited_for(scene: Scene) -> None:
    foreign(scene, "(MODIFY COLUMN `scorecard_type` String)")
    seen = []

    def look_then_heal() -> None:
        seen.append(scene.sent())
        scene.heal()

    scene.delete(scene.window(), look_then_heal)
    assert seen == [[]]
    assert scene.markers() == ["1"]
    assert scene.wait_mutations().status == "gone"


def test_column_change_that_appears_during_the_wait_is_named(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.fault("node-2-1", kind="mutation", match=scene.database)
    scene.delete(scene.window())
    foreign(scene, "(MODIFY COLUMN `scorecard_type` String)")
    with pytest.raises(AirflowFailException, match="stalled"):
        scene.wait_mutations()
    logged = capsys.readouterr().out
    assert f"another ALTER of {scene.database}.scorecard is unfinished on node-1-2: (MODIFY COLUMN" in logged
