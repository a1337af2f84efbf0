"""Records for tests, made from a few words: windows, counts by day, debts. Pure: nothing of Airflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from include.scorecard_backfill.debts import Debt
from include.scorecard_backfill.names import sanitize_database_name, window_key
from include.scorecard_backfill.records import Counted, Database, Failure, Numbers, TableDays, Window
from include.scorecard_backfill.sql.census import BUCKETS

START = date(2026, 1, 1)
TABLE = ("acme_voice", "scorecard")
SINCE = datetime(2026, 2, 3, 4, 5, tzinfo=UTC)


def day(number: int) -> str:
    """ISO day; number 0 is START."""
    return (START + timedelta(days=number)).isoformat()


def hashed(row: object) -> int:
    """A 64-bit number of a row's id, the same in every process (FNV-1a)."""
    value = 0xCBF29CE484222325
    for byte in str(row).encode():
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value


def numbers(ids: Iterable[object], meant: Iterable[object] | None = ()) -> Numbers:
    """Numbers of one day by its rows' ids (one that is there twice is doubled); ``meant`` None: no predicate."""
    rows = list(ids)
    going = None if meant is None else set(meant)
    staying = [hashed(row) for row in set(rows) if going is None or row not in going]
    return Numbers(
        rows=len(rows),
        conversations=len(set(rows)),
        ids=len(set(rows)),
        meant=None if going is None else sum(row in going for row in rows),
        fingerprint=sum(staying) % 2**64,
        buckets=tuple(sum(one % BUCKETS == bucket for one in staying) for bucket in range(BUCKETS)),
    )


def table(
    days: Mapping[int, Iterable[object]], meant: Iterable[object] | None = (), name: tuple[str, str] = TABLE
) -> TableDays:
    """Counts of a table by day number; days without rows are not named, as a census has it."""
    going = None if meant is None else set(meant)
    counted = {day(n): numbers(rows, going) for n, rows in ((n, list(rows)) for n, rows in days.items()) if rows}
    return TableDays(database=name[0], table=name[1], days=counted)


def window(start: int = 0, days: int = 10, customer: str = "acme", run_id: str = "run1", **changes: Any) -> Window:
    """A window of a customer with one profile, `voice`."""
    first, last = START + timedelta(days=start), START + timedelta(days=start + days)
    base = Window(
        key=window_key(
            cluster="demo", run_id=run_id, customer_id=customer, start=first.isoformat(), end=last.isoformat()
        ),
        cluster="demo",
        customer_id=customer,
        start=first,
        end=last,
        mode="cleanup",
        databases=(database(customer),),
        conversations=1_000,
        rows={"scorecard": 10},
    )
    return base.model_copy(update=changes)


def database(customer: str = "acme", profile: str = "voice") -> Database:
    """A customer's database of a profile with both tables."""
    return Database(name=sanitize_database_name(customer, profile), profile_id=profile, tables=("score", "scorecard"))


def counted(of: Window, *tables: TableDays) -> Counted:
    """What was there before a window, with these tables."""
    return Counted(key=of.key, now=tables, before=tables, server_time=1_770_000_000.0)


def failure(of: Window, cause: str, **changes: Any) -> Failure:
    """How a window failed."""
    base = Failure(key=of.key, stage="wait_workflows", cause=cause, reason="why it failed")
    return base.model_copy(update=changes)


def debt(of: Window, *tables: TableDays, **changes: Any) -> Debt:
    """What a window owes."""
    base = Debt(
        window=of.key,
        cluster=of.cluster,
        customer_id=of.customer_id,
        databases=of.databases,
        start=of.start,
        end=of.end,
        before=tables,
        run_id="run1",
        since=SINCE,
    )
    return base.model_copy(update=changes)
