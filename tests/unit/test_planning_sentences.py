"""What a plan is refused with, whole: customers, databases, tables, dates."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from include.scorecard_backfill.planning.inventory import (
    in_replicated,
    pairs_by_database,
    tables_by_database,
    without_final,
)
from include.scorecard_backfill.planning.plan import (
    Inventory,
    PlanError,
    Request,
    build_plan,
    overlap_notes,
    size_notes,
)
from include.scorecard_backfill.planning.windows import (
    DateRange,
    WindowError,
    parse_day,
    previous_month,
    split_by_volume,
)
from include.scorecard_backfill.records import Database
from tests.kit.build import window

JANUARY = DateRange.parse("2026-01-01", "2026-02-01")
ACME = Inventory({"acme_voice": ("score", "scorecard")}, {"acme_voice": (("acme", "voice"),)})


class _Nowhere(tzinfo):
    """A zone that does not say where it is."""

    def utcoffset(self, _: datetime | None) -> None:
        """Nobody knows."""

    dst = tzname = utcoffset


def refused(inventory: Inventory, *customers: str, problems: Any = None, **changes: Any) -> list[str]:
    base = Request(
        cluster="demo", run_id="r", mode="cleanup", range=JANUARY, customers=customers, all_customers=not customers,
        split=lambda customer, whole, days: [whole], max_windows=10,
    )  # fmt: skip
    with pytest.raises(PlanError) as caught:
        build_plan(replace(base, **changes), inventory, problems)
    assert str(caught.value) == "the plan is refused, nothing was deleted:\n- " + "\n- ".join(caught.value.problems)
    return list(caught.value.problems)


# -- plan -----------------------------------------------------------------------------------------------------------


def test_why_a_plan_is_refused() -> None:
    assert refused(ACME, "acmee") == [
        "customers: 'acmee' has no database with rows on cluster demo (its databases would be 'acmee_<profile>'); did"
        " you"
        " mean acme?"
    ]
    assert refused(ACME, "zzz") == [
        "customers: 'zzz' has no database with rows on cluster demo (its databases would be 'zzz_<profile>'); known:"
        " acme"
    ]
    assert refused(Inventory({}, {}), "a.b") == [
        "customers: 'a.b' has no database with rows on cluster demo (its databases would be 'a_b_<profile>'); known:"
        " none"
    ]
    assert refused(ACME, " All") == [
        "customers: ' All' has no database with rows on cluster demo (its databases would be '_All_<profile>'); for"
        " every"
        " customer leave customers empty and set all_customers to true",
        "customers: ' All' has blanks around it; write 'All': its windows could not be reindexed",
    ]
    assert refused(Inventory({}, {})) == [
        "all_customers: no database of cluster demo shows a row of 'scorecard': nothing would be done for anybody."
        " What a"
        " user may not read is not listed: look at the rights of the connection"
    ]
    assert refused(ACME, "acme", max_windows=0) == [
        "1 windows > 0 ([core] max_map_length, [triggerer] capacity): choose larger windows, fewer customers or a"
        " shorter"
        " range per run"
    ]
    assert refused(replace(ACME, tables={"acme_voice": ("score",)}), "acme") == [
        "customer 'acme': database 'acme_voice' lacks the tables ['scorecard']; needed are ('scorecard',)"
    ]
    assert refused(replace(ACME, pairs={"acme_voice": (("acme", "voice"), ("acme", "chat"))}), "acme") == [
        "database 'acme_voice' holds rows of acme/chat, acme/voice: exactly one customer and profile is expected"
    ]
    assert refused(replace(ACME, pairs={"acme_voice": (("acme", "chat"),)}), "acme") == [
        "database 'acme_voice' holds rows of acme/chat, which belong in 'acme_chat'"
    ]
    broken = {"acme_voice": ["p1", "p2"], "acme_chat": ["p3"], "globex_voice": ["p4"]}
    assert refused(ACME, "acme", problems=broken) == [
        "p1", "p2", "p3 (so it is not known whose database 'acme_chat' is)",
    ]  # fmt: skip
    # For all customers anybody's database counts.
    assert refused(ACME, problems={"globex_voice": ["p4"]}) == [
        "p4 (so it is not known whose database 'globex_voice' is)"
    ]


def test_a_large_plan_says_what_it_costs() -> None:
    assert size_notes([window()] * 1_001) == [
        "1,001 windows in one run: Airflow's scheduler looks at each one that waits, at every turn of its loop, so that"
        " all of them go slower. More windows.batches in the cluster's file, or runs of fewer customers or shorter"
        " ranges"
        " one after another, are done sooner"
    ]


# -- inventory ------------------------------------------------------------------------------------------------------


def row(host: str = "a", **changes: str) -> dict[str, str]:
    return {"host": host, "database": "d", "table": "t", "engine": "ReplacingMergeTree", "partition_key": "k"} | changes


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row()], "table d.t is missing on b, c: DELETE ON CLUSTER would fail there"),
        ([row(h, engine="Distributed") for h in "abc"],
         "table d.t has engine Distributed: name the local MergeTree table, not a twin of it"),
        ([row("a"), row("b", engine="View"), row("c")],
         "table d.t has engine ReplacingMergeTree, View: name the local MergeTree table, not a twin of it"),
        ([row("a"), row("b", engine="MergeTree"), row("c")],
         "table d.t differs between hosts (engines MergeTree, ReplacingMergeTree): make them equal first"),
        ([row("a"), row("b", partition_key="x"), row("c")],
         "table d.t differs between hosts (engines ReplacingMergeTree): make them equal first"),
    ],
)  # fmt: skip
def test_why_a_table_cannot_be_used(rows: list[dict[str, str]], said: str) -> None:
    assert tables_by_database(rows, "abc") == ({}, {"d": [said]})


def test_tables_that_the_tool_cannot_count_or_delete_from_are_named() -> None:
    rows = [row(table="plain", engine="ReplicatedMergeTree"), row(table="other", engine="MergeTree"), row()]
    assert without_final(rows, ["plain", "t"]) == {
        ("d", "plain"): "table d.plain has engine ReplicatedMergeTree: it keeps every version of a row and cannot be"
        " counted FINAL; a ReplacingMergeTree is needed"
    }
    replicated = [{"host": "a", "database": "x"}, {"host": "b", "database": "d"}]
    assert in_replicated([row(), row(database="y")], replicated) == {
        (
            "d",
            "t",
        ): "table d.t: its database has engine Replicated on b, which refuses ON CLUSTER: its windows cannot be"
        " deleted by this tool"
    }
    assert in_replicated([row()], []) == {}


def test_pairs_are_sorted_and_null_is_a_text_that_is_refused() -> None:
    found = [{"database": "d", "customer_id": c, "profile_id": p} for c, p in (("b", None), (None, "x"), ("a", "y"))]
    assert pairs_by_database([*found, found[0]]) == {"d": (("NULL", "x"), ("a", "y"), ("b", "NULL"))}


# -- dates ----------------------------------------------------------------------------------------------------------


def test_what_is_wrong_with_a_date_or_a_range() -> None:
    for make, said in (
        (lambda: parse_day("1/2/26"),
         "date: '1/2/26' is not a date; write it as YYYY-MM-DD, for example '2026-02-01'."),
        (lambda: parse_day(None, "end"), "end: None is not a date; write it as YYYY-MM-DD, for example '2026-02-01'."),
        (lambda: parse_day("2026-02-30"), "date: '2026-02-30' is not a day of the calendar (day is out of range for"
                                          " month); write it as YYYY-MM-DD."),
        (lambda: DateRange.parse("x", "2026-01-01"),
         "start: 'x' is not a date; write it as YYYY-MM-DD, for example '2026-02-01'."),
        (lambda: DateRange.parse("2026-01-01", "x"),
         "end: 'x' is not a date; write it as YYYY-MM-DD, for example '2026-02-01'."),
        (lambda: DateRange(datetime(2026, 1, 1), date(2026, 1, 2)),
         "start: datetime.datetime(2026, 1, 1, 0, 0) is not a plain date; windows are whole UTC days."),
        (lambda: DateRange(date(2026, 1, 1), datetime(2026, 1, 2)),
         "end: datetime.datetime(2026, 1, 2, 0, 0) is not a plain date; windows are whole UTC days."),
        (lambda: DateRange(date(2026, 1, 2), date(2026, 1, 2)),
         "start 2026-01-02 is not before end 2026-01-02; the end is exclusive, one day is 2026-01-02..2026-01-03."),
        (lambda: DateRange(date.max, date.max),
         "start 9999-12-31 is not before end 9999-12-31; the end is exclusive, one day is 9999-12-31..(no later day)."),
        (lambda: DateRange.from_label("2026-01-01"),
         "label: '2026-01-01' is not a window; write it as YYYY-MM-DD..YYYY-MM-DD."),
        (lambda: DateRange.from_label("2026-01-01..2026-01-02..2026-01-03"),
         "end: '2026-01-02..2026-01-03' is not a date; write it as YYYY-MM-DD, for example '2026-02-01'."),
        (lambda: previous_month(datetime(2026, 3, 1), ZoneInfo("UTC")),
         "run_after: 2026-03-01T00:00:00 has no time zone; give an aware datetime."),
        # A zone that does not say its offset is none.
        (lambda: previous_month(datetime(2026, 3, 1, tzinfo=_Nowhere()), ZoneInfo("UTC")),
         "run_after: 2026-03-01T00:00:00 has no time zone; give an aware datetime."),
        (lambda: split_by_volume(JANUARY, {}, 0, cut_at_months=False),
         "target: 0 conversations is not a size for a window; give at least 1."),
        (lambda: split_by_volume(JANUARY, {date(2026, 1, 5): -1}, 1, cut_at_months=False),
         "per_day: -1 conversations on 2026-01-05; a volume is 0 or more."),
    ):  # fmt: skip
        with pytest.raises(WindowError) as refused_:
            make()
        assert str(refused_.value) == said


def test_who_chose_overlap_is_told_where_it_is_not_used() -> None:
    both = window().model_copy(
        update={"databases": (Database(name="acme_voice", profile_id="voice", tables=("score", "scorecard")),)}
    )
    assert overlap_notes([both], {"score", "scorecard"}) == []
    assert overlap_notes([], ()) == []
    assert overlap_notes([both], {"scorecard"}) == [
        "overlap is not used for windows with score: clickhouse.written_columns names no column there that tells old"
        " rows from new ones, so their reindex waits for the end of every mutation"
    ]
