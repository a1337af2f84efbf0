"""What a user can choose, pair by pair, and what is right then: a small model that knows nothing of the product."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from allpairspy import AllPairs

COUNT = 208
"""Cells in all."""

DAYS = 2
"""Days with rows, at the beginning of the cell's month."""

AXES: dict[str, tuple[Any, ...]] = {
    "behaviour": ("all", "fewer", "none", "doubled", "other_days", "old_written", "meant_too"),
    "history": ("first", "after_success", "after_failure", "after_cut"),
    "mode": ("cleanup", "reindex"),
    "order": ("delete_first", "reindex_first"),
    "window": ("auto", "10d", "1d"),
    "how": ("manual", "rest", "scheduled"),
    "customers": ("one", "list", "all"),
    "ends": ("not asked", "asked", "rejected", "dry run"),
    "overlap": (False, True),
    "snapshot": (False, True),
    "drop": (False, True),
}
CUSTOMERS = {"one": ("acme",), "list": ("acme", "globex"), "all": ("acme", "globex", "initech")}
PROFILES = {"acme": ("voice",), "globex": ("voice", "chat"), "initech": ("voice",)}
VICTIM = "acme"
"""For this customer the reindexer does what the cell says; for the others it does its work."""


@dataclass(frozen=True)
class Cell:
    """One choice."""

    number: int
    behaviour: str
    history: str
    mode: str
    order: str
    window: str
    how: str
    customers: str
    ends: str
    overlap: bool
    snapshot: bool
    drop: bool

    @property
    def name(self) -> str:
        """All of it, for the test's name."""
        shown = [
            str(getattr(self, f.name)) if f.type != "bool" else f.name * getattr(self, f.name) for f in fields(self)
        ]
        return "-".join(part.replace(" ", "_") for part in shown if part)

    @property
    def chosen(self) -> tuple[str, ...]:
        """Customer ids."""
        return CUSTOMERS[self.customers]

    @property
    def executed(self) -> bool:
        """True when anything of the plan is carried out."""
        return self.ends != "dry run" and not (self.ends == "rejected" and self.mode == "cleanup")


def _mended(cell: Cell) -> Cell:
    """What contradicts itself is made possible, with as little change as may be."""
    if cell.how == "scheduled":
        # A schedule runs over its month, whose days would each be a window; it has no form and names no dry run.
        cell = replace(cell, how="manual") if cell.history == "after_cut" or cell.ends == "dry run" else cell
    if cell.how == "scheduled" and cell.window == "1d":
        cell = replace(cell, window="auto")
    if cell.window == "1d" and (cell.history == "after_cut" or cell.behaviour == "other_days"):
        # A single day is never cut, and rows cannot move to another day of it.
        cell = replace(cell, window="10d")
    return cell


@cache
def cells() -> tuple[Cell, ...]:
    """Every cell: all pairs of choices occur together, and as many triples as fit, contradictions mended.

    What ends before anything runs is combined by pairs with what may make a difference then.
    """
    executed = AXES | {"ends": ("not asked", "asked")}
    refused = AXES | {"ends": ("rejected", "dry run"), "behaviour": ("all",), "history": ("first", "after_failure")}
    rows: dict[Cell, None] = {}
    for axes in (executed, refused):
        for row in AllPairs([list(values) for values in axes.values()]):
            rows[_mended(Cell(0, **dict(zip(axes, row, strict=True))))] = None
    chance = random.Random(9)
    seen = {triple for cell in rows for triple in _triples(cell)}
    while len(rows) < COUNT:
        drawn = [_mended(Cell(0, **{n: chance.choice(v) for n, v in executed.items()})) for _ in range(30)]
        best = max(drawn, key=lambda cell: len(_triples(cell) - seen))
        seen |= _triples(best)
        rows[best] = None
    return tuple(replace(cell, number=number) for number, cell in enumerate(rows))


def _triples(cell: Cell) -> frozenset[Any]:
    return frozenset(itertools.combinations([(name, getattr(cell, name)) for name in AXES], 3))


@dataclass(frozen=True)
class Scorecard:
    """One scorecard of the truth; it has two scores. ``day`` from 0 in the cell's month."""

    customer: str
    profile: str
    day: int
    number: int

    @property
    def meant(self) -> bool:
        """An appeal: the rows that a cleanup is meant to remove."""
        return self.number == 0

    @property
    def id(self) -> str:
        """Its id."""
        return f"{self.customer}-{self.profile}-{self.day}-{self.number}"


