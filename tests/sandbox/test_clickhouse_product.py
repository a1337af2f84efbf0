"""Every statement of the product, and its hook, against four nodes that hold the sandbox's own data."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backfill.hooks.clickhouse import BackfillClickHouse, TopologyError
from backfill.settings import load_all
from include.scorecard_backfill import sql
from include.scorecard_backfill.config import ClusterConfig, MustBeZero
from include.scorecard_backfill.planning.inventory import pairs_by_database, tables_by_database, volumes
from include.scorecard_backfill.sql import health as sql_health
from include.scorecard_backfill.sql.census import host_counts_statement
from include.scorecard_backfill.verdicts.census import host_days
from include.scorecard_backfill.verdicts.counts import Host
from sandbox.data.loader import ClickHouseTarget, Paths, load
from sandbox.data.spec import rates_spec
from sandbox.data.tables import Block, columns_of
from sandbox.data.truth import ProfileTruth
from standins.clickhouse.client import ClickHouseSandbox
from tests.standins.clickhouse_fixtures import CLUSTER, cluster, connected, nodes, until

__all__ = ["cluster", "nodes"]

NAMES = sql.Names("scorecard_time", "customer_id", "profile_id", "conversation_id")
KEY = "0123456789abcdef"
JANUARY, FEBRUARY, MARCH = date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)
LIMITS = {"max_execution_time": 60, "skip_unavailable_shards": 0}


@pytest.fixture(scope="module")
def truths(cluster: ClickHouseSandbox, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ProfileTruth]:
    """Two customers, loaded; their right counts by database."""
    state: Path = tmp_path_factory.mktemp("state")
    spec = rates_spec("sandbox-east", {"acme/voice": 120, "globex/chat": 60}, first_day=JANUARY, end_day=MARCH)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SANDBOX_CLICKHOUSE_PASSWORD", cluster.password)
        target = ClickHouseTarget(cluster.topology.node("node-1-2").url)
        try:
            loaded = load(spec, Paths(state, "sandbox-east"), target)
        finally:
            target.close()
    return {truth.database: truth for truth in loaded}


def rows(sandbox: ClickHouseSandbox, statement: str) -> list[dict[str, Any]]:
    """The rows of a statement as the product's hook reads them."""
    with connected(sandbox, "node-2-2") as client:
        return list(client.query(statement, settings={**LIMITS, "optimize_use_projections": 0}).named_results())


def send(sandbox: ClickHouseSandbox, statement: str) -> dict[str, str]:
    """Send DDL as the hook does; status by host."""
    settings = {
        "mutations_sync": 0,
        "replication_wait_for_inactive_replica_timeout": 0,
        "distributed_ddl_task_timeout": 20,
        "distributed_ddl_output_mode": "null_status_on_timeout",
    }
    with connected(sandbox, "node-2-2") as client:
        body = client.raw_query(statement, settings=settings, fmt="TabSeparated").decode()
    return {cells[0]: cells[2] for cells in (line.split("\t") for line in body.splitlines())}


def counted(sandbox: ClickHouseSandbox, table: str, part: sql.Slice) -> dict[str, int]:
    """Rows by host."""
    found = rows(sandbox, host_counts_statement(cluster=CLUSTER, parts=[(table, part, "")], names=NAMES))
    (per_host,) = host_days(found, 1, [Host(name, int(name[5])) for name in sandbox.names])
    return {host: sum(days.values()) for host, days in per_host.items()}


def slice_of(truth: ProfileTruth, start: date, end: date) -> sql.Slice:
    """The rows of one profile."""
    return sql.Slice(truth.database, truth.customer_id, truth.profile_id, start, end)


