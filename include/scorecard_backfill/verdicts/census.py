"""What a census found: rows, conversations and ids by table and UTC day, and whether that is all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from include.scorecard_backfill.foreign import Row
from include.scorecard_backfill.sql.census import BUCKETS
from include.scorecard_backfill.verdicts.counts import Days, Host, TableName

FIGURES = 5
"""Figures of one day and kind of rows in an answer over all shards (sql/census.py)."""

Answer = Row
"""One row of a counting statement: ``leg``, ``host`` ('' over all shards), ``days`` as (ISO day, numbers) pairs."""


class IncompleteError(ValueError):
    """An answer lacks a row that must be there, or has one that nobody asked for."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a census found of one day, or of all days, FINAL over all shards.

    Rows, distinct conversations, distinct row ids, rows meant to go (None: no rule).
    ``fingerprint``: the sum modulo 2**64 of a hash of the id of each row that is not meant to go. ``buckets``: how many
    of these ids are in each class of that hash, () where it was not asked for.
    """

    rows: int = 0
    conversations: int = 0
    ids: int = 0
    meant: int | None = None
    fingerprint: int = 0
    buckets: tuple[int, ...] = ()

    @property
    def doubled(self) -> int:
        """Rows whose id is there more than once, the first of each not counted: two shards hold the same row."""
        return self.rows - self.ids


DayTallies = Mapping[str, Tally]


@dataclass(frozen=True, slots=True)
class TableCensus:
    """One table: numbers by ISO day, over all days (an id on two days is one id), and rows by day on each host.

    ``rewritten`` and ``old`` are the same numbers of the rows that were written since a moment, and of the others;
    empty when no moment was asked for.
    """

    days: DayTallies = field(default_factory=dict)
    total: Tally = Tally()
    hosts: Mapping[str, Days] = field(default_factory=dict)
    rewritten: DayTallies = field(default_factory=dict)
    rewritten_total: Tally = Tally()
    old: DayTallies = field(default_factory=dict)
    old_total: Tally = Tally()


@dataclass(frozen=True, slots=True)
class Census:
    """The tables of one question. Nothing may be decided by it while ``unsettled`` says why not."""

    unsettled: str
    tables: Mapping[TableName, TableCensus]

    @property
    def days(self) -> Mapping[TableName, DayTallies]:
        """Tallies by table and ISO day; a day without rows is not there."""
        return {name: table.days for name, table in self.tables.items()}

    @property
    def total(self) -> Mapping[TableName, Tally]:
        """Tallies by table over all days."""
        return {name: table.total for name, table in self.tables.items()}

    @property
    def rewritten(self) -> Mapping[TableName, DayTallies]:
        """Tallies by table and day of the rows written since the moment that was asked for."""
        return {name: table.rewritten for name, table in self.tables.items()}

    @property
    def old(self) -> Mapping[TableName, DayTallies]:
        """Tallies by table and day of the rows that are not proven to be written since then."""
        return {name: table.old for name, table in self.tables.items()}


def host_days(answers: Iterable[Answer], legs: int, hosts: Sequence[Host]) -> list[dict[str, dict[str, int]]]:
    """Return rows by host and day for each of ``legs`` legs that ask every host.

    Raises IncompleteError unless each leg has exactly one row of each host.
    """
    found: dict[tuple[int, str], dict[str, int]] = {}
    for answer in answers:
        place = int(answer["leg"]), str(answer["host"])
        if place in found:
            raise IncompleteError(f"{place[1]} answered twice: two hosts of the cluster have the same name")
        found[place] = {str(day): int(numbers[0]) for day, numbers in answer["days"]}
    names = {host.name for host in hosts}
    if not names:
        raise IncompleteError("no host is known that could count")
    missing = sorted({name for leg in range(legs) for name in names if (leg, name) not in found})
    if missing:
        raise IncompleteError(f"no count from {', '.join(missing)}: unknown is not zero")
    strange = sorted({host for _, host in found} - names)
    if strange or len(found) != legs * len(names):
        raise IncompleteError(f"a count from {', '.join(strange) or 'nobody'}, which was not asked for")
    return [{name: found[leg, name] for name in sorted(names)} for leg in range(legs)]


def read_census(
    answers: Sequence[Answer], tables: Sequence[TableName], hosts: Sequence[Host], *, meant: Sequence[bool]
) -> Census:
    """Return the census of ``tables`` (in the order of the statement); ``meant`` says which of them have a rule.

    Raises IncompleteError when a row is missing, is there twice, or was not asked for.
    """
    of_hosts = [{**answer, "leg": int(answer["leg"]) // 2} for answer in answers if int(answer["leg"]) % 2 == 0]
    per_host = host_days(of_hosts, len(tables), hosts)
    whole = [answer for answer in answers if int(answer["leg"]) % 2]
    by_leg = {int(answer["leg"]) // 2: answer["days"] for answer in whole}
    if len(whole) != len(tables) or set(by_leg) != set(range(len(tables))):
        raise IncompleteError(f"{len(whole)} counts over all shards for {len(tables)} tables: the answer is not whole")
    found = {
        name: _table(by_leg[number], per_host[number], has_rule)
        for number, (name, has_rule) in enumerate(zip(tables, meant, strict=True))
    }
    problems = (_unsettled(name, table, hosts) for name, table in found.items())
    return Census(next((problem for problem in problems if problem), ""), found)


def _table(days: Iterable[Any], hosts: Mapping[str, Days], has_rule: bool) -> TableCensus:
    split: list[dict[str, Tally]] = [{}, {}, {}]
    for day, numbers in days:
        figures, buckets = numbers[:-BUCKETS], tuple(int(number) for number in numbers[-BUCKETS:])
        for place in range(len(figures) // FIGURES):
            own = figures[FIGURES * place : FIGURES * (place + 1)]
            rows, conversations, ids, meant, print_ = (int(number) for number in own)
            if rows or not day:
                of_all = () if place or not rows else buckets
                split[place][str(day)] = Tally(rows, conversations, ids, meant if has_rule else None, print_, of_all)
    none = Tally(meant=0 if has_rule else None)
    totals = [part.pop("", none) for part in split]
    ordered = [dict(sorted(part.items())) for part in split]
    return TableCensus(ordered[0], totals[0], hosts, ordered[1], totals[1], ordered[2], totals[2])


def _unsettled(name: TableName, table: TableCensus, hosts: Sequence[Host]) -> str:
    """Return why the numbers of one table cannot be decided by, '' when replicas and shards agree."""
    shown = ".".join(name)
    summed: dict[str, int] = {}
    for shard in sorted({host.shard for host in hosts}):
        replicas = [host.name for host in hosts if host.shard == shard]
        first = table.hosts[replicas[0]]
        for other in replicas[1:]:
            if table.hosts[other] != first:
                day = min(d for d in {*first, *table.hosts[other]} if first.get(d) != table.hosts[other].get(d))
                return (
                    f"replicas of {shown} differ: {replicas[0]} has {first.get(day, 0)} rows of {day}, {other} has"
                    f" {table.hosts[other].get(day, 0)}"
                )
        for day, rows in first.items():
            summed[day] = summed.get(day, 0) + rows
    counted = {day: numbers.rows for day, numbers in table.days.items()}
    if summed != counted:
        day = min(d for d in {*summed, *counted} if summed.get(d) != counted.get(d))
        return (
            f"{shown}: the shards' rows of {day} add up to {summed.get(day, 0)}, together they count"
            f" {counted.get(day, 0)}: rows are being written or a shard was left out"
        )
    if table.total.rows != sum(counted.values()):
        return f"{shown}: the days add up to {sum(counted.values())} rows, not to the total of {table.total.rows}"
    return ""
