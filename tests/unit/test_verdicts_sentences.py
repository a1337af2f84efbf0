"""The sentences of the verdicts, whole: an operator reads them in a log or on the page and acts by them."""

from __future__ import annotations

from typing import Any

import pytest

from include.scorecard_backfill.verdicts import admission, mutations, started, workflows
from include.scorecard_backfill.verdicts.admission import Limits, Slot, Work
from include.scorecard_backfill.verdicts.base import Verdict, failed, ok, wait
from include.scorecard_backfill.verdicts.mutations import HostView, Mutation, Patience, Sent
from include.scorecard_backfill.verdicts.workflows import Execution

Json = dict[str, Any]
TABLE = ("acme_voice", "scorecard")


def shown(verdict: Verdict) -> tuple[str, str, tuple[str, ...]]:
    return verdict.state, verdict.cause, verdict.reasons


def test_a_verdict_owes_its_reader_a_reason() -> None:
    with pytest.raises(ValueError, match=r"^a wait needs a reason$"):
        wait()
    for arguments in (("killed",), ("", "a reason")):
        with pytest.raises(ValueError, match=r"^a failure needs a cause and a reason$"):
            failed(*arguments)
    assert (ok().text, ok("a", "b").text, failed("killed", "c", "d").text) == ("ok", "a; b", "c; d")


# -- mutations ------------------------------------------------------------------------------------------------------

SENT = Sent(TABLE, 1_000.0, frozenset())
DONE, RUNNING, FAILING = (
    HostView("ch-1", "done"),
    HostView("ch-2", "running", 7),
    HostView("ch-3", "failing", 3, "full"),
)
ABSENT, KILLED = HostView("ch-4", "absent"), HostView("ch-5", "killed")


@pytest.mark.parametrize(
    ("views", "times", "expected"),
    [
        ([], {}, ("wait", "", ("acme_voice.scorecard: no host is known on which it could be done",))),
        ([DONE, DONE], {}, ("ok", "", ("acme_voice.scorecard: no unfinished mutation on 2 hosts",))),
        (
            [DONE, RUNNING, FAILING, ABSENT, HostView("ch-6", "absent")],
            {},
            (
                "wait", "",
                (
                    "acme_voice.scorecard: 7 parts to do on ch-2, 3 parts to do on ch-3 (full)",
                    "acme_voice.scorecard: not on ch-4 yet",
                    "acme_voice.scorecard: not on ch-6 yet",
                ),
            ),
        ),
        ([ABSENT], {}, ("wait", "", ("acme_voice.scorecard: not on ch-4 yet",))),
        (
            [KILLED, FAILING, HostView("ch-7", "killed")],
            {"failing_for": 99.0},
            ("failed", "killed",
             ("the mutation on acme_voice.scorecard was killed on ch-5, ch-7; rows may remain",)),
        ),
        (
            [RUNNING, FAILING, HostView("ch-8", "failing", 1, "later")],
            {"failing_for": 30.0},
            ("failed", "fail_reason", ("the mutation on acme_voice.scorecard fails on ch-3: full",)),
        ),
        (
            [ABSENT, HostView("ch-6", "absent"), RUNNING],
            {"now": 1_300.0},
            (
                "failed", "not_picked_up",
                ("the DDL on acme_voice.scorecard was queued but not picked up by ch-4, ch-6 within 300 s: check the"
                 " host names and the DDL queue of these hosts",),
            ),
        ),
        (
            [RUNNING, FAILING],
            {"unchanged_for": 1_800.0},
            ("failed", "stalled",
             ("acme_voice.scorecard: 7 parts to do on ch-2, 3 parts to do on ch-3 (full), no change for 1800 s",)),
        ),
        # Time alone is nothing: nobody fails, nobody is absent, nobody works.
        ([DONE], {"now": 9e9, "failing_for": 9e9, "unchanged_for": 9e9},
         ("ok", "", ("acme_voice.scorecard: no unfinished mutation on 1 hosts",))),
    ],
)  # fmt: skip
def test_what_is_said_of_a_tables_mutations(views: list[HostView], times: dict[str, float], expected: Any) -> None:
    clock = {"now": 1_010.0, "failing_for": 0.0, "unchanged_for": 0.0} | times
    patience = Patience(not_picked_up=300, failing=30, stalled=1_800)
    assert shown(mutations.judge_table(SENT, views, **clock, patience=patience)) == expected


