"""The sweep of order reindex_first: only what was not written again goes, and only after it was counted."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.api_fastapi.execution_api.datamodels.hitl import HITLDetailRequest
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput, TaskDeferred
from airflow.sdk.execution_time.comms import CreateHITLDetailPayload

from backfill.deleting import sweep
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit import answers
from backfill.kit.counting import counted_once
from backfill.kit.stages import StageError
from backfill.operators.delete import DeleteOperator
from include.scorecard_backfill.records import Deleted, Failure, Reindexed, Window
from tests.kit.memory import finish
from tests.kit.waits import only_event
from tests.sandbox.faults_clickhouse_fixtures import (
    NAME,
    Json,
    KilledWorkerError,
    Scene,
    die_at_send,
    failed,
    scene,
    verified,
)
from tests.standins.clickhouse_fixtures import cluster, nodes, until

__all__ = ["cluster", "nodes", "scene"]

DAY = "2026-01-05"
MEANT = {"scorecard": {"column": "scorecard_type", "equals": "appeal_request"}}
NO_MERGES = "max_bytes_to_merge_at_max_space_in_pool = 1, max_bytes_to_merge_at_min_space_in_pool = 1"


@pytest.fixture
def sweeping(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Forty rows of a day, ten of them appeal requests, and seven rows beside the window; parts are never merged."""
    written = {"scorecard": {"column": "updated_at"}}
    scene.configure(monkeypatch, file={"orders": ["reindex_first"]}, written_columns=written, meant_to_go=MEANT)
    for node in scene.sandbox.nodes():
        node.query(f"ALTER TABLE `{scene.database}`.scorecard MODIFY SETTING {NO_MERGES}")
    write(scene, 30)
    write(scene, 10, first=30, kind="appeal_request")
    scene.fill("2026-02-05", 7)
    return scene


def write(
    scene: Scene,
    rows: int,
    *,
    first: int = 0,
    kind: str = "manual",
    at: str = "'2026-06-01 00:00:00'",
    into: str = "",
    day: str = DAY,
) -> None:
    """Write rows of a day, through the Distributed table or into one node's own; equal numbers are equal ids."""
    node = scene.sandbox.node(into) if into else scene.sandbox.nodes()[0]
    table = "scorecard" if into else "scorecard_d"
    node.query(
        f"INSERT INTO `{scene.database}`.{table} (scorecard_id, customer_id, profile_id, conversation_id,"
        f" scorecard_time, scorecard_type, updated_at) SELECT concat('{day}-', toString({first} + number)),"
        f" '{scene.customer}', '{scene.profile}', concat('c-', toString({first} + number)),"
        f" toDateTime64('{day} 00:00:00', 3, 'UTC') + number, '{kind}', {at} FROM numbers({rows})",
        distributed_foreground_insert=1,
    )


def begin(scene: Scene, **fields: Any) -> Window:
    """Plan a window and count it as its reindex stage does before the first Job."""
    window = scene.window(order="reindex_first", **fields)
    scene.plan(window)
    hook = BackfillClickHouse(scene.config)
    counted = counted_once(scene.context("reindex"), window, hook, logging.getLogger(__name__))
    job = Reindexed(key=window.key, window=window, status="reindexed", attempt=1, counted=counted)
    scene.leave("windows.reindex", job.to_json(), map_index=0)
    return window


def stage(scene: Scene, window: Window) -> DeleteOperator:
    operator = DeleteOperator(task_id="delete", cluster=NAME, window=window.to_json())
    operator.__dict__["task_id"] = "windows.delete"
    return operator


def run(scene: Scene, window: Window) -> Deleted:
    """Run the sweep to its end."""
    operator = stage(scene, window)
    return Deleted.from_json(finish(operator, operator.execute, scene.context("delete")))


def approved(scene: Scene, window: Window) -> Deleted:
    """Run the sweep to its end; a person approves what it asks."""
    operator, context = stage(scene, window), scene.context("delete")
    with pytest.raises(TaskAwaitingInput):
        operator.execute(context)
    answer = {"chosen_options": ["Approve"]}
    return Deleted.from_json(finish(operator, lambda _: operator.answered(context, answer), context))


