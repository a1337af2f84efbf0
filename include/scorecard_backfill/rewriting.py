"""Mode reindex deletes nothing, so that rows are there whatever the reindexer did: were they written again?

A row counts as written again when its written time (clickhouse.written_columns) is not older than the count before the
Job, less the skew of the clocks. Rows that are meant to go are not written again by design.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from include.scorecard_backfill.proof import NOTHING, SHOWN, Rules, allowed
from include.scorecard_backfill.records import TableDays, TableName
from include.scorecard_backfill.verdicts.base import Verdict, failed, ok
from include.scorecard_backfill.verdicts.census import DayTallies, Tally


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What a census found of one table since the moment: rows written since then, and the others, by ISO day."""

    new: DayTallies
    old: DayTallies


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Whether rows were written again. ``doubts``: why that is not proven of some of them, () when it is of all."""

    verdict: Verdict
    doubts: tuple[str, ...] = ()


def judge_rewriting(
    before: Iterable[TableDays],
    found: Mapping[TableName, Rewritten],
    rules: Rules,
    *,
    told: Collection[str],
    idle: Collection[str],
) -> Rewriting:
    """Return whether the rows of a window were written again.

    ``told`` are local tables with a written column, ``idle`` databases of profiles that had no work, by log and list of
    the workflows together.

    Raises:
        KeyError: ``found`` lacks a table that can be told and had rows before: what was not counted is unknown.
    """
    sentences: list[str] = []
    doubts: list[str] = []
    for table in before:
        name = ".".join(table.name)
        if table.table not in told:
            if table.rows:
                doubts.append(f"{table.table}: the cluster's file names no written_columns for it")
        elif table.database in idle:
            if any(n.rows for n in found[table.name].old.values()):
                doubts.append(f"{table.database}: the reindexer had no work for its profile")
        else:
            wrong, doubt = _table(name, table, found[table.name], rules)
            sentences += wrong
            doubts += doubt
    if sentences:
        more = [f"and {len(sentences) - SHOWN} more"] if len(sentences) > SHOWN else []
        return Rewriting(failed("not_reindexed", *sentences[:SHOWN], *more), tuple(doubts))
    return Rewriting(ok("written again"), tuple(doubts))


def _table(name: str, before: TableDays, found: Rewritten, rules: Rules) -> tuple[list[str], list[str]]:
    if any(n.meant is None for n in (*found.old.values(), *found.new.values())):
        return _by_share(name, before, found, rules)
    days = sorted({*found.old, *found.new, *(before.days if not rules.stable_ids else ())})
    numbers = {day: _wanted(before, found, day, stable_ids=rules.stable_ids) for day in days}
    sentences = [
        f"{name}: {missing} of {wanted} rows of {day} were not written again"
        for day, (missing, wanted) in numbers.items()
        if missing and (missing > allowed(wanted, rules) or missing >= wanted)
    ]
    missing, wanted = (sum(pair[place] for pair in numbers.values()) for place in (0, 1))
    if not sentences and missing > allowed(wanted, rules):
        sentences = [f"{name}: {missing} of {wanted} rows of the window were not written again"]
    return sentences, []


def _wanted(before: TableDays, found: Rewritten, day: str, *, stable_ids: bool) -> tuple[int, int]:
    """Return how many rows of a day were not written again, and how many should have been."""
    new, old = found.new.get(day, _NONE), found.old.get(day, _NONE)
    if stable_ids:
        left = old.rows - (old.meant or 0)
        return left, left + new.rows - (new.meant or 0)
    # A row that is written again under another id leaves the old one where it is: as many new ones must be there.
    was = before.days.get(day, NOTHING)
    wanted = max(0, (was.ids or was.rows) - (was.meant or 0))
    return max(0, wanted - (new.ids - (new.meant or 0))), wanted


def _by_share(name: str, before: TableDays, found: Rewritten, rules: Rules) -> tuple[list[str], list[str]]:
    """Without a predicate nobody knows which rows are not written again by design: a share of all must be."""
    new, old = (sum(n.rows for n in days.values()) for days in (found.new, found.old))
    rows = new + old if rules.stable_ids else before.rows
    lower = rules.band[before.table].lower
    if rows >= rules.small_rows and new < rows * Fraction(str(lower)):
        return [f"{name}: {new} of {rows} rows were written again, which is less than {lower:.0%}"], []
    if old:
        return [], [f"{before.table}: no predicate says which rows stay as they are (clickhouse.meant_to_go)"]
    return [], []


_NONE = Tally(meant=0)
