"""Rows of system tables: which tables may be deleted from, whose databases they are, and how much is in them."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.planning.inventory import pairs_by_database, tables_by_database, volumes, without_final
from include.scorecard_backfill.planning.plan import Volume

HOSTS = ["ch-1", "ch-2", "ch-3"]


def table(host: str, name: str = "scorecard", database: str = "acme_voice", **changes: str) -> dict[str, str]:
    return {
        "host": host,
        "database": database,
        "table": name,
        "engine": "ReplicatedReplacingMergeTree",
        "partition_key": "toYYYYMM(scorecard_time)",
        "engine_full": "",
        **changes,
    }


def everywhere(name: str = "scorecard", **changes: str) -> list[dict[str, str]]:
    return [table(host, name, **changes) for host in HOSTS]


def problem(rows: list[dict[str, str]]) -> str:
    usable, found = tables_by_database(rows, HOSTS)
    assert usable == {}
    ((database, (text,)),) = found.items()
    assert database == "acme_voice"
    return text


def test_tables_that_are_the_same_everywhere_are_usable() -> None:
    rows = [*everywhere("scorecard"), *everywhere("score"), *everywhere(database="globex_voice")]
    assert tables_by_database(rows, HOSTS) == (
        {"acme_voice": ("score", "scorecard"), "globex_voice": ("scorecard",)},
        {},
    )
    assert tables_by_database([], HOSTS) == ({}, {})


@pytest.mark.parametrize("engine", ["MergeTree", "ReplacingMergeTree", "ReplicatedMergeTree"])
def test_any_merge_tree_will_do(engine: str) -> None:
    assert tables_by_database(everywhere(engine=engine), HOSTS)[1] == {}


def test_a_host_without_the_table_is_named() -> None:
    assert "acme_voice.scorecard is missing on ch-2, ch-3" in problem([table("ch-1")])


@pytest.mark.parametrize("engine", ["Distributed", "View", "MaterializedView", "Memory"])
def test_a_table_that_is_no_local_one_is_refused(engine: str) -> None:
    assert f"has engine {engine}" in problem(everywhere(engine=engine))
    mixed = [table("ch-1"), table("ch-2"), table("ch-3", engine=engine)]
    assert engine in problem(mixed)


def test_hosts_that_differ_are_refused() -> None:
    assert "differs between hosts" in problem([*everywhere()[:2], table("ch-3", engine="MergeTree")])
    assert "differs between hosts" in problem(
        [*everywhere()[:2], table("ch-3", partition_key="toDate(scorecard_time)")]
    )


def test_one_bad_table_leaves_the_others_usable() -> None:
    rows = [*everywhere("scorecard"), table("ch-1", "score"), *everywhere(database="globex_voice")]
    usable, found = tables_by_database(rows, HOSTS)
    assert usable == {"acme_voice": ("scorecard",), "globex_voice": ("scorecard",)}
    assert list(found) == ["acme_voice"]


@given(st.lists(st.sampled_from(HOSTS), unique=True), st.lists(st.sampled_from(["a", "b"]), unique=True))
def test_a_table_is_usable_only_if_every_host_has_it(hosts: list[str], databases: list[str]) -> None:
    usable, found = tables_by_database([table(host, database=d) for host in hosts for d in databases], HOSTS)
    expected = set(databases) if hosts else set()
    assert (set(usable), set(found)) == ((expected, set()) if set(hosts) == set(HOSTS) else (set(), expected))


ROW = st.fixed_dictionaries(
    {
        "database": st.sampled_from(["a", "b"]),
        "table": st.sampled_from(["score", "scorecard"]),
        "customer_id": st.sampled_from(["acme", "globex"]),
        "profile_id": st.sampled_from(["voice", "chat"]),
        "day": st.sampled_from(["2026-01-01", "2026-02-28"]),
        "rows": st.integers(0, 10) | st.integers(0, 10).map(str),
        "conversations": st.integers(0, 10),
    }
)


@given(st.lists(ROW, max_size=12), st.randoms(use_true_random=False))
def test_volumes_of_several_shards_are_added_up_in_a_stable_order(rows: list[dict[str, Any]], rng: Any) -> None:
    found = volumes(rows)
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert volumes(shuffled) == found
    assert sum(v.rows for v in found) == sum(int(row["rows"]) for row in rows)
    assert sum(v.conversations for v in found) == sum(row["conversations"] for row in rows)
    names = [(v.database, v.table, v.customer_id, v.profile_id, v.day) for v in found]
    assert names == sorted(set(names))


def test_a_volume_takes_a_day_as_date_or_text() -> None:
    row = {"database": "a", "table": "t", "customer_id": "acme", "profile_id": "p", "rows": "3", "conversations": 2}
    expected = (Volume("a", "t", "acme", "p", date(2024, 2, 29), 3, 2),)
    assert volumes([{**row, "day": "2024-02-29"}]) == volumes([{**row, "day": date(2024, 2, 29)}]) == expected


@given(st.lists(ROW, max_size=12))
def test_pairs_are_each_listed_once_and_none_is_lost(rows: list[dict[str, Any]]) -> None:
    found = pairs_by_database([*rows, *rows])
    assert {(d, *pair) for d, pairs in found.items() for pair in pairs} == {
        (row["database"], row["customer_id"], row["profile_id"]) for row in rows
    }
    assert all(list(pairs) == sorted(set(pairs)) for pairs in found.values())
    assert list(found) == sorted(found)


@pytest.mark.parametrize("engine", ["MergeTree", "ReplicatedMergeTree", "SharedMergeTree"])
def test_a_table_that_keeps_every_version_cannot_be_counted_final(engine: str) -> None:
    found = without_final([*everywhere(engine=engine), *everywhere("conversations", engine=engine)], ["scorecard"])
    assert list(found) == [("acme_voice", "scorecard")]
    assert "cannot be counted FINAL" in found["acme_voice", "scorecard"]


@pytest.mark.parametrize("engine", ["ReplacingMergeTree", "ReplicatedReplacingMergeTree", "CollapsingMergeTree"])
def test_the_other_merge_trees_can(engine: str) -> None:
    assert without_final(everywhere(engine=engine), ["scorecard"]) == {}


def test_an_owner_that_is_null_is_a_text_that_owns_nothing() -> None:
    row = {"database": "a", "table": "t", "profile_id": None, "day": "2026-01-01", "rows": 3, "conversations": 2}
    null = {**row, "customer_id": None}
    assert pairs_by_database([null, {**row, "customer_id": "acme"}]) == {"a": (("NULL", "NULL"), ("acme", "NULL"))}
    (found,) = volumes([null, null])
    assert (found.customer_id, found.profile_id, found.rows, found.conversations) == ("NULL", "NULL", 6, 4)
