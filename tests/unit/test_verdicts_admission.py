"""Admission on one snapshot: who goes, who waits and why, and what Airflow's states say about a window."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.verdicts.admission import (
    FAR,
    Limits,
    Phase,
    Slot,
    Work,
    breaker,
    eligible,
    judge,
    judge_job,
    phase_of,
    survey,
)

SLOTS = st.lists(
    st.builds(
        Slot,
        st.sampled_from(["acme", "globex", "initech"]),
        st.sampled_from(["waiting", "running", "verified", "failed"]),
    ),
    min_size=1,
    max_size=14,
)
LIMITS = st.builds(Limits, st.integers(1, 5), st.integers(1, 3), st.just(10_000))


def slots(text: str) -> list[Slot]:
    """`a.w g.r`: customer and first letter of the phase."""
    phases: dict[str, Phase] = {"w": "waiting", "r": "running", "v": "verified", "f": "failed"}
    return [Slot(item[0], phases[item[2]]) for item in text.split()]


def admitted(listed: list[Slot], limits: Limits) -> list[int]:
    return [i for i, s in enumerate(listed) if s.phase == "waiting" and judge(i, listed, limits).state == "ok"]


def usual(max_parallel: int = 10, per_customer: int = 1, max_failures: int = 10) -> Limits:
    return Limits(max_parallel, per_customer, max_failures)


@given(SLOTS, LIMITS)
def test_all_who_go_at_once_stay_within_both_limits(listed: list[Slot], limits: Limits) -> None:
    going = admitted(listed, limits)
    before = Counter(slot.customer_id for slot in listed if slot.phase == "running")
    after = before + Counter(listed[i].customer_id for i in going)
    assert len(going) <= max(0, limits.max_parallel - before.total())
    for customer, count in after.items():
        assert count <= max(limits.per_customer, before[customer])


@given(SLOTS, LIMITS)
def test_nobody_waits_while_a_slot_is_free_for_him(listed: list[Slot], limits: Limits) -> None:
    going = admitted(listed, limits)
    running = sum(slot.phase == "running" for slot in listed)
    if limits.max_parallel > running and eligible(listed, limits.per_customer):
        assert going
    if len(going) < limits.max_parallel - running:
        assert going == eligible(listed, limits.per_customer)


@given(SLOTS, LIMITS)
def test_the_order_is_that_of_the_plan(listed: list[Slot], limits: Limits) -> None:
    going, able = admitted(listed, limits), eligible(listed, limits.per_customer)
    assert going == able[: len(going)]
    assert able == sorted(able)
    for index in going:
        earlier = [i for i in range(index) if listed[i] == listed[index]]
        assert set(earlier) <= set(going)


@given(SLOTS, LIMITS)
def test_one_survey_decides_as_each_window_would_alone(listed: list[Slot], limits: Limits) -> None:
    shared = survey(listed, limits)
    for index in range(len(listed)):
        assert shared.judge(index) == judge(index, listed, limits)
        assert shared.judge(index).reasons


def test_a_giants_queue_holds_nobody_else_up() -> None:
    listed = slots("a.w a.w a.w g.w i.w")
    assert admitted(listed, usual(max_parallel=3)) == [0, 3, 4]
    assert admitted(listed, usual(max_parallel=2)) == [0, 3]
    assert admitted(listed, usual(max_parallel=3, per_customer=2)) == [0, 1, 3]


def test_a_wait_says_what_it_waits_for() -> None:
    listed = slots("a.r a.w g.w i.w")
    assert judge(1, listed, usual()).text == "another window of a comes first (1 at a time)"
    assert judge(2, listed, usual(2)).text == "slot 2 of 2"
    assert judge(3, listed, usual(2)).text == "1 of 2 slots are taken and 1 eligible windows come first"


def test_a_place_far_back_in_the_queue_is_told_once_and_not_at_each_step_of_it() -> None:
    # Each new text of a wait is a line in its log and a row in Airflow's database, for every window that waits.
    def told(gone: int) -> list[str]:
        listed = [
            Slot(f"c{n}", "verified" if n < gone else "running" if n < gone + 2 else "waiting") for n in range(90)
        ]
        return [judge(index, listed, usual(2)).text for index in range(10, 90)]

    changed = sum(before != after for before, after in zip(told(3), told(4), strict=True))
    assert changed <= FAR
    assert told(3)[-1] == f"2 slots at most, and {FAR} or more eligible windows come first"


def test_limits_that_shrink_admit_nobody_until_enough_have_ended() -> None:
    assert admitted(slots("a.r g.r i.r u.w"), usual(2)) == []
    assert admitted(slots("a.v g.v i.r u.w"), usual(2)) == [3]


@pytest.mark.parametrize(
    ("text", "limits", "why"),
    [
        ("a.f g.f i.w", usual(max_failures=2), "2 windows failed, the limit is 2"),
        ("a.f g.v i.w", usual(max_failures=2), ""),
        ("a.f g.f i.v u.w", Limits(9, 1, 10, 0.5, 3), "2 of 3 ended windows failed, the limit is 50%"),
        ("a.f g.f i.v v.v u.w", Limits(9, 1, 10, 0.5, 3), ""),
        ("a.f g.f u.w", Limits(9, 1, 10, 0.5, 3), ""),
        ("a.f a.f", Limits(9, 1, 10), ""),
        ("u.w", usual(max_failures=1), ""),
    ],
)
def test_the_breaker_opens_by_number_or_by_share(text: str, limits: Limits, why: str) -> None:
    listed = slots(text)
    assert breaker(listed, limits) == why
    verdict = judge(len(listed) - 1, listed, limits)
    assert (verdict.state == "failed") is bool(why)
    if why:
        assert verdict.cause == "breaker"
        assert why in verdict.text
        assert "clear the failed ones" in verdict.text


LATER = 5


def later(*states: str | None) -> list[str | None]:
    return [*states, *[None] * (LATER - len(states))]


@pytest.mark.parametrize(
    ("admit", "stages", "phase"),
    [
        (None, later(), "waiting"),
        ("scheduled", later(), "waiting"),
        ("deferred", later(), "waiting"),
        ("up_for_retry", later(), "waiting"),
        ("failed", later("upstream_failed"), "failed"),
        ("upstream_failed", later(), "failed"),
        ("skipped", later("skipped"), "failed"),
        ("removed", later("removed"), "failed"),
        ("success", later(), "running"),
        ("success", [], "running"),
        ("success", later("success", "deferred"), "running"),
        ("success", later("up_for_retry"), "running"),
        ("success", later("success", "success", "success"), "running"),
        ("success", ["success"] * LATER, "verified"),
        ("success", later("failed"), "failed"),
        ("success", ["success", "failed", *["upstream_failed"] * 3], "failed"),
        ("success", ["success", "skipped", "skipped", "skipped", "skipped"], "failed"),
        # Cleared again while what is behind it still shows the old state: it works, it has not failed.
        ("success", ["success", "deferred", "upstream_failed", "upstream_failed", "upstream_failed"], "running"),
        ("success", ["success", "queued", "failed", "upstream_failed", "upstream_failed"], "running"),
        # Verified, and then a stage before it cleared: verify decides.
        ("success", ["running", "success", "success", "success", "success"], "verified"),
    ],
)
def test_a_phase_is_read_from_the_states_of_the_stages(
    admit: str | None, stages: list[str | None], phase: Phase
) -> None:
    assert phase_of(admit, stages) == phase


STATES = st.sampled_from(
    [None, "scheduled", "queued", "running", "success", "restarting", "failed", "up_for_retry", "up_for_reschedule",
     "upstream_failed", "skipped", "deferred", "removed"]
)  # fmt: skip


@given(STATES, st.lists(STATES, min_size=LATER, max_size=LATER))
def test_only_an_admitted_window_takes_a_slot_and_only_verify_makes_it_verified(
    admit: str | None, stages: list[str | None]
) -> None:
    phase = phase_of(admit, stages)
    assert (phase == "verified") is (admit == "success" and stages[-1] == "success")
    assert (phase in ("running", "verified")) <= (admit == "success")
    if admit == "success" and phase != "verified" and "running" in stages:
        assert phase == "running"


def test_a_window_that_will_never_ask_again_holds_no_place_in_the_queue() -> None:
    phases = [phase_of(state, later()) for state in ("removed", "skipped", None)]
    listed = [Slot(customer, phase) for customer, phase in zip("abc", phases, strict=True)]
    assert admitted(listed, usual(max_parallel=1)) == [2]


WORKS = st.lists(st.builds(Work, st.just("acme"), st.booleans(), st.booleans()), min_size=1, max_size=12)


@given(WORKS, st.integers(1, 5))
def test_jobs_that_are_made_at_once_stay_within_the_limit(works: list[Work], limit: int) -> None:
    works = [Work(w.label, w.working, w.waiting and not w.working) for w in works]
    making = [i for i, w in enumerate(works) if w.waiting and judge_job(i, works, limit).state == "ok"]
    working = sum(w.working for w in works)
    waiting = [i for i, w in enumerate(works) if w.waiting]
    assert making == waiting[: max(0, limit - working)]
    for index in set(waiting) - set(making):
        assert f"of {limit} windows work" in judge_job(index, works, limit).text


@pytest.mark.parametrize("opener", ["failed", "upstream_failed", "skipped", "removed"])
def test_a_window_whose_batch_is_never_opened_takes_no_place_and_is_no_failure(opener: str) -> None:
    assert phase_of(None, [None], opener) == "closed"
    # Once it has begun its own tasks say how far it is.
    assert phase_of("success", ["running"], opener) == "running"
    assert phase_of("failed", [None], opener) == "failed"
    listed = [Slot("a", "closed"), Slot("a", "waiting")]
    assert judge(1, listed, usual(1, max_failures=1)).state == "ok"


@pytest.mark.parametrize("opener", [None, "deferred", "scheduled", "queued", "running", "up_for_retry", "success"])
def test_a_window_whose_batch_may_still_be_opened_waits(opener: str | None) -> None:
    assert phase_of(None, [None], opener) == "waiting"


def opening(text: str, closed: set[int], limits: Limits) -> tuple[str, str]:
    found = survey(slots(text), limits).judge_opening(closed)
    return found.state, found.text


def test_a_batch_is_opened_when_fewer_open_windows_wait_than_may_go_at_once() -> None:
    limits = usual(2, 3)
    assert opening("a.r a.r a.w a.w b.w", {4}, limits)[0] == "wait"
    assert opening("a.r a.r a.w a.v b.w", {4}, limits)[0] == "ok"
    # Windows of the batch itself and of later ones do not count.
    assert opening("a.r a.r a.w b.w b.w", {3, 4}, limits)[0] == "ok"


def test_a_batch_is_opened_at_once_when_the_turn_of_one_of_its_windows_has_come() -> None:
    # Three open windows wait for the ones of their customer; a slot is free, and the next in turn is closed.
    assert opening("a.r a.w a.w a.w b.w", {4}, usual(2))[0] == "ok"
    assert opening("a.r a.w a.w a.w b.w", {4}, usual(1))[0] == "wait"


def test_what_the_breaker_forbids_is_not_opened() -> None:
    state, text = opening("a.f b.w", {1}, usual(2, max_failures=1))
    assert (state, "clear the failed ones, then this task" in text) == ("failed", True)
