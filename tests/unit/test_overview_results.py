"""What stages left, read for the page: whatever is there becomes facts, and what cannot be read says so."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from include.scorecard_backfill.overview.facts import DebtFact, Planned, Result, Seen
from include.scorecard_backfill.overview.results import PAID, debt_of, moment, planned_of, result_of, seen_of
from include.scorecard_backfill.records import VERSION
from tests.kit.build import SINCE, debt, table, window

Json = dict[str, Any]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PLANNED: Json = {"key": "k", "customer_id": "acme", "start": "2026-01-01", "end": "2026-02-01"}


def test_a_window_of_the_plan_with_all_and_with_the_least() -> None:
    least = Planned(key="k", customer_id="acme", start="2026-01-01", end="2026-02-01")
    assert planned_of(PLANNED) == least
    assert (least.conversations, dict(least.rows), least.databases, least.part_of) == (0, {}, (), "")
    empty = {"conversations": None, "rows": None, "databases": None, "part_of": None, "order": None}
    assert planned_of(PLANNED | empty) == least
    assert planned_of(PLANNED).order == planned_of(PLANNED | empty).order == "delete_first"
    whole: Json = {
        "conversations": 7, "rows": {"score": 3}, "databases": [{"name": "a"}, {"name": "b"}], "part_of": "p",
        "order": "reindex_first",
    }  # fmt: skip
    assert planned_of(PLANNED | whole) == Planned(
        key="k", customer_id="acme", start="2026-01-01", end="2026-02-01", conversations=7, rows={"score": 3},
        databases=("a", "b"), part_of="p", order="reindex_first",
    )  # fmt: skip


def test_a_result_with_all_that_is_shown_of_it() -> None:
    found = {
        "v": VERSION, "key": "k", "status": "reindexed", "cause": "c", "reason": "r", "what_to_do": "do",
        "made_at": NOON.timestamp(), "rows_before": {"score": 5}, "statements": 2, "minutes": 1.5, "attempt": 3,
        "job_name": "j", "workflow_ids": ["w-1", "w-2"], "tables": {"score": {"before": 5}},
    }  # fmt: skip
    assert result_of(found) == Result(
        key="k", status="reindexed", cause="c", reason="r", todo="do", at=NOON, rows_before={"score": 5}, statements=2,
        minutes=1.5, attempt=3, job_name="j", workflow_ids=("w-1", "w-2"), tables={"score": {"before": 5}},
    )  # fmt: skip
    assert result_of(json.dumps(found)) == result_of(found)


def test_a_result_that_says_nothing_is_empty_in_each_field() -> None:
    empty = Result(
        key="", status="", cause="", reason="", todo="", at=None, tables={}, rows_before={}, statements=0, minutes=0.0,
        attempt=0, job_name="", workflow_ids=(),
    )  # fmt: skip
    assert result_of({}) == empty
    names = (
        "key", "status", "cause", "reason", "what_to_do", "at", "made_at", "sent", "statements", "minutes", "attempt",
        "job_name", "workflow_ids", "proof", "tables", "rows_before", "counted", "reindexed",
    )  # fmt: skip
    assert result_of(dict.fromkeys(names)) == empty
    assert result_of(None) is None
    assert result_of([1]) is None


def test_a_failure_is_failed_and_tells_of_the_reindex_that_it_had_made() -> None:
    found = result_of({
        "kind": "failure", "key": "k", "status": "odd", "cause": "job_gone", "reason": "why", "what_to_do": "look",
        "reindexed": {"attempt": 2, "workflow_ids": ["w"]},
    })  # fmt: skip
    assert found == Result(
        key="k", status="failed", cause="job_gone", reason="why", todo="look", attempt=2, workflow_ids=("w",)
    )
    own = result_of({"attempt": 4, "workflow_ids": ["v"], "reindexed": {"attempt": 2, "workflow_ids": ["w"]}})
    assert own is not None
    assert (own.attempt, own.workflow_ids) == (4, ("v",))


def test_a_delete_is_as_old_as_its_first_statement() -> None:
    sent = [{"at": NOON.timestamp() + 60}, {"at": NOON.timestamp()}, {"at": NOON.timestamp() + 90}]
    found = result_of({"status": "deleted", "sent": sent, "at": 1, "statements": 9})
    assert found is not None
    assert (found.at, found.statements) == (NOON, 3)
    unknown: Any
    for unknown in ([{"at": 0}], [{}], [{"at": None}, {"at": 5}]):
        assert result_of({"sent": unknown, "at": 1}).at is None  # type: ignore[union-attr]
    assert result_of({"at": NOON.isoformat()}).at == NOON  # type: ignore[union-attr]
    assert result_of({"at": 1, "made_at": NOON.isoformat()}).at == NOON  # type: ignore[union-attr]


def test_a_record_of_another_release_or_no_record_at_all_is_a_failure_that_says_so() -> None:
    other = {"v": VERSION + 1, "key": "k", "status": "verified"}
    assert result_of(other) == Result(
        key="k", status="failed", cause="unreadable",
        reason=f"its record has version {VERSION + 1}, this release reads {VERSION}",
    )  # fmt: skip
    without_key = result_of({"v": VERSION + 1, "key": None})
    assert without_key is not None
    assert without_key.key == ""
    broken = result_of("{no json")
    assert broken is not None
    assert (broken.status, broken.cause, broken.key) == ("failed", "unreadable", "")
    assert broken.reason


def balance(name: str, **numbers: Any) -> Json:
    return {"database": "d", "table": name, **numbers}


def test_rows_of_a_proof_are_summed_by_table_and_what_is_not_known_is_left_out() -> None:
    tables = [
        balance("score", before=10, after=7, removed=3, meant=2, short=1, over=9, doubled=9),
        balance("score", before=5, after=5, removed=0, meant=None, short=0),
        balance("scorecard", before=4),
    ]
    found = result_of({"proof": {"tables": tables}, "tables": {"ignored": {"before": 1}}})
    assert found is not None
    assert found.tables == {
        "score": {"before": 15, "after": 12, "removed": 3, "meant": 2, "short": 1}, "scorecard": {"before": 4},
    }  # fmt: skip
    empty: Any
    for empty in ({"proof": {"tables": []}}, {"proof": {}}, {"tables": ["odd"]}, {"proof": None, "tables": None}):
        assert result_of(empty).tables == {}  # type: ignore[union-attr]


def test_rows_before_are_summed_over_databases_and_days() -> None:
    def counted(name: str, *rows: Any) -> Json:
        return {"table": name, "days": {f"2026-01-0{n + 1}": {"rows": number} for n, number in enumerate(rows)}}

    before = [counted("score", 3, 4), counted("score", 5, None), counted("scorecard")]
    found = result_of({"counted": {"before": before}})
    assert found is not None
    assert found.rows_before == {"score": 12, "scorecard": 0}
    assert result_of({"counted": {"before": before}, "rows_before": {"a": 1}}).rows_before == {"a": 1}  # type: ignore[union-attr]
    assert result_of({"counted": {}, "rows_before": "odd"}).rows_before == {}  # type: ignore[union-attr]
    # A day of which nothing was written down holds no rows.
    assert result_of({"counted": {"before": [{"table": "t", "days": {"d": {}}}]}}).rows_before == {"t": 0}  # type: ignore[union-attr]


def test_what_a_wait_saw() -> None:
    seen = {"reason": "r", "at": NOON.timestamp(), "since": NOON.isoformat(), "done": 3, "total": 9, "job": "j",
            "attempt": 2}  # fmt: skip
    assert seen_of(seen) == Seen(reason="r", at=NOON, since=NOON, done=3, total=9, job_name="j", attempt=2)
    nothing = Seen(reason="", at=None, since=None, done=None, total=None, job_name="", attempt=0)
    assert seen_of({}) == seen_of(dict.fromkeys(seen)) == nothing
    # A part of a progress is none.
    for half in ({"done": 3}, {"total": 9}, {"done": "3", "total": 9}, {"done": 3, "total": "9"}):
        assert seen_of(half) == nothing
    assert seen_of(None) is None
    assert seen_of("{no json") is None
    assert seen_of("[1]") is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, None), (True, None), (False, None), (0, None), (-1, None), ("soon", None), ("", None),
        (NOON.timestamp(), NOON), (int(NOON.timestamp()), NOON), ("2026-01-01T12:00:00Z", NOON),
        ("2026-01-01T13:00:00+01:00", NOON), ("2026-01-01T12:00:00", NOON),
    ],
)  # fmt: skip
def test_a_moment_is_utc_or_not_known(value: object, found: datetime | None) -> None:
    assert moment(value) == found
    if found:
        read = moment(value)
        assert read is not None
        assert read.tzinfo is UTC


def test_a_debt_as_the_page_shows_it() -> None:
    owed = debt(window(), table({0: "ab"}), swept=True)
    assert debt_of(owed.window, json.dumps(owed.to_json())) == DebtFact(
        owed.window, "acme", "2026-01-01", "2026-01-11", SINCE, "run1", swept=True
    )
    assert debt_of(owed.window, PAID) is None
    assert PAID == '"paid"'
    later = owed.to_json() | {"v": 99}
    version = debt_of(owed.window, later)
    assert version is not None
    assert (version.customer_id, version.start, version.end, version.since) == (
        f"debt {owed.window}: cannot be read", "", "", None,
    )  # fmt: skip
    assert version.problem == (
        f"the debt of window {owed.window} (customer and days not known) cannot be read: its version is 99, this"
        f" release reads {VERSION}"
    )
    spoiled = debt_of(owed.window, owed.to_json() | {"since": "x"})
    assert spoiled is not None
    assert (spoiled.customer_id, spoiled.start, spoiled.end, spoiled.since) == (
        "acme",
        "2026-01-01",
        "2026-01-11",
        None,
    )
    assert f"the debt of window {owed.window} (acme 2026-01-01..2026-01-11) cannot be read: " in spoiled.problem
