"""Helpers of the ClickHouse tests: one cluster of four nodes per module, clients, unique databases."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from standins.clickhouse.client import ClickHouseSandbox, NodeClient, running

CLUSTER = "conversations"
PASSWORD = "p4ss-w0rd"
LIMIT_SECONDS = 20.0
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseSandbox]:
    """Two shards with two replicas each, for all tests of a module."""
    with running(ClickHouseSandbox(tmp_path_factory.mktemp("clickhouse"), (2, 2), password=PASSWORD)) as sandbox:
        yield sandbox


@pytest.fixture
def nodes(cluster: ClickHouseSandbox) -> Iterator[ClickHouseSandbox]:
    """The same, without fault rules and record before and after the test."""
    cluster.clear()
    yield cluster
    cluster.clear()


@contextmanager
def connected(sandbox: ClickHouseSandbox, name: str = "node-1-1", **options: Any) -> Iterator[Client]:
    """A clickhouse-connect client as the product makes it."""
    address = sandbox.topology.node(name)
    arguments: dict[str, Any] = {
        "username": "admin",
        "password": sandbox.password,
        "autogenerate_session_id": False,
        "query_retries": 0,
        "dedicated_pool": True,
        **options,
    }
    with closing(clickhouse_connect.get_client(host=address.host, port=address.port, **arguments)) as client:
        yield client


def until(check: Callable[[], bool], what: str) -> None:
    """Poll a condition; fails with `what` after LIMIT_SECONDS."""
    end = time.monotonic() + LIMIT_SECONDS
    while not check():
        assert time.monotonic() < end, f"not within {LIMIT_SECONDS:g} s: {what}"
        time.sleep(0.05)


def new_database(sandbox: ClickHouseSandbox) -> str:
    """A database of its own on every node, with table `t` (id, day, v), and `t_d` over it."""
    name = f"db_{next(_NUMBERS)}"
    first = sandbox.nodes()[0]
    first.query(f"CREATE DATABASE {name} ON CLUSTER {CLUSTER}")
    first.query(
        f"CREATE TABLE {name}.t ON CLUSTER {CLUSTER} (id String, day DateTime64(3, 'UTC'), v UInt32)"
        " ENGINE = ReplacingMergeTree(v) PARTITION BY toYYYYMM(day) ORDER BY id"
    )
    first.query(
        f"CREATE TABLE {name}.t_d ON CLUSTER {CLUSTER} AS {name}.t"
        f" ENGINE = Distributed({CLUSTER}, {name}, t, cityHash64(id))"
    )
    return name


def fill(node: NodeClient, database: str, rows: int = 100, first: int = 0, version: int = 1) -> None:
    """Insert ids `first` .. `first + rows - 1` of January 2026 through the Distributed table."""
    node.query(
        f"INSERT INTO {database}.t_d SELECT toString({first} + number),"
        f" toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + number, {version} FROM numbers({rows})"
    )


def counts(sandbox: ClickHouseSandbox, table: str, where: str = "1") -> dict[str, int]:
    """FINAL counts by node, asked of each node itself."""
    sql = f"SELECT count() FROM {table} FINAL WHERE {where}"
    return {name: int(sandbox.node(name).query(sql)[0][0]) for name in sandbox.names}


def mutations(sandbox: ClickHouseSandbox, database: str) -> dict[str, list[dict[str, str]]]:
    """Rows of system.mutations by node, as one node sees all of them."""
    columns = ("mutation_id", "is_done", "parts_to_do", "latest_fail_reason", "is_killed", "command")
    sql = (
        f"SELECT hostName(), {', '.join(columns)} FROM clusterAllReplicas({CLUSTER}, system.mutations)"
        f" WHERE database = '{database}' ORDER BY mutation_id"
    )
    found: dict[str, list[dict[str, str]]] = {name: [] for name in sandbox.names}
    for host, *cells in sandbox.nodes()[0].query(sql):
        found[host].append(dict(zip(columns, cells, strict=True)))
    return found
