"""What a run does with what was sent: dates, customers, mode, and where each value came from."""

from __future__ import annotations

import doctest
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.config import (
    AdmissionConfig,
    AdmissionProfile,
    ClusterConfig,
    ScheduleConfig,
    WindowsConfig,
)
from include.scorecard_backfill.params import resolve as params
from include.scorecard_backfill.params.resolve import (
    MAX_RANGE_DAYS,
    EffectiveParams,
    ParamsError,
    RunParams,
    RunType,
    effective,
)
from include.scorecard_backfill.planning.windows import previous_month

CLUSTER = ClusterConfig(
    name="demo",
    timezone="America/New_York",
    admission=AdmissionConfig(max_parallel=7, max_failures=9, weekend=AdmissionProfile(max_parallel=11)),
    windows=WindowsConfig(mode="5d"),
)
NOW = datetime(2026, 3, 4, 6, tzinfo=UTC)  # a Wednesday
JANUARY: dict[str, Any] = {"customers": ["acme"], "start_date": "2026-01-01", "end_date": "2026-02-01"}


def resolved(
    sent: dict[str, Any], *, run_type: str = "manual", run_after: datetime = NOW, cluster: ClusterConfig = CLUSTER
) -> EffectiveParams:
    return effective(RunParams.read(sent), run_type=run_type, run_after=run_after, cluster=cluster, given=sent)


