"""Pieces of HTTP that the server needs: bodies, compression, credentials, parameters."""

from __future__ import annotations

import base64
import binascii
import gzip
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from io import BufferedIOBase
from urllib.parse import parse_qsl

import lz4.frame  # type: ignore[import-untyped]
from backports import zstd

from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.local import Context
from standins.clickhouse.wire import PASSWORD_VARIABLE, USER

RESERVED = frozenset(
    [
        "query",
        "database",
        "query_id",
        "session_id",
        "session_timeout",
        "session_check",
        "close_session",
        "default_format",
        "compress",
        "decompress",
        "wait_end_of_query",
        "buffer_size",
        "user",
        "password",
        "quota_key",
        "role",
        "stacktrace",
        "client_protocol_version",
        "enable_http_compression",
        "http_zlib_compression_level",
    ]
)
"""URL parameters that are no settings (or settings of the HTTP layer only)."""
MAX_BODY = 1 << 30
"""Bytes."""

Headers = Message
"""Names in any case."""


@dataclass(frozen=True)
class Parameters:
    """A request's URL parameters, sorted out."""

    query: str
    plain: Mapping[str, str]
    settings: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str, default: str = "") -> str:
        """A reserved parameter."""
        return self.plain.get(name, default)

    def context(self) -> Context:
        """Database, settings and query parameters."""
        return Context(self.get("database"), dict(self.settings), dict(self.params))


def read_parameters(query_string: str) -> Parameters:
    """Sort the parameters. Raises ClickHouseError 48 for what the sandbox does not speak."""
    pairs = dict(parse_qsl(query_string, keep_blank_values=True))
    for name in ("compress", "decompress"):
        if pairs.get(name) in ("1", "true"):
            raise ClickHouseError(48, f"{name}=1 (ClickHouse's own block compression) is not supported by the sandbox")
    settings = {k: v for k, v in pairs.items() if k not in RESERVED and not k.startswith("param_")}
    params = {k.removeprefix("param_"): v for k, v in pairs.items() if k.startswith("param_")}
    plain = {k: v for k, v in pairs.items() if k in RESERVED}
    return Parameters(pairs.get("query", ""), plain, settings, params)


def read_body(headers: Headers, stream: BufferedIOBase) -> bytes:
    """The whole body, decoded. Raises ValueError for a broken or too large one."""
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        raw = b"".join(_chunks(stream))
    else:
        length = int(headers.get("Content-Length") or 0)
        if not 0 <= length <= MAX_BODY:
            raise ValueError(f"Content-Length {length} is not between 0 and {MAX_BODY}")
        raw = stream.read(length)
        if len(raw) != length:
            raise ValueError(f"the body ended after {len(raw)} of {length} bytes")
    return _decoded(headers.get("Content-Encoding", "").lower(), raw)


def _chunks(stream: BufferedIOBase) -> list[bytes]:
    parts: list[bytes] = []
    total = 0
    while True:
        size = int(stream.readline().split(b";")[0], 16)
        if size == 0:
            while stream.readline() not in (b"\r\n", b"\n", b""):
                pass
            return parts
        total += size
        if total > MAX_BODY:
            raise ValueError(f"the body is larger than {MAX_BODY} bytes")
        part = stream.read(size)
        if len(part) != size:
            raise ValueError("the body ended inside a chunk")
        parts.append(part)
        stream.readline()


def _decoded(encoding: str, raw: bytes) -> bytes:
    if encoding in ("", "identity"):
        return raw
    if encoding == "gzip":
        return gzip.decompress(raw)
    if encoding == "lz4":
        return _all_lz4_frames(raw)
    if encoding == "zstd":
        return zstd.decompress(raw)
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


def encoded(accepted: str, body: bytes) -> tuple[str, bytes]:
    """(Content-Encoding, body) for an Accept-Encoding header: the first one that is known, or none."""
    for name in (part.split(";")[0].strip().lower() for part in accepted.split(",")):
        if name == "gzip":
            return name, gzip.compress(body, 1)
        if name == "lz4":
            return name, bytes(lz4.frame.compress(body))
        if name == "zstd":
            return name, zstd.compress(body, 1)
    return "", body


def check_credentials(headers: Headers, parameters: Mapping[str, str]) -> str:
    """The user's name. Raises ClickHouseError 516 when a password is set and the request has another."""
    user, password = _credentials(headers, parameters)
    wanted = os.environ.get(PASSWORD_VARIABLE, "")
    if wanted and (user != USER or not hmac.compare_digest(password.encode(), wanted.encode())):
        message = f"{user}: Authentication failed: password is incorrect, or there is no user with such name."
        raise ClickHouseError(516, message)
    return user


def _credentials(headers: Headers, parameters: Mapping[str, str]) -> tuple[str, str]:
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ClickHouseError(516, f"Invalid HTTP authentication: {error}") from error
        return user, password
    named = headers.get("X-ClickHouse-User")
    if named:
        return str(named), str(headers.get("X-ClickHouse-Key", ""))
    return parameters.get("user", "default"), parameters.get("password", "")
