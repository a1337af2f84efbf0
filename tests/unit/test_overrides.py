"""Overrides: an author and an expiry, or they hold everything back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.scorecard_backfill.planning.overrides import OverrideError, in_force

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)


def text(**changes: Any) -> str:
    return json.dumps({"author": "jane", "until": "2026-01-11T00:00:00Z"} | changes)


def test_in_force_until_its_end() -> None:
    override = in_force(text(max_parallel=2, reason="deploy"), NOW)
    assert override is not None
    assert override.max_parallel == 2
    assert override.text == "by jane until 2026-01-11T00:00+00:00: deploy"
    assert in_force(text(), NOW + timedelta(days=1)) is None


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_no_override(empty: str | None) -> None:
    assert in_force(empty, NOW) is None


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ("{", "JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("9" * 5_000, "JSON"),
        ("[]", "write it like"),
        (json.dumps({"until": "2026-01-11T00:00:00Z"}), "author"),
        (json.dumps({"author": "jane"}), "until"),
        (text(until="2026-01-11T00:00:00"), "until"),
        (text(until="2026-03-11T00:00:00Z"), "14 days"),
        (text(paus=True), "paus"),
        (text(max_parallel=0), "max_parallel"),
        (text(max_parallel="2"), "max_parallel"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_field(bad: str, named: str) -> None:
    with pytest.raises(OverrideError, match=named):
        in_force(bad, NOW)