def hook_of(nodes: ClickHouseSandbox, monkeypatch: pytest.MonkeyPatch, node: str) -> BackfillClickHouse:
    """The product's hook, connected to one node."""
    monkeypatch.setenv("SCORECARD_BACKFILL_CLUSTERS", "sandbox/clusters")
    config = next(found for found in load_all() if isinstance(found, ClusterConfig))
    address = nodes.topology.node(node)
    connection = {
        "conn_type": "clickhouse",
        "host": address.host,
        "port": address.port,
        "login": "admin",
        "password": nodes.password,
    }
    monkeypatch.setenv(f"AIRFLOW_CONN_{config.clickhouse.conn_id.upper()}", json.dumps(connection))
    return BackfillClickHouse(config)


def test_counts_are_the_truth_on_both_replicas(nodes: ClickHouseSandbox, truths: dict[str, ProfileTruth]) -> None:
    for truth in truths.values():
        for table in ("scorecard", "score"):
            per_host = counted(nodes, table, slice_of(truth, FEBRUARY, MARCH))
            assert per_host["node-1-1"] == per_host["node-1-2"]
            assert per_host["node-2-1"] == per_host["node-2-2"]
            expected = getattr(truth.total(FEBRUARY, MARCH), table).before
            assert per_host["node-1-1"] + per_host["node-2-1"] == expected > 0


