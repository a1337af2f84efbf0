"""The demo's reckoning: a run is right only if every count is, and whatever is missing is said."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sandbox.airflow_api import TaskState
from sandbox.data.truth import TableTruth
from sandbox.demo_table import STAGES, compare, problems, progress_line, table_lines, window_places

TRUTH = {
    "acme": {"scorecard": TableTruth(309, 278), "score": TableTruth(1_065, 948)},
    "globex.eu": {"scorecard": TableTruth(142, 135), "score": TableTruth(492, 468)},
}


def customer(name: str, windows: int = 1) -> dict[str, Any]:
    """Return a customer's part of a report that agrees with the truth."""
    tables = {
        table: {"before": counts.before, "after": counts.after, "removed": counts.removed}
        for table, counts in TRUTH[name].items()
    }
    return {"customer_id": name, "windows": windows, "verified": windows, "tables": tables}


def right_report() -> dict[str, Any]:
    """Return a report that agrees with the truth."""
    windows = [{"label": f"window {n}", "status": "verified", "note": ""} for n in range(3)]
    return {"planned": 3, "verified": 3, "customers": [customer("acme", 2), customer("globex.eu")], "windows": windows}


def judged(report: dict[str, Any]) -> list[str]:
    """Return the problems of a report."""
    return problems(report, compare(report, TRUTH))


def task(stage: str, state: str | None, index: int = 0, group: str = "windows") -> TaskState:
    """Return one task instance of a window."""
    return TaskState(f"{group}.{stage}", index, state, 1, "", "")


def window(states: list[str | None], index: int, group: str = "windows") -> list[TaskState]:
    """Return the task instances of one window, by the states of its stages."""
    return [task(stage, state, index, group) for stage, state in zip(STAGES, states, strict=True)]


def test_right_report_has_no_problem() -> None:
    assert judged(right_report()) == []


@pytest.mark.parametrize(("field", "change"), [("before", 1), ("after", -1), ("removed", 1), ("removed", -1)])
def test_one_row_more_or_less_is_a_problem_with_its_place(field: str, change: int) -> None:
    report = right_report()
    report["customers"][1]["tables"]["score"][field] += change
    (problem,) = judged(report)
    assert problem.startswith("globex.eu, table score: the report has")
    assert "the truth 492 before, 468 after, 24 removed" in problem


def test_customer_without_report_is_a_problem() -> None:
    report = right_report()
    del report["customers"][0]
    assert len(judged(report)) == 2
    assert all("acme, table" in text and "the report has nothing" in text for text in judged(report))


def test_customer_without_truth_is_a_problem() -> None:
    report = right_report()
    extra = copy.deepcopy(report["customers"][0]) | {"customer_id": "hooli"}
    report["customers"].append(extra)
    assert any(text.startswith("hooli, table score") and text.endswith("the truth nothing") for text in judged(report))


def test_table_without_report_is_a_problem() -> None:
    report = right_report()
    del report["customers"][0]["tables"]["score"]
    assert len(judged(report)) == 1


def test_open_window_is_a_problem_with_its_reason() -> None:
    report = right_report()
    report["verified"] = 2
    report["windows"][1] |= {"status": "deleted, not yet reindexed", "note": "wait_workflows: canceled"}
    assert judged(report) == [
        "1 of 3 windows are not verified",
        "window 1: deleted, not yet reindexed wait_workflows: canceled",
    ]


def test_run_without_windows_is_a_problem_even_if_nothing_was_expected() -> None:
    report = {"planned": 0, "verified": 0, "customers": [], "windows": []}
    assert problems(report, compare(report, {})) == [
        "the run planned no window",
        "neither report nor truth has a customer with rows",
    ]


def test_table_shows_every_row_and_the_totals() -> None:
    lines = table_lines(compare(right_report(), TRUTH))
    assert lines[0].split() == ["customer", "windows", "table", "before", "after", "removed", "expected"]
    assert "acme 2/2 score 1,065 948 117 117 ok" in [" ".join(line.split()) for line in lines]
    assert [" ".join(line.split()) for line in lines[-2:]] == [
        "all score 1,557 1,416 141 141 ok",
        "all scorecard 451 413 38 38 ok",
    ]
    assert len(lines) == 2 + 4 + 2


def test_table_marks_what_is_wrong_and_its_total() -> None:
    report = right_report()
    report["customers"][0]["tables"]["score"]["removed"] = 118
    report["customers"][1]["tables"] = {}
    lines = [" ".join(line.split()) for line in table_lines(compare(report, TRUTH))]
    assert "acme 2/2 score 1,065 948 118 117 WRONG" in lines
    assert "globex.eu 1/1 scorecard - - - 7 WRONG" in lines
    assert lines[-2].endswith("WRONG")


def test_window_is_where_its_first_unfinished_stage_is() -> None:
    tasks = [
        *window(["deferred", None, None, None, None, None], 0),
        *window(["success", "success", "deferred", None, None, None], 1),
        *window(["success"] * 6, 2),
        *window(["success", "failed", *["upstream_failed"] * 4], 3),
        *window(["success", "success", "success", "up_for_retry", None, None], 4),
    ]
    assert window_places(tasks, "windows") == {
        "admit": 1, "wait_mutations": 1, "verified": 1, "failed": 1, "reindex": 1,
    }  # fmt: skip
    assert window_places(tasks, "smaller_windows") == {}


def test_progress_is_in_the_order_of_the_stages_and_knows_both_groups() -> None:
    tasks = [
        *window(["success"] * 6, 0),
        *window(["deferred", None, None, None, None, None], 1),
        *window(["success", "running", None, None, None, None], 0, "smaller_windows"),
    ]
    assert progress_line(tasks) == "windows (2): admit 1, verified 1; smaller windows (1): delete 1"


def test_no_progress_before_windows_are_mapped() -> None:
    tasks = [task(stage, None, index=-1) for stage in STAGES] + [TaskState("plan", -1, "running", 1, "", "")]
    assert progress_line(tasks) == ""
