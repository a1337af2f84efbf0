"""Whole partitions of a range of days."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.planning.partitions import covered_partitions
from include.scorecard_backfill.planning.windows import DateRange

TIME = "scorecard_time"
days = st.dates(date(2023, 1, 1), date(2028, 12, 31))


@pytest.mark.parametrize(
    ("key", "start", "end", "ids"),
    [
        ("toYYYYMM(scorecard_time)", "2026-01-01", "2026-03-01", ("202601", "202602")),
        ("(toYYYYMM(`scorecard_time`))", "2024-02-01", "2024-03-01", ("202402",)),
        ("toStartOfMonth(scorecard_time)", "2026-12-01", "2027-01-01", ("20261201",)),
        ("toYYYYMMDD(scorecard_time)", "2024-02-28", "2024-03-01", ("20240228", "20240229")),
        ("toDate(scorecard_time)", "2026-01-31", "2026-02-01", ("20260131",)),
    ],
)
def test_ids_of_supported_keys(key: str, start: str, end: str, ids: tuple[str, ...]) -> None:
    assert covered_partitions(key, TIME, DateRange.parse(start, end)) == ids


@pytest.mark.parametrize(
    "key",
    [
        "",
        "tuple()",
        "toYYYYMM(updated_at)",
        "(toYYYYMM(scorecard_time), customer_id)",
        "toMonday(scorecard_time)",
        "toYYYYMM(toDate(scorecard_time))",
        "toYYYYMM(scorecard_time) + 1",
    ],
)
def test_other_keys_are_never_dropped(key: str) -> None:
    assert covered_partitions(key, TIME, DateRange.parse("2026-01-01", "2026-02-01")) is None


@given(days, st.integers(1, 100))
def test_a_monthly_key_needs_whole_months(start: date, length: int) -> None:
    whole = DateRange(start, start + timedelta(days=length))
    ids = covered_partitions(f"toYYYYMM({TIME})", TIME, whole)
    if ids is None:
        assert whole.start.day != 1 or whole.end.day != 1
    else:
        assert {f"{day:%Y%m}" for day in whole.dates()} == set(ids)
        assert whole.start.day == whole.end.day == 1
