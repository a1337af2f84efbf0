"""What a row says of itself and what is added up of many: reasons, since when, progress, notes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from include.scorecard_backfill.overview import overview
from include.scorecard_backfill.overview.facts import DebtFact, Result, RunFacts, Seen, TaskFact
from include.scorecard_backfill.overview.model import Attention, Numbers, Overview, WindowRow
from include.scorecard_backfill.overview.rows import NO_RECORD, sum_numbers
from include.scorecard_backfill.planning.learned import Customer
from include.scorecard_backfill.planning.overrides import Override
from tests.unit.overview_fixtures import NOON, STAGES, at, planned, run, window


def row(facts: RunFacts) -> WindowRow:
    """The row of a run's only window."""
    (found,) = overview(facts, at(30)).windows
    return found


def note(view: Overview, kind: str) -> Attention:
    """The one note of this kind."""
    (found,) = [one for one in view.attention if one.kind == kind]
    return found


def test_a_failure_says_its_own_reason_cause_and_remedy() -> None:
    told = Result("acme-2026-01-01-2026-02-01", "failed", "killed", "somebody killed it", "clear it")
    found = row(run([window(planned("acme"), 2, "failed", results={"wait_mutations": told})], state="failed"))
    assert (found.reason, found.cause, found.todo) == ("somebody killed it", "killed", "clear it")


@pytest.mark.parametrize("left", [Result(), Result("another-window", "failed", "killed", "not ours", "no"),
                                  Result("acme-2026-01-01-2026-02-01", "deleted", reason="all is well")])  # fmt: skip
def test_a_failure_without_a_record_of_its_own_says_so(left: Result) -> None:
    found = row(run([window(planned("acme"), 2, "failed", results={"wait_mutations": left})], state="failed"))
    assert (found.reason, found.cause, found.todo) == (NO_RECORD, "", "")


def test_a_window_that_was_not_started_has_no_reason_of_its_own() -> None:
    found = row(run([window(planned("acme"), 0, "failed", results={"admit": Result()})], state="failed"))
    assert (found.state, found.reason) == ("not_started", "")


def test_a_stage_at_work_says_what_its_wait_saw_and_nothing_of_others() -> None:
    seen = {"wait_mutations": Seen("2 hosts work"), "verify": Seen("not yet")}
    assert row(run([window(planned("acme"), 2, "deferred", seen=seen)])).reason == "2 hosts work"
    assert row(run([window(planned("acme"), 3, "running", seen=seen)])).reason == ""


@pytest.mark.parametrize(
    ("done", "seen", "percent"),
    [
        (3, Seen("", done=50, total=100), None),
        (4, Seen("", done=50, total=100), 50),
        (5, Seen("", done=100, total=100), 100),
        (4, Seen("", done=1, total=3), 33),
        (4, Seen("", done=0, total=3), 0),
        (4, Seen("", done=300, total=100), 100),
        (4, Seen("", done=-1, total=100), 0),
        (4, Seen("", done=5, total=0), None),
        (4, Seen("", done=None, total=100), None),
        (4, Seen("", done=5, total=None), None),
        (4, None, None),
    ],
)
def test_progress_is_that_of_the_workflows(done: int, seen: Seen | None, percent: int | None) -> None:
    told = {} if seen is None else {"wait_workflows": seen}
    assert row(run([window(planned("acme"), done, "deferred", seen=told)])).percent == percent


@pytest.mark.parametrize(
    ("tasks", "fields", "since"),
    [
        ({"admit": TaskFact("success", at(10), at(11)), "delete": TaskFact("running", at(15))}, {}, at(15)),
        ({"admit": TaskFact("success", at(10), at(11)), "delete": TaskFact("queued")}, {}, at(11)),
        ({"admit": TaskFact("success"), "delete": TaskFact("queued")}, {}, at(9)),
        ({"admit": TaskFact("success"), "delete": TaskFact("queued")}, {"approval": None}, at(0)),
        ({"admit": TaskFact("scheduled")}, {}, at(9)),
        ({"admit": TaskFact("scheduled")}, {"approval": None, "started": None}, None),
    ],
)
def test_since_when_is_the_nearest_moment_that_is_known(tasks: Any, fields: Any, since: Any) -> None:
    bare = window(planned("acme"))
    facts = run([type(bare)(bare.window, "windows", 0, tasks)], **fields)
    assert row(facts).since == since


def test_a_window_that_was_cut_is_as_far_as_its_parts_by_their_conversations() -> None:
    whole = planned("acme", key="whole")
    first = planned("acme", "2026-01-01", "2026-01-11", part_of="whole", conversations=300)
    second = planned("acme", "2026-01-11", "2026-02-01", part_of="whole", conversations=100)
    half = {"wait_workflows": Seen("", done=50, total=100)}
    parts = [window(first, 6), window(second, 4, "deferred", index=1, seen=half)]
    view = overview(run([window(whole, 4, "failed")], parts), at(30))
    assert (view.windows[0].state, view.windows[0].percent) == ("cut", 87)
    assert view.figures.conversations == 400
    # 300 of the part that is verified, half of the other one.
    assert view.figures.conversations_done == 350
    assert view.counts.planned == 1


