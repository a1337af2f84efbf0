"""Helpers of the fault tests of the Temporal waits: a real server behind the proxy, a worker that obeys signals.

The code under test is the product's trigger, run as the triggerer runs it; nothing of Airflow's scheduler takes part.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent
from temporalio import activity, workflow
from temporalio.api.enums.v1 import ResetReapplyExcludeType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.service import RetryConfig
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from backfill import settings
from backfill.kit.look import Wait
from backfill.kit.wait import WaitTrigger
from backfill.kit.xcoms import RESULT
from backfill.triggers.workflows import WorkflowsTrigger
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.records import Database, FailEvent, Reindexed, Window, WorkflowsClosed
from sandbox.reindexer.model import PROGRESS_DONE, PROGRESS_TOTAL, WORKFLOW_TYPE, workflow_id
from standins.ports import free_port
from tests.standins.temporal_fixtures import NAMESPACE, child, running_server, until, wait_for_port

Json = dict[str, Any]
Step = Callable[[], Awaitable[object]]

NAME = "faults-temporal"
LIMIT_SECONDS = 30.0
"""No wait of these tests takes longer, also when the machine is busy."""

SHORT: Json = {
    "name": NAME,
    "temporal": {"poll_seconds": 0.2, "outage_seconds": 600, "settle_seconds": 0.5},
    "waits": {"first_poll_after_seconds": 0},
}


KEY = "0123456789abcdef"
START, END = date(2026, 1, 1), date(2026, 2, 1)
GROUP = "windows"

LEFT: dict[tuple[str, str], Any] = {}
"""What tasks left, by run (each trigger has its own) and task."""


@activity.defn(name="HoldForEver")
async def hold_for_ever() -> None:
    """Report progress once, then no heartbeat any more."""
    activity.heartbeat({PROGRESS_DONE: 5, PROGRESS_TOTAL: 10})
    await asyncio.Event().wait()


@workflow.defn(name=WORKFLOW_TYPE)
class Obedient:
    """Stands for a reindex: stays open until the signal `do` says how it ends."""

    def __init__(self) -> None:
        self._order = ""

    @workflow.signal
    def do(self, order: str) -> None:
        """Take `complete`, `again`, `hang`, or `fail <text>`."""
        self._order = order

    @workflow.run
    async def run(self, request: Json | None = None) -> None:
        """Obey. The request says of which days the reindex is, as the real one's does."""
        while True:
            await workflow.wait_condition(lambda: bool(self._order))
            order, self._order = self._order, ""
            if order == "again":
                workflow.continue_as_new(request)
            if order.startswith("fail"):
                raise ApplicationError(order.removeprefix("fail "), type="Boom", non_retryable=True)
            if order != "hang":
                return
            await workflow.execute_activity(
                hold_for_ever,
                start_to_close_timeout=timedelta(seconds=60),
                heartbeat_timeout=timedelta(seconds=1),
                retry_policy=RetryPolicy(maximum_attempts=1),
            )


@dataclass(frozen=True)
class Server:
    """A dev server, and the proxy before it that the product is told to ask."""

    address: str
    proxy: str
    faults: Path
    record: Path

    def set_rules(self, *rules: Json) -> None:
        """Replace the proxy's rules."""
        part = self.faults.with_suffix(".part")
        # An id of its own for each: the proxy counts hits by id.
        part.write_text(json.dumps({"rules": [{"id": uuid.uuid4().hex, **rule} for rule in rules]}))
        part.replace(self.faults)

    def calls(self, method: str = "", since: int = 0) -> list[Json]:
        """What the product has asked, from the line `since` on."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        found = [json.loads(line) for line in lines[since:]]
        return [call for call in found if method in ("", call["method"])]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server and one proxy for the tests of a module."""
    folder = tmp_path_factory.mktemp("temporal-faults")
    with running_server(folder) as address:
        port = free_port()
        made = Server(address, f"127.0.0.1:{port}", folder / "faults.json", folder / "calls.jsonl")
        log = folder / "proxy.log"
        arguments = ("--listen", str(port), "--upstream", address, "--faults", str(made.faults))
        with child("standins.temporal.proxy", *arguments, "--record", str(made.record), log=log) as process:
            wait_for_port(port, process, log)
            yield made


def cluster_file(folder: Path, monkeypatch: pytest.MonkeyPatch, address: str, **extra: Any) -> ClusterConfig:
    """Write the cluster's file and its connection to an address."""
    (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(SHORT), encoding="utf-8")
    monkeypatch.setenv(settings.CLUSTERS_ENV, str(folder))
    settings._load.cache_clear()
    connect_to(monkeypatch, address, **extra)
    return settings.cluster_config(NAME)


