"""The HTTP interface of a node: statements on `/`, `/ping`, the sandbox's own endpoints, and the other nodes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import gzip
import hmac
import json
import os
import signal
import socket
import struct
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl

import lz4.frame  # type: ignore[import-untyped]
from backports import zstd
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.faults import default_message
from standins.clickhouse.local import Context
from standins.clickhouse.node import Answer, Node, Request
from standins.clickhouse.reads import NodeUnavailable
from standins.clickhouse.statements import HEAD_BYTES, insert_head, is_insert, parse
from standins.clickhouse.wire import CODE_HEADER, PASSWORD_VARIABLE, USER

# A rule may be deleted while a statement lingers.
_LINGER_SECONDS = 0.02
MAX_BODY = 1 << 30
"""Bytes."""
THREADS = 1000
"""Enough that no statement waits for a thread: it may be one on which others wait."""
_RESERVED = frozenset(
    {
        "query",
        "database",
        "query_id",
        "session_id",
        "default_format",
        "compress",
        "decompress",
        "wait_end_of_query",
        "buffer_size",
        "role",
        "client_protocol_version",
        "enable_http_compression",
    }
)
"""URL parameters that are no settings (or settings of the HTTP layer only)."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: the end of the connection is a TCP reset instead of an orderly close."""


@dataclass(frozen=True)
class Reply:
    """What a client gets. `cut`: so many bytes of the body, then a reset."""

    body: bytes = b""
    status: int = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None


