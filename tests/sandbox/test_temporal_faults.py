"""Which fault applies: pure decisions on rules, limits and requests."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.data.generate import day_ms
from sandbox.reindexer.faultfile import FaultFile
from sandbox.reindexer.faults import (
    FAILURES,
    JOB_KINDS,
    MODIFIERS,
    FaultFileError,
    FaultSet,
    Kind,
    Limits,
    Request,
    Rule,
    deadlocks,
    decide,
    decide_job,
    is_dropped,
    matches,
    parse_faults,
    used_by_others,
)

JANUARY = Request("acme", "voice", day_ms(date(2026, 1, 1)), day_ms(date(2026, 2, 1)), 120)
NO_LIMITS = Limits()


def test_no_rules_and_no_limits_change_nothing() -> None:
    directive = decide(JANUARY, FaultSet(), {}, NO_LIMITS)
    assert (directive.failure, directive.hold_rule, directive.drop_share, directive.fired) == (
        "",
        "",
        0.0,
        [],
    )


def test_every_kind_belongs_to_exactly_one_group() -> None:
    groups = [FAILURES, MODIFIERS, JOB_KINDS]
    assert sorted(kind for group in groups for kind in group) == sorted(Kind)


@pytest.mark.parametrize(
    ("rule", "hit"),
    [
        (Rule("r", Kind.FAIL), True),
        (Rule("r", Kind.FAIL, customer="acme"), True),
        (Rule("r", Kind.FAIL, customer="acme-sandbox"), False),
        (Rule("r", Kind.FAIL, profile="voice"), True),
        (Rule("r", Kind.FAIL, profile="chat"), False),
        (Rule("r", Kind.FAIL, start=date(2026, 1, 31)), True),
        (Rule("r", Kind.FAIL, start=date(2026, 2, 1)), False),
        (Rule("r", Kind.FAIL, end=date(2026, 1, 2)), True),
        (Rule("r", Kind.FAIL, end=date(2026, 1, 1)), False),
        (Rule("r", Kind.FAIL, min_conversations=120), True),
        (Rule("r", Kind.FAIL, min_conversations=121), False),
        (Rule("r", Kind.FAIL, times=3), True),
        (Rule("r", Kind.FAIL, times=2), False),
    ],
)
def test_a_rule_matches_by_each_of_its_fields(rule: Rule, hit: bool) -> None:
    assert matches(rule, JANUARY, used=2) is hit


def test_the_first_failure_wins_and_modifiers_add_to_it() -> None:
    rules = (
        Rule("slow", Kind.SLOW, seconds=0.5),
        Rule("used up", Kind.DEADLOCK, times=1),
        Rule("first", Kind.FAIL, message="boom", attempts=1),
        Rule("second", Kind.CANCEL),
        Rule("lost", Kind.DROP, share=0.1),
        Rule("held", Kind.HOLD),
    )
    directive = decide(JANUARY, FaultSet(rules), {"used up": 1}, NO_LIMITS)
    assert (directive.failure, directive.message, directive.attempts) == ("fail", "boom", 1)
    assert (directive.seconds_per_batch, directive.drop_share, directive.hold_rule) == (0.5, 0.1, "held")
    assert directive.fired == ["first", "slow", "lost", "held"]


@pytest.mark.parametrize(("limit", "failure"), [(0, ""), (120, ""), (119, "heartbeat_timeout")])
def test_too_many_conversations_end_by_heartbeat_timeout(limit: int, failure: str) -> None:
    assert decide(JANUARY, FaultSet(), {}, Limits(max_conversations=limit)).failure == failure


@pytest.mark.parametrize(("running", "limit", "deadlock"), [(3, 0, False), (3, 3, False), (4, 3, True)])
def test_too_many_at_once_end_by_deadlock(running: int, limit: int, deadlock: bool) -> None:
    assert deadlocks(running, Limits(max_parallel=limit)) is deadlock


def test_limits_of_the_file_go_over_those_of_the_worker() -> None:
    faults = parse_faults('{"limits": {"max_parallel": 0}}')
    assert faults.limits(Limits(max_conversations=7, max_parallel=3)) == Limits(7, 0)


@given(st.integers(1, 300), st.floats(0, 1))
def test_the_share_of_lost_scorecards_is_exact(count: int, share: float) -> None:
    lost = sum(is_dropped(index, share) for index in range(count))
    assert lost == int(count * share + 1e-9)


def test_jobs_obey_only_their_own_kinds() -> None:
    rules = (
        Rule("workflow", Kind.FAIL),
        Rule("job", Kind.JOB_FAIL, customer="acme", profile="chat", times=1),
    )
    job = Request("acme", None, JANUARY.start_ms, JANUARY.end_ms)
    assert decide_job(job, FaultSet(rules), {}) == rules[1]
    assert decide_job(job, FaultSet(rules), {"job": 1}) is None
    assert decide(JANUARY, FaultSet(rules[1:]), {}, NO_LIMITS).fired == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "not JSON"),
        ("[]", '"rules" and "limits" only'),
        ('{"rule": []}', '"rules" and "limits" only'),
        ('{"rules": [{"id": "a"}]}', "needs id and kind"),
        ('{"rules": [{"id": "a", "kind": "fail", "custmer": "acme"}]}', "known keys"),
        ('{"rules": [{"id": "a", "kind": "explode"}]}', "'explode' is unknown"),
        ('{"rules": [{"id": "a", "kind": "drop", "share": 2}]}', "share is 2"),
        ('{"rules": [{"id": "a", "kind": "fail", "times": -1}]}', "times is -1"),
        ('{"rules": [{"id": "a", "kind": "fail", "start": "January"}]}', "start is 'January'"),
        ('{"rules": [{"id": "a", "kind": "fail"}, {"id": "a", "kind": "drop"}]}', "must differ"),
        ('{"limits": {"max_paralel": 1}}', "known are max_conversations"),
        ('{"limits": {"max_parallel": "1"}}', "max_parallel is '1'"),
    ],
)
def test_a_bad_file_names_what_is_wrong(text: str, part: str) -> None:
    with pytest.raises(FaultFileError, match=part):
        parse_faults(text)


def test_hits_of_the_same_run_do_not_count() -> None:
    log = [{"rule": "a", "run": "1"}, {"rule": "a", "run": "1"}, {"rule": "a", "run": "2"}]
    assert used_by_others(log, "1") == {"a": 1}
    assert used_by_others(log, "3") == {"a": 2}


def test_the_file_is_read_again_and_hits_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    assert FaultFile(None).read() == FaultFile(path).read() == FaultSet()
    path.write_text(json.dumps({"rules": [{"id": "a", "kind": "fail", "start": "2026-01-01"}]}))
    file = FaultFile(path)
    assert file.read().rules == (Rule("a", Kind.FAIL, start=date(2026, 1, 1)),)
    file.record(["a"], "run-1")
    assert FaultFile(path).used("run-2") == {"a": 1}
    assert FaultFile(path).used("run-1") == {}
