"""Report, plan and messages as a person gets them, whole: the Markdown of a log, and what a phone shows."""

from __future__ import annotations

from typing import Any

import pytest

from include.scorecard_backfill.markdown import hours_text, not_verified_in_short, plan_markdown, report_markdown
from include.scorecard_backfill.notices import (
    LONGEST_NOTE,
    Notice,
    Run,
    approval_notice,
    failure_notice,
    finished_notice,
    rejection,
    run_note,
    wait_notice,
)
from include.scorecard_backfill.records import Failure, Verified
from include.scorecard_backfill.records.proof import MissingRows, Proof, TableBalance
from include.scorecard_backfill.records.report import LiveJob
from include.scorecard_backfill.report import NO_FAILURE, Outcome, build_report
from include.scorecard_backfill.verdicts.causes import CAUSES, what_to_do
from tests.kit.build import debt, failure, table, window

FIRST, SECOND, THIRD = window(0, 10), window(10, 10), window(0, 10, "globex")
LABELS = ("acme 2026-01-01..2026-01-11", "acme 2026-01-11..2026-01-21", "globex 2026-01-01..2026-01-11")


def verified(of: Any, before: int, after: int, meant: int | None, short: int = 0, **more: Any) -> Verified:
    line = TableBalance(
        database="acme_voice", table="scorecard", before=before, meant=meant, after=after, removed=before - after,
        short=short, over=0, doubled=0, moved=0, exact=not short,
    )  # fmt: skip
    proof = Proof(tables=(line,), hosts=("ch-1",), statements=1, workflows=1, accounted=meant is not None)
    return Verified(key=of.key, status="verified", proof=proof.model_copy(update=more))


def test_the_report_of_a_run_that_is_not_complete() -> None:
    gone = MissingRows(database="acme_voice", table="scorecard", meant=7_000, count=2_000, ids=tuple("abcdefg"))
    only_meant = MissingRows(database="acme_voice", table="score", meant=3)
    outcome = Outcome(
        windows=[FIRST, SECOND, THIRD, window(20, 5, "globex")],
        verified=[verified(FIRST, 12_345, 10_000, 2_000, 345, missing=(gone, only_meant), unwritten=("a doubt",))],
        failures=[failure(THIRD, "canceled", what_to_do="Clear it.")],
        debts=[debt(window(40, 1), table({0: "abc"}))],
        begun=frozenset({SECOND.key}),
    )
    report = build_report(outcome).model_copy(
        update={"running": (LiveJob(label=LABELS[1], job="reindex-1"),), "running_unknown": "no answer"}
    )
    owed = "acme 2026-02-10..2026-02-11: deleted, not yet proven to be back since 2026-02-03 04:05 UTC (run run1)"
    assert report_markdown(report).splitlines() == [
        "**1 of 4 windows verified**",
        "",
        "| customer | windows | table | before | meant to go | after | removed | missing |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
        "| acme | 1/2 | scorecard | 12,345 | 2,000 | 10,000 | 2,345 | 345 |",
        "| globex | 0/2 | - | - | - | - | - | - |",
        "| **all** | | scorecard | 12,345 | 2,000 | 10,000 | 2,345 | 345 |",
        "",
        "**Rows of the snapshots that did not come back:**",
        "",
        f"- {LABELS[0]}: acme_voice.scorecard: 2,000 missing, such as a, b, c, d, e (7,000 more were meant to go)",
        "",
        "**Jobs that still run, and that no task waits for** (clearing reindex adopts them):",
        "",
        f"- {LABELS[1]}: `reindex-1`",
        "",
        "Whether Jobs still run is not known: no answer",
        "",
        "**Not verified:**",
        "",
        f"- {LABELS[1]}: deleted, not yet reindexed",
        f"  What to do: {NO_FAILURE}",
        f"- {LABELS[2]}: failed: wait_workflows: canceled: why it failed",
        "  What to do: Clear it.",
        "- globex 2026-01-21..2026-01-26: not started",
        "",
        "**Not proven to be written again** (the rows are there):",
        "",
        "- a doubt (1 window)",
        "",
        "**Open debts of this cluster** (deleted, not proven to be back):",
        "",
        f"- {owed}: 3 rows of acme_voice.scorecard",
    ]
    assert NO_FAILURE == (
        "Clear what has failed of it. If nothing of it is red, somebody has marked a stage by hand: reset the window"
        " (tab"
        " Backfill, or python -m backfill reset)."
    )


