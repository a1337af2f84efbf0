"""Requests between the nodes of one embedded cluster: JSON over HTTP on paths below /internal/."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from standins.clickhouse.errors import from_text
from standins.clickhouse.topology import NodeAddress

USER = "admin"
PASSWORD_VARIABLE = "SANDBOX_CLICKHOUSE_PASSWORD"
"""Environment variable with the password of user `admin`; unset or empty: everybody is let in."""

CODE_HEADER = "X-ClickHouse-Exception-Code"
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 600.0
"""Longest wait for another node; a dead one refuses at once, so this only ends a hang."""


class Unreachable(Exception):
    """The other node gave no answer at all: refused, reset or too late."""


@dataclass(frozen=True)
class ReadAnswer:
    """Rows in Native format; `omitted` when a fault makes the node leave them out without a word."""

    body: bytes
    omitted: bool = False


def call(node: NodeAddress, path: str, message: Mapping[str, Any], seconds: float = ANSWER_SECONDS) -> ReadAnswer:
    """Send one message. Raises ClickHouseError that the node answered, or Unreachable."""
    connection = http.client.HTTPConnection(node.host, node.port, timeout=CONNECT_SECONDS)
    headers = {"X-ClickHouse-User": USER, "X-ClickHouse-Key": os.environ.get(PASSWORD_VARIABLE, "")}
    try:
        connection.connect()
        connection.sock.settimeout(seconds)
        connection.request("POST", path, json.dumps(message).encode(), headers)
        answer = connection.getresponse()
        body = answer.read()
        code = answer.getheader(CODE_HEADER)
        status = answer.status
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{node.name} ({node.host}:{node.port}): {error!r}") from error
    finally:
        connection.close()
    if code is not None:
        raise from_text(body.decode(errors="replace"))
    if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        raise Unreachable(f"{node.name} ({node.host}:{node.port}): {body.decode(errors='replace')}")
    if status != http.HTTPStatus.OK:
        raise Unreachable(f"{node.name} ({node.host}:{node.port}): HTTP {status} {body[:200]!r}")
    return ReadAnswer(body, answer.getheader("X-Sandbox-Omitted") == "1")


def is_alive(node: NodeAddress) -> bool:
    """Whether the node answers at all, within a second."""
    connection = http.client.HTTPConnection(node.host, node.port, timeout=1.0)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
