"""`python -m standins.temporal.proxy`: a gRPC proxy before the Temporal frontend that misbehaves on demand.

Calls pass as bytes, with their metadata and deadline; rules are those of standins.temporal.proxy_rules. Every
call is written to the record file as one JSON line: time (UTC), method, subject (query or workflow id), rule,
code. Only unary calls are handled, which is all that the frontend has; the server is reached without TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    CountWorkflowExecutionsResponse,
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryRequest,
    ListWorkflowExecutionsRequest,
    ListWorkflowExecutionsResponse,
    StartWorkflowExecutionRequest,
)

from standins.faults import fits
from standins.temporal.proxy_rules import (
    Call,
    History,
    ProxyKind,
    ProxyRule,
    choose,
    drops,
    parse_proxy_rules,
)

POLL_SECONDS = 0.1
"""How often the proxy looks whether it has to drop its connections."""

_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_SERVER_OPTIONS = [*_UNLIMITED, ("grpc.so_reuseport", 0)]

_STATUS = {
    ProxyKind.NOT_FOUND: (grpc.StatusCode.NOT_FOUND, "workflow not found for ID: {subject}"),
    ProxyKind.INVALID_QUERY: (
        grpc.StatusCode.INVALID_ARGUMENT,
        "invalid query: unsupported operator in {subject}",
    ),
    ProxyKind.UNAVAILABLE: (grpc.StatusCode.UNAVAILABLE, "service unavailable"),
    ProxyKind.RESOURCE_EXHAUSTED: (grpc.StatusCode.RESOURCE_EXHAUSTED, "namespace rate limit exceeded"),
    ProxyKind.DEADLINE_EXCEEDED: (grpc.StatusCode.DEADLINE_EXCEEDED, "context deadline exceeded"),
    ProxyKind.PERMISSION_DENIED: (grpc.StatusCode.PERMISSION_DENIED, "Request unauthorized."),
    ProxyKind.INTERNAL: (grpc.StatusCode.INTERNAL, "internal error"),
}


class Faults:
    """The rules of a file that is read again for each decision, and what became of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._histories: dict[str, History] = {}

    def take(self, call: Call) -> ProxyRule | None:
        """The rule that hits this call (counted), None when the call passes."""
        rules = self._read()
        rule = choose(call, rules, self._histories, time.monotonic())
        if rule is not None:
            self._histories[rule.id].hits += 1
        return rule

    def dropping(self) -> bool:
        """Whether the proxy must be unreachable now."""
        return drops(self._read(), self._histories, time.monotonic())

    def _read(self) -> tuple[ProxyRule, ...]:
        rules = parse_proxy_rules(self._path.read_text()) if self._path.is_file() else ()
        # A rule that is gone from the file starts anew when it comes back.
        self._histories = {rule.id: self._histories.get(rule.id) or History(time.monotonic()) for rule in rules}
        return rules


class Proxy:
    """Passes calls on to one upstream; `service` makes it a generic handler of grpc."""

    def __init__(self, channel: grpc.aio.Channel, faults: Faults, record: Path | None) -> None:
        self._channel = channel
        self._faults = faults
        self._record = record

    def service(self, details: Any) -> Any:
        """Handler of one call; grpc asks by the method's full name."""
        path = details.method

        async def handle(request: bytes, context: Any) -> bytes:
            return await self._handle(path, request, context)

        return grpc.unary_unary_rpc_method_handler(handle)

    async def _handle(self, path: str, request: bytes, context: Any) -> bytes:
        call = Call(path.rpartition("/")[2], _subject(path, request))
        rule = self._faults.take(call)
        if rule is not None and (found := _refusal(rule)) is not None:
            code, text = found
            self._note(call, rule, code.name)
            await context.abort(code, text.format(subject=call.subject))
        if rule is not None and rule.kind is ProxyKind.DELAY:
            await asyncio.sleep(rule.seconds)
        if rule is not None and rule.kind is ProxyKind.LIST_EMPTY:
            self._note(call, rule, "OK")
            return b""
        answer = await self._pass(path, request, context, call, rule)
        self._note(call, rule, "OK")
        return _changed(call, rule, answer)

    async def _pass(self, path: str, request: bytes, context: Any, call: Call, rule: ProxyRule | None) -> bytes:
        metadata = [(key, value) for key, value in context.invocation_metadata() if _is_custom(key)]
        forward: Callable[..., Awaitable[bytes]] = self._channel.unary_unary(path)
        try:
            return await forward(request, metadata=metadata, timeout=context.time_remaining())
        except grpc.aio.AioRpcError as error:
            self._note(call, rule, error.code().name)
            trailing = [(key, value) for key, value in error.trailing_metadata() or ()]
            await context.abort(error.code(), error.details() or "", tuple(trailing))
            raise

    def _note(self, call: Call, rule: ProxyRule | None, code: str) -> None:
        if self._record is None:
            return
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": call.method,
            "subject": call.subject,
            "rule": rule.id if rule else None,
            "code": code,
        }
        with self._record.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def _refusal(rule: ProxyRule) -> tuple[Any, str] | None:
    """Status and text with which a rule answers, None when it lets the call pass."""
    if rule.kind is ProxyKind.CODE:
        return grpc.StatusCode[rule.code], f"{rule.code} as the rule says"
    return _STATUS.get(rule.kind)


