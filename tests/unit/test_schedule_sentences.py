"""What is said of a schedule that cannot work, of a slot that was missed and of a run that begins too late, whole."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from include.scorecard_backfill.config.fields import MAX_CUSTOMER_CHARACTERS, customer_id_reason, free_env
from include.scorecard_backfill.params.form import ParamsError, RunParams, params_schema
from include.scorecard_backfill.planning.schedule import MissedSlot, cron_problem, late_start, schedule_problem
from include.scorecard_backfill.planning.windows import DateRange

UTC_ZONE, TOKYO = ZoneInfo("UTC"), ZoneInfo("Asia/Tokyo")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 6 2 * *", ""),
        ("0 6 2 *", "has 4 fields, not the 5 of minute hour day month weekday (0 6 2 * *)"),
        ("0 6 2 * * *", "has 6 fields, not the 5 of minute hour day month weekday (0 6 2 * *)"),
        ("H 6 2 * *", "has a random field (R or H), which would differ from process to process; write a number"),
        ("0 r 2 * *", "has a random field (R or H), which would differ from process to process; write a number"),
        ("0 6 2 * thu", ""),
        ("0 6 31 2 *", "names no day that exists, so it would never fire; write for example 0 6 2 * *"),
    ],
)
def test_what_is_wrong_with_a_cron_line(line: str, said: str) -> None:
    assert cron_problem(line) == said
    assert not said or schedule_problem(line, UTC_ZONE) == said


def test_a_line_that_cannot_be_read_is_told_with_an_example() -> None:
    said = cron_problem("0 25 2 * *")
    assert said.startswith("cannot be read (")
    assert said.endswith("); write minute hour day month weekday, for example 0 6 2 * *")


def test_why_a_schedule_can_never_work() -> None:
    since = date(2026, 1, 1)
    assert schedule_problem("0 6 1 * *", UTC_ZONE, since) == ""
    assert schedule_problem("0 6,7 2 * *", TOKYO, since) == (
        "fires more than once on 2026-01-02 (Asia/Tokyo), each time for the same month; write for example 0 6 2 * *"
    )
    # On the wall clock of Tokyo the first of a month begins nine hours before it does in UTC.
    assert schedule_problem("0 6 1 * *", TOKYO, since) == (
        "fires at 2026-02-01 06:00 Asia/Tokyo, when January 2026 is not over in UTC until 2026-02-01 09:00"
        " Asia/Tokyo: 24"
        " of the next 24 runs could only be refused; write 0 9 1 * *, or a day later"
    )
    assert schedule_problem("0 9 1 * *", TOKYO, since) == ""
    assert schedule_problem("59 8 1 * *", TOKYO, since).endswith("write 0 9 1 * *, or a day later")


def test_a_missed_slot_is_told_in_the_zone_of_its_schedule() -> None:
    missed = MissedSlot(
        datetime(2026, 2, 1, 21, tzinfo=UTC), DateRange.parse("2026-01-01", "2026-02-01"),
        datetime(2026, 3, 1, 21, tzinfo=UTC),
    )  # fmt: skip
    assert missed.sentence(TOKYO) == (
        "The run of 2026-02-02 06:00 Asia/Tokyo did not start (the DAG was paused, another run was under way, or the"
        " scheduler was down), so January 2026 was not done by schedule. Nothing makes up for it by itself; the next"
        " run is"
        " due at 2026-03-02 06:00 Asia/Tokyo and takes the month before it."
    )


def test_a_run_that_begins_too_late_says_when_it_was_due() -> None:
    slot, grace = datetime(2026, 2, 2, 6, tzinfo=UTC), timedelta(seconds=300)
    assert late_start(slot=slot, started=slot + grace, grace=grace) == ""
    assert late_start(slot=slot, started=slot + timedelta(seconds=419), grace=grace) == (
        "This scheduled run was due at 2026-02-02 06:00 UTC and began 6 minutes late, more than the 300 seconds of"
        " schedule.grace_seconds: the DAG was paused or the scheduler down. Nothing was started. Trigger the DAG by"
        " hand if"
        " the month is still to be done."
    )


@pytest.mark.parametrize(
    ("customer", "reason"),
    [
        ("acme", ""),
        ("x" * MAX_CUSTOMER_CHARACTERS, ""),
        ("  ", "is blank; remove the empty line"),
        ("a,b", "holds a comma; write one id in each place of the list"),
        (" a", "has blanks around it; write 'a'"),
        ("a\x07", "holds a control character; write the id as it is in the database"),
        ("x" * (MAX_CUSTOMER_CHARACTERS + 1), "is longer than 200 characters; write one customer id"),
    ],
)
def test_why_a_text_is_no_customer_id(customer: str, reason: str) -> None:
    assert customer_id_reason(customer) == reason


def test_variables_of_the_window_may_not_be_set_by_the_file() -> None:
    assert free_env({"A": "b"}) == {"A": "b"}
    said = "sets REINDEX_END_TIME, REINDEX_START_TIME, which only the window itself may set; remove it"
    with pytest.raises(ValueError, match=f"^{said}$"):
        free_env({"REINDEX_START_TIME": "x", "A": "b", "REINDEX_END_TIME": "y"})


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"dry_runs": True}, "dry_runs: is not a parameter of a run; did you mean dry_run?"),
        ({"zzz": 1}, f"zzz: is not a parameter of a run; valid: {', '.join(RunParams.model_fields)}."),
        ({"customers": "acme"},
         "customers: 'acme': is a text; write a list with one id in each place, such as ['acme']."),
        ({"customers": ["a", 3]}, "customers: 3 (place 2): input should be a valid string."),
        ({"start_date": 5}, "start_date: 5: input should be a valid string; write it as YYYY-MM-DD."),
        ({"end_date": 5}, "end_date: 5: input should be a valid string; write it as YYYY-MM-DD."),
        ({"max_failures": 0}, "max_failures: 0: input should be greater than or equal to 1."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_what_was_sent(sent: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError) as refused:
        RunParams.read(sent)
    assert refused.value.problems == (said,) or list(refused.value.problems) == [said]


def test_the_form_shows_what_an_empty_field_stands_for_and_whom_one_can_choose() -> None:
    bare, shown = params_schema(), params_schema({"max_parallel": 3}, ["acme", "globex"])
    assert shown["max_parallel"]["description_md"] == "Windows in flight. Empty: 3 (the cluster's file)."
    assert bare["max_parallel"]["description_md"] == "Windows in flight. Empty: what the cluster's file says."
    assert shown["customers"]["examples"] == ["acme", "globex"]
    assert shown["customers"]["description_md"].startswith(
        "Customers of the last plan. One that is newer is written into"
    )
    assert "examples" not in bare["customers"]
    assert (bare["customers"]["default"], bare["customers"]["type"]) == ([], ["null", "array"])
    assert (bare["dry_run"]["type"], bare["dry_run"]["default"]) == (["null", "boolean"], False)
    assert bare["order"]["enum"] == [None, "delete_first", "reindex_first"]
    assert bare["order"]["type"] == ["null", "string"]
    assert all("anyOf" not in field and "description" not in field for field in bare.values())
