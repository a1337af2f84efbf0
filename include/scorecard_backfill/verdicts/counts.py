"""Counts of a window: FINAL, per table, host and day; and whether what came back may be called complete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from include.scorecard_backfill.verdicts.base import Verdict, failed, ok, wait

TableName = tuple[str, str]
PerHost = Mapping[str, int]
Days = Mapping[str, int]
"""Rows by ISO day (UTC); a day without rows is not there."""


@dataclass(frozen=True, slots=True)
class Host:
    """One node: its shard, the name by which it answers, and the one by which ``system.clusters`` lists it."""

    name: str
    shard: int
    listed: str = ""


@dataclass(frozen=True, slots=True)
class Band:
    """Share of the rows before that must (at least) and may (at most) be there after, both inclusive.

    ``upper`` is None when any number may be there.
    """

    lower: float
    upper: float | None


def table_total(per_host: PerHost, hosts: Iterable[Host]) -> int | None:
    """Return the rows of a table over all shards, or None while a host is silent or replicas of a shard differ.

    None also without any host: what nobody counted is unknown, not 0.
    """
    by_shard: dict[int, set[int]] = {}
    for host in hosts:
        if host.name not in per_host:
            return None
        by_shard.setdefault(host.shard, set()).add(per_host[host.name])
    if not by_shard or any(len(values) != 1 for values in by_shard.values()):
        return None
    return sum(value for values in by_shard.values() for value in values)


def totals(counts: Mapping[TableName, PerHost], hosts: Iterable[Host]) -> dict[TableName, int] | None:
    """Return the total of every table, or None while any of them is not settled."""
    listed = tuple(hosts)
    result = {table: table_total(per_host, listed) for table, per_host in counts.items()}
    if any(value is None for value in result.values()):
        return None
    return {table: value for table, value in result.items() if value is not None}


def unsettled(counts: Mapping[TableName, PerHost], hosts: Iterable[Host]) -> str:
    """Return the sentence that names the first table whose replicas differ or do not answer, '' when settled."""
    listed = tuple(hosts)
    if counts and not listed:
        return "no host is known that could count"
    for table, per_host in sorted(counts.items()):
        silent = [h.name for h in listed if h.name not in per_host]
        if silent:
            return f"no count of {'.'.join(table)} from {', '.join(silent)}"
        if table_total(per_host, listed) is None:
            shown = ", ".join(f"{h.name}={per_host[h.name]}" for h in listed)
            return f"replicas of {'.'.join(table)} differ: {shown}"
    return ""


def judge(
    before: Mapping[TableName, int],
    after: Mapping[TableName, int],
    previous: Mapping[TableName, int] | None,
    band: Mapping[str, Band],
    default_band: Band,
) -> Verdict:
    """Decide a window by totals before and after; ``previous`` is the look before this one (two must agree).

    ``band`` overrides per local table name. A table that had no rows before may have any number after.
    Raises KeyError when ``after`` lacks a table of ``before``: a table that was not counted is unknown, not empty.
    """
    if previous is None or dict(previous) != dict(after):
        return wait("counts must be equal in two looks in a row: " + _shown(after))
    wrong = []
    for table, rows in sorted(before.items()):
        got, limits = after[table], band.get(table[1], default_band)
        name = ".".join(table)
        if got < rows * _exact(limits.lower):
            wrong.append(f"{name}: count {got} < {limits.lower:.0%} of {rows} before")
        elif limits.upper is not None and rows and got > rows * _exact(limits.upper):
            wrong.append(f"{name}: count {got} > {limits.upper:.0%} of {rows} before")
    if wrong:
        return failed("lost_rows" if any(" < " in w for w in wrong) else "too_many_rows", *wrong)
    return ok(_shown(after))


def empty_days(
    before: Mapping[TableName, Mapping[str, int]], after: Mapping[TableName, Mapping[str, int]], min_rows: int
) -> list[str]:
    """Return a sentence for each day that had at least ``min_rows`` rows of a table before and has none after.

    A total within the band can hide a day that was not reindexed at all.
    """
    return [
        f"{'.'.join(table)}: no row of {day}, {rows} before"
        for table, days in sorted(before.items())
        for day, rows in sorted(days.items())
        if rows >= min_rows and not after.get(table, {}).get(day)
    ]


def _exact(ratio: float) -> Fraction:
    """Return the ratio as it was written: 1.15 * 100 is 114.99... as a float, and a band's ends are inclusive."""
    return Fraction(str(ratio))


def _shown(after: Mapping[TableName, int]) -> str:
    return ", ".join(f"{'.'.join(table)}={rows}" for table, rows in sorted(after.items()))
