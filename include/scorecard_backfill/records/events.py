"""What a trigger tells the worker that it wakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from include.scorecard_backfill.records.base import Record, RecordError, plain
from include.scorecard_backfill.records.results import Deleted, Failure, WorkflowsClosed
from include.scorecard_backfill.records.window import Window


class Event(Record):
    """Base of what a trigger tells the worker that it wakes."""


class FailEvent(Event):
    """End the task with this failure: a worker does it, so that Airflow's retries do not repeat it."""

    kind: Literal["fail_event"] = "fail_event"
    failure: Failure


class ResendEvent(Event):
    """Send the DELETE again under the next generation."""

    kind: Literal["resend_event"] = "resend_event"
    deleted: Deleted
    generation: int


class ReindexEvent(Event):
    """Make the next attempt of the reindex; ``attempt`` is the one that has failed."""

    kind: Literal["reindex_event"] = "reindex_event"
    window: Window
    attempt: int


class ClosedEvent(Event):
    """The workflows of a reindex that this task has made are closed; go on with what it was made for."""

    kind: Literal["closed_event"] = "closed_event"
    closed: WorkflowsClosed


class GoEvent(Event):
    """What was waited for before the next step has come: look at everything afresh."""

    kind: Literal["go_event"] = "go_event"
    key: str
    why: str


class JobEvent(Event):
    """The end of a Job: ``outcome`` by its conditions, last lines of its pod, workflow ids that its log names.

    ``made_at`` and ``ended_at`` are epoch seconds by the API server's clock (``ended_at`` 0: not known); ``uid`` is the
    Job's, ``owner`` the text of the try that waited for it; ``do`` is what a person does about a failure.
    """

    kind: Literal["job_event"] = "job_event"
    key: str
    job_name: str
    attempt: int
    made_at: float
    uid: str = ""
    owner: str = ""
    ended_at: float = 0.0
    outcome: Literal["complete", "failed", "timeout", "gone", "refused", "unknown"]
    cause: str = ""
    message: str = ""
    log_tail: tuple[str, ...] = ()
    workflow_ids: tuple[str, ...] = ()
    resources: dict[str, str] = Field(default_factory=dict)
    do: str = ""


_EVENTS: Mapping[str, type[Event]] = {
    one.model_fields["kind"].default: one
    for one in (FailEvent, ResendEvent, ReindexEvent, ClosedEvent, GoEvent, JobEvent)
}


def read_event(value: object) -> Event:
    """Return the event that woke a worker. Raises RecordError for anything else."""
    found = plain(value)
    kind = found.get("kind") if isinstance(found, Mapping) else None
    if not isinstance(kind, str) or kind not in _EVENTS:
        raise RecordError(f"an event is wanted, {str(found)[:200]!r} came")
    return _EVENTS[kind].from_json(found)
