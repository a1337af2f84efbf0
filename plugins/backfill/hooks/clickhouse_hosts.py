"""The hosts of a cluster: as its definition lists them, and by the names by which they answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backfill.hooks.clickhouse_errors import TopologyError
from include.scorecard_backfill.foreign import Row
from include.scorecard_backfill.verdicts.counts import Host


def match_hosts(
    listed: Sequence[Row], answering: Sequence[Row], places: Callable[[], Sequence[Row]]
) -> tuple[Host, ...]:
    """Return every listed host with the name by which it answers, sorted by that name.

    ``listed``: rows of system.clusters (``shard, replica, host``) by shard and replica. ``answering``: ``host, own``,
    the (shard, replica) entries that a host takes for itself. Decided by that; else by the names, where all of them are
    equal up to the first dot; else by ``places()`` (``place, host``), the number that the server gives to each replica
    of the list.

    Raises:
        TopologyError: a host is missing, answers twice, or cannot be told from another one.
    """
    names = [str(row["host"]) for row in answering]
    wanted = [str(row["host"]) for row in listed]
    shown = f"listed: {', '.join(wanted)}; answered: {', '.join(names) or 'nobody'}"
    if len(names) != len(wanted):
        raise TopologyError(f"{len(wanted)} hosts are listed, {len(names)} have answered ({shown})")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise TopologyError(f"{', '.join(doubled)} has answered for two hosts of the cluster ({shown})")
    found = _by_entry(listed, answering) or _by_name(wanted, names) or _by_place(wanted, places())
    if found is None:
        raise TopologyError(f"nobody can say which is which ({shown})")
    hosts = [Host(name, int(row["shard"]), str(row["host"])) for row, name in zip(listed, found, strict=True)]
    return tuple(sorted(hosts, key=lambda host: host.name))


def _by_entry(listed: Sequence[Row], answering: Sequence[Row]) -> list[str] | None:
    """Return the names in the order of the list, None unless every entry is taken by exactly one host."""
    taken: dict[tuple[int, int], list[str]] = {}
    for row in answering:
        for shard, replica in row["own"]:
            taken.setdefault((int(shard), int(replica)), []).append(str(row["host"]))
    found = [taken.get((int(row["shard"]), int(row["replica"])), []) for row in listed]
    names = [hosts[0] for hosts in found if len(hosts) == 1]
    return names if len(set(names)) == len(listed) else None


def _by_name(wanted: Sequence[str], names: Sequence[str]) -> list[str] | None:
    by_name = {name.split(".")[0]: name for name in names} | {name: name for name in names}
    found = [name for host in wanted if (name := by_name.get(host) or by_name.get(host.split(".")[0]))]
    return found if len(set(found)) == len(wanted) else None


def _by_place(wanted: Sequence[str], answering: Sequence[Row]) -> list[str] | None:
    by_place = {int(row["place"]): str(row["host"]) for row in answering}
    if sorted(by_place) != list(range(1, len(wanted) + 1)):
        return None
    found = [by_place[place] for place in sorted(by_place)]
    # A host that is called like another one's entry: then the places are not what they are taken for.
    misplaced = [name for host, name in zip(wanted, found, strict=True) if name in wanted and name != host]
    return None if misplaced or len(set(found)) != len(wanted) else found
