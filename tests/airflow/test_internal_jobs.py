"""The InternalJobService by server reflection, against a small server that reflects; and whether two sources agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import Mock

import grpc  # type: ignore[import-untyped]
import pytest
from airflow.sdk import Connection
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.text_format import Parse
from grpc_reflection.v1alpha import reflection

from backfill.hooks import internal_jobs as module
from backfill.hooks.internal_jobs import SERVICE, Address, InternalJobsError, address_of, internal_jobs
from backfill.kit.look import Done, Wait
from backfill.operators.checks.temporal import _second_opinion
from backfill.triggers.workflows import WorkflowsTrigger
from include.scorecard_backfill.verdicts.agreement import JobSeen, agreement, ending_of
from tests.airflow import test_workflows_trigger as workflows_tests
from tests.airflow.test_workflows_trigger import CONFIG, ENDED, MADE, VOICE, reindexed, server, trigger

__all__ = ["server"]

NAME = "customers/acme/profiles/voice/reindexConversationsJobs/1"

# The shapes that a service of this kind usually has; the real one's is not public.
NESTED = """
name: "job.proto" package: "cresta.nonpublic.job" syntax: "proto3"
enum_type { name: "State" value { name: "STATE_UNSPECIFIED" number: 0 } value { name: "STATE_RUNNING" number: 1 }
  value { name: "STATE_SUCCEEDED" number: 2 } value { name: "STATE_FAILED" number: 3 } }
message_type { name: "Job"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "state" number: 2 type: TYPE_ENUM type_name: ".cresta.nonpublic.job.State" label: LABEL_OPTIONAL } }
message_type { name: "GetJobRequest" field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } }
message_type { name: "GetJobResponse"
  field { name: "job" number: 1 type: TYPE_MESSAGE type_name: ".cresta.nonpublic.job.Job" label: LABEL_OPTIONAL } }
service { name: "InternalJobService"
  method { name: "GetJob" input_type: ".cresta.nonpublic.job.GetJobRequest"
    output_type: ".cresta.nonpublic.job.GetJobResponse" } }
"""
FLAT = """
name: "job.proto" package: "cresta.nonpublic.job" syntax: "proto3"
message_type { name: "Job" field { name: "status" number: 4 type: TYPE_STRING label: LABEL_OPTIONAL } }
message_type { name: "Ask" field { name: "job_name" number: 3 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "depth" number: 4 type: TYPE_INT32 label: LABEL_OPTIONAL } }
service { name: "InternalJobService"
  method { name: "GetJob" input_type: ".cresta.nonpublic.job.Ask" output_type: ".cresta.nonpublic.job.Job" } }
"""
UNCLEAR = FLAT.replace(
    'field { name: "depth" number: 4 type: TYPE_INT32', 'field { name: "other" number: 4 type: TYPE_STRING'
)
WITHOUT = FLAT.replace('name: "GetJob"', 'name: "FetchJob"')


@dataclass
class Server:
    """A server of one of the shapes. `states`: by job, the enum's number or the text."""

    target: str
    states: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refuse: grpc.StatusCode | None = None


def serve(shape: str, reflects: bool = True) -> tuple[Server, Any]:
    pool = DescriptorPool()
    pool.Add(Parse(shape, FileDescriptorProto()))
    service = pool.FindServiceByName(SERVICE)
    (method,) = service.methods
    made = Server("")

    def answer(request: Any, context: Any) -> Any:
        name = getattr(request, "name", "") or getattr(request, "job_name", "")
        made.asked.append(name)
        if made.refuse is not None:
            context.abort(made.refuse, "no")
        if name not in made.states:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such job")
        message: Any = GetMessageClass(method.output_type)()
        if "job" in method.output_type.fields_by_name:
            message.job.name = name
            message.job.state = made.states[name]
        else:
            message.status = made.states[name]
        return message

    handler = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {method.name: handler}),))
    if reflects:
        reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server, pool=pool)
    made.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    return made, server


@pytest.fixture
def nested() -> Iterator[Server]:
    made, server = serve(NESTED)
    yield made
    server.stop(0)


