"""The history of a cluster from before this project: which customers and days the old scripts did.

The scripts looked at counts once and at workflows by a name prefix. So a history is a reason to leave something out or
to look at it first, never a proof: nothing of it counts as verified here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, Strict, ValidationError, model_validator

from include.scorecard_backfill.config.fields import Frozen
from include.scorecard_backfill.planning.windows import DateRange

State = Literal["done", "open", "failed", "pending", "excluded"]
"""done: the script said completed. open: rows may be deleted and not written again. failed: tried, ended badly.
pending: not begun. excluded: a person left it out."""

STATES: tuple[State, ...] = ("open", "failed", "pending", "done", "excluded")
"""What a person should look at first comes first."""

VERSION: Literal[1] = 1


class HistoryError(ValueError):
    """A text that is no history of ours."""


class Entry(Frozen):
    """One customer and some days of one cluster. `profile_id` and `database` are "" when the file does not say."""

    # JSON has neither dates nor tuples.
    model_config = ConfigDict(strict=False)

    customer_id: str = Field(min_length=1, max_length=200)
    profile_id: str = Field(default="", max_length=200)
    database: str = Field(default="", max_length=200)
    start: date
    end: date
    state: State
    before: dict[str, NonNegativeInt] = Field(default={}, description="Rows per table before the delete.")
    after: dict[str, NonNegativeInt] = Field(default={}, description="Rows per table after the backfill.")
    workflow_id: str = Field(default="", max_length=500)
    at: datetime | None = Field(default=None, description="When the script last wrote the entry, UTC.")
    reason: str = Field(default="", max_length=500, description="What the script noted, shortened.")
    source: str = Field(description="File and path inside it, for example voice-prod.json: customers.acme.")

    @model_validator(mode="after")
    def _days_in_order(self) -> Entry:
        DateRange(self.start, self.end)
        return self

    @property
    def days(self) -> DateRange:
        """The UTC days, end exclusive."""
        return DateRange(self.start, self.end)

    @property
    def key(self) -> tuple[str, str, str, date, date]:
        """What makes two entries the same thing: a second import replaces the first."""
        return (self.customer_id, self.profile_id, self.database, self.start, self.end)


class History(Frozen):
    """Every entry of one cluster, sorted by customer and days."""

    model_config = ConfigDict(strict=False)

    v: Literal[1] = VERSION
    cluster: str
    entries: Annotated[tuple[Entry, ...], Strict(False)] = ()

    @classmethod
    def from_json(cls, text: str) -> History:
        """The history of a text that `to_json` made.

        Raises:
            HistoryError: it is not one; the first problems are named by their fields.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors(include_url=False)[:5]]
            raise HistoryError("; ".join(problems)) from None

    def to_json(self) -> str:
        """JSON text of `from_json`; fields that say nothing are left out."""
        return json.dumps(self.to_dict(), indent=1)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return self.model_dump(mode="json", exclude_defaults=True) | {"v": self.v, "cluster": self.cluster}

    def merged(self, others: Iterable[Entry]) -> History:
        """This history with `others`: for the same customer and days the later entry counts, without times the new one.

        Importing the same file twice changes nothing.
        """
        entries = {entry.key: entry for entry in self.entries}
        for entry in others:
            known = entries.get(entry.key)
            if known is None or known.at is None or entry.at is None or entry.at >= known.at:
                entries[entry.key] = entry
        ordered = sorted(entries.values(), key=lambda entry: (entry.customer_id, entry.start, entry.end, entry.key))
        return self.model_copy(update={"entries": tuple(ordered)})

    def of(self, *states: State) -> tuple[Entry, ...]:
        """The entries in one of these states."""
        return tuple(entry for entry in self.entries if entry.state in states)

    def left_out(self, days: DateRange) -> tuple[str, ...]:
        """Customers (sorted) of whom every day of `days` is done or excluded, whichever entries say so.

        An entry that is open, failed or pending within these days keeps its customer in.
        """
        settled: dict[str, set[date]] = {}
        unsettled: set[str] = set()
        for entry in self.entries:
            here = {day for day in _each(entry.days) if days.start <= day < days.end}
            if entry.state in ("done", "excluded"):
                settled.setdefault(entry.customer_id, set()).update(here)
            elif here:
                unsettled.add(entry.customer_id)
        wanted = set(_each(days))
        return tuple(sorted(name for name, done in settled.items() if done >= wanted and name not in unsettled))

    def lines(self) -> tuple[str, ...]:
        """What a person reads: how many of each state, and each entry that needs somebody."""
        counts = Counter(entry.state for entry in self.entries)
        head = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "nothing"
        return (
            f"{self.cluster}: {head}",
            *(_line(entry, "rows may be deleted and not written again: do these first") for entry in self.of("open")),
            *(_line(entry, entry.reason or "no reason noted") for entry in self.of("failed")),
        )


def _line(entry: Entry, why: str) -> str:
    who = f"{entry.customer_id}/{entry.profile_id}" if entry.profile_id else entry.customer_id
    return f"  {entry.state} {who} {entry.days.label}: {why} ({entry.source})"


def _each(days: DateRange) -> Sequence[date]:
    return [date.fromordinal(number) for number in range(days.start.toordinal(), days.end.toordinal())]
