"""What a wait tells people and metrics beside its work; nothing of it can change or hold up the wait."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

from backfill import metrics
from backfill.groups import group_named
from backfill.kit.look import Done, Failed, Look, Wait
from backfill.notify.tell import run_of, tell, tell_later
from backfill.settings import DAG_ID_PREFIX, cluster_config
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.notices import failure_notice, wait_notice
from include.scorecard_backfill.records import Failure, Verified, Window

log = logging.getLogger(__name__)


class Watch:
    """Watches one wait. ``began`` is when this process took it up: a restart of the triggerer begins anew."""

    def __init__(self, config: ClusterConfig, ti: Any, stage: str, label: str, window: Window | None) -> None:
        self._config = config
        self._ti = ti
        self._stage = stage
        self._label = label or stage
        self._window = window
        self._began = monotonic()
        self._who = (getattr(ti, "run_id", ""), getattr(ti, "task_id", stage), getattr(ti, "map_index", -1))
        self._told = False

    def waits(self, look: Wait) -> None:
        """Count what is waited for, and tell when it takes long; once in a try."""
        metrics.waiting.set(self._who, self._config.name, self._stage, look.word)
        if self._told or self._ti is None or not self._config.notify.channels:
            return
        try:
            limit = self._config.notify.waits_longer_than_minutes
            minutes = (monotonic() - self._began) / 60
            run = run_of(self._ti, self._config.name)
            notice = wait_notice(run, self._label, self._stage, look.word, look.text, minutes, limit)
            self._told = notice is not None
            tell_later(self._config, notice)
        except Exception as error:
            log.warning("a long wait could not be told: %s", type(error).__name__)

    def ended(self, look: Look | None, *, on_worker: bool = False) -> None:
        """Time the stage, count removed rows, tell a failure. ``on_worker``: a worker ends the task and tells it."""
        metrics.waiting.drop(self._who)
        if look is None:
            return
        result = "done" if isinstance(look, Done) else "failed" if isinstance(look, Failed) else "woke"
        metrics.stage_seconds(self._config.name, self._stage, result, monotonic() - self._began)
        if isinstance(look, Done) and isinstance(look.result, Verified):
            self._removed(look.result)
        if isinstance(look, Failed) and not on_worker and self._ti is not None and self._config.notify.channels:
            try:
                cut = can_be_cut(self._ti.task_id, self._window)
                run = run_of(self._ti, self._config.name)
                tell_later(self._config, failure_notice(run, self._label, look.failure, cut=cut))
            except Exception as error:
                log.warning("a failure could not be told: %s", type(error).__name__)

    def _removed(self, verified: Verified) -> None:
        for table in verified.proof.tables if verified.proof else ():
            metrics.rows_removed(self._config.name, table.table, table.removed)


def can_be_cut(task_id: str, window: Window | None) -> bool:
    """Return True when a later pass cuts a window that fails by its size."""
    group = task_id.rsplit(".", 1)[0]
    return window is not None and window.range.days > 1 and "." in task_id and bool(group_named(group).cut_by)


def tell_failure(ti: Any, failure: Failure, window: Window | None) -> None:
    """Tell from a worker that a stage has failed for good. Never raises."""
    try:
        config = cluster_config(str(ti.dag_id).removeprefix(DAG_ID_PREFIX))
        if config.notify.channels:
            place = f"{ti.task_id}[{ti.map_index}]" if ti.map_index >= 0 else ti.task_id
            label = window.label if window is not None else place
            cut = can_be_cut(ti.task_id, window)
            tell(config, failure_notice(run_of(ti, config.name), label, failure, cut=cut))
    except Exception as error:
        log.warning("a failure could not be told: %s", type(error).__name__)
