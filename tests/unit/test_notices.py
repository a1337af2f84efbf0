"""What people are told about a run: one message for each cause and run, and none about what needs nobody."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.notify import Channel, NotifyConfig
from include.scorecard_backfill.notices import (
    LONGEST_NOTE,
    LONGEST_TEXT,
    NOTE_PREFIX,
    Run,
    addressed,
    approval_notice,
    failure_notice,
    finished_notice,
    run_note,
    wait_notice,
)
from include.scorecard_backfill.records import Failure

RUN = Run("east", "manual__1", "https://airflow.test/run")
LABEL = "acme 2026-01-01..2026-02-01"
REPORT: dict[str, Any] = {
    "planned": 3, "verified": 2, "complete": False, "refused": "", "debts": ["one"],
    "total": {"scorecard": {"before": 1000, "after": 900, "removed": 100}},
}  # fmt: skip


def failure(cause: str, stage: Any = "wait_workflows") -> Failure:
    return Failure(key="0" * 16, stage=stage, cause=cause, reason="it is gone", what_to_do="Look.")


def test_nobody_is_told_anything_by_default() -> None:
    assert ClusterConfig.model_validate({"name": "east"}).notify.channels == ()


def test_a_plan_is_told_once_and_again_when_it_has_changed() -> None:
    first, again, other = (approval_notice(RUN, digest, 3, 2) for digest in ("a", "a", "b"))

    assert first.key == again.key != other.key
    assert first.subject == "east: the plan of 3 windows of 2 customers waits for approval"
    assert approval_notice(RUN, "c", 1, 1).subject == "east: the plan of 1 window of 1 customer waits for approval"
    assert first.text.endswith("Run manual__1\nhttps://airflow.test/run")


def test_windows_that_fail_by_the_same_cause_are_one_message() -> None:
    one, same = failure_notice(RUN, LABEL, failure("job_gone")), failure_notice(RUN, "other", failure("job_gone"))
    other = failure_notice(RUN, LABEL, failure("lost_rows"))

    assert one is not None
    assert same is not None
    assert other is not None
    assert one.key == same.key != other.key
    assert f"{LABEL}: job_gone: it is gone\nLook.\n" in one.text


def test_a_window_that_is_cut_smaller_is_no_failure_until_it_cannot_be_cut() -> None:
    assert failure_notice(RUN, LABEL, failure("heartbeat_timeout"), cut=True) is None
    assert failure_notice(RUN, LABEL, failure("heartbeat_timeout"), cut=False) is not None
    assert failure_notice(RUN, LABEL, failure("job_gone"), cut=True) is not None


def test_the_breaker_is_a_message_of_its_own() -> None:
    told = failure_notice(RUN, LABEL, failure("breaker", "admit"))

    assert told is not None
    assert (told.about, told.key) == ("breaker", "breaker:")


@pytest.mark.parametrize(
    ("minutes", "word", "told"), [(59.9, "work", False), (60, "work", True), (600, "queue", False), (60, "busy", True)]
)
def test_a_long_wait_is_told_unless_the_windows_turn_has_not_come(minutes: float, word: str, told: bool) -> None:
    found = wait_notice(RUN, LABEL, "admit", word, "because", minutes, 60)

    assert (found is not None) == told
    if found:
        assert found.key == f"waits:admit:{word}"
        assert f"{LABEL}: because" in found.text


def test_the_end_is_told_with_totals_and_again_when_a_retry_has_changed_it() -> None:
    told, retried = finished_notice(RUN, REPORT), finished_notice(RUN, {**REPORT, "verified": 3, "complete": True})

    assert told is not None
    assert retried is not None
    assert told.subject == "east: NOT complete, 2 of 3 windows verified"
    assert "scorecard: 1,000 rows before, 900 after, 100 removed" in told.text
    assert "1 windows are deleted and not verified." in told.text
    assert told.key != retried.key
    assert finished_notice(RUN, {**REPORT, "dry_run": "text"}) is None
    refused = finished_notice(RUN, {**REPORT, "refused": "The plan was rejected by jane."})
    assert refused is not None
    assert "rejected by jane" in refused.text


def test_what_was_told_is_not_told_again_and_a_channel_hears_only_what_it_is_about() -> None:
    everything = Channel(kind="webhook", conn_id="hook")
    ends = Channel(kind="webhook", conn_id="ends", about=("finished",))
    told, finished = failure_notice(RUN, LABEL, failure("job_gone")), finished_notice(RUN, REPORT)
    assert told is not None
    assert finished is not None

    assert addressed([everything, ends], told, []) == [everything]
    assert addressed([everything, ends], finished, [told.key]) == [everything, ends]
    assert addressed([everything, ends], told, [told.key]) == []


def test_a_message_is_never_longer_than_services_take() -> None:
    told = failure_notice(RUN, LABEL, failure("job_gone").model_copy(update={"reason": "x" * 10_000}))

    assert told is not None
    assert len(told.text) == LONGEST_TEXT


@pytest.mark.parametrize(
    "channel",
    [
        {"kind": "smtp", "conn_id": "mail"},
        {"kind": "webhook", "conn_id": "hook", "to": ["jane@example.com"]},
        {"kind": "webhook", "conn_id": ""},
        {"kind": "pager", "conn_id": "hook"},
        {"kind": "webhook", "conn_id": "hook", "about": []},
        {"kind": "webhook", "conn_id": "hook", "about": ["weather"]},
        {"kind": "webhook", "conn_id": "hook", "password": "sesame"},
    ],
)
def test_a_channel_that_cannot_work_is_refused(channel: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NotifyConfig.model_validate({"channels": [channel]})


@given(st.text(alphabet=st.characters(), max_size=2_000))
def test_a_runs_note_fits_every_database_of_airflow(sentence: str) -> None:
    note = run_note(sentence)
    assert note.startswith(NOTE_PREFIX)
    assert len(note) <= LONGEST_NOTE
    assert "\0" not in note
    note.encode()


def test_a_note_that_is_cut_ends_with_an_ellipsis() -> None:
    assert run_note("x" * 5_000).endswith("x…")
    assert run_note("a\nb\n") == "Refused: a\nb"
