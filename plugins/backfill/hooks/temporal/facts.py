"""What Temporal's raw messages say. Types decide; progress and texts are best effort and never raise."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import TimeoutType, WorkflowExecutionStatus
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.converter import PayloadCodec

from include.scorecard_backfill.verdicts.failures import Link, LinkKind, cause_of_end, chain_text
from include.scorecard_backfill.verdicts.workflows import BAD_ENDS, Execution, Status, progress_of

log = logging.getLogger(__name__)

MAX_LINKS = 50
"""Failures of a chain that are read; more is a loop of retries around retries."""

MAX_TEXT = 1_000
"""Characters of one failure's message that are kept."""

READABLE = frozenset({"json/plain", "json/protobuf"})
"""Encodings that are JSON as they are."""

UNREADABLE = frozenset({"binary/null", "binary/plain", "binary/protobuf"})
"""Encodings that no codec has made and that hold nothing for us."""

STATUSES: dict[int, Status] = {
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING: "running",
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_PAUSED: "paused",
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED: "completed",
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_FAILED: "failed",
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_CANCELED: "canceled",
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TERMINATED: "terminated",
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW: "continued_as_new",
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TIMED_OUT: "timed_out",
}
"""By number, because a newer server may send one that has no name here."""

TIMEOUT_WORDS = {
    number: name.removeprefix("TIMEOUT_TYPE_") for name, number in TimeoutType.items() if number != 0
}  # fmt: skip

LINKS: dict[str, LinkKind] = {
    "timeout_failure_info": "timeout",
    "application_failure_info": "application",
    "canceled_failure_info": "canceled",
    "terminated_failure_info": "terminated",
    "server_failure_info": "server",
    "activity_failure_info": "wrapper",
    "child_workflow_execution_failure_info": "wrapper",
    "nexus_operation_execution_failure_info": "wrapper",
    "reset_workflow_failure_info": "wrapper",
}


async def decoded(payloads: Iterable[Payload], codec: PayloadCodec | None) -> list[object]:
    """Return the values of payloads that can be read, without those that cannot. Never raises."""
    listed = list(payloads)
    strange = [p for p in listed if _encoding(p) not in READABLE | UNREADABLE]
    if strange and codec is not None:
        try:
            answers = iter(await codec.decode(strange))
            listed = [next(answers) if _encoding(p) not in READABLE | UNREADABLE else p for p in listed]
        except Exception as error:
            # Any codec's own errors: what it would have decoded is decoration.
            log.debug("payloads are not decoded: %s", type(error).__name__)
    values: list[object] = []
    for payload in listed:
        if _encoding(payload) in READABLE:
            try:
                values.append(json.loads(payload.data))
            except (ValueError, RecursionError):
                log.debug("a payload that says it is JSON is not")
    return values


def _encoding(payload: Payload) -> str:
    return payload.metadata.get("encoding", b"").decode("ascii", "replace")


async def chain_of(failure: Failure, codec: PayloadCodec | None) -> list[Link]:
    """Return the chain of a failure, the outermost first."""
    links: list[Link] = []
    current: Failure | None = failure
    while current is not None and len(links) < MAX_LINKS:
        links.append(await _link(current, codec))
        current = current.cause if current.HasField("cause") else None
    return links


async def _link(failure: Failure, codec: PayloadCodec | None) -> Link:
    info = failure.WhichOneof("failure_info") or ""
    message = failure.message
    if failure.HasField("encoded_attributes"):
        found = [v for v in await decoded([failure.encoded_attributes], codec) if isinstance(v, dict)]
        texts = [v["message"] for v in found if isinstance(v.get("message"), str)]
        message = texts[0] if texts else message
    word = ""
    if info == "timeout_failure_info":
        number = failure.timeout_failure_info.timeout_type
        word = TIMEOUT_WORDS.get(number, f"UNKNOWN {number}")
    elif info == "application_failure_info":
        word = failure.application_failure_info.type
    return Link(LINKS.get(info, "unknown"), word[:MAX_TEXT], message[:MAX_TEXT])


async def execution_of(
    workflow_id: str,
    found: DescribeWorkflowExecutionResponse,
    failure: Failure | None,
    codec: PayloadCodec | None,
) -> Execution:
    """Return what a description says. ``failure``: that of the run's last event, None when it is not known."""
    info = found.workflow_execution_info
    status = STATUSES.get(info.status, "unknown")
    text = cause = ""
    if status in BAD_ENDS:
        chain = await chain_of(failure, codec) if failure is not None else []
        text, cause = chain_text(chain), cause_of_end(chain, status)
    done, total = await _progress(found, codec) if status not in BAD_ENDS else (None, None)
    return Execution(
        workflow_id,
        status,
        run_id=info.execution.run_id,
        failure=text,
        cause=cause,
        done=done,
        total=total,
        started=_seconds(info, "start_time"),
        closed=_seconds(info, "close_time"),
        note=f"status {info.status} of the server is not known to this version" if status == "unknown" else "",
    )


async def _progress(
    found: DescribeWorkflowExecutionResponse, codec: PayloadCodec | None
) -> tuple[int | None, int | None]:
    details: Sequence[Payload] = [
        payload
        for activity in found.pending_activities
        if activity.HasField("heartbeat_details")
        for payload in activity.heartbeat_details.payloads
    ]
    return progress_of(await decoded(details, codec))


def _seconds(info: Any, name: str) -> float:
    """Return the epoch seconds of a timestamp field, 0 when it is not set."""
    if not info.HasField(name):
        return 0.0
    moment = getattr(info, name)
    return float(moment.seconds) + float(moment.nanos) / 1e9
