"""What a user can choose, pair by pair, and what is right then: a small model that knows nothing of the product.

A *scene* is what is chosen for a run; each customer of the run has a reindexer that behaves in a way of its own. A
*cell* is a scene and one of its customers.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from allpairspy import AllPairs

DAYS = 2
"""Days with rows, at the beginning of the scene's month."""

CELLS = 200
"""At least so many."""

CUSTOMERS = ("acme", "globex", "hooli", "initech", "stark", "umbrella", "wayne")
PROFILES = {customer: ("voice", "chat") if customer == "globex" else ("voice",) for customer in CUSTOMERS}
BEHAVIOURS = ("all", "fewer", "none", "doubled", "other_days", "old_written", "meant_too")
CHOSEN = {"one": 1, "list": 2, "all": len(CUSTOMERS)}

AXES: dict[str, tuple[Any, ...]] = {
    "history": ("first", "after_success", "after_failure", "after_cut"),
    "how": ("manual", "rest", "scheduled"),
    "customers": ("all", "list", "one"),
    "ends": ("not asked", "asked", "rejected", "dry run"),
    "window": ("auto", "10d", "1d"),
    "mode": ("cleanup", "reindex"),
    "order": ("delete_first", "reindex_first"),
    "overlap": (False, True),
    "snapshot": (False, True),
    "drop": (False, True),
}


@dataclass(frozen=True)
class Scene:
    """One choice for a run."""

    number: int
    history: str
    how: str
    customers: str
    ends: str
    window: str
    mode: str
    order: str
    overlap: bool
    snapshot: bool
    drop: bool

    @property
    def name(self) -> str:
        """All of it, for the test's name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        shown = [name if value is True else str(value) for name, value in values.items() if value is not False]
        return "-".join(part.replace(" ", "_") for part in shown)

    @property
    def behaviours(self) -> dict[str, str]:
        """How the reindexer behaves for each chosen customer; another one does it in the next scene."""
        ways = itertools.islice(itertools.cycle(BEHAVIOURS), self.number, None)
        first = 0 if self.customers == "all" else self.number
        chosen = [CUSTOMERS[(first + n) % len(CUSTOMERS)] for n in range(CHOSEN[self.customers])]
        return dict(zip(sorted(chosen), ways, strict=False))

    @property
    def executed(self) -> bool:
        """True when the plan is carried out: a plan that deletes nothing is not asked about."""
        return self.ends != "dry run" and not (self.ends == "rejected" and self.mode == "cleanup")

    @property
    def by_days(self) -> bool:
        """True when each day is reindexed for itself in the end."""
        return self.window == "1d" or self.history == "after_cut"


def _mended(scene: Scene) -> Scene:
    """What contradicts itself is made possible, with as little change as may be."""
    # A schedule runs over its month, whose days would each be a window; it has no form and names no dry run.
    if scene.how == "scheduled" and (scene.history == "after_cut" or scene.ends == "dry run"):
        scene = replace(scene, how="manual")
    if scene.how == "scheduled" and scene.window != "auto":
        scene = replace(scene, window="auto")
    # A single day is never cut.
    if scene.window == "1d" and scene.history == "after_cut":
        scene = replace(scene, window="10d")
    if not scene.executed and scene.history in ("after_success", "after_cut"):
        scene = replace(scene, history="after_failure")
    return scene


ALWAYS = (
    Scene(0, "after_success", "rest", "list", "asked", "1d", "cleanup", "delete_first", False, False, True),
    Scene(0, "after_success", "manual", "list", "not asked", "10d", "cleanup", "reindex_first", True, True, False),
    Scene(0, "after_cut", "manual", "list", "asked", "10d", "cleanup", "reindex_first", True, False, True),
)
"""Three choices at once that pairs may leave out: a cleanup in each order after others have been at the rows."""


@cache
def scenes() -> tuple[Scene, ...]:
    """Scenes in which all pairs of choices occur together, and more of them until there are enough cells."""
    chance = random.Random(9)
    rows: dict[Scene, None] = dict.fromkeys(ALWAYS)
    for row in AllPairs([list(values) for values in AXES.values()]):
        rows[_mended(Scene(0, **dict(zip(AXES, row, strict=True))))] = None
    # What costs many windows (single days, a run before, cuts) is there already, with every other choice.
    cheap = {"history": ("first", "after_failure"), "window": ("auto", "10d")}
    wide = AXES | cheap | {"customers": ("all",), "ends": ("asked", "not asked"), "mode": ("cleanup",)}
    while sum(CHOSEN[scene.customers] for scene in rows) < CELLS:
        rows[_mended(Scene(0, **{name: chance.choice(values) for name, values in wide.items()}))] = None
    return tuple(replace(scene, number=number) for number, scene in enumerate(rows))


@dataclass(frozen=True)
class Scorecard:
    """One scorecard of the truth; it has one score. ``day`` from 0 in the scene's month."""

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
    """All scorecards of a customer in a scene's month: an appeal and five others on each day and profile."""
    return tuple(
        Scorecard(customer, profile, day, number)
        for profile in PROFILES[customer]
        for day in range(DAYS)
        for number in range(6)
    )


