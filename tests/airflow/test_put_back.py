"""Rows that an undo has put back are not taken for rows that a reindex wrote."""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import Mock

import pytest

from backfill import settings
from backfill.kit import putback
from backfill.kit.debts import key_of
from backfill.operators import undo
from backfill.operators.undo import UndoOperator
from backfill.triggers.verify import VerifyTrigger
from include.scorecard_backfill.records import Failure, WorkflowsClosed
from tests.kit.build import window as other
from tests.kit.store import AssetState
from tests.kit.waits import (
    COUNTED,
    KEY,
    NAME,
    WINDOW,
    Left,
    assets,
    cluster,
    context,
    deleted,
    left,
    only_event,
    placed,
    reindexed,
    window,
)

__all__ = ["assets", "cluster", "left"]

DELETED = COUNTED.server_time
PART = window(start=WINDOW.start.replace(day=5), end=WINDOW.start.replace(day=6))


def put_back(at: float, *windows: Any) -> None:
    """An undo of these windows, so many seconds after the count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backfill.kit.putback.time.time", lambda: DELETED + at)
        putback.remember_put_back(NAME, windows)


async def seen(left: Left, attempt: int = 1) -> bool:
    """Whether verify calls the rows put back; the Job of attempt 1 was made 100 s after the count."""
    left["windows.delete", "return_value"] = deleted()
    left["windows.reindex", "return_value"] = reindexed(1, made_at=DELETED + 100)
    left["windows.wait_workflows", "return_value"] = WorkflowsClosed(key=KEY, status="completed", attempt=attempt)
    trigger = VerifyTrigger(cluster=NAME, group="windows")
    trigger.args = trigger.model.model_validate(trigger.given)
    trigger.config = settings.cluster_config(NAME)
    placed(trigger, "windows.verify")
    await trigger._find_window()
    await trigger.prepare()
    return trigger._put_back


@pytest.mark.parametrize(
    ("at", "attempt", "expected"),
    [(-1.0, 1, False), (1.0, 1, True), (99.0, 1, True), (101.0, 1, False), (101.0, 2, True)],
)
async def test_only_an_undo_between_the_delete_and_the_job_hides_what_was_not_written(
    at: float, attempt: int, expected: bool, cluster: str, left: Left, assets: AssetState
) -> None:
    put_back(at, PART)
    assert await seen(left, attempt) is expected


async def test_other_days_and_customers_are_others(cluster: str, left: Left, assets: AssetState) -> None:
    put_back(1, other(customer="globex"), other(start=31, days=1), other(start=-1, days=1))
    assert await seen(left) is False
    assert not await putback.put_back_between(NAME, WINDOW, 0.0, math.inf)


async def test_such_a_window_is_not_verified_and_stays_owed(cluster: str, left: Left, assets: AssetState) -> None:
    assets.set(key_of(KEY), {"kind": "debt"})
    put_back(1, WINDOW)
    await seen(left)
    event = await only_event(placed(VerifyTrigger(cluster=NAME, group="windows"), "windows.verify"))
    found = Failure.from_json(event.payload["failure"])
    assert found.cause == "put_back"
    assert "between the DELETE and the reindex" in found.reason
    assert assets.get(key_of(KEY)) == {"kind": "debt"}


def test_an_undo_is_kept_before_a_row_is_put_back(
    cluster: str, assets: AssetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restore(*_: Any, **__: Any) -> None:
        assert [place[:3] for place in assets.get(putback.PUT_BACK)] == [["acme", "2026-01-01", "2026-02-01"]]

    snapshots = Mock(existing=Mock(return_value=set()), missing=Mock(return_value=()))
    snapshots.restore.side_effect = restore
    monkeypatch.setattr(undo, "refuse_beside_a_run", lambda *_: None)
    monkeypatch.setattr(undo, "BackfillClickHouse", Mock())
    monkeypatch.setattr(undo, "Snapshots", lambda *_: snapshots)
    for _ in range(2):
        task = context("restore", {("look", "return_value"): [WINDOW.to_json()]})
        assert UndoOperator(task_id="restore", cluster=NAME).execute(task) == {"windows": 1}
    assert snapshots.restore.call_count == 2