class NodeServer:
    """Listens on the node's address. Requests are worked out in threads: a statement may wait for others."""

    def __init__(self, node: Node) -> None:
        self._api = Api(node)
        self._sockets = bind_sockets(node.address.port, node.address.host)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="request")
        self._requests: set[asyncio.Task[object] | None] = set()
        self._stop = asyncio.Event()

    async def serve(self, drain_seconds: float) -> bool:
        """Serve until SIGTERM or SIGINT; whether all requests that ran then have ended within `drain_seconds`."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        app = Application([(".*", Handler, {"server": self})], log_function=lambda handler: None)
        http = HTTPServer(app, max_body_size=MAX_BODY, max_buffer_size=MAX_BODY)
        http.add_sockets(self._sockets)
        await self._stop.wait()
        http.stop()
        running = [task for task in self._requests if task is not None]
        return not running or not (await asyncio.wait(running, timeout=drain_seconds))[1]

    async def reply(self, request: HTTPServerRequest) -> Reply | None:
        """The answer to a request; None for a reset of the connection."""
        if self._stop.is_set():
            return None
        task = asyncio.current_task()
        self._requests.add(task)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._api.reply, request)
        finally:
            self._requests.discard(task)


class Handler(RequestHandler):
    """One request."""

    def initialize(self, server: NodeServer) -> None:
        """Take the server."""
        self._server = server

    async def _serve(self) -> None:
        reply = await self._server.reply(self.request)
        if reply is None:
            self._reset()
            return
        self.set_status(reply.status)
        for name, value in {"Content-Type": "text/plain; charset=UTF-8", **reply.headers}.items():
            self.set_header(name, value)
        if reply.cut is None:
            self.finish(reply.body)
            return
        self.set_header("Content-Length", str(len(reply.body)))
        self.write(reply.body[: reply.cut])
        await self.flush()
        self._reset()

    get = head = post = delete = _serve

    def _reset(self) -> None:
        stream = self.detach()
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        stream.close()


class Api:
    """What the paths of one node answer. Called by many threads."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def reply(self, request: HTTPServerRequest) -> Reply | None:
        """The answer to a request; None for a reset of the connection."""
        if request.path == "/ping":
            return Reply(b"Ok.\n")
        try:
            user = _checked_user(request.headers)
            query = dict(parse_qsl(request.query, keep_blank_values=True))
            if request.path == "/":
                agent = request.headers.get("User-Agent", "")
                return self._statement({"user": user, "user_agent": agent}, query, decoded(request))
            if request.path.startswith("/internal/"):
                return self._internal(request.path, json.loads(request.body or b"{}"))
            return self._own(request, query)
        except ClickHouseError as error:
            return _error(error, {})
        except NodeUnavailable as error:
            return Reply(str(error).encode(), HTTPStatus.SERVICE_UNAVAILABLE)
        except ValueError as error:  # a FaultRuleError, too
            return Reply(f"{error}\n".encode(), HTTPStatus.BAD_REQUEST)

    def _statement(self, client: Mapping[str, str], query: Mapping[str, str], body: bytes) -> Reply | None:
        raw = query["query"].rstrip().encode() + b"\n" + body if query.get("query") else body
        request = Request(raw, context_of(query), query.get("default_format", "TabSeparated"))
        text, changes = _shown(raw)
        query_id = query.get("query_id") or str(uuid.uuid4())
        row = {
            **client,
            "query_id": query_id,
            "session_id": query.get("session_id", ""),
            "changes": changes,
            "statement": text,
            "database": request.context.database,
            "settings": dict(request.context.settings),
        }
        headers = {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Server-Display-Name": self._node.address.name,
            "X-ClickHouse-Timezone": "UTC",
        }
        with self._node.recorder.running(row) as ended:
            outcome, reply = self._carried_out(text, request, headers)
            # Before the answer: who has read it must find it in the record.
            ended(outcome)
        return reply

    def _carried_out(self, text: str, request: Request, headers: Mapping[str, str]) -> tuple[str, Reply | None]:
        """(outcome for the record, the answer), with the fault rules applied."""
        faults = self._node.faults
        self._linger(text)
        reset, replied = faults.hit("reset", text), faults.hit("reply", text)
        rule = reset or replied
        done = "not executed"
        try:
            if rule is None or rule.get("execute", "first" if reset else "never") == "first":
                answer = self._node.run(request)
                done = "executed"
        except ClickHouseError as error:
            if reset is None:
                return f"error {error.code}", _error(error, headers)
            done = f"error {error.code}"
        if reset is not None:
            return f"reset, {done}", None
        if replied is not None:
            code = int(replied["code"])
            injected = ClickHouseError(code, str(replied.get("message", default_message(code))))
            return f"error {code} by rule, {done}", _error(injected, headers)
        cut = faults.hit("cut", text)
        if cut is None:
            return "ok", Reply(answer.result.body, headers={**headers, **_told(answer)})
        return "ok, cut", Reply(answer.result.body, headers=headers, cut=int(cut["bytes"]))

    def _linger(self, text: str) -> None:
        faults, since = self._node.faults, time.time()
        if (late := faults.hit("latency", text)) is not None:
            while not faults.is_over(int(late["id"]), since):
                time.sleep(_LINGER_SECONDS)

    def _internal(self, path: str, message: Mapping[str, object]) -> Reply:
        node = self._node
        if path == "/internal/read":
            self._linger(str(message["sql"]))
            return Reply(node.read_part(message))
        actions: dict[str, Callable[[], None]] = {
            "/internal/write": lambda: node.write_part(message),
            "/internal/sync": node.sync,
            "/internal/wake": node.wake,
        }
        actions[path]()
        return Reply()

    def _own(self, request: HTTPServerRequest, query: Mapping[str, str]) -> Reply:
        """The sandbox's own endpoints (documented in the package)."""
        recorder, faults = self._node.recorder, self._node.faults
        path, _, number = request.path.removeprefix("/").partition("/")
        match request.method, path:
            case "GET", "statements":
                return _json(
                    recorder.select(
                        queries=query.get("queries") == "1",
                        since=int(query.get("since", "0")),
                        contains=query.get("contains", ""),
                    )
                )
            case "DELETE", "statements":
                recorder.clear()
                return _json({})
            case "GET", "faults":
                return _json(faults.listed())
            case "POST", "faults":
                rules = json.loads(request.body)
                return _json({"ids": faults.add(rules if isinstance(rules, list) else [rules])})
            case "DELETE", "faults":
                return _json({"removed": faults.remove(int(number) if number else None)})
        return Reply(f"There is no {request.method} {request.path}\n".encode(), HTTPStatus.NOT_FOUND)


