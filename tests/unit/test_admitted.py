"""What admission and a container have made of a Job that we sent: its window, its limits, the lines of its log."""

from __future__ import annotations

import copy
import doctest
from typing import Any

import pytest

from include.scorecard_backfill import podlog
from include.scorecard_backfill.job import ANNOTATION_CONTAINER, JobRequest, changed_window, cluster_selector
from include.scorecard_backfill.jobtemplate.admitted import remarks, undone
from include.scorecard_backfill.podlog import lines_of

Json = dict[str, Any]
REQUEST = JobRequest(
    key="0" * 16, cluster="us-east-1-prod", run_id="r", customer_id="acme", start="2026-01-01", end="2026-02-01",
    attempt=1, ttl_seconds=600, deadline_seconds=60, extra_env={"LOG_LEVEL": "debug"},
)  # fmt: skip
WINDOW = {
    "REINDEX_START_TIME": "2026-01-01T00:00:00Z",
    "REINDEX_END_TIME": "2026-02-01T00:00:00Z",
    "RUN_ONLY_FOR_CUSTOMER_IDS": "acme",
    "REINDEX_SCORECARDS_CLEAN_UP_BEFORE_WRITE": "false",
}


def job(
    env: Any, *, name: str = "reindex", before: list[Json] | None = None, annotated: str | None = "reindex"
) -> Json:
    return {
        "metadata": {"annotations": {ANNOTATION_CONTAINER: annotated} if annotated else None},
        "spec": {"template": {"spec": {"containers": [*(before or []), {"name": name, "env": env}]}}},
    }


def listed(values: dict[str, Any]) -> list[Json]:
    return [{"name": name, "value": value} for name, value in values.items()]


def test_the_window_is_intact_whatever_admission_has_added() -> None:
    more = [{"name": "HTTP_PROXY", "value": "x"}, *listed(WINDOW), {"name": "LOG_LEVEL", "value": "other"}]
    assert changed_window(job(more), REQUEST) == []
    # Its own container may stand before ours, with another window's variables; without our note the first one is meant.
    proxy = {"name": "proxy", "env": listed({**WINDOW, "RUN_ONLY_FOR_CUSTOMER_IDS": ""})}
    assert changed_window(job(more, before=[proxy]), REQUEST) == []
    assert changed_window(job(more, annotated=None), REQUEST) == []
    assert len(changed_window(job(more, before=[proxy], annotated=None), REQUEST)) == 1


@pytest.mark.parametrize("variable", WINDOW)
def test_each_variable_of_the_window_that_was_changed_taken_away_or_doubled_is_named(variable: str) -> None:
    said = f"container reindex: {variable} is {{}}, not {WINDOW[variable]!r}"
    without = [item for item in listed(WINDOW) if item["name"] != variable]
    assert changed_window(job(without), REQUEST) == [said.format("[]")]
    assert changed_window(job([*without, {"name": variable, "value": ""}]), REQUEST) == [said.format("['']")]
    from_elsewhere = {"name": variable, "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}
    assert changed_window(job([*without, from_elsewhere]), REQUEST) == [said.format("[None]")]
    twice = [*listed(WINDOW), {"name": variable, "value": "x"}]
    assert changed_window(job(twice), REQUEST) == [said.format([WINDOW[variable], "x"])]


@pytest.mark.parametrize(
    "found",
    [
        job([], name="other"),
        {"metadata": {"annotations": {ANNOTATION_CONTAINER: "reindex"}}},
        {"metadata": {"annotations": {ANNOTATION_CONTAINER: "reindex"}}, "spec": None},
        {"metadata": {"annotations": {ANNOTATION_CONTAINER: "reindex"}}, "spec": {"template": None}},
        {"metadata": {"annotations": {ANNOTATION_CONTAINER: "reindex"}}, "spec": {"template": {}}},
        {"metadata": {"annotations": {ANNOTATION_CONTAINER: "reindex"}}, "spec": {"template": {"spec": {}}}},
        {"metadata": {"annotations": {ANNOTATION_CONTAINER: "reindex"}},
         "spec": {"template": {"spec": {"containers": None}}}},
    ],
)  # fmt: skip
def test_a_job_without_our_container_has_no_window(found: Json) -> None:
    assert changed_window(found, REQUEST) == ["container reindex is not in the Job any more"]


def test_a_container_without_variables_has_lost_all_of_the_window() -> None:
    assert [line.split()[2] for line in changed_window(job(None), REQUEST)] == list(WINDOW)


def test_the_jobs_of_a_cluster_are_found_by_their_label() -> None:
    assert cluster_selector("us-east-1-prod") == "scorecard-backfill/cluster=us-east-1-prod"


# -- what undoes our promise, and what is only worth a line ---------------------------------------------------------

SENT: Json = {
    "spec": {
        "parallelism": 1, "completions": 1, "backoffLimit": 0, "ttlSecondsAfterFinished": 600,
        "activeDeadlineSeconds": 60,
        "template": {"spec": {"restartPolicy": "Never", "containers": [
            {"name": "reindex", "command": ["run"], "args": ["a"]}, {"name": "proxy"},
        ]}},
    }
}  # fmt: skip


def answered(*path: Any, value: Any) -> Json:
    """What we sent, with one value changed."""
    found = copy.deepcopy(SENT)
    at: Any = found["spec"]
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("parallelism",), 2), (("completions",), 3), (("backoffLimit",), 6), (("completionMode",), "Indexed"),
        (("podFailurePolicy",), {"rules": []}), (("managedBy",), "kueue.x-k8s.io/multikueue"),
        (("template", "spec", "restartPolicy"), "OnFailure"),
    ],
)  # fmt: skip
def test_what_could_run_the_program_more_than_once_is_named_with_its_field(path: tuple[str, ...], value: Any) -> None:
    assert undone(SENT, answered(*path, value=value), poll_seconds=10) == [
        f"sets spec.{'.'.join(path)} to {value}: more than one pod could write the window; exempt these Jobs"
    ]