def written(behaviour: str, customer: str, days: range) -> tuple[list[Scorecard], list[Scorecard]]:
    """What the reindexer writes of some days, and which of these it writes to a second shard, too."""
    mine = [s for s in truth(customer) if s.day in days]
    rows = [s for s in mine if not s.meant]
    if behaviour == "none":
        return [], []
    if behaviour == "fewer":
        rows = [s for s in rows if s.day != days.start or s.number not in (1, 2)]
    if behaviour == "meant_too":
        rows = mine
    doubled = [s for s in rows if s.day == days.start and s.number == 3] if behaviour == "doubled" else []
    return rows, doubled


@dataclass(frozen=True)
class Right:
    """What must be true of a customer in the end: its scorecards by id and number of copies, how its windows ended.

    Of ``causes`` one must be told; none of them: all of its windows are verified.
    """

    rows: dict[str, int]
    causes: frozenset[str] = frozenset()


def right(scene: Scene, customer: str) -> Right:
    """Return what is right for a customer after the last run of the scene."""
    normal = {s.id: 1 for s in truth(customer) if not s.meant}
    meant = {s.id: 1 for s in truth(customer) if s.meant}
    cleanup = scene.mode == "cleanup"
    there, owed = normal | meant, False
    if customer not in scene.behaviours:
        return Right(there)
    # A run before may have been executed although the last one is not.
    if scene.history == "after_success" and cleanup:
        there = normal
    if scene.history == "after_failure" and cleanup and scene.order == "delete_first" and scene.ends != "dry run":
        there, owed = {}, True
    if not scene.executed:
        return Right(there)
    behaviour = scene.behaviours[customer]
    came: dict[str, int] = {}
    for days in [range(d, d + 1) for d in range(DAYS)] if scene.by_days else [range(DAYS)]:
        rows, twice = written(behaviour, customer, days)
        came |= {s.id: 1 for s in rows} | {s.id: 2 for s in twice}
    old = behaviour == "old_written"
    if not cleanup:
        return _reindexed(there, came, old, set(meant))
    if scene.order == "reindex_first":
        return _swept(there, came, old, set(meant))
    return _deleted(
        came, old and scene.overlap and bool(there), set(normal if owed else there) - set(meant), set(meant)
    )


def _reindexed(there: dict[str, int], came: dict[str, int], old: bool, meant: set[str]) -> Right:
    """Nothing is deleted, so nothing can be lost; what is not an appeal and was there must have been written again."""
    after = there | came
    if 2 in after.values():
        return Right(after, frozenset({"doubled_rows"}))
    left = set(after if old else there) - meant - (set() if old else set(came))
    return Right(after, frozenset({"not_reindexed"} if left else ()))


def _swept(there: dict[str, int], came: dict[str, int], old: bool, meant: set[str]) -> Right:
    """What was not written again, and is not meant to go, keeps everything from being deleted."""
    if old or set(there) - meant - set(came) or 2 in came.values() or set(came) & meant:
        return Right(there | came, frozenset({"not_rewritten"}))
    return Right(came)


def _deleted(came: dict[str, int], stale: bool, expected: set[str], meant: set[str]) -> Right:
    if 2 in came.values():
        return Right(came, frozenset({"doubled_rows"}))
    if expected - set(came):
        return Right(came, frozenset({"lost_rows", "nothing_came_back"}))
    if set(came) & meant:
        return Right(came, frozenset({"meant_came_back"}))
    # Written again with a time of before the DELETE, whose end nobody has seen: these may be what it should take.
    return Right(came, frozenset({"stale_rows"} if stale else ()))