def copies(scene: Scene) -> int:
    """Rows of the day on both shards as they lie there, every version counted."""
    statement = f"SELECT count() FROM `{scene.database}`.scorecard WHERE toDate(scorecard_time, 'UTC') = '{DAY}'"
    return sum(int(scene.sandbox.node(name).query(statement)[0][0]) for name in ("node-1-1", "node-2-1"))


def asked(monkeypatch: pytest.MonkeyPatch) -> list[Json]:
    """What a person is asked, as Airflow's API server takes it from the worker."""
    found: list[Json] = []

    def upsert(*, defaults: Any = None, multiple: bool = False, params: Any = None, **fields: Any) -> None:
        payload = CreateHITLDetailPayload(
            **fields, defaults=defaults, multiple=multiple, params=params, assigned_users=[]
        )
        HITLDetailRequest.model_validate(payload.model_dump(mode="json", exclude={"type"}))
        found.append(fields)

    monkeypatch.setattr(sweep, "upsert_hitl_detail", upsert)
    return found


def test_only_what_was_not_written_again_goes_also_while_parts_are_unmerged(sweeping: Scene) -> None:
    window = begin(sweeping)
    write(sweeping, 30, at="now64(3)")
    assert copies(sweeping) == 70
    run(sweeping, window)
    assert sweeping.wait_mutations().status == "gone"
    # Old versions of rows that were written again are old rows, too.
    assert copies(sweeping) == 30
    assert sweeping.total() == 37
    assert sweeping.total("scorecard_type = 'appeal_request'") == 0
    assert sweeping.markers() == ["1"]


def test_a_row_that_was_written_again_on_another_shard_loses_its_old_copy_only(
    sweeping: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sweeping, 1, first=100, into="node-1-1")
    window = begin(sweeping)
    write(sweeping, 30, at="now64(3)")
    write(sweeping, 1, first=100, at="now64(3)", into="node-2-1")
    where = f"scorecard_id = '{DAY}-100'"
    assert sweeping.total(where) == 2
    # Its newer copy is there: nobody has to be asked about the old one.
    found = asked(monkeypatch)
    run(sweeping, window)
    assert found == []
    assert sweeping.wait_mutations().status == "gone"
    assert sweeping.rows(where) == {"node-1-1": 0, "node-1-2": 0, "node-2-1": 1, "node-2-2": 1}
    assert sweeping.total() == 38
    proof = verified(sweeping.verify()).proof
    assert proof is not None
    (table,) = proof.tables
    assert (table.before, table.meant, table.after, table.short, table.doubled) == (41, 10, 31, 0, 0)


