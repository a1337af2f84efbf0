"""Are a window's own mutations done on every host, and are its rows gone from every replica?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from include.scorecard_backfill.life import Seen
from include.scorecard_backfill.records import Deleted
from include.scorecard_backfill.sql import parse_marker
from include.scorecard_backfill.verdicts.base import Verdict, failed, ok, wait

TableName = tuple[str, str]
"""(database, local table)."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One row of ``system.mutations`` on one host. ``created`` is epoch seconds of the server."""

    host: str
    database: str
    table: str
    mutation_id: str
    command: str
    created: int
    is_done: bool
    parts_to_do: int
    fail_reason: str
    is_killed: bool

    @property
    def marker(self) -> tuple[str, int, int] | None:
        """(window key, generation, chunk) when the mutation is ours."""
        return parse_marker(self.command)


@dataclass(frozen=True, slots=True)
class Sent:
    """What the delete stage knows about one table: when it was sent (epoch seconds) and who took it.

    ``accepted`` are the hosts that answered the DDL without an error or on which the mutation was seen.
    ``partitions`` is set for DROP PARTITION, which leaves no mutation behind.
    """

    table: TableName
    at: float
    accepted: frozenset[str]
    partitions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Patience:
    """Limits of the wait, in seconds."""

    not_picked_up: float
    failing: float
    stalled: float


@dataclass(frozen=True, slots=True)
class HostView:
    """A table's mutation on one host: ``done``, ``running``, ``failing``, ``killed``, ``forgotten`` or ``absent``.

    ``forgotten``: the host took it, but no longer lists it (only the last finished ones are kept); a count decides.
    """

    host: str
    state: str
    parts_to_do: int = 0
    reason: str = ""


def own(mutations: Iterable[Mutation], key: str, generation: int | None = None) -> list[Mutation]:
    """Return the mutations that carry the window's marker (of one generation, or of any)."""
    return [m for m in mutations if (mark := m.marker) and mark[0] == key and generation in (None, mark[1])]


_ONLY_ROWS = re.compile(r"\(*\s*(DELETE|UPDATE|MATERIALIZE)\b", re.IGNORECASE)


def altering(mutations: Iterable[Mutation], table: TableName) -> list[Mutation]:
    """Return unfinished mutations of others that change a table's columns.

    A DELETE queued beside one can be squashed with it and stick for ever (ClickHouse#105947).
    """
    return [
        m
        for m in mutations
        if (m.database, m.table) == table and not m.is_done and not m.marker and not _ONLY_ROWS.match(m.command)
    ]


def described(other: Mutation) -> str:
    """Return the sentence that names a mutation of others, for a log line."""
    return f"another ALTER of {other.database}.{other.table} is unfinished on {other.host}: {other.command[:200]}"


def host_views(sent: Sent, mutations: Iterable[Mutation], hosts: Iterable[str]) -> list[HostView]:
    """Return the state of one table's mutations on each expected host; several on a host count as the least done."""
    if sent.partitions:
        return [HostView(h, "forgotten" if h in sent.accepted else "absent") for h in sorted(hosts)]
    by_host: dict[str, list[Mutation]] = {}
    for mutation in mutations:
        if (mutation.database, mutation.table) == sent.table:
            by_host.setdefault(mutation.host, []).append(mutation)
    return [_view(host, by_host.get(host, []), host in sent.accepted) for host in sorted(hosts)]


def _view(host: str, found: list[Mutation], accepted: bool) -> HostView:
    if not found:
        return HostView(host, "forgotten" if accepted else "absent")
    for mutation in found:
        if mutation.is_killed:
            return HostView(host, "killed", mutation.parts_to_do, mutation.fail_reason)
    for mutation in found:
        if not mutation.is_done:
            state = "failing" if mutation.fail_reason else "running"
            return HostView(host, state, mutation.parts_to_do, mutation.fail_reason)
    return HostView(host, "done")


def judge_table(
    sent: Sent, views: Iterable[HostView], *, now: float, failing_for: float, unchanged_for: float, patience: Patience
) -> Verdict:
    """Decide one table. ``failing_for`` and ``unchanged_for``: seconds that the caller has seen it so.

    ``ok`` here means that no host still works on it; whether the rows are gone is for :func:`judge_rows`.
    """
    name = ".".join(sent.table)
    listed = list(views)
    if not listed:
        return wait(f"{name}: no host is known on which it could be done")
    killed = [v.host for v in listed if v.state == "killed"]
    if killed:
        return failed("killed", f"the mutation on {name} was killed on {', '.join(killed)}; rows may remain")
    failing = [v for v in listed if v.state == "failing"]
    if failing and failing_for >= patience.failing:
        return failed("fail_reason", f"the mutation on {name} fails on {failing[0].host}: {failing[0].reason}")
    absent = [v.host for v in listed if v.state == "absent"]
    if absent and now - sent.at >= patience.not_picked_up:
        return failed(
            "not_picked_up",
            f"the DDL on {name} was queued but not picked up by {', '.join(absent)} within"
            f" {patience.not_picked_up:.0f} s: check the host names and the DDL queue of these hosts",
        )
    busy = [v for v in listed if v.state in ("running", "failing")]
    if busy and unchanged_for >= patience.stalled:
        return failed("stalled", f"{name}: {_progress(busy)}, no change for {unchanged_for:.0f} s")
    if busy or absent:
        waits = [f"{name}: {_progress(busy)}"] if busy else []
        waits.extend(f"{name}: not on {host} yet" for host in absent)
        return wait(*waits)
    return ok(f"{name}: no unfinished mutation on {len(listed)} hosts")


def _progress(busy: Iterable[HostView]) -> str:
    return ", ".join(f"{v.parts_to_do} parts to do on {v.host}" + (f" ({v.reason})" if v.reason else "") for v in busy)


def seen_of(deleted: Deleted, mutations: Iterable[Mutation], hosts: Iterable[str]) -> Seen:
    """Return what the hosts show of a window's newest DELETE as a whole, for who has to prove it later.

    ``unknown`` as long as a host is not known to have taken a table's statement.
    """
    mine = own(mutations, deleted.key, deleted.generation)
    if any(not m.is_done and not m.is_killed for m in mine):
        return "unfinished"
    if any(m.is_killed for m in mine):
        return "dead"
    wanted = set(hosts)
    for sent in deleted.sent:
        taken = {*sent.accepted, *(m.host for m in mine if (m.database, m.table) == sent.name)}
        if not wanted or not taken >= wanted:
            return "unknown"
    return "done"


def judge_rows(counts: Mapping[TableName, Mapping[str, int]], hosts: Iterable[str]) -> Verdict:
    """Decide whether the rows are gone: every listed table counts 0 on every expected host; no answer is not 0."""
    expected = sorted(hosts)
    if not expected or not counts:
        return wait(f"nothing was counted ({len(counts)} tables on {len(expected)} hosts)")
    silent = sorted({h for per_host in counts.values() for h in expected if h not in per_host})
    if silent:
        return wait(f"no count from {', '.join(silent)}")
    left = [
        f"{rows} rows of {'.'.join(table)} left on {host}"
        for table, per_host in sorted(counts.items())
        for host, rows in sorted(per_host.items())
        if rows
    ]
    if left:
        return failed("rows_left", *left)
    return ok(f"no row left in {len(counts)} tables on {len(expected)} hosts")
