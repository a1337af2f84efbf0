"""What stages read of a run's parameters: typed, tolerant of what a run without a plan has not got."""

from __future__ import annotations

from typing import Any

import pytest

from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.params.undo import UndoParams

LEFT = {
    "mode": "cleanup",
    "order": "reindex_first",
    "start_date": "2026-01-01",
    "end_date": "2026-02-01",
    "max_parallel": 7,
    "max_failures": 3,
    "overlap": True,
    "dry_run": True,
    "destructive": True,
    "require_approval": True,
    "sources": {"max_parallel": "form"},
}


def test_every_choice_is_read() -> None:
    days = ("2026-01-01", "2026-02-01")
    assert Chosen.read(LEFT) == Chosen("cleanup", "reindex_first", days, 7, 7, 3, True, True, True, True)


@pytest.mark.parametrize("name", ["overlap", "dry_run", "destructive", "require_approval"])
def test_each_switch_is_its_own(name: str) -> None:
    read = Chosen.read({name: True})
    assert [n for n in ("overlap", "dry_run", "destructive", "require_approval") if getattr(read, n)] == [name]


@pytest.mark.parametrize(
    "found", [{}, {"max_parallel": None, "sources": None, "mode": None, "start_date": "2026-01-01"}]
)
def test_a_run_without_a_plan_has_chosen_nothing(found: dict[str, Any]) -> None:
    assert Chosen.read(found) == Chosen()


def test_only_the_form_overrules_the_clusters_limit_of_the_day() -> None:
    assert Chosen.read({**LEFT, "sources": {"max_parallel": "cluster"}}).asked_parallel is None


def test_the_form_of_the_undo_is_read_without_what_else_was_sent() -> None:
    form = {"run_id": "manual__1", "customers": ["acme"], "all_customers": False, "meant": True, "note": "x"}
    read = UndoParams.read(form)
    assert read == UndoParams("manual__1", ["acme"], False, True)
    assert (read.chooses("acme"), read.chooses("globex")) == (True, False)
    assert UndoParams.read({**form, "all_customers": True}).chooses("globex")
    assert not UndoParams.read({"customers": None}).chooses("acme")