def test_copies_on_other_shards_are_told_from_rows_that_were_not_written_again(
    sweeping: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeping.configure(monkeypatch, file={"orders": ["reindex_first"]}, verify_tolerance_rows=5,
                       written_columns={"scorecard": {"column": "updated_at"}}, meant_to_go=MEANT)  # fmt: skip
    write(sweeping, 2, first=100, into="node-1-1")
    window = begin(sweeping)
    write(sweeping, 30, at="now64(3)")
    write(sweeping, 1, first=100, at="now64(3)", into="node-2-1")
    found = asked(monkeypatch)
    approved(sweeping, window)
    assert "| 31 | 12 | 10 | 1 | 1 |" in found[0]["body"]
    assert f"1 rows were not written again and are not meant to go, such as {DAY}-101" in found[0]["body"]


def test_where_a_row_comes_back_under_another_id_a_person_is_asked_about_every_old_one(
    sweeping: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeping.configure(monkeypatch, file={"orders": ["reindex_first"]}, stable_ids=False,
                       written_columns={"scorecard": {"column": "updated_at"}}, meant_to_go=MEANT)  # fmt: skip
    window = begin(sweeping)
    write(sweeping, 30, first=300, at="now64(3)")
    found = asked(monkeypatch)
    approved(sweeping, window)
    assert "| 30 | 40 | 10 | 0 | 30 |" in found[0]["body"]


def test_rows_that_were_not_written_again_are_named_and_stay(sweeping: Scene) -> None:
    window = begin(sweeping)
    write(sweeping, 20, at="now64(3)")
    with pytest.raises(
        AirflowFailException, match=r"not_rewritten: .*10 of 30 rows of 2026-01-05 did not come back"
    ) as error:
        run(sweeping, window)
    ids = ", ".join(f"{DAY}-{number}" for number in range(20, 30))
    assert f"10 rows were not written again and are not meant to go, such as {ids}" in str(error.value)
    assert sweeping.sent() == []
    assert sweeping.total() == 47


def test_a_column_that_does_not_tell_what_was_written_is_said_in_one_sentence(sweeping: Scene) -> None:
    window = begin(sweeping)
    write(sweeping, 30, at="'2026-06-01 00:00:01'")  # by a reindexer that copies the old time and a second
    text = "no row of the window was written since the reindex began, as scorecard.updated_at tells it"
    with pytest.raises(AirflowFailException, match=text):
        run(sweeping, window)
    assert sweeping.sent() == []
    assert sweeping.total() == 47


def test_a_writer_whose_clock_is_behind_by_less_than_the_margin_is_believed(sweeping: Scene) -> None:
    window = begin(sweeping)
    write(sweeping, 30, at="now64(3) - INTERVAL 50 SECOND")
    run(sweeping, window)
    assert sweeping.wait_mutations().status == "gone"
    assert sweeping.total() == 37


def test_rows_that_nobody_meant_to_go_are_swept_only_after_a_person_has_said_so(
    sweeping: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeping.configure(monkeypatch, file={"orders": ["reindex_first"]}, verify_tolerance_rows=5,
                       written_columns={"scorecard": {"column": "updated_at"}}, meant_to_go=MEANT)  # fmt: skip
    found = asked(monkeypatch)
    window = begin(sweeping)
    write(sweeping, 28, at="now64(3)")
    operator, context = stage(sweeping, window), sweeping.context("delete")
    with pytest.raises(TaskAwaitingInput):
        operator.execute(context)
    (question,) = found
    assert "| 28 | 12 | 10 | 0 | 2 |" in question["body"]
    assert sweeping.sent() == []

    with pytest.raises(AirflowFailException, match=r"sweep_rejected: .*nothing of it was deleted"):
        operator.answered(context, {"chosen_options": ["Reject"]})
    assert isinstance(sweeping.left("delete"), Failure)
    assert sweeping.sent() == []

    approved(sweeping, window)
    assert sweeping.wait_mutations().status == "gone"
    assert sweeping.total() == 35


NEXT_DAY = "2026-01-06"


def large(sweeping: Scene, monkeypatch: pytest.MonkeyPatch) -> tuple[Window, list[Json]]:
    """A window of two days that is swept day by day, with two rows of each that nobody meant to go."""
    sweeping.configure(
        monkeypatch,
        file={"orders": ["reindex_first"]},
        verify_tolerance_rows=10,
        written_columns={"scorecard": {"column": "updated_at"}},
        meant_to_go=MEANT,
        delete={"drop_partition": False, "max_rows_per_mutation": 20},
    )
    write(sweeping, 30, day=NEXT_DAY)
    write(sweeping, 10, first=30, kind="appeal_request", day=NEXT_DAY)
    window = begin(sweeping)
    for day in (DAY, NEXT_DAY):
        write(sweeping, 28, at="now64(3)", day=day)
    return window, asked(monkeypatch)


def test_a_large_sweep_goes_day_by_day_and_a_person_is_asked_once(
    sweeping: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, found = large(sweeping, monkeypatch)
    approved(sweeping, window)
    assert len(found) == 1
    assert "| 56 | 24 | 20 | 0 | 4 |" in found[0]["body"]
    assert sweeping.markers() == ["1.1", "1.2", "1"]
    assert sweeping.wait_mutations().status == "gone"
    assert sweeping.total() == 2 * 28 + 7


def test_a_sweep_whose_worker_dies_is_not_asked_about_again(sweeping: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    window, found = large(sweeping, monkeypatch)
    with monkeypatch.context() as patch:
        die_at_send(patch, number=2, sent=True)
        with pytest.raises(KilledWorkerError):
            approved(sweeping, window)
    run(sweeping, window)
    assert len(found) == 1
    assert sweeping.markers() == ["1.1", "1.2", "1"]
    assert sweeping.wait_mutations().status == "gone"
    assert sweeping.total() == 2 * 28 + 7


def test_a_sweep_that_would_take_more_than_a_person_is_shown_goes_no_further(
    sweeping: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, found = large(sweeping, monkeypatch)
    with monkeypatch.context() as patch:
        die_at_send(patch, number=1, sent=True)
        with pytest.raises(KilledWorkerError):
            approved(sweeping, window)
    sent = sweeping.markers()
    # Rows with an old time that come in late: a reindexer of before, a spool that was held.
    write(sweeping, 3, first=200, day=NEXT_DAY)
    # Airflow would show the first question again, with its smaller numbers.
    with pytest.raises(AirflowFailException, match=r"sweep_outgrown: more rows .* than the question shows"):
        run(sweeping, window)
    assert len(found) == 1
    assert sweeping.markers() == sent == ["1.1"]


def test_every_sweep_asks_where_the_file_says_so_and_an_answer_that_was_lost_is_taken(
    sweeping: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeping.configure(monkeypatch, file={"orders": ["reindex_first"], "approve": "sweep"},
                       written_columns={"scorecard": {"column": "updated_at"}}, meant_to_go=MEANT)  # fmt: skip
    found = asked(monkeypatch)
    window = begin(sweeping)
    sweeping.leave("plan", {"overlap": False, "require_approval": True, "destructive": True}, "run")
    write(sweeping, 30, at="now64(3)")
    operator, context = stage(sweeping, window), sweeping.context("delete")
    with pytest.raises(TaskAwaitingInput):
        operator.execute(context)
    assert "| 30 | 10 | 10 | 0 | 0 |" in found[0]["body"]
    assert sweeping.sent() == []
    # Airflow has failed the task, because the answer came before the scheduler had seen it wait.
    given = SimpleNamespace(chosen_options=["Approve"], response_received=True)
    monkeypatch.setattr(answers, "get_hitl_detail_content_detail", lambda ti_id: given)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    assert deferred.value.method_name == "looked_back"
    answer = asyncio.run(only_event(deferred.value.trigger)).payload
    finish(operator, lambda ctx: operator.looked_back(ctx, event=answer), context)
    assert len(found) == 1
    assert sweeping.wait_mutations().status == "gone"
    assert sweeping.total() == 37


def test_a_sweep_that_was_rejected_asks_again_after_a_clear(sweeping: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    window, found = large(sweeping, monkeypatch)
    operator, context = stage(sweeping, window), sweeping.context("delete")
    with pytest.raises(TaskAwaitingInput):
        operator.execute(context)
    with pytest.raises(AirflowFailException, match=r"sweep_rejected: .*nothing of it was deleted"):
        operator.answered(context, {"chosen_options": ["Reject"]})
    monkeypatch.setattr(answers, "get_hitl_detail_content_detail", lambda ti_id: pytest.fail("the answer is spent"))
    with pytest.raises(TaskAwaitingInput):
        operator.execute(context)
    assert len(found) == 2
    assert sweeping.sent() == []


def test_a_reindex_stage_that_left_no_count_is_no_ground_for_a_sweep(sweeping: Scene) -> None:
    window = begin(sweeping)
    job = Reindexed(key=window.key, window=window, status="reindexed", attempt=1)
    sweeping.leave("windows.reindex", job.to_json(), map_index=0)
    with pytest.raises(StageError, match="left no count before"):
        run(sweeping, window)
    assert sweeping.sent() == []


@pytest.mark.parametrize("overlap", [False, True])
def test_old_times_are_stale_rows_only_where_the_end_of_the_delete_was_not_awaited(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, overlap: bool
) -> None:
    scene.configure(monkeypatch, written_columns={"scorecard": {"column": "updated_at"}})
    scene.params["overlap"] = overlap
    scene.fill(DAY)
    scene.delete(scene.window())
    assert scene.wait_mutations().status == ("overlap" if overlap else "gone")
    until(lambda: scene.total() == 0, "the rows are gone")
    scene.fill(DAY)  # by a reindexer that copies the time at which a row was written first
    found = scene.verify()
    if not overlap:
        assert verified(found).status == "verified"
        return
    assert failed(found).cause == "stale_rows"
    assert "rows of" in failed(found).reason
    assert "were written before" in failed(found).reason
