"""Rows that were accepted and are not in their tables yet: which queues are flushed, in which order, what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError

from backfill.hooks.clickhouse_errors import DdlAnswer, TopologyError
from backfill.hooks.clickhouse_spool import drain, spooled
from include.scorecard_backfill.verdicts.counts import Host

HOSTS = (Host("node-1", 1), Host("node-2", 1))
ASYNC = ("asynchronous", "acme_voice", "scorecard", 1, False, "")
BUFFER = ("buffer", "acme_voice", "scorecard_b", 1, False, "")
FILES = ("distributed", "acme_voice", "scorecard_d", 3, False, "")
STOPPED = ("distributed", "acme_voice", "score_d", 2, True, "")

Waiting = tuple[str, str, str, int, bool, str]


class House:
    """What waits on each host at one look after the other, and what it was told to flush."""

    def __init__(self, *looks: Mapping[str, Sequence[Waiting]]) -> None:
        self.looks = list(looks)
        self.sent: list[str] = []
        self.fails: dict[str, DdlAnswer | ClickHouseError] = {}

    def rows(self, statement: str, settings: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The next look; the last one stays."""
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return [{"host": host, "waiting": list(waiting)} for host, waiting in look.items()]

    def send_ddl(self, statement: str, hosts: Sequence[Host]) -> DdlAnswer:
        """Flush."""
        assert hosts == HOSTS
        self.sent.append(statement)
        answer = next((a for word, a in self.fails.items() if word in statement), DdlAnswer("done"))
        if isinstance(answer, ClickHouseError):
            raise answer
        return answer


def drained(house: House) -> list[str]:
    return drain(house, "conversations", ["acme_voice", "acme_voice"], HOSTS)


def test_what_waits_is_listed_by_host_and_queue() -> None:
    house = House({"node-2": [FILES, BUFFER], "node-1": [FILES]})
    found = spooled(house, "conversations", ["acme_voice"], HOSTS)
    assert [(one.host, one.kind, one.table, one.amount) for one in found] == [
        ("node-1", "distributed", "scorecard_d", 3),
        ("node-2", "buffer", "scorecard_b", 1),
        ("node-2", "distributed", "scorecard_d", 3),
    ]


@pytest.mark.parametrize(
    ("look", "missing"), [({"node-1": []}, "node-2"), ({"node-1": [], "node-2": [], "node-3": []}, "every host")]
)
def test_a_host_that_does_not_say_is_missed(look: Mapping[str, Sequence[Waiting]], missing: str) -> None:
    with pytest.raises(TopologyError, match=f"no look at the queues of accepted rows of {missing}"):
        drained(House(look))


def test_where_nothing_waits_nothing_is_flushed() -> None:
    house = House({"node-1": [], "node-2": []})
    assert (drained(house), house.sent) == ([], [])


def test_each_queue_is_flushed_once_on_all_hosts_and_what_leads_to_another_one_first() -> None:
    house = House({"node-1": [FILES, ASYNC], "node-2": [BUFFER, FILES]})
    # A flush that every host has executed is the proof: what the second look shows came later.
    assert drained(house) == []
    assert house.sent == [
        "OPTIMIZE TABLE `acme_voice`.`scorecard_b` ON CLUSTER 'conversations'",
        "SYSTEM FLUSH ASYNC INSERT QUEUE ON CLUSTER 'conversations'",
        "SYSTEM FLUSH DISTRIBUTED `acme_voice`.`scorecard_d` ON CLUSTER 'conversations'",
    ]


@pytest.mark.parametrize("answer", [DdlAnswer("unknown", text="?"), ClickHouseError("no right")])
def test_a_flush_that_is_not_proven_leaves_what_still_waits(answer: DdlAnswer | ClickHouseError) -> None:
    house = House({"node-1": [FILES], "node-2": []})
    house.fails["FLUSH DISTRIBUTED"] = answer
    assert drained(house) == ["node-1 has 3 files of rows for acme_voice.scorecard_d not sent yet"]
    house = House({"node-1": [FILES], "node-2": []}, {"node-1": [], "node-2": []})
    house.fails["FLUSH DISTRIBUTED"] = answer
    assert drained(house) == []


def test_a_queue_whose_sending_is_stopped_is_not_flushed_and_said() -> None:
    house = House({"node-1": [STOPPED], "node-2": []})
    assert drained(house) == [
        "node-1 has 2 files of rows for acme_voice.score_d not sent yet; sending is stopped there (SYSTEM START"
        " DISTRIBUTED SENDS starts it)"
    ]
    assert house.sent == []


def test_what_cannot_be_sent_is_said_although_it_was_flushed() -> None:
    broken: Waiting = (*FILES[:5], "no such column")
    assert drained(House({"node-1": [broken], "node-2": []})) == [
        "node-1 has 3 files of rows for acme_voice.scorecard_d not sent yet; last error: no such column"
    ]


@pytest.mark.parametrize(("age", "told"), [(2, False), (3, True)])
def test_young_asynchronous_inserts_are_the_normal_case(age: int, told: bool) -> None:
    waiting: Waiting = ("asynchronous", "acme_voice", "scorecard", age, False, "")
    house = House({"node-1": [waiting], "node-2": []})
    house.fails["ASYNC"] = ClickHouseError("no right")
    text = (
        f"node-1 has asynchronous inserts into acme_voice.scorecard queued for {age} s; this user may not flush them"
        " (SYSTEM FLUSH ASYNC INSERT QUEUE)"
    )
    assert drained(house) == [text] * told
