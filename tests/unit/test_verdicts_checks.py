"""What a check of the cluster or of the connections says, whole: two sources that disagree, health, clocks."""

from __future__ import annotations

import pytest

from include.scorecard_backfill.config import HealthConfig, Hysteresis
from include.scorecard_backfill.verdicts import agreement, health
from include.scorecard_backfill.verdicts.agreement import JobSeen
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.remedies import Line, markdown, skew_line


def test_what_is_said_when_the_two_sources_disagree_or_one_is_silent() -> None:
    jobs = {
        "a": JobSeen("a", "SUCCEEDED", "done"), "b": JobSeen("b", "RUNNING", "open"),
        "c": JobSeen("c", "ODD", "unknown"), "d": None,
    }  # fmt: skip
    assert agreement.agreement({"a": "done"}, jobs) == agreement.Agreement(True)
    assert agreement.agreement({}, {}) == agreement.Agreement(True, "")
    assert agreement.agreement({"d": "done", "c": "done", "e": "done", "a": "done"}, jobs) == agreement.Agreement(
        None,
        "the InternalJobService does not confirm it: c: state 'ODD' is not known here; d: no answer; e: no answer",
    )
    assert agreement.agreement({"b": "done", "a": "failed", "c": "done"}, jobs) == agreement.Agreement(
        False,
        "Temporal and the InternalJobService disagree: a: Temporal says failed, the InternalJobService says SUCCEEDED;"
        " b: Temporal says done, the InternalJobService says RUNNING",
    )
    many = {f"j{n}": None for n in range(7)}
    five = "; ".join(f"j{n}: no answer" for n in range(5))
    assert agreement.agreement(dict.fromkeys(many, "done"), many).reason == (
        f"the InternalJobService does not confirm it: {five}; and 2 more"
    )
    del many["j6"], many["j5"]
    assert agreement.agreement(dict.fromkeys(many, "done"), many).reason.endswith("j4: no answer")


@pytest.mark.parametrize(
    ("word", "ending"),
    [
        *((word, "open") for word in ("NOT_STARTED", "INCOMPLETE", "running", "PENDING", "QUEUED", "STARTED",
                                      "IN_PROGRESS", "PROCESSING", "ACTIVE", "CREATED")),
        *((word, "failed") for word in ("FAILED", "ERROR", "CANCELLED", "TERMINATED", "ABORTED", "TIMED_OUT",
                                        "TIMEOUT", "expired")),
        *((word, "done") for word in ("SUCCEEDED", "SUCCESS", "COMPLETED", "DONE", "finished")),
        ("", "unknown"),
        ("STATE_UNSPECIFIED", "unknown"),
    ],
)  # fmt: skip
def test_a_state_of_the_job_service_is_read_by_its_words(word: str, ending: str) -> None:
    assert agreement.ending_of(word) == agreement.ending_of(f"JOB_STATE_{word}") == ending


HEALTH = HealthConfig(
    unfinished_mutations=Hysteresis(stop_above=10, resume_below=5),
    active_parts=Hysteresis(stop_above=200, resume_below=100),
    replication_queue=Hysteresis(stop_above=20, resume_below=10),
    running_workflows=Hysteresis(stop_above=40, resume_below=30),
    min_free_disk_bytes=2_000_000,
)


def test_what_is_said_of_a_cluster_that_is_not_well() -> None:
    nothing = health.Gate({})
    unknown = health.judge({}, HEALTH, nothing)
    assert unknown.text == (
        "the cluster's unfinished mutations are not known; the cluster's active parts in one partition are not known;"
        " the cluster's entries in the replication queue are not known; the cluster's open reindex workflows are not"
        " known; the cluster's free bytes on disk are not known"
    )
    at = {
        "unfinished_mutations": health.Reading(11, "ch-1"), "active_parts": health.Reading(201, "ch-2"),
        "replication_queue": health.Reading(21, "ch-3"), "running_workflows": health.Reading(41),
        "free_disk_bytes": health.Reading(1_999_999, "ch-4"),
    }  # fmt: skip
    closed = health.judge(at, HEALTH, nothing)
    assert tuple(closed.closed.values()) == (
        "11 unfinished mutations on ch-1 (more than 10)",
        "201 active parts in one partition on ch-2 (more than 200)",
        "21 entries in the replication queue on ch-3 (more than 20)",
        "41 open reindex workflows (more than 40)",
        "1,999,999 free bytes on disk on ch-4 (less than 2,000,000)",
    )
    assert not closed.open
    below = {name: health.Reading(reading.value - 1, reading.host) for name, reading in at.items()}
    below["free_disk_bytes"] = health.Reading(2_000_000)
    assert health.judge(below, HEALTH, nothing).open
    assert tuple(health.judge(below, HEALTH, closed).closed.values()) == (
        "10 unfinished mutations on ch-1 (goes on below 5)",
        "200 active parts in one partition on ch-2 (goes on below 100)",
        "20 entries in the replication queue on ch-3 (goes on below 10)",
        "40 open reindex workflows (goes on below 30)",
    )
    no_host = health.judge(at | {"free_disk_bytes": health.Reading(5)}, HEALTH, nothing)
    assert no_host.closed["free_disk_bytes"] == "5 free bytes on disk (less than 2,000,000)"


def test_a_clock_within_its_tolerance_works_and_one_beyond_it_is_told_with_what_may_come_of_it() -> None:
    near = skew_line("demo", "clickhouse", 5.0, 5.0)
    assert near == Line("demo", "clickhouse", "works", "clock 5.0 s ahead of this machine's", "")
    assert skew_line("demo", "temporal", -5.0, 5.0).text == "clock 5.0 s behind this machine's"
    assert skew_line("demo", "temporal", 0.0, 5.0).text == "clock 0.0 s ahead of this machine's"
    assert skew_line("demo", "kubernetes", -7.25, 5.5) == Line(
        "demo", "kubernetes", "broken",
        "clock 7.2 s behind this machine's, more than 5.5 s: rows and workflows could be taken for older or newer than"
        " they are",
        "Set the clocks: NTP on the hosts that differ.",
    )  # fmt: skip


def test_the_table_of_a_check_is_sorted_by_state_then_cluster_then_system() -> None:
    lines = [
        Line("b", "temporal", "broken", "t1", "do | this"), Line("a", "temporal", "look", "t2"),
        Line("b", "kubernetes", "broken", "t3"), Line("a", "temporal", "broken", "t4"),
        Line("a", "file", "works", "t5"),
    ]  # fmt: skip
    assert markdown(lines) == (
        "| | cluster | system | what | what to do |\n"
        "|---|---|---|---|---|\n"
        "| broken | a | temporal | t4 |  |\n"
        "| broken | b | kubernetes | t3 |  |\n"
        "| broken | b | temporal | t1 | do / this |\n"
        "| look | a | temporal | t2 |  |\n"
        "| works | a | file | t5 |  |"
    )


def test_a_host_is_listed_by_no_other_name_unless_it_is_said() -> None:
    assert Host("ch-1", 2).listed == ""
