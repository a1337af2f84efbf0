"""The read model of a run against hand-made truth."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import pytest

from include.scorecard_backfill.overview import overview
from include.scorecard_backfill.overview.act import RetryError, job_task, retry_tasks
from include.scorecard_backfill.overview.export import markdown, windows_csv
from include.scorecard_backfill.overview.facts import Approval, DebtFact, Result, Seen, TaskFact, WindowFacts
from include.scorecard_backfill.overview.model import Overview
from include.scorecard_backfill.overview.reset import reset_tasks
from include.scorecard_backfill.overview.results import moment, planned_of, result_of, seen_of
from include.scorecard_backfill.overview.rows import Known
from include.scorecard_backfill.planning.learned import Customer
from include.scorecard_backfill.planning.overrides import Override
from tests.unit.overview_fixtures import at, planned, run, window


def by_label(view: Overview) -> dict[str, Any]:
    return {row.label: row for row in view.windows}


def test_each_window_has_one_state_its_stage_and_since_when() -> None:
    parts = [("2026-01-01", "2026-01-11"), ("2026-01-11", "2026-01-21"), ("2026-01-21", "2026-02-01")]
    view = overview(
        run([
            window(planned("acme", *parts[0]), 6, index=0),
            window(planned("acme", *parts[1]), 4, "deferred", index=1, seen={"wait_workflows": Seen("1 of 2", done=30,
                                                                                                     total=120)}),
            window(planned("acme", *parts[2]), 0, "deferred", index=2),
            window(planned("globex"), 3, "failed", index=3),
            window(planned("initech"), 1, "running", index=4),
            window(planned("hooli"), 0, "deferred", index=5),
        ]),
        at(30),
    )  # fmt: skip
    shown = [(r.customer, r.state, r.stage, r.percent, r.since) for r in view.windows]
    assert shown == [
        ("acme", "verified", "done", 100, at(16)),
        ("acme", "working", "wait_workflows", 25, at(14)),
        ("acme", "waiting", "admit", None, at(10)),
        ("globex", "failed", "reindex", None, at(13)),
        ("initech", "working", "delete", None, at(11)),
        ("hooli", "waiting", "admit", None, at(10)),
    ]
    counts = {name: count for name, count in view.counts if count}
    assert counts == {"planned": 6, "verified": 1, "working": 2, "waiting": 2, "failed": 1}
    assert view.headline == "1 of 6 windows verified, 2 in work, 2 waiting, 1 failed."
    assert (view.state, view.figures.percent, view.figures.removed) == ("running", 16, {"scorecard": 10})


def test_a_waiting_window_names_what_stands_in_its_way_and_its_place() -> None:
    view = overview(
        run([
            window(planned("acme", "2026-01-01", "2026-01-11"), 3, "deferred", index=0),
            window(planned("acme", "2026-01-11", "2026-02-01"), 0, "deferred", index=1),
            window(planned("globex"), 2, "deferred", index=2),
            window(planned("hooli"), 0, "deferred", index=3),
            window(planned("wayne"), 0, "deferred", index=4),
        ]),
        at(30),
    )  # fmt: skip
    rows = by_label(view)
    second = rows["acme 2026-01-11..2026-02-01"]
    assert (second.place, second.blocker) == (None, "acme 2026-01-01..2026-01-11")
    assert "acme" in second.reason
    places = [rows[f"{c} 2026-01-01..2026-02-01"].place for c in ("hooli", "wayne")]
    assert places == [1, 2]
    assert "2 of 2 slots are taken" in rows["hooli 2026-01-01..2026-02-01"].reason


def test_pause_and_unanswered_plan_hold_everybody_back() -> None:
    listed = [window(planned("acme"), 0, "deferred")]
    paused = Override(author="jane", until=at(600), reason="disk is full", pause=True)
    view = overview(run(listed, override=paused), at(30))
    assert view.windows[0].reason == "paused by jane until 2026-03-01T22:00+00:00: disk is full"
    assert [(a.kind, a.level) for a in view.attention] == [("paused", "act")]
    assert view.override is not None
    assert view.override.pause
    view = overview(run([window(planned("acme"))], approval=Approval(at(1))), at(30))
    assert view.state == "waiting for approval"
    assert view.windows[0].reason == "the plan waits for approval"
    first = view.attention[0]
    assert (first.kind, first.level, first.since, first.count) == ("approval", "act", at(1), 1)


def test_a_later_look_takes_over_only_rows_of_which_nothing_has_changed() -> None:
    first = [window(planned("acme"), 2, "running"), window(planned("globex"), 0, "deferred", index=1)]
    known: Known = {}
    old = overview(run(first), at(20), known)
    assert overview(run(first), at(21), known).windows[0] is old.windows[0]
    assert overview(run(first), at(21), known).windows[1] is old.windows[1]

    paused = Override(author="jane", until=at(600), reason="deploy", pause=True)
    held = overview(run(first, override=paused), at(22), known)
    assert (held.windows[0] is old.windows[0], held.windows[1].reason[:7]) == (True, "paused ")
    assert overview(run(first), at(23), known).windows == old.windows

    owed = DebtFact(first[0].window.key, "acme", "2026-01-01", "2026-02-01", at(1), "earlier")
    assert overview(run(first, debts=[owed]), at(24), known).windows[0].gone_since == at(1)
    ended = overview(run(first, state="failed"), at(25), known)
    assert [row.state for row in ended.windows] == ["working", "not_started"]
    for facts in (run(first), run(first, override=paused), run(first, debts=[owed]), run(first, state="failed")):
        assert overview(facts, at(26), known) == overview(facts, at(26))


def test_deleted_and_not_yet_reindexed_stands_on_top_with_since_when() -> None:
    listed = [
        window(planned("acme"), 3, "failed", index=0),
        window(planned("globex"), 3, "deferred", index=1),
        window(planned("hooli"), 5, "deferred", index=2),
        window(planned("wayne"), 6, index=3),
    ]
    view = overview(run(listed), at(30))
    gone = next(a for a in view.attention if a.kind == "gone")
    assert (gone.level, gone.count, gone.since, gone.windows) == (
        "act", 2, at(11.5), ("acme 2026-01-01..2026-02-01",),
    )  # fmt: skip
    assert {r.customer for r in view.windows if r.gone_since} == {"acme", "globex"}


def test_a_debt_makes_a_half_done_delete_visible_and_other_runs_debts_are_named() -> None:
    here = DebtFact(planned("acme").key, "acme", "2026-01-01", "2026-02-01", at(5))
    other = DebtFact("k", "initech", "2025-11-01", "2025-12-01", at(-9000), "manual__0")
    view = overview(run([window(planned("acme"), 1, "failed")], debts=(here, other)), at(30))
    assert view.windows[0].gone_since == at(5)
    debt = next(a for a in view.attention if a.kind == "debt")
    assert (debt.count, debt.windows, debt.since) == (1, ("initech 2025-11-01..2025-12-01",), at(-9000))


def test_in_the_order_reindex_first_no_row_is_ever_gone() -> None:
    what = planned("acme", order="reindex_first")
    tasks = {s: TaskFact("success", at(1), at(2)) for s in ("admit", "reindex", "wait_workflows", "delete")}
    facts = run([replace(window(what), tasks=tasks | {"wait_mutations": TaskFact("deferred", at(3))},
                         results={"delete": Result(what.key, "deleted", statements=1, at=at(2))})])  # fmt: skip
    row = overview(facts, at(30)).windows[0]
    assert (row.stage, row.state, row.gone_since) == ("wait_mutations", "working", None)


def cut_run(second: int, now: str | None, **fields: Any) -> Overview:
    whole = planned("acme")
    parts = [planned("acme", "2026-01-01", "2026-01-16", part_of=whole.key, conversations=500),
             planned("acme", "2026-01-16", "2026-02-01", part_of=whole.key, conversations=500)]  # fmt: skip
    return overview(
        run(
            [window(whole, 4, "failed")],
            [
                window(parts[0], 6, group="smaller_windows", index=0),
                window(parts[1], second, now, group="smaller_windows", index=1),
            ],
            **fields,
        ),
        at(40),
    )


def test_a_window_that_was_cut_is_judged_by_its_parts() -> None:
    view = cut_run(4, "deferred")
    assert [(r.state, r.parts) for r in view.windows] == [("cut", 2), ("verified", 0), ("working", 0)]
    assert view.counts.cut == 1
    assert view.windows[0].reason == "too big, cut into 2; 1 of them verified"
    assert not [a for a in view.attention if a.kind == "failed"]
    done = cut_run(6, None, state="success")
    assert (done.windows[0].state, done.state, done.figures.removed) == ("verified", "complete", {"scorecard": 20})
    assert done.windows[0].gone_since is None
    broken = cut_run(4, "failed", state="failed")
    assert broken.windows[0].gone_since is not None
    assert (broken.windows[0].state, broken.state) == ("failed", "incomplete")
    assert "2026-01-16..2026-02-01: no heartbeat for 300 s" in broken.windows[0].reason
    assert next(a for a in broken.attention if a.kind == "failed").count == 1


@pytest.mark.parametrize(
    ("fields", "state", "headline"),
    [
        ({"plan_hash": None, "approval": None}, "planning",
         "Preflight and plan are running; nothing has been deleted."),
        ({"plan_hash": None, "state": "failed", "refusal": "customers: 'acmee' is not known"}, "refused",
         "Refused before anything was deleted."),
        ({"state": "failed", "approval": Approval(at(1), at(2), "jane", "Reject")}, "rejected",
         "The plan of 1 window of 1 customer was rejected by jane; nothing was deleted."),
        ({"state": "success", "run": {"mode": "cleanup", "dry_run": True}, "approval": None}, "dry run",
         "Dry run: 1 window of 1 customer was planned, nothing was changed."),
    ],
)  # fmt: skip
def test_runs_that_deleted_nothing_say_so(fields: dict[str, Any], state: str, headline: str) -> None:
    view = overview(run([window(planned("acme"))], **fields), at(30))
    assert (view.state, view.headline) == (state, headline)
    if state != "planning":
        assert view.windows[0].state == "not_started"
        assert view.counts.failed == 0
    assert not any(a.kind == "gone" for a in view.attention)


def test_windows_held_back_by_the_breaker_are_not_started_and_the_breaker_is_named() -> None:
    failed = [window(planned(c), 3, "failed", index=i) for i, c in enumerate(("acme", "globex", "hooli"))]
    held = window(planned("wayne"), 0, "failed", index=3)
    view = overview(run([*failed, held]), at(30))
    assert [r.state for r in view.windows] == ["failed", "failed", "failed", "not_started"]
    assert next(a for a in view.attention if a.kind == "failed").count == 3


def test_the_time_left_is_a_range_from_learned_speed_volumes_and_the_limit_in_force() -> None:
    listed = [
        window(planned("acme", "2026-01-01", "2026-01-11", conversations=6_000), 0, "deferred", index=0),
        window(planned("acme", "2026-01-11", "2026-02-01", conversations=6_000), 0, "deferred", index=1),
        window(planned("globex", conversations=3_000), 0, "deferred", index=2),
    ]
    learned = {"acme": Customer(per_minute=100.0), "globex": Customer(per_minute=50.0)}
    left = overview(run(listed, learned=learned), at(30)).figures.left
    assert left is not None
    # acme 120 minutes in a chain, globex 60; two slots: at least the chain, at most chain + 180 / 2.
    assert (left.low_minutes, left.high_minutes) == (120, 210)
    assert left.from_moment == at(150)
    assert overview(run([window(planned("acme"), 6)], state="success"), at(30)).figures.left is None


def test_the_pace_counts_from_the_first_admission_to_the_end() -> None:
    view = overview(run([window(planned("acme"), 6)], state="success", ended=at(21)), at(99))
    assert view.figures.per_minute == 100.0
    assert (view.figures.conversations, view.figures.conversations_done) == (1_000, 1_000)


def test_plan_and_report_have_totals_that_are_the_sums_of_their_rows() -> None:
    listed = [
        window(planned("globex"), 6, index=0),
        window(planned("acme", "2026-01-01", "2026-01-11"), 6, index=1),
        window(planned("acme", "2026-01-11", "2026-02-01"), 0, "deferred", index=2),
    ]
    view = overview(run(listed), at(30))
    assert [(r.customer, r.windows, r.days, r.rows["scorecard"]) for r in (*view.plan.rows, view.plan.total)] == [
        ("globex", 1, 31, 100), ("acme", 2, 31, 200), ("all", 3, 62, 300),
    ]  # fmt: skip
    shown = [(r.customer, r.verified, r.windows, r.tables["scorecard"].removed) for r in view.report.rows]
    assert shown == [("acme", 1, 2, 10), ("globex", 1, 1, 10)]
    total = view.report.total.tables["scorecard"]
    assert (total.before, total.after, total.removed) == (200, 180, 20)
    assert view.figures.removed == {"scorecard": total.removed}


def test_a_retry_clears_what_failed_and_the_report_but_never_an_approval_that_was_given() -> None:
    listed = [window(planned("acme"), 3, "failed", index=0), window(planned("globex"), 4, "failed", index=1),
              window(planned("hooli"), 6, index=2)]  # fmt: skip
    facts = run(listed, state="failed", tasks={"approve": TaskFact("failed"), "report": TaskFact("failed")})
    assert retry_tasks(facts) == [
        ("windows.reindex", 0), ("windows.wait_workflows", 0), ("windows.verify", 0),
        ("windows.wait_workflows", 1), ("windows.verify", 1), ("report", -1),
    ]  # fmt: skip
    assert retry_tasks(facts, "globex") == [("windows.wait_workflows", 1), ("windows.verify", 1), ("report", -1)]
    with pytest.raises(RetryError, match="Nothing of hooli"):
        retry_tasks(facts, "hooli")
    with pytest.raises(RetryError, match="rejected"):
        retry_tasks(replace(facts, approval=Approval(at(1), at(2), "jane", "Reject")))


def test_a_retry_of_a_refused_run_takes_the_approval_along_that_was_never_asked() -> None:
    tasks = {"preflight": TaskFact("failed"), "plan": TaskFact("upstream_failed"),
             "approve": TaskFact("upstream_failed"), "report": TaskFact("failed")}  # fmt: skip
    facts = run([], state="failed", plan_hash=None, approval=None, tasks=tasks, refusal="no connection")
    assert retry_tasks(facts) == [("preflight", -1), ("plan", -1), ("approve", -1), ("report", -1)]


def test_a_retry_clears_the_tasks_of_a_cluster_with_both_orders_by_their_own_names() -> None:
    what = planned("acme", order="reindex_first")
    ended = {stage: TaskFact("success", at(1), at(2)) for stage in ("admit", "reindex", "wait_workflows")}
    after = {"delete": TaskFact("failed"), "wait_mutations": TaskFact("upstream_failed"),
             "verify": TaskFact("upstream_failed")}  # fmt: skip
    swept = replace(
        window(what),
        tasks=ended | after,
        task_ids={"delete": "sweep", "wait_mutations": "wait_sweep"},
        idle={"delete": TaskFact("success"), "wait_mutations": TaskFact("upstream_failed")},
    )
    facts = run([swept], state="failed")
    assert retry_tasks(facts) == [
        ("windows.sweep", 0), ("windows.wait_sweep", 0), ("windows.verify", 0), ("windows.wait_mutations", 0),
    ]  # fmt: skip
    assert overview(facts, at(9)).windows[0].task == "windows.sweep"


def test_a_retry_leaves_a_window_alone_whose_parts_do_its_work() -> None:
    whole = planned("acme")
    part = planned("acme", "2026-01-01", "2026-01-16", part_of=whole.key)
    facts = run([window(whole, 4, "failed")], [window(part, 3, "failed", group="smaller_windows")])
    assert [task for task, _ in retry_tasks(facts)] == [
        "smaller_windows.reindex", "smaller_windows.wait_workflows", "smaller_windows.verify",
    ]  # fmt: skip


def test_a_job_may_be_ended_only_while_a_task_waits_for_it() -> None:
    waiting = window(planned("acme"), 3, "deferred", waits_for="job_ended")
    facts = run([waiting, window(planned("globex"), 4, "deferred", index=1, waits_for="resume")])
    assert job_task(facts, waiting.window.key) == ("windows.reindex", 0, "acme 2026-01-01..2026-02-01")
    assert job_task(facts, "globex-2026-01-01-2026-02-01") is None
    assert [r.may_end_job for r in overview(facts, at(30)).windows] == [True, False]


def test_links_name_the_newest_job_the_workflows_and_the_marker_of_the_mutations() -> None:
    facts = run([window(planned("acme"), 5, "deferred")], workflow_url="https://t.example/{workflow_id}")
    links = overview(facts, at(30)).windows[0].links
    assert [(x.kind, x.text, x.href) for x in links] == [
        ("mutation", "backfill:acme-2026-01-01-2026-02-01:", ""),
        ("job", "reindex-acme-a1", ""),
        ("workflow", "w-1", "https://t.example/w-1"),
    ]


def test_files_hold_markup_and_formulas_as_text() -> None:
    view = overview(run([window(planned("=cmd|x"), 6), window(planned("<b>wayne</b>"), 3, "failed", index=1)]), at(30))
    rows = list(csv.reader(io.StringIO(windows_csv(view))))
    assert [row[0] for row in rows] == ["customer", "'=cmd|x", "<b>wayne</b>"]
    assert rows[0][-3:] == ["scorecard before", "scorecard after", "scorecard removed"]
    assert rows[1][-3:] == ["100", "90", "10"]
    assert "| =cmd\\|x | 1/1 | scorecard | 100 | 90 | 10 |" in markdown(view)


def test_records_of_stages_become_facts() -> None:
    verified = {
        "kind": "verified", "v": 1, "key": "k", "status": "verified",
        "proof": {"tables": [
            {"table": "scorecard", "before": 10, "meant": 2, "after": 8, "removed": 2, "short": 0},
            {"table": "scorecard", "before": 5, "meant": None, "after": 5, "removed": 0, "short": 0},
        ]},
    }  # fmt: skip
    found = result_of(verified)
    assert found is not None
    assert found.tables == {"scorecard": {"before": 15, "meant": 2, "after": 13, "removed": 2, "short": 0}}
    failure = result_of('{"kind": "failure", "v": 1, "key": "k", "cause": "error", "reason": "r", "what_to_do": "t"}')
    assert failure == Result("k", "failed", "error", "r", "t")
    other = result_of({"kind": "verified", "v": 9, "key": "k", "status": "verified"})
    assert other is not None
    assert (other.status, other.reason) == ("failed", "its record has version 9, this release reads 1")
    assert result_of(None) is None
    broken = result_of("{")
    assert broken is not None
    assert broken.status == "failed"


def test_what_a_wait_saw_is_best_effort() -> None:
    assert seen_of({"reason": "busy", "done": "many", "total": 3}) == Seen("busy")
    assert seen_of("{") is None
    assert moment("2026-03-01T12:00:00") == at(0)
    assert moment("soon") is None
    assert planned_of({"key": "k", "customer_id": "c", "start": "a", "end": "b"}).order == "delete_first"


def test_a_run_that_has_ended_says_why_windows_were_not_started() -> None:
    limits = replace(run([]).limits, max_failures=1)
    ended = [window(planned("acme"), done=3, now="failed"), window(planned("globex"), 0, "failed", index=1)]
    found = {note.kind: note for note in overview(run(ended, state="failed", limits=limits), at(60)).attention}

    assert (found["breaker"].level, found["breaker"].what) == (
        "look", "1 of the windows was not started: 1 window failed, the limit is 1.",
    )  # fmt: skip


def test_a_window_whose_stages_somebody_has_marked_as_success_is_not_green_and_says_what_to_do() -> None:
    marked = replace(window(planned("acme"), done=6), results={})
    (row,) = overview(run([marked], state="failed"), at(60)).windows

    assert (row.state, row.stage) == ("failed", "verify")
    assert "marked one by hand" in row.reason
    assert row.todo.startswith("Reset the window")


def test_a_window_without_a_task_in_airflow_has_no_link_to_one() -> None:
    unmade = replace(window(planned("acme")), tasks={})
    dry = run([unmade], state="success", run={"dry_run": True})
    assert [row.task for row in overview(dry, at(60)).windows] == [""]
    # Airflow expands the windows once the plan is approved, not while somebody is asked.
    assert [row.task for row in overview(run([unmade]), at(60)).windows] == [""]
    assert [row.task for row in overview(run([window(planned("acme"), 0, "deferred")]), at(60)).windows] == [
        "windows.admit"
    ]


def test_the_report_of_a_run_that_did_nothing_is_its_plan() -> None:
    dry = overview(run([replace(window(planned("acme")), tasks={})], state="success", run={"dry_run": True}), at(60))
    assert "## Report" not in markdown(dry)
    assert "| acme | 1 |" in markdown(dry)


def batch(customer: str, opener: str | None, number: int = 2, **more: Any) -> WindowFacts:
    """A window of a further batch that has no tasks yet."""
    name = f"windows_{number}"
    closed = WindowFacts(planned(customer), name, 0, opened_by=f"open_{name}", opener=TaskFact(opener))
    return replace(closed, **more)


def test_a_window_whose_batch_is_not_open_waits_in_the_queue_of_all() -> None:
    first = [window(planned("acme"), 2, "running"), window(planned("globex"), 2, "running", index=1)]
    (row,) = overview(run([*first, batch("hooli", "deferred")]), at(20)).windows[2:]
    assert (row.state, row.task, row.reason) == (
        "waiting", "", "2 of 2 slots are taken and 0 eligible windows come first",
    )  # fmt: skip
    (row,) = overview(run([first[0], batch("hooli", "deferred")]), at(20)).windows[1:]
    assert row.reason == "its turn has come; it starts when its batch is open"


def test_a_batch_that_was_not_opened_is_on_top_with_what_to_do() -> None:
    facts = run(
        [window(planned("acme"), 6), batch("globex", "failed"), batch("hooli", "upstream_failed", 3)],
        state="failed",
        tasks={"open_windows_2": TaskFact("failed"), "open_windows_3": TaskFact("upstream_failed"),
               "windows_2.admit": TaskFact("upstream_failed"), "report": TaskFact("failed")},
    )  # fmt: skip
    view = overview(facts, at(30))
    assert [row.state for row in view.windows] == ["verified", "not_started", "not_started"]
    assert view.windows[1].reason.endswith("open_windows_2 has failed: retry the run, or clear that task")
    assert view.windows[2].reason.endswith("a task before open_windows_3 has failed")
    (note,) = view.attention
    assert (note.level, note.what) == ("act", "2 windows not started: open_windows_2 has failed.")
    # A retry of the run opens them; one customer's alone cannot, as the batch is not theirs alone.
    assert set(retry_tasks(facts)) == {
        ("open_windows_2", -1), ("open_windows_3", -1), ("windows_2.admit", -1), ("report", -1),
    }  # fmt: skip
    with pytest.raises(RetryError, match="Nothing of globex was begun: its batch was not opened"):
        retry_tasks(facts, "globex")
    with pytest.raises(RetryError, match="Nothing of acme has failed"):
        retry_tasks(facts, "acme")
    with pytest.raises(RetryError, match="its batch was not opened, because open_windows_2 has failed"):
        reset_tasks(facts, "globex")
