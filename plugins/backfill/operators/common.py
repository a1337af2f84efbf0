"""What the stages share: the records that they exchange and the look at what other stages left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from airflow.sdk.exceptions import AirflowException
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from backfill.groups import PASSES, Pass, pass_of
from backfill.hooks.clickhouse import BackfillClickHouse, days_of_cluster, sum_days
from backfill.records import parse, parse_record, settled
from backfill.triggers.mutations import slices
from include.scorecard_backfill.verdicts.counts import Host, totals, unsettled

Json = dict[str, Any]

STAGES = ("admit", "delete", "wait_mutations", "reindex", "wait_workflows", "verify")

SETTLE_TRIES = 12
SETTLE_SECONDS = 5.0
"""Replicas of a shard may differ for moments; a worker waits one minute for them and then lets Airflow retry."""


class Store(Protocol):
    """Key/value of one window's stage that survives retries and clears."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value."""

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""


class RunStore:
    """Airflow's task state store without its expiry: what was sent must be known for as long as the run can be cleared.

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


class StageError(AirflowException):
    """A stage cannot do its work now; Airflow retries it."""


def group_of(task_id: str) -> str:
    """Return the task group of a stage's task id (``windows.delete`` -> ``windows``)."""
    return task_id.rsplit(".", 1)[0]


def sibling(context: Mapping[str, Any], stage: str) -> Json:
    """Return what another stage of the same window returned, {} when it has not."""
    ti = context["ti"]
    found = ti.xcom_pull(task_ids=f"{group_of(ti.task_id)}.{stage}", map_indexes=ti.map_index)
    return parse_record(found)


def already(context: Mapping[str, Any], window: Mapping[str, Any]) -> str:
    """Return ``verified`` or ``cut`` when this very window needs nothing more in this run, else ''."""
    ti = context["ti"]
    cut_by = pass_of(group_of(ti.task_id)).cut_by
    cut = ti.xcom_pull(task_ids=cut_by, key="cut") if cut_by else None
    return settled(window["key"], sibling(context, "verify"), cut)


def settled_day_counts(
    hook: BackfillClickHouse, window: Mapping[str, Any], hosts: Sequence[Host]
) -> dict[tuple[str, str], dict[str, int]]:
    """Return rows per (database, table) and ISO day, once all replicas agree. Raises StageError when they do not."""
    parts = slices(dict(window))
    for attempt in range(SETTLE_TRIES):
        counts = hook.day_counts(parts, hosts)
        if totals(sum_days(counts), hosts) is not None:
            return days_of_cluster(counts, hosts)
        if attempt < SETTLE_TRIES - 1:
            time.sleep(SETTLE_SECONDS)
    raise StageError(
        f"{window['label']}: {unsettled(sum_days(counts), hosts)}; the count before is not known, nothing was deleted"
    )


def planned(context: Mapping[str, Any]) -> list[list[Json]]:
    """Return the windows of each pass, in the order of PASSES; [] for what was not reached."""
    return [windows_of(context, one) for one in PASSES]


def windows_of(context: Mapping[str, Any], one: Pass) -> list[Json]:
    """Return the windows of a pass, [] when it was not reached."""
    return list(parse(context["ti"].xcom_pull(task_ids=one.source, key="return_value") or []))