def context_of(query: Mapping[str, str]) -> Context:
    """Database, settings and parameters of a statement. Raises ClickHouseError 48 for what is not spoken here."""
    for name in ("compress", "decompress"):
        if query.get(name) in ("1", "true"):
            raise ClickHouseError(48, f"{name}=1 (ClickHouse's own block compression) is not supported by the sandbox")
    settings = {k: v for k, v in query.items() if k not in _RESERVED and not k.startswith("param_")}
    params = {k.removeprefix("param_"): v for k, v in query.items() if k.startswith("param_")}
    return Context(query.get("database", ""), settings, params)


def decoded(request: HTTPServerRequest) -> bytes:
    """The body without its Content-Encoding. Raises ValueError for a broken one."""
    encoding, body = request.headers.get("Content-Encoding", ""), request.body
    match encoding.lower():
        case "" | "identity":
            return body
        case "gzip":
            return gzip.decompress(body)
        case "zstd":
            return zstd.decompress(body)
        case "lz4":
            return _all_lz4_frames(body)
    raise ValueError(f"Content-Encoding {encoding!r} is not one of gzip, lz4, zstd")


def _all_lz4_frames(raw: bytes) -> bytes:
    """A client sends each block of an INSERT as a frame of its own; `lz4.frame.decompress` stops after the first."""
    parts = []
    while raw:
        frame = lz4.frame.LZ4FrameDecompressor()
        parts.append(bytes(frame.decompress(raw)))
        if not frame.eof:
            raise ValueError("the last lz4 frame is cut off")
        raw = frame.unused_data or b""
    return b"".join(parts)


def _checked_user(headers: HTTPHeaders) -> str:
    """The user's name. Raises ClickHouseError 516 when a password is set and the request has another."""
    try:
        given = base64.b64decode(headers.get("Authorization", "").removeprefix("Basic "), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ClickHouseError(516, f"Invalid HTTP authentication: {error}") from error
    user, _, password = given.partition(":")
    wanted = os.environ.get(PASSWORD_VARIABLE, "")
    if wanted and (user != USER or not hmac.compare_digest(password.encode(), wanted.encode())):
        message = f"{user}: Authentication failed: password is incorrect, or there is no user with such name."
        raise ClickHouseError(516, message)
    return user or "default"


def _told(answer: Answer) -> dict[str, str]:
    """Headers about an answer."""
    result = answer.result
    summary = {
        "read_rows": str(result.rows_read),
        "read_bytes": str(result.bytes_read),
        "written_rows": str(answer.written_rows),
        "elapsed_ns": str(int(result.seconds * 1e9)),
    }
    told = {"X-ClickHouse-Summary": json.dumps(summary)}
    return told if answer.format is None else {**told, "X-ClickHouse-Format": answer.format}


def _error(error: ClickHouseError, headers: Mapping[str, str]) -> Reply:
    return Reply(error.body().encode(), error.status, {**headers, CODE_HEADER: str(error.code)})


def _json(value: object) -> Reply:
    return Reply(json.dumps(value).encode(), headers={"Content-Type": "application/json"})


def _shown(raw: bytes) -> tuple[str, bool]:
    """(statement without the data of an INSERT, whether it changes something) for the record."""
    try:
        if is_insert(raw):
            return insert_head(raw), True
        text = raw.decode(errors="replace")
        return text.strip(), parse(text).is_ddl
    except ClickHouseError:
        return raw[:HEAD_BYTES].decode(errors="replace"), True
