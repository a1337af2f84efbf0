"""Are all Temporal workflows of a window closed, and how?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from include.scorecard_backfill.verdicts.base import Verdict, failed, ok, wait
from include.scorecard_backfill.verdicts.causes import decisive
from include.scorecard_backfill.verdicts.started import Ids

Status = Literal[
    "running",
    "paused",
    "continued_as_new",
    "unknown",
    "completed",
    "failed",
    "timed_out",
    "terminated",
    "canceled",
    "missing",
]
"""Words of Temporal's WorkflowExecutionStatus.

``missing``: the server does not know the id. ``unknown``: a status that this version does not know, so it may not be
the end.
"""

BAD_ENDS: frozenset[Status] = frozenset({"failed", "timed_out", "terminated", "canceled"})
CLOSED: frozenset[Status] = BAD_ENDS | {"completed"}
"""States in which a workflow's run has ended. Everything else is open or not known, and is waited for."""

_CREATED = re.compile(
    r"Created reindex conversations job: name=(?P<name>\S+?), execution_id=(?P<id>\S+?), cluster=(?P<cluster>\S+)"
)

_DONE, _TOTAL = "reindexedconversations", "totalconversationcount"
"""Keys of heartbeat details in lower case: ReindexedConversations and TotalConversationCount."""


@dataclass(frozen=True, slots=True)
class Execution:
    """Latest run of one workflow id. ``done``/``total`` are conversations from heartbeat details, None if unknown.

    ``started``/``closed``: epoch seconds, 0 if not (yet) known. ``note``: what the server calls a status that is not
    known.
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
    note: str = ""

    @property
    def open(self) -> bool:
        """True while the run may still write; also for a status that nobody knows here."""
        return self.status not in CLOSED and self.status != "missing"


def created_workflows(log_lines: Iterable[str]) -> list[str]:
    """Return the workflow ids of the Job's log lines, in order, each once; lines of any other form are ignored.

    >>> created_workflows(["x Created reindex conversations job: name=a/b, execution_id=w-1, cluster=c"])
    ['w-1']
    """
    found = (match.group("id") for line in log_lines if (match := _CREATED.search(line)))
    return list(dict.fromkeys(found))


def resource_names(log_lines: Iterable[str]) -> dict[str, str]:
    """Return the resource name that the InternalJobService knows each workflow id of the Job's log by.

    >>> resource_names(["x Created reindex conversations job: name=a/b, execution_id=w-1, cluster=c"])
    {'w-1': 'a/b'}
    """
    found = (match for line in log_lines if (match := _CREATED.search(line)))
    return {match.group("id"): match.group("name") for match in found}


def progress(executions: Iterable[Execution]) -> tuple[int | None, int | None]:
    """Return conversations done and in all over the workflows that say so; None when none of them does."""
    said = [e for e in executions if e.done is not None and e.total]
    if not said:
        return None, None
    return sum(e.done or 0 for e in said), sum(e.total or 0 for e in said)


def minutes_of(executions: Iterable[Execution]) -> float:
    """Return the minutes from the first start to the last end of closed workflows, 0 when one of them is not known."""
    listed = list(executions)
    if not listed or any(not e.started or not e.closed for e in listed):
        return 0.0
    return round((max(e.closed for e in listed) - min(e.started for e in listed)) / 60, 2)


def belongs_to(workflow_id: str, *, prefix: str, customer_id: str, profiles: Iterable[str]) -> bool:
    """Return True when an id is ``<prefix>-<customer>-<profile>-<uuid>`` of exactly this customer and a profile."""
    return bool(Ids(prefix, customer_id, tuple(profiles)).profile_of(workflow_id))


def progress_of(details: Iterable[object]) -> tuple[int | None, int | None]:
    """Return conversations (done, total) of decoded heartbeat details, (None, None) when they do not say.

    Whole numbers from 0 on, or their digits as text, which is how JSON of protobuf writes them; done is at most total.
    """
    for detail in details:
        if isinstance(detail, Mapping):
            fields = {key.lower(): value for key, value in detail.items() if isinstance(key, str)}
            done, total = _count(fields.get(_DONE, 0)), _count(fields.get(_TOTAL))
            if total is not None:
                return (min(done, total) if done is not None else None), total
    return None, None


def _count(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def judge(expected: Sequence[str], executions: Mapping[str, Execution]) -> Verdict:
    """Decide a window: ok only when every expected id is known and completed; an empty list is never ok.

    Failures are reported only once no workflow is open any more: a cut or a retry must not run beside one.
    """
    if not expected:
        return failed(
            "too_few_workflows", "the Job named no workflow and the query found none: nothing proves a reindex"
        )
    states = [executions.get(i, Execution(i, "missing")) for i in expected]
    open_ones = [e for e in states if e.open]
    bad = [e for e in states if e.status in BAD_ENDS]
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
        gone = "is not known to the server (retention, or never started)"
        return failed("workflows_gone", *(f"{e.workflow_id} {gone}" for e in missing))
    return ok(f"{len(states)} workflows completed")


def _progress(execution: Execution) -> str:
    status = execution.status + (f" ({execution.note})" if execution.note else "")
    if execution.done is None or not execution.total:
        return f"{execution.workflow_id} {status}"
    shown = "" if status == "running" else f" ({status})"
    return f"{execution.workflow_id} {execution.done} of {execution.total} conversations{shown}"
