"""What the Temporal client asks for, field by field, and what it makes of each answer and error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.api.common.v1 import GrpcStatus, Payload
from temporalio.api.enums.v1 import HistoryEventFilterType, WorkflowExecutionStatus
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsResponse,
    DescribeNamespaceResponse,
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryResponse,
    ListWorkflowExecutionsResponse,
)
from temporalio.service import RPCError, RPCStatusCode

from backfill.hooks.temporal import workflows as module
from backfill.hooks.temporal.workflows import RPC_TIMEOUT, Workflows, quote_query
from include.scorecard_backfill.config import ClusterConfig

CONFIG = ClusterConfig.model_validate({"name": "demo", "kubernetes": {"context": "demo"}})
KIND = 'WorkflowType = "ReindexConversations"'
SINCE = datetime(2026, 3, 2, 7, tzinfo=timezone(timedelta(hours=1)))
STARTED = ' AND StartTime >= "2026-03-02T06:00:00Z"'
MINE = ' AND WorkflowId STARTS_WITH "reindexconversations-acme-"'

FAILED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_FAILED
COMPLETED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED
CLOSE = HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT
ALL = HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT


def error(status: RPCStatusCode, text: str = "no") -> RPCError:
    """An error of the frontend."""
    return RPCError(text, status, b"")


def no_namespace() -> bytes:
    """What the server sends along when it has no such namespace; the code is that of a missing workflow."""
    status = GrpcStatus(code=5)
    status.details.add().Pack(NamespaceNotFoundFailure(namespace="ingestion"))
    return status.SerializeToString()


MISSING = error(RPCStatusCode.NOT_FOUND, "workflow not found for ID: w-1")
NO_NAMESPACE = RPCError("Namespace ingestion is not found.", RPCStatusCode.NOT_FOUND, no_namespace())
DENIED, AWAY = error(RPCStatusCode.PERMISSION_DENIED), error(RPCStatusCode.UNAVAILABLE)


class Service:
    """Answers calls by name, one after the other, and keeps copies of the requests with how they were sent."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Any, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(request: Any, **options: Any) -> Any:
            sent = type(request)()
            sent.CopyFrom(request)
            self.asked.append((name, sent, options))
            found = self.answers[name].pop(0)
            if isinstance(found, Exception):
                raise found
            return found

        return call


def workflows(service: Service, **temporal: Any) -> Workflows:
    """The client of a service."""
    client: Any = SimpleNamespace(
        namespace="ingestion", workflow_service=service, data_converter=SimpleNamespace(payload_codec=None)
    )
    config = CONFIG.model_copy(update={"temporal": CONFIG.temporal.model_copy(update=temporal)})
    return Workflows(client, config)


def page(*ids: str, token: bytes = b"") -> ListWorkflowExecutionsResponse:
    """A page of a list."""
    made = ListWorkflowExecutionsResponse(next_page_token=token)
    for workflow_id in ids:
        made.executions.add().execution.workflow_id = workflow_id
    return made


@pytest.mark.parametrize("value", ['a"b', "a?b", "a\\b", "a\nb", "\x1f"])
def test_what_no_filter_takes_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a Temporal list filter"):
        quote_query(value)
    assert quote_query("O'Neil %") == '"O\'Neil %"'


def test_filters_name_type_customer_and_time_in_utc() -> None:
    asked = workflows(Service())
    assert asked.takes_prefixes is True
    assert asked.open_query() == f"{KIND} AND ExecutionStatus = 'Running'"
    assert asked.customer_query("acme", SINCE) == KIND + MINE + STARTED
    until = datetime(2026, 3, 3, tzinfo=UTC)
    assert (
        asked.customer_query("acme", SINCE, until) == f'{KIND}{MINE}{STARTED} AND StartTime <= "2026-03-03T00:00:00Z"'
    )
    assert asked.customer_query("acme", SINCE, by_prefix=False) == KIND + STARTED
    # A customer that cannot stand in a filter is looked for among all.
    assert asked.customer_query('ac"me', SINCE) == KIND + STARTED


def test_a_list_is_read_to_its_last_page_and_names_each_id_once() -> None:
    service = Service(list_workflow_executions=[page("w-1", "w-2", token=b"more"), page("w-2", "w-3")])
    assert asyncio.run(workflows(service).list_ids("q")) == ["w-1", "w-2", "w-3"]
    first, second = (request for _, request, _ in service.asked)
    assert (first.namespace, first.query, first.page_size, first.next_page_token) == ("ingestion", "q", 1_000, b"")
    assert (second.query, second.next_page_token) == ("q", b"more")
    assert {str(options) for _, _, options in service.asked} == {str({"retry": True, "timeout": RPC_TIMEOUT})}