def test_windows_that_nothing_has_begun_take_one_line_for_each_customer() -> None:
    every = [*(window(n, 1) for n in range(3)), *(window(n, 1, "globex") for n in range(2)), window(9, 1, "initech")]
    broken = failure(every[1], "canceled", what_to_do="Clear it.")
    report = build_report(Outcome(windows=every, verified=[], failures=[broken]))
    found = report_markdown(report).partition("**Not verified:**\n\n")[2].splitlines()
    assert found == [
        "- acme 2026-01-02..2026-01-03: failed: wait_workflows: canceled: why it failed",
        "  What to do: Clear it.",
        "- acme 2026-01-01..2026-01-04: 2 windows not started",
        "- globex 2026-01-01..2026-01-03: 2 windows not started",
        "- initech 2026-01-10..2026-01-11: not started",
    ]
    assert not_verified_in_short(report).splitlines()[:3] == [
        "Not verified: 6 of 6 windows. The report above has the reasons.",
        "- acme 2026-01-01..2026-01-02: not started",
        "- acme 2026-01-02..2026-01-03: failed",
    ]


def test_of_many_windows_that_are_not_verified_twenty_are_named() -> None:
    text = [
        not_verified_in_short(build_report(Outcome(windows=[window(n, 1) for n in range(count)], verified=[])))
        for count in (20, 22)
    ]
    assert len(text[0].splitlines()) == 21
    assert (len(text[1].splitlines()), text[1].splitlines()[-1]) == (22, "- and 2 more")


def test_snapshots_of_which_nothing_is_missing_take_one_line() -> None:
    tables = (
        MissingRows(database="acme_voice", table="scorecard", meant=2_000),
        MissingRows(database="acme_voice", table="score", meant=3),
    )
    found = report_markdown(build_report(Outcome(windows=[FIRST], verified=[verified(FIRST, 9, 9, 0, missing=tables)])))
    assert found.splitlines()[-2:] == [
        "",
        "Nothing is missing from the snapshots but what was meant to go (rows: 2,003).",
    ]
    assert "Rows of the snapshots" not in found


def test_the_report_of_a_run_that_is_complete_and_not_accounted_for() -> None:
    report = build_report(Outcome(windows=[FIRST], verified=[verified(FIRST, 5, 4, None)]))
    assert report_markdown(report).splitlines() == [
        "**1 of 1 windows verified**",
        "",
        "| customer | windows | table | before | meant to go | after | removed | missing |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
        "| acme | 1/1 | scorecard | 5 | 0 | 4 | 1 | 0 |",
        "| **all** | | scorecard | 5 | 0 | 4 | 1 | 0 |",
        "",
        "Not accounted for: no predicate says which rows were meant to go (clickhouse.meant_to_go).",
    ]


def test_the_summary_of_a_report_is_all_of_it_but_its_windows() -> None:
    report = build_report(Outcome(windows=[FIRST], verified=[verified(FIRST, 5, 4, 1)]))
    assert report.summary() == {name: value for name, value in report.to_json().items() if name != "windows"}
    assert "windows" in report.to_json()
    assert {"dry_run", "running", "running_unknown"}.isdisjoint(report.to_json())
    asked = report.model_copy(update={"running": (), "running_unknown": "why", "dry_run": "plan"}).to_json()
    assert (asked["running"], asked["running_unknown"], asked["dry_run"]) == ([], "why", "plan")


def test_a_cut_window_names_five_of_its_parts() -> None:
    parts = [window(n, 1, part_of=FIRST.key) for n in range(7)]
    failures = [failure(part, "lost_rows", stage="verify", what_to_do=f"do {n}") for n, part in enumerate(parts) if n]
    (row,) = build_report(
        Outcome(windows=[FIRST], parts=parts, failures=failures, begun=frozenset({parts[3].key}))
    ).windows
    labels = [f"acme 2026-01-0{n + 1}..2026-01-0{n + 2}" for n in range(5)]
    assert row.note == "cut into 7, 7 of them not verified: " + "; ".join(
        f"{label}: {'lost_rows: why it failed' if n else 'not finished'}" for n, label in enumerate(labels)
    )
    # The first part that has failed says what to do; one part has not come as far as verify.
    assert (row.what_to_do, row.status) == ("do 1", "deleted, not yet reindexed")
    failures.append(failure(parts[0], "lost_rows", stage="verify"))
    (row,) = build_report(
        Outcome(windows=[FIRST], parts=parts, failures=failures, begun=frozenset({FIRST.key}))
    ).windows
    assert row.status == "reindexed, not proven complete"


