"""What preflight asks of Temporal and what it says of each answer: whole sentences, over a frontend of told answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.api.enums.v1 import NamespaceState
from temporalio.api.workflowservice.v1 import DescribeNamespaceResponse
from temporalio.service import RPCError, RPCStatusCode

from backfill.hooks import internal_jobs
from backfill.hooks.temporal.codec import CodecError, RemoteCodec
from backfill.hooks.temporal.workflows import Workflows
from backfill.operators.checks import temporal as module
from backfill.operators.checks.temporal import check
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.load import merge
from include.scorecard_backfill.verdicts.workflows import Execution

Json = dict[str, Any]
Said = tuple[list[str], list[str]]

BASE: Json = {
    "name": "demo",
    "clickhouse": {"conn_id": "ch_demo"},
    "kubernetes": {"context": "demo"},
    "temporal": {"conn_id": "t_demo", "namespace": "ingestion", "deadline_seconds": 3_600},
}
OPEN = "WorkflowType = \"ReindexConversations\" AND ExecutionStatus = 'Running'"


def refusal(status: RPCStatusCode = RPCStatusCode.UNIMPLEMENTED, text: str = "not here") -> RPCError:
    """An error of the frontend."""
    return RPCError(text, status, b"")


@dataclass
class Frontend(Workflows):
    """Answers as the hook does; ``errors`` by call. The filters are the hook's own."""

    errors: dict[str, Exception] = field(default_factory=dict)
    status: str = "missing"
    state: Any = NamespaceState.NAMESPACE_STATE_REGISTERED
    kept: float = 3_600.0
    asked: list[Any] = field(default_factory=list)
    connected: list[Any] = field(default_factory=list)
    unprefixed: bool = False

    def __call__(self, client: Any, config: ClusterConfig) -> Frontend:
        """Stand for the hook's constructor."""
        self.client, self.config, self.codec = client, config.temporal, client.codec
        self.takes_prefixes = not self.unprefixed
        return self

    def _answer(self, call: str, *args: Any) -> None:
        self.asked.append((call, *args))
        if call in self.errors:
            raise self.errors[call]

    async def list_ids(self, query: str, limit: int | None = None) -> list[str]:
        """List nothing."""
        self._answer("list", query, limit)
        return []

    async def ids_of_customer(
        self, customer_id: str, since: datetime, until: datetime | None = None, limit: int | None = None
    ) -> list[str]:
        """List nothing."""
        assert since.tzinfo is not None
        self._answer("customer", customer_id, until, limit)
        return []

    async def count(self, query: str) -> int:
        """Count nothing."""
        self._answer("count", query)
        return 0

    async def describe(self, workflow_id: str) -> Execution:
        """Describe what does not exist."""
        self._answer("describe", workflow_id)
        return Execution(workflow_id, self.status)  # type: ignore[arg-type]

    async def history_answers(self, workflow_id: str) -> None:
        """Have no history of it."""
        self._answer("history", workflow_id)

    async def namespace(self) -> DescribeNamespaceResponse:
        """Describe the namespace."""
        self._answer("namespace")
        answer = DescribeNamespaceResponse()
        answer.namespace_info.state = self.state
        answer.config.workflow_execution_retention_ttl.FromTimedelta(timedelta(seconds=self.kept))
        return answer


