"""How far a run is, its tables and files, where its links lead, and what an action means or why it means nothing."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from include.scorecard_backfill.overview import Overview, overview
from include.scorecard_backfill.overview.act import RetryError, job_task, retry_tasks
from include.scorecard_backfill.overview.export import KINDS, exported, markdown, windows_csv
from include.scorecard_backfill.overview.facts import Approval, Result, RunFacts, Seen, TaskFact, WindowFacts
from include.scorecard_backfill.overview.links import fill
from include.scorecard_backfill.overview.model import Link, Numbers, PlanRow, ReportRow, Span
from include.scorecard_backfill.overview.reset import reset_tasks
from include.scorecard_backfill.planning.learned import Customer
from include.scorecard_backfill.verdicts.admission import Limits
from tests.unit.overview_fixtures import STAGES, at, planned, run, window

TEN, REST = ("2026-01-01", "2026-01-11"), ("2026-01-11", "2026-02-01")
ONE = [window(planned("acme"), 0, "deferred")]
TWO = [window(planned("acme", *TEN), 6), window(planned("globex"), 6, index=1)]
DRY = {"mode": "cleanup", "dry_run": True}


def look(facts: RunFacts, minutes: float = 30) -> Overview:
    return overview(facts, at(minutes))


# -- figures --------------------------------------------------------------------------------------------------------


def test_the_time_left_and_on_what_it_rests() -> None:
    half = {"wait_workflows": Seen("", done=50, total=100)}
    listed = [
        window(planned("acme", *TEN, conversations=600), 4, "deferred", seen=half),
        window(planned("acme", *REST, conversations=900), 0, "deferred", index=1),
        window(planned("globex", conversations=2_200), 0, "deferred", index=2),
    ]  # fmt: skip
    learned = {"acme": Customer(per_minute=10.0)}
    figures = look(run(listed, learned=learned), 71).figures
    # acme: 300 and 900 left at 10 a minute; globex at the measured 1,100. So far 300 in 60 minutes.
    assert (figures.conversations, figures.conversations_done, figures.per_minute) == (3_700, 300, 5.0)
    assert figures.left_note == (
        "speed known of 1 of 2 customers, 2 windows at once, 5 conversations per minute so far"
    )
    assert figures.left == Span(low_minutes=120, high_minutes=680, from_moment=at(191), to_moment=at(751))
    asked = look(run(listed[1:], learned=learned, approval=Approval(at(1)))).figures
    assert asked.left_note.startswith("from the moment at which it is approved; speed known")
    assert asked.left == Span(low_minutes=90, high_minutes=136, from_moment=at(120), to_moment=at(166))
    soon = look(run([window(planned("acme", conversations=0), 0, "deferred")])).figures.left
    assert soon == Span(low_minutes=1, high_minutes=1, from_moment=at(31), to_moment=at(31))


def test_several_windows_of_a_customer_at_once_shorten_its_chain() -> None:
    listed = [window(planned("acme", *days, conversations=1_100), 0, "deferred", index=n)
              for n, days in enumerate((TEN, REST))]  # fmt: skip
    limits = Limits(max_parallel=4, per_customer=2, max_failures=1)
    left = look(run(listed, limits=limits)).figures.left
    assert left is not None
    assert (left.low_minutes, left.high_minutes) == (1, 2)


# -- tables and files -----------------------------------------------------------------------------------------------


def rich() -> RunFacts:
    """Two customers, one of them verified in part, the other one not at all."""
    acme, rest = planned("acme", *TEN, rows={"scorecard": 70, "score": 5}), planned("acme", *REST)
    return run(
        [window(acme, 6), window(rest, 3, "failed", index=1), window(planned("globex"), 0, "deferred", index=2)],
        plan_notes=["a note"],
    )


def test_the_plan_by_customer_with_its_total() -> None:
    plan = look(rich()).plan
    assert plan.rows == (
        PlanRow(customer="acme", databases=("acme_main",), windows=2, start="2026-01-01", end="2026-02-01", days=31,
                conversations=2_000, rows={"score": 5, "scorecard": 170}),
        PlanRow(customer="globex", databases=("globex_main",), windows=1, start="2026-01-01", end="2026-02-01", days=31,
                conversations=1_000, rows={"scorecard": 100}),
    )  # fmt: skip
    assert plan.total == PlanRow(
        customer="all", databases=(), windows=3, start="2026-01-01", end="2026-02-01", days=62, conversations=3_000,
        rows={"score": 5, "scorecard": 270},
    )  # fmt: skip
    assert (plan.tables, plan.hash, plan.mode, plan.notes) == (
        ("score", "scorecard"), "0123456789abcdef", "cleanup", ("a note",),
    )  # fmt: skip
    empty = look(run([], plan_hash=None, run={})).plan
    assert (empty.rows, empty.tables, empty.hash, empty.mode, empty.notes) == ((), (), "", "", ())
    assert (empty.total.start, empty.total.end, empty.total.windows) == ("", "", 0)


def test_the_report_by_customer_with_its_total() -> None:
    report = look(rich()).report
    done = {"scorecard": Numbers(before=100, after=90, removed=10)}
    assert report.rows == (
        ReportRow(customer="acme", windows=2, verified=1, tables=done),
        ReportRow(customer="globex", windows=1, verified=0, tables={}),
    )
    assert report.total == ReportRow(customer="all", windows=3, verified=1, tables=done)
    assert report.tables == ("scorecard",)


def test_a_run_without_any_pass_has_an_empty_plan() -> None:
    assert look(replace(run([], plan_hash=None), passes=())).plan.rows == ()


def test_rows_that_are_not_known_to_be_removed_are_none() -> None:
    done = replace(TWO[0], results={"verify": Result(TWO[0].window.key, "verified", tables={"score": {"before": 5}})})
    assert look(run([done], state="success")).figures.removed == {"score": 0}


def test_a_window_that_was_verified_although_it_was_cut_stays_verified() -> None:
    whole = window(planned("acme", key="w"), 6)
    part = window(planned("acme", *TEN, key="p", part_of="w"), 3, "failed", group="smaller_windows")
    row, _ = look(run([whole], [part], state="failed")).windows
    assert (row.state, row.stage, row.parts, row.reason) == ("verified", "done", 1, "")


def test_the_markdown_of_a_run() -> None:
    assert markdown(look(rich())).splitlines() == [
        "# scorecard_backfill__east manual__1",
        "",
        "**1 of 3 windows verified, 1 waiting, 1 failed.**",
        "",
        "- 1 window failed: heartbeat_timeout in reindex. Read the reasons, correct what they name, then retry what"
        " failed.",
        "- Deleted, not yet reindexed: 1 window; 1 of them with nobody at work. Retry what failed: until then these"
        " customers lack the rows of these days.",
        "",
        "## Report",
        "",
        "| customer | verified | table | before | after | removed |",
        "|---|---|---|---|---|---|",
        "| acme | 1/2 | scorecard | 100 | 90 | 10 |",
        "| globex | 0/1 | - | - | - | - |",
        "| all | 1/3 | scorecard | 100 | 90 | 10 |",
        "",
        "## Plan",
        "",
        "| customer | windows | from | to (exclusive) | days | conversations | rows to delete: score | rows to delete:"
        " scorecard |",
        "|---|---|---|---|---|---|---|---|",
        "| acme | 2 | 2026-01-01 | 2026-02-01 | 31 | 2,000 | 5 | 170 |",
        "| globex | 1 | 2026-01-01 | 2026-02-01 | 31 | 1,000 | 0 | 100 |",
        "| all | 3 | 2026-01-01 | 2026-02-01 | 62 | 3,000 | 5 | 270 |",
    ]
    reindex = markdown(look(run(ONE, run={"mode": "reindex"})))
    assert "| conversations | rows: scorecard |" in reindex
    unknown = [replace(TWO[0], results={"verify": Result(TWO[0].window.key, "verified", tables={"score": {}})})]
    assert "| acme | 1/1 | score |  |  |  |" in markdown(look(run(unknown, state="success")))
    named = run([window(planned("a\\b|c\nd"), 0, "deferred")])
    assert r"| a\\b\|c d | 0/1 | - | - | - | - |" in markdown(look(named))


def test_the_windows_of_a_run_as_csv() -> None:
    facts = rich()
    rows = list(csv.reader(io.StringIO(windows_csv(look(facts)))))
    assert rows[0] == [
        "customer", "start", "end", "state", "stage", "since", "reason", "blocker", "place", "percent", "conversations",
        "attempts", "gone_since", "key", "scorecard before", "scorecard after", "scorecard removed",
    ]  # fmt: skip
    assert rows[1:] == [
        ["acme", *TEN, "verified", "done", "2026-03-01T12:16:00+00:00", "", "", "", "100", "1000", "1", "",
         facts.passes[0][0].window.key, "100", "90", "10"],
        ["acme", *REST, "failed", "reindex", "2026-03-01T12:13:00+00:00", "no heartbeat for 300 s", "", "", "", "1000",
         "0", "2026-03-01T12:11:30+00:00", facts.passes[0][1].window.key, "100", "", ""],
        ["globex", "2026-01-01", "2026-02-01", "waiting", "admit", "2026-03-01T12:10:00+00:00",
         "its turn has come; it starts at the next look", "", "1", "", "1000", "0", "",
         facts.passes[0][2].window.key, "", "", ""],
    ]  # fmt: skip
    for first in "=+-@\t\r":
        text = windows_csv(look(run([window(planned(f"{first}x"), 0, "deferred")])))
        (_, row) = csv.reader(io.StringIO(text, newline=""))
        assert row[0] == f"'{first}x"


def test_each_kind_of_file_is_made_by_its_name() -> None:
    view = look(rich())
    assert dict(KINDS) == {
        "csv": "text/csv; charset=utf-8", "json": "application/json", "md": "text/markdown; charset=utf-8",
    }  # fmt: skip
    assert (exported(view, "csv"), exported(view, "md")) == (windows_csv(view), markdown(view))
    whole = exported(view, "json")
    assert Overview.model_validate(json.loads(whole), strict=False).headline == view.headline
    assert whole.splitlines()[1].startswith(' "')
    with pytest.raises(KeyError):
        exported(view, "pdf")


# -- links and actions ----------------------------------------------------------------------------------------------


def test_a_reindex_that_verify_has_made_is_counted_and_linked() -> None:
    what = planned("acme")
    results = {
        "reindex": Result(what.key, "reindexed", attempt=1, job_name="first"),
        "wait_workflows": Result(what.key, "completed", attempt=1, workflow_ids=("w1", "w2")),
        "verify": Result(what.key, "verified", attempt=2, workflow_ids=("w3",)),
    }
    (row,) = look(run([window(what, 6, results=results)])).windows
    assert row.attempts == 2
    assert [(link.kind, link.text) for link in row.links if link.kind != "mutation"] == [
        ("job", f"reindex-acme-20260101-{what.key}-a2"),
        ("workflow", "w3"),
    ]


def test_links_lead_to_the_newest_job_and_to_twenty_workflows() -> None:
    what = planned("acme")
    ids = tuple(f"w/{n}" for n in range(25))
    results = {
        "delete": Result(what.key, "deleted", statements=2),
        "reindex": Result(what.key, "reindexed", attempt=1, job_name="old"),
        "wait_workflows": Result(what.key, "completed", attempt=2, workflow_ids=ids),
    }
    facts = run(
        [window(what, 4, "deferred", results=results, seen={"verify": Seen("", attempt=2, job_name="new")})],
        job_url="https://k.example/{job}", workflow_url="https://t.example/{workflow_id}?x",
    )  # fmt: skip
    links = look(facts).windows[0].links
    assert links[:3] == (
        Link(kind="mutation", text=f"backfill:{what.key}:"),
        Link(kind="job", text="new", href="https://k.example/new"),
        Link(kind="workflow", text="w/0", href="https://t.example/w%2F0?x"),
    )
    assert len(links) == 22
    left = {"delete": Result(what.key), "reindex": Result(what.key, attempt=3)}
    bare = run([window(what, 4, "deferred", results=left)])
    assert [(link.kind, link.text, link.href) for link in look(bare).windows[0].links] == [
        ("job", f"reindex-acme-20260101-{what.key}-a3", ""),
    ]
    assert look(run([WindowFacts(what, "windows", 0)])).windows[0].links == ()
    assert fill("", job="x") == ""
    assert fill("{a}/{b}/{a}", a="x/y", b="é ") == "x%2Fy/%C3%A9%20/x%2Fy"


def test_why_nothing_is_retried() -> None:
    with pytest.raises(RetryError, match=r"^The plan was rejected. Start a new run; a retry must not ask again.$"):
        retry_tasks(run(ONE, approval=Approval(at(1), at(2), "jane", "Reject")))
    with pytest.raises(RetryError, match=r"^Nothing has failed that could be retried.$"):
        retry_tasks(run(ONE))
    with pytest.raises(RetryError, match=r"^Nothing of globex has failed that could be retried.$"):
        retry_tasks(run([window(planned("acme"), 3, "failed"), window(planned("globex"), 6, index=1)]), "globex")
    closed = WindowFacts(planned("hooli"), "windows_2", 0, opened_by="open_windows_2", opener=TaskFact("failed"))
    with pytest.raises(RetryError) as refused:
        retry_tasks(run([closed]), "hooli")
    assert str(refused.value) == (
        "Nothing of hooli was begun: its batch was not opened, because open_windows_2 has failed: retry the run, or"
        " clear"
        " that task. That opens the batch for every customer in it."
    )


def test_the_approval_is_retried_only_while_nobody_was_asked() -> None:
    tasks = {"plan": TaskFact("success"), "approve": TaskFact("upstream_failed"), "preflight": TaskFact("failed"),
             "report": TaskFact("upstream_failed")}  # fmt: skip
    fresh = run([], approval=None, tasks=tasks)
    assert retry_tasks(fresh) == [("approve", -1), ("preflight", -1), ("report", -1)]
    assert retry_tasks(replace(fresh, approval=Approval())) == retry_tasks(fresh)
    assert retry_tasks(replace(fresh, approval=Approval(at(1)))) == [("preflight", -1), ("report", -1)]


def test_why_nothing_is_reset() -> None:
    facts = run([window(planned("acme"), 6), window(planned("acme", *REST), 2, "running", index=1)])
    for changed, customer, day, said in (
        (replace(facts, approval=Approval(at(1), at(2), "j", "Reject")), "acme", None,
         "The plan was rejected. Start a new run; a reset must not ask again."),
        (replace(facts, run=DRY), "acme", None, "This run is a dry run: no window of acme was begun."),
        (replace(facts, run=DRY), "acme", datetime(2026, 1, 5, tzinfo=UTC).date(),
         "This run is a dry run: no window of acme that holds 2026-01-05 was begun."),
        (facts, "hooli", None, "The run has no window of hooli."),
        (facts, "acme", None,
         "No window of acme can be reset: acme 2026-01-01..2026-02-01: verified; to do it again, start a new run for"
         " its"
         " days; acme 2026-01-11..2026-02-01: in work or waiting; end its Job first, or wait"),
    ):  # fmt: skip
        with pytest.raises(RetryError) as refused:
            reset_tasks(changed, customer, day)
        assert str(refused.value) == said
    failed = run([window(planned("acme"), 3, "failed"), window(planned("acme", *REST), index=1)])
    assert reset_tasks(failed, "acme").left == (("acme 2026-01-11..2026-02-01", "not begun; it starts by itself"),)
    with pytest.raises(RetryError, match=r"^2 of the windows that were shown cannot be reset any more; look again.$"):
        reset_tasks(failed, "acme", keys=["x", "y", failed.passes[0][0].window.key])


@pytest.mark.parametrize(("state", "cleared"), [("failed", True), ("success", True), ("running", False), (None, False)])
def test_the_report_is_reset_when_it_has_ended(state: str | None, cleared: bool) -> None:
    found = reset_tasks(run([window(planned("acme"), 3, "failed")], tasks={"report": TaskFact(state)}), "acme")
    assert (("report", -1) in found.places) is cleared


def test_the_task_that_waits_for_a_job_may_be_of_any_pass() -> None:
    part = window(planned("acme", *TEN, key="p", part_of="w"), 5, "deferred", group="smaller_windows", index=3,
                  waits_for="job_ended")  # fmt: skip
    facts = run([window(planned("acme", key="w"), 3, "failed", waits_for="job_ended")], [part])
    assert job_task(facts, "p") == ("smaller_windows.verify", 3, "acme 2026-01-01..2026-01-11")
    assert job_task(facts, "w") is None
    assert job_task(facts, "other") is None
    assert STAGES[5] == "verify"
