"""The unit of work, and what was there before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, Literal

from pydantic import Field, model_validator

from include.scorecard_backfill.config.fields import RunMode
from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.records.base import Order, Part, Record, TableName
from include.scorecard_backfill.sql import Slice


class Database(Part):
    """A customer's database of one profile, and which of the configured tables exist in it."""

    name: str
    profile_id: str
    tables: tuple[str, ...]


class Numbers(Part):
    """Rows (FINAL) of one table and UTC day over all shards.

    ``conversations`` and ``ids`` are distinct ones over all shards; ``meant`` are rows that the configured predicate
    means to go (None: there is no predicate); ``fingerprint`` is the sum modulo 2**64 of a hash of each id that is not
    meant to go, by which two sets of ids are compared; ``buckets`` are how many of these ids are in each class of the
    hash (() in records of earlier releases), by which new ids are told from ones that came back.
    """

    rows: int = Field(ge=0)
    conversations: int = Field(default=0, ge=0)
    ids: int = Field(default=0, ge=0)
    meant: int | None = Field(default=None, ge=0)
    fingerprint: int = 0
    buckets: tuple[int, ...] = ()


class TableDays(Part):
    """Numbers of one table by ISO day (UTC); a day that is not named holds no row."""

    database: str
    table: str
    days: dict[str, Numbers] = Field(default_factory=dict)

    @property
    def name(self) -> TableName:
        """(database, local table)."""
        return self.database, self.table

    @property
    def rows(self) -> int:
        """Rows of all days."""
        return sum(day.rows for day in self.days.values())

    def within(self, start: date, end: date) -> TableDays:
        """The same table with the days from ``start`` (inclusive) to ``end`` (exclusive) only."""
        kept = {day: n for day, n in self.days.items() if start.isoformat() <= day < end.isoformat()}
        return self.model_copy(update={"days": kept})


class Window(Record):
    """One customer and half-open UTC day range: the unit of work. ``start`` in, ``end`` out.

    ``conversations`` and ``rows`` (per table) are estimates of the plan. ``part_of`` is the key of the window that this
    one was cut from. ``before`` holds counts of days that an earlier delete has counted already, in this run (a part)
    or in another one (a debt): what is there now is not what was there before.
    """

    kind: Literal["window"] = "window"
    key: str
    cluster: str
    customer_id: str
    start: date
    end: date
    mode: RunMode
    order: Order = "delete_first"
    databases: tuple[Database, ...]
    conversations: int = 0
    rows: dict[str, int] = Field(default_factory=dict)
    part_of: str = ""
    before: tuple[TableDays, ...] = ()

    @property
    def label(self) -> str:
        """Short name shown on the grid and in every log: customer and days."""
        return f"{self.customer_id} {self.start}..{self.end}"

    @property
    def range(self) -> DateRange:
        """The UTC days, end exclusive."""
        return DateRange(self.start, self.end)

    @property
    def profiles(self) -> tuple[str, ...]:
        """The customer's profiles, one for each database."""
        return tuple(database.profile_id for database in self.databases)

    @property
    def destructive(self) -> bool:
        """True when rows of it are deleted."""
        return self.mode == "cleanup"

    def slices(self) -> Iterator[tuple[str, Slice]]:
        """Yield every (local table, slice of its rows)."""
        for database in self.databases:
            for table in database.tables:
                yield table, Slice(database.name, self.customer_id, database.profile_id, self.start, self.end)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types, with its label for the templates of Airflow."""
        return {**super().to_json(), "label": self.label}

    @model_validator(mode="before")
    @classmethod
    def _label_is_derived(cls, value: Any) -> Any:
        """The label of the JSON form is for templates; also where a window stands inside of another record."""
        if isinstance(value, Mapping) and "label" in value:
            return {name: content for name, content in value.items() if name != "label"}
        return value


class Counted(Record):
    """What was there before anything of the window was changed; counted once and kept.

    ``now`` are the numbers at that moment, ``before`` those by which the window is judged: of days that an earlier
    delete has counted, its numbers. ``server_time`` (epoch seconds, ClickHouse's clock) is when it was counted.
    """

    kind: Literal["counted"] = "counted"
    key: str
    now: tuple[TableDays, ...]
    before: tuple[TableDays, ...]
    server_time: float
