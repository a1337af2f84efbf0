"""Clients that are made once: what a connection costs at its start is not what the matrix is about.

A client of ClickHouse asks three questions before its first statement, and one of Kubernetes reads the machine's
certificates; the product makes one for each piece of work, which was half of the time of a scene.
"""

from __future__ import annotations

import ssl
from collections import defaultdict
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.clickhousedb.hooks.clickhouse import ClickHouseHook
from kubernetes_asyncio.client import rest


class Pool:
    """ClickHouse's clients by their arguments: one that is closed is given to the next who asks."""

    def __init__(self) -> None:
        self._idle: dict[str, list[Any]] = defaultdict(list)
        self._make = ClickHouseHook.get_client
        self._closes: list[Any] = []

    def get_client(self, hook: ClickHouseHook) -> Any:
        """Stand for the hook's method."""
        idle = self._idle[repr(sorted(hook._get_client_kwargs().items()))]
        if idle:
            return idle.pop()
        client = self._make(hook)
        self._closes.append(client.close)
        client.close = lambda: idle.append(client)  # type: ignore[method-assign]
        return client

    def close(self) -> None:
        """Close all of them."""
        for close in self._closes:
            close()


def install(pool: Pool, patch: pytest.MonkeyPatch) -> None:
    """Take the place of both libraries' own ways."""
    patch.setattr(ClickHouseHook, "get_client", lambda hook: pool.get_client(hook))
    patch.setattr(
        rest, "ssl", SimpleNamespace(**vars(ssl) | {"create_default_context": cache(ssl.create_default_context)})
    )
