"""Which customers and months a run has verified."""

from __future__ import annotations

from include.scorecard_backfill.months import verified_months


def row(customer: str, start: str, end: str, status: str = "verified") -> dict[str, str]:
    return {"customer_id": customer, "start": start, "end": end, "status": status}


def test_windows_of_a_month_are_added_up() -> None:
    rows = [row("acme", "2026-02-01", "2026-02-11"), row("acme", "2026-02-11", "2026-03-01")]
    (found,) = verified_months({"windows": rows})

    days = {"start": "2026-02-01", "end": "2026-03-01", "days": 28, "of": 28, "whole": True}
    assert found.model_dump() == {"customer": "acme", "month": "2026-02", **days}


def test_a_window_over_two_months_is_two_entries_and_parts_of_months_say_so() -> None:
    found = verified_months({"windows": [row("acme", "2025-12-30", "2026-01-02")]})

    assert [(f.month, f.start, f.end, f.days, f.of, f.whole) for f in found] == [
        ("2025-12", "2025-12-30", "2026-01-01", 2, 31, False),
        ("2026-01", "2026-01-01", "2026-01-02", 1, 31, False),
    ]


def test_a_month_with_a_window_that_is_not_verified_is_not_announced() -> None:
    rows = [
        row("acme", "2026-01-01", "2026-01-11"),
        row("acme", "2026-01-11", "2026-02-01", "failed"),
        row("globex", "2026-01-01", "2026-02-01"),
    ]
    assert [f.customer for f in verified_months({"windows": rows})] == ["globex"]
    assert verified_months({}) == []