@pytest.mark.parametrize(("kept", "gone"), [(0, True), (19, True), (20, False), (600, False), (None, False)])
def test_a_job_that_is_removed_before_it_is_looked_at_could_not_serve(kept: int | None, gone: bool) -> None:
    found = undone(SENT, answered("ttlSecondsAfterFinished", value=kept), poll_seconds=10)
    said = f"removes a Job {kept} s after its end, before it is looked at; exempt these Jobs"
    assert found == ([said] if gone else [])


def test_what_the_api_fills_in_by_itself_undoes_nothing() -> None:
    assert undone(SENT, answered("completionMode", value="NonIndexed"), poll_seconds=10) == []
    assert undone(SENT, SENT, poll_seconds=10) == remarks(SENT, SENT) == []


def test_a_shorter_life_and_another_program_are_worth_a_line() -> None:
    assert remarks(SENT, answered("ttlSecondsAfterFinished", value=599)) == [
        "removes a Job 599 s after its end: one that is not looked at by then is job_gone (ours: 600 s)"
    ]
    assert remarks(SENT, answered("activeDeadlineSeconds", value=59)) == ["ends a Job after 59 s (ours: 60 s)"]
    for field in ("ttlSecondsAfterFinished", "activeDeadlineSeconds"):
        for harmless in (SENT["spec"][field] + 1, None):
            assert remarks(SENT, answered(field, value=harmless)) == []
    containers = ("template", "spec", "containers")
    assert remarks(SENT, answered(*containers, 0, "command", value=["sh"])) == ["changes command of container reindex"]
    assert remarks(SENT, answered(*containers, 0, "args", value=None)) == ["changes args of container reindex"]
    assert remarks(SENT, answered(*containers, 1, "args", value=["x"])) == ["changes args of container proxy"]
    assert remarks(SENT, answered(*containers, 1, "args", value=[])) == []
    both = answered(*containers, value=[{"name": "reindex"}, {"name": "proxy", "command": ["x"]}])
    assert remarks(SENT, both) == [
        "changes command of container reindex",
        "changes args of container reindex",
        "changes command of container proxy",
    ]
    # One that is not there any more, or is there besides, is not about our program.
    assert remarks(SENT, answered(*containers, value=[{"name": "new", "command": ["x"]}, "odd", {}])) == []
    assert remarks(SENT, answered("template", value=None)) == []


# -- lines of a log -------------------------------------------------------------------------------------------------


def test_doctests_hold() -> None:
    assert doctest.testmod(podlog).failed == 0


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        (b"", []),
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\n\n\nb\n\n", ["a", "", "", "b", ""]),
        (b"a  \t\r\n", ["a"]),
        (b"  indented\tcell", ["  indented\tcell"]),
        (b"n\0ul b\x07ell \x7f\xc2\x85.", ["n ul b ell   ."]),
        (b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07shown \x1b]2;t\x1b\\too \x1bMup", ["red shown too up"]),
        ("é日\n".encode(), ["é日"]),
        (b"bad \xff\xfe\n", ["bad ��"]),
        # A carriage return, or a line separator of Unicode, does not make a line of its own.
        ("a\rb\x0bc\u2028d".encode(), ["a b c\u2028d"]),
    ],
)
def test_a_log_is_lines_of_plain_text(raw: bytes, lines: list[str]) -> None:
    assert lines_of(raw, 1_000) == lines


def test_a_line_that_the_server_has_cut_is_left_out() -> None:
    assert lines_of(b"one\ntwo", 7) == ["one"]
    assert lines_of(b"one\ntwo", 6) == ["one"]
    assert lines_of(b"one\ntwo", 8) == ["one", "two"]
    assert lines_of(b"one\ntwo\n", 8) == ["one", "two"]
    assert lines_of(b"one", 3) == []
