"""What a stage of a window must not forget: Airflow's task state store, without its expiry, typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from airflow.sdk.execution_time.context import NEVER_EXPIRE

COUNTED = "counted"
"""Record `counted`: what was there before anything was changed."""

SNAPSHOTS = "snapshots"
"""Names of the side tables of a window."""

GENERATION = "generation"
"""Number of the newest DELETE of a window."""

MADE = "made"
"""Attempt and creation of the newest Job: a Job that is deleted leaves no trace at the API server."""

FAILED = "failed"
"""Record `failure`: how the last try of this stage ended for good; what a clear may repeat is decided by it."""

FROZEN = "frozen"
"""The plan or the parts as they were made first."""


class Store(Protocol):
    """Key/value of one window's stage that survives retries and clears."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value."""

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""


class RunStore:
    """Airflow's task state store without its expiry: what was sent is known for as long as the run can be cleared.

    The default ([state_store] default_retention_days) would forget after a month that a DELETE was sent.
    """

    def __init__(self, context: Mapping[str, Any]) -> None:
        self._store = context["task_state_store"]

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        return self._store.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Keep a value for good."""
        self._store.set(key, value, retention=NEVER_EXPIRE)