def test_a_job_is_read_by_the_name_of_the_log_line(nested: Server) -> None:
    nested.states[NAME] = 2
    with internal_jobs(Address(nested.target)) as jobs:
        assert jobs.methods == ("GetJob",)
        assert jobs.get(NAME) == JobSeen(NAME, "STATE_SUCCEEDED", "done")
        nested.states[NAME] = 1
        assert jobs.get_all([NAME, "other"]) == {NAME: JobSeen(NAME, "STATE_RUNNING", "open"), "other": None}
    assert nested.asked == [NAME, NAME, "other"]


def test_a_state_that_the_server_learned_later_is_unknown_and_named(nested: Server) -> None:
    nested.states[NAME] = 9
    with internal_jobs(Address(nested.target)) as jobs:
        assert jobs.get(NAME) == JobSeen(NAME, "9", "unknown")


def test_another_shape_of_the_messages() -> None:
    made, server = serve(FLAT)
    made.states[NAME] = "Failed"
    with internal_jobs(Address(made.target)) as jobs:
        assert jobs.get(NAME) == JobSeen(NAME, "Failed", "failed")
    assert made.asked == [NAME]
    server.stop(0)


@pytest.mark.parametrize(
    ("shape", "reflects", "words"),
    [
        (WITHOUT, True, "has no method GetJob, but FetchJob"),
        (UNCLEAR, True, "which of job_name, other text fields"),
        (NESTED, False, "server reflection: UNIMPLEMENTED"),
    ],
    ids=["no method", "two texts", "no reflection"],
)
def test_a_server_that_cannot_be_asked_is_said(shape: str, reflects: bool, words: str) -> None:
    made, server = serve(shape, reflects)
    with pytest.raises(InternalJobsError) as caught, internal_jobs(Address(made.target)):
        pass
    assert words in str(caught.value)
    server.stop(0)


def test_a_service_of_another_name_is_said(nested: Server) -> None:
    with pytest.raises(InternalJobsError, match=r"no service 'x\.Y'"), internal_jobs(Address(nested.target), "x.Y"):
        pass


def test_a_refusal_is_said_with_its_remedy(nested: Server) -> None:
    nested.refuse = grpc.StatusCode.PERMISSION_DENIED
    with internal_jobs(Address(nested.target)) as jobs, pytest.raises(InternalJobsError, match="may not do this"):
        jobs.get(NAME)


def test_nobody_there_and_a_token_without_tls_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 0.5)
    with pytest.raises(InternalJobsError, match="no connection without TLS"), internal_jobs(Address("127.0.0.1:1")):
        pass
    with pytest.raises(InternalJobsError, match="over TLS only"), internal_jobs(Address("h:1", token="t")):
        pass


@pytest.mark.parametrize(
    ("extra", "password", "address"),
    [
        ({}, "", Address("h:8", False, "", b"")),
        ({"tls": True}, "", Address("h:8", True, "", b"")),
        ({"tls": True, "ca": "PEM"}, "key", Address("h:8", True, "key", b"PEM")),
    ],
)
def test_a_connection_says_where_the_service_is(extra: dict[str, Any], password: str, address: Address) -> None:
    made = Connection(conn_id="c", host="h", port=8, password=password, extra=json.dumps(extra))
    assert address_of(made) == address


@pytest.mark.parametrize("lacking", ["host", "port"])
def test_a_connection_without_an_address_is_refused(lacking: str) -> None:
    made = Connection(conn_id="c", **{"host": "h", "port": 8} | {lacking: None})  # type: ignore[arg-type]
    with pytest.raises(InternalJobsError, match="connection 'c' needs a host and a port of the InternalJobService"):
        address_of(made)


