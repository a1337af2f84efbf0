"""The balance of a window: before = came back + meant to go + missing; after = came back + new; doubled = 0.

This is the only place that can say that what came back is complete. Everything is judged per table *and* UTC day, by
the numbers of the first delete: a total may hide a day that was not written at all, and a part of a window or a second
run counts days that are empty because of an earlier delete.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType

from include.scorecard_backfill.records import DayBalance, Numbers, TableBalance, TableDays, TableName
from include.scorecard_backfill.verdicts.base import Verdict, failed, ok

NOTHING = Numbers(rows=0)
HASHES = 2**64
"""Fingerprints are sums of 64-bit hashes."""

NO_IDS: Mapping[TableName, int] = MappingProxyType({})

DAYS_IN_FULL = 5
"""So many days of a table are told with their numbers, those that lack most; the others by their date."""

SHOWN = 20
"""Lines of one failure that are shown; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Band:
    """Share of the rows before that must and may be there after, both inclusive; ``upper`` None: any number."""

    lower: float
    upper: float | None


@dataclass(frozen=True, slots=True)
class Rules:
    """How a window is judged.

    ``cleanup``: rows that the predicate means to go are expected to be gone (else nothing may shrink). ``share`` and
    ``rows``: rows of a day that may be missing, the larger of both; a window as a whole may miss no more than that
    either. ``band`` by local table name is used for tables without a predicate, over days of at least ``small_rows``
    rows; smaller days are judged together. ``stable_ids``: the reindexer writes a row again under the same id.
    ``owed`` are days by table whose rows an earlier cleanup has deleted: what was meant to go there stays away, also
    when this run deletes nothing.
    """

    cleanup: bool
    share: float
    rows: int
    band: Mapping[str, Band]
    small_rows: int
    stable_ids: bool = True
    owed: Mapping[TableName, frozenset[str]] = field(default_factory=dict)

    def goes(self, table: TableName, day: str) -> bool:
        """Return True when rows of a day that are meant to go are expected to be gone."""
        return self.cleanup or day in self.owed.get(table, ())

    def anything_goes(self, table: TableName) -> bool:
        """Return True when rows of a table are expected to be gone."""
        return self.cleanup or bool(self.owed.get(table))


def allowed(expected: int, rules: Rules) -> int:
    """Return how many of the expected rows may be missing."""
    return max(rules.rows, math.floor(Fraction(str(rules.share)) * expected))


def balance(
    before: Sequence[TableDays], after: Sequence[TableDays], rules: Rules, ids: Mapping[TableName, int] = NO_IDS
) -> tuple[TableBalance, ...]:
    """Return the balance of every table of ``before``.

    ``ids`` are the distinct ids of ``after`` over all days: an id on two days is one. A table that it does not name is
    looked at day by day only.

    Raises:
        KeyError: ``after`` lacks a table of ``before``: what was not counted is unknown, not empty.
    """
    counted = {table.name: table for table in after}
    return tuple(
        _table(table, counted[table.name], rules, ids.get(table.name)) for table in sorted(before, key=lambda t: t.name)
    )


def _table(before: TableDays, after: TableDays, rules: Rules, ids: int | None) -> TableBalance:
    # A predicate that is known on one side only accounts for nothing: what it means to go would hide what is lost.
    unknown = {n.meant is None for n in (*before.days.values(), *after.days.values())}
    known = unknown <= {False}
    days = {
        day: _day(
            before.days.get(day, NOTHING),
            after.days.get(day, NOTHING),
            some_go=known and rules.goes(before.name, day),
            stable_ids=rules.stable_ids and len(unknown) == 1,
        )
        for day in sorted({*before.days, *after.days})
    }
    # Where nothing was deleted nothing is meant to go, with or without a predicate.
    accounted = known or (not rules.anything_goes(before.name) and len(unknown) == 1)
    meant = sum(d.meant for d in days.values()) if accounted else None
    short, over = sum(d.short for d in days.values()), sum(d.over for d in days.values())
    exact = _fingerprint(before) == _fingerprint(after) and short == over
    moved = short if exact else 0
    return TableBalance(
        database=before.database,
        table=before.table,
        before=before.rows,
        meant=meant if before.days else 0,
        after=after.rows,
        removed=before.rows - after.rows,
        short=short - moved,
        over=over - moved,
        doubled=sum(d.doubled for d in days.values()) if ids is None else after.rows - ids,
        moved=moved,
        exact=exact,
        days=days,
    )


