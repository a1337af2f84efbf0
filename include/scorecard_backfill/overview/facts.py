"""What is known about a run when somebody looks: plain values, read from Airflow by whoever asks, judged here.

A fact is what was read, never what it means: :mod:`.look` says what it means. Moments are aware, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from include.scorecard_backfill.graph import stages_of
from include.scorecard_backfill.planning.learned import Customer
from include.scorecard_backfill.planning.overrides import Override
from include.scorecard_backfill.records.base import Order, Stage
from include.scorecard_backfill.verdicts.admission import ENDED_BADLY, Limits, Phase, phase_of

ONE = Limits(max_parallel=1, per_customer=1, max_failures=1)


@dataclass(frozen=True, slots=True)
class TaskFact:
    """One task instance. ``state``: Airflow's word, None before it is scheduled. ``waits_for``: what it resumes at."""

    state: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    tries: int = 0
    waits_for: str = ""


NO_TASK = TaskFact()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a wait said when it last looked. ``done`` of ``total`` conversations by heartbeat, None when not known.

    ``job_name`` and ``attempt`` of the Job that is waited for.
    """

    reason: str
    at: datetime | None = None
    since: datetime | None = None
    done: int | None = None
    total: int | None = None
    job_name: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What a stage of a window left.

    ``status``: deleted, counted, nothing, completed, verified, failed, ... ``tables`` (of verify): per table the rows
    ``before``, ``after``, ``removed``, and where it is known ``meant`` (to go), ``short``, ``over`` and ``doubled``.
    ``rows_before`` (of delete): rows per table. ``statements``: tables to which DELETEs were sent. ``minutes``: of the
    workflows. ``todo``: what a person does about a failure.
    """

    key: str = ""
    status: str = ""
    cause: str = ""
    reason: str = ""
    todo: str = ""
    at: datetime | None = None
    tables: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rows_before: Mapping[str, int] = field(default_factory=dict)
    statements: int = 0
    minutes: float = 0.0
    attempt: int = 0
    job_name: str = ""
    workflow_ids: tuple[str, ...] = ()


VERIFIED = "verified"


@dataclass(frozen=True, slots=True)
class Planned:
    """A window of the plan or a part of one. ``rows`` per table and ``conversations`` are the plan's estimates."""

    key: str
    customer_id: str
    start: str
    end: str
    conversations: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    databases: tuple[str, ...] = ()
    part_of: str = ""
    order: Order = "delete_first"

    @property
    def label(self) -> str:
        """Customer and days, as everywhere else."""
        return f"{self.customer_id} {self.start}..{self.end}"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The window's stages in their order."""
        return stages_of(self.order)


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """One window in its pass: ``group`` is the task group, ``index`` its map index there.

    ``task_ids``: tasks (id within the group) of the stages that are not called like their stage. ``idle``: tasks of the
    group that this window's order does not need; they do nothing. ``opened_by`` and ``opener``: the task that opens its
    batch, '' for a group that is open from the start.
    """

    window: Planned
    group: str
    index: int
    tasks: Mapping[str, TaskFact] = field(default_factory=dict)
    results: Mapping[str, Result] = field(default_factory=dict)
    seen: Mapping[str, Seen] = field(default_factory=dict)
    task_ids: Mapping[str, str] = field(default_factory=dict)
    idle: Mapping[str, TaskFact] = field(default_factory=dict)
    opened_by: str = ""
    opener: TaskFact = NO_TASK

    @property
    def phase(self) -> Phase:
        """How far it is, in admission's words."""
        states = [self.tasks.get(stage, NO_TASK).state for stage in self.window.stages]
        return phase_of(states[0], states[1:], self.opener.state)

    @property
    def not_opened(self) -> str:
        """Why its batch was not opened, '' while that may still happen."""
        if self.opener.state not in ENDED_BADLY or self.phase != "closed":
            return ""
        if self.opener.state == "failed":
            return f"its batch was not opened, because {self.opened_by} has failed: retry the run, or clear that task"
        return f"its batch was not opened, because a task before {self.opened_by} has failed"

    def task_id(self, stage: str) -> str:
        """The id of the task that does a stage."""
        return f"{self.group}.{self.task_ids.get(stage, stage)}"

    def result(self, stage: str) -> Result:
        """What a stage left for this window; an empty result when it left none, or one of another window."""
        found = self.results.get(stage)
        return found if found is not None and found.key in ("", self.window.key) else Result()

    @property
    def verified(self) -> bool:
        """True when the proof is there. A task that somebody has marked as success is none."""
        found = self.result("verify")
        return found.status == VERIFIED and found.key == self.window.key


@dataclass(frozen=True, slots=True)
class Approval:
    """The question to a person. ``answer``: Approve, Reject, or '' while nobody has answered."""

    asked_at: datetime | None = None
    answered_at: datetime | None = None
    answered_by: str = ""
    answer: str = ""


@dataclass(frozen=True, slots=True)
class DebtFact:
    """Days whose rows were deleted and never verified, whichever run it was. ``window``: key of the one that owes it.

    ``swept``: order reindex_first, the rows are there and only the proof is owed. ``problem``: why it cannot be read;
    whose days it is about is not known then, or only what its label says.
    """

    window: str
    customer_id: str
    start: str
    end: str
    since: datetime | None
    run_id: str = ""
    swept: bool = False
    problem: str = ""

    @property
    def label(self) -> str:
        """Customer and days, or what cannot be read."""
        if self.problem:
            return self.problem
        return f"{self.customer_id} {self.start}..{self.end}"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Everything about one run. ``passes`` are its windows by pass, in the order of admission.

    ``plan_hash`` is None until there is a plan. ``refusal``: why preflight or plan said no. ``run`` are the effective
    parameters. ``override_error``: why the cluster's override cannot be used.
    """

    dag_id: str
    run_id: str
    cluster: str
    state: str
    run_type: str = "manual"
    asked_by: str = ""
    queued: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    note: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)
    plan_hash: str | None = None
    tasks: Mapping[str, TaskFact] = field(default_factory=dict)
    passes: Sequence[Sequence[WindowFacts]] = ()
    cut: frozenset[str] = frozenset()
    approval: Approval | None = None
    refusal: str = ""
    override: Override | None = None
    override_error: str = ""
    limits: Limits = ONE
    learned: Mapping[str, Customer] = field(default_factory=dict)
    debts: Sequence[DebtFact] = ()
    plan_notes: Sequence[str] = ()
    missing: Sequence[Mapping[str, Any]] = ()
    job_url: str = ""
    workflow_url: str = ""
