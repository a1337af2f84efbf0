"""The count before anything is changed: made once for each window, kept, and never made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenacity import wait_fixed

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit.retries import until_good
from backfill.kit.stages import StageError
from backfill.kit.store import COUNTED, WindowStore
from include.scorecard_backfill.proof import without
from include.scorecard_backfill.records import Counted, Numbers, TableDays, TableName, Window
from include.scorecard_backfill.verdicts.census import Census, DayTallies
from include.scorecard_backfill.verdicts.counts import Host

SETTLE_TRIES = 12
SETTLE_SECONDS = 5.0
"""Replicas of a shard may differ for moments; a worker waits one minute for them and then lets Airflow try again."""


def table_days(census: Census) -> tuple[TableDays, ...]:
    """Return the numbers of a settled census as a record."""
    return days_record(census.days)


def days_record(tables: Mapping[TableName, DayTallies]) -> tuple[TableDays, ...]:
    """Return numbers by table and day as a record, in the order of the tables' names."""
    return tuple(
        TableDays(
            database=database,
            table=table,
            days={
                day: Numbers(
                    rows=n.rows,
                    conversations=n.conversations,
                    ids=n.ids,
                    meant=n.meant,
                    fingerprint=n.fingerprint,
                    buckets=n.buckets,
                )
                for day, n in days.items()
            },
        )
        for (database, table), days in sorted(tables.items())
    )


def counted_once(context: Mapping[str, Any], window: Window, hook: BackfillClickHouse, log: Any) -> Counted:
    """Return what was there before; counted at the first call of a window's stage and kept for every later one.

    Raises:
        StageError: the replicas do not agree, so that nothing may be deleted; Airflow tries again.
    """
    store = WindowStore(context, window)
    kept = store.get(COUNTED)
    if kept:
        return Counted.from_json(kept)
    server_time = hook.server_time().timestamp()
    now = _settled(window, hook, hook.topology())
    counted = Counted(
        key=window.key,
        now=now,
        before=without(now, {table.name: table for table in window.before}),
        server_time=server_time,
    )
    for table in counted.before:
        log.info("%s.%s: %d rows before", table.database, table.table, table.rows)
    store.set(COUNTED, counted.to_json())
    return counted


def _settled(window: Window, hook: BackfillClickHouse, hosts: Sequence[Host]) -> tuple[TableDays, ...]:
    def count() -> tuple[str, tuple[TableDays, ...]]:
        # Rows that a Distributed table has accepted and not sent would arrive after the DELETE, uncounted.
        if held := "; ".join(hook.drain_spool(window, hosts)):
            return held, ()
        census = hook.census(list(window.slices()), hosts)
        return census.unsettled, () if census.unsettled else table_days(census)

    problem, counted = until_good(
        count, good=lambda found: not found[0], tries=SETTLE_TRIES, pause=wait_fixed(SETTLE_SECONDS)
    )
    if problem:
        raise StageError(f"{window.label}: {problem}; the count before is not known, nothing was deleted")
    return counted