def test_a_list_ends_where_enough_is_known() -> None:
    service = Service(list_workflow_executions=[page("w-1", "w-2", "w-3", token=b"more")])
    assert asyncio.run(workflows(service).list_ids("q", 2)) == ["w-1", "w-2"]
    assert service.asked[0][1].page_size == 2
    many = Service(list_workflow_executions=[page("w-1")])
    asyncio.run(workflows(many).list_ids("q", 5_000))
    assert many.asked[0][1].page_size == 1_000


def test_a_store_that_refuses_prefixes_is_asked_without_from_then_on() -> None:
    refused = error(RPCStatusCode.INVALID_ARGUMENT)
    service = Service(list_workflow_executions=[refused, page("w-1"), page("w-2")])
    asked = workflows(service)
    until = datetime(2026, 3, 3, tzinfo=UTC)
    assert asyncio.run(asked.ids_of_customer("acme", SINCE, until, limit=7)) == ["w-1"]
    assert asked.takes_prefixes is False
    assert asyncio.run(asked.ids_of_customer("acme", SINCE)) == ["w-2"]
    ended = ' AND StartTime <= "2026-03-03T00:00:00Z"'
    assert [(request.query, request.page_size) for _, request, _ in service.asked] == [
        (KIND + MINE + STARTED + ended, 7), (KIND + STARTED + ended, 7), (KIND + STARTED, 1_000),
    ]  # fmt: skip


def test_any_other_error_of_a_list_is_one() -> None:
    asked = workflows(Service(list_workflow_executions=[AWAY]))
    with pytest.raises(RPCError):
        asyncio.run(asked.ids_of_customer("acme", SINCE))
    assert asked.takes_prefixes is True


def test_counting_and_the_namespace() -> None:
    service = Service(
        count_workflow_executions=[CountWorkflowExecutionsResponse(count=7)],
        describe_namespace=[DescribeNamespaceResponse(failover_version=3)],
    )
    assert asyncio.run(workflows(service).count("q")) == 7
    assert asyncio.run(workflows(service).namespace()).failover_version == 3
    (_, count, options), (_, namespace, other) = service.asked
    assert (count.namespace, count.query, options) == ("ingestion", "q", {"retry": True, "timeout": RPC_TIMEOUT})
    assert (namespace.namespace, other) == ("ingestion", {"timeout": RPC_TIMEOUT})


def described(status: Any, run_id: str = "r-1") -> DescribeWorkflowExecutionResponse:
    """A description."""
    made = DescribeWorkflowExecutionResponse()
    made.workflow_execution_info.status = status
    made.workflow_execution_info.execution.run_id = run_id
    return made


def history(*events: HistoryEvent) -> GetWorkflowExecutionHistoryResponse:
    """A page of a history."""
    made = GetWorkflowExecutionHistoryResponse()
    made.history.events.extend(events)
    return made


def failure(text: str) -> HistoryEvent:
    """The event that ends a failed workflow."""
    made = HistoryEvent()
    made.workflow_execution_failed_event_attributes.failure.message = text
    made.workflow_execution_failed_event_attributes.failure.application_failure_info.type = "Boom"
    return made


def test_a_workflow_that_ran_well_is_described_by_its_latest_run_alone() -> None:
    service = Service(describe_workflow_execution=[described(COMPLETED)])
    found = asyncio.run(workflows(service).describe("w-1"))
    assert (found.workflow_id, found.status, found.run_id) == ("w-1", "completed", "r-1")
    ((_, request, options),) = service.asked
    assert (request.namespace, request.execution.workflow_id, request.execution.run_id) == ("ingestion", "w-1", "")
    assert options == {"retry": True, "timeout": RPC_TIMEOUT}


def test_a_failed_one_is_described_with_the_end_of_its_history() -> None:
    service = Service(
        describe_workflow_execution=[described(FAILED)], get_workflow_execution_history=[history(failure("it broke"))]
    )
    found = asyncio.run(workflows(service).describe("w-1"))
    assert found.status == "failed"
    assert "it broke" in found.failure
    _, request, options = service.asked[1]
    assert (request.namespace, request.maximum_page_size, request.history_event_filter_type) == ("ingestion", 1, CLOSE)
    assert (request.execution.workflow_id, request.execution.run_id) == ("w-1", "r-1")
    assert options == {"retry": True, "timeout": RPC_TIMEOUT}


@pytest.mark.parametrize("answer", [history(), history(HistoryEvent()), DENIED, MISSING])
def test_a_failure_without_a_history_has_no_text(answer: Any) -> None:
    service = Service(describe_workflow_execution=[described(FAILED)], get_workflow_execution_history=[answer])
    found = asyncio.run(workflows(service).describe("w-1"))
    assert (found.status, found.failure) == ("failed", "")


