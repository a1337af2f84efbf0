"""What each stage of a window leaves: its result, or how it failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import Field

from include.scorecard_backfill.records.base import Part, Record, RecordError, Settled, Stage, TableName, plain
from include.scorecard_backfill.records.proof import Proof
from include.scorecard_backfill.records.window import Counted, TableDays, Window


class Sent(Part):
    """What is known about the statements of one table: when the first was sent (epoch seconds) and who took them.

    ``accepted`` are the hosts that answered without an error or on which the mutation was seen. ``partitions`` is set
    for DROP PARTITION, which leaves no mutation behind.
    """

    database: str
    table: str
    at: float
    accepted: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()

    @property
    def name(self) -> TableName:
        """(database, local table)."""
        return self.database, self.table


class Deleted(Record):
    """Result of the delete stage. ``generation`` counts the DELETEs of the window from 1; 0: none was sent.

    ``bound`` (epoch seconds) is set for a sweep: only rows that were written before it are deleted.
    """

    kind: Literal["deleted"] = "deleted"
    key: str
    window: Window
    status: Literal["deleted", "nothing", "counted", "verified", "cut"]
    counted: Counted | None = None
    generation: int = 0
    sent: tuple[Sent, ...] = ()
    snapshots: tuple[str, ...] = ()
    bound: float | None = None
    digest: str = ""

    @property
    def before(self) -> tuple[TableDays, ...]:
        """The numbers by which the window is judged."""
        return self.counted.before if self.counted else ()


class MutationsGone(Record):
    """Result of wait_mutations. ``hosts`` are those on which every statement of the generation is proven done.

    ``overlap``: the hosts only have the mutations; verify proves that they are done.
    """

    kind: Literal["mutations_gone"] = "mutations_gone"
    key: str
    status: Literal["gone", "overlap", "nothing", "verified", "cut"]
    generation: int = 0
    hosts: tuple[str, ...] = ()


class Reindexed(Record):
    """Result of the reindex stage: the Job of an attempt (from 1) and the workflows that its log names.

    ``made_at``, ``ended_at``: epoch seconds of the Job by the API server's clock, 0 when not known. ``counted``: what
    was there before the first Job, in order reindex_first. ``resources``: by workflow id, the resource name of the log
    line, by which the InternalJobService knows it.
    """

    kind: Literal["reindexed"] = "reindexed"
    key: str
    window: Window
    status: Literal["reindexed", "verified", "cut"]
    attempt: int = 0
    job_name: str = ""
    job_uid: str = ""
    made_at: float = 0.0
    ended_at: float = 0.0
    workflow_ids: tuple[str, ...] = ()
    resources: dict[str, str] = Field(default_factory=dict)
    counted: Counted | None = None


class WorkflowsClosed(Record):
    """Result of wait_workflows: every workflow of the attempt is closed and completed.

    ``minutes`` from the first start to the last end, 0 when not known; ``done`` conversations that they reported, None
    when they do not say.
    """

    kind: Literal["workflows_closed"] = "workflows_closed"
    key: str
    status: Literal["completed", "verified", "cut"]
    attempt: int = 0
    workflow_ids: tuple[str, ...] = ()
    minutes: float = 0.0
    done: int | None = None


class Failure(Record):
    """How a stage of a window failed: for the retry that a clear makes, for replan, for the report and the page.

    ``attempt`` and ``generation`` name what failed. ``deleted`` and ``reindexed`` are what this stage had made itself
    before it failed, so that its next try goes on with that.
    """

    kind: Literal["failure"] = "failure"
    key: str
    stage: Stage
    cause: str
    reason: str
    what_to_do: str = ""
    attempt: int = 0
    generation: int = 0
    deleted: Deleted | None = None
    reindexed: Reindexed | None = None

    @property
    def text(self) -> str:
        """Cause and reason in one line."""
        return f"{self.cause}: {self.reason}"


class Verified(Record):
    """Result of verify; the only record that says that a window is done.

    ``attempt`` and ``workflow_ids``: the reindex that brought the rows back, also one that verify has made itself.
    """

    kind: Literal["verified"] = "verified"
    key: str
    status: Literal["verified", "cut"]
    attempt: int = 0
    workflow_ids: tuple[str, ...] = ()
    proof: Proof | None = None


Result = Deleted | MutationsGone | Reindexed | WorkflowsClosed | Verified | Failure
_KINDS: Mapping[str, type[Record]] = {
    one.model_fields["kind"].default: one for one in (*get_args(Result), Window, Counted)
}


def read(value: object) -> Record | None:
    """Return the record that a value holds, whatever its kind; None when there is none.

    Raises:
        RecordError: something else is there, or a record of an unknown kind or version.
    """
    found = plain(value)
    if found is None:
        return None
    kind = found.get("kind") if isinstance(found, Mapping) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise RecordError(f"a record is wanted, {str(found)[:80]!r} is there")
    return _KINDS[kind].from_json(found)


def settled(key: str, verified: Record | None, cut: object) -> Settled:
    """Return why a window needs nothing more in this run, '' when it does.

    ``verified`` is what verify left, ``cut`` the keys of the windows that replan has cut.
    """
    if isinstance(verified, Verified) and verified.key == key and verified.status == "verified":
        return "verified"
    keys = plain(cut)
    return "cut" if isinstance(keys, list) and key in keys else ""


def attempted(reindexed: Record | None) -> bool:
    """Return True when an attempt of a window's reindex was made, whatever became of it.

    ``reindexed`` is what the reindex stage left: its result, its failure, or None.
    """
    return isinstance(reindexed, (Reindexed, Failure)) and reindexed.attempt > 0
