"""Deletes in several statements: day by day with a last sweep, within a limit, or by dropping whole partitions."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from backfill.kit.stages import StageError
from tests.sandbox.faults_clickhouse_fixtures import KilledWorkerError, Scene, die_at_send, rows_before, scene
from tests.standins.clickhouse_fixtures import cluster, nodes

__all__ = ["cluster", "nodes", "scene"]

JANUARY = "scorecard_time < '2026-02-01'"


@pytest.fixture
def days(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Two days of 30 rows where 50 are one DELETE's limit, and rows beside the window."""
    by_day(scene, monkeypatch)
    scene.fill("2026-01-05", 30)
    scene.fill("2026-01-09", 30)
    scene.fill("2026-02-05", 7)
    return scene


def by_day(scene: Scene, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    limits = {"drop_partition": False, "max_rows_per_mutation": 50}
    scene.configure(monkeypatch, delete=limits, ddl_timeout_seconds=2, **more)


def test_days_go_one_after_the_other_and_a_last_sweep_takes_what_came_meanwhile(days: Scene) -> None:
    days.fault("node-2-1", kind="mutation", match=f"{days.database}.*:1.1'")
    seen = []

    def one_more_row_then_heal() -> None:
        seen.append(days.markers())
        days.fill("2026-01-20", 5)
        days.heal()

    result = days.delete(days.window(), one_more_row_then_heal)
    assert seen == [["1.1"]]
    assert rows_before(result) == {"scorecard": 60}
    assert days.markers() == ["1.1", "1.2", "1"]
    assert days.wait_mutations().status == "gone"
    assert days.total() == 7


@pytest.mark.parametrize(("number", "sent"), [(2, False), (2, True), (3, True)])
def test_worker_killed_between_days(days: Scene, monkeypatch: pytest.MonkeyPatch, number: int, sent: bool) -> None:
    die_at_send(monkeypatch, number=number, sent=sent)
    with pytest.raises(KilledWorkerError):
        days.delete(days.window())
    days.delete(days.window())
    assert days.wait_mutations().status == "gone"
    assert days.total() == 7
    # A day whose rows are gone is not deleted again; the sweep over nothing need not be sent.
    assert [m for m in days.markers() if m != "1"] == ["1.1", "1.2"]
    assert days.markers().count("1") <= 1


def test_stalled_day_fails_and_a_clear_goes_on_where_it_was(days: Scene) -> None:
    days.fault("node-2-1", kind="mutation", match=f"{days.database}.*:1.1'", parts=12)
    with pytest.raises(AirflowFailException, match=r"stalled: .*12 parts to do on node-2-1"):
        days.delete(days.window())
    assert ["TEST" in text for text in days.sent("KILL MUTATION")] == [True]
    days.heal()
    days.delete(days.window())
    assert days.markers() == ["1.1", "1.2", "1"]
    assert days.wait_mutations().status == "gone"


def test_failing_day_is_killed_when_the_run_asks_and_a_clear_looks_again(days: Scene) -> None:
    days.params["kill_stalled_mutations"] = True
    days.fault(kind="mutation", match=f"{days.database}.*:1.1'", reason="Code: 53. TYPE_MISMATCH")
    with pytest.raises(AirflowFailException, match=r"killed: .*TYPE_MISMATCH"):
        days.delete(days.window())
    assert days.mutations() == days.everywhere()
    days.heal()
    # A killed mutation is listed no more. The day is not sent again by itself: the last sweep takes what is left of it.
    assert days.delete(days.window()).generation == 1
    assert days.markers() == ["1.1", "1.2", "1"]
    assert days.wait_mutations().status == "gone"
    assert days.total() == 7


def test_day_that_a_shard_never_takes(days: Scene) -> None:
    for name in ("node-2-1", "node-2-2"):
        days.fault(name, kind="ddl_error", match=":1.1'", code=242, message="Table is in readonly mode")
    with pytest.raises(AirflowFailException, match=r"not_picked_up: .*node-2-1, node-2-2"):
        days.delete(days.window())
    assert days.markers() == ["1.1"]
    days.heal()
    assert days.delete(days.window()).generation == 2
    assert days.wait_mutations().status == "gone"


def test_killed_day_of_a_resent_delete_is_sent_again_by_the_next_clear(days: Scene) -> None:
    rules = [
        {"kind": "overlay", "table": "mutations", "match": match, "set": {"is_killed": 1, "is_done": 0}}
        for match in (":1'", ":2.1'")
    ]
    days.delete(days.window())
    days.fill("2026-01-05", 30, version=2)  # as if the killed DELETE had left them
    days.sandbox.node("node-1-2").add_faults(*rules)
    assert days.failure().cause == "killed"
    again = days.failure()
    assert (again.cause, again.generation) == ("killed", 2)
    assert days.markers() == ["1.1", "1.2", "1", "2.1"]
    assert days.wait_mutations().generation == 3
    assert days.total() == 7


def test_windows_in_flight_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.configure(monkeypatch, delete={"drop_partition": False, "max_own_unfinished_mutations": 1})
    other = scene.other()
    for one in (scene, other):
        one.fill("2026-01-05")
    scene.fault(kind="mutation", match=scene.database)
    scene.delete(scene.window())
    seen = []

    def look_then_heal() -> None:
        seen.append(other.sent())
        scene.heal()

    other.delete(other.window(), look_then_heal)
    assert seen == [[]]
    assert other.markers() == ["1"]
    assert scene.wait_mutations().status == other.wait_mutations().status == "gone"


@pytest.fixture
def dropping(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A month that is one partition, and rows beside it."""
    drops(scene, monkeypatch)
    scene.fill("2026-01-05")
    scene.fill("2026-02-05", 7)
    return scene


def drops(scene: Scene, monkeypatch: pytest.MonkeyPatch, patience: int = 3, **limits: int) -> None:
    limits |= {"drop_partition": True}
    scene.configure(monkeypatch, ddl_timeout_seconds=1, not_picked_up_seconds=patience, delete=limits)


def dropped(scene: Scene) -> int:
    """How many DROP PARTITION were sent; there may be no DELETE beside them."""
    assert scene.sent() == []
    return len(scene.sent("DROP PARTITION ID '202601'"))


def test_whole_month_is_dropped(dropping: Scene) -> None:
    assert dropping.delete(dropping.window()).sent[0].partitions == ("202601",)
    assert dropping.wait_mutations().status == "gone"
    assert dropped(dropping) == 1
    assert dropping.total() == 7


@pytest.mark.parametrize("why", ["other customer", "NULL", "too large", "part of a month"])
def test_partition_that_may_not_be_dropped(dropping: Scene, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    window, kept = dropping.window(), 7
    if why == "other customer":
        dropping.fill("2026-01-06", 3, customer="initech", first=1000)
        kept += 3
    elif why == "NULL":
        dropping.row_without_profile("2026-01-07")
        kept += 1
    elif why == "too large":
        drops(dropping, monkeypatch, max_partition_bytes=1)
    else:
        window = dropping.window("2026-01-01", "2026-01-31")
    dropping.delete(window)
    assert dropping.wait_mutations().status == "gone"
    assert dropping.markers() == ["1"]
    assert dropping.sent("DROP PARTITION") == []
    assert dropping.total() == kept


@pytest.mark.parametrize("execute", ["first", "never"])
def test_unknown_outcome_of_a_drop(dropping: Scene, execute: str) -> None:
    dropping.fault("node-1-1", kind="reset", match="DROP PARTITION", execute=execute, times=1)
    if execute == "never":
        with pytest.raises(StageError, match="it was sent, but no host has it"):
            dropping.delete(dropping.window())
        with pytest.raises(AirflowFailException, match="delete_unknown"):
            dropping.delete(dropping.window())
    dropping.delete(dropping.window())
    assert dropping.wait_mutations().status == "gone"
    assert len(dropping.sent("DROP PARTITION ID '202601'")) == 1
    assert dropping.markers() == ([] if execute == "first" else ["2"])
    assert dropping.total() == 7


@pytest.mark.parametrize("sent", [False, True], ids=["before sending", "after sending"])
def test_worker_killed_around_a_drop(dropping: Scene, monkeypatch: pytest.MonkeyPatch, sent: bool) -> None:
    die_at_send(monkeypatch, number=1, sent=sent)
    with pytest.raises(KilledWorkerError):
        dropping.delete(dropping.window())
    result = dropping.delete(dropping.window())
    assert rows_before(result) == {"scorecard": 40}
    assert result.sent[0].partitions == ("202601",)
    assert dropping.wait_mutations().status == "gone"
    # Not as rows either: the DROP is found where it is.
    assert dropped(dropping) == 1
    assert dropping.total() == 7


def test_drop_of_a_killed_worker_that_a_host_runs_late_is_found_and_waited_for(
    dropping: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    drops(dropping, monkeypatch, patience=20)
    for name in ("node-2-1", "node-2-2"):
        dropping.fault(name, kind="ddl_hold", match="DROP PARTITION")
    with monkeypatch.context() as patch:
        die_at_send(patch, number=1, sent=True)
        with pytest.raises(KilledWorkerError):
            dropping.delete(dropping.window())
    assert dropping.delete(dropping.window()).sent[0].partitions == ("202601",)
    left = {}

    def look_then_heal() -> None:
        left.update(dropping.rows(JANUARY))
        dropping.heal()

    assert dropping.wait_mutations(look_then_heal).status == "gone"
    assert left["node-2-1"] > 0
    assert dropped(dropping) == 1


def test_drop_that_a_host_runs_late_is_waited_for(dropping: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    drops(dropping, monkeypatch, patience=20)
    for name in ("node-2-1", "node-2-2"):
        dropping.fault(name, kind="ddl_hold", match="DROP PARTITION")
    assert set(dropping.delete(dropping.window()).sent[0].accepted) <= {"node-1-1", "node-1-2"}
    left = {}

    def look_then_heal() -> None:
        left.update(dropping.rows(JANUARY))
        dropping.heal()

    assert dropping.wait_mutations(look_then_heal).status == "gone"
    assert left["node-2-1"] > 0
    assert dropped(dropping) == 1


def test_drop_that_left_rows_is_followed_by_a_delete_when_cleared(dropping: Scene) -> None:
    dropping.fault("node-2-2", kind="rows_left", match="DROP PARTITION")
    dropping.delete(dropping.window())
    record = dropping.failure()
    assert record.cause == "rows_left"
    assert "left on node-2-2" in record.reason
    assert dropped(dropping) == 1
    dropping.heal()
    assert dropping.wait_mutations().generation == 2
    assert dropping.markers() == ["2"]
    assert dropping.total() == 7


def test_cleared_after_a_drop_nothing_is_deleted_by_days(dropping: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    dropping.fill("2026-01-08", 20)
    dropping.delete(dropping.window())
    dropping.wait_mutations()
    dropping.fill("2026-01-05", version=2)
    dropping.fill("2026-01-06", 3, customer="initech", first=1000)
    drops(dropping, monkeypatch, max_rows_per_mutation=10)
    dropping.delete(dropping.window())
    assert dropped(dropping) == 1
    assert dropping.total(JANUARY) == 43


def test_drop_of_another_customer_in_the_queue_is_not_taken_for_ones_own(
    dropping: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dropping.other()
    other.fill("2026-01-05")
    for name in ("node-2-1", "node-2-2"):
        dropping.fault(name, kind="ddl_hold", match=f"{other.database}.*DROP PARTITION")
    other.delete(other.window())
    with monkeypatch.context() as patch:
        die_at_send(patch, number=1, sent=False)
        with pytest.raises(KilledWorkerError):
            dropping.delete(dropping.window())
    dropping.delete(dropping.window())
    assert dropping.wait_mutations(dropping.heal).status == "gone"
    assert dropped(dropping) == 1
