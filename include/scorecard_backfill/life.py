"""The life of a window as one table: stage, what earlier tries left, what the servers show now -> the next step.

Every operator and trigger fetches :class:`Facts`, asks :func:`next_step` and does what it says; what a clear, a retry
or a restart means is decided here and nowhere else. Rows are read from the top, the first one that fits decides. Facts
that nobody knows yet have a value of their own (``unknown``), and no row turns it into a deed.

``left`` tells a person's clear from a repetition by Airflow: a stage that fails for good keeps its failure, and only a
clear begins a try that finds one about the very generation or attempt that is still the newest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from include.scorecard_backfill.records import STAGES as STAGES
from include.scorecard_backfill.records import Order, Settled, Stage

Approval = Literal["same", "changed"]
"""Whether what would be executed now is what was approved (or needed no approval)."""

SentState = Literal["none", "maybe", "taken"]
"""No statement of this generation has left; one has and its outcome is not known; the hosts have taken all of them."""

Seen = Literal["unknown", "nothing", "queued", "unfinished", "done", "dead"]
"""What the hosts show of this generation: not asked or no answer; no trace anywhere; in a DDL queue or being executed;
a mutation that works; all of them done on every host; one was killed and none works any more."""

Rows = Literal["unknown", "gone", "left"]
"""Whether rows are there that the DELETE should have taken."""

JobState = Literal["unknown", "none", "live", "complete", "failed", "several"]
"""The window's newest Job; ``several``: more than one is alive."""

Others = Literal["unknown", "busy", "quiet"]
"""What must not run beside a new Job: pods or workflows of an earlier attempt, the CronJob's own Job, too many
windows."""

Flows = Literal["unknown", "open", "completed", "failed", "none"]
"""The attempt's workflows; ``none``: the servers say that there is none."""

Balance = Literal["unknown", "ok", "wrong"]
"""Whether the counts of two looks agree and balance."""

Left = Literal["", "delete", "reindex", "look", "never"]
"""What a clear may repeat of this stage's own failure (verdicts/causes.py); '': there is none about the newest try."""

