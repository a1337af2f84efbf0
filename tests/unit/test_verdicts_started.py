"""Which workflows a Job has started: two sources that each may lack some; only together they say that it is all."""

from __future__ import annotations

import doctest
from datetime import date, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.verdicts import started
from include.scorecard_backfill.verdicts.started import Ids, about_window, expected

SETTLE = 120.0
START, END = date(2026, 1, 1), date(2026, 2, 1)


def wid(profile: str, number: int = 1, customer: str = "acme") -> str:
    return f"reindex-{customer}-{profile}-{UUID(int=number)}"


IDS = Ids("reindex", "acme", ("voice", "chat"))
VOICE, CHAT = wid("voice"), wid("chat")


def test_doctests_hold() -> None:
    assert doctest.testmod(started).failed == 0


@pytest.mark.parametrize(
    ("by_log", "by_query", "waited", "state", "known"),
    [
        # Every profile has one, whoever names it.
        ([VOICE, CHAT], [], 0, "ok", [VOICE, CHAT]),
        ([], [VOICE, CHAT], 0, "ok", [VOICE, CHAT]),
        ([VOICE], [CHAT], 0, "ok", [VOICE, CHAT]),
        ([VOICE], [CHAT, VOICE], 0, "ok", [VOICE, CHAT]),
        # One profile lacks one: the list may lag behind.
        ([VOICE], [VOICE], 0, "wait", [VOICE]),
        ([VOICE], [VOICE], SETTLE - 1, "wait", [VOICE]),
        ([], [], SETTLE - 1, "wait", []),
        # Both sources agree that this was all: that profile had no work.
        ([VOICE], [VOICE], SETTLE, "ok", [VOICE]),
        ([CHAT], [CHAT], SETTLE, "ok", [CHAT]),
        # A log that says nothing, or a list that contradicts it, proves nothing.
        ([], [VOICE], SETTLE, "failed", [VOICE]),
        ([VOICE], [], SETTLE, "failed", [VOICE]),
        ([VOICE], [VOICE, wid("voice", 2)], SETTLE, "failed", [VOICE, wid("voice", 2)]),
        ([VOICE, wid("voice", 2)], [VOICE], SETTLE, "failed", [VOICE, wid("voice", 2)]),
        ([], [], SETTLE, "failed", []),
        # What the log names is waited for, also of a profile that has no database.
        ([VOICE, CHAT, wid("email")], [], 0, "ok", [VOICE, CHAT, wid("email")]),
        ([VOICE, wid("email")], [VOICE], SETTLE, "ok", [VOICE, wid("email")]),
        # Another customer whose name begins alike is no answer.
        ([wid("voice", customer="acme-sandbox")], [VOICE], SETTLE, "failed", None),
        # Ids of another form stand for one profile each, as the log says that the Job has started them.
        (["a/1", "a/2"], [], 0, "ok", ["a/1", "a/2"]),
        (["a/1"], [], SETTLE, "failed", ["a/1"]),
    ],
)
def test_all_is_known_when_each_profile_has_one_or_both_sources_say_that_there_is_no_more(
    by_log: list[str], by_query: list[str], waited: float, state: str, known: list[str] | None
) -> None:
    found = expected(by_log, by_query, IDS, waited=waited, settle=SETTLE)
    assert found.verdict.state == state
    assert found.verdict.cause == ("too_few_workflows" if state == "failed" else "")
    if known is not None:
        assert list(found.ids) == known


def test_a_failure_says_which_profile_what_was_found_and_how_long_was_waited() -> None:
    found = expected([], [VOICE], IDS, waited=130, settle=SETTLE)
    assert found.verdict.text == (
        "no workflow for profile chat: the Job's log names 0, the query finds 1, nothing more appeared within 120 s"
    )
    both = expected([], [], IDS, waited=0, settle=SETTLE).verdict.text
    assert both.startswith("no workflow for profiles voice, chat yet: the Job's log names 0, the query finds 0")


