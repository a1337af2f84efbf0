"""What is right for each cell of the matrix: a small model that knows nothing of the product."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tests.matrix.choices import CUSTOMERS, Scene

DAYS = 2
"""Days with rows, at the beginning of the scene's month."""

PROFILES = {customer: ("voice", "chat") if customer == "globex" else ("voice",) for customer in CUSTOMERS}


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


def right(scene: Scene, customer: str, *, seen: bool = False) -> Right:
    """Return what is right for a customer after the last run of the scene.

    ``seen``: the ends of the mutations were seen although the run need not wait for them: nothing of before is left.
    """
    normal = {s.id: 1 for s in truth(customer) if not s.meant}
    meant = {s.id: 1 for s in truth(customer) if s.meant}
    cleanup = scene.mode == "cleanup"
    there, owed = normal | meant, False
    if customer not in scene.behaviours:
        return Right(there)
    # A run before may have been executed although the last one is not.
    if scene.history == "after_success" and cleanup:
        there = normal
    if scene.history == "after_failure" and cleanup and scene.order == "delete_first":
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
        came,
        old and scene.overlap and bool(there) and not seen,
        set(normal if owed else there) - set(meant),
        set(meant),
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
