"""The HTTP interface of a node: statements on `/`, `/ping`, the sandbox's own endpoints, and the other nodes."""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.faults import Rule, default_message
from standins.clickhouse.http_parts import Parameters, check_credentials, encoded, read_body, read_parameters
from standins.clickhouse.node import Answer, Node, Request
from standins.clickhouse.reads import NodeUnavailable
from standins.clickhouse.statements import HEAD_BYTES, insert_head, is_insert, parse
from standins.clickhouse.wire import CODE_HEADER

log = logging.getLogger(__name__)

# A rule may be deleted while a statement lingers.
_LINGER_SECONDS = 0.02
_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "Native": "application/octet-stream",
}


class NodeServer(ThreadingHTTPServer):
    """Listens on the node's address; one thread per connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, node: Node) -> None:
        self.node = node
        self._running = 0
        self._stopping = False
        self._change = threading.Condition()
        super().__init__((node.address.host, node.address.port), Handler)

    def enter(self) -> bool:
        """Begin a request; False when the node stops."""
        with self._change:
            self._running += not self._stopping
            return not self._stopping

    def leave(self) -> None:
        """End a request."""
        with self._change:
            self._running -= 1
            self._change.notify_all()

    def drain(self, seconds: float) -> bool:
        """Refuse new requests and wait for those that run; whether all ended in time."""
        with self._change:
            self._stopping = True
            return self._change.wait_for(lambda: self._running == 0, seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of ours; anything else is."""
        if isinstance(sys.exception(), ConnectionError):
            log.debug("the connection of %s broke", client_address)
        else:
            log.error("the connection of %s broke", client_address, exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: NodeServer

    def do_GET(self) -> None:
        """Read."""
        self._guarded()

    def do_POST(self) -> None:
        """Read or change."""
        self._guarded()

    def do_DELETE(self) -> None:
        """Only for the sandbox's own endpoints."""
        self._guarded()

    def do_HEAD(self) -> None:
        """Only /ping makes sense."""
        self._guarded()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are in the record; the log is for trouble."""
        log.debug(format, *args)

    def _guarded(self) -> None:
        if not self.server.enter():
            self._reset()
            return
        try:
            self._serve()
        finally:
            self.server.leave()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        try:
            body = read_body(self.headers, self.rfile)
        except ValueError as error:
            self.close_connection = True
            self._send(HTTPStatus.BAD_REQUEST, str(error).encode(), {})
            return
        try:
            if parts.path in ("/ping", "/replicas_status"):
                self._send(HTTPStatus.OK, b"Ok.\n", {})
                return
            user = check_credentials(self.headers, dict(parse_qsl(parts.query)))
            if parts.path == "/":
                self._statement(user, parts.query, body)
            elif parts.path.startswith("/internal/"):
                self._internal(parts.path, body)
            else:
                self._own(parts.path, dict(parse_qsl(parts.query)), body)
        except ClickHouseError as error:
            self._error(error, {})

    def _statement(self, user: str, query_string: str, body: bytes) -> None:
        parameters = read_parameters(query_string)
        raw = parameters.query.rstrip().encode() + b"\n" + body if parameters.query else body
        query_id = parameters.get("query_id") or str(uuid.uuid4())
        text, changes = _shown(raw)
        number = self.server.node.recorder.started(
            {
                "query_id": query_id,
                "user": user,
                "changes": changes,
                "statement": text,
                "database": parameters.get("database"),
                "settings": dict(parameters.settings),
                "session_id": parameters.get("session_id"),
                "user_agent": self.headers.get("User-Agent", ""),
            }
        )
        headers = {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Server-Display-Name": self.server.node.address.name,
            "X-ClickHouse-Timezone": "UTC",
        }
        with self.server.node.running.statement(query_id, user, text):
            outcome, deliver = self._carried_out(text, raw, parameters, headers)
        # Before the answer: who has read it must find it in the record.
        self.server.node.recorder.ended(number, outcome)
        deliver()

    def _carried_out(
        self, text: str, raw: bytes, parameters: Parameters, headers: dict[str, str]
    ) -> tuple[str, Callable[[], None]]:
        """(outcome for the record, what gives the client its answer), with the fault rules applied."""
        faults = self.server.node.faults
        self._linger(text)
        reset, reply = faults.hit("reset", text), faults.hit("reply", text)
        rule = reset or reply
        done = "not executed"
        try:
            if rule is None or rule.get("execute", "first" if reset else "never") == "first":
                answer = self._run(raw, parameters)
                done = "executed"
        except ClickHouseError as error:
            failure = error
            if reset is None:
                return f"error {error.code}", lambda: self._error(failure, headers)
            done = f"error {error.code}"
        if reset is not None:
            return f"reset, {done}", self._reset
        if reply is not None:
            code = int(reply["code"])
            injected = ClickHouseError(code, str(reply.get("message", default_message(code))))
            return f"error {code} by rule, {done}", lambda: self._error(injected, headers)
        cut = faults.hit("cut", text)
        return "ok" if cut is None else "ok, cut", lambda: self._answer(answer, parameters, headers, cut)

    def _linger(self, text: str) -> None:
        faults, since = self.server.node.faults, time.time()
        if (late := faults.hit("latency", text)) is not None:
            while not faults.is_over(int(late["id"]), since):
                time.sleep(_LINGER_SECONDS)

    def _run(self, raw: bytes, parameters: Parameters) -> Answer:
        fmt = parameters.get("default_format") or self.headers.get("X-ClickHouse-Format") or "TabSeparated"
        return self.server.node.run(Request(raw, parameters.context(), fmt))

    def _answer(self, answer: Answer, parameters: Parameters, headers: dict[str, str], cut: Rule | None) -> None:
        result = answer.result
        summary = {
            "read_rows": str(result.rows_read),
            "read_bytes": str(result.bytes_read),
            "written_rows": str(answer.written_rows),
            "written_bytes": "0",
            "total_rows_to_read": "0",
            "result_rows": "0",
            "result_bytes": str(len(result.body)),
            "elapsed_ns": str(int(result.seconds * 1e9)),
        }
        headers = {**headers, "X-ClickHouse-Summary": json.dumps(summary)}
        if answer.format is not None:
            headers["X-ClickHouse-Format"] = answer.format
            headers["Content-Type"] = _TYPES.get(answer.format, "text/plain; charset=UTF-8")
        body = result.body
        if body and parameters.get("enable_http_compression") in ("1", "true"):
            encoding, body = encoded(self.headers.get("Accept-Encoding", ""), body)
            if encoding:
                headers["Content-Encoding"] = encoding
        self._send(HTTPStatus.OK, body, headers, None if cut is None else int(cut["bytes"]))

    def _error(self, error: ClickHouseError, headers: Mapping[str, str]) -> None:
        extra = {CODE_HEADER: str(error.code), "Content-Type": "text/plain; charset=UTF-8"}
        if error.status == HTTPStatus.UNAUTHORIZED:
            extra["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
        self._send(error.status, error.body().encode(), {**headers, **extra})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut is not None:
            self.wfile.write(body[:cut])
            self._reset()
            return
        self.wfile.write(body)

    def _reset(self) -> None:
        """End the connection with a TCP reset instead of an orderly close."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        self.close_connection = True

    def _internal(self, path: str, body: bytes) -> None:
        node = self.server.node
        message = json.loads(body or b"{}")
        if path == "/internal/read":
            self._linger(str(message["sql"]))
            try:
                answer = node.read_part(message)
            except NodeUnavailable as error:
                self._send(HTTPStatus.SERVICE_UNAVAILABLE, str(error).encode(), {})
                return
            self._send(HTTPStatus.OK, answer.body, {"X-Sandbox-Omitted": "1"} if answer.omitted else {})
            return
        actions: dict[str, Callable[[], None]] = {
            "/internal/write": lambda: node.write_part(message),
            "/internal/sync": node.sync,
            "/internal/wake": node.wake,
        }
        if path not in actions:
            self._send(HTTPStatus.NOT_FOUND, b"There is no such path.\n", {})
            return
        actions[path]()
        self._send(HTTPStatus.OK, b"", {})

    def _own(self, path: str, query: Mapping[str, str], body: bytes) -> None:
        """The sandbox's own endpoints (documented in the package)."""
        node = self.server.node
        try:
            if path == "/statements" and self.command == "GET":
                rows = node.recorder.select(
                    queries=query.get("queries") == "1",
                    since=int(query.get("since", "0")),
                    contains=query.get("contains", ""),
                )
                self._json(rows)
            elif path == "/statements" and self.command == "DELETE":
                node.recorder.clear()
                self._json({})
            elif path == "/faults" and self.command == "GET":
                self._json(node.faults.listed())
            elif path == "/faults" and self.command == "POST":
                rules = json.loads(body)
                self._json({"ids": node.faults.add(rules if isinstance(rules, list) else [rules])})
            elif path.startswith("/faults") and self.command == "DELETE":
                number = path.removeprefix("/faults").strip("/")
                self._json({"removed": node.faults.remove(int(number) if number else None)})
            else:
                self._send(HTTPStatus.NOT_FOUND, f"There is no {self.command} {path}\n".encode(), {})
        except ValueError as error:  # a FaultRuleError, too
            self._send(HTTPStatus.BAD_REQUEST, f"{error}\n".encode(), {})

    def _json(self, value: object) -> None:
        self._send(HTTPStatus.OK, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _shown(raw: bytes) -> tuple[str, bool]:
    """(statement without the data of an INSERT, whether it changes something) for the record."""
    try:
        if is_insert(raw):
            return insert_head(raw), True
        text = raw.decode(errors="replace")
        return text.strip(), parse(text).is_ddl
    except ClickHouseError:
        return raw[:HEAD_BYTES].decode(errors="replace"), True
