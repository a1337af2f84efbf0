"""Columns that change between snapshot and undo: rows go back with every value in its own column, or are refused."""

from __future__ import annotations

import pytest

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.snapshots import Snapshots
from include.scorecard_backfill.putback import PutBackError
from tests.sandbox.faults_clickhouse_fixtures import Scene, scene
from tests.standins.clickhouse_fixtures import cluster, nodes

__all__ = ["cluster", "nodes", "scene"]

DAY = "2026-01-05"


def taken(scene: Scene) -> tuple[Snapshots, list[str]]:
    """A window of 40 rows whose snapshot was taken and whose rows are gone."""
    scene.fill(DAY)
    hook = BackfillClickHouse(scene.config)
    snapshots = Snapshots(hook, hook.topology())
    names = list(snapshots.take(scene.window(), [(scene.database, "scorecard")], 7))
    alter(scene, "DELETE WHERE 1", tables=("scorecard",))
    assert scene.total() == 0
    return snapshots, names


def alter(scene: Scene, change: str, tables: tuple[str, ...] = ("scorecard", "scorecard_d")) -> None:
    """Change tables on every node, done when it returns."""
    for table in tables:
        scene.sandbox.nodes()[0].query(
            f"ALTER TABLE `{scene.database}`.{table} ON CLUSTER 'conversations' {change}",
            alter_sync=2, mutations_sync=2,
        )  # fmt: skip


def test_a_column_that_was_put_first_takes_no_value_of_another(scene: Scene) -> None:
    snapshots, names = taken(scene)
    alter(scene, "ADD COLUMN team String DEFAULT 'none' FIRST")
    assert snapshots.refusals(scene.window(), names) == []
    snapshots.restore(scene.window(), names, meant=True)
    assert scene.total() == 40
    assert scene.total(f"team = 'none' AND startsWith(scorecard_id, '{DAY}-') AND startsWith(conversation_id, 'c-')"
                       f" AND customer_id = '{scene.customer}'") == 40  # fmt: skip


def test_a_renamed_column_is_refused_by_name_and_nothing_is_inserted(scene: Scene) -> None:
    snapshots, names = taken(scene)
    alter(scene, "RENAME COLUMN scorecard_type TO kind")
    (refused,) = snapshots.refusals(scene.window(), names)
    assert "has lost 'scorecard_type' since the snapshot was taken and has 'kind' instead" in refused
    with pytest.raises(PutBackError, match="'scorecard_type'"):
        snapshots.restore(scene.window(), names, meant=True)
    assert scene.total() == 0
