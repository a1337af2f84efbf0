"""Records: one JSON form each, versioned, read whole or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from include.scorecard_backfill.debts import Debt
from include.scorecard_backfill.records import (
    VERSION,
    ClosedEvent,
    Counted,
    Deleted,
    FailEvent,
    Failure,
    GoEvent,
    JobEvent,
    MutationsGone,
    Record,
    RecordError,
    Reindexed,
    ReindexEvent,
    ResendEvent,
    Verified,
    Window,
    WorkflowsClosed,
    plain,
    read,
    read_event,
    settled,
)
from include.scorecard_backfill.records.results import Result
from tests.kit import build

RESULTS: tuple[type[Record], ...] = (*get_args(Result), Window, Counted)
EVENTS: tuple[type[Record], ...] = (FailEvent, ResendEvent, ReindexEvent, ClosedEvent, GoEvent, JobEvent)
EVERY: tuple[type[Record], ...] = (*RESULTS, *EVENTS, Debt)

WINDOW = build.window()
DELETED = Deleted(key=WINDOW.key, window=WINDOW, status="deleted", counted=build.counted(WINDOW), generation=2)
SAMPLES: tuple[Record, ...] = (
    WINDOW,
    build.counted(WINDOW, build.table({0: "abc"})),
    DELETED,
    MutationsGone(key="k", status="gone", hosts=("a", "b")),
    Reindexed(key="k", window=WINDOW, status="reindexed", attempt=1),
    WorkflowsClosed(key="k", status="completed", done=None),
    Verified(key="k", status="verified"),
    build.failure(WINDOW, "killed", deleted=DELETED),
    FailEvent(failure=build.failure(WINDOW, "killed")),
    ResendEvent(deleted=DELETED, generation=3),
    ReindexEvent(window=WINDOW, attempt=1),
    ClosedEvent(closed=WorkflowsClosed(key="k", status="completed")),
    GoEvent(key="k", why="quiet"),
    JobEvent(key="k", job_name="j", attempt=1, made_at=1.5, outcome="complete"),
    build.debt(WINDOW, build.table({0: "abc"})),
)


COUNT = st.integers(0, 2**40)
PLAIN: Mapping[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=8),
    int: COUNT,
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    date: st.dates(),
    datetime: st.datetimes(timezones=st.just(UTC)),
    type(None): st.none(),
}
WINDOWS = st.builds(
    build.window,
    st.integers(0, 400),
    st.integers(1, 40),
    st.sampled_from(["acme", "globex", "Hooli.Ltd", "wayne-1"]),
    st.sampled_from(["run1", "scheduled__2026-02-02T06:00:00+00:00"]),
)


@cache
def of(form: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type: models, unions, words, tuples, dicts, plain ones."""
    if form in PLAIN:
        return PLAIN[form]
    if form is Window:
        return WINDOWS
    if isinstance(form, type) and issubclass(form, BaseModel):
        return fields_of(form)
    origin, inner = get_origin(form), get_args(form)
    if origin is Literal:
        return st.sampled_from(inner)
    if origin in (Union, UnionType):
        return st.one_of([of(one) for one in inner])
    if origin is tuple and inner[-1] is Ellipsis:
        return st.lists(of(inner[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*[of(one) for one in inner])
    assert origin is dict, form
    return st.dictionaries(of(inner[0]), of(inner[1]), max_size=2)


def fields_of(kind: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Any record of a kind: every field is given."""
    forms: dict[str, Any] = {name: f.annotation for name, f in kind.model_fields.items() if name != "v"}
    return st.builds(kind, **{name: of(form) for name, form in forms.items()})


@pytest.mark.parametrize("kind", EVERY, ids=lambda k: k.__name__)
@given(st.data(), st.integers(0, 2))
def test_every_record_goes_through_json_and_back(kind: type[Record], data: st.DataObject, encodings: int) -> None:
    record = data.draw(of(kind))
    value: Any = json.loads(json.dumps(record.to_json()))
    for _ in range(encodings):
        # What a trigger pushes is JSON text already when Airflow encodes it.
        value = json.dumps(value)
    assert type(record).from_json(value) == record


@given(st.one_of([of(kind) for kind in RESULTS]))
def test_a_result_is_read_by_its_kind(record: Record) -> None:
    assert read(json.dumps(record.to_json())) == record
    with pytest.raises(RecordError, match="an event is wanted"):
        read_event(record.to_json())


@given(st.one_of([of(kind) for kind in EVENTS]))
def test_an_event_is_read_by_its_kind(record: Record) -> None:
    assert read_event(json.dumps(record.to_json())) == record


def test_every_kind_is_tested_and_has_a_word_of_its_own() -> None:
    kinds = [kind.model_fields["kind"].default for kind in EVERY]
    assert len(set(kinds)) == len(kinds)
    assert sorted(kinds) == sorted(sample.kind for sample in SAMPLES)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.kind)
@pytest.mark.parametrize("version", [0, VERSION + 1, "1", None])
def test_another_version_is_refused_with_its_version(sample: Record, version: object) -> None:
    # Also when not one of its fields is known: it is never read half.
    for value in ({**sample.to_json(), "v": version}, {"kind": sample.kind, "v": version, "new": 1}):
        with pytest.raises(RecordError, match=rf"{sample.kind}: version {version!r} .* reads {VERSION}\)"):
            type(sample).from_json(value)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.kind)
def test_what_is_not_this_record_is_refused(sample: Record) -> None:
    kind, value = type(sample), sample.to_json()
    with pytest.raises(RecordError, match="surprise"):
        kind.from_json({**value, "surprise": 1})
    with pytest.raises(RecordError, match="one of kind 'other' is there"):
        kind.from_json({**value, "kind": "other"})
    nothings: tuple[object, ...] = (None, "", "None", [], 3, "[]")
    for nothing in nothings:
        with pytest.raises(RecordError, match="a record is wanted"):
            kind.from_json(nothing)
    with pytest.raises(RecordError, match="is not JSON"):
        kind.from_json("{")
    needed = [name for name, field in kind.model_fields.items() if field.is_required()]
    assert needed
    for name in needed:
        with pytest.raises(RecordError, match=name):
            kind.from_json({key: content for key, content in value.items() if key != name})


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.kind)
def test_records_are_frozen(sample: Record) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        sample.v = 2


def test_an_inner_record_of_another_version_is_not_read_either() -> None:
    value = FailEvent(failure=build.failure(WINDOW, "killed")).to_json()
    value["failure"]["v"] = VERSION + 1
    with pytest.raises(RecordError, match="version"):
        read_event(value)


OTHERS: tuple[Any, ...] = ({}, {"kind": 3}, {"kind": "unheard_of", "v": 1}, [1], "7")


def test_nothing_is_not_a_record_and_something_else_is_refused() -> None:
    assert [read(nothing) for nothing in (None, "", "None", "null", '""')] == [None] * 5
    for other in OTHERS:
        with pytest.raises(RecordError, match="a record is wanted"):
            read(other)
    for other in (None, "text", {"kind": "deleted", "v": 1}, *OTHERS):
        with pytest.raises(RecordError):
            read_event(other)


def test_text_is_decoded_as_often_as_it_was_encoded() -> None:
    assert plain(json.dumps(json.dumps([1]))) == [1]
    assert plain({"a": "[1]"}) == {"a": "[1]"}
    with pytest.raises(RecordError, match="'no' is not JSON"):
        plain("no")


def test_a_window_shows_its_label_and_reads_it_over() -> None:
    value = WINDOW.to_json()
    assert value["label"] == "acme 2026-01-01..2026-01-11"
    assert Window.from_json({**value, "label": "something else"}) == WINDOW
    assert WINDOW.profiles == ("voice",)
    assert [(t, p.database, p.start, p.end) for t, p in WINDOW.slices()] == [
        (t, "acme_voice", WINDOW.start, WINDOW.end) for t in ("score", "scorecard")
    ]


def test_days_within_a_range_are_from_its_start_to_the_day_before_its_end() -> None:
    found = build.table({0: "ab", 1: "c", 2: "def"}).within(WINDOW.start, build.window(0, 2).end)
    assert (list(found.days), found.rows) == (["2026-01-01", "2026-01-02"], 3)


VERIFIED = Verified(key="k", status="verified")


@pytest.mark.parametrize(
    ("verified", "cut", "expected"),
    [
        (VERIFIED, None, "verified"),
        (VERIFIED, ["k"], "verified"),
        (Verified(key="k", status="cut"), None, ""),
        (Verified(key="other", status="verified"), None, ""),
        (None, ["k"], "cut"),
        (None, '["k"]', "cut"),
        (build.failure(WINDOW, "killed"), ["other"], ""),
        (None, "", ""),
        (None, "k", ""),
    ],
)
def test_a_window_is_settled_by_its_own_records_only(verified: Record | None, cut: object, expected: str) -> None:
    if cut == "k":
        with pytest.raises(RecordError):
            settled("k", verified, cut)
        return
    assert settled("k", verified, cut) == expected


def test_a_failure_says_cause_and_reason() -> None:
    assert Failure(key="k", stage="delete", cause="killed", reason="on ch-1").text == "killed: on ch-1"
