"""What the old scripts' history says to a plan: whom it leaves out, and what a person should read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.tracking.history import Entry, History

SHOWN = 5
"""Entries that a note names."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Customers that a plan leaves out, and sentences about those that it has."""

    left_out: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def advice(
    history: History, days: DateRange, *, named: Collection[str], skip_done: bool, owed: Collection[str] = ()
) -> Advice:
    """Return what the history says of a run over these days.

    Nothing of it counts as verified. So what the scripts called done stays in a plan, with a note, unless the run asks
    to leave it out; whom a person had excluded is left out. Customers that the run names, and those with an open debt
    here, always stay.

    Args:
        history: of the cluster.
        days: of the run.
        named: customers that the run names, () for all of them.
        skip_done: leave out customers of whom every day is done.
        owed: customers with rows that were deleted and are not verified.
    """
    here = [entry for entry in history.entries if entry.days.overlaps(days)]
    stays = {*named, *owed}
    excluded = {entry.customer_id for entry in here if entry.state == "excluded"}
    done = set(history.left_out(days)) - excluded
    out = set() if named else (excluded | (done if skip_done else set())) - stays
    kept = [entry for entry in here if entry.customer_id not in out and (not named or entry.customer_id in named)]
    return Advice(frozenset(out), tuple(_notes(kept, excluded & out, done & out)))


def _notes(kept: Sequence[Entry], excluded: Collection[str], skipped: Collection[str]) -> Iterator[str]:
    source = "the old scripts' history"
    if excluded:
        yield f"left out, excluded in {source}: {_listed(sorted(excluded))}"
    if skipped:
        yield f"left out, done by {source} (never proven here): {_listed(sorted(skipped))}"
    for state, what in (
        ("open", "rows may be deleted and not written again"),
        ("failed", "tried and failed"),
        ("excluded", "excluded, and in this plan because it is named or owed"),
        ("done", "done by the scripts, which proves nothing; again"),
    ):
        found = [f"{e.customer_id} {e.days.label}" for e in kept if e.state == state]
        if found:
            yield f"{source}: {what}: {_listed(found)}"


def _listed(items: Sequence[str]) -> str:
    more = f", and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
