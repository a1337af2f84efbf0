"""The words of the old files: names of fields, of containers and of states, in the spellings that were seen."""

from __future__ import annotations

from typing import Literal

from include.scorecard_backfill.tracking.history import State

Kind = Literal["cluster", "customer", "database", "day", "item"]
"""What the keys of a container are. item: a list, or keys that mean nothing."""

FIELDS: dict[str, str] = {
    "cluster": "cluster",
    "cluster_name": "cluster",
    "environment": "cluster",
    "customer": "customer_id",
    "customer_id": "customer_id",
    "customerid": "customer_id",
    "profile": "profile_id",
    "profile_id": "profile_id",
    "profileid": "profile_id",
    "usecase": "profile_id",
    "database": "database",
    "db": "database",
    "db_name": "database",
    "start": "start",
    "start_date": "start",
    "from": "start",
    "reindex_start_time": "start",
    "range_start": "start",
    "end": "end",
    "end_date": "end",
    "to": "end",
    "reindex_end_time": "end",
    "range_end": "end",
    "date": "day",
    "day": "day",
    "status": "status",
    "state": "status",
    "phase": "status",
    "result": "status",
    "workflow_id": "workflow_id",
    "workflowid": "workflow_id",
    "execution_id": "workflow_id",
    "workflow": "workflow_id",
    "before": "before",
    "before_counts": "before",
    "counts_before": "before",
    "pre_delete": "before",
    "after": "after",
    "after_counts": "after",
    "counts_after": "after",
    "post_backfill": "after",
    "completed_at": "at",
    "finished_at": "at",
    "updated_at": "at",
    "last_updated": "at",
    "updated": "at",
    "error": "reason",
    "failure": "reason",
    "reason": "reason",
    "note": "reason",
    "notes": "reason",
    "message": "reason",
}
"""Spelling in a file (small letters, - as _) -> what it is."""

CONTAINERS: dict[str, Kind] = {
    "clusters": "cluster",
    "customers": "customer",
    "per_customer": "customer",
    "tenants": "customer",
    "databases": "database",
    "dbs": "database",
    "days": "day",
    "dates": "day",
    "daily": "day",
    "workflows": "item",
    "jobs": "item",
    "runs": "item",
    "entries": "item",
    "items": "item",
    "windows": "item",
    "ranges": "item",
    "results": "item",
    "tracking": "item",
    "progress": "item",
}

STATES_OF_LISTS: dict[str, State] = {
    "completed": "done",
    "done": "done",
    "completed_days": "done",
    "completed_customers": "done",
    "failed": "failed",
    "failed_days": "failed",
    "failed_customers": "failed",
    "pending": "pending",
    "pending_days": "pending",
    "remaining": "pending",
    "in_progress": "open",
    "excluded": "excluded",
    "skipped": "excluded",
    "skip": "excluded",
    "deferred": "pending",
}
"""Lists and objects whose name is the state of everything in them."""

WORDS: dict[str, State] = {
    **dict.fromkeys(
        ("completed", "complete", "done", "success", "succeeded", "finished", "ok", "verified", "no_data", "empty"),
        "done",
    ),
    **dict.fromkeys(
        (
            "running",
            "in_progress",
            "started",
            "deleting",
            "deleted",
            "delete_done",
            "mutations_done",
            "backfilling",
            "backfill_started",
            "reindexing",
            "waiting",
            "polling",
            "continued_as_new",
        ),
        "open",
    ),
    **dict.fromkeys(
        ("failed", "failure", "error", "timed_out", "timedout", "timeout", "canceled", "cancelled", "terminated"),
        "failed",
    ),
    **dict.fromkeys(("pending", "todo", "not_started", "queued", "deferred", "reset", "new"), "pending"),
    **dict.fromkeys(("excluded", "skipped", "skip", "ignored"), "excluded"),
}
"""State in a file (small letters, - and blanks as _, without Temporal's prefix) -> ours."""

TEMPORAL_PREFIX = "workflow_execution_status_"

# fmt: off
UNUSED = frozenset(
    {
        "version", "v", "schema", "created", "created_at", "started", "started_at", "start_time",
        "begin_time", "end_time", "duration", "duration_seconds", "elapsed", "attempts", "retries",
        "retry_count", "attempt", "total", "total_customers", "total_days", "count", "counts", "summary",
        "stats", "job", "job_name", "job_names", "jobs_created", "run_id", "namespace", "address", "pid",
        "host", "user", "operator", "mode", "script", "command", "log", "log_file", "conversations",
        "scorecards_removed", "scores_removed", "removed", "deleted_rows", "conversation_count", "reindexed",
        "dry_run", "mutation_id", "mutation_ids", "temporal_cluster", "resource", "name", "id", "index",
        "generated_at", "generated", "tables",
    }
)
# fmt: on
"""Fields that are known and of no use here. Anything else that is not understood is refused by its path."""


def plain(name: str) -> str:
    """A name as the tables above spell it.

    >>> plain("Customer-ID"), plain(" timed out ")
    ('customer_id', 'timed_out')
    """
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def state_of(word: str) -> State | None:
    """The state that a word of the files means, or None.

    >>> state_of("WORKFLOW_EXECUTION_STATUS_TIMED_OUT"), state_of("finito")
    ('failed', None)
    """
    return WORDS.get(plain(word).removeprefix(TEMPORAL_PREFIX))