def _day(before: Numbers, after: Numbers, *, some_go: bool, stable_ids: bool) -> DayBalance:
    meant = (before.meant or 0) if some_go else 0
    expected, back = _staying(before, some_go=some_go), _staying(after, some_go=some_go)
    short = max(0, expected - back, _lost_ids(before, after) if stable_ids else 0)
    return DayBalance(
        before=before.rows,
        meant=meant,
        after=after.rows,
        doubled=after.rows - after.ids if after.ids else 0,
        short=short,
        over=short + back - expected,
    )


def _staying(found: Numbers, *, some_go: bool) -> int:
    """Return how many rows are not meant to go, by their ids.

    A row that is there twice does not make up for one that is lost, before as after, nor does one that is meant to go
    and is there twice: by rows it would be taken off twice.
    """
    if some_go and found.buckets:
        return sum(found.buckets)
    return max(0, (found.ids or found.rows) - ((found.meant or 0) if some_go else 0))


def _lost_ids(before: Numbers, after: Numbers) -> int:
    """Return how many ids are lost at least: new ones can only make up for lost ones of the same class."""
    if not before.buckets or not after.buckets:
        return 0
    return sum(max(0, was - now) for was, now in zip(before.buckets, after.buckets, strict=True))


def _fingerprint(table: TableDays) -> int:
    return sum(day.fingerprint for day in table.days.values()) % HASHES


def judge(
    before: Sequence[TableDays], after: Sequence[TableDays], rules: Rules, ids: Mapping[TableName, int] = NO_IDS
) -> tuple[Verdict, tuple[TableBalance, ...]]:
    """Return whether the books balance, and the balance; a failure has one sentence for each line that does not.

    ``ids`` as for :func:`balance`.

    Raises:
        KeyError: as :func:`balance`.
    """
    tables = balance(before, after, rules, ids)
    came_back = {t.name: sum(n.meant or 0 for n in t.days.values()) for t in after}
    counted = {t.name: t for t in after}
    changed = {t.name: _changed_days(t, counted[t.name]) for t in before}
    for cause, sentences in (
        ("doubled_rows", [line for t in tables for line in _doubled(t)]),
        ("nothing_came_back", _nothing(tables, rules)),
        ("lost_rows", [line for t in tables for line in _lost(t, rules)]),
        ("meant_came_back", [line for t in tables for line in _meant(t, came_back[t.name], rules)]),
        ("too_many_rows", [line for t in tables for line in _too_many(t, rules)]),
        ("other_ids", [line for t in tables for line in _other_ids(t, changed[t.name], rules)]),
    ):
        if sentences:
            more = [f"and {len(sentences) - SHOWN} more"] if len(sentences) > SHOWN else []
            return failed(cause, *sentences[:SHOWN], *more), tables
    return ok(*(_fine(t) for t in tables)), tables


def _name(table: TableBalance) -> str:
    return f"{table.database}.{table.table}"


def _doubled(table: TableBalance) -> Iterable[str]:
    for day, d in table.days.items():
        if d.doubled:
            yield (
                f"{_name(table)}: {d.doubled} of {d.after} rows of {day} are there twice (the same id on two shards, or"
                " under two keys)"
            )
    if other := table.doubled - sum(d.doubled for d in table.days.values()):
        yield f"{_name(table)}: {other} of {table.after} rows are there on another day, too (the same id)"


def _nothing(tables: Sequence[TableBalance], rules: Rules) -> list[str]:
    """A reindex that ended well and wrote nothing at all has one usual reason, which the cause names."""
    expected = sum(t.before - (t.meant or 0) for t in tables)
    if not expected or any(t.after for t in tables):
        return []
    return [f"{_name(t)}: no row came back, {t.before} were there before" for t in tables if t.before]


