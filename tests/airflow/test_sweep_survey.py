"""What a look before a sweep says to a person, and when an answer about earlier numbers covers it."""

from __future__ import annotations

from typing import Any

import pytest

from backfill.deleting.sweep import Survey, begin, begun, named
from include.scorecard_backfill.records import MissingRows, Numbers, TableDays, TableName
from tests.kit.waits import WINDOW, context

Json = dict[str, Any]
CARDS, SCORES = ("acme_voice", "scorecard"), ("acme_voice", "score")


def table(name: TableName, rows: dict[str, tuple[int, int]]) -> TableDays:
    """Rows and rows meant to go, by day of January 2026."""
    days = {f"2026-01-{day}": Numbers(rows=n, ids=n, meant=meant) for day, (n, meant) in rows.items()}
    return TableDays(database=name[0], table=name[1], days=days)


def missing(name: TableName, count: int, *ids: str) -> MissingRows:
    return MissingRows(database=name[0], table=name[1], count=count, ids=ids)


def survey(old: tuple[TableDays, ...], *others: MissingRows) -> Survey:
    rewritten = tuple(table(t.name, {"05": (1_500, 0)}) for t in old)
    found = {t.name: missing(t.name, 0) for t in old} | {(m.database, m.table): m for m in others}
    return Survey(old, rewritten, (), "ok", (), found)


NOW = survey((table(CARDS, {"05": (12, 9), "06": (1_200, 1)}),), missing(CARDS, 2, "a", "b"))


def test_a_person_sees_each_number_once_and_some_ids() -> None:
    lines = NOW.markdown.splitlines()
    assert lines[0].split(" | ")[1:] == ["written again", "to be deleted", "of these meant to go", "older copies",
                                         "others |"]  # fmt: skip
    assert lines[2] == "| acme_voice.scorecard | 1,500 | 1,212 | 10 | 1,200 | 2 |"
    assert lines[-1] == "acme_voice.scorecard: 2 rows were not written again and are not meant to go, such as a, b"


def test_only_tables_with_such_rows_are_named() -> None:
    found = {CARDS: missing(CARDS, 0), SCORES: missing(SCORES, 3)}
    assert named(found) == ["acme_voice.score: 3 rows were not written again and are not meant to go"]
    assert named({CARDS: missing(CARDS, 0)}) == []


@pytest.mark.parametrize(
    ("covered", "is_within"),
    [
        ([(CARDS, {"05": (12, 9), "06": (1_200, 1)})], True),
        ([(CARDS, {"05": (13, 9), "06": (1_200, 1), "07": (5, 0)}), (SCORES, {"05": (1, 0)})], True),
        ([(CARDS, {"05": (11, 9), "06": (1_200, 1)})], False),
        ([(CARDS, {"05": (5_000, 9)})], False),
        ([(SCORES, {"05": (12, 9), "06": (1_200, 1)})], False),
        ([], False),
    ],
)
def test_an_answer_covers_no_more_rows_of_any_day(covered: list[Any], is_within: bool) -> None:
    assert NOW.within([table(*one) for one in covered]) is is_within


def test_nothing_to_delete_is_covered_by_anything() -> None:
    assert survey((table(CARDS, {}),)).within([])


def test_other_numbers_have_another_digest() -> None:
    same = survey(NOW.old, missing(CARDS, 1))
    assert same.digest == NOW.digest
    digests = {survey((table(name, rows),)).digest for name in (CARDS, SCORES) for rows in (
        {"05": (12, 9)}, {"06": (12, 9)}, {"05": (11, 9)}, {"05": (12, 8)})}  # fmt: skip
    assert len(digests) == 8


def test_what_a_sweep_is_to_take_is_kept_as_it_was_when_it_began() -> None:
    task = context("windows.delete")
    assert begun(task, WINDOW) == ()
    begin(task, WINDOW, NOW.old)
    assert begun(task, WINDOW) == NOW.old
    assert begun(task, WINDOW.model_copy(update={"key": "another"})) == ()
