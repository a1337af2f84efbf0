"""What the hosts show of a delete, all statements together: done is only what every host has worked off."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.records import Database, Deleted, Window
from include.scorecard_backfill.records import Sent as SentRecord
from include.scorecard_backfill.sql import marker_literal
from include.scorecard_backfill.verdicts.mutations import Mutation, seen_of

HOSTS = ["ch-1", "ch-2", "ch-3"]
KEY = "0" * 16
WINDOW = Window(
    key=KEY,
    cluster="c",
    customer_id="acme",
    start=date(2026, 1, 1),
    end=date(2026, 2, 1),
    mode="cleanup",
    databases=(Database(name="acme_voice", profile_id="voice", tables=("scorecard", "score")),),
)


def deleted(*accepted: str, tables: tuple[str, ...] = ("scorecard",), generation: int = 1, **sent: Any) -> Deleted:
    records = tuple(SentRecord(database="acme_voice", table=t, at=1_000.0, accepted=accepted, **sent) for t in tables)
    return Deleted(key=KEY, window=WINDOW, status="deleted", generation=generation, sent=records)


def mutation(host: str, table: str = "scorecard", generation: int = 1, chunk: int = 0, **changes: Any) -> Mutation:
    command = f"(DELETE WHERE {marker_literal(KEY, generation, chunk)} != '')"
    made = Mutation(host, "acme_voice", table, "0000000001", command, 1_000, True, 0, "", False)
    return replace(made, **changes)


def everywhere(**changes: Any) -> list[Mutation]:
    return [mutation(host, **changes) for host in HOSTS]


@pytest.mark.parametrize(
    ("what", "listed", "seen"),
    [
        (Deleted(key=KEY, window=WINDOW, status="nothing"), [], "done"),
        (deleted(), everywhere(), "done"),
        (deleted(*HOSTS), [], "done"),
        (deleted("ch-1"), everywhere()[1:], "done"),
        (deleted(), [], "unknown"),
        (deleted("ch-1", "ch-2"), [], "unknown"),
        (deleted(), everywhere()[1:], "unknown"),
        (deleted(tables=("scorecard", "score")), everywhere(), "unknown"),
        (deleted(tables=("scorecard", "score")), [*everywhere(), *everywhere(table="score")], "done"),
        (deleted(), [*everywhere()[1:], mutation("ch-1", is_done=False)], "unfinished"),
        (deleted(), [*everywhere()[1:], mutation("ch-1", is_done=False, fail_reason="x")], "unfinished"),
        (deleted(), [*everywhere()[1:], mutation("ch-1", is_done=False, is_killed=True)], "dead"),
        (deleted(), [mutation("ch-1", is_killed=True), mutation("ch-2", is_done=False)], "unfinished"),
        (
            deleted(),
            [mutation("ch-1", is_killed=True), mutation("ch-1", chunk=2, is_done=False), *everywhere()[1:]],
            "unfinished",
        ),
        (deleted(generation=2), [*everywhere(generation=2), mutation("ch-1", is_killed=True)], "done"),
        (deleted(generation=2), everywhere(generation=1), "unknown"),
        (deleted(*HOSTS, partitions=("202601",)), [], "done"),
        (deleted("ch-1", partitions=("202601",)), [], "unknown"),
    ],
)
def test_what_is_seen(what: Deleted, listed: list[Mutation], seen: str) -> None:
    assert seen_of(what, listed, HOSTS) == seen


def test_no_hosts_is_unknown() -> None:
    assert seen_of(deleted(*HOSTS), [], []) == "unknown"


@given(st.lists(st.tuples(st.sampled_from(HOSTS), st.booleans(), st.booleans()), max_size=8))
def test_done_needs_every_host(listed: list[tuple[str, bool, bool]]) -> None:
    found = [mutation(host, is_done=done, is_killed=killed) for host, done, killed in listed]
    seen = seen_of(deleted(), found, HOSTS)
    proven = {host for host, _, _ in listed} == set(HOSTS) and all(done and not killed for _, done, killed in listed)
    assert (seen == "done") == proven
    assert (seen == "unfinished") == any(not done and not killed for _, done, killed in listed)
