"""Why a workflow failed: the types of its failure decide, a text only for a deadlock."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.verdicts.causes import CAUSES, SIZE
from include.scorecard_backfill.verdicts.failures import (
    CLOSINGS,
    TIMEOUTS,
    Link,
    LinkKind,
    cause_of_end,
    chain_text,
    mentions_deadlock,
)

ACTIVITY = Link("wrapper", message="activity error")
WORDS = st.sampled_from([*TIMEOUTS, "UNKNOWN 9", "", "Boom"]) | st.text(max_size=10)
LINKS = st.builds(Link, st.sampled_from(get_args(LinkKind)), WORDS, st.text(max_size=20))


@pytest.mark.parametrize(
    ("chain", "status", "cause"),
    [
        ([ACTIVITY, Link("timeout", "HEARTBEAT", "activity Heartbeat timeout")], "failed", "heartbeat_timeout"),
        # An encoded failure has no text; its type says enough.
        ([Link("wrapper"), Link("timeout", "HEARTBEAT", "Encoded failure")], "failed", "heartbeat_timeout"),
        ([ACTIVITY, Link("timeout", "START_TO_CLOSE")], "failed", "start_to_close_timeout"),
        ([ACTIVITY, Link("timeout", "SCHEDULE_TO_START")], "failed", "schedule_to_start_timeout"),
        ([ACTIVITY, Link("timeout", "SCHEDULE_TO_CLOSE")], "failed", "schedule_to_close_timeout"),
        ([ACTIVITY, Link("timeout", "UNKNOWN 9")], "failed", "workflow_failed"),
        ([ACTIVITY, Link("application", "pgError", "deadlock detected (SQLSTATE 40P01)")], "failed", "deadlock"),
        ([ACTIVITY, Link("application", "40P01")], "failed", "deadlock"),
        # Its last try says why there was not time enough.
        (
            [ACTIVITY, Link("timeout", "SCHEDULE_TO_CLOSE"), Link("application", "E", "pq: deadlock detected")],
            "failed",
            "deadlock",
        ),
        # Words of a text are nothing that decides.
        ([ACTIVITY, Link("application", "E", "cannot write the heartbeat topic")], "failed", "workflow_failed"),
        ([ACTIVITY, Link("application", "E", "cut start_to_close of the line")], "failed", "workflow_failed"),
        ([ACTIVITY, Link("canceled", message="by operations")], "failed", "canceled"),
        ([Link("wrapper", message="child"), Link("terminated")], "failed", "terminated"),
        ([ACTIVITY, Link("unknown")], "failed", "workflow_failed"),
        ([], "failed", "workflow_failed"),
        ([], "timed_out", "workflow_timeout"),
        ([], "terminated", "terminated"),
        ([], "canceled", "canceled"),
    ],
)
def test_the_innermost_type_decides_then_how_the_run_was_closed(chain: list[Link], status: str, cause: str) -> None:
    assert cause_of_end(chain, status) == cause


@given(st.lists(LINKS, max_size=6), st.sampled_from(["failed", *CLOSINGS]))
def test_every_end_has_a_cause_of_the_table(chain: list[Link], status: str) -> None:
    cause = cause_of_end(chain, status)
    assert cause in CAUSES
    text = " ".join(f"{link.word} {link.message}" for link in chain)
    if cause in SIZE - {"workflow_timeout", "deadlock"}:
        # Only a type, never a text, has a window cut for a time-out.
        assert any(link.kind == "timeout" for link in chain)
    if cause == "deadlock":
        assert mentions_deadlock(text)


def test_a_chain_is_one_line_without_repetitions() -> None:
    chain = [Link("wrapper", message="activity error"), Link("timeout", "HEARTBEAT"), Link("timeout", "HEARTBEAT")]
    assert chain_text(chain) == "activity error <- HEARTBEAT timeout"
    assert chain_text([Link("application", "Boom", "disk is full"), Link("application", "Boom")]) == (
        "Boom: disk is full <- Boom"
    )
    assert chain_text([Link("application", message="plain")]) == "ApplicationError: plain"
    assert chain_text([Link("timeout")]) == "UNKNOWN timeout"
    assert chain_text([]) == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ERROR: deadlock detected (SQLSTATE 40P01)", True),
        ("pq: 40p01", True),
        ("Deadlocked", True),
        ("id 1140P012", False),
        ("undeadlocked", False),
        ("", False),
    ],
)
def test_a_deadlock_is_a_word_or_its_code(text: str, found: bool) -> None:
    assert mentions_deadlock(text) is found
