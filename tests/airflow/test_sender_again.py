"""A DELETE that is sent again goes to the tables that it has missed, and not to those that are done."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from backfill.kit.store import GENERATION, name_of
from include.scorecard_backfill.records import KeptStep, Sent
from tests.airflow.test_sender_sends import BOTH, MAYBE, TAKEN, Site, _no_pauses, order, site
from tests.kit.house import KEY, House, mutation
from tests.kit.waits import cluster

__all__ = ["_no_pauses", "cluster"]

TABLES = ("score", "scorecard")
SENT = KeptStep(state="sent", at=4.0, accepted=TAKEN).to_json()
LEFT = {"node-1": {"2026-01-05": 3}, "node-2": {}}
GONE: dict[str, dict[str, int]] = {"node-1": {}, "node-2": {}}


def counting(house: House, **rows: dict[str, dict[str, int]]) -> list[str]:
    """Let the hosts count by table; return the tables that are asked for."""
    asked: list[str] = []

    def counts(parts: Any, hosts: Any) -> Any:
        asked.extend(table for table, _, _ in parts)
        return [rows[table] for table, _, _ in parts]

    house.host_counts = counts  # type: ignore[method-assign]
    return asked


def lost(monkeypatch: pytest.MonkeyPatch, house: House, score: Any = SENT) -> Site:
    """The first table's DELETE was taken, the second one's is lost, and a person has cleared that."""
    found = site(monkeypatch, house)
    found.store.set(name_of("sent:acme_voice.score:1.0", KEY), score, retention=NEVER_EXPIRE)
    found.store.set(name_of("sent:acme_voice.scorecard:1.0", KEY), MAYBE, retention=NEVER_EXPIRE)
    return found


def by_table(statements: list[str]) -> list[tuple[str, int]]:
    return [
        (table, int(text.partition(f"'backfill:{KEY}:")[2].partition("'")[0]))
        for text in statements
        for table in TABLES
        if f"`{table}`" in text
    ]


def test_only_the_table_whose_statement_was_lost_gets_it_again(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    counting(house, score=GONE, scorecard=LEFT)
    found = lost(monkeypatch, house)
    records = found.sender.send(found.context, order(tables=TABLES, left="delete"))
    assert by_table(found.sent) == [("scorecard", 2)]
    assert found.kept(GENERATION) == 2
    assert records[0] == Sent(database="acme_voice", table="score", at=4.0, accepted=TAKEN)
    assert records[1].accepted == tuple(sorted(BOTH))
    # The next try finds both of the second generation, and asks nobody for rows.
    asked = counting(house)
    assert found.sender.send(found.context, order(tables=TABLES, generation=2)) == records
    assert (len(found.sent), asked) == (1, [])


@pytest.mark.parametrize(
    ("score", "rows", "listed"),
    [
        (SENT, LEFT, []),
        (KeptStep(state="sent", at=4.0, accepted=("node-1",)).to_json(), GONE, []),
        (SENT, GONE, [mutation(table="score", is_done=False)]),
    ],
    ids=["rows are left", "a host has never taken it", "a host works on it"],
)
def test_a_table_that_is_not_proven_done_gets_it_again(
    score: Any, rows: Any, listed: Any, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(listed=[listed])
    counting(house, score=rows, scorecard=LEFT)
    found = lost(monkeypatch, house, score)
    found.sender.send(found.context, order(tables=TABLES, left="delete"))
    assert by_table(found.sent) == [("score", 2), ("scorecard", 2)]


def test_what_an_even_earlier_generation_has_done_stays_done(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    counting(house, score=GONE, scorecard=LEFT)
    found = lost(monkeypatch, house)
    found.store.set(name_of("sent:acme_voice.scorecard:2.0", KEY), MAYBE, retention=NEVER_EXPIRE)
    found.sender.send(found.context, order(tables=TABLES, generation=2, left="delete"))
    assert by_table(found.sent) == [("scorecard", 3)]