@pytest.mark.parametrize(("token", "ca"), [("", b""), ("key", b"PEM")])
def test_over_tls_the_server_is_proven_and_the_token_sent(
    token: str, ca: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = Mock(return_value="channel")
    monkeypatch.setattr(grpc, "ssl_channel_credentials", lambda given: ("ssl", given))
    monkeypatch.setattr(grpc, "access_token_call_credentials", lambda given: ("token", given))
    monkeypatch.setattr(grpc, "composite_channel_credentials", lambda *given: given)
    monkeypatch.setattr(grpc, "secure_channel", channel)
    assert module._channel(Address("h:8", True, token, ca)) == "channel"
    ssl = ("ssl", ca or None)
    channel.assert_called_once_with("h:8", (ssl, ("token", token)) if token else ssl)


@pytest.mark.parametrize(
    ("temporal", "job", "agrees", "words"),
    [
        ("done", JobSeen(NAME, "SUCCEEDED", "done"), True, ""),
        ("failed", JobSeen(NAME, "CANCELLED", "failed"), True, ""),
        ("done", JobSeen(NAME, "RUNNING", "open"), False, "Temporal says done, the InternalJobService says RUNNING"),
        ("failed", JobSeen(NAME, "SUCCEEDED", "done"), False, "Temporal says failed"),
        ("done", JobSeen(NAME, "ODD", "unknown"), None, "state 'ODD' is not known here"),
        ("done", None, None, "no answer"),
    ],
)
def test_agreement(temporal: Any, job: JobSeen | None, agrees: bool | None, words: str) -> None:
    found = agreement({NAME: temporal}, {NAME: job})
    assert found.agrees is agrees
    assert words in found.reason


def test_one_disagreement_counts_more_than_many_silent_jobs() -> None:
    jobs: dict[str, JobSeen | None] = {f"j{n}": None for n in range(9)}
    jobs["j9"] = JobSeen("j9", "RUNNING", "open")
    found = agreement(dict.fromkeys(jobs, "done"), jobs)
    assert found.agrees is False
    assert "j9" in found.reason
    silent = agreement(dict.fromkeys([f"j{n}" for n in range(9)], "done"), jobs)
    assert silent.reason.endswith("and 4 more")


@pytest.mark.parametrize(
    ("word", "ending"),
    [("NOT_STARTED", "open"), ("INCOMPLETE", "open"), ("completed", "done"), ("TIMED_OUT", "failed"), ("", "unknown")],
)
def test_words_of_states(word: str, ending: str) -> None:
    assert ending_of(word) == ending


def connected(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """Let the cluster's file name a connection that leads to the service."""
    host, _, port = target.partition(":")
    temporal = CONFIG.temporal.model_copy(update={"internal_jobs_conn_id": "jobs"})
    monkeypatch.setattr(workflows_tests, "CONFIG", CONFIG.model_copy(update={"temporal": temporal}))

    async def connection(self: Any, conn_id: str) -> Connection:
        assert conn_id == "jobs"
        return Connection(conn_id=conn_id, conn_type="generic", host=host, port=int(port))

    monkeypatch.setattr(WorkflowsTrigger, "connection", connection)


NAMED = reindexed(VOICE).model_copy(update={"resources": {VOICE: NAME}})


async def test_a_window_waits_while_the_service_says_otherwise_than_temporal(
    server: Any, nested: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected(monkeypatch, nested.target)
    server.set(VOICE, "completed", started=MADE, closed=ENDED)
    waiting = await trigger(NAMED, monkeypatch)
    nested.states[NAME] = 1
    look = await waiting.look()
    assert isinstance(look, Wait)
    assert f"{NAME}: Temporal says done, the InternalJobService says STATE_RUNNING" in look.text
    nested.states[NAME] = 2
    assert isinstance(await waiting.look(), Done)


@pytest.mark.parametrize("what", ["does not know it", "cannot be reached", "not asked"])
async def test_a_service_that_cannot_tell_holds_nothing_back(
    server: Any, nested: Server, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what != "not asked":
        connected(monkeypatch, nested.target if what == "does not know it" else "127.0.0.1:1")
    monkeypatch.setattr(module, "CALL_SECONDS", 0.5)
    server.set(VOICE, "completed", started=MADE, closed=ENDED)
    assert isinstance(await (await trigger(NAMED, monkeypatch)).look(), Done)
    assert nested.asked == ([NAME] if what == "does not know it" else [])


def test_preflight_says_that_a_service_will_not_be_asked(nested: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def connection(target: str) -> str:
        host, _, port = target.partition(":")
        return json.dumps({"conn_type": "generic", "host": host, "port": int(port)})

    monkeypatch.setattr(module, "CALL_SECONDS", 0.5)
    monkeypatch.setenv("AIRFLOW_CONN_JOBS", connection(nested.target))
    assert _second_opinion("") == _second_opinion("jobs") == []
    monkeypatch.setenv("AIRFLOW_CONN_JOBS", connection("127.0.0.1:1"))
    (note,) = _second_opinion("jobs")
    assert "will not be asked, Temporal alone decides: InternalJobService at 127.0.0.1:1: no connection" in note
    (note,) = _second_opinion("nobody")
    assert "nobody" in note
