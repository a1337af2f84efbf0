"""Mode reindex, which deletes nothing: verified only when the rows were written again, as their written time tells."""

from __future__ import annotations

import pytest

from include.scorecard_backfill.records import WorkflowsClosed
from tests.sandbox.faults_clickhouse_fixtures import Scene, failed, scene, verified
from tests.sandbox.test_faults_clickhouse_sweep import MEANT, write
from tests.standins.clickhouse_fixtures import cluster, nodes

__all__ = ["cluster", "nodes", "scene"]

WRITTEN = {"scorecard": {"column": "updated_at"}}
OLD, NEW = "'2024-06-01 00:00:00'", "now64(3) + INTERVAL 1 MINUTE"
"""A minute ahead: the count cuts its moment to whole seconds."""


@pytest.fixture
def reindexing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Forty rows of a day, ten of them appeal requests, counted before the Job of a window of mode reindex."""
    scene.configure(monkeypatch, written_columns=WRITTEN, meant_to_go=MEANT)
    write(scene, 30, at=OLD)
    write(scene, 10, first=30, kind="appeal_request", at=OLD)
    assert scene.delete(scene.window(mode="reindex")).status == "counted"
    return scene


def test_rows_that_are_as_old_as_before_were_not_reindexed_and_are_left_alone(reindexing: Scene) -> None:
    found = failed(reindexing.verify())
    assert found.cause == "not_reindexed"
    assert f"{reindexing.database}.scorecard: 30 of 30 rows of 2026-01-05 were not written again" in found.reason
    assert reindexing.sent() == []
    assert reindexing.total() == 40


def test_rows_that_were_written_again_are_proven_and_appeals_stay_as_they_are(reindexing: Scene) -> None:
    write(reindexing, 30, at=NEW)
    proof = verified(reindexing.verify()).proof
    assert proof is not None
    assert proof.unwritten == ()


def test_a_few_rows_that_were_left_out_are_named(reindexing: Scene) -> None:
    write(reindexing, 20, at=NEW)
    assert "10 of 30 rows of 2026-01-05 were not written again" in failed(reindexing.verify()).reason


def test_rows_that_are_written_with_an_old_time_are_not_proven_new(reindexing: Scene) -> None:
    write(reindexing, 30, at="'2024-07-01 00:00:00'")
    assert failed(reindexing.verify()).cause == "not_reindexed"


def test_a_profile_without_work_is_not_red(reindexing: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    other = f"reindexconversations-{reindexing.customer}-chat-0b7f2a34-0000-4000-8000-000000000001"

    def closed(scene: Scene, window: object, attempt: int = 1) -> None:
        record = WorkflowsClosed(
            key=scene.window(mode="reindex").key, status="completed", attempt=1, workflow_ids=(other,)
        )
        scene.leave("windows.wait_workflows", record.to_json(), map_index=0)

    monkeypatch.setattr(Scene, "reindexed", closed)
    proof = verified(reindexing.verify()).proof
    assert proof is not None
    assert proof.unwritten == (f"{reindexing.database}: the reindexer had no work for its profile",)


def test_without_a_written_column_the_proof_says_that_it_is_not_proven(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.configure(monkeypatch, meant_to_go=MEANT)
    write(scene, 30, at=OLD)
    scene.delete(scene.window(mode="reindex"))
    proof = verified(scene.verify()).proof
    assert proof is not None
    assert proof.unwritten == ("scorecard: the cluster's file names no written_columns for it",)


def test_a_window_without_rows_is_verified(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.configure(monkeypatch, written_columns=WRITTEN, meant_to_go=MEANT)
    scene.delete(scene.window(mode="reindex"))
    proof = verified(scene.verify()).proof
    assert proof is not None
    assert proof.unwritten == ()
