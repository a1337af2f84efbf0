"""The audit of the killing tests must be able to fail: each kind of damage is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.sandbox.audit import Job, Seen, audit
from tests.sandbox.killing import stored

GOOD = Seen(
    "acme 2026-01",
    {"acme_voice.scorecard": 1, "acme_voice.score": 1},
    [Job("reindex-1", 10.0, 12.0)],
    {"scorecard": 5},
    {"scorecard": 5},
    "verified",
)


def test_a_clean_run_has_no_problem() -> None:
    assert audit("success", [GOOD]) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"deletes": {"acme_voice.scorecard": 2}}, "acme_voice.scorecard was deleted 2 times"),
        ({"deletes": {"acme_voice.scorecard": 0}}, "acme_voice.scorecard was deleted 0 times"),
        ({"jobs": []}, "0 Jobs instead of 1 ()"),
        ({"jobs": [Job("a", 1.0, 2.0), Job("b", 3.0, 4.0)]}, "2 Jobs instead of 1 (a, b)"),
        ({"jobs": [Job("b", 1.5, 4.0), Job("a", 1.0, 2.0)]}, "b was made while a was live"),
        ({"jobs": [Job("a", 1.0)]}, "a is still live"),
        ({"rows": {"scorecard": 4}}, "called verified, but 4 rows of scorecard instead of 5"),
        ({"rows": {}}, "called verified, but 0 rows of scorecard instead of 5"),
        ({"status": "deleted, not yet reindexed"}, "the report says 'deleted, not yet reindexed'"),
    ],
)
def test_damage_is_found(change: dict[str, Any], text: str) -> None:
    assert f"acme 2026-01: {text}" in audit("success", [replace(GOOD, **change)])


def test_a_red_run_and_an_empty_plan_are_problems() -> None:
    assert audit("failed", [GOOD]) == ["the run is failed"]
    assert audit("success", []) == ["the plan has no windows"]


def test_a_second_job_is_right_where_a_person_asked_for_it() -> None:
    two = replace(GOOD, jobs=[Job("a", 1.0, 2.0), Job("b", 2.0, 4.0)])
    assert audit("success", [two], {GOOD.label: 2}) == []
    assert audit("success", [GOOD], {GOOD.label: 2}) == ["acme 2026-01: 1 Jobs instead of 2 (reindex-1)"]


def sent(name: str, status: int, *faults: str) -> dict[str, Any]:
    return {"status": status, "faults": list(faults), "body": {"metadata": {"name": name}}}


def test_a_job_whose_answer_was_lost_with_the_api_server_counts_once() -> None:
    lost, again, told = sent("a", 502), sent("a", 503), sent("b", 201)
    assert stored([lost, again, told], {"a", "b"}) == [lost, told]
    assert stored([lost, told], {"b"}) == [told], "what is not there was not made"
    repeated = sent("a", 201)
    assert stored([lost, repeated], {"a"}) == [repeated], "the second was made, so the first was not"
    cut = sent("c", 500, "stored_then_cut")
    assert stored([cut, sent("d", 409)], set()) == [cut]
