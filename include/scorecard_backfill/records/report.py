"""What the report of a run leaves: for its log, for the page's history, for whoever reads the XCom."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from include.scorecard_backfill.records.base import Part

WindowStatus = Literal[
    "verified", "deleted, not yet reindexed", "reindexed, not proven complete", "failed", "not started"
]


class Sums(Part):
    """Rows of one table: before, of those meant to go, after, that are fewer, that are missing."""

    before: int = 0
    meant: int = 0
    after: int = 0
    removed: int = 0
    short: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            before=self.before + other.before,
            meant=self.meant + other.meant,
            after=self.after + other.after,
            removed=self.removed + other.removed,
            short=self.short + other.short,
        )


class WindowRow(Part):
    """How one window of the plan ended; ``tables`` only when it is verified. Days are ISO, ``end`` is not in."""

    key: str
    customer_id: str
    start: str
    end: str
    label: str
    status: WindowStatus
    tables: dict[str, Sums] = Field(default_factory=dict)
    note: str = ""
    what_to_do: str = ""


class CustomerRow(Part):
    """A customer's windows together; ``tables`` are those of verified windows."""

    customer_id: str
    windows: int
    verified: int
    start: str
    end: str
    tables: dict[str, Sums]


class MissingRow(Part):
    """Rows of one snapshot that did not come back."""

    key: str
    label: str
    table: str
    meant: int
    count: int
    ids: tuple[str, ...]


class LiveJob(Part):
    """A Job that still runs and that no task waits for, with its window's label."""

    label: str
    job: str


class Report(Part):
    """The report. ``refused``: why nothing was done at all; ``dry_run``: the plan that was only shown.

    ``running`` are live Jobs that no task waits for, None when they were not asked for; ``running_unknown``: why they
    are not known. ``unwritten``: mode reindex, of which rows it is not proven that they were written again.
    """

    planned: int
    verified: int
    complete: bool
    accounted: bool
    windows: tuple[WindowRow, ...]
    customers: tuple[CustomerRow, ...]
    total: dict[str, Sums]
    missing: tuple[MissingRow, ...] = ()
    debts: tuple[str, ...] = ()
    unwritten: tuple[str, ...] = ()
    cluster: str = ""
    run_id: str = ""
    mode: str | None = None
    refused: str = ""
    dry_run: str | None = None
    running: tuple[LiveJob, ...] | None = None
    running_unknown: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types, without what was not asked for."""
        left_out = {name for name in ("dry_run", "running", "running_unknown") if getattr(self, name) is None}
        return self.model_dump(mode="json", exclude=left_out)

    def summary(self) -> dict[str, Any]:
        """Return it without its windows: they are as many as the plan's."""
        return {name: value for name, value in self.to_json().items() if name != "windows"}
