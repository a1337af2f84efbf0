"""What is approved is what runs: each thing that changes what would be executed changes the terms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.load import merge
from include.scorecard_backfill.planning.terms import Terms, asked_at, differences, digest, terms_of, windows_digest
from tests.kit.build import window

FILE: Mapping[str, Any] = {
    "name": "demo",
    "timezone": "UTC",
    "clickhouse": {
        "meant_to_go": {"scorecard": {"column": "kind", "equals": "appeal"}},
        "must_be_zero": [{"table": "scorecard", "column": "kind", "equals": "stale"}],
        "written_columns": {"scorecard": {"column": "version", "unit": "seconds"}},
    },
    "kubernetes": {"cronjob": "reindex"},
}


def terms(changes: Mapping[str, Any] | None = None, **asked: Any) -> Terms:
    config = ClusterConfig.model_validate(merge(dict(FILE), dict(changes or {})))
    return terms_of(config, **{"mode": "cleanup", "order": "delete_first", "windows": "w", "max_parallel": 3, **asked})


CHANGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ClickHouse cluster", {"clickhouse": {"cluster": "other"}}),
    ("tables", {"clickhouse": {"tables": ["score", "scorecard"]}}),
    ("statement", {"clickhouse": {"time_column": "created_at"}}),
    ("statement", {"clickhouse": {"customer_column": "tenant"}}),
    ("statement", {"clickhouse": {"profile_column": "channel"}}),
    ("meant to go", {"clickhouse": {"meant_to_go": {"scorecard": {"column": "kind", "equals": "other"}}}}),
    ("meant to go", {"clickhouse": {"meant_to_go": None}}),
    ("may not remain", {"clickhouse": {"must_be_zero": []}}),
    ("old rows", {"clickhouse": {"written_columns": {"scorecard": {"column": "version", "unit": "milliseconds"}}}}),
    ("old rows", {"clickhouse": {"clock_skew_seconds": 5}}),
    ("rows are copied first", {"snapshot": {"enabled": True}}),
    ("partitions are dropped", {"clickhouse": {"delete": {"drop_partition": False}}}),
    ("rows of one DELETE", {"clickhouse": {"delete": {"max_rows_per_mutation": 7}}}),
    ("own unfinished mutations", {"clickhouse": {"delete": {"max_own_unfinished_mutations": 7}}}),
    ("reindex Job", {"kubernetes": {"cronjob": "another"}}),
    ("reindex Job", {"kubernetes": {"namespace": "another"}}),
    ("reindex Job", {"kubernetes": {"context": "another"}}),
)


@pytest.mark.parametrize("approve", ["sweep", "both"])
def test_when_a_person_is_asked_is_a_term_where_a_sweep_may_ask(approve: str) -> None:
    changes = {"approve": approve}
    sweeping = terms(changes, order="reindex_first")
    assert [line.split(":")[0] for line in differences(terms(order="reindex_first"), sweeping)] == [
        "a person is asked at"
    ]
    assert asked_at(sweeping) == approve
    assert terms() == terms(changes)
    assert asked_at(terms(changes)) == asked_at({}) == "plan"


@pytest.mark.parametrize(
    "changes",
    [
        {"id_columns": {"scorecard": "conversation_id", "score": "score_id"}},
        {"stable_ids": False},
        {"verify_tolerance_share": 0.5},
        {"verify_tolerance_rows": 7},
        {"verify_small_rows": 7},
        {"verify_band": {"min_ratio": 0.1}},
        {"verify_bands": {"score": {"min_ratio": 0.1}}},
    ],
    ids=str,
)
def test_what_lets_a_sweep_go_is_a_term_where_there_is_one(changes: dict[str, Any]) -> None:
    now = terms({"clickhouse": changes}, order="reindex_first")
    (line,) = differences(terms(order="reindex_first"), now)
    assert line.startswith("a sweep is judged by: ")
    assert terms() == terms({"clickhouse": changes})


@pytest.mark.parametrize(("name", "changes"), CHANGES, ids=lambda v: str(v)[:60])
def test_what_would_be_executed_otherwise_is_named(name: str, changes: dict[str, Any]) -> None:
    approved, now = terms(), terms(changes)
    also = ["statement"] if name == "ClickHouse cluster" else []
    assert [line.split(":")[0] for line in differences(approved, now)] == [name, *also]
    assert digest(approved) != digest(now)
    assert f"approved was {approved[name]!r}, now it is {now[name]!r}" in differences(approved, now)[0]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("mode", {"mode": "reindex"}),
        ("windows", {"windows": "v"}),
        ("windows at once", {"max_parallel": 4}),
    ],
)
def test_what_was_asked_for_is_part_of_it(name: str, asked: dict[str, Any]) -> None:
    assert [line.split(":")[0] for line in differences(terms(), terms(**asked))] == [name]


@pytest.mark.parametrize(
    "changes",
    [
        {"clickhouse": {"mutation_poll_seconds": 1}},
        {"clickhouse": {"query_timeout_seconds": 5}},
        {"kubernetes": {"deadline_seconds": 60}},
        {"temporal": {"poll_seconds": 1}},
        {"admission": {"max_parallel": 1}},
        {"waits": {"outage_seconds": 700}},
    ],
    ids=str,
)
def test_patience_is_not_a_term(changes: dict[str, Any]) -> None:
    assert differences(terms(), terms(changes)) == []


def test_the_order_is_part_of_it() -> None:
    found = differences(terms(), terms(order="reindex_first"))
    assert [line.split(":")[0] for line in found] == ["order", "a sweep is judged by"]


def test_every_term_is_tested() -> None:
    named = {name for name, _ in CHANGES} | {"mode", "order", "windows", "windows at once", "a person is asked at"}
    assert named == set(terms())


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5)), st.dictionaries(st.text(max_size=5), st.text()))
def test_terms_are_the_same_when_nothing_differs(one: dict[str, str], two: dict[str, str]) -> None:
    assert (differences(one, two) == []) == (one == two)
    assert (digest(one) == digest(two)) == (one == two)
    assert digest(dict(reversed(one.items()))) == digest(one)


def test_terms_go_through_json() -> None:
    assert json.loads(json.dumps(dict(terms()))) == terms()


@pytest.mark.parametrize(
    "changes",
    [{"key": "1" * 16}, {"end": window(days=11).end}, {"start": window(1).start}, {"mode": "reindex"},
     {"order": "reindex_first"}, {"databases": ()}],
    ids=lambda c: next(iter(c)),
)  # fmt: skip
def test_windows_are_named_by_who_when_and_how(changes: dict[str, Any]) -> None:
    assert windows_digest([window()]) != windows_digest([window().model_copy(update=changes)])


def test_estimates_are_not_what_is_approved_but_the_order_of_windows_is() -> None:
    one, two = window(), window(10)
    assert windows_digest([one]) == windows_digest([window(conversations=7, rows={})])
    assert len({windows_digest(w) for w in ([one, two], [two, one], [one], [])}) == 4
    # Frozen: a plan that was approved before an update has the same digest after it.
    assert windows_digest([one]) == "169e6c5def9a9ce0"
