"""What the page says of a run, whole: headline, who, parameters, notes, and what each window waits for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from include.scorecard_backfill.overview import Overview, overview
from include.scorecard_backfill.overview.facts import Approval, DebtFact, RunFacts, Seen, TaskFact
from include.scorecard_backfill.overview.model import Attention, OverrideView, Who
from include.scorecard_backfill.planning.overrides import Override
from include.scorecard_backfill.verdicts.admission import Limits
from tests.unit.overview_fixtures import at, planned, run, window

TEN, REST = ("2026-01-01", "2026-01-11"), ("2026-01-11", "2026-02-01")


def look(facts: RunFacts, minutes: float = 30) -> Overview:
    return overview(facts, at(minutes))


# -- state, headline, who, parameters -------------------------------------------------------------------------------

ONE = [window(planned("acme"), 0, "deferred")]
TWO = [window(planned("acme", *TEN), 6), window(planned("globex"), 6, index=1)]
DRY = {"mode": "cleanup", "dry_run": True}


@pytest.mark.parametrize(
    ("facts", "state", "headline"),
    [
        (run([], plan_hash=None), "planning", "Preflight and plan are running; nothing has been deleted."),
        (run([], plan_hash=None, state="failed"), "refused", "Refused before anything was deleted."),
        (run([], plan_hash=None, state="success"), "refused", "Refused before anything was deleted."),
        (run(ONE, refusal="no"), "refused", "Refused before anything was deleted."),
        (run([]), "nothing to do", "The plan has no window: nothing was to be done."),
        (run(ONE, run=DRY), "dry run", "Dry run: 1 window of 1 customer was planned, nothing was changed."),
        (run(TWO, run=DRY), "dry run", "Dry run: 2 windows of 2 customers were planned, nothing was changed."),
        (run(TWO, approval=Approval(at(1), at(2), "", "Reject")), "rejected",
         "The plan of 2 windows of 2 customers was rejected; nothing was deleted."),
        (run(ONE, approval=Approval(at(1), at(2), "jane", "Reject")), "rejected",
         "The plan of 1 window of 1 customer was rejected by jane; nothing was deleted."),
        (run(ONE, approval=Approval(at(1))), "waiting for approval",
         "1 window of 1 customer waits for approval; nothing has been deleted."),
        (run(TWO, approval=Approval(at(1))), "waiting for approval",
         "2 windows of 2 customers wait for approval; nothing has been deleted."),
        (run(TWO, state="success"), "complete", "2 of 2 windows verified."),
        (run(ONE), "running", "0 of 1 window verified, 1 waiting."),
        (run([TWO[0], window(planned("globex"), 3, "failed", index=1)], state="failed"), "incomplete",
         "1 of 2 windows verified, 1 failed."),
        (run(ONE, state="failed"), "incomplete", "0 of 1 window verified, 1 not started."),
    ],
)  # fmt: skip
def test_the_state_of_a_run_and_its_headline(facts: RunFacts, state: str, headline: str) -> None:
    view = look(facts)
    assert (view.state, view.headline) == (state, headline)


def test_a_headline_counts_every_state() -> None:
    cut = planned("hooli", key="cut")
    windows = [
        window(planned("acme"), 6), window(planned("globex"), 2, "running", index=1),
        window(planned("wayne"), 0, "deferred", index=2), window(cut, 4, "failed", index=3),
        window(planned("stark"), 3, "failed", index=4), window(planned("umbrella"), 0, "skipped", index=5),
    ]  # fmt: skip
    part = window(planned("hooli", *TEN, part_of="cut"), 2, "running", group="smaller_windows")
    assert look(run(windows, [part])).headline == (
        "1 of 6 windows verified, 1 in work, 1 waiting, 1 cut smaller, 1 failed, 1 not started."
    )


@pytest.mark.parametrize(
    ("fields", "who"),
    [
        ({}, Who(asked_by="joe", asked_at=at(0), approval="approved", answered_by="jane", answered_at=at(9))),
        ({"approval": Approval(at(1), at(9), "jane", "Reject")},
         Who(asked_by="joe", asked_at=at(0), approval="rejected", answered_by="jane", answered_at=at(9))),
        ({"approval": Approval(at(1))}, Who(asked_by="joe", asked_at=at(0), approval="waiting")),
        ({"approval": Approval(at(1), at(9), "jane", "odd")},
         Who(asked_by="joe", asked_at=at(0), approval="waiting", answered_by="jane", answered_at=at(9))),
        ({"approval": None}, Who(asked_by="joe", asked_at=at(0), approval="not needed")),
        ({"approval": Approval()}, Who(asked_by="joe", asked_at=at(0), approval="not needed")),
        ({"approval": None, "tasks": {}}, Who(asked_by="joe", asked_at=at(0), approval="not reached")),
        ({"approval": None, "tasks": {"approve": TaskFact("failed")}, "queued": None, "started": at(3)},
         Who(asked_by="joe", asked_at=at(3), approval="not reached")),
        ({"asked_by": "", "run_type": "scheduled"},
         Who(asked_by="the schedule", asked_at=at(0), approval="approved", answered_by="jane", answered_at=at(9))),
        ({"asked_by": ""}, Who(asked_by="", asked_at=at(0), approval="approved", answered_by="jane",
                                    answered_at=at(9))),
    ],
)  # fmt: skip
def test_who_asked_and_who_approved(fields: Any, who: Who) -> None:
    assert look(run(ONE, **fields)).who == who


def test_parameters_are_shown_as_in_the_form_and_what_is_not_in_it_is_hidden() -> None:
    given = {
        "mode": "cleanup", "customers": ["acme", "globex"], "left_out": [], "dry_run": False, "overlap": True,
        "max_parallel": 3, "window": None, "sources": {"max_parallel": "form", "customers": "schedule"},
        "cluster": "east", "run_type": "manual", "run_after": "x", "destructive": True,
    }  # fmt: skip
    view = look(run(ONE, run=given))
    assert view.parameters == {
        "mode": "cleanup", "customers": "acme, globex (schedule)", "left_out": "none", "dry_run": "no",
        "overlap": "yes", "max_parallel": "3 (form)", "window": "as usual",
    }  # fmt: skip
    assert (view.mode, view.days) == ("cleanup", None)
    assert look(run(ONE, run={"sources": None, "mode": None})).parameters == {"mode": "as usual"}
    assert look(run(ONE, run={})).mode == ""
    assert look(run(ONE)).days == ("2026-01-01", "2026-02-01")
    for half in ({"start_date": "2026-01-01"}, {"end_date": "2026-02-01"}):
        assert look(run(ONE, run=half)).days is None


def test_what_is_known_of_the_run_itself() -> None:
    override = Override(author="jane", until=at(600), reason="deploy", max_parallel=4, windows_per_customer=2)
    limits = Limits(max_parallel=4, per_customer=2, max_failures=7)
    view = look(run(ONE, override=override, limits=limits, ended=at(20)), 25)
    assert (view.dag_id, view.run_id, view.cluster) == ("scorecard_backfill__east", "manual__1", "east")
    assert (view.made_at, view.started, view.ended) == (at(25), at(0), at(20))
    assert view.limits == {"max_parallel": 4, "per_customer": 2, "max_failures": 7}
    assert view.override == OverrideView(
        text="by jane until 2026-03-01T22:00+00:00: deploy", author="jane", until=at(600), pause=False, max_parallel=4,
        per_customer=2, reason="deploy",
    )  # fmt: skip


# -- notes ----------------------------------------------------------------------------------------------------------


def notes(facts: RunFacts) -> list[Attention]:
    return list(look(facts).attention)


def test_a_refusal_a_question_and_an_answer_are_notes() -> None:
    assert notes(run([], plan_hash=None, refusal="customers: 'x' is unknown.", approval=None)) == [
        Attention(kind="refused", level="act", what="customers: 'x' is unknown.",
                  todo="Nothing was deleted. Start a new run when it is right.")
    ]  # fmt: skip
    part = window(planned("acme", *TEN, key="p", part_of=TWO[0].window.key))
    assert notes(run([replace(w, tasks={}, results={}) for w in TWO], [part], approval=Approval(at(1)))) == [
        Attention(kind="approval", level="act", what="The plan waits for approval: 2 windows of 2 customers.",
                  todo="Read the plan below, then approve or reject it.", since=at(1), count=2)
    ]  # fmt: skip
    for who, said in (("jane", " by jane"), ("", "")):
        assert notes(run(ONE, approval=Approval(at(1), at(2), who, "Reject"))) == [
            Attention(kind="rejected", level="note", what=f"The plan was rejected{said}; nothing was deleted.",
                      since=at(2))
        ]  # fmt: skip


def test_what_failed_and_what_is_gone_are_notes_with_what_to_do() -> None:
    listed = [window(planned(f"c{n:02}"), 3, "failed", index=n) for n in range(12)]
    ten = tuple(f"c{n:02} 2026-01-01..2026-02-01" for n in range(10))
    limits = Limits(max_parallel=2, per_customer=1, max_failures=99)
    assert notes(run(listed, limits=limits, state="failed")) == [
        Attention(kind="failed", level="act", what="12 windows failed: heartbeat_timeout in reindex (12).",
                  todo="Read the reasons, correct what they name, then retry what failed.", since=at(13), count=12,
                  windows=ten),
        Attention(kind="gone", level="act",
                  what="Deleted, not yet reindexed: 12 windows; 12 of them with nobody at work.",
                  todo="Retry what failed: until then these customers lack the rows of these days.", since=at(11.5),
                  count=12, windows=ten),
    ]  # fmt: skip


def test_what_limits_a_run_is_a_note() -> None:
    held = Override(author="jane", until=at(600), reason="disk", pause=True)
    paused = Attention(kind="paused", level="act", what="Admission is paused by jane until 2026-03-01T22:00+00:00:"
                                                        " disk.",
                       todo="Resume when the reason is gone.")  # fmt: skip
    assert notes(run(ONE, override=held)) == [paused]
    assert notes(run(TWO, override=held, state="success")) == [paused.model_copy(update={"level": "note"})]
    more = Override(author="joe", until=at(600), max_parallel=3)
    assert notes(run(ONE, override=more)) == [
        Attention(kind="override", level="note", what="Other limits are in force by joe until 2026-03-01T22:00+00:00.")
    ]
    assert notes(run(ONE, override_error="until: is missing")) == [
        Attention(kind="override_error", level="act",
                  what="The cluster's override cannot be used, so nothing is started: until: is missing",
                  todo="Write it again with Pause, Resume or Change limit, or remove the Airflow Variable.")
    ]  # fmt: skip


def test_what_was_not_started_is_a_note() -> None:
    one = Limits(max_parallel=2, per_customer=1, max_failures=1)
    broken = window(planned("acme"), 1, "failed")
    waits = [window(planned(c), 0, "deferred", index=n) for n, c in enumerate(("globex", "hooli"), start=1)]

    def breaker(facts: RunFacts) -> list[Attention]:
        return [note for note in look(facts).attention if note.kind == "breaker"]

    assert breaker(run([broken, *waits], limits=one)) == [
        Attention(kind="breaker", level="act", what="No further window is started: 1 window failed, the limit is 1.",
                  todo="Correct the cause, then retry what failed.")
    ]  # fmt: skip
    assert breaker(run([broken, *waits], limits=one, state="failed")) == [
        Attention(kind="breaker", level="look",
                  what="2 of the windows were not started: 1 window failed, the limit is 1.",
                  todo="A retry starts them, too.")
    ]  # fmt: skip
    assert breaker(run([broken, waits[0]], limits=one, state="failed"))[0].what.startswith("1 of the windows was not")
    # Nobody was kept from starting.
    assert breaker(run([broken], limits=one, state="failed")) == []


def test_debts_are_notes() -> None:
    spoiled = DebtFact("k1", "x", "", "", None, problem="the debt of window k1 cannot be read: why")
    other = DebtFact("k2", "initech", "2025-11-01", "2025-12-01", at(-90), "manual__0")
    later = DebtFact("k3", "hooli", "2025-11-01", "2025-12-01", at(-10), "manual__0")
    mine = DebtFact(planned("acme").key, "acme", "2026-01-01", "2026-02-01", at(5))
    found = notes(run([window(planned("acme"), 6)], debts=[mine, later, spoiled, other]))
    assert found == [
        Attention(kind="debt", level="act", what="1 debt of this cluster cannot be read.",
                  todo="See `python -m backfill debts`, and the runbook on writing a debt off.", count=1,
                  windows=("the debt of window k1 cannot be read: why",)),
        Attention(kind="debt", level="act",
                  what="Other runs of this cluster left 2 windows deleted and not verified.",
                  todo="Start a run over these days: the plan takes them in.", since=at(-90), count=2,
                  windows=("hooli 2025-11-01..2025-12-01", "initech 2025-11-01..2025-12-01")),
    ]  # fmt: skip


def test_what_must_be_done_stands_before_what_is_worth_a_look() -> None:
    held = Override(author="jane", until=at(600), max_parallel=3)
    listed = [window(planned("acme"), 3, "running"), window(planned("globex"), 1, "failed", index=1)]
    found = notes(run(listed, override=held, debts=[DebtFact("k", "x", "a", "b", None)]))
    assert [(note.kind, note.level) for note in found] == [
        ("failed", "act"), ("debt", "act"), ("gone", "look"), ("override", "note"),
    ]  # fmt: skip


# -- the queue ------------------------------------------------------------------------------------------------------


def waiting(facts: RunFacts) -> list[tuple[str, str, int | None]]:
    return [(row.reason, row.blocker, row.place) for row in look(facts).windows if row.state == "waiting"]


def test_what_each_waiting_window_waits_for() -> None:
    listed = [
        window(planned("acme", *TEN), 2, "running"), window(planned("acme", *REST), 0, "deferred", index=1),
        window(planned("globex", *TEN), 0, "deferred", index=2), window(planned("globex", *REST), 0, None, index=3),
        window(planned("hooli"), 0, "deferred", index=4, seen={"admit": Seen("3 mutations are unfinished")}),
        window(planned("wayne"), 0, "deferred", index=5),
    ]  # fmt: skip
    limits = Limits(max_parallel=3, per_customer=1, max_failures=3)
    assert waiting(run(listed, limits=limits)) == [
        ("another window of acme comes first (1 at a time)", "acme 2026-01-01..2026-01-11", None),
        ("its turn has come; it starts at the next look", "", 1),
        ("another window of globex comes first (1 at a time)", "globex 2026-01-01..2026-01-11", None),
        ("3 mutations are unfinished", "", 2),
        ("1 of 3 slots are taken and 2 eligible windows come first", "", 3),
    ]


def test_what_holds_everybody_back_is_said_to_everybody_with_the_place() -> None:
    listed = [window(planned("acme", *TEN), 0, "deferred"), window(planned("acme", *REST), 0, "deferred", index=1)]
    for fields, said in (
        ({"approval": Approval(at(1))}, "the plan waits for approval"),
        ({"override_error": "why"}, "nothing is started while the cluster's override cannot be used: why"),
        ({"override": Override(author="jane", until=at(600), pause=True)},
         "paused by jane until 2026-03-01T22:00+00:00"),
    ):  # fmt: skip
        assert waiting(run(listed, **fields)) == [(said, "", 1), (said, "", None)]


def test_a_window_that_works_is_named_before_one_that_waits_and_the_first_of_them() -> None:
    listed = [
        window(planned("acme", *TEN), 0, "deferred"),
        window(planned("acme", "2026-02-01", "2026-02-11"), 1, "running", index=1),
        window(planned("acme", "2026-02-11", "2026-02-21"), 1, "running", index=2),
    ]  # fmt: skip
    limits = Limits(max_parallel=9, per_customer=2, max_failures=3)
    ((_, blocker, place),) = waiting(run(listed, limits=limits))
    assert (blocker, place) == ("acme 2026-02-01..2026-02-11", None)


def test_the_breaker_is_the_reason_of_each_waiting_window() -> None:
    listed = [window(planned("acme"), 1, "failed"), window(planned("globex"), 0, "deferred", index=1)]
    limits = Limits(max_parallel=9, per_customer=2, max_failures=1)
    assert waiting(run(listed, limits=limits)) == [
        (
            "no further window is started: 1 window failed, the limit is 1; clear the failed ones, then this one",
            "",
            None,
        )
    ]
