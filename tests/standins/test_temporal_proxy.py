"""The faulty proxy before a real dev server: passes what it must pass, breaks what it is told to break."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from standins.ports import free_port
from standins.temporal.proxy import Faults, serve
from standins.temporal.proxy_rules import (
    Call,
    History,
    ProxyFaultError,
    ProxyKind,
    ProxyRule,
    choose,
    is_alive,
    parse_proxy_rules,
)
from tests.standins.temporal_fixtures import NAMESPACE, running_server, until


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("temporal")) as found:
        yield found


@dataclass
class Stand:
    """A client behind the proxy, and a finished workflow that the list already shows as finished."""

    client: Client
    faults: Path
    record: Path
    workflow_id: str

    @property
    def query(self) -> str:
        return f"WorkflowId = '{self.workflow_id}'"

    def set_rules(self, *rules: dict[str, Any]) -> None:
        part = self.faults.with_suffix(".part")
        part.write_text(json.dumps({"rules": [{"id": f"r{n}", **rule} for n, rule in enumerate(rules)]}))
        part.replace(self.faults)

    async def listed(self) -> list[WorkflowExecutionStatus | None]:
        return [execution.status async for execution in self.client.list_workflows(self.query)]

    async def described(self) -> WorkflowExecutionStatus | None:
        return (await self.client.get_workflow_handle(self.workflow_id).describe()).status

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.record.read_text().splitlines()]


@pytest.fixture
async def stand(address: str, tmp_path: Path) -> AsyncIterator[Stand]:
    listen = f"127.0.0.1:{free_port()}"
    faults, record, stop = tmp_path / "faults.json", tmp_path / "calls.jsonl", asyncio.Event()
    proxy = asyncio.create_task(serve(listen, address, Faults(faults), record, stop))
    try:
        client = await _connect(listen)
        workflow_id = f"proxied-{uuid.uuid4()}"
        handle = await client.start_workflow("Nobody", id=workflow_id, task_queue="nobody")
        await handle.terminate(reason="finished")
        found = Stand(client, faults, record, workflow_id)

        async def shown() -> bool:
            return await found.listed() == [WorkflowExecutionStatus.TERMINATED]

        await until(shown, "the list shows the workflow as terminated")
        yield found
    finally:
        stop.set()
        await proxy


async def _connect(listen: str) -> Client:
    clients: list[Client] = []

    async def connected() -> bool:
        with suppress(RuntimeError):
            clients.append(await Client.connect(listen, namespace=NAMESPACE))
        return bool(clients)

    await until(connected, "the proxy listens")
    return clients[0]


async def refusal(stand: Stand, call: str) -> RPCError:
    """The error of `listed` or `described`, which must fail."""
    with pytest.raises(RPCError) as failed:
        await (stand.listed() if call == "listed" else stand.described())
    return failed.value


async def test_calls_pass_and_are_recorded(stand: Stand) -> None:
    assert await stand.described() is WorkflowExecutionStatus.TERMINATED
    last = stand.calls()[-1]
    assert (last["method"], last["subject"]) == ("DescribeWorkflowExecution", stand.workflow_id)
    assert (last["rule"], last["code"]) == (None, "OK")
    assert {"StartWorkflowExecution", "ListWorkflowExecutions"} <= {call["method"] for call in stand.calls()}
    assert stand.query in {call["subject"] for call in stand.calls()}


async def test_errors_of_the_server_pass(stand: Stand) -> None:
    with pytest.raises(RPCError) as failed:
        await stand.client.get_workflow_handle("no-such-workflow").describe()
    assert failed.value.status is RPCStatusCode.NOT_FOUND
    assert stand.calls()[-1]["code"] == "NOT_FOUND"


async def test_the_list_is_empty_for_two_calls(stand: Stand) -> None:
    stand.set_rules({"kind": "list_empty", "times": 2})
    assert await stand.listed() == []
    assert (await stand.client.count_workflows(stand.query)).count == 0
    assert await stand.listed() == [WorkflowExecutionStatus.TERMINATED]
    assert [call["rule"] for call in stand.calls()[-3:]] == ["r0", "r0", None]


async def test_the_list_is_stale_and_describe_is_right(stand: Stand) -> None:
    stand.set_rules({"kind": "list_stale"})
    assert await stand.listed() == [WorkflowExecutionStatus.RUNNING]
    assert await stand.described() is WorkflowExecutionStatus.TERMINATED


async def test_the_list_hides_a_workflow(stand: Stand) -> None:
    stand.set_rules({"kind": "list_hides", "match": stand.workflow_id})
    assert await stand.listed() == []
    stand.set_rules({"kind": "list_hides", "match": "another"})
    assert await stand.listed() == [WorkflowExecutionStatus.TERMINATED]


@pytest.mark.parametrize(
    ("rule", "call", "status"),
    [
        ({"kind": "not_found"}, "described", RPCStatusCode.NOT_FOUND),
        ({"kind": "permission_denied"}, "listed", RPCStatusCode.PERMISSION_DENIED),
        ({"kind": "invalid_query", "match": "WorkflowId ="}, "listed", RPCStatusCode.INVALID_ARGUMENT),
    ],
)
async def test_final_answers(stand: Stand, rule: dict[str, Any], call: str, status: RPCStatusCode) -> None:
    stand.set_rules(rule)
    assert (await refusal(stand, call)).status is status


async def test_only_queries_with_starts_with_are_invalid(stand: Stand) -> None:
    stand.set_rules({"kind": "invalid_query"})
    assert await stand.listed() == [WorkflowExecutionStatus.TERMINATED]
    with pytest.raises(RPCError, match="unsupported operator"):
        await stand.client.count_workflows('WorkflowId STARTS_WITH "reindexconversations-acme"')


@pytest.mark.parametrize("kind", ["unavailable", "resource_exhausted"])
async def test_answers_that_the_client_retries(stand: Stand, kind: str) -> None:
    stand.set_rules({"kind": kind, "times": 1, "match": {"method": "DescribeWorkflowExecution"}})
    assert await stand.described() is WorkflowExecutionStatus.TERMINATED
    codes = [call["code"] for call in stand.calls() if call["method"] == "DescribeWorkflowExecution"]
    assert codes == [kind.upper(), "OK"]


async def test_dropped_connections_come_back(stand: Stand) -> None:
    stand.set_rules({"kind": "drop"})

    async def cut() -> bool:
        try:
            await stand.client.count_workflows(stand.query)
        except RPCError as error:
            return error.status is RPCStatusCode.UNAVAILABLE
        return False

    async def back() -> bool:
        return not await cut()

    await until(cut, "calls fail while the proxy drops connections")
    stand.set_rules()
    await until(back, "calls pass again")
    assert await stand.described() is WorkflowExecutionStatus.TERMINATED


def test_a_rule_ends_by_time_or_by_hits() -> None:
    rule = ProxyRule("a", ProxyKind.UNAVAILABLE, times=2, for_seconds=5.0)
    assert is_alive(rule, History(100.0, hits=1), 104.9)
    assert not is_alive(rule, History(100.0, hits=2), 101.0)
    assert not is_alive(rule, History(100.0, hits=0), 105.0)


def test_the_first_living_rule_for_the_call_is_chosen() -> None:
    rules = parse_proxy_rules(
        json.dumps(
            {
                "rules": [
                    {"id": "drop", "kind": "drop"},
                    {"id": "gone", "kind": "internal", "times": 0},
                    {"id": "one", "kind": "not_found", "match": "acme"},
                    {"id": "any", "kind": "unavailable"},
                ]
            }
        )
    )
    histories = {rule.id: History(0.0) for rule in rules}

    def chosen(method: str, subject: str) -> str | None:
        rule = choose(Call(method, subject), rules, histories, 1.0)
        return rule.id if rule else None

    assert chosen("DescribeWorkflowExecution", "reindexconversations-acme-1") == "one"
    assert chosen("DescribeWorkflowExecution", "reindexconversations-wayne-1") == "any"
    assert chosen("ListWorkflowExecutions", "acme") == "any"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("nonsense", "not JSON"),
        ('{"limits": {}}', '"rules" only'),
        ('{"rules": [{"id": "a", "kind": "slow"}]}', "'slow' is unknown"),
        ('{"rules": [{"id": "a", "kind": "drop", "second": 1}]}', "known fields"),
        ('{"rules": [{"id": "a", "kind": "delay", "seconds": -1}]}', "seconds. cannot be -1"),
        ('{"rules": [{"id": "a", "kind": "list_hides"}]}', "needs a pattern `text`"),
        ('{"rules": [{"id": "a", "kind": "drop"}, {"id": "a", "kind": "drop"}]}', "must differ"),
    ],
)
def test_a_bad_file_names_what_is_wrong(text: str, part: str) -> None:
    with pytest.raises(ProxyFaultError, match=part):
        parse_proxy_rules(text)
