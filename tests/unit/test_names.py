"""Names: deterministic, valid where they are used, and different for different things."""

from __future__ import annotations

import doctest
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill import names

RFC1123 = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
KEYS = st.integers(0, 16**16 - 1).map(lambda n: f"{n:016x}")
DAYS = st.dates().map(str)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=90)
CUSTOMERS = st.one_of(TEXTS, st.text("aA-_.", max_size=20), st.text("abc", min_size=60, max_size=90))


def test_doctests_hold() -> None:
    assert doctest.testmod(names).failed == 0


@given(KEYS, CUSTOMERS, DAYS, st.integers(1, 9_999))
def test_a_job_name_is_valid_and_leaves_room_for_its_pods(key: str, customer: str, start: str, attempt: int) -> None:
    name = names.job_name(key=key, customer_id=customer, start=start, attempt=attempt)
    assert RFC1123.fullmatch(name), name
    assert len(name) <= names.JOB_NAME_MAX <= 63 - 11
    assert name == names.job_name(key=key, customer_id=customer, start=start, attempt=attempt)


@given(st.lists(st.tuples(KEYS, st.integers(1, 300)), min_size=2, max_size=6, unique=True), CUSTOMERS, DAYS)
def test_different_windows_and_attempts_have_different_jobs(
    wanted: list[tuple[str, int]], customer: str, start: str
) -> None:
    made = {names.job_name(key=key, customer_id=customer, start=start, attempt=attempt) for key, attempt in wanted}
    assert len(made) == len(wanted)


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempts_count_from_one(attempt: int) -> None:
    with pytest.raises(ValueError, match=f"attempt must be 1 or more, not {attempt}"):
        names.job_name(key="0" * 16, customer_id="acme", start="2026-01-01", attempt=attempt)


@pytest.mark.parametrize("customer", ["", "---", "日本", "ACME", "acme.eu", "-acme-", "a" * 200, "a-" * 40])
def test_a_job_name_survives_any_customer_id(customer: str) -> None:
    name = names.job_name(key="0" * 16, customer_id=customer, start="2026-01-01", attempt=1)
    assert RFC1123.fullmatch(name)
    assert name.endswith(f"-20260101-{'0' * 16}-a1")


@given(CUSTOMERS)
def test_a_label_value_is_valid_and_stays_itself_when_it_was(text: str) -> None:
    value = names.label_value(text)
    assert LABEL.fullmatch(value), value
    assert len(value) <= 63
    assert names.label_value(value) == value
    assert (value == text) is bool(LABEL.fullmatch(text))


@given(st.lists(CUSTOMERS, min_size=2, max_size=6, unique=True))
def test_different_texts_have_different_label_values(texts: list[str]) -> None:
    assert len({names.label_value(text) for text in texts}) == len(texts)


def test_texts_that_differ_only_in_what_a_label_cannot_hold_stay_apart() -> None:
    texts = ["acme", "acme ", "acme/", "-acme", "acme-", "a" * 63, "a" * 64, "a" * 65, "", " ", "/"]
    assert len({names.label_value(text) for text in texts}) == len(texts)


PARTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=4)


@given(PARTS, PARTS)
def test_a_digest_knows_where_each_part_ends(one: list[str], other: list[str]) -> None:
    assert (names.digest(*one) == names.digest(*other)) is (one == other)
    assert re.fullmatch(r"[0-9a-f]{16}", names.digest(*one))


def test_parts_that_are_joined_the_same_way_differ() -> None:
    assert len({names.digest("ab", "c"), names.digest("a", "bc"), names.digest("abc"), names.digest("abc", "")}) == 4
    assert names.digest("1:a") != names.digest("a")


def test_every_part_of_a_window_is_in_its_key() -> None:
    base = {"cluster": "demo", "run_id": "run1", "customer_id": "acme", "start": "2026-01-01", "end": "2026-02-01"}
    keys = {names.window_key(**base), *(names.window_key(**(base | {part: base[part] + "x"})) for part in base)}
    assert len(keys) == 6
    plans = {names.window_key(**base, plan=plan) for plan in (names.new_plan_id(), names.new_plan_id(), "")}
    assert len(plans | keys) == 8


def test_a_key_is_the_same_in_every_process() -> None:
    code = (
        "from include.scorecard_backfill.names import window_key as k;"
        "print(k(cluster='demo', run_id='r', customer_id='é', start='2026-01-01', end='2026-02-01'))"
    )
    seen = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.strip() == names.window_key(
        cluster="demo", run_id="r", customer_id="é", start="2026-01-01", end="2026-02-01"
    )


@pytest.mark.parametrize(
    ("customer", "profile", "database"),
    [
        ("acme", "voice", "acme_voice"),
        ("acme-sandbox", "voice-1", "acme_sandbox_voice_1"),
        ("globex.eu", "a b", "globex_eu_a_b"),
        ("Ünique", "p", "_nique_p"),
        ("a_b", "c", "a_b_c"),
    ],
)
def test_a_database_is_named_by_the_rule_of_production(customer: str, profile: str, database: str) -> None:
    assert names.sanitize_database_name(customer, profile) == database


@given(TEXTS, TEXTS)
def test_a_database_name_needs_no_quoting_and_has_the_length_of_its_parts(customer: str, profile: str) -> None:
    name = names.sanitize_database_name(customer, profile)
    assert set(name) <= set(string.ascii_letters + string.digits + "_")
    assert len(name) == len(customer) + 1 + len(profile)


@given(TEXTS, st.integers(0, 30))
def test_a_slug_is_a_piece_of_a_label_or_nothing(text: str, length: int) -> None:
    slug = names.dns_slug(text, length)
    assert slug == "" or RFC1123.fullmatch(slug)
    assert len(slug) <= length
