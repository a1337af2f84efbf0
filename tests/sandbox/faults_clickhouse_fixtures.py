"""Drives the product's own ClickHouse stages, without a scheduler, against nodes that go wrong as told.

A `Scene` is one customer with a database of its own: its windows, the state that Airflow would keep of them, and the
stages delete, wait_mutations and verify as functions that return what Airflow would have been told.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from airflow.triggers.base import BaseTrigger, TaskFailedEvent, TaskSuccessEvent, TriggerEvent

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.operators import common, deleter
from backfill.operators.delete import DeleteOperator
from backfill.operators.waits import WaitMutationsOperator
from backfill.settings import cluster_config
from backfill.triggers.base import Look, WaitTrigger
from backfill.triggers.mutations import MutationsTrigger
from backfill.triggers.verify import VerifyTrigger
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.load import merge
from include.scorecard_backfill.names import digest
from include.scorecard_backfill.sql import quote_string
from sandbox.data.spec import ProfileSpec
from sandbox.data.tables import create_statements
from standins.clickhouse.client import ClickHouseSandbox
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
        "mutation_stall_seconds": 1,
        "not_picked_up_seconds": 2,
        "fail_reason_polls": 2,
        "verify_poll_seconds": 0.2,
        "verify_day_min_rows": 1_000_000,
        "delete": {"drop_partition": False},
    },
    "kubernetes": {"first_poll_after_seconds": 0},
}
_CUSTOMERS = itertools.count(1)


class KilledWorkerError(BaseException):
    """Stands for SIGKILL: nothing of the code under test may catch it."""


@dataclass
class TaskInstance:
    """The part of a running task instance that the stages use."""

    task_id: str
    xcoms: dict[tuple[str, str], Any]
    map_index: int = 0
    try_number: int = 1

    def xcom_pull(self, task_ids: str, key: str = "return_value", map_indexes: Any = None) -> Any:
        """Return what a task left."""
        return self.xcoms.get((task_ids, key))

    def xcom_push(self, key: str, value: Any) -> None:
        """Leave something."""
        self.xcoms[self.task_id, key] = json.loads(json.dumps(value))


@dataclass
class Scene:
    """One customer of a cluster whose limits are short, and what Airflow would remember of one window."""

    sandbox: ClickHouseSandbox
    folder: Path
    customer: str
    profile: str = "voice"
    params: Json = field(default_factory=lambda: {"overlap": False, "kill_stalled_mutations": False})
    xcoms: dict[tuple[str, str], Any] = field(default_factory=dict)
    stores: dict[str, Store] = field(default_factory=dict)

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

    def configure(self, monkeypatch: pytest.MonkeyPatch, node: str = "node-1-1", **clickhouse: Any) -> None:
        """Write the cluster's file with these fields of its section `clickhouse`, and the connection to a node."""
        folder = self.folder / f"clusters-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        settings = merge(SHORT, {"clickhouse": clickhouse})
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

    def window(self, start: str = "2026-01-01", end: str = "2026-02-01", **fields: Any) -> Json:
        """A window record of the plan."""
        return {
            "key": digest(f"{self.customer} {start} {end}"),
            "cluster": NAME,
            "customer_id": self.customer,
            "start": start,
            "end": end,
            "mode": "cleanup",
            "databases": [{"name": self.database, "profile_id": self.profile, "tables": ["scorecard"]}],
            "label": f"{self.customer} {start}..{end}",
            "part_of": "",
            "before": {},
        } | fields

    def other(self, customer: str = "") -> Scene:
        """Another customer of the same cluster, with empty tables and a run of its own."""
        made = Scene(self.sandbox, self.folder, customer or f"globex{next(_CUSTOMERS)}")
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

    def context(self, task: str) -> Json:
        """What Airflow gives to a task; its store survives clears, its XComs too until it ends anew."""
        return {
            "ti": TaskInstance(f"windows.{task}", self.xcoms),
            "task_state_store": self.stores.setdefault(task, Store()),
            "params": self.params,
        }

    def delete(self, window: Json, *on_wait: Callable[[], object]) -> Json:
        """Run the delete stage to its end; `on_wait` are called after one look each at which it waits deferred."""
        operator = DeleteOperator(task_id="delete", cluster=NAME, window=window)
        result: Json = finish(operator, operator.execute, self.context("delete"), *on_wait)
        self.xcoms["windows.delete", "return_value"] = result
        return result

    def mutations_trigger(self, **fields: Any) -> MutationsTrigger:
        """The trigger of wait_mutations as Airflow renders it."""
        return MutationsTrigger(
            cluster=NAME,
            deleted=json.dumps(self.xcoms.get(("windows.delete", "return_value"))),
            previous=json.dumps(self.xcoms.get(("windows.wait_mutations", "return_value"))),
            verified=json.dumps(self.xcoms.get(("windows.verify", "return_value"))),
            overlap=str(self.params["overlap"]),
            **fields,
        )

    def wait_mutations(self, *on_wait: Callable[[], object]) -> Json:
        """Run wait_mutations to its end and return its result; raises AirflowFailException when it fails."""
        operator = WaitMutationsOperator(task_id="wait_mutations", cluster=NAME, group="windows")
        context = self.context("wait_mutations")
        result: Json = after(operator, self.mutations_trigger(), "resume", context, *on_wait)
        self.xcoms["windows.wait_mutations", "return_value"] = result
        return result

    def failure(self) -> Json:
        """Run wait_mutations, which must fail, and return the record that it leaves."""
        with pytest.raises(AirflowFailException):
            self.wait_mutations()
        record: Json = self.xcoms["windows.wait_mutations", "return_value"]
        return record

    def verify(self, *on_wait: Callable[[], object]) -> Json:
        """Run verify's trigger and return the record that it ends with, verified or failed."""
        trigger = VerifyTrigger(
            cluster=NAME,
            deleted=json.dumps(self.xcoms["windows.delete", "return_value"]),
            waited=json.dumps({"attempt": 1}),
        )
        event = run_trigger(trigger, *on_wait)
        if isinstance(event, TaskSuccessEvent):
            result = returned(event)
            self.xcoms["windows.verify", "return_value"] = result
            return result
        record: Json = event.payload["record"]
        return record


