"""The old scripts' JSON files: eight shapes that they may have, what is refused, and the history that is kept."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.tracking.advice import Advice, advice
from include.scorecard_backfill.tracking.history import Entry, History, HistoryError, State
from include.scorecard_backfill.tracking.read import Found, Known, mapping_of, read_tracking
from include.scorecard_backfill.tracking.words import WORDS, state_of

CLUSTERS = ("chat-prod", "us-east-1-prod", "us-west-2-prod", "voice-prod")
JANUARY = Known(start=date(2026, 1, 1), end=date(2026, 2, 1))
UUID = "0a1b2c3d-0000-4000-8000-00000000abcd"


def read(document: Any, file: str = "tracking/voice-prod.json", given: Known | None = JANUARY, **more: Any) -> Found:
    return read_tracking(document, file, clusters=CLUSTERS, given=given, **more)


def told(found: Found) -> list[tuple[str, str, str, str]]:
    """(cluster, customer, days, state) of each entry."""
    return [(cluster, e.customer_id, e.days.label, e.state) for cluster, e in found.entries]


JAN = "2026-01-01..2026-02-01"

CLEANUP = {
    "cluster": "voice-prod",
    "start_date": "2026-01-01",
    "end_date": "2026-02-20",
    "customers": {
        "acme": {
            "status": "completed",
            "database": "acme_voice",
            "profile_id": "voice",
            "before": {"scorecard": 330, "score": 2881},
            "after": {"scorecard": 298, "score": 2609},
            "completed_at": "2026-02-19T21:14:03Z",
        },
        "acme-sandbox": {"status": "deleted", "before": {"scorecard": 4, "score": 40}, "after": None},
        "globex": {"status": "failed", "error": "mutation timed out after 600 s", "attempts": 2},
    },
}
FLAT = {"acme": "completed", "globex": "pending", "initech": "in-progress"}
RECORDS = [
    {"customer_id": "acme", "profile_id": "voice", "cluster": "voice-prod", "state": "DONE"},
    {"customer_id": "globex", "profile_id": "chat", "cluster": "chat-prod", "state": "Skipped", "note": "no data"},
]
WORKFLOWS = {
    "generated_at": "2026-02-08T09:00:00",
    "workflows": [
        {"workflow_id": f"reindexconversations-acme-voice-{UUID}", "status": "WORKFLOW_EXECUTION_STATUS_COMPLETED"},
        {"workflow_id": f"reindexconversations-hooli-chat-{UUID}", "status": "TimedOut", "attempt": 3},
        {
            "workflow_id": f"reindexconversations-acme-sandbox-voice-{UUID}",
            "customer": "acme-sandbox",
            "status": "Running",
        },
    ],
}
BY_CLUSTER = {
    "us-east-1-prod": {"jobs": [{"customer": "wayne", "status": "completed"}]},
    "us-west-2-prod": {"jobs": [{"customer": "hooli", "status": "failed", "reason": "40P01"}]},
}
SEQUENTIAL = {
    "hooli": {
        "2026-01-01": {"status": "completed", "workflow_id": "w1", "completed_at": "2026-02-09T10:00:00Z"},
        "2026-01-02": {"status": "running", "workflow_id": "w2"},
    },
    "wayne": {"2026-01-01": "completed"},
}
DAY_LISTS = {
    "cluster": "us-west-2-prod",
    "customers": {
        "hooli": {"completed_days": ["2026-01-01", "2026-01-03"], "failed_days": ["2026-01-02"], "pending_days": []}
    },
}
DATABASES = {
    "cluster": "chat-prod",
    "databases": {
        "acme_chat": {"customer_id": "acme", "profile_id": "chat", "status": "completed", "conversations": 120},
        "acme_b_chat": {"customer_id": "acme-b", "profile_id": "chat", "status": "completed"},
    },
}


@pytest.mark.parametrize(
    ("file", "document", "expected"),
    [
        (
            "tracking/voice-prod.json",
            CLEANUP,
            [
                ("voice-prod", "acme", "2026-01-01..2026-02-20", "done"),
                ("voice-prod", "acme-sandbox", "2026-01-01..2026-02-20", "open"),
                ("voice-prod", "globex", "2026-01-01..2026-02-20", "failed"),
            ],
        ),
        (
            "tracking/voice-prod.json",
            FLAT,
            [
                ("voice-prod", "acme", JAN, "done"),
                ("voice-prod", "globex", JAN, "pending"),
                ("voice-prod", "initech", JAN, "open"),
            ],
        ),
        (
            "all.json",
            RECORDS,
            [("voice-prod", "acme", JAN, "done"), ("chat-prod", "globex", JAN, "excluded")],
        ),
        (
            "tracking/voice-prod.json",
            WORKFLOWS,
            [
                ("voice-prod", "acme", JAN, "done"),
                ("voice-prod", "hooli", JAN, "failed"),
                ("voice-prod", "acme-sandbox", JAN, "open"),
            ],
        ),
        (
            "backfill_tracking_retry.json",
            BY_CLUSTER,
            [("us-east-1-prod", "wayne", JAN, "done"), ("us-west-2-prod", "hooli", JAN, "failed")],
        ),
        (
            "us-west-2-prod.json",
            SEQUENTIAL,
            [
                ("us-west-2-prod", "hooli", "2026-01-01..2026-01-02", "done"),
                ("us-west-2-prod", "hooli", "2026-01-02..2026-01-03", "open"),
                ("us-west-2-prod", "wayne", "2026-01-01..2026-01-02", "done"),
            ],
        ),
        (
            "sequential_tracking.json",
            DAY_LISTS,
            [
                ("us-west-2-prod", "hooli", "2026-01-01..2026-01-02", "done"),
                ("us-west-2-prod", "hooli", "2026-01-03..2026-01-04", "done"),
                ("us-west-2-prod", "hooli", "2026-01-02..2026-01-03", "failed"),
            ],
        ),
        (
            "backfill_tracking.json",
            DATABASES,
            [("chat-prod", "acme", JAN, "done"), ("chat-prod", "acme-b", JAN, "done")],
        ),
    ],
    ids=[
        "customers with counts", "customer to word", "list of records", "workflows", "clusters with jobs",
        "days of customers", "lists of days", "databases",
    ],
)  # fmt: skip
def test_shapes_of_the_old_files(file: str, document: Any, expected: list[Any]) -> None:
    found = read(json.loads(json.dumps(document)), file)
    assert found.problems == ()
    assert told(found) == expected


def test_counts_times_and_reasons_are_kept() -> None:
    acme, _, globex = (entry for _, entry in read(CLEANUP).entries)
    assert acme.before == {"scorecard": 330, "score": 2881}
    assert acme.after == {"scorecard": 298, "score": 2609}
    assert acme.at == datetime(2026, 2, 19, 21, 14, 3, tzinfo=UTC)
    assert (acme.database, acme.profile_id) == ("acme_voice", "voice")
    assert globex.reason == "mutation timed out after 600 s"
    assert globex.source == "tracking/voice-prod.json: customers.globex"


@pytest.mark.parametrize(
    ("document", "where", "why"),
    [
        ({"customers": {"acme": {"status": "finito"}}}, "customers.acme.status", "'finito' is not a known state"),
        ({"customers": {"acme": {"status": 3}}}, "customers.acme.status", "is 3; a text is expected"),
        ({"customers": {"acme": {"statsu": "done"}}}, "customers.acme.statsu", "field that is not known"),
        ({"customers": {"acme": {}}}, "customers.acme", "has no state"),
        ({"customers": {"acme": 3}}, "customers.acme", "is 3; an object, a list or a state"),
        ({"customers": ["acme"]}, "customers.0", "names no state"),
        ({"acme": {"2026-01-32": "done"}}, "acme.2026-01-32", "not a day of the calendar"),
        ({"acme": {"status": "done", "start": "1/2/26"}}, "acme.start", "write it as YYYY-MM-DD"),
        ({"acme": {"status": "done", "start": "2026-01-01T05:00:00Z"}}, "acme.start", "write it as YYYY-MM-DD"),
        ({"acme": {"status": "done", "start": "2026-03-01"}}, "acme", "2026-03-01"),
        ({"acme": {"status": "done", "before": {"score": -1}}}, "acme.before", "score is -1"),
        ({"acme": {"status": "done", "before": "many"}}, "acme.before", "rows per table"),
        ({"acme": {"status": "done", "completed_at": "yesterday"}}, "acme.completed_at", "is not a time"),
        ({"acme": {"status": "done", "cluster": "moon-prod"}}, "acme", "cluster 'moon-prod' is not known"),
        ({"clusters": {"moon-prod": {"acme": "done"}}}, "clusters.moon-prod", "is not a cluster; known: chat-prod"),
        ({"databases": {"acme_voice": "completed"}}, "databases.acme_voice", "its name cannot be read back"),
        ([{"workflow_id": f"reindexconversations-a-b-c-{UUID}", "status": "done"}], "0", "cannot be cut for sure"),
        ("completed", "top", "names no customer"),
        (7, "top", "is 7"),
        ({}, "", "holds no entry with a state"),
        ([], "", "holds no entry with a state"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_path(document: Any, where: str, why: str) -> None:
    found = read(document)
    assert found.entries == ()
    (problem,) = found.problems
    assert problem.startswith(f"tracking/voice-prod.json: {where}")
    assert why in problem


def test_days_and_cluster_must_be_known() -> None:
    assert "say --start and --end" in read(FLAT, given=None).problems[0]
    assert "say --cluster" in read(FLAT, "notes.json").problems[0]
    assert told(read(FLAT, "notes.json", given=Known(cluster="chat-prod", start=JANUARY.start, end=JANUARY.end)))


def test_one_bad_entry_does_not_hide_the_others() -> None:
    found = read({"acme": "completed", "globex": "finito", "initech": "failed"})
    assert [customer for _, customer, _, _ in told(found)] == ["acme", "initech"]
    assert len(found.problems) == 1


def test_a_deeply_nested_file_ends() -> None:
    document: Any = "completed"
    for _ in range(200):
        document = {"jobs": [document]}
    assert "nested deeper" in read(document).problems[0]


def test_a_database_is_read_with_the_mapping_of_another_file() -> None:
    databases = mapping_of(DATABASES)
    assert databases == {"acme_chat": ("acme", "chat"), "acme_b_chat": ("acme-b", "chat")}
    found = read({"databases": {"acme_b_chat": "completed"}}, databases=databases)
    assert told(found) == [("voice-prod", "acme-b", JAN, "done")]


@pytest.mark.parametrize(("word", "state"), [("TIMED_OUT", "failed"), ("Not Started", "pending"), ("nope", None)])
def test_words_are_read_in_any_spelling(word: str, state: State | None) -> None:
    assert state_of(word) == state


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_read_or_refused_and_never_breaks(document: Any) -> None:
    found = read(document)
    assert found.entries or found.problems


@given(
    st.dictionaries(
        st.text("abc-", min_size=1, max_size=6).filter(str.strip), st.sampled_from(sorted(WORDS)), min_size=1
    )
)
def test_each_customer_of_a_flat_file_is_read_once(document: dict[str, str]) -> None:
    found = read({"customers": document})
    assert {e.customer_id: e.state for _, e in found.entries} == {name: WORDS[word] for name, word in document.items()}


# The history


def entry(customer: str, days: str, state: State, at: int | None = None) -> Entry:
    start, end = days.split("..")
    moment = None if at is None else datetime(2026, 2, at, tzinfo=UTC)
    return Entry(customer_id=customer, start=start, end=end, state=state, at=moment, source="a.json: x")  # type: ignore[arg-type]


def history(*entries: Entry) -> History:
    return History(cluster="voice-prod").merged(entries)


def test_a_history_goes_through_json_and_a_second_import_changes_nothing() -> None:
    once = history(*(found for _, found in read(CLEANUP).entries))
    again = History.from_json(once.to_json())
    assert again == once
    assert again.merged(once.entries) == once
    assert json.loads(once.to_json())["v"] == 1


def test_of_two_entries_the_later_counts() -> None:
    old, new = entry("acme", JAN, "failed", at=3), entry("acme", JAN, "done", at=5)
    assert history(old, new).entries == history(new, old).entries == (new,)


@pytest.mark.parametrize("text", ["", "[]", '{"cluster": 3}', '{"cluster": "a", "v": 2}', '{"cluster": "a", "x": 1}'])
def test_a_text_that_is_no_history_is_refused(text: str) -> None:
    with pytest.raises(HistoryError):
        History.from_json(text)


FIFTH = DateRange.parse("2026-01-05", "2026-01-06")


def test_what_a_history_says_to_a_plan() -> None:
    kept = history(entry("acme", JAN, "done"), entry("globex", JAN, "excluded"), entry("hooli", JAN, "open"))
    assert advice(kept, FIFTH, named=(), skip_done=False).left_out == {"globex"}
    assert advice(kept, FIFTH, named=(), skip_done=True).left_out == {"acme", "globex"}
    # What is owed or named is never left out.
    assert advice(kept, FIFTH, named=(), skip_done=True, owed=("acme", "globex")).left_out == set()
    named = advice(kept, FIFTH, named=("acme",), skip_done=True)
    said = "the old scripts' history: done by the scripts, which proves nothing; again: acme 2026-01-01..2026-02-01"
    assert named == Advice(notes=(said,))
    february = DateRange.parse("2026-02-01", "2026-03-01")
    assert advice(kept, february, named=(), skip_done=True) == Advice()


def test_a_long_history_is_said_short() -> None:
    kept = history(*(entry(f"customer-{n}", JAN, "open") for n in range(9)))
    (note,) = advice(kept, FIFTH, named=(), skip_done=False).notes
    assert note.endswith("customer-4 2026-01-01..2026-02-01, and 4 more")


def test_who_can_be_left_out_of_a_run() -> None:
    done = history(
        entry("acme", JAN, "done"),
        entry("globex", "2026-01-01..2026-01-20", "done"),
        entry("globex", "2026-01-20..2026-02-05", "excluded"),
        entry("hooli", "2026-01-01..2026-01-31", "done"),
        entry("wayne", JAN, "done"),
        entry("wayne", "2026-01-05..2026-01-06", "open"),
        entry("initech", "2026-03-01..2026-04-01", "failed"),
    )
    assert done.left_out(DateRange.parse("2026-01-01", "2026-02-01")) == ("acme", "globex")
    assert done.left_out(DateRange.parse("2026-01-10", "2026-01-12")) == ("acme", "globex", "hooli", "wayne")
    assert done.left_out(DateRange.parse("2026-02-01", "2026-03-01")) == ()


def test_open_entries_are_said_first() -> None:
    lines = history(entry("acme", JAN, "done"), entry("globex", JAN, "failed"), entry("hooli", JAN, "open")).lines()
    assert lines[0] == "voice-prod: 1 open, 1 failed, 1 done"
    assert lines[1].startswith("  open hooli 2026-01-01..2026-02-01: rows may be deleted and not written again")
    assert "no reason noted" in lines[2]