class Codec(RemoteCodec):
    """A remote codec that answers, or does not."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[Any] = []

    async def ask(self, payloads: Sequence[Any]) -> Any:
        """Decode nothing."""
        self.asked.append(list(payloads))
        if self.error:
            raise self.error
        return []


@pytest.fixture
def frontend(monkeypatch: pytest.MonkeyPatch) -> Frontend:
    """A Temporal that answers everything."""
    made = Frontend()
    made.codec = None

    class Hook:
        def __init__(self, conn_id: str, connection: Any) -> None:
            made.connected.append((conn_id, connection.conn_id))

        async def connect(self, namespace: str) -> Any:
            made.connected.append(namespace)
            return SimpleNamespace(codec=made.codec)

    monkeypatch.setattr(module, "TemporalHook", Hook)
    monkeypatch.setattr(module, "Workflows", made)
    connect(monkeypatch)
    return made


def connect(monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    """Define the connection."""
    connection = {"conn_type": "temporal", "host": "127.0.0.1", "port": 1, "extra": {"tls": False, **extra}}
    monkeypatch.setenv("AIRFLOW_CONN_T_DEMO", json.dumps(connection))


def look(**fields: Any) -> Said:
    """The problems and the notes of a cluster whose file has these fields of its section `temporal`."""
    problems: list[str] = []
    notes: list[str] = []
    check(ClusterConfig.model_validate(merge(BASE, {"temporal": fields})), problems, notes)
    return problems, notes


def test_everything_is_asked_that_the_waits_will_ask(frontend: Frontend) -> None:
    assert look() == ([], [])
    assert frontend.connected == [("t_demo", "t_demo"), "ingestion"]
    assert [call[0] for call in frontend.asked] == ["list", "customer", "count", "describe", "history", "namespace"]
    listed, customer, count, describe, history, _ = frontend.asked
    assert listed == ("list", OPEN, 1)
    assert customer == ("customer", "preflight", None, 1)
    assert count == ("count", OPEN)
    assert describe[1] == history[1]
    assert describe[1].startswith("reindexconversations-preflight-")


@pytest.mark.parametrize(
    ("call", "query"), [("list", OPEN), ("customer", 'WorkflowType = "ReindexConversations" AND StartTime >= "')]
)
def test_a_list_that_is_refused_ends_the_look_with_its_filter(frontend: Frontend, call: str, query: str) -> None:
    frontend.errors[call] = refusal(RPCStatusCode.INVALID_ARGUMENT, "no such filter")
    (problem,), notes = look()
    assert problem.startswith(f"temporal: the list of workflows is refused for {query}")
    assert problem.endswith(": connection t_demo, namespace ingestion: Temporal says INVALID_ARGUMENT: no such filter")
    assert "STARTS_WITH" not in problem
    assert notes == []
    assert "describe" not in [one[0] for one in frontend.asked]


def test_a_missing_right_is_told_with_its_connection(frontend: Frontend) -> None:
    frontend.errors["list"] = refusal(RPCStatusCode.PERMISSION_DENIED, "no")
    (problem,), _ = look()
    assert "connection t_demo" in problem
    assert "ingestion" in problem


def test_a_store_without_prefixes_is_noted(frontend: Frontend) -> None:
    frontend.unprefixed = True
    assert look() == (
        [],
        [
            "temporal: the visibility store refuses STARTS_WITH; workflows are listed by type and start time, and"
            " their ids are compared here"
        ],
    )


def test_a_prefix_that_cannot_stand_in_a_filter_is_noted(frontend: Frontend) -> None:
    assert look(workflow_id_prefix='re"index') == (
        [], ["temporal: 're\"index' cannot stand in a filter; ids are compared"]
    )  # fmt: skip


def test_a_store_that_does_not_count_is_noted(frontend: Frontend) -> None:
    frontend.errors["count"] = refusal()
    assert look() == (
        [], ["temporal: workflows cannot be counted (UNIMPLEMENTED), only listed; that is enough"]
    )  # fmt: skip


def test_workflows_that_cannot_be_described_are_a_problem(frontend: Frontend) -> None:
    frontend.errors["describe"] = refusal()
    assert look() == (["temporal: workflows cannot be described: UNIMPLEMENTED: not here"], [])
    assert "history" not in [one[0] for one in frontend.asked]


def test_histories_that_cannot_be_read_are_a_problem(frontend: Frontend) -> None:
    frontend.errors["history"] = refusal()
    text = "histories cannot be read, so that no failure would have a cause"
    assert look() == ([f"temporal: {text}: UNIMPLEMENTED: not here"], [])


def test_who_knows_a_workflow_that_does_not_exist_is_not_temporal(frontend: Frontend) -> None:
    frontend.status = "running"
    problems, _ = look()
    (_, nobody) = next(call for call in frontend.asked if call[0] == "describe")
    assert problems == [
        f"temporal: {nobody}, which does not exist, is described as running: what answers at t_demo is not Temporal's"
        " frontend"
    ]


@pytest.mark.parametrize(
    ("state", "kept", "notes"),
    [
        (NamespaceState.NAMESPACE_STATE_REGISTERED, 3_600, []),
        (
            NamespaceState.NAMESPACE_STATE_REGISTERED, 3_599,
            ["temporal: namespace ingestion keeps closed workflows for 3599 s, a wait may take 3600 s"
             " (temporal.deadline_seconds): raise the retention"],
        ),
        (
            NamespaceState.NAMESPACE_STATE_DEPRECATED, 3_600,
            ["temporal: namespace ingestion is in state NAMESPACE_STATE_DEPRECATED"],
        ),
        (77, 3_600, ["temporal: namespace ingestion is in state 77"]),
    ],
)  # fmt: skip
def test_what_a_namespace_forgets_is_noted(frontend: Frontend, state: Any, kept: int, notes: list[str]) -> None:
    frontend.state, frontend.kept = state, kept
    assert look() == ([], notes)


def test_a_namespace_that_may_not_be_seen_is_noted(frontend: Frontend) -> None:
    frontend.errors["namespace"] = refusal(RPCStatusCode.PERMISSION_DENIED, "no")
    assert look() == (
        [], ["temporal: retention of namespace ingestion cannot be read (PERMISSION_DENIED: no)"]
    )  # fmt: skip


def test_fields_that_nobody_reads_are_noted_in_order(frontend: Frontend, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, color="red", clientcert="x", namespace="ingestion")
    assert look() == (
        [],
        [
            "temporal: connection t_demo: extra.clientcert is read by nobody; did you mean client_cert?",
            "temporal: connection t_demo: extra.color is read by nobody",
        ],
    )


@pytest.mark.parametrize("error", [None, CodecError("the codec at http://codec does not answer")])
def test_a_remote_codec_is_asked_for_nothing(frontend: Frontend, error: Exception | None) -> None:
    codec = frontend.codec = Codec(error)
    assert look()[0] == [f"temporal: {error}"] * bool(error)
    assert codec.asked == [[]]


def test_a_second_opinion_that_cannot_be_had_is_noted(frontend: Frontend, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "temporal: the InternalJobService will not be asked, Temporal alone decides: "
    (note,) = look(internal_jobs_conn_id="jobs_demo")[1]
    assert note.startswith(text)
    assert "jobs_demo" in note

    asked: list[Any] = []
    monkeypatch.setenv("AIRFLOW_CONN_JOBS_DEMO", json.dumps({"conn_type": "grpc", "host": "127.0.0.1", "port": 1}))
    monkeypatch.setattr(internal_jobs, "ask", lambda connection, names: asked.append((connection.conn_id, names)))
    assert look(internal_jobs_conn_id="jobs_demo") == ([], [])
    assert asked == [("jobs_demo", ())]

    def refuse(*_: Any) -> None:
        raise internal_jobs.InternalJobsError("no")

    monkeypatch.setattr(internal_jobs, "ask", refuse)
    assert look(internal_jobs_conn_id="jobs_demo")[1] == [f"{text}no"]