def connect_to(monkeypatch: pytest.MonkeyPatch, address: str, password: str = "", **extra: Any) -> None:
    """Define the Airflow connection."""
    host, port = address.split(":")
    fields = {"conn_type": "temporal", "host": host, "port": int(port), "password": password, "extra": extra}
    monkeypatch.setenv(f"AIRFLOW_CONN_TEMPORAL_{NAME.upper().replace('-', '_')}", json.dumps(fields))


class XComs:
    """Stands for what the triggerer asks Airflow's API server for."""

    @staticmethod
    async def aget_one(*, key: str, run_id: str, task_id: str, **_: Any) -> Any:
        """Return the result that a task left, None when it left none, and for everything else that it may leave."""
        return json.loads(json.dumps(LEFT.get((run_id, task_id)))) if key == RESULT else None

    @staticmethod
    async def aset(key: str, value: Any, **_: Any) -> None:
        """Take what is shown on the page; it is looked at by nobody here."""
        json.dumps([key, value])


@dataclass
class Scene:
    """One test's customers on the server, whose workflows obey."""

    server: Server
    client: Client
    config: ClusterConfig
    queue: str
    customer: str
    clients: list[Client]
    """The clients that the product has made."""

    async def start(
        self, customer: str = "", profile: str = "voice", days: tuple[str, str] | None = None, **options: Any
    ) -> WorkflowHandle[Any, Any]:
        """Start a workflow that stays open; ``days`` (ISO, end exclusive) stand in its input."""
        name = workflow_id(customer or self.customer, profile, str(uuid.uuid4()))
        if days is not None:
            options["args"] = [{"start": f"{days[0]}T00:00:00Z", "end": f"{days[1]}T00:00:00Z"}]
        return await self.client.start_workflow(WORKFLOW_TYPE, id=name, task_queue=self.queue, **options)

    async def ends(self, handle: WorkflowHandle[Any, Any], order: str = "complete") -> None:
        """Tell a workflow how to end and wait until the server knows it.

        Not before its first decision: a reset goes back to that, and what was ordered earlier would be obeyed again.
        """
        await decided(handle)
        await handle.signal("do", order)
        await self.closed(handle)

    async def closed(self, handle: WorkflowHandle[Any, Any]) -> None:
        """Wait until the latest run of a workflow is closed."""

        async def look() -> bool:
            return (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING

        await until(look, f"{handle.id} is closed")

    async def listed(self, *handles: WorkflowHandle[Any, Any]) -> None:
        """Wait until visibility shows the workflows."""
        wanted = {handle.id for handle in handles}

        async def look() -> bool:
            return wanted <= {item.id async for item in self.client.list_workflows(f"TaskQueue = '{self.queue}'")}

        await until(look, f"{wanted} are listed")

    async def reset(self, handle: WorkflowHandle[Any, Any]) -> str:
        """Reset a workflow to its first decision, as a person does; gives the new run's id."""
        described = await handle.describe()
        request = ResetWorkflowExecutionRequest(
            namespace=NAMESPACE,
            reason="test",
            workflow_task_finish_event_id=await decided(handle),
            request_id=uuid.uuid4().hex,
        )
        # Otherwise the new run obeys the old order at once.
        request.reset_reapply_exclude_types.append(ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_SIGNAL)
        request.workflow_execution.workflow_id = handle.id
        request.workflow_execution.run_id = described.run_id
        answer = await self.client.workflow_service.reset_workflow_execution(request)
        return str(answer.run_id)

    def window(self, customer: str = "", *profiles: str) -> Window:
        """A window of the plan."""
        owner = customer or self.customer
        databases = tuple(
            Database(name=f"{owner}_{p}", profile_id=p, tables=("scorecard",)) for p in profiles or ("voice",)
        )
        return Window(
            key=KEY, cluster=NAME, customer_id=owner, mode="cleanup", databases=databases, start=START, end=END
        )

    def reindexed(self, *handles: WorkflowHandle[Any, Any], attempt: int = 1, **more: Any) -> Reindexed:
        """What the reindex stage returned."""
        made: Json = {
            "key": KEY,
            "window": self.window(),
            "status": "reindexed",
            "attempt": attempt,
            "job_name": "reindex-1",
            "made_at": time.time(),
            "workflow_ids": tuple(handle.id for handle in handles),
        }
        return Reindexed(**(made | more))

    def trigger(self, reindexed: Reindexed, previous: Json | None = None) -> WorkflowsTrigger:
        """The trigger of wait_workflows, with what the plan, reindex and an earlier try of it have left."""
        ti = SimpleNamespace(
            dag_id="d", run_id=uuid.uuid4().hex, task_id=f"{GROUP}.wait_workflows", map_index=0, try_number=1
        )
        LEFT[ti.run_id, "plan"] = [reindexed.window.to_json()]
        LEFT[ti.run_id, f"{GROUP}.reindex"] = reindexed.to_json()
        if previous is not None:
            LEFT[ti.run_id, ti.task_id] = previous
        made = WorkflowsTrigger(cluster=NAME, group=GROUP)
        made.task_instance = ti  # type: ignore[assignment]
        return made

    async def wait(self, *handles: WorkflowHandle[Any, Any], steps: tuple[Step, ...] = ()) -> TriggerEvent:
        """Run wait_workflows over these workflows until its event."""
        return await drive(self.trigger(self.reindexed(*handles)), *steps)


@pytest.fixture
async def scene(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """A customer of its own, a worker in this process, and the product's client behind the proxy."""
    async with running_scene(server, tmp_path, monkeypatch) as made:
        yield made


@asynccontextmanager
async def running_scene(
    server: Server,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    converter: DataConverter = DataConverter.default,
    **extra: Any,
) -> AsyncIterator[Scene]:
    """The scene, whose worker speaks through a data converter; ``extra`` is that of the product's connection."""
    server.set_rules()
    monkeypatch.setattr("backfill.kit.xcoms.BaseXCom", XComs)
    monkeypatch.setattr("backfill.kit.wait.BaseXCom", XComs)
    config = cluster_file(folder, monkeypatch, server.proxy, **extra)
    clients = impatient(monkeypatch)
    client = await Client.connect(server.address, namespace=NAMESPACE, data_converter=converter)
    queue = f"reindex-{uuid.uuid4().hex}"
    worker = Worker(
        client,
        task_queue=queue,
        workflows=[Obedient],
        activities=[hold_for_ever],
        workflow_runner=UnsandboxedWorkflowRunner(),
        graceful_shutdown_timeout=timedelta(0),
    )
    async with worker:
        yield Scene(server, client, config, queue, f"acme{uuid.uuid4().hex[:6]}", clients)
    server.set_rules()


def impatient(monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    """Let the SDK's own retries of the product's clients end soon; gives the clients that are made."""
    made: list[Client] = []
    connect = Client.connect

    async def connect_soon(*args: Any, **options: Any) -> Client:
        client = await connect(*args, retry_config=RetryConfig(max_retries=1, max_elapsed_time_millis=200), **options)
        made.append(client)
        return client

    monkeypatch.setattr(Client, "connect", connect_soon)
    return made


async def decided(handle: WorkflowHandle[Any, Any]) -> int:
    """Wait for a workflow's first decision, before which there is nothing to go back to; gives its event's id."""
    found: list[int] = []

    async def look() -> bool:
        async for event in handle.fetch_history_events():
            if event.HasField("workflow_task_completed_event_attributes"):
                found.append(event.event_id)
                return True
        return False

    await until(look, f"the first decision of {handle.id}")
    return found[0]


def in_triggerer(trigger: WaitTrigger[Any]) -> Any:
    """The trigger as the triggerer makes it from the database."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    made = getattr(sys.modules[module], name)(**json.loads(json.dumps(kwargs)))
    made.task_instance = trigger.task_instance
    return made


async def first_event(trigger: BaseTrigger) -> TriggerEvent:
    """The first event, which must come within the limit."""

    async def first() -> TriggerEvent:
        async for event in trigger.run():
            return event
        raise AssertionError("the trigger ended without an event")

    return await asyncio.wait_for(first(), LIMIT_SECONDS)


async def drive(trigger: WaitTrigger[Any], *steps: Step, waits: list[Wait] | None = None) -> TriggerEvent:
    """Run a trigger until its event; after each look that decides nothing (or fails) the next step is done.

    ``waits`` takes the looks that decided nothing.
    """
    fresh = in_triggerer(trigger)
    left = list(steps)
    look = fresh.look

    async def watched() -> Any:
        try:
            found = await look()
        except Exception:
            if left:
                await left.pop(0)()
            raise
        if isinstance(found, Wait):
            if waits is not None:
                waits.append(found)
            if left:
                await left.pop(0)()
        return found

    fresh.look = watched
    event = await first_event(fresh)
    assert not left, f"decided before {len(left)} steps were done"
    return event


async def nothing() -> None:
    """A step for one more look."""


def returned(event: TriggerEvent) -> Json:
    """What a task returns whose trigger has ended it well."""
    assert isinstance(event, TaskSuccessEvent), event
    assert event.xcoms is not None
    return WorkflowsClosed.from_json(event.xcoms["return_value"]).to_json()


def failure(event: TriggerEvent) -> Json:
    """The record of a failure that a worker is to end the task with."""
    assert not isinstance(event, TaskSuccessEvent)
    return FailEvent.from_json(event.payload).failure.to_json()
