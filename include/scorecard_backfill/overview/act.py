"""Which tasks an action of a person means."""

from __future__ import annotations

from include.scorecard_backfill.overview.facts import NO_TASK, RunFacts, TaskFact, WindowFacts
from include.scorecard_backfill.verdicts.admission import LIVE

TaskPlace = tuple[str, int]
"""Task id and map index (-1: not mapped)."""

FAILED = ("failed", "upstream_failed")


class RetryError(ValueError):
    """There is nothing that a retry could clear, or it must not; the text says why."""


def retry_tasks(facts: RunFacts, customer: str | None = None) -> list[TaskPlace]:
    """Return the task instances that a retry clears: the failed ones and those that failed only because of them.

    With ``customer`` only that customer's windows. The report is always cleared, too: it is made of all windows. The
    approval is never cleared when a person has answered it.

    Raises:
        RetryError: the plan was rejected, or nothing (of the customer) has failed.
    """
    if facts.approval is not None and facts.approval.answer == "Reject":
        raise RetryError("The plan was rejected. Start a new run; a retry must not ask again.")
    found = _of_windows(facts, customer)
    common = [(name, -1) for name, task in facts.tasks.items() if task.state in FAILED and name != "report"]
    if customer is None:
        found += [place for place in common if place[0] != "approve" or not _was_asked(facts)]
    if not found and (reasons := _not_opened(facts, customer)):
        raise RetryError(
            f"Nothing of {customer} was begun: {reasons[0]}. That opens the batch for every customer in it."
        )
    if not found:
        who = f" of {customer}" if customer is not None else ""
        raise RetryError(f"Nothing{who} has failed that could be retried.")
    return [*found, *([("report", -1)] if facts.tasks.get("report", NO_TASK).state in FAILED else [])]


def _of_windows(facts: RunFacts, customer: str | None) -> list[TaskPlace]:
    """Return the failed tasks of windows; those of a window that was cut are done by its parts."""
    windows = [w for windows in facts.passes for w in windows]
    cut = {w.window.part_of for w in windows}
    return [
        (task_id, window.index)
        for window in windows
        if window.window.key not in cut and customer in (None, window.window.customer_id)
        for task_id, task in every_task(window)
        if task.state in FAILED
    ]


def _not_opened(facts: RunFacts, customer: str | None) -> list[str]:
    """Return why windows of this customer do not exist yet and never will without a person."""
    windows = [w for windows in facts.passes for w in windows if w.window.customer_id == customer]
    return [w.not_opened for w in windows if w.not_opened]


def every_task(window: WindowFacts) -> list[tuple[str, TaskFact]]:
    """Return all tasks of a window; those without work fail with the ones before them, too."""
    stages = [(window.task_id(stage), task) for stage, task in window.tasks.items()]
    return stages + [(f"{window.group}.{task_id}", task) for task_id, task in window.idle.items()]


def _was_asked(facts: RunFacts) -> bool:
    return facts.approval is not None and facts.approval.asked_at is not None


def job_task(facts: RunFacts, key: str) -> tuple[str, int, str] | None:
    """Return task id, map index and label of the window's task that waits for a live Job, None when none does."""
    for windows in facts.passes:
        for window in windows:
            if window.window.key != key:
                continue
            for stage in window.window.stages:
                task = window.tasks.get(stage, NO_TASK)
                if task.state in LIVE and task.waits_for == "job_ended":
                    return window.task_id(stage), window.index, window.window.label
    return None