Action = Literal["nothing", "done", "wait", "send", "resend", "adopt", "make", "fail"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What one stage of a window knows at one moment.

    ``generation`` of the DELETE and ``attempt`` of the reindex count from 1, 0: none yet. ``written``: an attempt of
    the reindex has begun since the first DELETE, so that rows may be there that a repeated one must not take;
    ``bounded``: the DELETE takes rows of before a moment only, and cannot take them.
    """

    order: Order = "delete_first"
    settled: Settled = ""
    destructive: bool = True
    approval: Approval = "same"
    rows_before: bool = True
    sent: SentState = "none"
    seen: Seen = "unknown"
    overlap: bool = False
    rows: Rows = "unknown"
    written: bool = False
    bounded: bool = False
    job: JobState = "unknown"
    judged: bool = False
    others: Others = "unknown"
    workflows: Flows = "unknown"
    balance: Balance = "unknown"
    left: Left = ""
    generation: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next. ``cause`` is set for ``fail``; ``number`` is the generation to send or the attempt to make."""

    action: Action
    why: str
    cause: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: it fits when each named fact has one of the values. ``cause`` belongs to ``fail``."""

    stages: tuple[Stage, ...]
    when: Mapping[str, tuple[object, ...]]
    action: Action
    why: str
    cause: str = ""

    def fits(self, stage: Stage, facts: Facts) -> bool:
        """Return True when the line decides this stage under these facts."""
        return stage in self.stages and all(getattr(facts, name) in values for name, values in self.when.items())


def _row(stages: Stage | tuple[Stage, ...], action: Action, why: str, cause: str = "", **when: Any) -> Row:
    listed = (stages,) if isinstance(stages, str) else stages
    conditions = {name: value if isinstance(value, tuple) else (value,) for name, value in when.items()}
    return Row(listed, conditions, action, why, cause)


_DELETES: tuple[Stage, ...] = ("delete", "wait_mutations")
_SAFE_TO_REPEAT: tuple[dict[str, Any], ...] = ({"written": False}, {"bounded": True})


def _repeats(stages: tuple[Stage, ...], cause: str, why: str, **when: Any) -> list[Row]:
    """Return the lines of a DELETE without effect: a person's clear repeats it, if it cannot take new rows."""
    # The delete stage has a line of its own for that, before all others.
    changed = [
        _row(
            stage,
            "fail",
            f"{why}; what would be sent again is not what was approved",
            "approval_changed",
            left="delete",
            approval="changed",
            **when,
        )
        for stage in stages
        if stage != "delete"
    ]
    again = [
        _row(stages, "resend", f"{why}; cleared: the next generation is sent", left="delete", **safe, **when)
        for safe in _SAFE_TO_REPEAT
    ]
    refused = _row(
        stages,
        "fail",
        f"{why}; rows were written again since, and a repeated DELETE would take them",
        "would_delete_new_rows",
        # A clear after exactly this refusal says it again, instead of asking for one more clear.
        left=("delete", "never"),
        written=True,
        bounded=False,
        **when,
    )
    return [*changed, *again, refused, _row(stages, "fail", why, cause, **when)]


TABLE: tuple[Row, ...] = (
    # Whatever the stage: a window that is verified, or whose parts do its work, is left alone.
    _row(STAGES, "nothing", "the window is verified in this run", settled="verified"),
    _row(STAGES, "nothing", "the window was cut; its parts do its work", settled="cut"),
    # Admission has no past: a slot is free, or it waits (verdicts/admission.py).
    _row("admit", "wait", "the queue decides"),
    # Deleting.
    _row(_DELETES, "nothing", "the mode deletes nothing", destructive=False),
    _row(_DELETES, "nothing", "no row was there to delete", rows_before=False, sent="none", seen="nothing"),
    _row("delete", "fail", "what would be executed is not what was approved", "approval_changed", approval="changed"),
    _row("delete", "done", "every statement was taken; what is left of it is waited for", sent="taken",
         seen=("unknown", "nothing", "queued", "unfinished", "done")),
    _row(_DELETES, "wait", "where the DELETE is is not known", seen="unknown"),
    _row("delete", "done", "the DELETE is there already; it is not sent again", seen=("queued", "unfinished", "done")),
    *_repeats(_DELETES, "killed", "the mutation was killed, no host works on it any more", seen="dead"),
    *_repeats(("delete",), "delete_unknown", "the DELETE was sent and no host has a trace of it", seen="nothing",
              sent="maybe"),
    # The sweep of reindex_first goes only after the balance: what is missing is still there, and stays.
    _row("delete", "wait", "the balance before the sweep is not known yet", order="reindex_first", balance="unknown"),
    _row("delete", "fail", "rows were not written again; nothing was deleted", "not_rewritten", order="reindex_first",
         balance="wrong"),
    _row("delete", "fail", "rows were written by the reindex already, and a first DELETE would take them",
         "would_delete_new_rows", sent="none", seen="nothing", written=True, bounded=False),
    _row("delete", "send", "nothing of it is there: the first generation is sent", sent="none", seen="nothing"),
    # Waiting for the mutations.
    _row("wait_mutations", "nothing", "no statement was sent", sent="none", seen="nothing"),
    _row("wait_mutations", "done", "every host has the mutations (overlap); verify proves that they are done",
         overlap=True, seen=("unfinished", "done")),
    _row("wait_mutations", "wait", "hosts still work on it", seen=("queued", "unfinished")),
    *_repeats(("wait_mutations",), "not_picked_up", "hosts have never taken the DELETE", seen="nothing"),
    _row("wait_mutations", "wait", "the rows have not been counted", seen="done", rows="unknown"),
    _row("wait_mutations", "done", "done on every host, no row is left", seen="done", rows="gone"),
    *_repeats(("wait_mutations",), "rows_left", "rows that it should have taken are left", seen="done", rows="left"),
    # The Job.
    _row("reindex", "wait", "whether a Job is there is not known", job="unknown"),
    _row("reindex", "fail", "more than one Job of the window is alive", "two_live_jobs", job="several"),
    _row("reindex", "adopt", "its Job runs: adopted", job="live"),
    _row("reindex", "adopt", "its Job ended while nobody watched: its end is read", job=("complete", "failed"),
         judged=False),
    _row("reindex", "make", "no Job of it runs and no earlier one counts any more", others="quiet"),
    _row("reindex", "wait", "something must end before a new Job", others=("unknown", "busy")),
    # Its workflows.
    _row("wait_workflows", "wait", "they are not all closed", workflows=("unknown", "open")),
    _row("wait_workflows", "done", "every workflow completed", workflows="completed"),
    _row("wait_workflows", "make", "it had failed before the task was cleared: a new reindex", left="reindex",
         others="quiet"),
    _row("wait_workflows", "wait", "it had failed before the task was cleared: a new reindex waits until nothing runs"
         " beside it", left="reindex"),
    _row("wait_workflows", "fail", "a workflow failed", "workflow_failed", workflows="failed"),
    _row("wait_workflows", "fail", "the Job started no workflow", "too_few_workflows", workflows="none"),
    # The proof.
    _row("verify", "fail", "the mutation was killed after the reindex had begun", "killed_late", seen="dead"),
    _row("verify", "wait", "the mutations are not proven done on every host", seen=("unknown", "queued", "unfinished")),
    _row("verify", "wait", "the counts are not settled", balance="unknown"),
    _row("verify", "done", "the books balance", balance="ok", seen=("done", "nothing"), rows=("gone",)),
    _row("verify", "wait", "whether old rows are left is not known", balance="ok", rows="unknown"),
    _row("verify", "make", "it had failed before the task was cleared: a new reindex", rows="left", left="reindex",
         others="quiet"),
    _row("verify", "wait", "it had failed before the task was cleared: a new reindex waits for what runs beside it",
         rows="left", left="reindex"),
    _row("verify", "fail", "rows from before the DELETE are there", "stale_rows", rows="left"),
    _row("verify", "make", "it had failed before the task was cleared: a new reindex", balance="wrong", left="reindex",
         others="quiet"),
    _row("verify", "wait", "it had failed before the task was cleared: a new reindex waits for what runs beside it",
         balance="wrong", left="reindex"),
    _row("verify", "fail", "the books do not balance", "lost_rows", balance="wrong"),
)  # fmt: skip


def next_step(stage: Stage, facts: Facts) -> Step:
    """Return what a stage of a window does next.

    The cause of a ``fail`` is the table's word; a stage that knows a more exact one (the workflow's own failure, the
    line of the balance) says that instead.

    Raises:
        LookupError: no line fits, which the tests prove never to happen.
    """
    for row in TABLE:
        if row.fits(stage, facts):
            number = {"send": 1, "resend": facts.generation + 1, "make": facts.attempt + 1}.get(row.action, 0)
            return Step(row.action, row.why, row.cause, number)
    raise LookupError(f"{stage}: no line of the table fits {facts}")


def asked(stage: Stage) -> tuple[str, ...]:
    """Return the names of the facts that the lines of a stage look at, in the order of :class:`Facts`."""
    used = {name for row in TABLE if stage in row.stages for name in row.when}
    return tuple(f.name for f in fields(Facts) if f.name in used)


def values_of(name: str) -> tuple[object, ...]:
    """Return every value that a fact may have."""
    if name in ("destructive", "rows_before", "overlap", "written", "bounded", "judged"):
        return True, False
    return get_args(_ALL[name])


_ALL: Mapping[str, object] = {
    "order": Order,
    "settled": Settled,
    "approval": Approval,
    "sent": SentState,
    "seen": Seen,
    "rows": Rows,
    "job": JobState,
    "others": Others,
    "workflows": Flows,
    "balance": Balance,
    "left": Left,
}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table as docs/states.md shows it."""

    stage: str
    when: str
    action: str
    why: str
    cause: str = field(default="")


def lines() -> list[Line]:
    """Return the table as text, for the generated page."""
    found = []
    for row in TABLE:
        when = ", ".join(f"{name} = {' or '.join(_shown(v) for v in values)}" for name, values in row.when.items())
        stage = "every stage" if row.stages == STAGES else ", ".join(row.stages)
        found.append(Line(stage, when or "always", row.action, row.why, row.cause))
    return found


def _shown(value: object) -> str:
    return {True: "yes", False: "no", "": "-"}.get(value, str(value))