def test_rows_of_other_states_are_not_removed_and_a_figure_is_known_where_some_row_knows_it() -> None:
    known = [{"score": Numbers(before=3)}, {"score": Numbers(before=4, removed=2)}, {"cards": Numbers()}]
    assert sum_numbers(known) == {"cards": Numbers(), "score": Numbers(before=7, removed=2)}
    listed = [window(planned("acme"), 6), window(planned("globex"), 5, "deferred", index=1)]
    view = overview(run(listed), at(30))
    assert view.figures.removed == {"scorecard": 10}
    assert view.windows[1].tables == {"scorecard": Numbers(before=100)}


def test_the_pace_is_what_is_done_by_the_minutes_since_the_first_admission() -> None:
    seen = {"wait_workflows": Seen("", done=25, total=100)}
    listed = [window(planned("acme"), 6), window(planned("globex"), 4, "deferred", index=1, seen=seen)]
    view = overview(run(listed), at(36))
    # 1,250 conversations in 25 minutes.
    assert (view.figures.conversations_done, view.figures.per_minute, view.figures.percent) == (1_250, 50.0, 50)
    idle = overview(run([window(planned("acme"), 0, "deferred")]), at(36)).figures
    assert (idle.per_minute, idle.percent) == (None, 0)


def test_on_what_the_time_left_rests_is_said() -> None:
    waiting = [window(planned("acme"), 0, "deferred"), window(planned("globex"), 0, "deferred", index=1)]
    learned = {"acme": Customer(per_minute=100.0), "globex": Customer()}
    found = overview(run(waiting, learned=learned), at(30)).figures
    assert found.left_note == "speed known of 1 of 2 customers, 2 windows at once"
    paused = Override(author="jane", until=at(300), reason="deploy", pause=True)
    assert overview(run(waiting, override=paused), at(30)).figures.left_note == (
        "from the moment at which it is resumed; speed known of 0 of 2 customers, 2 windows at once"
    )
    over = overview(run([window(planned("acme"), 6)]), at(30)).figures
    assert (over.left, over.left_note) == (None, "nothing is left to be done")


def test_what_windows_took_besides_their_workflows_is_added() -> None:
    learned = {name: Customer(per_minute=100.0) for name in ("acme", "globex")}
    done = window(planned("acme"), 6)
    left = overview(
        run([done, window(planned("globex"), 0, "deferred", index=1)], learned=learned), at(30)
    ).figures.left
    assert left is not None
    # 10 minutes by its speed, and the 4 that the other one took from its admission to its end without its workflow.
    assert left.high_minutes == 21
    assert left.low_minutes == 14


def test_failed_windows_are_counted_by_cause_the_most_frequent_first() -> None:
    def failed(customer: str, index: int, cause: str, stage: int) -> Any:
        what = planned(customer)
        told = {STAGES[stage]: Result(what.key, "failed", cause, "why")}
        return window(what, stage, "failed", index=index, results=told)

    listed = [failed("acme", 0, "killed", 2), failed("globex", 1, "lost_rows", 5), failed("hooli", 2, "lost_rows", 5),
              failed("initech", 3, "", 3)]  # fmt: skip
    found = note(overview(run(listed, state="failed"), at(30)), "failed")
    assert found.what == (
        "4 windows failed: lost_rows in verify (2), killed in wait_mutations, unknown cause in reindex."
    )
    assert (found.count, found.level, found.since) == (4, "act", at(12))
    assert found.windows == tuple(w.window.label for w in listed)


def test_what_is_gone_is_urgent_only_where_nobody_works_on_it() -> None:
    working = window(planned("acme"), 3, "running")
    view = overview(run([working]), at(30))
    found = note(view, "gone")
    assert found.what == "Deleted, not yet reindexed: 1 window; all of them are being worked on."
    assert (found.level, found.todo, found.since, found.count) == ("look", "", at(11.5), 1)
    stuck = note(overview(run([working, window(planned("globex"), 3, "failed", index=1)]), at(30)), "gone")
    assert stuck.what == "Deleted, not yet reindexed: 2 windows; 1 of them with nobody at work."
    assert (stuck.level, stuck.windows) == ("act", ("globex 2026-01-01..2026-02-01",))
    assert stuck.todo


def test_debts_of_other_runs_are_named_with_the_oldest() -> None:
    def debt(key: str, customer: str, since: datetime | None = None) -> DebtFact:
        return DebtFact(key, customer, "2026-01-01", "2026-02-01", since)

    listed = [debt("w1", "globex", at(5)), debt("w2", "hooli", NOON), debt("w3", "stark"),
              debt("acme-2026-01-01-2026-02-01", "acme", NOON)]  # fmt: skip
    found = note(overview(run([window(planned("acme"), 3, "running")], debts=tuple(listed)), at(30)), "debt")
    assert found.what == "Other runs of this cluster left 3 windows deleted and not verified."
    assert (found.count, found.since, found.windows, found.level) == (
        3, NOON, tuple(f"{name} 2026-01-01..2026-02-01" for name in ("globex", "hooli", "stark")), "act",
    )  # fmt: skip
