"""Schedules: which lines are taken, which month a slot takes, what was missed, what starts too late."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from include.scorecard_backfill.config import ClusterConfig, ScheduleConfig
from include.scorecard_backfill.config.load import ClusterError, load_clusters
from include.scorecard_backfill.params import RunParams, effective
from include.scorecard_backfill.params.form import ParamsError
from include.scorecard_backfill.planning.schedule import (
    cron_problem,
    earliest_line,
    is_over,
    late_start,
    missed_slot,
    next_slot,
    over_at,
    previous_slot,
    schedule_problem,
    slots,
)
from include.scorecard_backfill.planning.windows import DateRange, previous_month

ZONES = (
    "UTC",
    "America/Los_Angeles",
    "America/New_York",
    "Europe/London",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
)
NEW_YEAR = date(2026, 1, 1)


def moments(line: str, zone: str, start: datetime, count: int) -> list[str]:
    return [slot.isoformat() for slot in islice(slots(line, ZoneInfo(zone), start), count)]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("0 6 2 *", "has 4 fields"),
        ("0 6 2 * * *", "has 6 fields"),
        ("@monthly", "has 1 fields"),
        ("60 6 2 * *", "cannot be read"),
        ("0 24 2 * *", "cannot be read"),
        ("0 6 0 * *", "cannot be read"),
        ("0 6 2 13 *", "cannot be read"),
        ("0 6 2 * 8", "cannot be read"),
        ("0 6 */0 * *", "cannot be read"),
        ("0 6 2,,3 * *", "cannot be read"),
        ("a b c d e", "cannot be read"),
        ("R 6 2 * *", "random field"),
        ("H 6 2 * *", "random field"),
        ("0 h(1-3) 2 * *", "random field"),
        ("0 6 31 2 *", "names no day that exists"),
        ("0 6 31 2,4,6 *", "names no day that exists"),
    ],
)
def test_a_wrong_cron_line_is_refused(line: str, word: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ScheduleConfig(cron=line)
    assert word in str(caught.value)


@pytest.mark.parametrize("line", ["0 6 2 * *", "30 11 1 * *", "0 6 L * *", "0 6 2 mar *", "0 6 2 * thu", "0 6 29 2 *"])
def test_a_line_that_fires_is_taken(line: str) -> None:
    assert cron_problem(line) == ""


@pytest.mark.parametrize(
    ("line", "zone", "right"),
    [
        ("0 2 1 * *", "Australia/Sydney", "write 0 11 1 * *"),
        # Right in winter (UTC+10), wrong in summer (UTC+11).
        ("0 10 1 * *", "Australia/Sydney", "write 0 11 1 * *"),
        ("15 5 1 * *", "Asia/Kolkata", "write 30 5 1 * *"),
        ("0 0 1 * *", "Europe/London", "write 0 1 1 * *"),
        ("0 13 1 * *", "Pacific/Kiritimati", "write 0 14 1 * *"),
        # Wrong on the first of a month only.
        ("0 6 * * *", "Asia/Tokyo", "write 0 9 * * *"),
        ("0 2 * * mon", "Australia/Sydney", "write 0 11 * * mon"),
        ("0 2 1 1 *", "Australia/Sydney", "write 0 11 1 1 *"),
        # Mondays of January only: the first of them on a first is in 2029.
        ("0 2 * 1 1", "Australia/Sydney", "write 0 11 * 1 1"),
    ],
)
def test_a_slot_before_the_end_of_its_month_in_utc_is_refused_with_the_right_line(
    line: str, zone: str, right: str
) -> None:
    problem = schedule_problem(line, ZoneInfo(zone), NEW_YEAR)
    assert "is not over in UTC until" in problem
    assert right in problem


@pytest.mark.parametrize(
    ("line", "zone"),
    [
        ("0 11 1 * *", "Australia/Sydney"),
        ("0 0 1 * *", "UTC"),
        ("0 0 1 * *", "America/New_York"),
        ("0 23 31 * *", "America/Los_Angeles"),
        ("30 5 1 * *", "Asia/Kolkata"),
        ("0 6 2 * *", "Pacific/Kiritimati"),
        ("30 2 * * 0", "Europe/Berlin"),
    ],
)
def test_a_schedule_that_always_works_is_taken(line: str, zone: str) -> None:
    assert schedule_problem(line, ZoneInfo(zone), NEW_YEAR) == ""


@pytest.mark.parametrize("line", ["* 6 2 * *", "0 6,18 2 * *", "0 * 2 * *", "*/5 * * * *"])
def test_more_than_one_slot_a_day_is_a_typing_error(line: str) -> None:
    assert "fires more than once on 2026-01-" in schedule_problem(line, ZoneInfo("UTC"), NEW_YEAR)


@given(
    st.integers(0, 59),
    st.integers(0, 23),
    st.sampled_from(("1", "2", "15", "28", "31", "*")),
    st.sampled_from(("*", "1", "3,10")),
    st.sampled_from(("*", "1", "0")),
    st.sampled_from(ZONES),
)
def test_no_slot_of_an_accepted_schedule_is_refused_when_its_run_starts(
    minute: int, hour: int, day: str, month: str, weekday: str, zone: str
) -> None:
    line = f"{minute} {hour} {day} {month} {weekday}"
    try:
        cluster = ClusterConfig(name="demo", timezone=zone, schedule=ScheduleConfig(cron=line, timezone=zone))
    except ValidationError:
        # Then what is offered instead must be right.
        assert schedule_problem(earliest_line(line, ZoneInfo(zone), NEW_YEAR), ZoneInfo(zone), NEW_YEAR) == ""
        return
    for slot in islice(slots(line, ZoneInfo(zone), datetime(2026, 1, 1, tzinfo=UTC)), 40):
        run = effective(RunParams(), run_type="scheduled", run_after=slot, cluster=cluster)
        here = slot.astimezone(ZoneInfo(zone))
        assert run.range.end == here.date().replace(day=1)
        assert run.range == previous_month(slot, ZoneInfo(zone))
        assert over_at(run.range) <= slot


def test_slots_over_the_end_of_a_year_and_the_change_of_clocks() -> None:
    assert moments("0 6 2 * *", "Australia/Sydney", datetime(2026, 11, 15, tzinfo=UTC), 3) == [
        "2026-12-01T19:00:00+00:00",
        "2027-01-01T19:00:00+00:00",
        "2027-02-01T19:00:00+00:00",
    ]
    # 02:30 does not exist on 29 March and is there twice on 25 October.
    assert moments("30 2 * 3,10 0", "Europe/Berlin", datetime(2026, 3, 22, 12, tzinfo=UTC), 5) == [
        "2026-03-29T01:30:00+00:00",
        "2026-10-04T00:30:00+00:00",
        "2026-10-11T00:30:00+00:00",
        "2026-10-18T00:30:00+00:00",
        "2026-10-25T01:30:00+00:00",
    ]


def test_a_run_of_january_takes_december_of_the_year_before() -> None:
    sydney = ZoneInfo("Australia/Sydney")
    slot = next_slot("0 11 1 * *", sydney, datetime(2026, 12, 31, tzinfo=UTC))
    assert slot == datetime(2027, 1, 1, tzinfo=UTC)
    assert previous_month(slot, sydney).label == "2026-12-01..2027-01-01"


@given(
    st.datetimes(datetime(2025, 1, 1), datetime(2029, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(ZONES),
    st.sampled_from(("0 6 2 * *", "30 2 * * *", "0 0 1 * *", "15 3 * * 0")),
)
def test_the_previous_slot_and_the_next_are_neighbours(at: datetime, zone: str, line: str) -> None:
    here = ZoneInfo(zone)
    before, after = previous_slot(line, here, at), next_slot(line, here, at)
    assert before <= at < after
    assert next_slot(line, here, before) == after
    assert previous_slot(line, here, before) == before
    assert all(one < two for one, two in pairwise(islice(slots(line, here, before), 5)))


def test_days_are_over_when_the_last_utc_day_is() -> None:
    march = DateRange.parse("2026-03-01", "2026-04-01")
    assert not is_over(march, datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC))
    assert is_over(march, datetime(2026, 4, 1, tzinfo=UTC))
    # In Sydney April has begun eleven hours ago.
    assert not is_over(march, datetime(2026, 4, 1, 10, tzinfo=ZoneInfo("Australia/Sydney")))


def test_a_run_by_hand_in_the_first_hours_of_a_month_says_from_when_on_it_can_be_done() -> None:
    sydney = ClusterConfig(name="demo", timezone="Australia/Sydney")
    early = datetime(2026, 3, 31, 20, tzinfo=UTC)
    with pytest.raises(ParamsError, match="can be done from 2026-04-01 00:00 UTC on"):
        effective(RunParams(all_customers=True), run_type="manual", run_after=early, cluster=sydney)


# What a scheduled run does


def scheduled(**schedule: Any) -> Any:
    cluster = ClusterConfig(name="demo", timezone="Australia/Sydney", schedule=ScheduleConfig(**schedule))
    return effective(RunParams(), run_type="scheduled", run_after=datetime(2026, 3, 1, 0, tzinfo=UTC), cluster=cluster)


def test_a_scheduled_run_takes_the_customers_of_its_schedule() -> None:
    run = scheduled(all_customers=False, customers=["acme", "globex"])
    assert (run.customers, run.all_customers) == (("acme", "globex"), False)
    assert run.sources["customers"] == run.sources["all_customers"] == "schedule"
    everybody = scheduled()
    assert (everybody.customers, everybody.all_customers) == ((), True)


def test_a_schedule_may_have_a_zone_of_its_own() -> None:
    # 1 March 00:00 UTC: still February in New York.
    assert scheduled(timezone="America/New_York").range.label == "2026-01-01..2026-02-01"
    assert scheduled().range.label == "2026-02-01..2026-03-01"


def test_the_zone_of_a_schedule_is_that_of_its_cluster_if_it_says_nothing() -> None:
    made = ClusterConfig(name="demo", timezone="Asia/Tokyo", schedule=ScheduleConfig(mode="reindex"))
    assert made.schedule.timezone == "Asia/Tokyo"
    assert ClusterConfig.model_validate({"name": "demo", "timezone": "Asia/Tokyo"}).schedule.timezone == "Asia/Tokyo"
    own = ClusterConfig.model_validate({"name": "demo", "timezone": "Asia/Tokyo", "schedule": {"timezone": "UTC"}})
    assert own.schedule.timezone == "UTC"


def test_a_schedule_deletes_only_where_that_is_said_twice() -> None:
    with pytest.raises(ValidationError, match="allow_scheduled_cleanup: true"):
        ScheduleConfig(mode="cleanup")
    assert ScheduleConfig(mode="cleanup", allow_scheduled_cleanup=True).require_approval is True
    assert ScheduleConfig(cron=None).cron is None


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"customers": ["acme"]}, "add all_customers: false"),
        ({"all_customers": False}, "nobody is chosen"),
        ({"all_customers": False, "customers": ["a,b"]}, "'a,b' holds a comma"),
        ({"all_customers": False, "customers": [" acme"]}, "write 'acme'"),
        ({"all_customers": False, "customers": ["acme", "acme"]}, "'acme' is named twice"),
        ({"all_customers": False, "customers": ["  "]}, "is blank"),
        ({"grace_seconds": 5}, "greater than or equal to 60"),
    ],
)
def test_who_is_chosen_must_be_plain(schedule: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ScheduleConfig(**schedule)


def test_a_cluster_file_with_a_schedule_that_cannot_work_is_refused_with_what_is_right(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("name: demo\ntimezone: Australia/Sydney\nschedule: {cron: 0 2 1 * *}\n")
    (loaded,) = load_clusters(tmp_path)
    assert isinstance(loaded, ClusterError)
    assert loaded.message.startswith("demo.yaml: schedule: cron '0 2 1 * *' fires at ")
    assert "02:00 Australia/Sydney" in loaded.message
    assert "write 0 11 1 * *, or a day later" in loaded.message


# What was missed, and what starts too late

UTC_ZONE = ZoneInfo("UTC")
GRACE = timedelta(minutes=5)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "last", "since", "missed"),
    [
        ("2026-03-05T00:00", "2026-02-02T06:00", None, "2026-03-02T06:00"),
        ("2026-03-05T00:00", "2026-03-02T06:00", None, None),
        # Two were missed: the last one is said.
        ("2026-03-05T00:00", "2026-01-02T06:00", None, "2026-03-02T06:00"),
        # It may still start, so it is not missed yet; the one before it was.
        ("2026-03-02T06:04", "2026-02-02T06:00", None, None),
        ("2026-03-02T06:04", "2026-01-02T06:00", None, "2026-02-02T06:00"),
        ("2026-03-02T06:05", "2026-02-02T06:00", None, "2026-03-02T06:00"),
        # The DAG is younger than the slot, or nothing is known about it.
        ("2026-03-05T00:00", None, "2026-03-04T00:00", None),
        ("2026-03-05T00:00", None, "2026-03-01T00:00", "2026-03-02T06:00"),
        ("2026-03-05T00:00", None, None, None),
    ],
)
def test_the_last_slot_that_started_nothing(now: str, last: str | None, since: str | None, missed: str | None) -> None:
    found = missed_slot(
        "0 6 2 * *",
        UTC_ZONE,
        now=at(now),
        last=None if last is None else at(last),
        since=None if since is None else at(since),
        grace=GRACE,
    )
    assert (None if found is None else found.slot) == (None if missed is None else at(missed))


def test_a_missed_slot_is_said_with_its_month_and_what_comes_next() -> None:
    found = missed_slot(
        "0 6 2 * *", UTC_ZONE, now=at("2026-03-05T00:00"), last=at("2026-02-02T06:00"), since=None, grace=GRACE
    )
    assert found is not None
    assert found.days.label == "2026-02-01..2026-03-01"
    text = found.sentence(UTC_ZONE)
    assert "2026-03-02 06:00 UTC did not start" in text
    assert "February 2026 was not done" in text
    assert "due at 2026-04-02 06:00 UTC" in text


def test_the_button_of_a_missed_slot_starts_what_the_schedule_would_have_started() -> None:
    slot = next_slot("0 6 2 * *", UTC_ZONE, at("2026-03-01T00:00"))
    schedule = ScheduleConfig(all_customers=False, customers=("acme",), mode="reindex")
    cluster = ClusterConfig(name="demo", schedule=schedule)
    by_itself = effective(RunParams(), run_type="scheduled", run_after=slot, cluster=cluster)
    conf = json.loads(json.dumps(schedule.conf_for(by_itself.range)))
    later = slot + timedelta(days=3)
    by_hand = effective(RunParams.read(conf), run_type="manual", run_after=later, cluster=cluster, given=conf)
    for name in ("customers", "all_customers", "mode", "range"):
        assert getattr(by_hand, name) == getattr(by_itself, name)


def test_without_a_schedule_nothing_is_missed() -> None:
    assert (
        missed_slot(None, UTC_ZONE, now=at("2026-03-05T00:00"), last=None, since=at("2020-01-01"), grace=GRACE) is None
    )


def test_a_run_that_begins_later_than_its_grace_may_not_go_on() -> None:
    slot = at("2026-03-02T06:00")
    assert late_start(slot=slot, started=slot + GRACE, grace=GRACE) == ""
    text = late_start(slot=slot, started=slot + timedelta(days=3), grace=GRACE)
    assert "due at 2026-03-02 06:00 UTC and began 4320 minutes late" in text
    assert "Nothing was started" in text
