"""Workflows: every expected one known and completed, whose they are, and why they failed."""

from __future__ import annotations

import doctest
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.verdicts import workflows
from include.scorecard_backfill.verdicts.workflows import (
    Execution,
    Status,
    belongs_to,
    created_workflows,
    judge,
    minutes_of,
    progress_of,
)

UUID_TEXT = "0b7f2a34-0000-4000-8000-000000000001"
STATUSES: st.SearchStrategy[Status] = st.sampled_from(
    (
        "running", "paused", "continued_as_new", "unknown", "completed",
        "failed", "timed_out", "terminated", "canceled", "missing",
    )
)  # fmt: skip


def executions(*statuses: Status) -> dict[str, Execution]:
    return {f"w-{n}": Execution(f"w-{n}", status, run_id=f"r-{n}") for n, status in enumerate(statuses)}


def test_doctests_hold() -> None:
    assert doctest.testmod(workflows).failed == 0


@given(st.lists(STATUSES, max_size=6), st.integers(0, 2))
def test_a_window_is_ok_only_when_every_expected_workflow_is_completed(statuses: list[Status], unseen: int) -> None:
    known = executions(*statuses)
    expected = [*known, *(f"unseen-{n}" for n in range(unseen))]
    verdict = judge(expected, known)
    assert (verdict.state == "ok") is (bool(expected) and not unseen and set(statuses) == {"completed"})
    if {"running", "paused", "continued_as_new", "unknown"} & set(statuses):
        # A cut or a retry must not run beside an open one.
        assert verdict.state == "wait"
    elif verdict.state != "ok":
        assert verdict.state == "failed"
    assert verdict.reasons


def test_no_workflow_at_all_proves_nothing() -> None:
    assert judge([], executions("completed")).cause == "too_few_workflows"


def test_a_workflow_that_the_server_does_not_know_is_named() -> None:
    verdict = judge(["w-0", "w-9"], executions("completed"))
    assert (verdict.cause, verdict.text.split()[0]) == ("workflows_gone", "w-9")


def test_a_failure_names_id_run_status_and_detail() -> None:
    bad = Execution("w-1", "failed", run_id="r-1", failure="activity Heartbeat timeout", cause="heartbeat_timeout")
    verdict = judge(["w-0", "w-1"], executions("completed") | {"w-1": bad})
    assert (verdict.state, verdict.cause) == ("failed", "heartbeat_timeout")
    assert verdict.text == "w-1 (run r-1) failed: activity Heartbeat timeout"
    assert "no detail" in judge(["w-0"], executions("terminated")).text


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        (["canceled", "heartbeat_timeout"], "heartbeat_timeout"),
        (["deadlock", "terminated"], "deadlock"),
        (["terminated", "canceled"], "terminated"),
        (["", ""], "workflow_failed"),
    ],
)
def test_of_several_causes_the_one_that_a_smaller_window_cures_decides(causes: list[str], expected: str) -> None:
    bad = {f"w-{n}": Execution(f"w-{n}", "failed", cause=cause) for n, cause in enumerate(causes)}
    assert judge(list(bad), bad).cause == expected


def test_a_wait_shows_progress_and_what_failed_already() -> None:
    known = executions("running", "failed", "continued_as_new") | {"w-3": Execution("w-3", "running", done=5, total=20)}
    verdict = judge(list(known), known)
    assert verdict.text == (
        "3 of 4 workflows open; w-0 running; w-2 continued_as_new; w-3 5 of 20 conversations; 1 failed already"
    )
    many = {f"w-{n}": Execution(f"w-{n}", "running") for n in range(60)}
    assert len(judge(list(many), many).reasons) == 6


def test_a_status_that_nobody_knows_is_waited_for_and_named() -> None:
    strange = Execution("w-1", "unknown", note="status 11 of the server is not known to this version")
    verdict = judge(["w-0", "w-1"], executions("completed") | {"w-1": strange})
    assert verdict.state == "wait"
    assert "w-1 unknown (status 11 of the server is not known to this version)" in verdict.text
    paused = Execution("w-0", "paused", done=3, total=9)
    assert "w-0 3 of 9 conversations (paused)" in judge(["w-0"], {"w-0": paused}).text


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["ReindexedConversations", "TotalConversationCount", "totalConversationCount", "x"]), inner
        )
    ),
    max_leaves=8,
)


