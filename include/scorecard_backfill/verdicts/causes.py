"""Why a window may fail: one table, which decides for everybody what is size, what a clear does and what a person does.

Size, by what has been seen in production: windows of the customers with 4.2M and 2.6M conversations a month failed by
heartbeat time-outs and by Postgres deadlocks (40P01), as whole months and as ten days; single days, one at a time, went
through. A deadlock therefore is size *and* may be repeated: 60 workflows at once gave deadlocks, too, and there the
same window succeeds once fewer run beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Repeat = Literal["reindex", "delete", "look", "never"]

CLEARS: Mapping[Repeat, str] = MappingProxyType({
    "reindex": "makes a new reindex, once nothing of the old attempt runs",
    "delete": "sends the DELETE again under the next generation, once nothing of the old one runs",
    "look": "looks at the facts again and goes on from there",
    "never": "changes nothing until a person has acted",
})  # fmt: skip
"""What clearing the failed task does."""

ANY = ("any stage",)
DELETES = ("delete", "wait_mutations")
MAKES_JOB = ("reindex", "wait_workflows", "verify")
"""wait_workflows and verify make a Job, too, when they are cleared."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason to fail.

    ``repeat``: what a clear of the failed task does. ``stages``: where it is seen. ``means``: what has happened.
    ``do``: what a person does, in one to three sentences. ``size``: a smaller window cures it.
    """

    name: str
    repeat: Repeat
    stages: tuple[str, ...]
    means: str
    do: str
    size: bool = False


_LISTED = (
    # Any stage
    Cause("configuration", "look", ANY,
        "The cluster's file, a connection or what an earlier stage left behind cannot be used.",
        "Correct what is named, then clear the task."),
    Cause("access_denied", "look", ANY,
        "A server no longer accepts our account, or the account may not do this.",
        "Renew the key or grant the right of the connection that is named, then clear the task."),
    Cause("outage", "look", ANY,
        "A service was unreachable for longer than its outage_seconds.",
        "Clear the task when the service is back."),
    Cause("deadline", "look", ANY,
        "It was not decided within the time of this try.",
        "Read the reasons in front of it: they say what was waited for. Clear the task to wait on."),
    Cause("error", "look", ANY,
        "A server gave an answer that no rule knows.",
        "Read the text in the log; clear the task to ask again. If it comes back, report it with that text."),
    Cause("unreadable", "look", ANY,
        "What the stage left was written by another release.",
        "Run this release's stage again by clearing it, or go back to the release that wrote it."),
    # Before anything is deleted
    Cause("preflight_failed", "look", ("preflight",),
        "A connection, a right or a service is missing; nothing was deleted.",
        "Correct what is named, then clear preflight."),
    Cause("plan_refused", "never", ("plan",),
        "The run's input cannot be planned: unknown customer, two owners of one database, a missing table, or too"
        " many windows. Nothing was deleted.",
        "Start a new run with corrected input."),
    Cause("approval_rejected", "never", ("approve",),
        "A person rejected the plan; nothing was deleted.",
        "Start a new run when you want another plan."),
    Cause("approval_changed", "never", ("delete", "wait_mutations", "reindex"),
        "What would run is not what was approved: the cluster's file, the statement or the plan has changed since.",
        "Undo the change and clear the task, or start a new run: in this one Airflow would show the old plan again."),
    Cause("breaker", "look", ("admit",),
        "Too many windows have failed, so no further one is started.",
        "Find what the failed ones have in common and correct it; then clear only what failed in the run (tab Backfill:"
        " Retry what failed): that starts the waiting ones, too."),
    # Counting and deleting
    Cause("counts_unsettled", "look", ("delete", "verify"),
        "A host did not answer a count, or the replicas of a shard do not agree.",
        "Look at the replication queue of the host that is named; clear the task when its replica has caught up."),
    Cause("snapshot_failed", "look", ("delete",),
        "The copy of the rows could not be made or is not complete; nothing was deleted.",
        "Correct what is named (room on disk, rights on the snapshot database), then clear delete."),
    Cause("table_crowded", "look", ("delete",),
        "Somebody else has unfinished mutations on this table.",
        "Find out whose they are; clear delete when they are done."),
    Cause("delete_refused", "look", DELETES,
        "ClickHouse refuses the DELETE; nothing was queued.",
        "Wait for the other ALTERs or mutations that it names (codes 517 and 692) or grant what is missing, then"
        " clear delete."),
    Cause("delete_unknown", "delete", DELETES,
        "The DELETE was sent, its answer was lost, and no host has it.",
        "Clear the task: it looks once more and sends the DELETE only if no host has it."),
    Cause("earlier_delete_running", "look", DELETES,
        "A host still executes an earlier DELETE of this window; a new one could overtake it.",
        "Look at system.processes of the host that is named; clear the task when it has ended."),
    Cause("would_delete_new_rows", "never", DELETES,
        "The DELETE would also take rows that were written after the window's reindex began.",
        "Decide whether these rows may go; if so, start a new run for these days and approve it."),
    Cause("killed", "delete", DELETES,
        "The mutation was killed; rows may remain.",
        "Clear the task."),
    Cause("killed_late", "look", ("verify",),
        "The mutation was killed after the reindex had begun; rows from before the DELETE may remain.",
        "Clear wait_mutations, and once more when it asks: it sends the DELETE again if that cannot take new rows;"
        " where it refuses, start a new run for these days."),
    Cause("not_picked_up", "delete", DELETES,
        "A host never took the DELETE from the DDL queue.",
        "Check that the host runs and that its name is the one in the cluster's definition, then clear the task."),
    Cause("rows_left", "delete", ("wait_mutations",),
        "Every mutation is done, yet rows of the window are still there.",
        "Find out whether somebody writes into this window, then clear wait_mutations."),
    Cause("rows_spooled", "look", ("wait_mutations", "verify"),
        "Rows written before the DELETE are still on their way (a Distributed table's queue, asynchronous inserts, a"
        " Buffer table) and would arrive after it.",
        "Look at the table and host that are named (system.distribution_queue, system.asynchronous_inserts), or let"
        " this user flush them; clear the task when nothing waits there."),
    Cause("fail_reason", "look", DELETES,
        "The mutation fails on the host that is named.",
        "Remove the reason; its command in system.mutations holds backfill:<window key>. If it must go, kill it"
        " with the statement in the log. Then clear the task."),
    Cause("stalled", "look", DELETES,
        "The mutation has made no progress for longer than mutation_stall_seconds.",
        "Look at merges and disk of the host that is named. If it must go, kill it with the statement in the log."
        " Then clear the task."),
    # The Job
    Cause("job_refused", "look", MAKES_JOB,
        "The Job cannot be made: the CronJob's template holds what we may not run, or Kubernetes refuses it.",
        "Correct the field that is named, then clear the task."),
    Cause("quota_exceeded", "look", MAKES_JOB,
        "The namespace's quota left no room for the Job for longer than we wait.",
        "Make room or raise the quota, then clear the task."),
    Cause("two_live_jobs", "look", MAKES_JOB,
        "The window has more than one live Job.",
        "Delete all but one of those that are named, then clear the task."),
    Cause("job_not_ours", "look", MAKES_JOB,
        "A Job of this name exists and does not carry our labels.",
        "Find out who made it and delete it, then clear the task."),
    Cause("scheduled_job_running", "look", MAKES_JOB,
        "The CronJob's own Job is running, and the cluster's file says not to run beside it.",
        "Clear the task when that Job has ended."),
    Cause("cannot_start", "reindex", MAKES_JOB,
        "No pod of the Job could start (image, node, configuration); the Job was deleted.",
        "Correct what is named, then clear the task."),
    Cause("job_suspended", "reindex", MAKES_JOB,
        "The Job was held back by a queue (suspended) until its deadline.",
        "Ask the owner of the queue; clear the task when there is room."),
    Cause("job_deadline", "reindex", MAKES_JOB,
        "The Job did not end within kubernetes.deadline_seconds and was deleted.",
        "Look at which container still ran (a sidecar that never ends is named), correct it, then clear the task."),
    Cause("job_failed", "reindex", MAKES_JOB,
        "A pod of the reindexer failed; its last lines are in the log.",
        "Correct the reason that these lines give, then clear the task."),
    Cause("oom_killed", "reindex", MAKES_JOB,
        "The reindexer's container was killed because it used more memory than its limit.",
        "Raise resources.limits.memory in the CronJob's template, or let windows be smaller; then clear the task."),
    Cause("sidecar_left", "reindex", MAKES_JOB,
        "The reindexer had ended, but another container of its pod did not, so the Job never completed.",
        "Let that container end with the program, make it a native sidecar, or keep it out of these pods (for Istio the"
        " label sidecar.istio.io/inject: 'false' in the template); then clear the task."),
    Cause("stale_try", "never", MAKES_JOB,
        "A later try of the same task waits for the Job already; this one is over and has done nothing.",
        "Nothing: look at the newest try of the task."),
    Cause("job_gone", "reindex", MAKES_JOB,
        "The Job was deleted by somebody before it ended.",
        "Find out who deleted it, then clear the task."),
    # The workflows
    Cause("heartbeat_timeout", "reindex", ("wait_workflows",),
        "An activity of the workflow stopped giving signs of life: the window is too big, or its worker died.",
        "Nothing: the window is cut by itself. If a single day fails like this, look at the workers and clear the"
        " task.", size=True),
    Cause("start_to_close_timeout", "reindex", ("wait_workflows",),
        "An activity of the workflow needed longer than it may: the window is too big.",
        "Nothing: the window is cut by itself. If a single day fails like this, raise the activity's time-out and"
        " clear the task.", size=True),
    Cause("workflow_timeout", "reindex", ("wait_workflows",),
        "The workflow as a whole needed longer than it may: the window is too big, or its workers stood still.",
        "Nothing: the window is cut by itself. If a single day fails like this, look at the workers and clear the"
        " task.", size=True),
    Cause("deadlock", "reindex", ("reindex", "wait_workflows"),
        "Postgres ended the reindex because of a deadlock (40P01): the window is too big, or too many run at once.",
        "Nothing: the window is cut by itself. If a single day fails like this, let fewer run at once"
        " (max_parallel) and clear the task.", size=True),
    Cause("schedule_to_start_timeout", "reindex", ("wait_workflows",),
        "No worker took an activity of the workflow in time.",
        "See to it that the reindex workers run and have room, then clear the task."),
    Cause("schedule_to_close_timeout", "reindex", ("wait_workflows",),
        "An activity of the workflow was not done in time, all of its retries included.",
        "Read its last failure in Temporal and correct it, then clear the task."),
    Cause("canceled", "reindex", ("wait_workflows",),
        "Somebody cancelled the workflow.",
        "Find out who and why (operations cancel when the database is under stress), then clear the task."),
    Cause("terminated", "reindex", ("wait_workflows",),
        "Somebody terminated the workflow.",
        "Find out who and why, then clear the task."),
    Cause("workflow_failed", "reindex", ("wait_workflows",),
        "The workflow failed for a reason that none of the others names.",
        "Read the failure in the log or in Temporal and correct it, then clear the task."),
    Cause("too_few_workflows", "reindex", ("wait_workflows",),
        "Fewer workflows were found than the window has profiles, and nothing says that the others had no work.",
        "Read the Job's log: it names what it started. Correct the reason, then clear the task."),
    Cause("workflows_gone", "reindex", ("wait_workflows",),
        "The server does not know a workflow that the Job started, so nobody can say how it ended.",
        "Compare the namespace's retention with the length of the wait and raise it, then clear the task."),
    # Verifying
    Cause("lost_rows", "reindex", ("verify",),
        "Fewer rows came back than may be missing.",
        "Read in the log which table and day; clear verify: it counts again, and reindexes if they are still"
        " missing."),
    Cause("nothing_came_back", "reindex", ("verify",),
        "The reindex ended well and not one row came back. Usually ClickHouse took the inserts for repetitions of"
        " earlier ones (insert deduplication).",
        "Check the reindexer's deduplication settings and replicated_deduplication_window, then clear verify."),
    Cause("empty_day", "reindex", ("verify",),
        "A day that had rows before has none now.",
        "Clear verify: it counts again, and reindexes if the day is still empty."),
    Cause("stale_rows", "reindex", ("verify",),
        "Rows are there that must be gone.",
        "Find out whether an old reindexer still writes, then clear verify."),
    Cause("put_back", "never", ("verify",),
        "An undo has put rows back between the DELETE and the reindex: nobody can tell what was written again.",
        "Start a new run for these days: it counts them, deletes them and has them written again."),
    Cause("not_rewritten", "look", ("delete",),
        "Order reindex_first: rows that should have been written again were not. Nothing was deleted, they are there.",
        "Read in the log which rows and correct the reason; then clear the window's reindex with what follows it: a new"
        " attempt is made. Clearing only the sweep looks again."),
    Cause("sweep_rejected", "look", ("delete",),
        "Order reindex_first: a person rejected the sweep. What it has not deleted yet is there, old beside new.",
        "Clear the sweep to be asked again, or leave it: every row that was written again is there."),
    Cause("sweep_outgrown", "look", ("delete",),
        "Order reindex_first: more old rows are there than when a person was asked, and Airflow shows a task's first"
        " question for as long as its run lives.",
        "Find out who writes rows with an old time. Start a new run for these days: it asks with the new numbers. A"
        " clear looks again, and asks if they are as few as they were."),
    Cause("not_reindexed", "reindex", ("verify",),
        "Mode reindex: rows are as old as before the reindex began. Nothing is lost, and they were not written again.",
        "Read in the log which table and day, and in the Job's log what the reindexer did; correct the reason, then"
        " clear verify: it counts again, and reindexes if they are still old."),
    Cause("meant_came_back", "never", ("verify",),
        "Rows that are meant to go were written again: the reindexer that ran is an old one.",
        "Bring the new reindexer out, then start a new run for these days."),
    Cause("other_ids", "reindex", ("verify",),
        "As many rows came back as were expected, but not the same ones: as many are lost as are new.",
        "If the reindexer gives rows new ids, set clickhouse.stable_ids: false; else clear verify for a new reindex."),
    Cause("too_many_rows", "look", ("verify",),
        "There are more rows than before.",
        "Find out who else writes these days before you go on; clear verify to count again."),
    Cause("doubled_rows", "look", ("verify",),
        "The same row is there more than once, on different shards or days.",
        "Find out what wrote them twice and remove the surplus; clear verify to count again."),
)  # fmt: skip

CAUSES: Mapping[str, Cause] = MappingProxyType({cause.name: cause for cause in _LISTED})
"""Every cause by its name."""

SIZE: frozenset[str] = frozenset(name for name, cause in CAUSES.items() if cause.size)
"""Names of the causes that a smaller window cures."""


def cause_of(name: str) -> Cause:
    """Return a cause by its name.

    A name that is not in the table (of a record that another version wrote) is not size, and a clear looks again.
    """
    found = CAUSES.get(name)
    unknown = "A cause that this version does not know."
    return found or Cause(name or "unknown", "look", ANY, unknown, "Read the reason beside it, then clear the task.")


def what_to_do(name: str) -> str:
    """Return what a person does after this cause."""
    return cause_of(name).do


def decisive(names: Iterable[str]) -> str:
    """Return which of several causes speaks for a window: one of size if there is any, else the first; '' for none."""
    listed = [name for name in names if name]
    return next((name for name in listed if name in SIZE), listed[0] if listed else "")
