"""What a window leaves in XComs is bounded: bytes for each of its days and tables, and little besides."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest

from include.scorecard_backfill.records import (
    Counted,
    Database,
    Deleted,
    MutationsGone,
    Numbers,
    Proof,
    Reindexed,
    Sent,
    TableBalance,
    TableDays,
    Verified,
    Window,
    WorkflowsClosed,
)
from include.scorecard_backfill.sql.census import BUCKETS

KEY = "0123456789abcdef"
FIRST = date(2026, 1, 1)
HOSTS = tuple(f"clickhouse-conversations-{shard}-{replica}" for shard in range(3) for replica in range(3))
TABLES = ("scorecard", "score")

A_DAY = 1_300
"""Bytes for each day and table: twice the numbers of the count (as they are now, as they are to be judged)."""

BESIDES = 4_000
"""Bytes of a window whatever its days are."""

PLANNED = 500
"""Bytes of a window in the plan, which is read for every window that starts on a worker."""


def window(days: int) -> Window:
    """A planned window of the biggest kind of customer."""
    return Window(
        key=KEY,
        cluster="us-east-1-prod",
        customer_id="acme-corporation",
        start=FIRST,
        end=FIRST + timedelta(days=days),
        mode="cleanup",
        databases=(Database(name="acme_corporation_voice", profile_id="voice", tables=TABLES),),
        conversations=140_000 * days,
        rows=dict.fromkeys(TABLES, 5000000 * days),
    )


def left_by(planned: Window) -> list[str]:
    """The records of a window from delete to verify, as JSON."""
    days = [planned.start + timedelta(days=number) for number in range((planned.end - planned.start).days)]
    numbers = Numbers(
        rows=5_000_000,
        conversations=140_000,
        ids=5_000_000,
        meant=500_000,
        fingerprint=2**64 - 1,
        buckets=(70_312,) * BUCKETS,
    )
    counted = tuple(
        TableDays(database="acme_corporation_voice", table=table, days={day.isoformat(): numbers for day in days})
        for table in TABLES
    )
    sent = tuple(Sent(database="acme_corporation_voice", table=t, at=1.7e9, accepted=HOSTS) for t in TABLES)
    balances = tuple(
        TableBalance(
            database="acme_corporation_voice",
            table=t,
            before=5_000_000,
            meant=500_000,
            after=4_500_000,
            removed=500_000,
            short=0,
            over=0,
            doubled=0,
            moved=0,
            exact=True,
        )
        for t in TABLES
    )
    workflow = f"reindexconversations-acme-corporation-voice-{KEY * 2}"
    records = (
        Deleted(
            key=KEY,
            window=planned,
            status="deleted",
            counted=Counted(key=KEY, now=counted, before=counted, server_time=1.7e9),
            generation=1,
            sent=sent,
        ),
        MutationsGone(key=KEY, status="gone", generation=1, hosts=HOSTS),
        Reindexed(key=KEY, window=planned, status="reindexed", attempt=1, workflow_ids=(workflow,)),
        WorkflowsClosed(key=KEY, status="completed", attempt=1, workflow_ids=(workflow,)),
        Verified(
            key=KEY,
            status="verified",
            proof=Proof(tables=balances, hosts=HOSTS, statements=2, workflows=1, accounted=True),
        ),
    )
    return [json.dumps(record.to_json()) for record in records]


@pytest.mark.parametrize("days", [1, 5, 31])
def test_a_window_leaves_so_many_bytes(days: int) -> None:
    total = sum(len(text) for text in left_by(window(days)))
    assert total <= BESIDES + A_DAY * days * len(TABLES)


def test_the_plan_has_so_many_bytes_a_window() -> None:
    assert len(json.dumps(window(31).to_json())) <= PLANNED
