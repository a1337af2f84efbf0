"""Nodes are killed while rows are inserted and deleted: replicas stay equal, nothing that was acknowledged is lost."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from standins.clickhouse.client import ClickHouseSandbox, SandboxError, running
from tests.standins.clickhouse_fixtures import CLUSTER, counts, mutations, until

KILLS = 10
ROWS = 50


class Writer(threading.Thread):
    """Inserts blocks of new ids, and deletes what nobody inserts, on nodes by chance."""

    def __init__(self, sandbox: ClickHouseSandbox, number: int) -> None:
        super().__init__(name=f"writer-{number}")
        self._sandbox = sandbox
        self._number = number
        self._random = random.Random(number)
        self.acknowledged: set[int] = set()
        self.stopping = threading.Event()

    def run(self) -> None:
        """Write until told to stop; a node that is down refuses, which is what this test makes."""
        first = self._number * 1_000_000
        while not self.stopping.is_set():
            node = self._sandbox.node(self._random.choice(self._sandbox.names))
            try:
                if self._random.random() < 0.8:
                    first += ROWS
                    node.query(f"INSERT INTO a.t_d SELECT number, 1 FROM numbers({first}, {ROWS})")
                    self.acknowledged.update(range(first, first + ROWS))
                else:
                    node.query(
                        f"ALTER TABLE a.t ON CLUSTER {CLUSTER} DELETE WHERE v = 2 AND '{first}' != ''",
                        distributed_ddl_task_timeout=3,
                        distributed_ddl_output_mode="null_status_on_timeout",
                    )
            except (SandboxError, OSError):
                continue


@pytest.mark.chaos
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_nodes_lose_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with running(ClickHouseSandbox(tmp_path, (2, 2))) as sandbox:
        node = sandbox.nodes()[0]
        node.query(f"CREATE DATABASE a ON CLUSTER {CLUSTER}")
        node.query(
            f"CREATE TABLE a.t ON CLUSTER {CLUSTER} (id UInt64, v UInt8) ENGINE = ReplacingMergeTree ORDER BY id"
        )
        node.query(
            f"CREATE TABLE a.t_d ON CLUSTER {CLUSTER} AS a.t ENGINE = Distributed({CLUSTER}, a, t, cityHash64(id))"
        )
        writers = [Writer(sandbox, number) for number in range(3)]
        for writer in writers:
            writer.start()
        try:
            for _ in range(KILLS):
                time.sleep(chance.uniform(0.3, 1.0))  # work under the kill, not synchronisation
                name = chance.choice(sandbox.names)
                sandbox.stop(name, kill=True)
                sandbox.start(name)
        finally:
            for writer in writers:
                writer.stopping.set()
            for writer in writers:
                writer.join()

        def equal() -> bool:
            per_node = counts(sandbox, "a.t")
            listed = {name: [row["command"] for row in rows] for name, rows in mutations(sandbox, "a").items()}
            return all(
                per_node[f"node-{shard}-1"] == per_node[f"node-{shard}-2"]
                and listed[f"node-{shard}-1"] == listed[f"node-{shard}-2"]
                for shard in (1, 2)
            )

        until(equal, "replicas equal")
        there = {int(row[0]) for row in node.query("SELECT id FROM a.t_d FINAL")}
        acknowledged = set().union(*(writer.acknowledged for writer in writers))
        assert acknowledged
        assert acknowledged <= there
