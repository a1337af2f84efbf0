"""Columns that a statement names are there on every host, of a type that serves; else the table is not planned."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

from include.scorecard_backfill.config.clickhouse import ClickHouseConfig
from include.scorecard_backfill.planning import columns
from include.scorecard_backfill.planning.columns import column_problems, version_column, wanted_columns
from include.scorecard_backfill.planning.inventory import tables_by_database

HOSTS = ["ch-1", "ch-2"]
CONFIG = ClickHouseConfig.model_validate(
    {
        "meant_to_go": {"scorecard": {"column": "kind", "equals": "x"},
                        "score": {"by": "scorecard", "id_column": "card"}},
        "must_be_zero": [{"table": "scorecard", "column": "stale", "equals": 1}],
        "written_columns": {"scorecard": {"column": "updated"}, "score": {"column": "version", "unit": "seconds"}},
    }
)  # fmt: skip
GOOD = {
    "scorecard": {
        "customer_id": "LowCardinality(String)", "profile_id": "String", "conversation_id": "Nullable(String)",
        "scorecard_time": "DateTime64(3, 'UTC')", "scorecard_id": "String", "kind": "Enum8('x' = 1)", "stale": "UInt8",
        "updated": "DateTime('UTC')",
    },
    "score": {
        "customer_id": "String", "profile_id": "String", "conversation_id": "String", "scorecard_time": "DateTime",
        "score_id": "UUID", "card": "String", "version": "UInt64",
    },
}  # fmt: skip


def rows(changes: dict[tuple[str, str, str], str | None] | None = None) -> list[dict[str, Any]]:
    """Rows of every host; a change names host, table and column, and None takes the column away."""
    found = []
    for host in HOSTS:
        for table, kinds in GOOD.items():
            named = {c: (changes or {}).get((host, table, c), kind) for c, kind in kinds.items()}
            listed = [(c, kind) for c, kind in named.items() if kind is not None]
            found.append({"host": host, "database": "acme_voice", "table": table, "columns": listed})
    return found


def problems(found: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    return column_problems(found, {"acme_voice": ["scorecard", "score"]}, HOSTS, CONFIG)


def test_every_column_of_the_configuration_is_wanted() -> None:
    assert {table: set(found) for table, found in wanted_columns(CONFIG).items()} == {
        t: set(k) for t, k in GOOD.items()
    }
    assert problems(rows()) == {}
    assert doctest.testmod(columns).failed == 0


@pytest.mark.parametrize("table", GOOD)
@pytest.mark.parametrize("host", [0, 1, None])
def test_a_missing_column_is_named_with_its_hosts(table: str, host: int | None) -> None:
    for column in GOOD[table]:
        gone = HOSTS if host is None else [HOSTS[host]]
        found = problems(rows({(name, table, column): None for name in gone}))
        where = "every host" if host is None else HOSTS[host]
        assert found == {("acme_voice", table): f"table acme_voice.{table} has no column {column!r} on {where}"}


@pytest.mark.parametrize(
    ("table", "column", "kind", "said"),
    [
        ("scorecard", "scorecard_time", "String", "must be a DateTime or DateTime64"),
        ("scorecard", "scorecard_time", "UInt64", "must be a DateTime or DateTime64"),
        ("scorecard", "updated", "Nullable(DateTime)", "not Nullable"),
        ("scorecard", "updated", "Date", "not Nullable"),
        ("scorecard", "updated", "UInt64", "must be a DateTime"),
        ("scorecard", "scorecard_id", "Nullable(String)", "must be a type that is not Nullable"),
        ("score", "score_id", "LowCardinality(Nullable(String))", "must be a type that is not Nullable"),
        ("score", "version", "DateTime", "must be an integer"),
        ("score", "version", "UInt8", "must be an integer"),
    ],
)
def test_a_type_that_does_not_serve_is_named(table: str, column: str, kind: str, said: str) -> None:
    (found,) = problems(rows({(host, table, column): kind for host in HOSTS})).values()
    assert said in found
    assert f"type {kind}" in found


def test_hosts_that_differ_are_named() -> None:
    (found,) = problems(rows({("ch-2", "score", "card"): "UUID"})).values()
    assert "different types: String, UUID" in found


def test_a_table_that_is_unfit_is_not_usable_and_says_why() -> None:
    listed = [
        {"host": host, "database": "acme_voice", "table": table, "engine": "ReplicatedReplacingMergeTree",
         "partition_key": "", "engine_full": ""}
        for host in HOSTS for table in GOOD
    ]  # fmt: skip
    unfit = {("acme_voice", "score"): "table acme_voice.score has no column 'card' on ch-1"}
    assert tables_by_database(listed, HOSTS, unfit) == (
        {"acme_voice": ("scorecard",)},
        {"acme_voice": ["table acme_voice.score has no column 'card' on ch-1"]},
    )


@pytest.mark.parametrize(
    ("engine", "version"),
    [
        ("ReplicatedReplacingMergeTree('/t/{uuid}/{shard}', '{replica}', updated_at) PARTITION BY x", "updated_at"),
        ("ReplacingMergeTree(`updated_at`, is_deleted) ORDER BY id", "updated_at"),
        ("ReplicatedReplacingMergeTree('/t/{uuid}/{shard}', '{replica}') ORDER BY id", ""),
        ("SharedReplacingMergeTree('/t/{uuid}/{shard}', '{replica}', v) ORDER BY id", "v"),
        ("MergeTree ORDER BY id", ""),
    ],
)
def test_the_version_column_is_read_from_the_engine(engine: str, version: str) -> None:
    assert version_column(engine) == version
