"""Why a window may be called verified: every line of its balance."""

from __future__ import annotations

from pydantic import Field

from include.scorecard_backfill.records.base import Part, TableName


class DayBalance(Part):
    """One table and UTC day: what was there, what was meant to go, what came back.

    ``short`` are rows that should be there and are not, ``over`` rows that are there and were not expected, ``doubled``
    rows whose id is there more than once over all shards.
    """

    before: int
    meant: int
    after: int
    doubled: int
    short: int
    over: int


class TableBalance(Part):
    """The balance of one table of a window. ``moved`` are rows that came back on another day of the window.

    ``exact``: the ids that came back are proven to be exactly those that were expected.
    """

    database: str
    table: str
    before: int
    meant: int | None
    after: int
    removed: int
    short: int
    over: int
    doubled: int
    moved: int
    exact: bool
    days: dict[str, DayBalance] = Field(default_factory=dict)

    @property
    def name(self) -> TableName:
        """(database, local table)."""
        return self.database, self.table


IDS_NAMED = 5
"""So many missing rows of a table are named in a text for people; the record has more."""


class MissingRows(Part):
    """Rows of a snapshot that did not come back: those meant to go apart from those that were not, with some ids."""

    database: str
    table: str
    meant: int = 0
    count: int = 0
    ids: tuple[str, ...] = ()


class Proof(Part):
    """Why a window may be called verified: every line of the balance, and who proved the rest.

    ``statements`` of the delete proven done on ``hosts``; ``workflows`` proven closed; ``accounted``: a predicate says
    which rows were meant to go, so that nothing else may be missing. ``unwritten``: mode reindex, why it is not proven
    of some rows that they were written again; () when it is of all, and in mode cleanup.
    """

    tables: tuple[TableBalance, ...]
    hosts: tuple[str, ...]
    statements: int
    workflows: int
    accounted: bool
    missing: tuple[MissingRows, ...] = ()
    unwritten: tuple[str, ...] = ()
