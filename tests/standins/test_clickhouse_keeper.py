"""The shared log and the fault rules, without an engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from standins.clickhouse.faults import Faults
from standins.clickhouse.keeper import Keeper, MutationRecord
from standins.clickhouse.recorder import Recorder
from standins.clickhouse.topology import Topology, TopologyError, load_topology
from standins.faults import FaultRuleError


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Keeper, Keeper]:
    """Two replicas of shard 1."""
    return Keeper(tmp_path, "a", 1, "data-a"), Keeper(tmp_path, "b", 1, "data-b")


def test_every_replica_reads_the_log_in_order(pair: tuple[Keeper, Keeper], tmp_path: Path) -> None:
    first, second = pair
    other_shard = Keeper(tmp_path, "c", 2, "data-c")
    made = [
        first.append("insert", 1, "d", "t", {"block": "x"}),
        second.append("ddl", 0, "", "", {"sql": "DROP"}),
        first.append("alter", 1, "d", "t", {"sql": "ALTER"}, ddl=2),
    ]
    for keeper, expected in ((first, made), (second, made), (other_shard, made[1:2])):
        seen = []
        while (entry := keeper.next_entry()) is not None:
            seen.append(entry)
            keeper.advance(entry.seq)
        assert seen == expected
    assert first.made_by(2)
    assert not other_shard.made_by(2)
    assert first.has_seen_change_of(2)


def test_position_is_kept_with_the_data_folder(pair: tuple[Keeper, Keeper], tmp_path: Path) -> None:
    first, _ = pair
    entry = first.append("alter", 1, "d", "t", {})
    first.advance(entry.seq)
    first.close()
    assert Keeper(tmp_path, "a", 1, "data-a").next_entry() is None
    assert Keeper(tmp_path, "a", 1, "another folder").next_entry() == entry


def test_rows_are_kept_until_all_replicas_have_them(pair: tuple[Keeper, Keeper]) -> None:
    first, second = pair
    entry = first.append("insert", 1, "d", "t", {"block": first.new_block(b"rows")})
    path = first.blocks / entry.body["block"]
    first.advance(entry.seq)
    first.drop_block(entry, ["b"])
    assert path.read_bytes() == b"rows"
    second.postpone(entry.seq, 5)
    second.advance(entry.seq)
    first.drop_block(entry, ["b"])
    assert path.exists()
    second.resume(entry.seq)
    second.drop_block(entry, ["a"])
    assert not path.exists()


def test_first_answer_of_a_host_stays(pair: tuple[Keeper, Keeper]) -> None:
    first, second = pair
    entry = first.append("ddl", 0, "", "", {})
    first.finish(entry.seq, 0, "")
    first.finish(entry.seq, 60, "later")
    second.finish(entry.seq, 81, "no database")
    assert [(status.node, status.code, status.error) for status in second.statuses(entry.seq)] == [
        ("a", 0, ""),
        ("b", 81, "no database"),
    ]


def test_counters_are_shared(pair: tuple[Keeper, Keeper]) -> None:
    assert [pair[number % 2].count_up("m") for number in range(4)] == [0, 1, 2, 3]
    assert pair[0].count_up("other") == 0


def test_mutation_records_belong_to_one_node_and_go_with_the_table(pair: tuple[Keeper, Keeper]) -> None:
    first, second = pair
    record = MutationRecord("d", "t", "mutation_2.txt", "0000000000", "", None, 1.0)
    first.save_mutation(record)
    assert first.mutations() == {("d", "t", "mutation_2.txt"): record}
    assert second.mutations() == {}
    first.forget_mutations("d", "other")
    assert len(first.mutations()) == 1
    first.forget_mutations("d", None)
    assert first.mutations() == {}


def test_rules_match_count_and_survive(tmp_path: Path) -> None:
    faults = Faults(tmp_path / "faults.json")
    ids = faults.add([{"kind": "reset", "match": "delete.*where", "times": 2}, {"kind": "cut", "bytes": 3}])
    assert faults.hit("reset", "SELECT 1") is None
    assert faults.matching("reset", "DELETE\nWHERE") is not None
    assert [faults.hit("reset", "DELETE\nWHERE") is not None for _ in range(3)] == [True, True, False]
    again = Faults(tmp_path / "faults.json")
    assert [rule["hits"] for rule in again.listed()] == [2, 0]
    assert again.remove(ids[1]) == 1
    assert again.is_over(ids[1], 0)
    assert again.add([{"kind": "reset"}])[0] > ids[0]
    assert again.remove() == 2


def test_bad_rule_adds_none(tmp_path: Path) -> None:
    faults = Faults(tmp_path / "faults.json")
    with pytest.raises(FaultRuleError, match="unknown"):
        faults.add([{"kind": "reset"}, {"kind": "no"}])
    assert faults.listed() == []


def test_time_of_a_rule(tmp_path: Path) -> None:
    faults = Faults(tmp_path / "faults.json")
    (number,) = faults.add([{"kind": "mutation", "seconds": 10}])
    assert faults.is_over(number, since=0)
    assert not faults.is_over(number, since=4e9)


def test_record_of_a_killed_node(tmp_path: Path) -> None:
    path = tmp_path / "statements.jsonl"
    recorder = Recorder(path)
    row = {"user": "u", "query_id": "q"}
    with recorder.running({**row, "statement": "ALTER a", "changes": True}) as ended:
        ended("ok")
    with recorder.running({**row, "statement": "SELECT b", "changes": False}):
        assert [listed["query"] for listed in recorder.processes()] == ["SELECT b"]
    assert recorder.processes() == []
    with recorder.running({**row, "statement": "ALTER c", "changes": True}):
        recorder.close()
    with path.open("a") as file:
        file.write('{"id": 4, "stateme')
    again = Recorder(path)
    assert again.processes() == []
    assert [(row["statement"], row["outcome"]) for row in again.select(queries=False, since=0, contains="")] == [
        ("ALTER a", "ok"),
        ("ALTER c", None),
    ]
    assert len(again.select(queries=True, since=1, contains="")) == 2
    with again.running({**row, "statement": "ALTER d", "changes": True}):
        pass
    again.close()
    third = Recorder(path)
    third.close()
    assert [(row["id"], row["statement"]) for row in third.select(queries=False, since=2, contains="ALTER")] == [
        (3, "ALTER c"),
        (4, "ALTER d"),
    ]


def test_topology_is_checked_and_ordered(tmp_path: Path) -> None:
    path = tmp_path / "topology.json"
    second = {"name": "b", "shard": 2, "replica": 1, "host": "127.0.0.1", "port": 2}
    first = {"name": "a", "shard": 1, "replica": 1, "host": "127.0.0.1", "port": 1}

    def load(*nodes: dict[str, object]) -> Topology:
        path.write_text(json.dumps({"cluster": "c", "nodes": nodes}), encoding="utf-8")
        return load_topology(path)

    topology = load(second, first)
    assert [node.name for node in topology.nodes] == ["a", "b"]
    with pytest.raises(TopologyError, match="no node 'x'; known nodes: a, b"):
        topology.node("x")
    for nodes, text in (
        ([], "at least 1 item"),
        ([{"name": "a"}], r"(?s)topology\.json.*nodes\.0\.shard.*required"),
        ([first, first], "is used by more than one node"),
    ):
        with pytest.raises(TopologyError, match=text):
            load(*nodes)
