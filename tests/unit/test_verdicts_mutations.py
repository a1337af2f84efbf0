"""Mutations: done only when every host says so, failed with host and reason, and rows counted on every replica."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.sql import marker_literal
from include.scorecard_backfill.verdicts.base import Verdict
from include.scorecard_backfill.verdicts.mutations import (
    HostView,
    Mutation,
    Patience,
    Sent,
    host_views,
    judge_rows,
    judge_table,
    own,
)

HOSTS = ["ch-1", "ch-2", "ch-3"]
TABLE = ("acme_voice", "scorecard")
KEY, OTHER = "0" * 16, "f" * 16
PATIENCE = Patience(not_picked_up=300, failing=30, stalled=1_800)


def command(key: str = KEY, generation: int = 1, chunk: int = 0) -> str:
    return f"(DELETE WHERE (id = 1) AND ({marker_literal(key, generation, chunk)} != ''))"


def mutation(host: str, **changes: Any) -> Mutation:
    base = Mutation(host, *TABLE, "0000000001", command(), 1_000, True, 0, "", False)
    return replace(base, **changes)


def sent(*accepted: str, **changes: Any) -> Sent:
    return replace(Sent(TABLE, 1_000.0, frozenset(accepted)), **changes)


def verdict(views: list[HostView], **changes: float) -> Verdict:
    times = {"now": 1_010.0, "failing_for": 0.0, "unchanged_for": 0.0} | changes
    return judge_table(sent(), views, **times, patience=PATIENCE)


def states(mutations: list[Mutation], what: Sent) -> dict[str, str]:
    return {view.host: view.state for view in host_views(what, mutations, HOSTS)}


def test_own_mutations_are_those_with_the_windows_marker() -> None:
    listed = [
        mutation("ch-1"),
        mutation("ch-1", command=command(generation=2)),
        mutation("ch-1", command=command(generation=12)),
        mutation("ch-1", command=command(chunk=4)),
        mutation("ch-1", command=command(OTHER)),
        mutation("ch-1", command="UPDATE _row_exists = 0 WHERE 1"),
    ]
    assert own(listed, KEY) == listed[:4]
    assert own(listed, KEY, 1) == [listed[0], listed[3]]
    assert own(listed, KEY, 2) == [listed[1]]
    assert own(listed, "1" * 16) == []


@pytest.mark.parametrize(
    ("found", "state"),
    [
        ([{}], "done"),
        ([{"is_done": False}], "running"),
        ([{"is_done": False, "fail_reason": "no space"}], "failing"),
        ([{"is_done": False, "is_killed": True}], "killed"),
        ([{"is_done": True, "is_killed": True}], "killed"),
        ([{"fail_reason": "was over"}], "done"),
        ([{}, {"is_done": False}], "running"),
        ([{"is_done": False}, {"is_killed": True}], "killed"),
        ([{"table": "score"}], "absent"),
        ([{"database": "globex_voice"}], "absent"),
        ([], "absent"),
    ],
)
def test_a_host_is_as_far_as_its_least_done_mutation(found: list[dict[str, Any]], state: str) -> None:
    listed = [mutation("ch-1", **changes) for changes in found]
    assert states(listed, sent())["ch-1"] == state
    assert states(list(reversed(listed)), sent())["ch-1"] == state


def test_a_host_that_took_it_may_forget_it_and_one_that_did_not_is_absent() -> None:
    assert states([mutation("ch-1")], sent("ch-1", "ch-2")) == {"ch-1": "done", "ch-2": "forgotten", "ch-3": "absent"}
    dropped = sent("ch-1", partitions=("202601",))
    assert states([], dropped) == {"ch-1": "forgotten", "ch-2": "absent", "ch-3": "absent"}


def test_hosts_that_are_not_of_the_cluster_do_not_count() -> None:
    assert states([mutation("elsewhere")], sent()) == dict.fromkeys(HOSTS, "absent")


def test_done_is_done_on_every_host() -> None:
    done = verdict([HostView(host, "done") for host in HOSTS])
    assert (done.state, done.text) == ("ok", "acme_voice.scorecard: no unfinished mutation on 3 hosts")
    waiting = verdict([HostView("ch-1", "done"), HostView("ch-2", "running", 7), HostView("ch-3", "absent")])
    assert waiting.state == "wait"
    assert "7 parts to do on ch-2" in waiting.text
    assert "not on ch-3 yet" in waiting.text


def test_no_host_at_all_is_unknown_and_not_done() -> None:
    assert verdict([]).state == "wait"


@pytest.mark.parametrize(
    ("view", "changes", "cause", "parts"),
    [
        (HostView("ch-2", "killed"), {}, "killed", ["killed on ch-2", "rows may remain"]),
        (HostView("ch-2", "failing", 3, "disk full"), {"failing_for": 30}, "fail_reason", ["on ch-2: disk full"]),
        (HostView("ch-2", "absent"), {"now": 1_300}, "not_picked_up", ["not picked up by ch-2", "300 s"]),
        (HostView("ch-2", "running", 3), {"unchanged_for": 1_800}, "stalled", ["3 parts to do on ch-2", "1800 s"]),
        (HostView("ch-2", "failing", 3, "x"), {"unchanged_for": 1_800}, "stalled", ["3 parts to do on ch-2 (x)"]),
    ],
)
def test_a_failure_names_host_and_reason(
    view: HostView, changes: dict[str, float], cause: str, parts: list[str]
) -> None:
    bad = verdict([HostView("ch-1", "done"), view, HostView("ch-3", "done")], **changes)
    assert (bad.state, bad.cause) == ("failed", cause)
    assert all(part in bad.text for part in ["acme_voice.scorecard", *parts])


@pytest.mark.parametrize(
    ("view", "changes"),
    [
        (HostView("ch-2", "failing", 3, "x"), {"failing_for": 29.9}),
        (HostView("ch-2", "absent"), {"now": 1_299.9}),
        (HostView("ch-2", "running", 3), {"unchanged_for": 1_799.9}),
        # Time that passes while nothing is wrong decides nothing.
        (HostView("ch-2", "running", 3), {"now": 9e9, "failing_for": 9e9}),
    ],
)
def test_before_its_limit_it_is_a_wait(view: HostView, changes: dict[str, float]) -> None:
    assert verdict([HostView("ch-1", "done"), view], **changes).state == "wait"


VIEWS = st.lists(
    st.sampled_from(["done", "forgotten", "running", "failing", "killed", "absent"]), min_size=1, max_size=5
)


@given(VIEWS, st.floats(0, 10_000), st.floats(0, 10_000), st.floats(0, 10_000))
def test_ok_is_exactly_when_no_host_works_or_lacks_it(
    listed: list[str], age: float, failing: float, unchanged: float
) -> None:
    views = [HostView(f"ch-{n}", state) for n, state in enumerate(listed)]
    found = verdict(views, now=1_000 + age, failing_for=failing, unchanged_for=unchanged)
    assert (found.state == "ok") is (set(listed) <= {"done", "forgotten"})
    if "killed" in listed:
        assert found.cause == "killed"
    assert found.reasons


COUNTS = st.dictionaries(
    st.sampled_from([TABLE, ("acme_voice", "score")]),
    st.dictionaries(st.sampled_from(HOSTS), st.sampled_from([0, 0, 0, 5])),
    min_size=1,
)


@given(COUNTS)
def test_rows_are_gone_only_if_every_host_counts_zero_in_every_table(counts: Any) -> None:
    found = judge_rows(counts, HOSTS)
    complete = all(set(per_host) == set(HOSTS) for per_host in counts.values())
    clean = all(rows == 0 for per_host in counts.values() for rows in per_host.values())
    assert found.state == ("wait" if not complete else "ok" if clean else "failed")


def test_rows_that_are_left_are_named_with_host_and_number() -> None:
    found = judge_rows({TABLE: {"ch-1": 0, "ch-2": 4, "ch-3": 0}}, HOSTS)
    assert (found.cause, found.text) == ("rows_left", "4 rows of acme_voice.scorecard left on ch-2")
    assert judge_rows({TABLE: {"ch-1": 0, "ch-2": 4}}, HOSTS).text == "no count from ch-3"


def test_nothing_counted_is_not_nothing_left() -> None:
    assert judge_rows({}, HOSTS).state == "wait"
    assert judge_rows({TABLE: {}}, []).state == "wait"
