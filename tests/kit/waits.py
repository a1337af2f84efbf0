"""Helpers of the tests of triggers and operators: a cluster's file with short waits, what Airflow gives to a task."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import BaseTrigger, TriggerEvent

from backfill import settings
from include.scorecard_backfill.config.load import merge
from tests.kit.store import Store

Json = dict[str, Any]

NAME = "waits"
KEY = "0123456789abcdef"
LIMIT_SECONDS = 20.0

SHORT: Json = {
    "name": NAME,
    "timezone": "UTC",
    "clickhouse": {"tables": ["scorecard"], "mutation_poll_seconds": 0.2, "verify_poll_seconds": 0.2},
    "kubernetes": {"context": NAME, "first_poll_after_seconds": 0, "poll_seconds": 0.2},
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


def window(**fields: Any) -> Json:
    """A window record of the plan."""
    return {
        "key": KEY,
        "cluster": NAME,
        "customer_id": "acme",
        "start": "2026-01-01",
        "end": "2026-02-01",
        "mode": "cleanup",
        "databases": [{"name": "acme_voice", "profile_id": "voice", "tables": ["scorecard"]}],
        "conversations": 100,
        "rows": {"scorecard": 100},
        "label": "acme 2026-01-01..2026-02-01",
        "part_of": "",
        "before": {},
    } | fields


def reindexed(attempt: int = 1, *ids: str, **fields: Any) -> Json:
    """What the reindex stage returned."""
    return {"key": KEY, "window": window(), "attempt": attempt, "job_name": f"reindex-a{attempt}",
            "workflow_ids": list(ids), "made_at": 0.0, "status": "reindexed"} | fields  # fmt: skip


def deleted(**fields: Any) -> Json:
    """What the delete stage returned."""
    before = [{"database": "acme_voice", "table": "scorecard", "rows": 100, "now": 100, "days": {"2026-01-05": 100}}]
    sent = [{"database": "acme_voice", "table": "scorecard", "at": 0.0, "accepted": ["node-1-1"], "partitions": []}]
    return {"key": KEY, "window": window(), "generation": 1, "before": before, "sent": sent, "status": "deleted",
            "rows_before": {"scorecard": 100}, "statements": 1} | fields  # fmt: skip


VERIFIED: Json = {"key": KEY, "status": "verified", "tables": {}}


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
