"""What a stage of a window must not forget: Airflow's task state store, without its expiry, typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from airflow.sdk.execution_time.context import NEVER_EXPIRE

from include.scorecard_backfill.names import window_key
from include.scorecard_backfill.records import Window, window_of

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


class WindowStore:
    """What a stage keeps of one window, and of no other that has had the same map index under another plan of the run.

    The names of its values hold the window's key. Earlier releases kept them by the bare name: these are read only for
    a window whose key they have made, and a record that names a window only by that one.
    """

    def __init__(self, context: Mapping[str, Any], window: Window) -> None:
        self._store = RunStore(context)
        self._window = window.key
        self._earlier = window.key == window_key(
            cluster=window.cluster,
            run_id=context["ti"].run_id,
            customer_id=window.customer_id,
            start=window.start.isoformat(),
            end=window.end.isoformat(),
        )

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value of this window, or the default."""
        found = self._store.get(name_of(key, self._window))
        if found is not None or not self._earlier:
            return default if found is None else found
        kept = self._store.get(key, default)
        return kept if window_of(kept) in ("", self._window) else default

    def set(self, key: str, value: Any) -> None:
        """Keep a value of this window for good."""
        self._store.set(name_of(key, self._window), value)


def name_of(key: str, window: str) -> str:
    """Return the name under which a window's value is kept; ``window`` is its key."""
    return f"{key}@{window}"