def _lost(table: TableBalance, rules: Rules) -> Iterable[str]:
    if table.exact:
        return
    if table.meant is None and rules.anything_goes(table.name):
        yield from _outside_band(table, rules)
        return
    expected = table.before - (table.meant or 0)
    if table.short > allowed(expected, rules):
        yield f"{_name(table)}: {_at_least(table)}{table.short} of {expected} rows of the window did not come back"
    short = {day: d for day, d in table.days.items() if _is_short(d, rules)}
    worst = sorted(short, key=lambda day: (-short[day].short, day))
    for day in sorted(worst[:DAYS_IN_FULL]):
        d = short[day]
        yield (
            f"{_name(table)}: {_at_least(d)}{d.short} of {d.before - d.meant} rows of {day} did not come back"
            f" ({d.before} before, {d.meant} of them meant to go, {d.after} after)"
        )
    if others := sorted(worst[DAYS_IN_FULL:]):
        yield f"{_name(table)}: rows of {', '.join(others)} did not come back either"


def _is_short(day: DayBalance, rules: Rules) -> bool:
    expected = day.before - day.meant
    return day.short > allowed(expected, rules) or bool(day.short and day.short >= expected)


def _at_least(found: DayBalance | TableBalance) -> str:
    """Return words for a number that is proven, while the true one may be larger: new rows are there beside."""
    days = found.days.values() if isinstance(found, TableBalance) else (found,)
    return "at least " if any(d.short and d.over for d in days) else ""


def _outside_band(table: TableBalance, rules: Rules) -> Iterable[str]:
    """Without a predicate nobody knows what was meant to go: a share of the rows of each day must be there."""
    band = rules.band[table.table]
    large = {day: d for day, d in table.days.items() if d.before >= rules.small_rows}
    small = [d for day, d in table.days.items() if day not in large and d.before]
    for day, d in large.items():
        if d.before - d.short < d.before * Fraction(str(band.lower)):
            yield f"{_name(table)}: {d.after} rows of {day} < {band.lower:.0%} of {d.before} before"
    before, back = sum(d.before for d in small), sum(d.before - d.short for d in small)
    if not before:
        return
    enough = before * Fraction(str(band.lower)) if before >= rules.small_rows else 1
    if back < enough:
        yield (
            f"{_name(table)}: {back} rows of the {len(small)} days with less than {rules.small_rows} rows each came"
            f" back, {before} were there (not accounted for: no predicate says which were meant to go)"
        )


def _meant(table: TableBalance, came_back: int, rules: Rules) -> Iterable[str]:
    if rules.cleanup and table.meant is not None and came_back:
        yield f"{_name(table)}: {came_back} rows that are meant to go are there again: the reindexer still writes them"


def _too_many(table: TableBalance, rules: Rules) -> Iterable[str]:
    upper = rules.band[table.table].upper
    if not rules.cleanup or upper is None or not table.before:
        return
    if table.after > table.before * Fraction(str(upper)):
        yield f"{_name(table)}: {table.after} rows > {upper:.0%} of {table.before} before"


def _changed_days(before: TableDays, after: TableDays) -> frozenset[str]:
    """Return the days whose ids are not the same as before."""
    days = {*before.days, *after.days}
    return frozenset(
        d for d in days if before.days.get(d, NOTHING).fingerprint != after.days.get(d, NOTHING).fingerprint
    )


def _other_ids(table: TableBalance, changed: Container[str], rules: Rules) -> Iterable[str]:
    """As many rows of a day as expected, but not the same: as many were lost as are new."""
    if not rules.stable_ids or table.meant is None or table.exact:
        return
    for day, d in table.days.items():
        if day in changed and d.short == d.over and (d.before or d.after):
            yield f"{_name(table)}: as many rows of {day} came back as were expected, but other ones (their ids differ)"


def _fine(table: TableBalance) -> str:
    accounted = "not accounted for" if table.meant is None else f"{table.meant} meant to go"
    moved = f", {table.moved} on another day" if table.moved else ""
    new = f", {table.over} more than expected" if table.over else ""
    return f"{_name(table)}: {table.before} before, {accounted}, {table.after} after, {table.short} short{moved}{new}"


def without(before: Sequence[TableDays], owed: Mapping[TableName, TableDays]) -> tuple[TableDays, ...]:
    """Return what was before: of each day that was counted by an earlier delete its numbers, else what is there now.

    A table that is owed and not counted now stays in it: :func:`judge` then refuses to judge the window without it.
    """
    known = {table.name for table in before}
    return (
        *(
            table.model_copy(update={"days": {**table.days, **(owed[table.name].days if table.name in owed else {})}})
            for table in before
        ),
        *(table for name, table in sorted(owed.items()) if name not in known),
    )
