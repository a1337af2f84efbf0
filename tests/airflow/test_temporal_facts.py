"""What is read from Temporal's raw messages: never an error, never an end that is none, types before texts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import TimeoutType, WorkflowExecutionStatus
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.converter import PayloadCodec
from temporalio.service import RPCError, RPCStatusCode

from backfill.hooks.temporal.errors import is_lost, is_transient, refusal
from backfill.hooks.temporal.facts import STATUSES, chain_of, decoded, execution_of
from include.scorecard_backfill.verdicts.causes import CAUSES
from include.scorecard_backfill.verdicts.workflows import CLOSED, Execution

COMPLETED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED
FAILED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_FAILED

ENCODINGS = st.sampled_from(
    [b"json/plain", b"json/protobuf", b"binary/null", b"binary/encrypted", b"binary/zlib", b"\xff\xfe", b""]
)
DATA = st.binary(max_size=12) | st.sampled_from([
    b"null", b"[]", b"{", b'"ten"', b'{"TotalConversationCount": null}', b'{"TotalConversationCount": "ten"}',
    b'{"TotalConversationCount": 10, "ReindexedConversations": 5}', b'{"message": 3}', b'{"message": "deadlock"}',
    b"[" * 4_000,
])  # fmt: skip


@st.composite
def payloads(draw: st.DrawFn) -> Payload:
    metadata = {"encoding": draw(ENCODINGS)} if draw(st.booleans()) else {}
    return Payload(metadata=metadata, data=draw(DATA))


@st.composite
def failures(draw: st.DrawFn, depth: int = 4) -> Failure:
    made = Failure(message=draw(st.sampled_from(["", "Encoded failure", "deadlock detected", "boom", "x" * 5_000])))
    kind = draw(st.sampled_from([f.name for f in Failure.DESCRIPTOR.oneofs_by_name["failure_info"].fields] + [""]))
    if kind:
        getattr(made, kind).SetInParent()
    if kind == "timeout_failure_info":
        made.timeout_failure_info.timeout_type = draw(st.integers(0, 20))  # type: ignore[assignment]
    if kind == "application_failure_info":
        made.application_failure_info.type = draw(st.sampled_from(["", "Boom", "40P01"]))
    if draw(st.booleans()):
        made.encoded_attributes.CopyFrom(draw(payloads()))
    if depth and draw(st.booleans()):
        made.cause.CopyFrom(draw(failures(depth - 1)))
    return made


@st.composite
def descriptions(draw: st.DrawFn) -> DescribeWorkflowExecutionResponse:
    made = DescribeWorkflowExecutionResponse()
    made.workflow_execution_info.status = draw(st.integers(0, 40))  # type: ignore[assignment]
    made.workflow_execution_info.execution.run_id = draw(st.text(max_size=5))
    for name in draw(st.sets(st.sampled_from(["start_time", "close_time"]))):
        getattr(made.workflow_execution_info, name).seconds = draw(st.integers(-(10**9), 10**10))
    for _ in range(draw(st.integers(0, 3))):
        activity = made.pending_activities.add()
        activity.state = draw(st.integers(0, 12))  # type: ignore[assignment]
        if draw(st.booleans()):
            activity.heartbeat_details.payloads.extend(draw(st.lists(payloads(), max_size=3)))
    return made


class Codec(PayloadCodec):
    """Gives these answers, or breaks."""

    def __init__(self, answers: Sequence[Payload] | None) -> None:
        self.answers = answers
        self.asked: list[Payload] = []

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        raise NotImplementedError

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        self.asked += payloads
        if self.answers is None:
            raise RuntimeError("no key")
        return list(self.answers)


CODECS = st.none() | st.builds(Codec, st.none() | st.lists(payloads(), max_size=3))


def read(found: DescribeWorkflowExecutionResponse, failure: Failure | None, codec: PayloadCodec | None) -> Execution:
    return asyncio.run(execution_of("w-1", found, failure, codec))


@given(descriptions(), st.none() | failures(), CODECS)
@settings(max_examples=300)
def test_any_message_is_read_and_only_a_completed_run_is_completed(
    found: DescribeWorkflowExecutionResponse, failure: Failure | None, codec: Codec | None
) -> None:
    execution = read(found, failure, codec)
    number = int(found.workflow_execution_info.status)
    assert (execution.status == "completed") is (number == COMPLETED)
    assert execution.open is (STATUSES.get(number) not in CLOSED)
    if number not in STATUSES:
        assert execution.status == "unknown"
        assert str(number) in execution.note
    assert (execution.cause in CAUSES) if execution.status in CLOSED - {"completed"} else execution.cause == ""
    assert len(execution.failure) < 20_000


def described(status: int = 1, *details: Payload) -> DescribeWorkflowExecutionResponse:
    made = DescribeWorkflowExecutionResponse()
    made.workflow_execution_info.status = status  # type: ignore[assignment]
    if details:
        made.pending_activities.add().heartbeat_details.payloads.extend(details)
    return made


def plain(value: Any, encoding: bytes = b"json/plain") -> Payload:
    return Payload(metadata={"encoding": encoding}, data=json.dumps(value).encode())


SECRET = Payload(metadata={"encoding": b"binary/encrypted"}, data=b"\x00\x01")
HALF = plain({"ReindexedConversations": 5, "TotalConversationCount": 10})


def test_every_status_of_this_release_is_known() -> None:
    assert set(STATUSES) == set(WorkflowExecutionStatus.values()) - {0}


@pytest.mark.parametrize(
    ("details", "codec", "expected"),
    [
        ([HALF], None, (5, 10)),
        ([SECRET], None, (None, None)),
        ([SECRET], Codec(None), (None, None)),
        ([SECRET], Codec([]), (None, None)),
        ([SECRET], Codec([HALF]), (5, 10)),
        ([plain(None), plain("ten"), HALF], None, (5, 10)),
        ([Payload(data=b"{}")], None, (None, None)),
    ],
)
def test_progress_is_best_effort(
    details: list[Payload], codec: Codec | None, expected: tuple[int | None, int | None]
) -> None:
    found = read(described(1, *details), None, codec)
    assert (found.status, found.done, found.total) == ("running", *expected)


def test_only_what_is_not_readable_as_it_is_goes_to_the_codec() -> None:
    codec = Codec([plain("b")])
    values = asyncio.run(
        decoded([plain("a"), SECRET, plain("c"), Payload(metadata={"encoding": b"binary/null"})], codec)
    )
    assert values == ["a", "b", "c"]
    assert codec.asked == [SECRET]


def encoded(kind: str, attributes: Payload) -> Failure:
    made = Failure(message="Encoded failure", encoded_attributes=attributes)
    getattr(made, kind).SetInParent()
    return made


@pytest.mark.parametrize("attributes", [SECRET, plain({"message": "activity Heartbeat timeout"})])
def test_an_encoded_heartbeat_time_out_is_a_heartbeat_time_out(attributes: Payload) -> None:
    failure = encoded("activity_failure_info", SECRET)
    failure.cause.CopyFrom(encoded("timeout_failure_info", attributes))
    failure.cause.timeout_failure_info.timeout_type = TimeoutType.TIMEOUT_TYPE_HEARTBEAT
    found = read(described(FAILED), failure, None)
    assert (found.cause, found.failure) == ("heartbeat_timeout", "Encoded failure <- HEARTBEAT timeout")


def test_an_encoded_deadlock_is_known_with_the_codec_only() -> None:
    failure = encoded("application_failure_info", SECRET)
    said = plain({"message": "ERROR: deadlock detected (SQLSTATE 40P01)", "stack_trace": ""})
    assert read(described(FAILED), failure, Codec([said])).cause == "deadlock"
    assert read(described(FAILED), failure, None).cause == "workflow_failed"
    assert read(described(FAILED), failure, Codec(None)).failure == "ApplicationError: Encoded failure"


def test_the_words_of_a_failure_are_those_of_its_kind() -> None:
    failure = Failure(message="it broke")
    failure.application_failure_info.type = "Boom"
    failure.cause.message = "too late"
    failure.cause.timeout_failure_info.timeout_type = TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE
    failure.cause.cause.message = "the rest"
    failure.cause.cause.canceled_failure_info.SetInParent()
    found = asyncio.run(chain_of(failure, None))
    assert [(link.kind, link.word, link.message) for link in found] == [
        ("application", "Boom", "it broke"), ("timeout", "START_TO_CLOSE", "too late"), ("canceled", "", "the rest"),
    ]  # fmt: skip
    failure.cause.timeout_failure_info.timeout_type = 77  # type: ignore[assignment]
    assert asyncio.run(chain_of(failure, None))[1].word == "UNKNOWN 77"
    # Of a kind that this release does not know nothing is set.
    (unknown,) = asyncio.run(chain_of(Failure(message="m"), None))
    assert (unknown.kind, unknown.word, unknown.message) == ("unknown", "", "m")


def test_a_loop_of_causes_is_cut() -> None:
    failure = Failure(message="0")
    for number in range(60):
        failure = Failure(message=str(number), cause=failure)
    assert len(asyncio.run(chain_of(failure, None))) == 50


@pytest.mark.parametrize(
    ("status", "passes"),
    [
        (status, status.name not in ("INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED"))
        for status in RPCStatusCode
    ],
)
def test_on_reads_everything_passes_but_what_a_person_must_mend(status: RPCStatusCode, passes: bool) -> None:
    error = RPCError("text", status, b"")
    assert is_transient(error) is passes
    assert (refusal(error, "temporal_demo", "ingestion") is None) is passes
    assert is_lost(error) is (passes and status != RPCStatusCode.RESOURCE_EXHAUSTED)


@pytest.mark.parametrize(
    ("status", "cause", "text"),
    [
        (RPCStatusCode.PERMISSION_DENIED, "access_denied",
         "connection c, namespace n: Temporal says PERMISSION_DENIED: no. Renew the API key or the client certificate"
         " of this connection, or grant its account to list, describe and read the history of workflows"),
        (RPCStatusCode.INVALID_ARGUMENT, "error", "connection c, namespace n: Temporal says INVALID_ARGUMENT: no"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_a_person_does(status: RPCStatusCode, cause: str, text: str) -> None:
    found = refusal(RPCError("no", status, b""), "c", "n")
    assert found is not None
    assert (found.cause, str(found)) == (cause, text)
    assert refusal(found, "another", "another") is found


def test_an_error_that_is_none_of_a_server_does_not_pass() -> None:
    assert not is_transient(KeyError("x"))
    assert refusal(KeyError("x"), "c", "n") is None
