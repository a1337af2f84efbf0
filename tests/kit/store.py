"""Stands for Airflow's task state store."""

from __future__ import annotations

import json
from typing import Any

from airflow.sdk.execution_time.context import NEVER_EXPIRE


def strict(value: Any) -> str:
    """Return the JSON text. Airflow refuses what only Python's encoder takes: a tuple, a key that is no text."""
    text = json.dumps(value)
    assert json.loads(text) == value, f"not a JSON value: {value!r}"
    return text


class Store:
    """JSON in, JSON out; what is kept must never expire."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value."""
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Keep a value."""
        assert retention is NEVER_EXPIRE
        self.values[key] = strict(value)


class AssetState:
    """Stands for the state store of one asset: it outlives runs; JSON in, JSON out."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value."""
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        """Keep a value; None is refused, as by Airflow."""
        assert value is not None
        self.values[key] = strict(value)

    def delete(self, key: str) -> None:
        """Forget a value."""
        self.values.pop(key, None)

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return a value."""
        return self.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.set(key, value)