@given(st.lists(JSON_VALUES, max_size=4))
def test_progress_is_two_sensible_numbers_or_none_whatever_the_heartbeat_holds(details: list[object]) -> None:
    done, total = progress_of(details)
    assert total is None or (type(total) is int and total >= 0)
    assert done is None or (type(done) is int and total is not None and 0 <= done <= total)


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ({"ReindexedConversations": 5, "TotalConversationCount": 10}, (5, 10)),
        ({"reindexedConversations": "5", "totalConversationCount": "10"}, (5, 10)),
        ({"TotalConversationCount": 10}, (0, 10)),
        ({"ReindexedConversations": 5.0, "TotalConversationCount": 10.0}, (5, 10)),
        ({"ReindexedConversations": 12, "TotalConversationCount": 10}, (10, 10)),
        ({"ReindexedConversations": "many", "TotalConversationCount": 10}, (None, 10)),
        ({"ReindexedConversations": 5, "TotalConversationCount": None}, (None, None)),
        ({"ReindexedConversations": 5, "TotalConversationCount": "ten"}, (None, None)),
        ({"ReindexedConversations": 5, "TotalConversationCount": True}, (None, None)),
        ({"ReindexedConversations": 5, "TotalConversationCount": -1}, (None, None)),
        ({"ReindexedConversations": 5, "TotalConversationCount": 1.5}, (None, None)),
        (None, (None, None)),
        ("5 of 10", (None, None)),
    ],
)
def test_progress_that_is_no_number_is_not_known(detail: object, expected: tuple[int | None, int | None]) -> None:
    assert progress_of([detail]) == expected
    assert progress_of([None, [], detail]) == expected


LINE = "Created reindex conversations job: name=a/b/{0}, execution_id={0}, cluster=ingestion"


def test_ids_are_read_from_the_log_in_order_each_once() -> None:
    lines = [
        "2026-01-01T00:00:00Z INFO " + LINE.format("w-2"),
        "noise",
        LINE.format("w-1"),
        LINE.format("w-2"),
        '{"level":"info","msg":"' + LINE.format("w-3") + '"}',
        "Created reindex conversations job: name=a, execution_id=, cluster=c",
        "Created reindex conversations job: name=a",
    ]
    assert created_workflows(lines) == ["w-2", "w-1", "w-3"]


IDS = st.text("abcdefghij0123456789-_.", min_size=1, max_size=30)


@given(st.lists(IDS, max_size=8), st.text(max_size=10))
def test_every_logged_id_is_found_whatever_stands_before_it(ids: list[str], before: str) -> None:
    assert created_workflows(before + LINE.format(i) for i in ids) == list(dict.fromkeys(ids))


@pytest.mark.parametrize(
    ("workflow_id", "mine"),
    [
        (f"reindexconversations-acme-voice-{UUID_TEXT}", True),
        (f"reindexconversations-acme-chat-{UUID_TEXT.upper()}", True),
        (f"reindexconversations-acme-sandbox-voice-{UUID_TEXT}", False),
        (f"reindexconversations-acme-voice-2-{UUID_TEXT}", False),
        (f"reindexconversations-acmee-voice-{UUID_TEXT}", False),
        (f"xreindexconversations-acme-voice-{UUID_TEXT}", False),
        (f"reindexconversations-acme-voice-{UUID_TEXT}-retry", False),
        ("reindexconversations-acme-voice-1", False),
        (f"reindexconversations-acme--{UUID_TEXT}", False),
    ],
)
def test_a_workflow_is_a_customers_by_its_whole_id(workflow_id: str, mine: bool) -> None:
    found = belongs_to(workflow_id, prefix="reindexconversations", customer_id="acme", profiles=["voice", "chat"])
    assert found is mine


NAMES = st.text("ab.*+-_", min_size=1, max_size=6)


@given(NAMES, NAMES, NAMES, NAMES, st.uuids())
def test_ids_of_others_are_never_taken_unless_they_read_the_same(
    customer: str, profile: str, other: str, other_profile: str, number: UUID
) -> None:
    mine, others = f"p-{customer}-{profile}-{number}", f"p-{other}-{other_profile}-{number}"
    assert belongs_to(mine, prefix="p", customer_id=customer, profiles=[profile])
    assert belongs_to(others, prefix="p", customer_id=customer, profiles=[profile]) is (others == mine)


def test_minutes_are_from_the_first_start_to_the_last_end_and_unknown_is_zero() -> None:
    one = Execution("w-1", "completed", started=1_000, closed=1_600)
    two = Execution("w-2", "completed", started=1_300, closed=2_200)
    assert minutes_of([one, two]) == minutes_of([two, one]) == 20.0
    assert minutes_of([]) == 0.0
    assert minutes_of([one, Execution("w-3", "running", started=1_000)]) == 0.0