def returned(event: TaskSuccessEvent) -> Json:
    """What a task returns whose trigger has ended it."""
    assert event.xcoms is not None
    result: Json = json.loads(json.dumps(event.xcoms["return_value"]))
    return result


def as_in_triggerer(trigger: WaitTrigger) -> WaitTrigger:
    """The trigger as the triggerer makes it from the database."""
    path, kwargs = trigger.serialize()
    assert path == trigger.path
    return type(trigger)(**json.loads(json.dumps(kwargs)))


def run_trigger(trigger: WaitTrigger, *on_wait: Callable[[], object]) -> TriggerEvent:
    """Run a trigger until its event; after each look that decides nothing, the next of `on_wait` is called."""
    fresh = as_in_triggerer(trigger)
    steps = iter(on_wait)
    look = fresh.look

    async def watched() -> Look:
        try:
            found = await look()
        except Exception:
            await next_step()
            raise
        if found.verdict.state == "wait" and found.resume is None:
            await next_step()
        return found

    async def next_step() -> None:
        if step := next(steps, None):
            await asyncio.to_thread(step)

    async def first() -> TriggerEvent:
        async for event in fresh.run():
            return event
        raise AssertionError("the trigger ended without an event")

    fresh.look = watched  # type: ignore[method-assign]
    return asyncio.run(asyncio.wait_for(first(), LIMIT_SECONDS))


def finish(operator: Any, call: Callable[[Any], Any], context: Any, *on_wait: Callable[[], object]) -> Any:
    """Call a stage and go on after each deferral, until it returns or raises."""
    try:
        return json.loads(json.dumps(call(context)))
    except TaskDeferred as deferred:
        trigger: BaseTrigger = deferred.trigger
        assert isinstance(trigger, WaitTrigger)
        return after(operator, trigger, deferred.method_name, context, *on_wait)


def after(operator: Any, trigger: WaitTrigger, method: str, context: Any, *on_wait: Callable[[], object]) -> Any:
    """Run a trigger and give its event to a worker, unless it ends the task itself."""
    event = run_trigger(trigger, *on_wait)
    if isinstance(event, TaskSuccessEvent):
        return returned(event)
    assert not isinstance(event, TaskFailedEvent)
    payload = json.loads(json.dumps(event.payload))
    return finish(operator, lambda ctx: getattr(operator, method)(ctx, event=payload), context)


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
    monkeypatch.setattr(common, "SETTLE_SECONDS", 0.2)
    made = Scene(nodes, tmp_path, f"acme{next(_CUSTOMERS)}")
    made.configure(monkeypatch)
    made.create()
    nodes.clear()
    yield made
    made.heal()