def test_census_over_all_shards_is_the_truth(
    nodes: ClickHouseSandbox, truths: dict[str, ProfileTruth], monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, truth = hook_of(nodes, monkeypatch, "node-2-1"), truths["acme_voice"]
    hosts = hook.topology()
    parts = [(table, slice_of(truth, JANUARY, MARCH)) for table in ("scorecard", "score")]
    census = hook.census(parts, hosts, hook.server_time())
    assert census.unsettled == ""
    for table, part in parts:
        found = census.tables[part.database, table]
        right = {str(day): tables[table] for day, tables in truth.days.items() if table in tables}
        assert {day: n.rows for day, n in found.days.items()} == {d: n.before for d, n in right.items() if n.before}
        expected = {day: n.before - n.after for day, n in right.items() if n.before}
        assert {day: n.meant for day, n in found.days.items()} == expected
        # Classes of ids are counted of all rows only.
        assert all(sum(n.buckets) == n.ids - (n.meant or 0) for n in found.days.values())
        old = {day: replace(n, buckets=()) for day, n in found.days.items()}
        assert (found.total.doubled, found.rewritten, found.old) == (0, {}, old)
    nodes.node("node-1-2").add_faults({"kind": "silent", "match": "groupArray"})
    with pytest.raises(TopologyError, match="no count from node-1-2"):
        hook.census(parts, hosts)


def test_inventory(nodes: ClickHouseSandbox, truths: dict[str, ProfileTruth]) -> None:
    listed = rows(nodes, sql.tables_statement(CLUSTER, ["scorecard", "score"]))
    usable, problems = tables_by_database(listed, nodes.names)
    assert usable == dict.fromkeys(truths, ("score", "scorecard"))
    assert problems == {}
    pairs = rows(nodes, sql.pairs_statement(cluster=CLUSTER, databases=list(truths), table="scorecard", names=NAMES))
    assert pairs_by_database(pairs) == {
        database: ((truth.customer_id, truth.profile_id),) for database, truth in truths.items()
    }
    statement = sql.volumes_statement(
        cluster=CLUSTER, databases=list(truths), tables=["scorecard", "score"], names=NAMES, start=JANUARY, end=MARCH
    )
    for volume in volumes(rows(nodes, statement)):
        truth = truths[volume.database]
        whole = getattr(truth.total(volume.day, date.fromordinal(volume.day.toordinal() + 1)), volume.table).before
        assert volume.rows >= whole


def test_preflight_statements(nodes: ClickHouseSandbox, truths: dict[str, ProfileTruth]) -> None:
    topology = rows(nodes, sql.topology_statement(CLUSTER))
    assert [(row["shard"], row["replica"], row["host"]) for row in topology] == [
        (1, 1, "node-1-1"),
        (1, 2, "node-1-2"),
        (2, 1, "node-2-1"),
        (2, 2, "node-2-2"),
    ]
    assert [row["host"] for row in rows(nodes, sql.answering_hosts_statement(CLUSTER))] == nodes.names
    assert rows(nodes, sql.replicas_statement(CLUSTER)) == []
    assert rows(nodes, sql.ddl_queue_statement(CLUSTER, "scorecard")) == []
    assert next(iter(rows(nodes, "SHOW GRANTS")[0].values())).startswith("GRANT ALL ON *.* TO admin")
    nodes.node("node-1-1").add_faults({"kind": "overlay", "table": "replicas", "set": {"is_readonly": 1}})
    assert [row["host"] for row in rows(nodes, sql.replicas_statement(CLUSTER))] == ["node-1-1"]


def test_delete_mutations_kill_and_drop(
    nodes: ClickHouseSandbox, truths: dict[str, ProfileTruth], monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = hook_of(nodes, monkeypatch, "node-2-2")
    truth = truths["acme_voice"]
    january, february = slice_of(truth, JANUARY, FEBRUARY), slice_of(truth, FEBRUARY, MARCH)
    before = counted(nodes, "score", february)
    statement = sql.delete_statement(cluster=CLUSTER, table="score", part=january, names=NAMES, key=KEY, generation=1)
    assert send(nodes, statement) == dict.fromkeys(nodes.names, "0")
    until(lambda: set(counted(nodes, "score", january).values()) == {0}, "January deleted on every replica")
    assert counted(nodes, "score", february) == before
    found = hook.mutations()
    assert sorted(item.host for item in found) == nodes.names
    assert {(item.marker or ())[:2] for item in found} == {(KEY, 1)}
    assert {(item.database, item.table, item.is_killed) for item in found} == {("acme_voice", "score", False)}

    for node in nodes.nodes():
        node.add_faults({"kind": "mutation", "match": f"{KEY}:2"})
    again = sql.delete_statement(cluster=CLUSTER, table="score", part=february, names=NAMES, key=KEY, generation=2)
    send(nodes, again)
    assert len([item for item in hook.mutations() if not item.is_done]) == 4
    kill = partial(
        sql.kill_mutation_statement, cluster=CLUSTER, database="acme_voice", table="score", key=KEY, generation=2
    )
    send(nodes, kill(test=True))
    assert len([item for item in hook.mutations() if not item.is_done]) == 4
    send(nodes, kill(test=False))
    assert [item for item in hook.mutations() if not item.is_done] == []
    assert counted(nodes, "score", february) == before

    drop = sql.drop_partition_statement(cluster=CLUSTER, database="acme_voice", table="score", partition_id="202602")
    assert send(nodes, drop) == dict.fromkeys(nodes.names, "0")
    assert set(counted(nodes, "score", february).values()) == {0}


def test_recorder_shows_what_was_sent(nodes: ClickHouseSandbox, truths: dict[str, ProfileTruth]) -> None:
    part = slice_of(truths["globex_chat"], JANUARY, FEBRUARY)
    statement = sql.delete_statement(cluster=CLUSTER, table="score", part=part, names=NAMES, key=KEY, generation=3)
    send(nodes, statement)
    (row,) = nodes.node("node-2-2").statements(contains=f"{KEY}:3")
    assert row["statement"].startswith(statement)
    assert row["outcome"] == "ok"
    assert row["settings"]["mutations_sync"] == "0"
    others = [nodes.node(name).statements(contains=KEY) for name in nodes.names if name != "node-2-2"]
    assert others == [[], [], []]


def test_insert_of_the_worker_is_seen_at_once(
    nodes: ClickHouseSandbox, truths: dict[str, ProfileTruth], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_CLICKHOUSE_PASSWORD", nodes.password)
    part = slice_of(truths["globex_chat"], date(2026, 5, 1), date(2026, 5, 2))
    moment = 1_777_600_000_000  # 2026-05-01, 01:46:40 UTC
    lines = [(f"card-{n}", "globex", "chat", f"conv-{n}", moment, "conversation", moment) for n in range(50)]
    block = Block("scorecard", tuple(list(column) for column in zip(*lines, strict=True)))
    assert len(block.columns) == len(columns_of("scorecard"))
    target = ClickHouseTarget(nodes.topology.node("node-1-1").url)
    try:
        target.insert("globex_chat", block)
        target.insert("globex_chat", block)
    finally:
        target.close()
    per_host = counted(nodes, "scorecard", part)
    assert per_host["node-1-1"] + per_host["node-2-1"] == 50
    assert per_host["node-1-1"] == per_host["node-1-2"]


def test_health_and_partitions(nodes: ClickHouseSandbox, truths: dict[str, ProfileTruth]) -> None:
    nodes.node("node-2-1").add_faults({"kind": "overlay", "table": "disks", "set": {"free_space": 4096}})
    readings = rows(nodes, sql_health.health_statement(CLUSTER))
    values = {(row["measure"], row["host"]): row["value"] for row in readings}
    assert [values["answers", name] for name in nodes.names] == [1, 1, 1, 1]
    assert values["free_disk_bytes", "node-2-1"] == 4096 < values["free_disk_bytes", "node-1-1"]
    assert all(values["active_parts", name] >= 1 for name in nodes.names)
    part = slice_of(truths["globex_chat"], JANUARY, FEBRUARY)
    statement = sql_health.partition_statement(
        cluster=CLUSTER, database="globex_chat", table="scorecard", partition_ids=["202601"], parts=[part], names=NAMES
    )
    held = {row["host"]: row["partitions"] for row in rows(nodes, statement)}
    assert sorted(held) == nodes.names
    for ((partition, found, foreign),) in held.values():
        assert (partition, foreign) == ("202601", 0)
        assert found > 0
    sizes = rows(nodes, sql_health.partition_sizes_statement(cluster=CLUSTER, database="globex_chat", table="score"))
    assert {row["host"] for row in sizes} == set(nodes.names)
    assert all(row["bytes"] > 0 for row in sizes)


def test_hook_reads_and_sends(
    nodes: ClickHouseSandbox, truths: dict[str, ProfileTruth], monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = hook_of(nodes, monkeypatch, "node-1-1")
    hosts = hook.topology()
    assert [(host.name, host.shard) for host in hosts] == [(name, int(name[5])) for name in nodes.names]
    part = slice_of(truths["globex_chat"], FEBRUARY, MARCH)
    (per_host,) = hook.host_counts([("scorecard", part, "")], hosts)
    counted_rows = sum(sum(days.values()) for days in per_host.values())
    assert counted_rows == 2 * truths["globex_chat"].total(FEBRUARY, MARCH).scorecard.before
    statement = sql.delete_statement(cluster=CLUSTER, table="scorecard", part=part, names=NAMES, key=KEY, generation=4)
    answer = hook.send_ddl(statement, hosts)
    assert (answer.outcome, answer.hosts) == ("done", frozenset(nodes.names))
    found = hook.mutations()
    assert sorted(item.host for item in found if (item.marker or ())[:2] == (KEY, 4)) == nodes.names


def test_a_value_that_may_not_be_there_is_looked_for_on_every_host(
    nodes: ClickHouseSandbox, truths: dict[str, ProfileTruth], monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, part = hook_of(nodes, monkeypatch, "node-1-1"), slice_of(truths["globex_chat"], JANUARY, FEBRUARY)
    rule = MustBeZero(table="scorecard", column="scorecard_type", equals="appeal_request")
    hook.config = hook.config.model_copy(update={"must_be_zero": (rule,)})
    [(said, found)] = hook.forbidden_rows([("scorecard", part), ("score", part)], hook.topology())
    assert said == "globex_chat.scorecard with scorecard_type = 'appeal_request'"
    alone = {
        name: int(
            nodes.node(name).query(
                "SELECT count() FROM globex_chat.scorecard FINAL WHERE scorecard_type = 'appeal_request'"
                " AND scorecard_time < '2026-02-01 00:00:00'"
            )[0][0]
        )
        for name in nodes.names
    }
    assert found == alone
    assert sum(found.values()) > 0