@cache
def truth(customer: str) -> tuple[Scorecard, ...]:
    """All scorecards of a customer in a cell's month: an appeal and five others on each day and profile."""
    return tuple(
        Scorecard(customer, profile, day, number)
        for profile in PROFILES[customer]
        for day in range(DAYS)
        for number in range(6)
    )


def written(cell: Cell, customer: str, days: range) -> tuple[list[Scorecard], list[Scorecard]]:
    """What the reindexer writes of some days, and which of these it writes to a second shard, too."""
    kind = cell.behaviour if customer == VICTIM else "all"
    mine = [s for s in truth(customer) if s.day in days]
    rows = [s for s in mine if not s.meant]
    if kind == "none":
        return [], []
    if kind == "fewer":
        rows = [s for s in rows if s.day != days.start or s.number not in (1, 2)]
    if kind == "meant_too":
        rows = mine
    doubled = [s for s in rows if s.day == days.start and s.number == 3] if kind == "doubled" else []
    return rows, doubled


@dataclass(frozen=True)
class Right:
    """What must be true of a customer in the end: its scorecards by id and number of copies, how its windows ended."""

    rows: dict[str, int]
    causes: frozenset[str]
    """Causes of which one must be told; empty: verified."""


def right(cell: Cell, customer: str) -> Right:
    """Return what is right for a customer after the last run of the cell."""
    normal = {s.id: 1 for s in truth(customer) if not s.meant}
    meant = {s.id: 1 for s in truth(customer) if s.meant}
    cleanup = cell.mode == "cleanup"
    there, owed = normal | meant, False
    if cell.history == "after_success" and cleanup:
        there = normal
    if cell.history == "after_failure" and cleanup and cell.order == "delete_first":
        there, owed = {}, True
    if not cell.executed or customer not in cell.chosen:
        return Right(there if customer in cell.chosen or cell.history == "first" else there, frozenset())
    came, doubled = {}, {}
    for days in [range(d, d + 1) for d in range(DAYS)] if _by_days(cell) else [range(DAYS)]:
        rows, twice = written(cell, customer, days)
        came |= {s.id: 1 for s in rows}
        doubled |= {s.id: 1 for s in twice}
    came |= dict.fromkeys(doubled, 2)
    old = cell.behaviour == "old_written" and customer == VICTIM
    if not cleanup:
        return _reindexed(there, came, owed, normal)
    if cell.order == "reindex_first":
        return _swept(there, came, doubled, old, normal, meant)
    return _deleted(cell, there, came, old, normal | meant if owed else there, meant)


def _by_days(cell: Cell) -> bool:
    return cell.window == "1d" or cell.history == "after_cut"


def _reindexed(there: dict[str, int], came: dict[str, int], owed: bool, normal: dict[str, int]) -> Right:
    after = there | came
    if 2 in after.values():
        return Right(after, frozenset({"doubled_rows"}))
    lost = owed and set(normal) - set(after)
    return Right(after, frozenset({"lost_rows", "nothing_came_back"}) if lost else frozenset())


def _swept(
    there: dict[str, int],
    came: dict[str, int],
    doubled: dict[str, int],
    old: bool,
    normal: dict[str, int],
    meant: dict[str, int],
) -> Right:
    """What was not written again, and is not meant to go, keeps everything from being deleted."""
    wrong = old or set(there) & set(normal) - set(came) or doubled or set(came) & set(meant)
    if wrong:
        return Right(there | came, frozenset({"not_rewritten"}))
    return Right(came, frozenset())


def _deleted(
    cell: Cell, there: dict[str, int], came: dict[str, int], old: bool, before: dict[str, int], meant: dict[str, int]
) -> Right:
    if 2 in came.values():
        return Right(came, frozenset({"doubled_rows"}))
    if set(before) - set(meant) - set(came):
        return Right(came, frozenset({"lost_rows", "nothing_came_back"}))
    if set(came) & set(meant):
        return Right(came, frozenset({"meant_came_back"}))
    if old and cell.overlap and there:
        # Written again with a time of before the DELETE: nobody can tell these rows from what it should have taken.
        return Right(came, frozenset({"stale_rows"}))
    return Right(came, frozenset())
