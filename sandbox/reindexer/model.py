"""Names and records shared by workflow, activities and the reindex Job. Light: no temporalio import."""

from __future__ import annotations

from dataclasses import dataclass, field

WORKFLOW_TYPE = "ReindexConversations"
PREPARE_ACTIVITY = "PrepareReindexConversations"
REINDEX_ACTIVITY = "ReindexConversations"

PROGRESS_DONE = "ReindexedConversations"
"""Heartbeat detail: conversations written so far."""

PROGRESS_TOTAL = "TotalConversationCount"
"""Heartbeat detail: conversations of the workflow's range."""


def task_queue(cluster: str) -> str:
    """Task queue of a cluster's worker."""
    return f"reindex-{cluster}"


def workflow_id(customer_id: str, profile_id: str, unique: str) -> str:
    """Workflow id as the real Job makes it; `unique` is a UUID text."""
    return f"reindexconversations-{customer_id}-{profile_id}-{unique}"


@dataclass(frozen=True)
class ReindexRequest:
    """Input of the workflow. start inclusive and end exclusive, RFC 3339 with an offset.

    options: environment of the Job that the workflow only records, such as REINDEX_MODE.
    """

    customer_id: str
    profile_id: str
    start: str
    end: str
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Directive:
    """What goes wrong in one workflow run; the default is nothing.

    failure: a failing kind of sandbox.reindexer.faults or "". attempts: how many attempts of the activity fail
    (0 = all). seconds_per_batch: extra time per batch. drop_share: 0..1 of the scorecards that are silently
    not written. hold_rule: id of the rule that holds the activity until the rule is gone from the file.
    """

    failure: str = ""
    message: str = ""
    attempts: int = 0
    seconds_per_batch: float = 0.0
    drop_share: float = 0.0
    hold_rule: str = ""
    fired: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ReindexPlan:
    """Result of the prepare activity: everything the workflow needs to stay deterministic.

    part_end: end of this run's part of the range (exclusive), "" when the run does the whole range; the rest
    is done by continue-as-new. Times in seconds.
    """

    total: int
    directive: Directive
    heartbeat_timeout: float
    start_to_close_timeout: float
    max_attempts: int
    part_end: str = ""


@dataclass(frozen=True)
class ReindexResult:
    """Result of the workflow (of its last run after continue-as-new): counts of what was written."""

    conversations: int
    scorecards: int
    scores: int
