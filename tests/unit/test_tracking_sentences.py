"""The old files again: every refusal whole with its path, every field by each way to it, and what a person is told."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest

from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.tracking.advice import advice
from include.scorecard_backfill.tracking.history import Entry, History, HistoryError, State
from include.scorecard_backfill.tracking.read import Found, Known, mapping_of, read_tracking

CLUSTERS = ("chat-prod", "voice-prod")
DAYS = Known(start=date(2026, 1, 1), end=date(2026, 2, 1))
FILE = "old/voice-prod.json"
UUID = "0a1b2c3d-0000-4000-8000-00000000abcd"


def read(document: Any, file: str = FILE, given: Known | None = DAYS, **more: Any) -> Found:
    return read_tracking(document, file, clusters=CLUSTERS, given=given, **more)


def only(document: Any, **more: Any) -> Entry:
    """The entry of a file that holds one and nothing wrong."""
    found = read(document, **more)
    assert found.problems == ()
    ((_, entry),) = found.entries
    return entry


KNOWN_CLUSTERS = "known: chat-prod, voice-prod"
FIELD = "is a field that is not known here; remove it, or give its value a known name"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({}, "holds no entry with a state; nothing was read"),
        (7, "top: is 7; an object, a list or a state such as completed is expected"),
        ("finito", "top: 'finito' is not a known state (completed, failed, running, deleted, pending, ...)"),
        ("completed", "top: names no customer (a workflow id with more than two parts cannot be cut for sure)"),
        ({"customers": {"acme": {"state": "x", "note": "n"}}},
         "customers.acme.state: 'x' is not a known state (completed, failed, running, deleted, pending, ...)"),
        ({"acme": {"status": ["done"]}}, f"acme.status: {FIELD}"),
        ({"acme": {"status": True}}, "acme.status: is True; a text is expected"),
        ({"acme": {"profile": "voice"}}, "acme: has no state; a field such as status: completed is expected"),
        ({"acme": {"stat": "done"}}, f"acme.stat: {FIELD}"),
        (["done"], "0: is 'done' in a list that names no state (completed, failed, pending)"),
        ({"customers": ["acme"]}, "customers.0: is 'acme' in a list that names no state (completed, failed, pending)"),
        ({"acme": {"completed": ["2026-13-01"]}},
         "acme.completed.0: day: '2026-13-01' is not a day of the calendar (month must be in 1..12); write it as"
         " YYYY-MM-DD."),
        ({"acme": {"2026-13-01": "done"}},
         "acme.2026-13-01: day: '2026-13-01' is not a day of the calendar (month must be in 1..12); write it as"
         " YYYY-MM-DD."),
        ({"acme": {"status": "done", "from": "1/2/26"}},
         "acme.from: day: '1/2/26' is not a date; write it as YYYY-MM-DD, for example '2026-02-01'."),
        ({"acme": {"status": "done", "start": "2026-03-01"}},
         "acme: start 2026-03-01 is not before end 2026-02-01; the end is exclusive, one day is"
         " 2026-03-01..2026-03-02."),
        ({"acme": {"status": "done", "before": {"score": -1}}},
         "acme.before: score is -1; a number of rows from 0 on is expected"),
        ({"acme": {"status": "done", "after": {"score": True}}},
         "acme.after: score is True; a number of rows from 0 on is expected"),
        ({"acme": {"status": "done", "after": {"score": "1"}}},
         "acme.after: score is '1'; a number of rows from 0 on is expected"),
        ({"acme": {"status": "done", "before": "many"}},
         "acme.before: is 'many'; rows per table such as {'scorecard': 10} are expected"),
        ({"acme": {"status": "done", "before": True}},
         "acme.before: is True; rows per table such as {'scorecard': 10} are expected"),
        ({"acme": {"status": "done", "before": [1]}},
         "acme.before: is [1]; rows per table such as {'scorecard': 10} are expected"),
        ({"acme": {"status": "done", "updated": "soon"}},
         "acme.updated: 'soon' is not a time; write it as 2026-02-21T10:00:00Z"),
        ({"acme": {"status": "done", "cluster": "moon"}}, f"acme: cluster 'moon' is not known; {KNOWN_CLUSTERS}"),
        ({"clusters": {"moon": {"acme": "done"}}}, f"clusters.moon: is not a cluster; {KNOWN_CLUSTERS}"),
        ({"databases": {"acme_voice": "done"}},
         "databases.acme_voice: database 'acme_voice' is named without its customer, and its name cannot be read back;"
         " import the file with the mapping (backfill_tracking.json) together with this one"),
        ([{"workflow_id": f"reindexconversations-a-b-c-{UUID}", "status": "done"}],
         "0: names no customer (a workflow id with more than two parts cannot be cut for sure)"),
        ({"x" * 201: "done"}, f"{'x' * 201}: String should have at most 200 characters"),
    ],
)  # fmt: skip
def test_each_refusal_names_file_path_value_and_what_would_be_right(document: Any, problem: str) -> None:
    assert read(document) == Found((), (f"{FILE}: {problem}",), ())


def test_what_is_missing_is_said_by_the_option_that_fills_it() -> None:
    assert read({"acme": "done"}, given=None).problems == (
        f"{FILE}: acme: names no days; say --start and --end (exclusive) for entries without any",
    )
    for half in (Known(start=date(2026, 1, 1)), Known(end=date(2026, 2, 1))):
        assert "names no days" in read({"acme": "done"}, given=half).problems[0]
    assert read({"acme": "done"}, "notes.json").problems == ("notes.json: acme: names no cluster; say --cluster",)


def test_the_files_name_is_the_cluster_when_nobody_says_another() -> None:
    for file in ("voice-prod.json", "a/b/voice-prod.json", "voice-prod"):
        assert [cluster for cluster, _ in read({"acme": "done"}, file).entries] == ["voice-prod"]
    said = Known(cluster="chat-prod", start=DAYS.start, end=DAYS.end)
    assert [cluster for cluster, _ in read({"acme": "done"}, given=said).entries] == ["chat-prod"]
    assert read({"cluster": "chat-prod", "acme": "done"}).entries[0][0] == "chat-prod"
    assert read({"chat-prod": {"acme": "done"}}, "x.json").entries[0][0] == "chat-prod"
    # Where the cluster is known, a key of that name is a customer.
    assert read({"chat-prod": "done"}).entries[0][1].customer_id == "chat-prod"


def test_a_file_may_be_twelve_levels_deep() -> None:
    def deep(levels: int) -> Any:
        document: Any = {"customer": "acme", "status": "done"}
        for _ in range(levels):
            document = [document]
        return document

    assert only(deep(12)).state == "done"
    assert read(deep(13)).problems == (f"{FILE}: {'.'.join('0' * 13)}: is nested deeper than 12 levels",)


@pytest.mark.parametrize(
    ("fields", "read_as"),
    [
        ({"customer": "globex", "usecase": "chat", "db": "d"},
         {"customer_id": "globex", "profile_id": "chat", "database": "d"}),
        ({"date": "2026-01-05"}, {"start": date(2026, 1, 5), "end": date(2026, 1, 6)}),
        ({"start_date": "2026-01-05T00:00:00Z", "to": "2026-01-07T00:00:00.000+00:00"},
         {"start": date(2026, 1, 5), "end": date(2026, 1, 7)}),
        ({"before": 5, "after": {"score": 1, "scorecard": 0}},
         {"before": {"scorecard": 5}, "after": {"score": 1, "scorecard": 0}}),
        ({"updated_at": "2026-02-01T10:00:00"}, {"at": datetime(2026, 2, 1, 10, tzinfo=UTC)}),
        ({"updated_at": "2026-02-01T10:00:00+02:00"}, {"at": datetime(2026, 2, 1, 8, tzinfo=UTC)}),
        ({"error": "e" * 600}, {"reason": "e" * 500}),
        ({"execution_id": f"reindexconversations-globex-chat-{UUID}"},
         {"workflow_id": f"reindexconversations-globex-chat-{UUID}", "customer_id": "acme", "profile_id": ""}),
        ({"customer": None, "profile": None, "before": None}, {}),
    ],
)  # fmt: skip
def test_each_field_of_an_entry_is_kept(fields: dict[str, Any], read_as: dict[str, Any]) -> None:
    least = {"customer_id": "acme", "start": DAYS.start, "end": DAYS.end, "state": "done"}
    expected = Entry(**least | read_as, source=f"{FILE}: customers.acme")
    assert only({"customers": {"acme": {"status": "done", **fields}}}) == expected


def test_customer_and_profile_of_a_workflow_id_that_can_be_read_in_one_way() -> None:
    found = only([{"workflow_id": f"reindexconversations-globex-chat-{UUID}", "status": "failed"}])
    assert (found.customer_id, found.profile_id, found.state, found.source) == (
        "globex",
        "chat",
        "failed",
        f"{FILE}: 0",
    )
    for strange in ("w-1", f"other-globex-chat-{UUID}", f"reindexconversations-globex-{UUID}"):
        assert "names no customer" in read([{"workflow_id": strange, "status": "done"}]).problems[0]


def test_what_is_said_above_holds_below_and_what_is_said_below_wins() -> None:
    document = {
        "start": "2026-01-03", "end": "2026-01-04", "profile": "voice",
        "customers": {"acme": "done", "globex": {"status": "failed", "end": "2026-01-09", "profile": "chat"}},
    }  # fmt: skip
    told = [(e.customer_id, e.profile_id, e.days.label, e.state) for _, e in read(document).entries]
    assert told == [
        ("acme", "voice", "2026-01-03..2026-01-04", "done"),
        ("globex", "chat", "2026-01-03..2026-01-09", "failed"),
    ]


def test_lists_are_of_customers_until_one_is_known_and_of_days_then() -> None:
    document = {"completed": ["acme", {"customer": "globex"}], "failed": ["hooli"]}
    assert [(e.customer_id, e.state, e.source) for _, e in read(document).entries] == [
        ("acme", "done", f"{FILE}: completed.0"), ("globex", "done", f"{FILE}: completed.1"),
        ("hooli", "failed", f"{FILE}: failed.0"),
    ]  # fmt: skip
    days = {"hooli": {"completed": ["2026-01-01"], "pending": ["2026-01-02", "2026-01-03"]}}
    assert [(e.days.label, e.state) for _, e in read(days).entries] == [
        ("2026-01-01..2026-01-02", "done"), ("2026-01-02..2026-01-03", "pending"),
        ("2026-01-03..2026-01-04", "pending"),
    ]  # fmt: skip
    found = read({"status": "failed", "databases": ["d"], "customers": ["acme"]}, databases={"d": ("globex", "chat")})
    assert [(e.customer_id, e.profile_id, e.database, e.state) for _, e in found.entries] == [
        ("globex", "chat", "d", "failed"), ("acme", "", "", "failed"),
    ]  # fmt: skip


def test_numbers_and_notes_beside_a_state_are_named_as_not_used() -> None:
    found = read({"acme": {"status": "done", "attempts": 2, "conversations": 120, "ratio": 0.5}})
    assert found.problems == ()
    assert set(found.unused) >= {"conversations", "ratio"}
    assert list(found.unused) == sorted(found.unused)
    assert read({"acme": "done"}).unused == ()


def test_one_wrong_field_takes_its_entry_away_and_no_other() -> None:
    found = read({"acme": {"status": "done", "end": "soon"}, "globex": "done"})
    assert [e.customer_id for _, e in found.entries] == ["globex"]
    assert len(found.problems) == 1


def test_the_mapping_is_of_databases_that_stand_beside_their_customer_wherever_that_is() -> None:
    document = {
        "databases": {"d1": {"customer_id": "acme", "profile": "voice"}, "d2": {"profile": "chat"}},
        "list": [{"db_name": "d3", "customer": "globex"}, {"database": "d4"}, {"customer": "nobody"}, 7, None],
        "deep": {"a": {"d5": {"Customer-ID": "hooli", "profile_id": 3, "database": "named"}}},
    }
    assert mapping_of(document) == {"d1": ("acme", "voice"), "d3": ("globex", ""), "named": ("hooli", "")}
    for levels, found in ((12, {"x": ("acme", "")}), (13, {})):
        nested: Any = {"database": "x", "customer": "acme"}
        for _ in range(levels):
            nested = [nested]
        assert mapping_of(nested) == found


# -- the history ----------------------------------------------------------------------------------------------------


def entry(customer: str, days: str, state: State, **more: Any) -> Entry:
    start, end = days.split("..")
    return Entry(customer_id=customer, start=start, end=end, state=state, source="a.json: x", **more)  # type: ignore[arg-type]


JAN = "2026-01-01..2026-02-01"


def history(*entries: Entry) -> History:
    return History(cluster="voice-prod").merged(entries)


def test_what_a_person_reads_of_a_history() -> None:
    states: tuple[State, ...] = ("done", "done", "excluded", "pending", "failed", "open")
    many = [entry(f"c{n}", JAN, state) for n, state in enumerate(states)]
    failed = entry("acme", JAN, "failed", reason="40P01", profile_id="voice")
    assert history(*many, failed).lines() == (
        "voice-prod: 1 open, 2 failed, 1 pending, 2 done, 1 excluded",
        f"  open c5 {JAN}: rows may be deleted and not written again: do these first (a.json: x)",
        f"  failed acme/voice {JAN}: 40P01 (a.json: x)",
        f"  failed c4 {JAN}: no reason noted (a.json: x)",
    )
    assert history().lines() == ("voice-prod: nothing",)


def test_a_history_is_written_short_and_sorted() -> None:
    moment = datetime(2026, 2, 3, tzinfo=UTC)
    kept = history(entry("b", JAN, "done"),
                   entry("a", "2026-01-05..2026-01-06", "done", at=moment, before={"score": 1}),
                   entry("a", "2026-01-01..2026-01-09", "open"))  # fmt: skip
    assert json.loads(kept.to_json()) == {
        "v": 1, "cluster": "voice-prod",
        "entries": [
            {"customer_id": "a", "start": "2026-01-01", "end": "2026-01-09", "state": "open", "source": "a.json: x"},
            {"customer_id": "a", "start": "2026-01-05", "end": "2026-01-06", "state": "done", "before": {"score": 1},
             "at": "2026-02-03T00:00:00Z", "source": "a.json: x"},
            {"customer_id": "b", "start": "2026-01-01", "end": "2026-02-01", "state": "done", "source": "a.json: x"},
        ],
    }  # fmt: skip
    assert kept.to_json().splitlines()[1].startswith(' "')
    assert [e.state for e in kept.of("open", "failed")] == ["open"]


def test_of_the_same_days_the_later_entry_counts_and_without_a_time_the_new_one() -> None:
    def at(day: int | None, state: State) -> Entry:
        return entry("a", JAN, state, at=None if day is None else datetime(2026, 2, day, tzinfo=UTC))

    for old, new, kept in (
        (at(5, "done"), at(3, "failed"), "done"), (at(3, "done"), at(3, "failed"), "failed"),
        (at(None, "done"), at(3, "failed"), "failed"), (at(3, "done"), at(None, "failed"), "failed"),
    ):  # fmt: skip
        assert [e.state for e in history(old).merged([new]).entries] == [kept]


def test_what_is_wrong_with_a_history_is_named_by_its_field() -> None:
    with pytest.raises(HistoryError, match=r"^cluster: Field required; entries\.0\.customer_id: Field required; "):
        History.from_json('{"entries": [{}]}')
    broken = json.dumps({"entries": [{} for _ in range(9)]})
    with pytest.raises(HistoryError) as refused:
        History.from_json(broken)
    assert str(refused.value).count("; ") == 4


def test_what_a_plan_is_told_of_a_history() -> None:
    days = DateRange.parse("2026-01-01", "2026-02-01")
    kept = history(
        entry("a", JAN, "done"), entry("b", JAN, "excluded"), entry("c", JAN, "open"), entry("d", JAN, "failed"),
        entry("e", JAN, "pending"), entry("f", JAN, "excluded"), entry("g", "2026-02-01..2026-03-01", "open"),
    )  # fmt: skip
    source = "the old scripts' history"
    found = advice(kept, days, named=(), skip_done=True, owed=["f"])
    assert found.left_out == {"a", "b"}
    assert found.notes == (
        f"left out, excluded in {source}: b",
        f"left out, done by {source} (never proven here): a",
        f"{source}: rows may be deleted and not written again: c {JAN}",
        f"{source}: tried and failed: d {JAN}",
        f"{source}: excluded, and in this plan because it is named or owed: f {JAN}",
    )
    assert advice(kept, days, named=(), skip_done=False).notes[-1] == (
        f"{source}: done by the scripts, which proves nothing; again: a {JAN}"
    )
    named = advice(kept, days, named=["b", "c"], skip_done=True)
    assert (named.left_out, len(named.notes)) == (frozenset(), 2)
    many = history(*(entry(f"c{n}", JAN, "excluded") for n in range(7)))
    assert advice(many, days, named=(), skip_done=False).notes == (
        f"left out, excluded in {source}: c0, c1, c2, c3, c4, and 2 more",
    )
    five = history(*(entry(f"c{n}", JAN, "excluded") for n in range(5)))
    assert advice(five, days, named=(), skip_done=False).notes[0].endswith("c0, c1, c2, c3, c4")