@pytest.mark.parametrize(
    ("counts", "hosts", "expected"),
    [
        ({}, ["a", "b"], ("wait", "", ("nothing was counted (0 tables on 2 hosts)",))),
        ({TABLE: {}}, [], ("wait", "", ("nothing was counted (1 tables on 0 hosts)",))),
        ({TABLE: {"a": 3}}, ["c", "b", "a"], ("wait", "", ("no count from b, c",))),
        ({TABLE: {"a": 0, "b": 0}}, ["a", "b"], ("ok", "", ("no row left in 1 tables on 2 hosts",))),
        (
            {TABLE: {"b": 4, "a": 1}, ("acme_voice", "score"): {"a": 2, "b": 0}},
            ["a", "b"],
            (
                "failed", "rows_left",
                (
                    "2 rows of acme_voice.score left on a",
                    "1 rows of acme_voice.scorecard left on a",
                    "4 rows of acme_voice.scorecard left on b",
                ),
            ),
        ),
    ],
)  # fmt: skip
def test_what_is_said_of_rows_that_are_left(counts: Any, hosts: list[str], expected: Any) -> None:
    assert shown(mutations.judge_rows(counts, hosts)) == expected


def mutation(command: str, **changes: Any) -> Mutation:
    fields: Json = {
        "host": "ch-1", "database": TABLE[0], "table": TABLE[1], "mutation_id": "1", "command": command, "created": 1,
        "is_done": False, "parts_to_do": 3, "fail_reason": "", "is_killed": False,
    }  # fmt: skip
    return Mutation(**fields | changes)


@pytest.mark.parametrize(
    ("command", "changes", "altering"),
    [
        ("(MODIFY COLUMN a String)", {}, True),
        ("ADD COLUMN a String", {}, True),
        ("(DROP COLUMN a)", {}, True),
        ("(DROP COLUMN a)", {"is_done": True}, False),
        ("(DROP COLUMN a)", {"table": "score"}, False),
        ("(DROP COLUMN a)", {"database": "globex_voice"}, False),
        ("(DELETE WHERE 1)", {}, False),
        (" ((delete WHERE 1))".strip(), {}, False),
        ("UPDATE a = 1 WHERE 1", {}, False),
        ("(MATERIALIZE COLUMN a)", {}, False),
        # A column whose name begins like such a word is changed all the same.
        ("(MODIFY COLUMN delete_at DateTime)", {}, True),
        ("DELETED", {}, True),
    ],
)
def test_an_unfinished_change_of_a_tables_columns_is_seen(command: str, changes: Json, altering: bool) -> None:
    found = mutation(command, **changes)
    assert mutations.altering([found], TABLE) == ([found] if altering else [])


def test_another_alter_is_named_with_table_host_and_the_begin_of_its_command() -> None:
    assert mutations.described(mutation("DROP COLUMN a")) == (
        "another ALTER of acme_voice.scorecard is unfinished on ch-1: DROP COLUMN a"
    )
    assert mutations.described(mutation("x" * 300)).endswith("ch-1: " + "x" * 200)


def test_a_host_shows_how_much_is_left_and_why_it_fails() -> None:
    sent = Sent(TABLE, 1.0, frozenset({"ch-1"}))
    for changes, state in (
        ({"is_killed": True, "fail_reason": "why"}, "killed"),
        ({"fail_reason": "why"}, "failing"),
        ({}, "running"),
    ):
        (view,) = mutations.host_views(sent, [mutation("x", **changes)], ["ch-1"])
        assert view == HostView("ch-1", state, 3, str(changes.get("fail_reason", "")))
    (done,) = mutations.host_views(sent, [mutation("x", is_done=True, fail_reason="was over")], ["ch-1"])
    assert done == HostView("ch-1", "done", 0, "")
    assert mutations.host_views(sent, [], ["ch-2", "ch-1"]) == [
        HostView("ch-1", "forgotten"),
        HostView("ch-2", "absent"),
    ]


# -- admission ------------------------------------------------------------------------------------------------------


def slots(text: str) -> list[Slot]:
    words: dict[str, admission.Phase] = {
        "w": "waiting", "r": "running", "v": "verified", "f": "failed", "c": "closed",
    }  # fmt: skip
    return [Slot(item[0], words[item[2]]) for item in text.split()]