def test_what_does_not_exist_is_missing_and_every_other_error_is_one() -> None:
    found = asyncio.run(workflows(Service(describe_workflow_execution=[MISSING])).describe("w-1"))
    assert (found.workflow_id, found.status) == ("w-1", "missing")
    for broken in (NO_NAMESPACE, DENIED, AWAY):
        with pytest.raises(RPCError):
            asyncio.run(workflows(Service(describe_workflow_execution=[broken])).describe("w-1"))


def test_all_are_described_by_their_ids() -> None:
    service = Service(describe_workflow_execution=[described(COMPLETED), MISSING])
    found = asyncio.run(workflows(service).describe_all(iter(["w-1", "w-2"])))
    assert {name: one.status for name, one in found.items()} == {"w-1": "completed", "w-2": "missing"}


@pytest.mark.parametrize("answer", [history(), MISSING])
def test_a_history_answers_also_by_not_found(answer: Any) -> None:
    service = Service(get_workflow_execution_history=[answer])
    asyncio.run(workflows(service).history_answers("w-1"))
    ((_, request, _),) = service.asked
    assert (request.execution.workflow_id, request.execution.run_id) == ("w-1", "")
    assert request.history_event_filter_type == CLOSE


@pytest.mark.parametrize("broken", [NO_NAMESPACE, DENIED, AWAY])
def test_a_history_that_does_not_answer_is_an_error(broken: Exception) -> None:
    with pytest.raises(RPCError):
        asyncio.run(workflows(Service(get_workflow_execution_history=[broken])).history_answers("w-1"))


def numbered(number: int) -> HistoryEvent:
    """An event that is told from others by its id."""
    return HistoryEvent(event_id=number)


@pytest.mark.parametrize(("last", "wanted", "number"), [(True, CLOSE, 2), (False, ALL, 1)])
def test_the_first_or_the_last_event_of_a_run(last: bool, wanted: Any, number: int) -> None:
    service = Service(get_workflow_execution_history=[history(numbered(1), numbered(2)), history()])
    asked = workflows(service)
    found = asyncio.run(asked.event("w-1", "r-1", last=last))
    assert found is not None
    assert found.event_id == number
    assert service.asked[0][1].history_event_filter_type == wanted
    assert asyncio.run(asked.event("w-1", last=last)) is None
    assert [request.execution.run_id for _, request, _ in service.asked] == ["r-1", ""]


def test_an_event_that_may_not_be_read_is_none_and_what_passes_is_an_error() -> None:
    for answer in (DENIED, MISSING, NO_NAMESPACE):
        assert asyncio.run(workflows(Service(get_workflow_execution_history=[answer])).event("w-1", last=True)) is None
    with pytest.raises(RPCError):
        asyncio.run(workflows(Service(get_workflow_execution_history=[AWAY])).event("w-1", last=True))


def payload(text: str) -> Payload:
    """A value that is readable."""
    return Payload(metadata={"encoding": b"json/plain"}, data=f'"{text}"'.encode())


def started(text: str, first: str = "r-1", own: str = "r-1") -> HistoryEvent:
    """The event that begins a run, with an input, a memo and a search attribute."""
    made = HistoryEvent()
    begun = made.workflow_execution_started_event_attributes
    begun.first_execution_run_id, begun.original_execution_run_id = first, own
    begun.input.payloads.append(payload(f"{text} input"))
    begun.memo.fields["m"].CopyFrom(payload(f"{text} memo"))
    begun.search_attributes.indexed_fields["s"].CopyFrom(payload(f"{text} attribute"))
    return made


@pytest.mark.parametrize(
    ("answers", "said", "runs"),
    [
        ([history(started("a"))], ["a input", "a memo", "a attribute"], [""]),
        ([history(started("a", first=""))], ["a input", "a memo", "a attribute"], [""]),
        # It goes on as new: what it was started with stands in its first run.
        ([history(started("b", "r-0", "r-1")), history(started("a"))], ["a input", "a memo", "a attribute"],
         ["", "r-0"]),
        ([history(started("b", "r-0", "r-1")), DENIED], [], ["", "r-0"]),
        ([history(numbered(1))], [], [""]),
        ([DENIED], [], [""]),
    ],
)  # fmt: skip
def test_what_was_said_at_the_start_is_that_of_the_first_run(
    answers: list[Any], said: list[str], runs: list[str]
) -> None:
    service = Service(get_workflow_execution_history=list(answers))
    assert asyncio.run(workflows(service).said_at_start("w-1")) == said
    assert [request.execution.run_id for _, request, _ in service.asked] == runs
    assert {request.history_event_filter_type for _, request, _ in service.asked} == {ALL}


def test_only_so_many_are_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = 0, 0

    async def describe(self: Workflows, workflow_id: str) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return SimpleNamespace(workflow_id=workflow_id)

    monkeypatch.setattr(Workflows, "describe", describe)
    found = asyncio.run(workflows(Service()).describe_all([f"w-{n}" for n in range(50)]))
    assert (len(found), most) == (50, module.AT_ONCE)