POOL = [wid(p, n, c) for p in ("voice", "chat", "email") for n in (1, 2) for c in ("acme", "acme-x")] + ["a/1"]
SOME = st.lists(st.sampled_from(POOL), max_size=6)


@given(SOME, SOME, st.floats(0, 300))
def test_green_is_never_given_to_an_absence(by_log: list[str], listed: list[str], waited: float) -> None:
    by_query = [i for i in listed if IDS.profile_of(i)]
    found = expected(by_log, by_query, IDS, waited=waited, settle=SETTLE)
    assert set(found.ids) == {*by_log, *by_query}
    assert len(found.ids) == len(set(found.ids))
    if found.verdict.state != "ok":
        assert (found.verdict.state == "wait") is (waited < SETTLE)
        return
    assert found.ids
    lacking = {"voice", "chat"} - {IDS.profile_of(i) for i in found.ids}
    if lacking and "a/1" not in by_log:
        # A profile without a workflow: only after the wait, and only when both name the same, at least one.
        assert waited >= SETTLE
        assert {i for i in by_log if IDS.profile_of(i)} == set(by_query) != set()


@given(SOME, SOME, st.floats(0, 300), st.sampled_from(POOL))
def test_one_more_source_for_an_id_never_makes_less_known(
    by_log: list[str], listed: list[str], waited: float, more: str
) -> None:
    by_query = [i for i in listed if IDS.profile_of(i)]
    before = expected(by_log, by_query, IDS, waited=waited, settle=SETTLE)
    after = expected([*by_log, more], by_query, IDS, waited=waited, settle=SETTLE)
    assert set(before.ids) <= set(after.ids)


def instant(day: date) -> str:
    return f"{day}T00:00:00Z"


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ([{"start": instant(START), "end": instant(END)}], True),
        ([{"range": {"from": "2026-01-01T00:00:00+00:00", "to": ["2026-02-01T00:00:00.000Z"]}}], True),
        ([instant(START), instant(END)], True),
        ([{"start": instant(START), "end": instant(END), "asked_at": "2026-03-04T05:06:07Z"}], True),
        # As local times the same instants.
        (["2025-12-31T19:00:00-05:00", "2026-01-31T19:00:00-05:00"], True),
        ([{"start": instant(START), "end": "2026-01-11T00:00:00Z"}], False),
        ([{"start": "2026-03-01T00:00:00Z", "end": "2026-04-01T00:00:00Z"}], False),
        # One bound alone, or no UTC midnight, says nothing.
        ([{"start": instant(START)}], None),
        ([{"start": "2026-01-01T06:00:00Z", "end": "2026-01-02T06:00:00Z"}], None),
        ([{"start": "2026-01-01T00:00:00", "end": "2026-02-01T00:00:00"}], None),
        ([{"start": "2026-01-01", "end": "2026-02-01"}], None),
        ([], None),
        ([None, 3, True, "T", "x" * 50 + "T", {"a": []}], None),
    ],
)
def test_a_workflow_says_of_which_days_it_is_or_it_does_not(values: list[object], answer: bool | None) -> None:
    assert about_window(values, START, END) is answer


@given(st.lists(st.recursive(st.text(max_size=30) | st.integers(), lambda v: st.lists(v, max_size=3)), max_size=5))
def test_whatever_an_input_holds_is_no_error(values: list[object]) -> None:
    assert about_window(values, START, END) in (True, False, None)


@given(st.dates(date(2020, 1, 1), date(2030, 1, 1)), st.integers(1, 40), st.integers(-40, 40))
def test_only_the_very_days_are_this_windows(start: date, length: int, shift: int) -> None:
    end = start + timedelta(days=length)
    theirs = [instant(start + timedelta(days=shift)), instant(end + timedelta(days=shift))]
    assert about_window([{"of": theirs}], start, end) is (shift == 0)


def test_deep_nesting_is_walked_without_recursion() -> None:
    value: object = instant(START)
    for _ in range(5_000):
        value = [value]
    assert about_window([value, instant(END)], START, END) is True
