"""What a user can choose, and which choices are carried out: every pair of them at least once.

A *scene* is what is chosen for a run; each customer of the run has a reindexer that behaves in a way of its own. A
*cell* is a scene and one of its customers.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

CELLS = 200
"""At least so many."""

TRIED, ROUNDS = 150, 60
"""Scenes that are drawn for each one that is taken; how often, at most, for the pairs."""

SEED = 7
"""Of sixty that were tried the one whose scenes cost least."""

CUSTOMERS = ("acme", "globex", "hooli", "initech", "stark", "umbrella", "wayne")
BEHAVIOURS = ("all", "fewer", "none", "doubled", "other_days", "old_written", "meant_too")
CHOSEN = {"one": 1, "list": 2, "all": len(CUSTOMERS)}

AXES: dict[str, tuple[Any, ...]] = {
    "history": ("first", "after_success", "after_failure", "after_cut"),
    "how": ("manual", "rest", "scheduled"),
    "customers": ("all", "list", "one"),
    "approval": ("not asked", "asked", "rejected"),
    "dry_run": (False, True),
    "window": ("auto", "10d", "1d"),
    "mode": ("cleanup", "reindex"),
    "order": ("delete_first", "reindex_first"),
    "overlap": (False, True),
    "snapshot": (False, True),
    "drop": (False, True),
}
ASKED = ("approval", "dry_run")
"""What decides whether a plan is carried out."""

Value = tuple[str, Any]
Pair = frozenset[Value]

LEFT_OUT: dict[Pair, str] = {
    frozenset({("how", "scheduled"), ("dry_run", True)}): "a schedule has no form and names no dry run",
    frozenset({("how", "scheduled"), ("window", "1d")}): "a schedule runs over its month: thirty windows a customer",
    frozenset({("how", "scheduled"), ("history", "after_cut")}): "its month is cut into thirty single days",
    frozenset({("window", "1d"), ("history", "after_cut")}): "a single day is never cut",
    frozenset({("dry_run", True), ("history", "after_cut")}): "a cut is made of a window that is carried out",
    **{
        frozenset({("dry_run", True), ("behaviour", behaviour)}): "a dry run starts no reindexer"
        for behaviour in BEHAVIOURS
    },
}
"""The pairs that no scene has, and why."""


@dataclass(frozen=True)
class Scene:
    """One choice for a run."""

    number: int
    history: str
    how: str
    customers: str
    approval: str
    dry_run: bool
    window: str
    mode: str
    order: str
    overlap: bool
    snapshot: bool
    drop: bool

    @property
    def batches(self) -> bool:
        """Whether the plan comes into being in batches, of one window where four of them hold the plan."""
        return self.number % 2 == 1

    @property
    def name(self) -> str:
        """All of it, for the test's name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)} | {"batches": self.batches}
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
    def present(self) -> list[str]:
        """The customers that have rows: the chosen ones and another one, of whom nothing may be touched."""
        others = [customer for customer in CUSTOMERS if customer not in self.behaviours]
        return sorted([*self.behaviours, *others[:1]])

    @property
    def rejected(self) -> bool:
        """True when a person says no: a plan that deletes nothing is not asked about, nor is a dry run."""
        return self.approval == "rejected" and self.mode == "cleanup" and not self.dry_run

    @property
    def executed(self) -> bool:
        """True when the plan is carried out."""
        return not self.dry_run and not self.rejected

    @property
    def by_days(self) -> bool:
        """True when each day is reindexed for itself in the end."""
        return self.window == "1d" or self.history == "after_cut"

    @property
    def cost(self) -> float:
        """About how many windows are carried out, also by the run before."""
        one = {"1d": 2.0, "10d": 4.0 if self.how == "scheduled" else 1.0, "auto": 1.0}[self.window]
        one = 3.0 if self.history == "after_cut" else one
        one *= 1.0 if self.mode == "cleanup" else 0.6
        before = {"after_success": one, "after_failure": 0.6 * one}.get(self.history, 0.0)
        return 0.5 + CHOSEN[self.customers] * (before + (one if self.executed else 0.0))


def values_of(scene: Scene) -> frozenset[Value]:
    """What was chosen, by axis."""
    return frozenset((name, getattr(scene, name)) for name in (*AXES, "batches"))


def pairs_of(scene: Scene) -> set[Pair]:
    """The pairs that a scene proves something about.

    Where nothing is carried out, nothing is said about two choices that only what is carried out looks at, nor about
    how the reindexer behaves.
    """
    chosen = values_of(scene)
    pairs = {frozenset(pair) for pair in itertools.combinations(chosen, 2)}
    if not scene.executed:
        return {pair for pair in pairs if any(name in ASKED for name, _ in pair)}
    ways = {("behaviour", way) for way in scene.behaviours.values()}
    return pairs | {frozenset({value, way}) for value in chosen for way in ways}


def all_pairs() -> set[Pair]:
    """Every two values of two axes, the reindexer's behaviour being one."""
    every = AXES | {"batches": (False, True), "behaviour": BEHAVIOURS}
    axes = [[(name, value) for value in values] for name, values in every.items()]
    return {
        frozenset(pair)
        for one, other in itertools.combinations(axes, 2)
        for pair in itertools.product(one, other)
    }  # fmt: skip


def possible(scene: Scene) -> bool:
    """Whether a scene has none of the pairs that are left out."""
    chosen = values_of(scene)
    return not any(pair <= chosen for pair in LEFT_OUT) and (scene.executed or scene.history != "after_cut")


ALWAYS = (
    Scene(0, "after_success", "rest", "list", "asked", False, "1d", "cleanup", "delete_first", False, False, True),
    Scene(1, "after_success", "rest", "list", "not asked", False, "10d", "cleanup", "reindex_first", True, True, False),
    Scene(2, "after_cut", "manual", "list", "asked", False, "10d", "cleanup", "reindex_first", True, False, True),
)
"""Three choices at once that pairs may leave out: a cleanup in each order after others have been at the rows."""


def _drawn(chance: random.Random, number: int, axes: dict[str, tuple[Any, ...]]) -> list[Scene]:
    scenes = [Scene(number, **{name: chance.choice(values) for name, values in axes.items()}) for _ in range(TRIED)]
    return [scene for scene in scenes if possible(scene)]


@cache
def scenes() -> tuple[Scene, ...]:
    """Scenes in which all pairs occur that are not left out, each cheap for what it adds; then more of them."""
    chance = random.Random(SEED)
    taken = list(ALWAYS)
    missing = all_pairs() - LEFT_OUT.keys()
    missing -= set().union(*(pairs_of(scene) for scene in taken))
    # What never occurs is left to the test that names it.
    for _ in range(ROUNDS):
        best = max(
            _drawn(chance, len(taken), AXES), key=lambda scene: len(pairs_of(scene) & missing) / (2 + scene.cost)
        )
        if pairs_of(best) & missing:
            taken.append(best)
            missing -= pairs_of(best)
        if not missing:
            break
    # What costs many windows (single days, a run before, cuts) is there already, with every other choice.
    wide = AXES | {"history": ("first",), "customers": ("all",), "dry_run": (False,), "window": ("auto",)}
    seen = {values_of(scene) for scene in taken}
    while sum(CHOSEN[scene.customers] for scene in taken) < CELLS:
        mode = "cleanup" if len(taken) % 3 else "reindex"
        drawn = _drawn(chance, len(taken), wide | {"mode": (mode,)})
        taken.append(next(scene for scene in drawn if scene.executed and values_of(scene) not in seen))
        seen.add(values_of(taken[-1]))
    return tuple(taken)