def problems(sent: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(ParamsError) as caught:
        resolved(sent, **changes)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return str(caught.value)


def test_doctests_hold() -> None:
    assert doctest.testmod(params).failed == 0


def test_what_was_sent_is_what_runs() -> None:
    run = resolved(
        {**JANUARY, "mode": "cleanup", "window": "1d", "max_parallel": 3, "max_failures": 2, "overlap": True}
    )
    assert (run.range.label, run.customers, run.all_customers) == ("2026-01-01..2026-02-01", ("acme",), False)
    assert (run.mode, run.window, run.max_parallel, run.max_failures, run.overlap) == ("cleanup", "1d", 3, 2, True)
    assert (run.destructive, run.require_approval) == (True, True)
    assert run.sources["mode"] == run.sources["max_parallel"] == "form"
    assert run.sources["dry_run"] == "default"


def test_what_was_left_empty_comes_from_the_cluster() -> None:
    run = resolved(JANUARY)
    assert (run.window, run.max_parallel, run.max_failures) == ("5d", 7, 9)
    assert {run.sources[name] for name in ("window", "max_parallel", "max_failures")} == {"cluster"}


@pytest.mark.parametrize(
    ("sent", "destructive", "approval", "source"),
    [
        ({}, False, False, "mode"),
        ({"mode": "reindex", "require_approval": True}, False, False, "mode"),
        ({"mode": "cleanup"}, True, True, "default"),
        ({"mode": "cleanup", "require_approval": None}, True, True, "default"),
        ({"mode": "cleanup", "require_approval": False}, True, False, "form"),
        ({"mode": "cleanup", "dry_run": True}, False, False, "mode"),
    ],
)
def test_only_a_run_that_deletes_asks_a_person(
    sent: dict[str, Any], destructive: bool, approval: bool, source: str
) -> None:
    run = resolved({**JANUARY, **sent})
    assert (run.destructive, run.require_approval, run.sources["require_approval"]) == (destructive, approval, source)


def test_the_defaults_delete_nothing_and_choose_nobody() -> None:
    assert RunParams().mode == "reindex"
    assert "nobody is chosen" in problems({})
    assert "nobody is chosen" in problems({"mode": "cleanup", "customers": [""]})


def test_a_scheduled_run_is_the_month_before_for_all_customers() -> None:
    run = resolved({}, run_type="scheduled")
    assert (run.range.label, run.all_customers, run.customers) == ("2026-02-01..2026-03-01", True, ())
    assert (run.mode, run.destructive) == ("reindex", False)
    assert {run.sources[n] for n in ("customers", "start_date", "end_date", "mode", "all_customers")} == {"schedule"}


def test_a_scheduled_run_ignores_a_form_that_would_delete() -> None:
    run = resolved({**JANUARY, "mode": "cleanup", "require_approval": False}, run_type="scheduled")
    assert (run.mode, run.range.label, run.all_customers) == ("reindex", "2026-02-01..2026-03-01", True)


@pytest.mark.parametrize("asks", [True, False])
def test_a_scheduled_cleanup_asks_as_its_file_says(asks: bool) -> None:
    schedule = ScheduleConfig(mode="cleanup", allow_scheduled_cleanup=True, require_approval=asks)
    run = resolved({}, run_type="scheduled", cluster=ClusterConfig(name="demo", schedule=schedule))
    assert (run.destructive, run.require_approval, run.sources["require_approval"]) == (True, asks, "schedule")


def test_the_month_before_is_that_of_the_clusters_zone() -> None:
    # 02:00 UTC on the first is still the month before in New York.
    early = datetime(2026, 3, 1, 2, tzinfo=UTC)
    assert resolved({}, run_type="scheduled", run_after=early).range.label == "2026-01-01..2026-02-01"
    assert resolved({"customers": ["acme"]}, run_after=early).range.label == "2026-01-01..2026-02-01"


@pytest.mark.parametrize(
    ("sent", "part"),
    [
        ({"start_date": None}, "start_date: is empty, but end_date is '2026-02-01'"),
        ({"end_date": ""}, "end_date: is empty, but start_date is '2026-01-01'"),
        ({"end_date": "2026-01-01"}, "end_date: 2026-01-01 is not after start_date 2026-01-01"),
        ({"end_date": "2025-12-31"}, "end_date is exclusive"),
        ({"start_date": "2026-1-1"}, "start_date: '2026-1-1' is not a date"),
        ({"start_date": "2026-02-30"}, "start_date: '2026-02-30' is not a day of the calendar"),
        ({"end_date": "2026-03-05"}, "the latest end_date is 2026-03-04"),
        ({"start_date": "2025-01-01", "end_date": "2026-01-03"}, "367 days; a run takes at most 366"),
        ({"all_customers": True}, "all_customers is true; empty customers"),
        ({"customers": []}, "so nobody is chosen"),
        ({"customers": ["acme", " "]}, "' ' (place 2) is blank"),
        ({"customers": ["acme,globex"]}, "holds a comma"),
        ({"customers": [" acme"]}, "has blanks around it; write 'acme'"),
        ({"customers": ["ac\nme"]}, "control character"),
        ({"customers": ["acme", "globex", "acme"]}, "'acme' is named twice (place 3)"),
        ({"customers": ["a" * 201]}, "longer than 200"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(sent: dict[str, Any], part: str) -> None:
    assert part in problems({**JANUARY, **sent})


def test_all_problems_are_told_at_once() -> None:
    text = problems({"customers": ["a,b", " "], "start_date": "x", "end_date": "y"}, run_type="nonsense")
    assert len(text.splitlines()) == 5
    for part in ("run_type: 'nonsense'", "holds a comma", "is blank", "start_date: 'x'", "end_date: 'y'"):
        assert part in text


def test_airflows_own_backfill_is_refused_with_the_way_out() -> None:
    assert "trigger the DAG with start_date and end_date instead" in problems(JANUARY, run_type="backfill")
    for run_type in get_args(RunType):
        assert resolved(JANUARY, run_type=run_type).run_type == run_type


def test_a_moment_without_zone_is_refused() -> None:
    assert "run_after: 2026-03-04T06:00:00 has no time zone" in problems(JANUARY, run_after=datetime(2026, 3, 4, 6))


def test_a_year_with_a_leap_day_fits_and_yesterday_is_the_latest_day() -> None:
    assert resolved({**JANUARY, "start_date": "2024-01-01", "end_date": "2025-01-01"}).range.days == MAX_RANGE_DAYS
    assert resolved({**JANUARY, "end_date": "2026-03-04"}).end_date == date(2026, 3, 4)
    late = datetime(2026, 3, 3, 23, tzinfo=UTC) + timedelta(hours=-5)
    assert "ends after 2026-03-03" in problems({**JANUARY, "end_date": "2026-03-04"}, run_after=late)


def test_without_the_sent_keys_sources_are_what_differs_from_the_form() -> None:
    run = effective(RunParams.read({**JANUARY, "mode": "reindex"}), run_type="manual", run_after=NOW, cluster=CLUSTER)
    assert (run.sources["customers"], run.sources["start_date"], run.sources["mode"]) == ("form", "form", "default")


def test_lines_say_each_parameter_with_its_source() -> None:
    run = resolved({**JANUARY, "mode": "cleanup"})
    assert run.lines()[:4] == (
        "mode = cleanup (form)",
        "customers = [acme] (form)",
        "all_customers = false (default)",
        "start_date = 2026-01-01 (form)",
    )
    assert "window = 5d (cluster)" in run.lines()
    assert {line.split(" = ")[0] for line in run.lines()} == set(RunParams.model_fields)


DATES = st.dates(date(2023, 1, 1), date(2026, 2, 28))
SENT = st.fixed_dictionaries(
    {
        "customers": st.lists(st.text("abcz0189-_.é", min_size=1, max_size=12), min_size=1, max_size=4, unique=True),
        "start_date": DATES.map(str),
    },
    optional={
        "mode": st.sampled_from(("cleanup", "reindex")),
        "window": st.sampled_from((None, "auto", "month", "10d", "5d", "1d")),
        "max_parallel": st.none() | st.integers(1, 200),
        "max_failures": st.none() | st.integers(1, 1_000),
        "dry_run": st.booleans(),
        "overlap": st.booleans(),
        "require_approval": st.none() | st.booleans(),
        "kill_stalled_mutations": st.booleans(),
    },
)


@given(SENT, st.integers(1, 4))
def test_resolved_parameters_go_through_json_and_back(sent: dict[str, Any], days: int) -> None:
    sent = {**sent, "end_date": str(date.fromisoformat(sent["start_date"]) + timedelta(days=days))}
    run = resolved(sent)
    assert EffectiveParams.model_validate(json.loads(json.dumps(run.model_dump(mode="json")))) == run
    assert run == resolved(sent)
    assert run.range.days == days
    assert set(run.sources) == set(RunParams.model_fields)
    assert run.require_approval is False or run.destructive
    assert run.destructive is (sent.get("mode") == "cleanup" and not sent.get("dry_run", False))
    for name, source in run.sources.items():
        if source == "form" and name in sent and name not in ("customers", "start_date", "end_date"):
            assert getattr(run, name) == sent[name]


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(("UTC", "America/Los_Angeles", "Australia/Sydney", "Pacific/Kiritimati")),
)
def test_a_scheduled_run_never_reaches_into_days_that_are_not_over(moment: datetime, zone: str) -> None:
    cluster = ClusterConfig(name="demo", timezone=zone)
    expected = previous_month(moment, ZoneInfo(zone))
    if expected.end > moment.date():
        # The first hours of a month east of Greenwich: the last UTC day goes on.
        assert "is not over yet" in problems({}, run_type="scheduled", run_after=moment, cluster=cluster)
    else:
        assert resolved({}, run_type="scheduled", run_after=moment, cluster=cluster).range == expected


def test_the_last_utc_day_of_the_month_goes_on_in_the_first_hours_of_the_next_in_the_east() -> None:
    sydney = ClusterConfig(name="demo", timezone="Australia/Sydney")
    early = datetime(2026, 3, 31, 20, tzinfo=UTC)
    assert "the latest end_date is 2026-03-31" in problems({}, run_type="scheduled", run_after=early, cluster=sydney)
    later = early + timedelta(hours=4)
    run = resolved({}, run_type="scheduled", run_after=later, cluster=sydney)
    assert run.range.label == "2026-03-01..2026-04-01"
