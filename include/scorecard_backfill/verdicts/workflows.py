"""Are all Temporal workflows of a window closed, and how?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from include.scorecard_backfill.verdicts.base import Verdict, failed, ok, wait
from include.scorecard_backfill.verdicts.causes import decisive

Status = Literal["running", "completed", "failed", "timed_out", "terminated", "canceled", "continued_as_new", "missing"]
"""Words of Temporal's WorkflowExecutionStatus; ``missing``: the server does not know the id."""

_CREATED = re.compile(
    r"Created reindex conversations job: name=(?P<name>\S+?), execution_id=(?P<id>\S+?), cluster=(?P<cluster>\S+)"
)


@dataclass(frozen=True, slots=True)
class Execution:
    """Latest run of one workflow id. ``done``/``total`` are conversations from heartbeat details, None if unknown.

    ``started``/``closed``: epoch seconds, 0 if not (yet) known.
    """

    workflow_id: str
    status: Status
    run_id: str = ""
    failure: str = ""
    cause: str = ""
    done: int | None = None
    total: int | None = None
    started: float = 0.0
    closed: float = 0.0


def created_workflows(log_lines: Iterable[str]) -> list[str]:
    """Return the workflow ids of the Job's log lines, in order, each once; lines of any other form are ignored.

    >>> created_workflows(["x Created reindex conversations job: name=a/b, execution_id=w-1, cluster=c"])
    ['w-1']
    """
    found = (match.group("id") for line in log_lines if (match := _CREATED.search(line)))
    return list(dict.fromkeys(found))


def minutes_of(executions: Iterable[Execution]) -> float:
    """Return the minutes from the first start to the last end of closed workflows, 0 when one of them is not known."""
    listed = list(executions)
    if not listed or any(not e.started or not e.closed for e in listed):
        return 0.0
    return round((max(e.closed for e in listed) - min(e.started for e in listed)) / 60, 2)


def belongs_to(workflow_id: str, *, prefix: str, customer_id: str, profiles: Iterable[str]) -> bool:
    """Return True when an id is ``<prefix>-<customer>-<profile>-<uuid>`` of exactly this customer.

    A prefix match alone would also take ``acme-sandbox`` for ``acme``.

    >>> uuid = "0b7f2a34-0000-4000-8000-000000000001"
    >>> belongs_to(f"reindex-acme-sandbox-voice-{uuid}", prefix="reindex", customer_id="acme", profiles=["voice"])
    False
    """
    tail = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    return any(
        re.fullmatch(f"{re.escape(f'{prefix}-{customer_id}-{profile}-')}{tail}", workflow_id) for profile in profiles
    )


def classify(failure_text: str, status: str) -> str:
    """Return the cause word of a failure: by its text first, then by the closing status."""
    text = failure_text.lower()
    if "heartbeat" in text:
        return "heartbeat_timeout"
    if "40p01" in text or "deadlock" in text:
        return "deadlock"
    if "start_to_close" in text or "starttoclose" in text or "start-to-close" in text:
        return "start_to_close_timeout"
    return {"timed_out": "workflow_timeout", "terminated": "terminated", "canceled": "canceled"}.get(
        status, "workflow_failed"
    )


def judge(expected: Sequence[str], executions: Mapping[str, Execution]) -> Verdict:
    """Decide a window: ok only when every expected id is known and completed; an empty list is never ok.

    Failures are reported only once no workflow is open any more: a cut or a retry must not run beside one.
    """
    if not expected:
        return failed(
            "too_few_workflows", "the Job named no workflow and the query found none: nothing proves a reindex"
        )
    states = [executions.get(i, Execution(i, "missing")) for i in expected]
    open_ones = [e for e in states if e.status in ("running", "continued_as_new")]
    bad = [e for e in states if e.status in ("failed", "timed_out", "terminated", "canceled")]
    missing = [e for e in states if e.status == "missing"]
    if open_ones:
        notes = [_progress(e) for e in open_ones[:5]]
        if bad:
            notes.append(f"{len(bad)} failed already")
        return wait(f"{len(open_ones)} of {len(states)} workflows open", *notes)
    if bad:
        cause = decisive(e.cause for e in bad) or "workflow_failed"
        return failed(cause, *(f"{e.workflow_id} (run {e.run_id}) {e.status}: {e.failure or 'no detail'}" for e in bad))
    if missing:
        return failed(
            "workflows_gone",
            *(f"{e.workflow_id} is not known to the server (retention, or never started)" for e in missing),
        )
    return ok(f"{len(states)} workflows completed")


def _progress(execution: Execution) -> str:
    if execution.done is None or not execution.total:
        return f"{execution.workflow_id} {execution.status}"
    return f"{execution.workflow_id} {execution.done} of {execution.total} conversations"
