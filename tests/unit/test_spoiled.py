"""Debts that cannot be read: they say which, whom they concern, and what to do; none is taken for no debt."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from include.scorecard_backfill.debts import Debt, unpayable
from include.scorecard_backfill.overview.owed import owed_line
from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.report import Outcome, build_report
from include.scorecard_backfill.spoiled import Spoiled, read_debt
from tests.kit import build

Json = dict[str, Any]

DEBT = build.debt(build.window(), build.table({0: "abc"}))
KEY = DEBT.window
JANUARY = DateRange(date(2026, 1, 1), date(2026, 1, 11))


def stored(**changes: Any) -> Json:
    """What is stored of the debt, with these fields changed."""
    return DEBT.to_json() | changes


def bad_day() -> Json:
    """A debt of which one day is none."""
    found = stored()
    found["before"][0]["days"] = {"2026-13-01": found["before"][0]["days"]["2026-01-01"]}
    return found


def test_a_debt_that_can_be_read_is_that_debt() -> None:
    assert read_debt(KEY, json.dumps(stored())) == DEBT


@pytest.mark.parametrize(
    ("value", "known", "why"),
    [
        ("{ broken", False, "is not JSON"),
        ([1], False, "list is there"),
        ({}, False, "kind None"),
        (stored(v=99), False, "its version is 99, this release reads"),
        (stored(since="never"), True, "since"),
        (stored(start="2026-01-99"), False, "start"),
        (stored(customer_id=7), False, "customer_id"),
        (bad_day(), True, "2026-13-01"),
        (stored(window="another"), True, "it is one of window another"),
    ],
)
def test_one_that_cannot_be_read_says_which_and_whom_it_concerns(value: object, known: bool, why: str) -> None:
    found = read_debt(KEY, value)
    assert isinstance(found, Spoiled)
    assert (found.customer_id, found.days) == (("acme", JANUARY) if known else ("", None))
    assert why in found.text
    assert KEY in found.text
    assert f"write-off {KEY} " in found.remedy


@pytest.mark.parametrize(
    ("days", "customers", "everybody", "concerned"),
    [
        (JANUARY, ["acme"], False, True),
        (JANUARY, ["globex"], False, False),
        (JANUARY, [], True, True),
        (DateRange(date(2026, 1, 11), date(2026, 2, 1)), [], True, False),
    ],
)
def test_it_stands_in_the_way_of_plans_that_may_owe_it(
    days: DateRange, customers: list[str], everybody: bool, concerned: bool
) -> None:
    assert Spoiled(KEY, "why", "acme", JANUARY).concerns(days, customers, everybody=everybody) is concerned
    # One that names nobody stands in the way of every plan.
    assert Spoiled(KEY, "why").concerns(days, customers, everybody=everybody)


def test_the_report_names_it_and_a_window_that_owes_it_is_not_called_not_started() -> None:
    window = build.window()
    found = build_report(Outcome(windows=[window], spoiled=[Spoiled(KEY, "its version is 99")]))
    assert found.debts[0].startswith(f"the debt of window {KEY} (customer and days not known) cannot be read")
    assert found.windows[0].status == "deleted, not yet reindexed"


def test_a_debt_whose_database_is_gone_is_named_with_the_way_out() -> None:
    assert unpayable([DEBT], {"acme_voice"}) == []
    (text,) = unpayable([DEBT], {"globex_voice"})
    assert "its database acme_voice is not on the cluster any more" in text
    assert f"python -m backfill write-off {KEY} " in text


def test_a_line_of_the_list_has_the_digest_of_exactly_what_is_stored() -> None:
    text = json.dumps(stored())
    line, spaced = owed_line(KEY, text), owed_line(KEY, text + " ")
    assert line is not None
    assert spaced is not None
    assert (line.label, line.remedy) == ("acme 2026-01-01..2026-01-11", "")
    assert line.digest != spaced.digest
    assert owed_line(KEY, '"paid"') is None
    assert isinstance(read_debt(KEY, text), Debt)
