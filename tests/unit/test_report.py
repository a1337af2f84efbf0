"""The report: joined by key, added up only from what is verified, and green only when all of it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.markdown import hours_text, plan_markdown, report_markdown
from include.scorecard_backfill.names import LABEL_WINDOW
from include.scorecard_backfill.records import (
    Deleted,
    Failure,
    MissingRows,
    Proof,
    Sent,
    TableBalance,
    Verified,
    Window,
)
from include.scorecard_backfill.records.report import LiveJob, Report
from include.scorecard_backfill.report import (
    DELETED_NOT_REINDEXED,
    NO_FAILURE,
    NOT_PROVEN,
    VERIFIED,
    Outcome,
    build_report,
    unwatched,
)
from tests.kit import build

Json = dict[str, Any]


def window(key: str, customer: str = "acme", day: int = 1, **changes: Any) -> Window:
    base = build.window(day - 1, 1, customer, conversations=66_000, rows={"scorecard": 1_000})
    return base.model_copy(update={"key": key, **changes})


def verified(key: str, before: int = 10, after: int = 9, meant: int | None = 1, **changes: Any) -> Verified:
    short = max(0, before - (meant or 0) - after)
    line = TableBalance(
        database="acme_voice", table="scorecard", before=before, meant=meant, after=after, removed=before - after,
        short=short, over=0, doubled=0, moved=0, exact=True,
    )  # fmt: skip
    proof = Proof(tables=(line,), hosts=("ch-1",), statements=1, workflows=1, accounted=meant is not None)
    return Verified(key=key, status="verified", proof=proof.model_copy(update=changes))


def deleted(key: str, *, sent: bool = True) -> Deleted:
    statements = (Sent(database="acme_voice", table="scorecard", at=1.0),) if sent else ()
    return Deleted(key=key, window=window(key), status="deleted" if sent else "nothing", sent=statements)


def failure(key: str, reason: str = "why", stage: Any = "wait_workflows", cause: str = "canceled") -> Failure:
    return Failure(key=key, stage=stage, cause=cause, reason=reason, what_to_do=f"do {cause}")


def report_of(windows: Sequence[Window], **changes: Any) -> Report:
    return build_report(Outcome(windows=windows, **changes))


def status(report: Report) -> dict[str, str]:
    return {row.key: row.status for row in report.windows}


def test_all_verified_is_complete_with_the_sums() -> None:
    windows = [window("k1"), window("k2", day=2), window("k3", "globex")]
    done = [verified("k3", 100, 80, 19), verified("k1"), verified("k2", 5, 5, 0)]
    report = report_of(windows, verified=done, deleted=[deleted("k1")])
    assert (report.complete, report.planned, report.verified) == (True, 3, 3)
    assert report.accounted is True
    # What was meant to go apart from what is missing.
    assert report.to_json()["total"] == {
        "scorecard": {"before": 115, "meant": 20, "after": 94, "removed": 21, "short": 1}
    }
    acme, globex = report.customers
    assert (acme.customer_id, acme.windows, acme.tables["scorecard"].before) == ("acme", 2, 15)
    assert (globex.customer_id, globex.verified, globex.tables["scorecard"].removed) == ("globex", 1, 20)


FAILED: list[Failure] = [failure("k1", "breaker", "admit")]


@pytest.mark.parametrize(
    ("done", "gone", "failures", "expected"),
    [
        ([], [], [], "not started"),
        ([], [], FAILED, "failed"),
        ([], [deleted("k1")], [], DELETED_NOT_REINDEXED),
        ([], [deleted("k1")], [failure("k1")], DELETED_NOT_REINDEXED),
        ([], [deleted("k1")], [failure("k1", "rows are missing", "verify", "lost_rows")], NOT_PROVEN),
        ([], [], [failure("k1", "rows are missing", "verify", "lost_rows")], "failed"),
        ([], [deleted("k1", sent=False)], [failure("k1")], "failed"),
        ([verified("k2")], [], [], "not started"),
        ([Verified(key="k1", status="cut")], [], [], "not started"),
        # Verified without a proof is not verified.
        ([Verified(key="k1", status="verified")], [], [], "not started"),
        ([verified("k1")], [deleted("k1")], [failure("k1", "an older failure")], VERIFIED),
    ],
)
def test_the_status_of_a_window_is_what_is_proven(
    done: list[Verified], gone: list[Deleted], failures: list[Failure], expected: str
) -> None:
    report = report_of([window("k1")], verified=done, deleted=gone, failures=failures)
    assert status(report) == {"k1": expected}
    assert report.complete is (expected == VERIFIED)
    if expected != VERIFIED:
        assert report.total == {}
        assert report.windows[0].note == "".join(f"{f.stage}: {f.text}" for f in failures)
        assert report.windows[0].what_to_do == ("".join(f.what_to_do for f in failures) or expected_remedy(gone))
    else:
        assert report.windows[0].note == ""


@pytest.mark.parametrize(
    ("stage", "cause"),
    [("delete", "counts_unsettled"), ("reindex", "job_failed"), ("wait_mutations", "killed"), ("verify", "lost_rows")],
)
def test_whichever_stage_failed_its_reason_and_remedy_are_there(stage: Any, cause: str) -> None:
    report = report_of([window("k1")], failures=[failure("k1", "ch-2 is silent", stage, cause)])
    (row,) = report.windows
    assert row.note == f"{stage}: {cause}: ch-2 is silent"
    text = report_markdown(report)
    assert f"- acme 2026-01-01..2026-01-02: failed: {stage}: {cause}: ch-2 is silent\n  What to do: do {cause}" in text


def test_a_delete_that_failed_half_way_is_not_called_not_started() -> None:
    report = report_of([window("k1")], failures=[failure("k1", stage="delete")], begun=frozenset({"k1"}))
    assert status(report) == {"k1": DELETED_NOT_REINDEXED}
    of_debt = report_of([window("k1")], debts=[build.debt(window("k1"))])
    assert status(of_debt) == {"k1": DELETED_NOT_REINDEXED}


def expected_remedy(gone: list[Deleted]) -> str:
    """What is said where no stage has failed: something, when the window has begun."""
    return NO_FAILURE if gone else ""


def test_a_window_of_which_no_stage_has_failed_says_how_it_is_done_again() -> None:
    report = report_of([window("k1"), window("k2", day=2)], begun=frozenset({"k1"}))
    assert [(w.key, "reset the window" in w.what_to_do) for w in report.windows] == [("k1", True), ("k2", False)]
    assert "somebody has marked a stage by hand: reset the window" in report_markdown(report)


def test_a_cut_window_is_verified_when_all_of_its_parts_are() -> None:
    parts = [window("p1", part_of="k1"), window("p2", day=2, part_of="k1")]
    report = report_of(
        [window("k1")],
        parts=parts,
        verified=[verified("p1"), verified("p2", 5, 4)],
        deleted=[deleted("k1")],
        failures=[failure("k1", "too big")],
    )
    assert (report.complete, report.planned) == (True, 1)
    assert report.to_json()["total"]["scorecard"] == {"before": 15, "meant": 2, "after": 13, "removed": 2, "short": 0}
    assert report.windows[0].note == "cut into 2"


@pytest.mark.parametrize(("gone", "expected"), [([deleted("k1")], DELETED_NOT_REINDEXED), ([], "failed")])
def test_a_cut_window_with_an_open_part_says_which(gone: list[Deleted], expected: str) -> None:
    parts = [window("p1", part_of="k1"), window("p2", day=2, part_of="k1")]
    report = report_of([window("k1")], parts=parts, verified=[verified("p1")], deleted=gone, failures=[failure("k1")])
    assert status(report) == {"k1": expected}
    assert report.windows[0].note == ("cut into 2, 1 of them not verified: acme 2026-01-02..2026-01-03: not finished")
    assert report.complete is False


def test_a_part_that_was_cut_again_counts_by_its_own_parts() -> None:
    parts = [
        window("p1", part_of="k1"),
        window("p2", day=2, part_of="k1"),
        window("q1", day=2, part_of="p2"),
        window("q2", day=3, part_of="p2"),
    ]
    done = [verified("p1"), verified("q1"), verified("q2")]
    assert report_of([window("k1")], parts=parts, verified=done).complete is True
    failed = report_of(
        [window("k1")], parts=parts, verified=done[:2], failures=[failure("q2", "on the way", "verify", "lost_rows")]
    )
    assert failed.windows[0].note.endswith("1 of them not verified: acme 2026-01-03..2026-01-04: lost_rows: on"
                                                 " the way")  # fmt: skip
    assert failed.windows[0].what_to_do == "do lost_rows"
    # A part that was verified in spite of having been cut is done.
    assert report_of([window("k1")], parts=parts, verified=[verified("p1"), verified("p2")]).complete is True


def test_a_plan_of_nothing_is_complete() -> None:
    assert report_of([]).complete is True


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
    results = [verified(key, 10 * (KEYS.index(key) + 1), 3) for key in order if key in done]
    report = report_of(
        windows,
        verified=results,
        deleted=[deleted(key) for key in order if key in gone],
        failures=[failure(key, f"why {key}") for key in order if key in bad],
    )
    assert [row.key for row in report.windows] == KEYS
    for row in report.windows:
        key = row.key
        rest = DELETED_NOT_REINDEXED if key in gone else "failed" if key in bad else "not started"
        assert row.status == (VERIFIED if key in done else rest)
        if key in done:
            assert row.tables["scorecard"].before == 10 * (KEYS.index(key) + 1)
        else:
            assert row.note == (f"wait_workflows: canceled: why {key}" if key in bad else "")
    assert report.complete is (len(done) == len(KEYS))
    removed = report.to_json()["total"].get("scorecard", {}).get("removed", 0)
    assert removed == sum(row.tables["scorecard"].removed for row in report.windows if row.status == VERIFIED)
    assert sum(customer.windows for customer in report.customers) == len(KEYS)
    assert Report.model_validate(json.loads(json.dumps(report.to_json()))) == report


def test_missing_rows_are_named_apart_from_those_that_were_meant_to_go() -> None:
    gone = MissingRows(database="acme_voice", table="scorecard", meant=7, count=2, ids=("a", "b"))
    fine = MissingRows(database="acme_voice", table="score")
    report = report_of([window("k1")], verified=[verified("k1", missing=(gone, fine))])
    assert report.to_json()["missing"] == [
        {"key": "k1", "label": "acme 2026-01-01..2026-01-02", "table": "acme_voice.scorecard", "meant": 7, "count": 2,
         "ids": ["a", "b"]},
        {"key": "k1", "label": "acme 2026-01-01..2026-01-02", "table": "acme_voice.score", "meant": 0, "count": 0,
         "ids": []},
    ]  # fmt: skip
    text = report_markdown(report)
    assert "acme_voice.scorecard: 2 missing, such as a, b (7 more were meant to go)" in text
    assert "acme_voice.score: 0 missing" not in text


def test_jobs_that_nobody_waits_for_are_listed() -> None:
    def job(name: str, key: str, *conditions: str) -> Json:
        status = {"conditions": [{"type": c, "status": "True"} for c in conditions]}
        return {"metadata": {"name": name, "labels": {LABEL_WINDOW: key}}, "status": status}

    jobs = [job("b", "k1"), job("a", "k2"), job("c", "k3"), job("d", "other"), job("e", "k2", "Complete")]
    jobs.append({"metadata": {"name": "f"}})
    windows = [window("k1"), window("k2", "globex"), window("k3")]
    assert unwatched(windows, jobs, {"k3"}) == [
        LiveJob(label="globex 2026-01-01..2026-01-02", job="a"),
        LiveJob(label="acme 2026-01-01..2026-01-02", job="b"),
    ]


def cells(line: str) -> int:
    """Columns of a line of a Markdown table; an escaped bar is no border."""
    return line.replace("\\\\", "").replace("\\|", "").count("|") - 1


def tables(markdown: str) -> list[str]:
    return [line for line in markdown.splitlines() if line.startswith("|")]


def test_markdown_of_a_report_shows_sums_and_every_open_window() -> None:
    windows = [window("k1"), window("k2", "globex"), window("k3", "initech")]
    done, gone = [verified("k1", 12_345, 10_000, 2_000)], [deleted("k2")]
    text = report_markdown(report_of(windows, verified=done, deleted=gone, failures=[failure("k2")]))
    assert "**1 of 3 windows verified**" in text
    assert "| acme | 1/1 | scorecard | 12,345 | 2,000 | 10,000 | 2,345 | 345 |" in text
    assert "| **all** | | scorecard | 12,345 | 2,000 | 10,000 | 2,345 | 345 |" in text
    assert "| globex | 0/1 | - | - | - | - | - | - |" in text
    assert f"- globex 2026-01-01..2026-01-02: {DELETED_NOT_REINDEXED}: wait_workflows: canceled: why" in text
    assert "- initech 2026-01-01..2026-01-02: not started" in text.splitlines()
    assert {cells(line) for line in tables(text)} == {8}
    assert "Not accounted for" not in text
    good = report_markdown(report_of(windows[:1], verified=[verified("k1")]))
    assert "Not verified" not in good


def test_a_report_without_a_predicate_says_that_nothing_is_accounted_for() -> None:
    report = report_of([window("k1")], verified=[verified("k1", meant=None)])
    assert report.accounted is False
    assert "Not accounted for: no predicate says which rows were meant to go" in report_markdown(report)


def test_a_dry_run_shows_the_plan_and_no_sums() -> None:
    text = report_markdown(report_of([]).model_copy(update={"dry_run": "the plan as it is approved"}))
    assert "**Dry run: nothing was changed.** The plan:\n\nthe plan as it is approved" in text
    assert "windows verified" not in text
    assert "|" not in text


def test_a_refusal_says_why_and_by_whom_and_lists_no_window() -> None:
    by = "The plan was rejected by jane; nothing was deleted."
    text = report_markdown(report_of([window("k1")]).model_copy(update={"refused": by}))
    assert text == f"**{by}**"


def test_open_debts_and_jobs_are_shown_in_whatever_report() -> None:
    owed = build.debt(window("k9"), build.table({0: "abc"}))
    report = report_of([window("k1")], debts=[owed])
    report = report.model_copy(update={"running": (LiveJob(label="acme", job="reindex-1"),)})
    text = report_markdown(report)
    assert f"**Open debts of this cluster** (deleted, not proven to be back):\n\n- {owed.text}" in text
    assert "(clearing reindex adopts them):\n\n- acme: `reindex-1`" in text
    unknown = report_markdown(report_of([]).model_copy(update={"running_unknown": "no answer"}))
    assert "Whether Jobs still run is not known: no answer" in unknown
    for empty in ("Open debts", "Jobs that still run", "snapshots"):
        assert empty not in report_markdown(report_of([window("k1")], verified=[verified("k1")]))


def plan_text(windows: list[Window], **changes: Any) -> str:
    asked: Json = {"digest": "abc", "mode": "cleanup", "order": "delete_first", "asked_by": "jane", "max_parallel": 2,
                   "statements": ["DELETE 1"]}  # fmt: skip
    return plan_markdown(windows, **asked | changes)


def test_markdown_of_a_plan_shows_what_a_person_approves() -> None:
    text = plan_text([window("k1"), window("k2", day=2), window("k3", "globex")], notes=["globex: small windows"])
    assert "cleanup (delete_first): **3 windows** of 2 customers" in text
    assert text.splitlines()[0].endswith(", asked for by jane")
    assert "| acme | acme_voice | 2 | 2026-01-01 | 2026-01-03 | 132,000 | 2,000 |" in text
    assert "| **all** |  | 3 | 2026-01-01 | 2026-01-03 | 198,000 | 3,000 |" in text
    assert "rows to delete: scorecard" in text
    assert "- globex: small windows" in text
    assert "Digest of what is approved: `abc`" in text
    assert "```sql\nDELETE 1\n```" in text
    assert len({cells(line) for line in tables(text)}) == 1


def test_one_customer_needs_no_total_and_a_schedule_has_no_name() -> None:
    text = plan_text([window("k1")], asked_by="")
    assert "**all**" not in text
    assert "asked for by" not in text
    assert "rows to write again or delete: scorecard" in plan_text([window("k1")], order="reindex_first")


def test_markdown_of_a_plan_that_deletes_nothing_says_so_and_shows_no_statement() -> None:
    text = plan_text([window("k1")], mode="reindex", statements=())
    assert "rows there now: scorecard" in text
    assert "rows to delete" not in text
    assert "```" not in text
    assert "**0 windows** of 0 customers" in plan_text([])


@pytest.mark.parametrize("customer", ["a|b", "a\\|b", "|", "a\\"])
def test_a_customer_id_does_not_break_out_of_its_cell(customer: str) -> None:
    assert len({cells(line) for line in tables(plan_text([window("k1", customer)]))}) == 1
    report = report_of([window("k1", customer)], verified=[verified("k1")])
    assert {cells(line) for line in tables(report_markdown(report))} == {8}


def test_hours_are_between_spread_and_the_longest_chain() -> None:
    # 66,000 conversations are one hour at 1,100 a minute.
    chain = [window("k1"), window("k2", day=2), window("k3", "globex")]
    assert hours_text(chain, 1) == "about 3.0 to 5.0 hours of reindexing at 1 window at once"
    assert hours_text(chain, 10) == "about 2.0 to 2.3 hours of reindexing at 10 windows at once"
    assert hours_text([], 10) == "less than an hour of reindexing at 10 windows at once"
