"""Preflight's look at tables that have a row policy for others: each of them, however many there are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from backfill.operators.checks.clickhouse import SHOWN, _unseen


class Hook:
    """Says of one table that its parts hold rows which this user does not see."""

    config = SimpleNamespace(cluster="conversations", conn_id="clickhouse_demo")

    def __init__(self, hidden: str) -> None:
        self.hidden = hidden

    def rows(self, statement: str) -> list[dict[str, Any]]:
        """Answer a look at one table, on one host."""
        return [{"host": "node-1-1", "shown": 0, "held": 7 if self.hidden in statement else 0}]


def test_the_last_of_many_tables_is_looked_at_too() -> None:
    tables = [(f"acme_{number:02}", "scorecard") for number in range(SHOWN + 3)]
    (problem,) = _unseen(Hook(tables[-1][0]), tables)  # type: ignore[arg-type]
    assert f"sees no row of {tables[-1][0]}.scorecard on node-1-1" in problem
    assert _unseen(Hook("globex"), tables) == []  # type: ignore[arg-type]
