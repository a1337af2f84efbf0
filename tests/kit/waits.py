"""Helpers of the tests of triggers and operators: a cluster's file with short waits, what Airflow gives to a task."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.triggers.base import BaseTrigger, TriggerEvent

from backfill import settings
from backfill.kit import debts
from include.scorecard_backfill.config.load import merge
from include.scorecard_backfill.records import (
    Counted,
    Database,
    Deleted,
    Numbers,
    Proof,
    Record,
    Reindexed,
    Sent,
    TableDays,
    Verified,
    Window,
)
from tests.kit.store import AssetState, Store

Json = dict[str, Any]

NAME = "waits"
KEY = "0123456789abcdef"
LIMIT_SECONDS = 60.0

SHORT: Json = {
    "name": NAME,
    "timezone": "UTC",
    "clickhouse": {"tables": ["scorecard"], "mutation_poll_seconds": 0.2, "verify_poll_seconds": 0.2},
    "kubernetes": {"context": NAME, "poll_seconds": 0.2},
    "waits": {"first_poll_after_seconds": 0},
    "temporal": {"poll_seconds": 0.2},
    "admission": {"poll_seconds": 0.2},
}

KUBECONFIG: Json = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": NAME, "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": NAME, "user": {"token": "to-ken"}}],
    "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
}
"""Nothing listens on port 1."""

CONNECTIONS = {
    "CLICKHOUSE": {"conn_type": "clickhouse", "host": "127.0.0.1", "port": 1, "password": "pass-word"},
    "TEMPORAL": {"conn_type": "temporal", "host": "127.0.0.1", "port": 1, "extra": {"tls": False}},
    "KUBERNETES": {"conn_type": "kubernetes", "extra": {"kube_config": json.dumps(KUBECONFIG)}},
}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A cluster whose waits are short and whose servers do not exist."""
    configure(tmp_path, monkeypatch)
    yield NAME
    settings._load.cache_clear()


