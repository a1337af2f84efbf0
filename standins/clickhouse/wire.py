"""Requests between the nodes of one embedded cluster: JSON over HTTP on paths below /internal/."""

from __future__ import annotations

import os
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import urllib3

from standins.clickhouse.errors import from_text
from standins.clickhouse.topology import NodeAddress

USER = "admin"
PASSWORD_VARIABLE = "SANDBOX_CLICKHOUSE_PASSWORD"
"""Environment variable with the password of user `admin`; unset or empty: everybody is let in."""

CODE_HEADER = "X-ClickHouse-Exception-Code"
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 600.0
"""Longest wait for another node; a dead one refuses at once, so this only ends a hang."""
_POOL = urllib3.PoolManager(maxsize=64)


class Unreachable(Exception):
    """The other node gave no answer at all: refused, reset or too late."""


def call(node: NodeAddress, path: str, message: Mapping[str, Any], seconds: float = ANSWER_SECONDS) -> bytes:
    """Send one message; returns the answer's body. Raises ClickHouseError that the node answered, or Unreachable."""
    headers = urllib3.make_headers(basic_auth=f"{USER}:{os.environ.get(PASSWORD_VARIABLE, '')}")
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=seconds)
    try:
        answer = _POOL.request("POST", node.url + path, json=message, headers=headers, timeout=timeout, retries=False)
    except urllib3.exceptions.HTTPError as error:
        raise Unreachable(f"{node.name} ({node.url}): {error!r}") from error
    if CODE_HEADER in answer.headers:
        raise from_text(answer.data.decode(errors="replace"))
    if answer.status != HTTPStatus.OK:
        raise Unreachable(f"{node.name} ({node.url}): HTTP {answer.status} {answer.data[:200]!r}")
    return answer.data


def is_alive(node: NodeAddress) -> bool:
    """Whether the node answers at all, within a second."""
    try:
        return _POOL.request("GET", f"{node.url}/ping", timeout=1.0, retries=False).status == HTTPStatus.OK
    except urllib3.exceptions.HTTPError:
        return False