# -- the plan -------------------------------------------------------------------------------------------------------


def test_the_plan_as_a_person_approves_it() -> None:
    windows = [
        window(0, 10, conversations=66_000, rows={"scorecard": 1_000, "score": 5}),
        window(10, 5, conversations=1_000, rows={"scorecard": 2_000}),
        window(0, 20, "glo|bex", conversations=0, rows={}),
    ]
    text = plan_markdown(
        windows, digest="abc", mode="cleanup", order="delete_first", asked_by="jane", max_parallel=2,
        statements=["DELETE 1", "DELETE 2"], notes=["one", "two"],
    )  # fmt: skip
    assert text.splitlines() == [
        "cleanup (delete_first): **3 windows** of 2 customers, about 1.0 to 1.5 hours of reindexing at 2 windows at"
        " once,"
        " asked for by jane",
        "",
        "| customer | databases | windows | from | to (exclusive) | conversations | rows to delete: score |"
        " rows to delete: scorecard |",
        "|---|---|---:|---|---|---:|---:|---:|",
        "| acme | acme_voice | 2 | 2026-01-01 | 2026-01-16 | 67,000 | 5 | 3,000 |",
        r"| glo\|bex | glo_bex_voice | 1 | 2026-01-01 | 2026-01-21 | 0 | 0 | 0 |",
        "| **all** |  | 3 | 2026-01-01 | 2026-01-21 | 67,000 | 5 | 3,000 |",
        "",
        "- one",
        "- two",
        "",
        "Row figures are estimates (before FINAL).",
        "",
        "Digest of what is approved: `abc`",
        "",
        "Statements, with the values of the first window:",
        "",
        "```sql",
        "DELETE 1",
        "DELETE 2",
        "```",
    ]
    bare = plan_markdown(
        windows[1:2], digest="d", mode="reindex", order="delete_first", asked_by="", max_parallel=1, statements=[]
    )
    assert bare.splitlines() == [
        "reindex (delete_first): **1 window** of 1 customer, less than an hour of reindexing at 1 window at once",
        "",
        "| customer | databases | windows | from | to (exclusive) | conversations | rows there now: scorecard |",
        "|---|---|---:|---|---|---:|---:|",
        "| acme | acme_voice | 1 | 2026-01-11 | 2026-01-16 | 1,000 | 2,000 |",
        "",
        "Row figures are estimates (before FINAL).",
        "",
        "Digest of what is approved: `d`",
    ]
    swept = plan_markdown(
        windows[1:2], digest="d", mode="cleanup", order="reindex_first", asked_by="", max_parallel=1, statements=[]
    )
    assert "| rows to write again or delete: scorecard |" in swept
    again = plan_markdown(
        windows[1:2], digest="d", mode="reindex", order="reindex_first", asked_by="", max_parallel=1, statements=[]
    )
    assert "| rows there now: scorecard |" in again


def test_hours_begin_with_the_first_and_no_slot_at_all_counts_as_one() -> None:
    hour = [window(0, 1, conversations=66_000)]
    assert hours_text(hour, 0) == "about 1.0 to 2.0 hours of reindexing at 0 windows at once"
    assert (
        hours_text([window(0, 1, conversations=33_000)], 1)
        == "about 0.5 to 1.0 hours of reindexing at 1 window at once"
    )
    assert hours_text([window(0, 1, conversations=32_900)], 1) == "less than an hour of reindexing at 1 window at once"


# -- messages -------------------------------------------------------------------------------------------------------

RUN = Run("east", "manual__1", "https://airflow.test/run")
LABEL = LABELS[0]
END = "Run manual__1\nhttps://airflow.test/run"
BROKEN = Failure(key="0" * 16, stage="verify", cause="lost_rows", reason="3 rows", what_to_do="Look.")