@pytest.mark.parametrize(
    ("text", "limits", "index", "expected"),
    [
        ("a.r a.w g.w i.w", (10, 1), 1, ("wait", "", "another window of a comes first (1 at a time)")),
        ("a.r a.r a.w", (10, 2), 2, ("wait", "", "another window of a comes first (2 at a time)")),
        ("a.r a.w g.w i.w", (2, 1), 2, ("ok", "", "slot 2 of 2")),
        ("a.w", (2, 1), 0, ("ok", "", "slot 1 of 2")),
        ("a.r a.w g.w i.w", (2, 1), 3, ("wait", "", "1 of 2 slots are taken and 1 eligible windows come first")),
        ("a.r b.w", (1, 1), 1, ("wait", "", "1 of 1 slots are taken and 0 eligible windows come first")),
        (
            "a.f b.w", (1, 1, 1), 1,
            ("failed", "breaker",
             "no further window is started: 1 window failed, the limit is 1; clear the failed ones, then this one"),
        ),
        (
            "a.f b.f c.w", (1, 1, 2), 2,
            ("failed", "breaker",
             "no further window is started: 2 windows failed, the limit is 2; clear the failed ones, then this one"),
        ),
        (
            "a.f b.f c.v d.w", (1, 1, 9, 0.5, 3), 3,
            ("failed", "breaker",
             "no further window is started: 2 of 3 ended windows failed, the limit is 50%; clear the failed ones, then"
             " this one"),
        ),
    ],
)  # fmt: skip
def test_what_a_window_is_told_about_its_turn(text: str, limits: Any, index: int, expected: Any) -> None:
    full = Limits(*(limits if len(limits) > 2 else (*limits, 10)))
    state, cause, reasons = shown(admission.judge(index, slots(text), full))
    assert (state, cause, "; ".join(reasons)) == expected


def test_the_place_in_the_queue_is_told_up_to_the_nineteenth() -> None:
    listed = [Slot(f"c{n}", "waiting") for n in range(30)]
    limits = Limits(1, 1, 10)
    assert admission.judge(19, listed, limits).text == "0 of 1 slots are taken and 19 eligible windows come first"
    assert admission.judge(20, listed, limits).text == "1 slots at most, and 20 or more eligible windows come first"


def test_limits_of_a_run_have_defaults_under_which_the_share_opens_nothing() -> None:
    """A share of all, and only once twenty have ended: ten failures of ten are for the number to judge."""
    assert admission.breaker(slots("a.f " * 30), Limits(9, 1, 31)) == ""
    assert admission.breaker(slots("a.f " * 19), Limits(9, 1, 31, 0.1)) == ""
    assert admission.breaker(slots("a.f " * 20), Limits(9, 1, 31, 0.1)) == (
        "20 of 20 ended windows failed, the limit is 10%"
    )
    # Windows that run or wait have not ended.
    assert admission.breaker(slots("a.f " * 19 + "a.r a.w a.c"), Limits(9, 1, 31, 0.1)) == ""


@pytest.mark.parametrize(
    ("text", "closed", "limits", "expected"),
    [
        (
            "a.f b.w", {1}, (2, 3, 1),
            ("failed", "breaker",
             "no further window is started: 1 window failed, the limit is 1; clear the failed ones, then this task"),
        ),
        ("a.r b.w", {1}, (2, 1, 9), ("ok", "", "the turn of a window that is not open has come")),
        ("a.r b.w", {1}, (1, 1, 9), ("ok", "", "0 windows before it wait, fewer than 1 (max_parallel)")),
        ("a.r a.r a.w b.w b.w", {3, 4}, (2, 3, 9),
         ("ok", "", "1 windows before it wait, fewer than 2 (max_parallel)")),
        (
            "a.r a.r a.w a.w b.w", {4}, (2, 3, 9),
            ("wait", "", "2 windows before it wait; it is opened when fewer than 2 (max_parallel) do"),
        ),
    ],
)  # fmt: skip
def test_what_is_said_of_a_batch_that_is_not_open(text: str, closed: set[int], limits: Any, expected: Any) -> None:
    state, cause, reasons = shown(admission.survey(slots(text), Limits(*limits)).judge_opening(closed))
    assert (state, cause, "; ".join(reasons)) == expected


