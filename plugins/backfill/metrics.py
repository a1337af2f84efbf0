"""Figures through Airflow's own metrics (StatsD or OpenTelemetry, as airflow.cfg says). They never fail a stage."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import Any

from airflow.sdk.configuration import conf
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils

WINDOWS = "scorecard_backfill.windows"
REMOVED = "scorecard_backfill.rows_removed"
SECONDS = "scorecard_backfill.stage_seconds"
WAITING = "scorecard_backfill.waiting"

log = logging.getLogger(__name__)

_ready_in = 0


def _emit(send: Callable[..., None], name: str, value: Any, **tags: str) -> None:
    global _ready_in
    try:
        if _ready_in != os.getpid():
            # A triggerer sets up the server's copy of this module only, a worker the one that tasks use.
            legacy = conf.getboolean("metrics", "legacy_names_on", fallback=True)
            stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=legacy)
            _ready_in = os.getpid()
        send(name, value, tags=tags)
    except Exception:
        log.debug("metric %s could not be sent", name, exc_info=True)


def windows_by_state(cluster: str, counts: Mapping[Any, int]) -> None:
    """Say how many windows of the newest run are in each state."""
    for state, count in counts.items():
        _emit(stats.gauge, WINDOWS, count, cluster=cluster, state=state)


def rows_removed(cluster: str, table: str, rows: int) -> None:
    """Count rows that a verified window has lost."""
    if rows > 0:
        _emit(stats.incr, REMOVED, rows, cluster=cluster, table=table)


def stage_seconds(cluster: str, stage: str, result: str, seconds: float) -> None:
    """Say how long a stage of a window took. ``result``: done, failed, or woke (a worker goes on)."""
    _emit(stats.timing, SECONDS, timedelta(seconds=seconds), cluster=cluster, stage=stage, result=result)


@contextmanager
def measured(cluster: str, stage: str) -> Iterator[None]:
    """Time a stage that a worker does; one that defers has not ended and is not counted."""
    began = monotonic()
    result = "failed"
    try:
        yield
        result = "done"
    except Exception:
        stage_seconds(cluster, stage, result, monotonic() - began)
        raise
    stage_seconds(cluster, stage, result, monotonic() - began)


class Waiting:
    """How many waits of this process wait for what. Each triggerer tells its own: add them up over ``host``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at: dict[Hashable, tuple[str, str, str]] = {}
        self._host = socket.gethostname()

    def set(self, who: Hashable, cluster: str, stage: str, word: str) -> None:
        """Say what a wait waits for now."""
        self._change(who, (cluster, stage, word))

    def drop(self, who: Hashable) -> None:
        """Say that a wait has ended."""
        self._change(who, None)

    def _change(self, who: Hashable, new: tuple[str, str, str] | None) -> None:
        with self._lock:
            old = self._at.pop(who, None)
            if new is not None:
                self._at[who] = new
            if old == new:
                return
            counts = Counter(self._at.values())
        for place in (old, new):
            if place is not None:
                cluster, stage, word = place
                _emit(stats.gauge, WAITING, counts[place], cluster=cluster, stage=stage, reason=word, host=self._host)


waiting = Waiting()
