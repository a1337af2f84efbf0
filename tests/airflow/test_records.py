"""Records that stages exchange, however often they were encoded on the way."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.records import parse, parse_record, settled

# A text value inside would be read as JSON again; records hold them only as fields.
VALUES = st.dictionaries(st.text(), st.none() | st.integers() | st.text()) | st.lists(st.integers())


@given(VALUES, st.integers(0, 3))
def test_a_record_is_read_however_often_it_was_encoded(value: object, times: int) -> None:
    text: object = value
    for _ in range(times):
        text = json.dumps(text)
    assert parse(text) == value


@pytest.mark.parametrize("empty", ["", "None", "null", '"null"', None])
def test_what_a_template_makes_of_nothing_is_nothing(empty: object) -> None:
    assert parse(empty) is None
    assert parse_record(empty) == {}


@pytest.mark.parametrize("other", [[], "[]", 3, "true"])
def test_what_is_no_record_is_an_empty_one(other: object) -> None:
    assert parse_record(other) == {}


def test_broken_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        parse("{")


@pytest.mark.parametrize(
    ("verified", "cut", "expected"),
    [
        ({"key": "a", "status": "verified"}, [], "verified"),
        (json.dumps(json.dumps({"key": "a", "status": "verified"})), None, "verified"),
        ({"key": "b", "status": "verified"}, [], ""),
        ({"key": "a", "status": "failed"}, [], ""),
        (None, ["b", "a"], "cut"),
        ("null", '["a"]', "cut"),
        ({"key": "a", "status": "cut"}, ["b"], ""),
        ("", "", ""),
    ],
)
def test_a_window_is_settled_by_its_own_key_only(verified: object, cut: object, expected: str) -> None:
    assert settled("a", verified, cut) == expected
