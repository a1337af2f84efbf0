"""The read model: what a person is shown about a run, the same on the page, in the report and on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from include.scorecard_backfill.config.fields import Frozen
from include.scorecard_backfill.records.base import Stage as TaskStage

State = Literal["verified", "working", "waiting", "cut", "failed", "not_started"]
"""``waiting``: not begun, will begin by itself. ``not_started``: not begun, and this run will not begin it.
``cut``: too big, its parts do its work and are not done."""

Stage = TaskStage | Literal["done"]
"""Where a window is; the names are those of the tasks."""


class Numbers(Frozen):
    """Rows of one table; None: not known (yet).

    ``meant``: rows that were meant to go; ``short``: rows that should be there and are not.
    """

    before: int | None = None
    after: int | None = None
    removed: int | None = None
    meant: int | None = None
    short: int | None = None


NOTHING_DONE = ("dry run", "rejected", "refused", "waiting for approval")
"""States of a run that has begun no window: its plan is all that there is to report."""


class Link(Frozen):
    """Where to read more. ``href`` is '' when there is only a text (a name to look for)."""

    kind: Literal["job", "workflow", "mutation"]
    text: str
    href: str = ""


class WindowRow(Frozen):
    """One window of the table and of the matrix.

    ``task`` and ``index``: id and map index of the stage's task in Airflow, '' where Airflow has made none. ``since``:
    when it came to this stage. ``reason``: why it waits or failed, one sentence; ``blocker``: the label of the window
    that it waits for; ``place``: its place among the windows whose turn may come, from 1. ``percent``: of the
    conversations, by heartbeat. ``gone_since``: its rows were deleted then and are not back yet. ``attempts``: reindex
    Jobs.
    """

    key: str
    label: str
    customer: str
    start: str
    end: str
    state: State
    stage: Stage
    task: str
    index: int
    since: datetime | None = None
    reason: str = ""
    cause: str = ""
    todo: str = ""
    blocker: str = ""
    place: int | None = None
    percent: int | None = None
    conversations: int = 0
    tables: Mapping[str, Numbers] = {}
    attempts: int = 0
    part_of: str = ""
    parts: int = 0
    gone_since: datetime | None = None
    may_end_job: bool = False
    links: tuple[Link, ...] = ()


class Counts(Frozen):
    """Windows of the plan by state; parts are not counted, their window is."""

    planned: int = 0
    verified: int = 0
    working: int = 0
    waiting: int = 0
    cut: int = 0
    failed: int = 0
    not_started: int = 0


class Span(Frozen):
    """Minutes left as a range, and the moments at which it would end. None: nothing is known to say it by."""

    low_minutes: int
    high_minutes: int
    from_moment: datetime
    to_moment: datetime


class Figures(Frozen):
    """How far the run is. ``percent``: of the planned windows, verified. ``removed``: rows of verified windows.

    ``per_minute``: conversations written again per minute since the first window was admitted. ``left_note`` says why
    ``left`` is missing or what it is based on.
    """

    percent: int = 0
    removed: Mapping[str, int] = {}
    conversations: int = 0
    conversations_done: int = 0
    per_minute: float | None = None
    left: Span | None = None
    left_note: str = ""


class Attention(Frozen):
    """Something that a person should see first. ``level``: act (somebody must do something), look, note.

    ``what`` is one sentence, ``todo`` the next step, '' when there is none. ``windows``: labels, at most ten.
    """

    kind: Literal[
        "approval", "rejected", "refused", "failed", "gone", "paused", "override", "override_error", "breaker", "debt"
    ]
    level: Literal["act", "look", "note"]
    what: str
    todo: str = ""
    since: datetime | None = None
    count: int = 0
    windows: tuple[str, ...] = ()


class PlanRow(Frozen):
    """A customer in the plan. ``days``: UTC days of its windows. ``rows`` per table are estimates (before FINAL)."""

    customer: str
    databases: tuple[str, ...]
    windows: int
    start: str
    end: str
    days: int
    conversations: int
    rows: Mapping[str, int]


class PlanTable(Frozen):
    """The plan as a table, with its total."""

    rows: tuple[PlanRow, ...]
    total: PlanRow
    tables: tuple[str, ...]
    hash: str
    mode: str
    notes: tuple[str, ...] = ()


class ReportRow(Frozen):
    """A customer's verified windows: rows per table."""

    customer: str
    windows: int
    verified: int
    tables: Mapping[str, Numbers]


class ReportTable(Frozen):
    """What was done, with its total."""

    rows: tuple[ReportRow, ...]
    total: ReportRow
    tables: tuple[str, ...]


class Who(Frozen):
    """Who asked and who approved."""

    asked_by: str
    asked_at: datetime | None
    approval: Literal["not needed", "waiting", "approved", "rejected", "not reached"]
    answered_by: str = ""
    answered_at: datetime | None = None


class OverrideView(Frozen):
    """The override in force."""

    text: str
    author: str
    until: datetime
    pause: bool
    max_parallel: int | None
    per_customer: int | None
    reason: str


class Overview(Frozen):
    """A run as a person sees it. ``headline``: one sentence. ``parameters``: name -> value, as they took effect."""

    dag_id: str
    run_id: str
    cluster: str
    mode: str
    state: Literal["planning", "waiting for approval", "running", "complete", "incomplete", "nothing to do", "dry run",
                   "rejected", "refused"]  # fmt: skip
    headline: str
    made_at: datetime
    started: datetime | None
    ended: datetime | None
    days: tuple[str, str] | None
    who: Who
    limits: Mapping[str, int]
    override: OverrideView | None
    parameters: Mapping[str, str]
    counts: Counts
    figures: Figures
    attention: tuple[Attention, ...]
    windows: tuple[WindowRow, ...]
    plan: PlanTable
    report: ReportTable