def test_a_plan_waits_for_a_person() -> None:
    assert approval_notice(RUN, "d", 3, 1) == Notice(
        "approval", "d", RUN, "east: the plan of 3 windows of 1 customer waits for approval",
        f"Nothing has been deleted. Read it under Required Actions.\n{END}",
    )  # fmt: skip
    assert approval_notice(Run("east", "r"), "d", 1, 1).text.endswith("Required Actions.\nRun r")


def test_a_window_has_failed() -> None:
    assert failure_notice(RUN, LABEL, BROKEN) == Notice(
        "failed", "lost_rows", RUN, "east: a window has failed (lost_rows in verify)",
        f"{LABEL}: lost_rows: 3 rows\nLook.\nOthers that fail by the same cause are not told again in this run.\n{END}",
    )  # fmt: skip
    silent = failure_notice(RUN, LABEL, BROKEN.model_copy(update={"what_to_do": ""}))
    assert silent is not None
    assert silent.text.splitlines()[1] == what_to_do("lost_rows") == CAUSES["lost_rows"].do


def test_too_many_have_failed() -> None:
    told = failure_notice(RUN, LABEL, BROKEN.model_copy(update={"cause": "breaker", "stage": "admit"}))
    assert told == Notice(
        "breaker", "", RUN, "east: no further window is started, too many have failed", f"3 rows\nLook.\n{END}"
    )


def test_a_wait_takes_long() -> None:
    assert wait_notice(RUN, LABEL, "admit", "busy", "because", 60.0, 60) == Notice(
        "waits", "admit:busy", RUN, "east: admit waits for more than 60 minutes", f"{LABEL}: because\n{END}"
    )


REPORT: dict[str, Any] = {
    "planned": 3, "verified": 2, "complete": False,
    "total": {
        "scorecard": {"before": 1_000, "after": 900, "removed": 100}, "score": {"before": 1, "after": 1, "removed": 0},
    },
}  # fmt: skip


def test_a_run_has_ended() -> None:
    rows = "scorecard: 1,000 rows before, 900 after, 100 removed\nscore: 1 rows before, 1 after, 0 removed"
    assert finished_notice(RUN, REPORT) == Notice(
        "finished", "2/3", RUN, "east: NOT complete, 2 of 3 windows verified", f"{rows}\n{END}"
    )
    assert finished_notice(RUN, {"planned": 2, "verified": 2, "complete": True, "debts": ["a", "b"]}) == Notice(
        "finished", "2/2", RUN, "east: complete, 2 of 2 windows verified",
        f"2 windows are deleted and not verified.\n{END}",
    )  # fmt: skip
    assert finished_notice(RUN, {"refused": "The plan was rejected."}) == Notice(
        "finished", "refused", RUN, "east: the run was refused, nothing was deleted", f"The plan was rejected.\n{END}"
    )
    assert finished_notice(RUN, {**REPORT, "dry_run": "plan"}) is None


def test_a_message_as_a_webhook_is_sent_it() -> None:
    told = Notice("waits", "admit:busy", RUN, "subject", "text")
    assert told.key == "waits:admit:busy"
    assert told.to_json() == {
        "about": "waits", "cause": "admit:busy", "cluster": "east", "run_id": "manual__1",
        "link": "https://airflow.test/run", "subject": "subject", "text": "subject\ntext",
    }  # fmt: skip
    assert Run("east", "r").link == ""


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ({"by": "jane"}, "The plan was rejected by jane; nothing was deleted."),
        ('{"by": "jane"}', "The plan was rejected by jane; nothing was deleted."),
        ({"by": ""}, "The plan was rejected by somebody; nothing was deleted."),
        ({}, "The plan was rejected by somebody; nothing was deleted."),
        (None, ""),
        (["jane"], ""),
    ],
)
def test_who_has_rejected_a_plan_is_said(left: object, said: str) -> None:
    assert rejection(left) == said


def test_a_note_is_as_long_as_the_database_takes_and_no_longer() -> None:
    fits = "x" * (LONGEST_NOTE - len("Refused: "))
    assert run_note(f"  {fits}\n") == f"Refused: {fits}"
    assert run_note(f"{fits}y") == f"Refused: {fits[:-1]}…"
    assert run_note("a\0b\ud800c") == "Refused: a�b?c"
