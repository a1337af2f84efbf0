"""The timetable: the same slots as our own reckoning, and nothing that starts by unpausing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.timezone import coerce_datetime
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill.operators.late import refuse_late_start
from backfill.timetable import ForwardCronTimetable
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.planning.schedule import next_slot, previous_slot

LINE = "0 6 2 * *"
GRACE = timedelta(minutes=5)
FREE = TimeRestriction(earliest=None, latest=None, catchup=False)
SLOT = datetime(2026, 3, 2, 6, tzinfo=UTC)


def timetable(line: str = LINE, zone: str = "UTC", grace: timedelta = GRACE) -> ForwardCronTimetable:
    return ForwardCronTimetable(line, timezone=zone, grace=grace)


def after(moment: datetime | None) -> DataInterval | None:
    return None if moment is None else DataInterval.exact(coerce_datetime(moment))


def due(table: Any, now: datetime, last: datetime | None) -> datetime:
    """Return the slot for which the scheduler would make a run next, if Airflow asks at `now`."""
    with time_machine.travel(now, tick=False):
        info = table.next_dagrun_info(last_automated_data_interval=after(last), restriction=FREE)
    assert info is not None
    return info.run_after


@pytest.mark.parametrize("last", [None, datetime(2026, 1, 2, 6, tzinfo=UTC), datetime(2026, 2, 2, 6, tzinfo=UTC)])
@pytest.mark.parametrize("late", [timedelta(minutes=6), timedelta(hours=20), timedelta(days=3), timedelta(days=25)])
def test_unpausing_starts_no_old_slot(late: timedelta, last: datetime | None) -> None:
    assert due(timetable(), SLOT + late, last) == datetime(2026, 4, 2, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("late", "last"),
    [
        (timedelta(hours=20), None),
        (timedelta(days=3), None),
        (timedelta(days=25), datetime(2026, 1, 2, 6, tzinfo=UTC)),
    ],
)
def test_airflows_own_timetable_would_start_it(late: timedelta, last: datetime | None) -> None:
    """The reason for ours; if this fails on a newer Airflow, look whether its own will do."""
    own = CronTriggerTimetable(LINE, timezone="UTC", run_immediately=False)
    assert due(own, SLOT + late, last) == SLOT


def test_a_slot_starts_although_the_dag_file_was_read_between_slot_and_scheduler() -> None:
    for seconds in (0, 1, 60, 300):
        assert due(timetable(), SLOT + timedelta(seconds=seconds), None) == SLOT
        assert due(timetable(), SLOT + timedelta(seconds=seconds), datetime(2026, 2, 2, 6, tzinfo=UTC)) == SLOT


def test_a_slot_that_has_its_run_is_not_started_again_within_the_grace() -> None:
    assert due(timetable(), SLOT + timedelta(minutes=1), SLOT) == datetime(2026, 4, 2, 6, tzinfo=UTC)


def test_the_dags_own_start_and_end_are_kept() -> None:
    with time_machine.travel(SLOT + timedelta(days=1), tick=False):
        ask = timetable().next_dagrun_info
        later = TimeRestriction(earliest=coerce_datetime(datetime(2026, 9, 1, tzinfo=UTC)), latest=None, catchup=True)
        info = ask(last_automated_data_interval=None, restriction=later)
        assert info is not None
        assert info.run_after == datetime(2026, 9, 2, 6, tzinfo=UTC)
        ended = TimeRestriction(earliest=None, latest=coerce_datetime(datetime(2026, 4, 1, tzinfo=UTC)), catchup=False)
        assert ask(last_automated_data_interval=None, restriction=ended) is None


@given(
    st.datetimes(datetime(2025, 1, 1), datetime(2029, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Sydney", "Australia/Lord_Howe"]),
    st.sampled_from([LINE, "30 2 * * *", "15 3 * * 0", "0 0 1 * *", "0 2 29 2 *"]),
)
@settings(max_examples=300)
def test_our_slots_are_airflows(now: datetime, zone: str, line: str) -> None:
    own = CronTriggerTimetable(line, timezone=zone)
    here = coerce_datetime(now)
    assert own._get_next(here) == next_slot(line, ZoneInfo(zone), now)
    assert own._align_to_prev(here) == previous_slot(line, ZoneInfo(zone), now)
    assert due(timetable(line, zone, timedelta()), now, None) in (now, next_slot(line, ZoneInfo(zone), now))


def test_it_survives_serialization_with_its_zone_and_grace() -> None:
    from airflow.sdk import DAG

    table = timetable("0 11 1 * *", "Australia/Sydney", timedelta(minutes=10))
    dag = DAG("timetable_of_a_test", schedule=table, catchup=False)
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert isinstance(again.timetable, ForwardCronTimetable)
    assert again.timetable.serialize() == table.serialize()
    with time_machine.travel(datetime(2026, 7, 1, tzinfo=UTC) + timedelta(hours=1), tick=False):
        info = again.next_dagrun_info(last_automated_run_info=None)
    # 11:00 in Sydney is 01:00 UTC in winter.
    assert isinstance(info, DagRunInfo)
    assert info.run_after == datetime(2026, 7, 1, 1, tzinfo=UTC)


def run_of(run_type: str, late: timedelta, clear_number: int = 0) -> Any:
    return SimpleNamespace(run_type=run_type, run_after=SLOT, start_date=SLOT + late, clear_number=clear_number)


def test_a_late_scheduled_run_does_nothing_and_says_why() -> None:
    config = ClusterConfig(name="demo")
    with pytest.raises(AirflowFailException, match=r"due at 2026-03-02 06:00 UTC and began 4320 minutes late"):
        refuse_late_start(run_of("scheduled", timedelta(days=3)), config)


@pytest.mark.parametrize(
    "run",
    [
        run_of("scheduled", timedelta(seconds=20)),
        run_of("scheduled", timedelta(days=3), clear_number=1),
        run_of("manual", timedelta(days=3)),
    ],
    ids=["in time", "cleared by a person", "started by a person"],
)
def test_other_runs_go_on(run: Any) -> None:
    refuse_late_start(run, ClusterConfig(name="demo"))
