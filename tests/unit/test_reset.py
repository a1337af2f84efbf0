"""Which windows a reset does again, and which it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from include.scorecard_backfill.overview.act import RetryError
from include.scorecard_backfill.overview.facts import Approval, TaskFact
from include.scorecard_backfill.overview.reset import reset_tasks
from tests.unit.overview_fixtures import STAGES, at, planned, run, window

JANUARY, FEBRUARY = ("2026-01-01", "2026-02-01"), ("2026-02-01", "2026-03-01")


def test_a_failed_window_is_done_again_from_its_first_stage_and_the_report_with_it() -> None:
    failed = window(planned("acme"), done=4, now="failed", index=0)
    other = window(planned("globex"), done=4, now="failed", index=1)
    found = reset_tasks(run([failed, other], tasks={"report": TaskFact("failed")}), "acme")

    assert found.windows == (("acme-2026-01-01-2026-02-01", "acme 2026-01-01..2026-02-01"),)
    assert found.places == (*((f"windows.{stage}", 0) for stage in STAGES), ("report", -1))


def test_a_report_that_has_not_begun_is_not_cleared() -> None:
    found = reset_tasks(run([window(planned("acme"), done=1, now="failed")], tasks={"report": TaskFact(None)}), "acme")

    assert ("report", -1) not in found.places


def test_verified_working_and_unbegun_windows_are_left_alone_each_with_its_reason() -> None:
    facts = run(
        [
            window(planned("acme", *JANUARY), done=6, index=0),
            window(planned("acme", *FEBRUARY), done=3, now="deferred", index=1),
            window(planned("acme", "2026-03-01", "2026-04-01"), done=0, index=2),
            window(planned("acme", "2026-04-01", "2026-05-01"), done=4, now="failed", index=3),
        ]
    )
    found = reset_tasks(facts, "acme")

    assert [label for _, label in found.windows] == ["acme 2026-04-01..2026-05-01"]
    assert {index for _, index in found.places} == {3}
    assert [(label, why.split(";")[0]) for label, why in found.left] == [
        ("acme 2026-01-01..2026-02-01", "verified"),
        ("acme 2026-02-01..2026-03-01", "in work or waiting"),
        ("acme 2026-03-01..2026-04-01", "not begun"),
    ]


def test_a_window_whose_stages_somebody_has_marked_as_success_is_not_verified_and_can_be_reset() -> None:
    marked = window(planned("acme"), done=6)
    marked = replace(marked, results={"delete": marked.results["delete"]})
    found = reset_tasks(run([marked], state="failed"), "acme")

    assert [label for _, label in found.windows] == ["acme 2026-01-01..2026-02-01"]
    assert {task for task, _ in found.places} == {f"windows.{stage}" for stage in STAGES}


@pytest.mark.parametrize(
    ("day", "start"), [("2026-01-31", "2026-01-01"), ("2026-02-01", "2026-02-01"), ("2026-02-28", "2026-02-01")]
)
def test_a_day_means_the_window_that_holds_it_the_end_being_exclusive(day: str, start: str) -> None:
    facts = run(
        [window(planned("acme", *days), done=1, now="failed", index=i) for i, days in enumerate([JANUARY, FEBRUARY])]
    )
    found = reset_tasks(facts, "acme", date.fromisoformat(day))

    assert [key for key, _ in found.windows] == [f"acme-{start}-{'2026-02-01' if start < '2026-02' else '2026-03-01'}"]


def test_the_parts_of_a_window_that_was_cut_are_reset_and_not_the_window() -> None:
    whole = window(planned("acme", key="w"), done=4, now="failed")
    part = window(planned("acme", "2026-01-11", "2026-01-21", key="p", part_of="w"), done=4, now="failed",
                  group="smaller_windows")  # fmt: skip
    found = reset_tasks(run([whole], [part]), "acme")

    assert [key for key, _ in found.windows] == ["p"]
    assert {task for task, _ in found.places} == {f"smaller_windows.{stage}" for stage in STAGES}
    assert found.left == (("acme 2026-01-01..2026-02-01", "was cut smaller; its parts do its work"),)


def test_only_what_was_shown_is_cleared_and_what_changed_since_is_refused() -> None:
    failed = [
        window(planned("acme", *days), done=1, now="failed", index=i) for i, days in enumerate([JANUARY, FEBRUARY])
    ]
    found = reset_tasks(run(failed), "acme", keys=[failed[1].window.key])
    assert {index for _, index in found.places} == {1}

    going = [failed[0], window(planned("acme", *FEBRUARY), done=1, now="running", index=1)]
    with pytest.raises(RetryError, match="1 of the windows that were shown"):
        reset_tasks(run(going), "acme", keys=[failed[0].window.key, failed[1].window.key])


def test_what_cannot_be_reset_says_why() -> None:
    facts = run([window(planned("acme"), done=6)])
    with pytest.raises(RetryError, match=r"No window of acme can be reset: acme 2026-01-01\.\.2026-02-01: verified"):
        reset_tasks(facts, "acme")
    with pytest.raises(RetryError, match="no window of hooli"):
        reset_tasks(facts, "hooli")
    with pytest.raises(RetryError, match="no window of acme that holds 2026-02-01"):
        reset_tasks(facts, "acme", date(2026, 2, 1))
    with pytest.raises(RetryError, match="dry run"):
        reset_tasks(replace(facts, run={"dry_run": True}), "acme")
    with pytest.raises(RetryError, match="rejected"):
        reset_tasks(replace(facts, approval=Approval(at(1), at(2), "jane", "Reject")), "acme")