def _is_custom(key: str) -> bool:
    """Metadata of the transport belongs to each connection; the rest (keys, namespace) is passed on."""
    return not key.startswith("grpc-") and key not in ("user-agent", "te", "content-type")


def _subject(path: str, request: bytes) -> str:
    """Query or workflow id of the calls that a client of workflows makes."""
    method = path.rpartition("/")[2]
    if method == "ListWorkflowExecutions":
        return ListWorkflowExecutionsRequest.FromString(request).query
    if method == "CountWorkflowExecutions":
        return CountWorkflowExecutionsRequest.FromString(request).query
    if method == "DescribeWorkflowExecution":
        return DescribeWorkflowExecutionRequest.FromString(request).execution.workflow_id
    if method == "GetWorkflowExecutionHistory":
        return GetWorkflowExecutionHistoryRequest.FromString(request).execution.workflow_id
    if method == "StartWorkflowExecution":
        return StartWorkflowExecutionRequest.FromString(request).workflow_id
    return ""


def _changed(call: Call, rule: ProxyRule | None, answer: bytes) -> bytes:
    """The answer with a listing made stale or incomplete, or another status, where the rule says so."""
    if rule is not None and rule.kind is ProxyKind.DESCRIBE_STATUS:
        described = DescribeWorkflowExecutionResponse.FromString(answer)
        # Any number, as a newer server may send.
        described.workflow_execution_info.status = int(rule.code)  # type: ignore[assignment]
        return described.SerializeToString()
    if rule is None or rule.kind not in (ProxyKind.LIST_STALE, ProxyKind.LIST_HIDES):
        return answer
    if call.method == "CountWorkflowExecutions":
        # A count cannot be made stale without its list; zero is the wrong answer that hurts most.
        return CountWorkflowExecutionsResponse().SerializeToString()
    listing = ListWorkflowExecutionsResponse.FromString(answer)
    if rule.kind is ProxyKind.LIST_HIDES:
        kept = [e for e in listing.executions if not fits(rule.text, e.execution.workflow_id)]
        page = listing.next_page_token
        return ListWorkflowExecutionsResponse(executions=kept, next_page_token=page).SerializeToString()
    for execution in listing.executions:
        execution.status = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
        execution.ClearField("close_time")
    return listing.SerializeToString()


async def serve(listen: str, upstream: str, faults: Faults, record: Path | None, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; unreachable while a drop rule holds.

    listen and upstream are host:port. Raises RuntimeError when the port cannot be bound.
    """
    async with grpc.aio.insecure_channel(upstream, options=_UNLIMITED) as channel:
        proxy = Proxy(channel, faults, record)
        while not stop.is_set():
            server = grpc.aio.server(options=_SERVER_OPTIONS)
            server.add_generic_rpc_handlers((proxy,))
            server.add_insecure_port(listen)
            await server.start()
            await _wait(stop, faults, dropping=True)
            await server.stop(None)
            await _wait(stop, faults, dropping=False)


async def _wait(stop: asyncio.Event, faults: Faults, *, dropping: bool) -> None:
    """Return once the faults (do not) ask for dropped connections, or at the end."""
    while not stop.is_set() and faults.dropping() is not dropping:
        try:
            await asyncio.wait_for(stop.wait(), POLL_SECONDS)
        except TimeoutError:
            continue


async def _run(args: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    listen = args.listen if ":" in args.listen else f"127.0.0.1:{args.listen}"
    await serve(listen, args.upstream, Faults(args.faults), args.record, stop)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; exit code 0 after a signal."""
    parser = argparse.ArgumentParser(prog="python -m standins.temporal.proxy", description=__doc__)
    parser.add_argument("--listen", required=True, help="port on 127.0.0.1, or host:port")
    parser.add_argument("--upstream", required=True, help="host:port of the Temporal frontend")
    parser.add_argument("--faults", required=True, type=Path, help="faults file, may be missing")
    parser.add_argument("--record", type=Path, help="JSON lines file to which calls are appended")
    asyncio.run(_run(parser.parse_args(argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
