"""Which host is which: by asking, whatever they are called in the cluster's definition."""

from __future__ import annotations

import pytest

from backfill.hooks.clickhouse_errors import TopologyError
from backfill.hooks.clickhouse_hosts import match_hosts
from include.scorecard_backfill.verdicts.counts import Host

LISTED = [{"shard": shard, "replica": replica, "host": f"chi-x-{shard - 1}-{replica - 1}"}
          for shard in (1, 2) for replica in (1, 2)]  # fmt: skip
PODS = ["chi-x-0-0-0", "chi-x-0-1-0", "chi-x-1-0-0", "chi-x-1-1-0"]


NOBODY: list[list[tuple[int, int]]] = [[], [], [], []]
ENTRIES = [(1, 1), (1, 2), (2, 1), (2, 2)]


def match(names: list[str], own: list[list[tuple[int, int]]], places: list[int] | None = None) -> tuple[Host, ...]:
    answering = [{"host": name, "own": entries} for name, entries in zip(names, own, strict=True)]
    placed = [{"host": name, "place": place} for name, place in zip(names, places or [1, 2, 3, 4], strict=False)]
    return match_hosts(LISTED, answering, lambda: placed)


RIGHT = tuple(Host(pod, int(pod[6]) + 1, pod[:-2]) for pod in PODS)


def test_hosts_say_themselves_which_entry_they_are() -> None:
    assert match([PODS[2], PODS[0], PODS[3], PODS[1]], [[(2, 1)], [(1, 1)], [(2, 2)], [(1, 2)]], [4, 3, 2, 1]) == RIGHT


def test_an_entry_wins_over_a_name() -> None:
    """Two data centres with the same short names."""
    names = [f"{row['host']}.svc" for row in LISTED]
    swapped = [names[1], names[0], names[2], names[3]]
    found = {host.listed: host.name for host in match(swapped, [[e] for e in ENTRIES])}
    assert found["chi-x-0-0"] == "chi-x-0-1.svc"


def test_names_decide_where_the_hosts_do_not_know_themselves() -> None:
    names = [f"{row['host']}.svc.cluster.local" for row in LISTED]
    swapped = [names[1], names[0], names[2], names[3]]
    found = {host.listed: host.name for host in match(swapped, NOBODY)}
    assert found == {row["host"]: name for row, name in zip(LISTED, names, strict=True)}


def test_places_decide_where_names_do_not() -> None:
    assert match([PODS[2], PODS[0], PODS[3], PODS[1]], NOBODY, [3, 1, 4, 2]) == RIGHT


def test_an_entry_that_two_hosts_take_decides_nothing() -> None:
    assert match(PODS, [[(1, 1)], [(1, 1)], [(2, 1)], [(2, 2)]]) == RIGHT
    assert match(PODS, [[(1, 1), (1, 2)], [], [(2, 1)], [(2, 2)]]) == RIGHT


@pytest.mark.parametrize(
    ("names", "places", "said"),
    [
        (PODS[:3], [1, 2, 3], "4 hosts are listed, 3 have answered"),
        ([], [], "4 hosts are listed, 0 have answered"),
        ([*PODS[:3], PODS[0]], [1, 2, 3, 4], "chi-x-0-0-0 has answered for two"),
        (PODS, [1, 1, 2, 3], "which is which"),
        (PODS, [0, 0, 0, 0], "which is which"),
        # Host 2 is called as host 1 is listed, the others as nobody: the places alone would be a guess.
        ([PODS[0], "chi-x-0-0", PODS[2], PODS[3]], [1, 2, 3, 4], "which is which"),
    ],
)
def test_what_cannot_be_told_apart_is_an_error(names: list[str], places: list[int], said: str) -> None:
    with pytest.raises(TopologyError, match=said):
        match(names, NOBODY[: len(names)], places)
