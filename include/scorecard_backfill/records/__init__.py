"""Everything that the stages of a window hand on, as frozen, versioned records with one JSON form each."""

from __future__ import annotations

from include.scorecard_backfill.records.base import (
    STAGES,
    VERSION,
    Order,
    Part,
    Record,
    RecordError,
    Settled,
    Stage,
    TableName,
    plain,
)
from include.scorecard_backfill.records.events import (
    ClosedEvent,
    Event,
    FailEvent,
    GoEvent,
    JobEvent,
    ReindexEvent,
    ResendEvent,
    read_event,
)
from include.scorecard_backfill.records.kept import KeptStep, MadeJob, window_of
from include.scorecard_backfill.records.proof import DayBalance, MissingRows, Proof, TableBalance
from include.scorecard_backfill.records.results import (
    Deleted,
    Failure,
    MutationsGone,
    Reindexed,
    Result,
    Sent,
    Verified,
    WorkflowsClosed,
    read,
    settled,
)
from include.scorecard_backfill.records.window import Counted, Database, Numbers, TableDays, Window

__all__ = [
    "STAGES",
    "VERSION",
    "ClosedEvent",
    "Counted",
    "Database",
    "DayBalance",
    "Deleted",
    "Event",
    "FailEvent",
    "Failure",
    "GoEvent",
    "JobEvent",
    "KeptStep",
    "MadeJob",
    "MissingRows",
    "MutationsGone",
    "Numbers",
    "Order",
    "Part",
    "Proof",
    "Record",
    "RecordError",
    "ReindexEvent",
    "Reindexed",
    "ResendEvent",
    "Result",
    "Sent",
    "Settled",
    "Stage",
    "TableBalance",
    "TableDays",
    "TableName",
    "Verified",
    "Window",
    "WorkflowsClosed",
    "plain",
    "read",
    "read_event",
    "settled",
    "window_of",
]