def configure(folder: Path, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """Write the cluster's file with these fields on top, and its connections."""
    (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(merge(SHORT, fields)), encoding="utf-8")
    monkeypatch.setenv(settings.CLUSTERS_ENV, str(folder))
    settings._load.cache_clear()
    for kind, connection in CONNECTIONS.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{kind}_{NAME.upper()}", json.dumps(connection))


WINDOW = Window(
    key=KEY,
    cluster=NAME,
    customer_id="acme",
    start=date(2026, 1, 1),
    end=date(2026, 2, 1),
    mode="cleanup",
    databases=(Database(name="acme_voice", profile_id="voice", tables=("scorecard",)),),
    conversations=100,
    rows={"scorecard": 100},
)
BEFORE = TableDays(
    database="acme_voice",
    table="scorecard",
    days={"2026-01-05": Numbers(rows=100, conversations=50, ids=100, meant=10, fingerprint=7)},
)
COUNTED = Counted(key=KEY, now=(BEFORE,), before=(BEFORE,), server_time=1_770_000_000.0)


def window(**fields: Any) -> Window:
    """A window of the plan."""
    return WINDOW.model_copy(update=fields)


def reindexed(attempt: int = 1, *ids: str, **fields: Any) -> Reindexed:
    """What the reindex stage returned."""
    base = Reindexed(
        key=KEY,
        window=WINDOW,
        status="reindexed",
        attempt=attempt,
        job_name=f"reindex-a{attempt}",
        workflow_ids=ids,
    )
    return base.model_copy(update=fields)


def deleted(**fields: Any) -> Deleted:
    """What the delete stage returned."""
    sent = Sent(database="acme_voice", table="scorecard", at=0.0, accepted=("node-1-1",))
    base = Deleted(key=KEY, window=WINDOW, status="deleted", counted=COUNTED, generation=1, sent=(sent,))
    return base.model_copy(update=fields)


PROOF = Proof(tables=(), hosts=("node-1-1",), statements=1, workflows=1, accounted=True)
VERIFIED = Verified(key=KEY, status="verified", proof=PROOF)

Left = dict[tuple[str, str], Any]
"""XComs that a trigger reads, by (task id, key); of mapped tasks those of its own map index."""


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> Left:
    """What the stages of the run have left: a plan of one window; a test adds to it."""
    found: Left = {
        ("plan", "return_value"): [WINDOW.to_json()],
        ("plan", "run"): {"max_parallel": 2, "sources": {}, "overlap": False},
    }

    async def get(*, key: str, task_id: str, **_: Any) -> Any:
        value = found.get((task_id, key))
        return value.to_json() if isinstance(value, Record) else value

    async def put(key: str, value: Any, *, task_id: str, **_: Any) -> None:
        found[task_id, key] = json.loads(json.dumps(value))

    monkeypatch.setattr(BaseXCom, "aget_one", get)
    monkeypatch.setattr(BaseXCom, "aset", put)
    return found


@pytest.fixture
def assets(monkeypatch: pytest.MonkeyPatch) -> AssetState:
    """The state of the cluster's asset: its debts."""
    state = AssetState()
    monkeypatch.setattr(debts, "AssetStateStoreAccessor", lambda name: state)
    return state


def placed(trigger: Any, task_id: str, map_index: int = 0) -> Any:
    """Return a trigger as the triggerer runs it for this task instance."""
    trigger.task_instance = TaskInstance(task_id, map_index=map_index)
    return trigger


@dataclass
class TaskInstance:
    """The part of a running task instance that the stages use, with Airflow's own way of pulling XComs.

    ``xcoms`` by (task id, key): a value, or for mapped tasks a dict by map index.
    """

    task_id: str
    xcoms: dict[tuple[str, str], Any] = field(default_factory=dict)
    map_index: int = 0
    dag_id: str = f"scorecard_backfill__{NAME}"
    run_id: str = "manual__1"
    try_number: int = 1
    id: str = "the instance"
    pulls: list[tuple[str, str]] = field(default_factory=list)

    def xcom_pull(self, task_ids: str, key: str = "return_value", map_indexes: Any = "all", **_: Any) -> Any:
        """As Airflow: without indexes all that there are, without holes, and a single one not in a list."""
        self.pulls.append((task_ids, key))
        found = self.xcoms.get((task_ids, key))
        if not (isinstance(found, dict) and all(isinstance(index, int) for index in found)) or not found:
            return found
        if map_indexes == "all":
            values = [value for _, value in sorted(found.items()) if value is not None]
            return values[0] if len(values) == 1 else values
        return found.get(map_indexes)

    def xcom_push(self, key: str, value: Any) -> None:
        """Leave something."""
        self.xcoms[self.task_id, key] = json.loads(json.dumps(value))


def context(task_id: str, xcoms: dict[tuple[str, str], Any] | None = None, **fields: Any) -> Json:
    """What Airflow gives to a task."""
    run = SimpleNamespace(run_id="manual__1", run_type="manual", run_after=None, conf={})
    return {
        "ti": TaskInstance(task_id, {} if xcoms is None else xcoms),
        "task_state_store": Store(),
        "params": {},
        "dag_run": run,
        "outlet_events": OutletEventAccessors(),
    } | fields


def deferral(call: Any, *args: Any, **kwargs: Any) -> TaskDeferred:
    """The deferral with which a call must end."""
    with pytest.raises(TaskDeferred) as found:
        call(*args, **kwargs)
    return found.value


async def events(trigger: BaseTrigger) -> list[TriggerEvent]:
    """All events of a trigger, which must end within the limit."""

    async def collect() -> list[TriggerEvent]:
        return [event async for event in trigger.run()]

    return await asyncio.wait_for(collect(), LIMIT_SECONDS)


async def only_event(trigger: BaseTrigger) -> Any:
    """The one event of a trigger."""
    (event,) = await events(trigger)
    return event
