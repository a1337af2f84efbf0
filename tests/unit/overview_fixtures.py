"""Facts of invented runs for the tests of the read model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from include.scorecard_backfill.graph import stages_of
from include.scorecard_backfill.overview.facts import Approval, Planned, Result, RunFacts, TaskFact, WindowFacts
from include.scorecard_backfill.verdicts.admission import Limits

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STAGES = stages_of("delete_first")


def at(minutes: float) -> datetime:
    """The moment so many minutes after the run's start."""
    return NOON + timedelta(minutes=minutes)


def planned(customer: str, start: str = "2026-01-01", end: str = "2026-02-01", **fields: Any) -> Planned:
    """A window of the plan with 1,000 conversations and 100 scorecards."""
    key = fields.pop("key", f"{customer}-{start}-{end}")
    fields = {"conversations": 1_000, "rows": {"scorecard": 100}, "databases": (f"{customer}_main",), **fields}
    return Planned(key, customer, start, end, **fields)


def window(
    what: Planned, done: int = 0, now: str | None = None, *, group: str = "windows", index: int = 0, **more: Any
) -> WindowFacts:
    """A window whose first ``done`` stages have succeeded, one minute each from minute 10 on; the next is ``now``."""
    tasks: dict[str, TaskFact] = {
        stage: TaskFact("success", at(10 + i), at(11 + i), 1) for i, stage in enumerate(STAGES[:done])
    }
    results: dict[str, Result] = {}
    if done > 1:
        rows = {"scorecard": 100}
        results["delete"] = Result(what.key, "deleted", at=at(11.5), rows_before=rows, statements=1)
    if done > 3:
        results["reindex"] = Result(what.key, "reindexed", attempt=1, job_name=f"reindex-{what.customer_id}-a1")
    if done > 4:
        results["wait_workflows"] = Result(what.key, "completed", minutes=1.0, attempt=1, workflow_ids=("w-1",))
    if done > 5:
        tables = {"scorecard": {"before": 100, "after": 90, "removed": 10}}
        results["verify"] = Result(what.key, "verified", tables=tables)
    if done < len(STAGES):
        tasks[STAGES[done]] = TaskFact(now, at(10 + done) if now else None, None, 1, more.pop("waits_for", ""))
        if now == "failed":
            results[STAGES[done]] = Result(what.key, "failed", "heartbeat_timeout", "no heartbeat for 300 s")
            for stage in STAGES[done + 1 :]:
                tasks[stage] = TaskFact("upstream_failed")
    return WindowFacts(what, group, index, tasks, results | more.pop("results", {}), more.pop("seen", {}))


def run(windows: Sequence[WindowFacts], *parts: Sequence[WindowFacts], **fields: Any) -> RunFacts:
    """A cleanup under way, approved by jane."""
    fields = {
        "state": "running",
        "asked_by": "joe",
        "queued": at(0),
        "started": at(0),
        "plan_hash": "0123456789abcdef",
        "run": {"mode": "cleanup", "start_date": "2026-01-01", "end_date": "2026-02-01"},
        "approval": Approval(at(1), at(9), "jane", "Approve"),
        "limits": Limits(max_parallel=2, per_customer=1, max_failures=3),
        "tasks": {"approve": TaskFact("success")},
        **fields,
    }
    return RunFacts("scorecard_backfill__east", "manual__1", "east", passes=(windows, *parts), **fields)
