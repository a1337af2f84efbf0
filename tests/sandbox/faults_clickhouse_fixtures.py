"""Drives the product's own ClickHouse stages, without a scheduler, against nodes that go wrong as told.

A `Scene` is one customer with a database of its own: its windows, the state that Airflow would keep of them, and the
stages delete, wait_mutations and verify as functions that return what Airflow would have been told.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import AirflowFailException

from backfill.deleting import deleter
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit import counting
from backfill.operators.delete import DeleteOperator
from backfill.operators.verify import VerifyOperator
from backfill.operators.wait_mutations import WaitMutationsOperator
from backfill.settings import cluster_config
from backfill.triggers.mutations import MutationsTrigger
from backfill.triggers.verify import VerifyTrigger
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.load import merge
from include.scorecard_backfill.names import digest
from include.scorecard_backfill.planning.terms import terms_of, windows_digest
from include.scorecard_backfill.records import (
    Database,
    Deleted,
    Failure,
    MutationsGone,
    Record,
    Reindexed,
    Verified,
    Window,
    WorkflowsClosed,
    read,
)
from include.scorecard_backfill.sql import quote_string
from sandbox.data.spec import ProfileSpec
from sandbox.data.tables import create_statements
from standins.clickhouse.client import ClickHouseSandbox
from tests.kit.memory import Memory, TaskInstance, after, finish
from tests.kit.store import Store

Json = dict[str, Any]

NAME = "faults"
LIMIT_SECONDS = 40.0
"""No wait of these tests takes longer, also when the machine is busy."""

SHORT: Json = {
    "name": NAME,
    "clickhouse": {
        "tables": ["scorecard"],
        "query_timeout_seconds": 20,
        "ddl_timeout_seconds": 5,
        "mutation_poll_seconds": 0.2,
        "mutation_stall_seconds": 5,
        "not_picked_up_seconds": 2,
        "fail_reason_polls": 2,
        "verify_poll_seconds": 0.2,
        "delete": {"drop_partition": False},
    },
    "waits": {"first_poll_after_seconds": 0},
}
_CUSTOMERS = itertools.count(1)


class KilledWorkerError(BaseException):
    """Stands for SIGKILL: nothing of the code under test may catch it."""


@dataclass
class Scene:
    """One customer of a cluster whose limits are short, and what Airflow would remember of one window."""

    sandbox: ClickHouseSandbox
    folder: Path
    customer: str
    profile: str = "voice"
    memory: Memory = field(default_factory=Memory)
    params: Json = field(default_factory=lambda: {"overlap": False, "kill_stalled_mutations": False})

    @property
    def run_id(self) -> str:
        """Each customer has a run of its own."""
        return f"manual__{self.customer}"

    @property
    def stores(self) -> dict[str, Store]:
        """Task states by stage."""
        mine = {task: kept for (run, task, _), kept in self.memory.states.items() if run == self.run_id}
        return {task.partition(".")[2]: kept for task, kept in mine.items()}

    def forget(self) -> None:
        """Lose all task states."""
        self.memory.states.clear()

    @property
    def spec(self) -> ProfileSpec:
        """Customer and profile."""
        return ProfileSpec(self.customer, self.profile, 0)

    @property
    def database(self) -> str:
        """Name of the database."""
        return self.spec.database

    @property
    def config(self) -> ClusterConfig:
        """The cluster's configuration as the product reads it."""
        return cluster_config(NAME)

    def configure(
        self, monkeypatch: pytest.MonkeyPatch, node: str = "node-1-1", file: Json | None = None, **clickhouse: Any
    ) -> None:
        """Write the cluster's file with these fields of its section `clickhouse`, and the connection to a node.

        ``file`` are fields of the file beside that section.
        """
        folder = self.folder / f"clusters-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        settings = merge(SHORT, {**(file or {}), "clickhouse": clickhouse})
        (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        monkeypatch.setenv("SCORECARD_BACKFILL_CLUSTERS", str(folder))
        self.connect(monkeypatch, self.sandbox.topology.node(node).port)

    def connect(self, monkeypatch: pytest.MonkeyPatch, port: int, **extra: Any) -> None:
        """Define the Airflow connection."""
        connection = {"conn_type": "clickhouse", "host": "127.0.0.1", "port": port, "login": "admin"}
        connection |= {"password": self.sandbox.password, "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_CLICKHOUSE_{NAME.upper()}", json.dumps(connection))

    def create(self) -> None:
        """Make database and tables on every node."""
        for statement in create_statements(self.spec):
            if "`score`" not in statement and "`score_d`" not in statement:
                self.sandbox.nodes()[0].query(statement)

    def fill(self, day: str, rows: int = 40, *, customer: str = "", first: int = 0, version: int = 1) -> None:
        """Insert rows of one UTC day on both shards; the same numbers are newer versions of the same rows."""
        owner = customer or self.customer
        self.sandbox.nodes()[0].query(
            f"INSERT INTO `{self.database}`.scorecard_d (scorecard_id, customer_id, profile_id, conversation_id,"
            f" scorecard_time, updated_at) SELECT concat('{day}-', toString({first} + number)), {quote_string(owner)},"
            f" {quote_string(self.profile)}, concat('c-', toString({first} + number)),"
            f" toDateTime64('{day} 00:00:00', 3, 'UTC') + number,"
            f" toDateTime64('2026-06-01 00:00:00', 3, 'UTC') + {version} FROM numbers({rows})",
            distributed_foreground_insert=1,
        )

    def row_without_profile(self, day: str) -> None:
        """Make the column nullable and insert a row of this customer whose profile is NULL."""
        node, table = self.sandbox.nodes()[0], f"`{self.database}`.scorecard"
        change = "ON CLUSTER 'conversations' MODIFY COLUMN profile_id LowCardinality(Nullable(String))"
        node.query(f"ALTER TABLE {table} {change}", alter_sync=2)
        node.query(
            f"INSERT INTO {table} (scorecard_id, customer_id, profile_id, conversation_id, scorecard_time)"
            f" VALUES ('n', '{self.customer}', NULL, 'n', '{day} 00:00:00')"
        )

    def window(self, start: str = "2026-01-01", end: str = "2026-02-01", **fields: Any) -> Window:
        """A window of the plan."""
        databases = (Database(name=self.database, profile_id=self.profile, tables=("scorecard",)),)
        return Window(
            key=digest(f"{self.customer} {start} {end}"),
            cluster=NAME,
            customer_id=self.customer,
            start=date.fromisoformat(start),
            end=date.fromisoformat(end),
            **{"mode": "cleanup", "databases": databases, **fields},
        )

    def other(self, customer: str = "") -> Scene:
        """Another customer of the same cluster, with empty tables and a run of its own."""
        made = Scene(self.sandbox, self.folder, customer or f"globex{next(_CUSTOMERS)}", memory=self.memory)
        made.create()
        return made

    def rows(self, where: str = "1") -> dict[str, int]:
        """FINAL counts by node, asked of each node itself."""
        statement = f"SELECT count() FROM `{self.database}`.scorecard FINAL WHERE {where}"
        return {name: int(self.sandbox.node(name).query(statement)[0][0]) for name in self.sandbox.names}

    def total(self, where: str = "1") -> int:
        """Rows over all shards; both replicas of a shard must agree."""
        found = self.rows(where)
        assert found["node-1-1"] == found["node-1-2"]
        assert found["node-2-1"] == found["node-2-2"]
        return found["node-1-1"] + found["node-2-1"]

    def sent(self, contains: str = "DELETE WHERE") -> list[str]:
        """Statements of clients that changed this customer's tables, in order, whatever became of them."""
        rows = [row for node in self.sandbox.nodes() for row in node.statements(contains=contains)]
        return [row["statement"] for row in sorted(rows, key=lambda r: r["time"]) if self.database in row["statement"]]

    def markers(self) -> list[str]:
        """Markers of the DELETEs that were sent, without the key: `1`, `1.3`."""
        return [re.findall(r"'backfill:[0-9a-f]{16}:([0-9.]+)'", text)[-1] for text in self.sent()]

    def mutations(self) -> dict[str, list[str]]:
        """Markers (`1`, `1.3`) of this customer's mutations by node, as each node lists them."""
        statement = f"SELECT command FROM system.mutations WHERE database = '{self.database}' ORDER BY mutation_id"
        return {
            name: [
                marker
                for (command,) in self.sandbox.node(name).query(statement)
                for marker in re.findall(r"'backfill:[0-9a-f]{16}:([0-9.]+)'", command)
            ]
            for name in self.sandbox.names
        }

    def everywhere(self, *markers: str) -> dict[str, list[str]]:
        """What `mutations` returns when every node has exactly these."""
        return {name: list(markers) for name in self.sandbox.names}

    def fault(self, *names: str, **rule: Any) -> None:
        """Add a rule, on all nodes when none is named."""
        for name in names or self.sandbox.names:
            self.sandbox.node(name).add_faults(rule)

    def heal(self) -> None:
        """Delete all rules."""
        for node in self.sandbox.nodes():
            node.clear_faults()

    def task(self, stage: str) -> TaskInstance:
        """The only window's instance of a stage."""
        return TaskInstance(self.memory, self.run_id, f"windows.{stage}")

    def context(self, stage: str) -> Json:
        """What Airflow gives to a task; its store survives clears, its XComs too until it ends anew."""
        return self.task(stage).context(params=self.params)

    def leave(self, task: str, value: Any, key: str = "return_value", map_index: int = -1) -> None:
        """Leave an XCom of a task."""
        TaskInstance(self.memory, self.run_id, task, map_index).xcom_push(key, value)

    def left(self, stage: str) -> Record | None:
        """What a stage has left."""
        return read(self.task(stage).xcom_pull(f"windows.{stage}", map_indexes=0))

    def plan(self, window: Window) -> None:
        """Plan this window alone and approve it as the cluster's file is now."""
        terms = terms_of(
            self.config,
            mode=window.mode,
            order=window.order,
            windows=windows_digest([window]),
            max_parallel=self.config.admission.max_parallel,
        )
        self.leave("plan", [window.to_json()])
        self.leave("plan", {"overlap": self.params["overlap"], "require_approval": False}, "run")
        for task in ("plan", "approve"):
            self.leave(task, dict(terms), "terms")

    def delete(self, window: Window, *on_wait: Callable[[], object]) -> Deleted:
        """Run the delete stage to its end; `on_wait` are called after one look each at which it waits deferred."""
        self.plan(window)
        operator = DeleteOperator(task_id="delete", cluster=NAME, window=window.to_json())
        # As in its group; alone an operator's id may not have a point.
        operator.__dict__["task_id"] = "windows.delete"
        return Deleted.from_json(finish(operator, operator.execute, self.context("delete"), *on_wait))

    def wait_mutations(self, *on_wait: Callable[[], object]) -> MutationsGone:
        """Run wait_mutations to its end and return its result; raises AirflowFailException when it fails."""
        operator = WaitMutationsOperator(task_id="wait_mutations", cluster=NAME, group="windows")
        operator.__dict__["task_id"] = "windows.wait_mutations"
        trigger = MutationsTrigger(cluster=NAME, group="windows")
        return MutationsGone.from_json(after(operator, trigger, "resume", self.context("wait_mutations"), *on_wait))

    def failure(self) -> Failure:
        """Run wait_mutations, which must fail, and return the record that it leaves."""
        with pytest.raises(AirflowFailException):
            self.wait_mutations()
        found = self.left("wait_mutations")
        assert isinstance(found, Failure)
        return found

    def reindexed(self, window: Window, attempt: int = 1) -> None:
        """As if the window had been reindexed and its workflows had closed well."""
        job = Reindexed(key=window.key, window=window, status="reindexed", attempt=attempt)
        closed = WorkflowsClosed(key=window.key, status="completed", attempt=attempt)
        self.leave("windows.reindex", job.to_json(), map_index=0)
        self.leave("windows.wait_workflows", closed.to_json(), map_index=0)

    def verify(self, *on_wait: Callable[[], object]) -> Verified | Failure:
        """Run verify and return the record that it ends with."""
        self.reindexed(Window.from_json(self.task("verify").xcom_pull("plan")[0]))
        operator = VerifyOperator(task_id="verify", cluster=NAME, group="windows")
        operator.__dict__["task_id"] = "windows.verify"
        trigger = VerifyTrigger(cluster=NAME, group="windows")
        try:
            after(operator, trigger, "resume", self.context("verify"), *on_wait)
        except AirflowFailException:
            assert isinstance(self.left("verify"), Failure)
        found = self.left("verify")
        assert isinstance(found, (Verified, Failure))
        return found


def verified(found: Verified | Failure) -> Verified:
    """The record of a window that must be verified."""
    assert isinstance(found, Verified), found
    return found


def failed(found: Verified | Failure) -> Failure:
    """The record of a window that must not be."""
    assert isinstance(found, Failure), found
    return found


def rows_before(deleted: Deleted) -> dict[str, int]:
    """Rows before of each table."""
    return {table.table: table.rows for table in deleted.before}


def die_at_send(monkeypatch: pytest.MonkeyPatch, *, number: int, sent: bool) -> None:
    """Kill the worker at its n-th ON CLUSTER statement, before or after it has left."""
    real, calls = BackfillClickHouse.send_ddl, iter(range(1, 100))

    def send(self: BackfillClickHouse, statement: str, hosts: Any) -> Any:
        mine = next(calls)
        if mine == number and not sent:
            raise KilledWorkerError
        answer = real(self, statement, hosts)
        if mine == number:
            raise KilledWorkerError
        return answer

    monkeypatch.setattr(BackfillClickHouse, "send_ddl", send)


@pytest.fixture
def scene(nodes: ClickHouseSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A new customer with an empty table, a cluster file with short waits, and a worker that does not pause long."""
    monkeypatch.setattr(deleter, "LOOK_TRIES", 3)
    monkeypatch.setattr(deleter, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(deleter, "REFUSED_SECONDS", 0.02)
    monkeypatch.setattr(counting, "SETTLE_SECONDS", 0.2)
    made = Scene(nodes, tmp_path, f"acme{next(_CUSTOMERS)}")
    made.memory.install(monkeypatch)
    made.configure(monkeypatch)
    made.create()
    nodes.clear()
    yield made
    made.heal()
