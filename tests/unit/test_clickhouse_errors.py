"""What an error means: a question is asked again unless a person must mend it; a statement may have taken effect."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    StreamFailureError,
)
from clickhouse_connect.driver.models import SettingDef
from hypothesis import given
from hypothesis import strategies as st

from backfill.hooks.clickhouse_errors import (
    PERSON_CODES,
    REFUSED_CODES,
    PinnedSettingError,
    TopologyError,
    classify_ddl_error,
    is_transient,
    parse_ddl_answer,
)
from backfill.hooks.clickhouse_settings import pinned_settings
from include.scorecard_backfill.sql.pins import PINNED
from include.scorecard_backfill.verdicts.counts import Host

# Rolling restarts, quotas, memory and networks, as reported: 236 ABORTED, 394 QUERY_WAS_CANCELLED, 745
# SERVER_OVERLOADED, 198 DNS_ERROR, 32 ATTEMPT_TO_READ_AFTER_EOF, 735 QUERY_WAS_CANCELLED_BY_CLIENT, 439
# CANNOT_SCHEDULE_TASK, 201 QUOTA_EXCEEDED.
PASSING = [236, 394, 745, 198, 32, 735, 439, 201, 159, 202, 203, 209, 210, 225, 241, 242, 252, 279, 373, 999, 3]
MENDED_BY_A_PERSON = [47, 60, 62, 81, 164, 192, 193, 194, 452, 497, 516, 701]


@pytest.mark.parametrize("code", PASSING)
def test_a_question_is_asked_again(code: int) -> None:
    assert is_transient(DatabaseError("text", code=code))


@pytest.mark.parametrize("code", MENDED_BY_A_PERSON)
def test_a_question_that_only_a_person_can_mend_is_not(code: int) -> None:
    assert not is_transient(DatabaseError("text", code=code))


@given(st.integers(0, 5_000))
def test_a_code_that_nobody_knows_passes(code: int) -> None:
    assert is_transient(DatabaseError("text", code=code)) == (code not in PERSON_CODES)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OperationalError("Network Error"), True),
        (StreamFailureError("cut"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (TopologyError("no count from node-1"), True),
        (DatabaseError("HTTP driver received HTTP status 502, server response: bad gateway"), True),
        (DatabaseError("HTTP driver received HTTP status 429"), True),
        (DatabaseError("HTTP driver received HTTP status 401, server response: login"), False),
        (DatabaseError("HTTP driver received HTTP status 404"), False),
        (ProgrammingError("Setting limit is readonly"), False),
        (InterfaceError("not supported"), False),
        (ValueError("ours"), False),
        (KeyError("ours"), False),
    ],
)
def test_errors_without_a_code(error: Exception, passes: bool) -> None:
    assert is_transient(error) == passes


@pytest.mark.parametrize("code", sorted(REFUSED_CODES))
def test_the_node_that_was_asked_refuses_for_sure(code: int) -> None:
    assert classify_ddl_error(DatabaseError("Code", code=code)).outcome == "refused"


@given(st.sampled_from([*PASSING, *MENDED_BY_A_PERSON, *sorted(REFUSED_CODES)]))
def test_an_error_of_one_host_says_nothing_about_the_others(code: int) -> None:
    text = f"Received ClickHouse exception, code: {code}: There was an error on [chi-x-0-1:9000]: Code: {code}. Why"
    answer = classify_ddl_error(DatabaseError(text, code=code))
    assert answer.outcome == "unknown"
    assert answer.errors is not None
    assert list(answer.errors) == ["chi-x-0-1"]
    assert "Why" in answer.errors["chi-x-0-1"]


@pytest.mark.parametrize("code", MENDED_BY_A_PERSON)
def test_a_statement_that_was_certainly_not_taken_raises(code: int) -> None:
    with pytest.raises(DatabaseError):
        classify_ddl_error(DatabaseError("text", code=code))


@pytest.mark.parametrize(
    ("code", "text", "outcome"),
    [
        (159, "Watching task is executing longer", "unknown"),
        (341, "some replicas are inactive", "unknown"),
        (341, "Mutation 3 was killed", "killed"),
        (None, "Network Error", "unknown"),
        (999, "Session expired", "unknown"),
        (4_711, "a code of tomorrow", "unknown"),
    ],
)
def test_what_is_not_certain_is_looked_for(code: int | None, text: str, outcome: str) -> None:
    assert classify_ddl_error(OperationalError(text, code=code)).outcome == outcome


def test_the_answer_names_hosts_as_they_are_listed() -> None:
    hosts = (Host("chi-x-0-0-0", 1, "chi-x-0-0"), Host("chi-x-1-0-0", 2, "chi-x-1-0"))
    body = "chi-x-0-0\t9000\t0\t\t1\t0\nchi-x-1-0\t9000\t0\t\t0\t0\n"
    assert parse_ddl_answer(body, hosts).hosts == {"chi-x-0-0-0", "chi-x-1-0-0"}
    assert parse_ddl_answer(body, hosts).outcome == "done"
    waiting = body.replace("chi-x-1-0\t9000\t0", "chi-x-1-0\t9000\t\\N")
    assert parse_ddl_answer(waiting, hosts).outcome == "unknown"
    wrong = body.replace("chi-x-1-0\t9000\t0\t", "chi-x-1-0\t9000\t359\tToo large")
    assert parse_ddl_answer(wrong, hosts).errors == {"chi-x-1-0-0": "Too large"}


class Settings:
    """A client whose list of settings was cut when it connected, and what it is told when asked for all of them."""

    def __init__(self, cut: dict[str, str], whole: dict[str, tuple[str, int]] | None) -> None:
        self.server_settings = {name: SettingDef(name, value, 0) for name, value in cut.items()}
        listed = [(name, value, fixed) for name, (value, fixed) in (whole or {}).items()]
        self.answer = SimpleNamespace(result_rows=[(listed,)] if whole is not None else [])

    def query(self, statement: str) -> Any:
        assert statement.startswith("SELECT groupArray(")
        return self.answer


WHOLE = {name: (PINNED[name], 0) for name in PINNED}


def test_a_profile_that_cuts_the_list_of_settings_hides_no_pin() -> None:
    client: Any = Settings({"max_threads": "2"}, {**WHOLE, "limit": ("3", 0)})
    assert pinned_settings(client, "c") == dict(PINNED)


@pytest.mark.parametrize("whole", [None, {}, {"max_threads": ("2", 0)}])
def test_settings_that_are_not_shown_whole_stop_every_question(whole: Any) -> None:
    client: Any = Settings({}, whole)
    with pytest.raises(PinnedSettingError, match="not shown whole"):
        pinned_settings(client, "c")


def test_a_fixed_setting_is_named_with_its_values() -> None:
    client: Any = Settings({}, {**WHOLE, "limit": ("3", 1)})
    with pytest.raises(PinnedSettingError, match="limit is '3' and must be '0'"):
        pinned_settings(client, "c")
