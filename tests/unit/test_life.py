"""The life of a window: each line of the table by an example, and what no combination of facts may come to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest

from include.scorecard_backfill.life import (
    TABLE,
    Action,
    Facts,
    Step,
    asked,
    lines,
    next_step,
    values_of,
)
from include.scorecard_backfill.records import STAGES, Stage
from include.scorecard_backfill.verdicts.causes import ANY, CAUSES, cause_of

GOOD: dict[str, Any] = {"sent": "none", "seen": "nothing"}
DONE: dict[str, Any] = {"sent": "taken", "seen": "done"}
SWEEP: dict[str, Any] = {**GOOD, "order": "reindex_first", "bounded": True, "written": True, "attempt": 1}
DEAD: dict[str, Any] = {"sent": "taken", "seen": "dead", "generation": 1}
LOST: dict[str, Any] = {"sent": "maybe", "seen": "nothing", "generation": 1}
GONE: dict[str, Any] = {"sent": "taken", "seen": "nothing", "generation": 1}
LEFT: dict[str, Any] = {**DONE, "rows": "left", "generation": 1}
NEW: dict[str, Any] = {"written": True, "bounded": False}
SWEPT: dict[str, Any] = {"written": True, "bounded": True}
CLEARED: dict[str, Any] = {"left": "delete"}
AGAIN: dict[str, Any] = {"left": "reindex", "attempt": 1}

Example = tuple[int, Stage, dict[str, Any], Action, str, int]
EXAMPLES: tuple[Example, ...] = (
    # number of the line, stage, facts, what must be done, its cause, its number
    (0, "reindex", {"settled": "verified", "job": "none", "others": "quiet"}, "nothing", "", 0),
    (1, "verify", {"settled": "cut", "balance": "wrong"}, "nothing", "", 0),
    (2, "admit", {}, "wait", "", 0),
    (3, "delete", {**GOOD, "destructive": False}, "nothing", "", 0),
    (4, "delete", {**GOOD, "rows_before": False}, "nothing", "", 0),
    (5, "delete", {**GOOD, "approval": "changed"}, "fail", "approval_changed", 0),
    (6, "delete", {"sent": "taken", "seen": "unfinished"}, "done", "", 0),
    (7, "delete", {"sent": "maybe", "seen": "unknown"}, "wait", "", 0),
    (7, "wait_mutations", {"sent": "taken", "seen": "unknown"}, "wait", "", 0),
    (8, "delete", {"sent": "maybe", "seen": "queued"}, "done", "", 0),
    (9, "wait_mutations", {**DEAD, **CLEARED, "approval": "changed"}, "fail", "approval_changed", 0),
    (10, "delete", {**DEAD, **CLEARED}, "resend", "", 2),
    (10, "wait_mutations", {**DEAD, **CLEARED, "generation": 4}, "resend", "", 5),
    (11, "delete", {**DEAD, **CLEARED, **SWEPT}, "resend", "", 2),
    (12, "wait_mutations", {**DEAD, **CLEARED, **NEW}, "fail", "would_delete_new_rows", 0),
    (12, "wait_mutations", {**DEAD, "left": "never", **NEW}, "fail", "would_delete_new_rows", 0),
    (13, "delete", DEAD, "fail", "killed", 0),
    (13, "wait_mutations", {**DEAD, "left": "look"}, "fail", "killed", 0),
    (14, "delete", {**LOST, **CLEARED}, "resend", "", 2),
    (15, "delete", {**LOST, **CLEARED, **SWEPT}, "resend", "", 2),
    (16, "delete", {**LOST, **CLEARED, **NEW}, "fail", "would_delete_new_rows", 0),
    (17, "delete", LOST, "fail", "delete_unknown", 0),
    (18, "delete", {**SWEEP, "balance": "unknown"}, "wait", "", 0),
    (19, "delete", {**SWEEP, "balance": "wrong"}, "fail", "not_rewritten", 0),
    (20, "delete", {**GOOD, **NEW}, "fail", "would_delete_new_rows", 0),
    (21, "delete", GOOD, "send", "", 1),
    (21, "delete", {**SWEEP, "balance": "ok"}, "send", "", 1),
    (22, "wait_mutations", GOOD, "nothing", "", 0),
    (23, "wait_mutations", {"sent": "taken", "seen": "unfinished", "overlap": True}, "done", "", 0),
    (24, "wait_mutations", {"sent": "taken", "seen": "queued", "overlap": True}, "wait", "", 0),
    (24, "wait_mutations", {"sent": "taken", "seen": "unfinished"}, "wait", "", 0),
    (25, "wait_mutations", {**GONE, **CLEARED, "approval": "changed"}, "fail", "approval_changed", 0),
    (26, "wait_mutations", {**GONE, **CLEARED}, "resend", "", 2),
    (27, "wait_mutations", {**GONE, **CLEARED, **SWEPT}, "resend", "", 2),
    (28, "wait_mutations", {**GONE, **CLEARED, **NEW}, "fail", "would_delete_new_rows", 0),
    (29, "wait_mutations", GONE, "fail", "not_picked_up", 0),
    (30, "wait_mutations", {**DONE, "rows": "unknown"}, "wait", "", 0),
    (31, "wait_mutations", {**DONE, "rows": "gone"}, "done", "", 0),
    (32, "wait_mutations", {**LEFT, **CLEARED, "approval": "changed"}, "fail", "approval_changed", 0),
    (33, "wait_mutations", {**LEFT, **CLEARED}, "resend", "", 2),
    (34, "wait_mutations", {**LEFT, **CLEARED, **SWEPT}, "resend", "", 2),
    (35, "wait_mutations", {**LEFT, **CLEARED, **NEW}, "fail", "would_delete_new_rows", 0),
    (36, "wait_mutations", LEFT, "fail", "rows_left", 0),
    (37, "reindex", {"job": "unknown", "others": "quiet"}, "wait", "", 0),
    (38, "reindex", {"job": "several", "others": "quiet"}, "fail", "two_live_jobs", 0),
    (39, "reindex", {"job": "live", "judged": True, "others": "busy"}, "adopt", "", 0),
    (40, "reindex", {"job": "failed", "judged": False, "others": "quiet"}, "adopt", "", 0),
    (41, "reindex", {"job": "none", "others": "quiet"}, "make", "", 1),
    (41, "reindex", {"job": "failed", "judged": True, "others": "quiet", "attempt": 3}, "make", "", 4),
    (42, "reindex", {"job": "none", "others": "busy"}, "wait", "", 0),
    (43, "wait_workflows", {"workflows": "open", **AGAIN, "others": "quiet"}, "wait", "", 0),
    (44, "wait_workflows", {"workflows": "completed", **AGAIN}, "done", "", 0),
    (45, "wait_workflows", {"workflows": "failed", **AGAIN, "others": "quiet"}, "make", "", 2),
    (46, "wait_workflows", {"workflows": "failed", **AGAIN, "others": "unknown"}, "wait", "", 0),
    (47, "wait_workflows", {"workflows": "failed"}, "fail", "workflow_failed", 0),
    (48, "wait_workflows", {"workflows": "none"}, "fail", "too_few_workflows", 0),
    (49, "verify", {"seen": "dead", "balance": "ok", "rows": "gone"}, "fail", "killed_late", 0),
    (50, "verify", {"seen": "unfinished", "balance": "ok", "rows": "gone"}, "wait", "", 0),
    (51, "verify", {"seen": "done", "balance": "unknown"}, "wait", "", 0),
    (52, "verify", {"seen": "done", "balance": "ok", "rows": "gone"}, "done", "", 0),
    (53, "verify", {"seen": "done", "balance": "ok", "rows": "unknown"}, "wait", "", 0),
    (54, "verify", {"seen": "done", "balance": "ok", "rows": "left", **AGAIN, "others": "quiet"}, "make", "", 2),
    (55, "verify", {"seen": "done", "balance": "ok", "rows": "left", **AGAIN, "others": "busy"}, "wait", "", 0),
    (56, "verify", {"seen": "done", "balance": "ok", "rows": "left"}, "fail", "stale_rows", 0),
    (57, "verify", {"seen": "done", "balance": "wrong", "rows": "gone", **AGAIN, "others": "quiet"}, "make", "", 2),
    (58, "verify", {"seen": "done", "balance": "wrong", "rows": "gone", **AGAIN}, "wait", "", 0),
    (59, "verify", {"seen": "done", "balance": "wrong", "rows": "unknown"}, "fail", "lost_rows", 0),
)


def line_of(stage: Stage, facts: Facts) -> int:
    """Number of the line that decides."""
    return next(number for number, row in enumerate(TABLE) if row.fits(stage, facts))


@pytest.mark.parametrize(("number", "stage", "facts", "action", "cause", "counted"), EXAMPLES)
def test_each_line_by_an_example(
    number: int, stage: Stage, facts: dict[str, Any], action: Action, cause: str, counted: int
) -> None:
    found = Facts(**facts)
    assert line_of(stage, found) == number
    assert next_step(stage, found) == Step(action, TABLE[number].why, cause, counted)


def test_every_line_has_an_example() -> None:
    assert sorted({number for number, *_ in EXAMPLES}) == list(range(len(TABLE)))


def combinations(stage: Stage, **fixed: Any) -> Iterator[Facts]:
    """Every combination of the facts that the stage looks at."""
    names = [name for name in asked(stage) if name not in fixed]
    for values in itertools.product(*(values_of(name) for name in names)):
        found: dict[str, Any] = dict(zip(names, values, strict=True))
        yield Facts(**found, **fixed, generation=1, attempt=1)


STEPS: dict[Stage, list[tuple[Facts, Step]]] = {
    stage: [(facts, next_step(stage, facts)) for facts in combinations(stage, settled="")] for stage in STAGES
}
"""What is done under every combination: nothing is left undecided, or this would raise LookupError."""

EVERY = [(stage, facts, step) for stage, listed in STEPS.items() for facts, step in listed]


def test_the_walk_knows_every_fact_and_every_value() -> None:
    assert {name for stage in STAGES for name in asked(stage)} >= set(Facts.__slots__) - {"generation", "attempt"}
    for name in Facts.__slots__:
        if name not in ("generation", "attempt"):
            assert getattr(Facts(), name) in values_of(name)
    for row in TABLE:
        assert set(row.stages) <= set(STAGES)
        assert row.action in get_args(Action)
        for name, values in row.when.items():
            assert set(values) <= set(values_of(name)), (row.why, name)


def test_what_is_settled_is_left_alone_whatever_else_is_seen() -> None:
    for stage in STAGES:
        for settled in ("verified", "cut"):
            # Facts that only lines of a window at work look at do not matter: the first two lines decide.
            for facts in itertools.islice(combinations(stage, settled=settled), 500):
                assert next_step(stage, facts).action == "nothing"
    assert [(row.stages, dict(row.when)) for row in TABLE[:2]] == [
        (STAGES, {"settled": ("verified",)}),
        (STAGES, {"settled": ("cut",)}),
    ]


def test_every_line_decides_some_combination() -> None:
    used = {line_of(stage, facts) for stage, facts, _ in EVERY} | {0, 1}
    assert sorted(used) == list(range(len(TABLE)))


def test_no_delete_is_sent_while_one_may_be_in_flight() -> None:
    for stage, facts, step in EVERY:
        if step.action == "send":
            assert (facts.sent, facts.seen) == ("none", "nothing"), (stage, facts)
        if step.action == "resend":
            assert facts.seen == "dead" or (facts.seen == "nothing") or (facts.seen, facts.rows) == ("done", "left")


def test_no_delete_is_repeated_without_a_clear_of_a_failure_that_says_so() -> None:
    for stage, facts, step in EVERY:
        if step.action == "resend":
            assert facts.left == "delete", (stage, facts)
            assert stage in ("delete", "wait_mutations")


def test_no_delete_can_take_rows_that_were_written_since() -> None:
    for stage, facts, step in EVERY:
        if step.action in ("send", "resend"):
            assert not facts.written or facts.bounded, (stage, facts)


def test_nothing_is_deleted_that_is_not_approved_or_not_asked_for() -> None:
    for stage, facts, step in EVERY:
        if step.action in ("send", "resend"):
            assert facts.approval == "same", (stage, facts)
            assert facts.destructive, (stage, facts)


def test_no_sweep_before_the_balance() -> None:
    for facts, step in STEPS["delete"]:
        if step.action == "send" and facts.order == "reindex_first":
            assert facts.balance == "ok"


def test_no_job_is_made_beside_another_one() -> None:
    for stage, facts, step in EVERY:
        if step.action == "make":
            assert facts.others == "quiet", (stage, facts)
            assert stage != "reindex" or facts.job in ("none", "complete", "failed")
        if step.action == "make" and stage in ("wait_workflows", "verify", "delete"):
            # These make one only after a clear: the first attempt is the reindex stage's.
            assert facts.left == "reindex", (stage, facts)
        if step.action == "make" and stage == "wait_workflows":
            assert facts.workflows in ("failed", "none")


def _proven(stage: Stage, facts: Facts) -> bool:
    """What a stage that ends well must know."""
    if stage in ("delete", "wait_mutations"):
        nothing_to_delete = not facts.destructive or (
            (not facts.rows_before or stage == "wait_mutations") and (facts.sent, facts.seen) == ("none", "nothing")
        )
        if nothing_to_delete:
            return True
    if stage == "delete":
        return facts.sent == "taken" or facts.seen in ("queued", "unfinished", "done")
    if stage == "wait_mutations":
        late = facts.overlap and facts.seen in ("unfinished", "done")
        return late or (facts.seen, facts.rows) == ("done", "gone")
    if stage == "wait_workflows":
        return facts.workflows == "completed"
    return stage == "verify" and (facts.balance, facts.rows) == ("ok", "gone") and facts.seen in ("done", "nothing")


def test_nothing_ends_well_unproven() -> None:
    for stage, facts, step in EVERY:
        if step.action in ("done", "nothing"):
            assert _proven(stage, facts), (stage, facts, step)


def test_what_is_unknown_is_never_acted_on() -> None:
    for stage, facts, step in EVERY:
        if step.action in ("send", "resend"):
            assert facts.seen != "unknown", (stage, facts)
        if step.action == "resend":
            assert facts.seen != "done" or facts.rows == "left", (stage, facts)
        if step.action == "make" and stage in ("delete", "verify"):
            assert facts.balance == "wrong" or facts.rows == "left", (stage, facts)


MENDED: dict[str, dict[str, Any]] = {
    # What a person does before the clear when the table of causes says "look" or "never", as facts.
    "approval_changed": {"approval": "same"},
    "two_live_jobs": {"job": "live"},
    "killed_late": {"seen": "done"},
    "not_rewritten": {"balance": "ok"},
}
NEW_RUN = {"would_delete_new_rows"}
"""Only a new run, with its own plan and approval, may take these rows: a clear must not."""


def test_no_failure_without_a_way_out_by_a_clear() -> None:
    for stage, facts, step in EVERY:
        if step.action != "fail" or step.cause in NEW_RUN:
            continue
        seen: list[str] = []
        now, at = step, facts
        while now.action == "fail" and now.cause not in NEW_RUN:
            assert len(seen) < 3, (stage, facts, seen)
            seen.append(now.cause)
            repeat = cause_of(now.cause).repeat
            assert repeat != "look" or now.cause in MENDED, now.cause
            at = replace(at, **{"approval": "same", "others": "quiet", "left": repeat, **MENDED.get(now.cause, {})})
            now = next_step(stage, at)
        if now.action == "fail":
            # A new run: only where rows that were written since could be taken.
            assert (at.written, at.bounded) == (True, False), (stage, facts, seen)


def test_a_refusal_to_take_new_rows_stays_one_however_often_it_is_cleared() -> None:
    for stage, facts, step in EVERY:
        if step.cause == "would_delete_new_rows":
            again = next_step(stage, replace(facts, left=cause_of(step.cause).repeat))
            assert again.action == "fail"
            assert again.cause in ("would_delete_new_rows", "approval_changed")


def test_the_causes_of_the_table_are_known_and_belong_to_their_stage() -> None:
    for row in TABLE:
        assert bool(row.cause) == (row.action == "fail")
        if row.cause:
            found = CAUSES[row.cause].stages
            assert found == ANY or set(row.stages) <= set(found), row.cause


def test_the_lines_as_text_are_all_there() -> None:
    shown = lines()
    assert len(shown) == len(TABLE)
    assert shown[0].stage == "every stage"
    assert shown[0].when == "settled = verified"
    assert (shown[2].stage, shown[2].when) == ("admit", "always")
    assert shown[3].when == "destructive = no"
    assert all("|" not in text for line in shown for text in (line.stage, line.when, line.action, line.why))


def test_what_no_line_decides_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("include.scorecard_backfill.life.TABLE", TABLE[:2])
    with pytest.raises(LookupError, match="verify: no line of the table fits"):
        next_step("verify", Facts())
