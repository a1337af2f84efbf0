"""The report: joined by key, added up only from what is verified, and green only when all of it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.report import (
    DELETED_NOT_REINDEXED,
    VERIFIED,
    build_report,
    hours_text,
    plan_markdown,
    report_markdown,
)


def window(key: str, customer: str = "acme", day: int = 1, **changes: Any) -> dict[str, Any]:
    start, end = f"2026-01-{day:02d}", f"2026-01-{day + 1:02d}"
    return {
        "key": key,
        "customer_id": customer,
        "start": start,
        "end": end,
        "label": f"{customer} {start}..{end}",
        "databases": [{"name": f"{customer}_voice", "profile_id": "voice", "tables": ["scorecard"]}],
        "conversations": 66_000,
        "rows": {"scorecard": 1_000},
        "part_of": "",
        **changes,
    }


def verified(key: str, before: int = 10, after: int = 9) -> dict[str, Any]:
    numbers = {"before": before, "after": after, "removed": before - after}
    return {"key": key, "status": VERIFIED, "tables": {"scorecard": numbers}}


def deleted(key: str, rows: int = 10) -> dict[str, Any]:
    return {"key": key, "statements": ["ALTER ..."], "rows_before": {"scorecard": rows}}


def status(report: dict[str, Any]) -> dict[str, str]:
    return {row["key"]: row["status"] for row in report["windows"]}


def test_all_verified_is_complete_with_the_sums() -> None:
    windows = [window("k1"), window("k2", day=2), window("k3", "globex")]
    done = [verified("k3", 100, 80), verified("k1"), verified("k2", 5, 5)]
    report = build_report(windows, [], done, [deleted("k1")], {})
    assert (report["complete"], report["planned"], report["verified"]) == (True, 3, 3)
    assert report["total"] == {"scorecard": {"before": 115, "after": 94, "removed": 21}}
    acme, globex = report["customers"]
    assert (acme["customer_id"], acme["windows"], acme["tables"]["scorecard"]["before"]) == ("acme", 2, 15)
    assert (globex["customer_id"], globex["verified"], globex["tables"]["scorecard"]["removed"]) == ("globex", 1, 20)


@pytest.mark.parametrize(
    ("done", "gone", "failures", "expected"),
    [
        ([], [], {}, "not started"),
        ([], [], {"k1": "admission: breaker"}, "failed"),
        ([], [deleted("k1")], {}, DELETED_NOT_REINDEXED),
        ([], [deleted("k1")], {"k1": "heartbeat"}, DELETED_NOT_REINDEXED),
        ([], [{"key": "k1", "statements": []}], {"k1": "heartbeat"}, "failed"),
        ([verified("k2")], [], {}, "not started"),
        ([verified("k1") | {"status": "failed"}], [], {}, "not started"),
        ([verified("k1")], [deleted("k1")], {"k1": "an older failure"}, VERIFIED),
    ],
)
def test_the_status_of_a_window_is_what_is_proven(done: Any, gone: Any, failures: Any, expected: str) -> None:
    report = build_report([window("k1")], [], done, gone, failures)
    assert status(report) == {"k1": expected}
    assert report["complete"] is (expected == VERIFIED)
    if expected != VERIFIED:
        assert report["total"] == {}
        assert report["windows"][0]["note"] == failures.get("k1", "")


def test_rows_of_a_window_that_was_deleted_and_not_reindexed_are_shown_and_not_summed() -> None:
    report = build_report([window("k1")], [], [], [deleted("k1", 7)], {})
    assert report["windows"][0]["tables"] == {"scorecard": {"before": 7, "after": None, "removed": None}}
    assert report["customers"][0]["tables"] == {}


def test_a_cut_window_is_verified_when_all_of_its_parts_are() -> None:
    parts = [window("p1", part_of="k1"), window("p2", day=2, part_of="k1")]
    report = build_report(
        [window("k1")], parts, [verified("p1"), verified("p2", 5, 4)], [deleted("k1")], {"k1": "too big"}
    )
    assert (report["complete"], report["planned"]) == (True, 1)
    assert report["total"] == {"scorecard": {"before": 15, "after": 13, "removed": 2}}
    assert report["windows"][0]["note"] == "cut into 2"


@pytest.mark.parametrize(("gone", "expected"), [([deleted("k1")], DELETED_NOT_REINDEXED), ([], "failed")])
def test_a_cut_window_with_an_open_part_says_which(gone: Any, expected: str) -> None:
    parts = [window("p1", part_of="k1"), window("p2", day=2, part_of="k1")]
    report = build_report([window("k1")], parts, [verified("p1")], gone, {"k1": "too big"})
    assert status(report) == {"k1": expected}
    assert report["windows"][0]["note"] == (
        "cut into 2, 1 of them not verified: acme 2026-01-02..2026-01-03: not finished"
    )
    assert report["complete"] is False


def test_a_plan_of_nothing_is_complete() -> None:
    assert build_report([], [], [], [], {})["complete"] is True


KEYS = [f"k{n}" for n in range(6)]


@given(
    st.permutations(KEYS),
    st.sets(st.sampled_from(KEYS)),
    st.sets(st.sampled_from(KEYS)),
    st.sets(st.sampled_from(KEYS)),
)
def test_results_are_joined_by_key_and_never_by_place(
    order: list[str], done: set[str], gone: set[str], bad: set[str]
) -> None:
    windows = [window(key, ["acme", "globex"][n % 2], day=n + 1) for n, key in enumerate(KEYS)]
    failures = {key: f"why {key}" for key in bad}
    results = [verified(key, 10 * (KEYS.index(key) + 1), 3) for key in order if key in done]
    report = build_report(windows, [], results, [deleted(key) for key in order if key in gone], failures)
    assert [row["key"] for row in report["windows"]] == KEYS
    for row in report["windows"]:
        key = row["key"]
        rest = DELETED_NOT_REINDEXED if key in gone else "failed" if key in bad else "not started"
        assert row["status"] == (VERIFIED if key in done else rest)
        if key in done:
            assert row["tables"]["scorecard"]["before"] == 10 * (KEYS.index(key) + 1)
        else:
            assert row["note"] == failures.get(key, "")
    assert report["complete"] is (len(done) == len(KEYS))
    removed = report["total"].get("scorecard", {}).get("removed", 0)
    assert removed == sum(
        row["tables"]["scorecard"]["removed"] for row in report["windows"] if row["status"] == VERIFIED
    )
    assert sum(customer["windows"] for customer in report["customers"]) == len(KEYS)
    assert json.loads(json.dumps(report)) == report


def cells(line: str) -> int:
    """Columns of a line of a Markdown table; an escaped bar is no border."""
    return line.replace("\\\\", "").replace("\\|", "").count("|") - 1


def tables(markdown: str) -> list[str]:
    return [line for line in markdown.splitlines() if line.startswith("|")]


def test_markdown_of_a_report_shows_sums_and_every_open_window() -> None:
    windows = [window("k1"), window("k2", "globex"), window("k3", "initech")]
    text = report_markdown(build_report(windows, [], [verified("k1", 12_345, 10_000)], [deleted("k2")], {"k2": "why"}))
    assert "**1 of 3 windows verified**" in text
    assert "| acme | 1/1 | scorecard | 12,345 | 10,000 | 2,345 |" in text
    assert "| globex | 0/1 | - | - | - | - |" in text
    assert f"- globex 2026-01-01..2026-01-02: {DELETED_NOT_REINDEXED}: why" in text
    assert "- initech 2026-01-01..2026-01-02: not started" in text.splitlines()
    assert {cells(line) for line in tables(text)} == {6}
    good = report_markdown(build_report(windows[:1], [], [verified("k1")], [], {}))
    assert "Not verified" not in good


def plan_text(windows: list[dict[str, Any]], **changes: Any) -> str:
    asked: dict[str, Any] = {"plan_hash": "abc", "mode": "cleanup", "max_parallel": 2, "statements": ["DELETE 1"]}
    return plan_markdown(windows, **asked | changes)


def test_markdown_of_a_plan_shows_what_a_person_approves() -> None:
    text = plan_text([window("k1"), window("k2", day=2), window("k3", "globex")], notes=["globex: small windows"])
    assert "cleanup: **3 windows** of 2 customers" in text
    assert "| acme | acme_voice | 2 | 2026-01-01 | 2026-01-03 | 132,000 | 2,000 |" in text
    assert "rows to delete: scorecard" in text
    assert "- globex: small windows" in text
    assert "Plan hash: `abc`" in text
    assert "```sql\nDELETE 1\n```" in text
    assert len({cells(line) for line in tables(text)}) == 1


def test_markdown_of_a_plan_that_deletes_nothing_says_so_and_shows_no_statement() -> None:
    text = plan_text([window("k1")], mode="reindex", statements=())
    assert "rows there now: scorecard" in text
    assert "delete" not in text
    assert "```" not in text
    assert "**0 windows** of 0 customers" in plan_text([])


@pytest.mark.parametrize("customer", ["a|b", "a\\|b", "|", "a\\"])
def test_a_customer_id_does_not_break_out_of_its_cell(customer: str) -> None:
    assert len({cells(line) for line in tables(plan_text([window("k1", customer)]))}) == 1
    report = build_report([window("k1", customer)], [], [verified("k1")], [], {})
    assert {cells(line) for line in tables(report_markdown(report))} == {6}


def test_hours_are_between_spread_and_the_longest_chain() -> None:
    # 66,000 conversations are one hour at 1,100 a minute.
    chain = [window("k1"), window("k2", day=2), window("k3", "globex")]
    assert hours_text(chain, 1) == "about 3.0 to 5.0 hours of reindexing at 1 windows at once"
    assert hours_text(chain, 10) == "about 2.0 to 2.3 hours of reindexing at 10 windows at once"
    assert hours_text([], 10) == "less than an hour of reindexing at 10 windows at once"