def test_what_is_said_of_the_slot_for_a_job() -> None:
    works = [Work(f"w{n}", working=n < 4, waiting=n >= 4) for n in range(7)]
    assert shown(admission.judge_job(5, works, 6)) == ("ok", "", ("4 windows work, 1 come first, 6 may",))
    assert shown(admission.judge_job(6, works, 6)) == (
        "wait", "", ("4 of 6 windows work (w0, w1, w2) and 2 cleared ones come first",),
    )  # fmt: skip
    # What the window itself does is not held against it.
    assert shown(admission.judge_job(3, works, 4)) == ("ok", "", ("3 windows work, 0 come first, 4 may",))


# -- workflows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], ("failed", "too_few_workflows",
              ("the Job named no workflow and the query found none: nothing proves a reindex",))),
        ([Execution("w", "completed")], ("ok", "", ("1 workflows completed",))),
        ([Execution("w", "missing")], ("failed", "workflows_gone",
                                       ("w is not known to the server (retention, or never started)",))),
        ([Execution("w", "failed", run_id="r")], ("failed", "workflow_failed", ("w (run r) failed: no detail",))),
        (
            [Execution("v", "canceled", "q", cause="canceled"), Execution("x", "missing"),
             Execution("w", "terminated", "r", "by ops", "terminated")],
            ("failed", "canceled", ("v (run q) canceled: no detail", "w (run r) terminated: by ops")),
        ),
        (
            [Execution("v", "running", done=3, total=9), Execution("w", "unknown", note="status 11"),
             Execution("x", "paused", done=0, total=4), Execution("y", "running", done=1, total=0),
             Execution("z", "timed_out")],
            ("wait", "", ("4 of 5 workflows open", "v 3 of 9 conversations", "w unknown (status 11)",
                          "x 0 of 4 conversations (paused)", "y running", "1 failed already")),
        ),
    ],
)  # fmt: skip
def test_what_is_said_of_workflows(found: list[Execution], expected: Any) -> None:
    assert shown(workflows.judge([e.workflow_id for e in found], {e.workflow_id: e for e in found})) == expected


def test_five_open_workflows_are_shown_and_a_workflow_that_nobody_has_described_is_missing() -> None:
    many = [Execution(f"w{n}", "running") for n in range(7)]
    verdict = workflows.judge([e.workflow_id for e in many], {e.workflow_id: e for e in many})
    assert verdict.reasons == ("7 of 7 workflows open", *(f"w{n} running" for n in range(5)))
    assert workflows.judge(["gone"], {}).cause == "workflows_gone"


def test_progress_is_the_sum_over_the_workflows_that_say_so() -> None:
    said = [Execution("a", "running", done=2, total=5), Execution("b", "completed", done=0, total=7)]
    silent = [Execution("c", "running"), Execution("d", "running", done=4), Execution("e", "running", total=9)]
    assert workflows.progress([*said, *silent]) == (2, 12)
    assert workflows.progress(silent) == (None, None)
    assert workflows.progress([]) == (None, None)


IDS = started.Ids("p", "acme", ("voice", "chat"))
VOICE, CHAT = (f"p-acme-{name}-0b7f2a34-0000-4000-8000-000000000001" for name in IDS.profiles)


@pytest.mark.parametrize(
    ("by_log", "by_query", "waited", "expected"),
    [
        ([VOICE], [VOICE, CHAT], 0.0,
         ("ok", "", "2 workflows: the Job's log names 1, the query finds 2")),
        ([VOICE], [], 119.6,
         ("wait", "", "no workflow for profile chat yet: the Job's log names 1, the query finds 0; waiting 120 s for"
                      " more, 120 s have passed")),
        ([], [], -5.0,
         ("wait", "", "no workflow for profiles voice, chat yet: the Job's log names 0, the query finds 0; waiting"
                      " 120 s for more, 0 s have passed")),
        ([VOICE], [VOICE], 120.0,
         ("ok", "", "profile chat had no work: the Job's log names 1, the query finds 1, the same")),
        ([], [], 120.0,
         ("failed", "too_few_workflows", "no workflow for profiles voice, chat: the Job's log names 0, the query finds"
                                         " 0, nothing more appeared within 120 s")),
    ],
)  # fmt: skip
def test_what_is_said_of_workflows_that_are_looked_for(
    by_log: Any, by_query: Any, waited: float, expected: Any
) -> None:
    found = started.expected(by_log, by_query, IDS, waited=waited, settle=120.0).verdict
    assert (found.state, found.cause, found.text) == expected
