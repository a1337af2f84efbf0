"""The balance of a window: green means that every row that should be there is, by table and day."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.proof import HASHES, SHOWN, Band, Rules, balance, judge, without
from include.scorecard_backfill.records import TableDays
from include.scorecard_backfill.verdicts.causes import CAUSES
from tests.kit.build import START, day, table

RULES = Rules(
    cleanup=True, share=0.01, rows=0, band={"scorecard": Band(0.7, 1.0), "score": Band(0.7, 1.0)}, small_rows=10
)
REINDEX = replace(RULES, cleanup=False)
NO_TOLERANCE = replace(RULES, share=0.0)


def rows(number: int, count: int, first: int = 0) -> list[str]:
    """Ids of a day."""
    return [f"d{number}-{n}" for n in range(first, first + count)]


def verdict(before: TableDays, after: TableDays, rules: Rules = RULES) -> tuple[str, str]:
    """'ok' or the cause, and its sentences."""
    found, _ = judge([before], [after], rules)
    return found.cause or found.state, found.text


def every_day(days: int, count: int) -> dict[int, list[str]]:
    return {number: rows(number, count) for number in range(days)}


def test_what_came_back_whole_is_proven_row_by_row() -> None:
    meant = {*rows(0, 5), *rows(1, 3)}
    before = table(every_day(3, 100), meant)
    after = table({n: [r for r in listed if r not in meant] for n, listed in every_day(3, 100).items()}, meant)
    found, (one,) = judge([before], [after], RULES)
    assert found.state == "ok"
    assert found.text == "acme_voice.scorecard: 300 before, 8 meant to go, 292 after, 0 short"
    assert (one.before, one.meant, one.after, one.removed, one.short, one.over) == (300, 8, 292, 8, 0, 0)
    assert (one.doubled, one.moved, one.exact) == (0, 0, True)
    assert [(d.before, d.meant, d.after) for d in one.days.values()] == [(100, 5, 95), (100, 3, 97), (100, 0, 100)]


@pytest.mark.parametrize("meant", [(), None])
@pytest.mark.parametrize("rules", [RULES, REINDEX])
def test_rows_lost_and_as_many_doubled_on_another_shard(meant: tuple[str, ...] | None, rules: Rules) -> None:
    before = table({0: rows(0, 100)}, meant)
    after = table({0: rows(0, 80) + rows(0, 20)}, meant)
    cause, text = verdict(before, after, rules)
    assert cause == "doubled_rows"
    assert text.startswith("acme_voice.scorecard: 20 of 100 rows of 2026-01-01 are there twice")


@pytest.mark.parametrize("rules", [RULES, REINDEX])
def test_rows_lost_and_as_many_new_ones(rules: Rules) -> None:
    before, after = table({0: rows(0, 100)}), table({0: rows(0, 100, first=20)})
    cause, text = verdict(before, after, rules)
    assert cause == "lost_rows"
    assert re.search(r": at least 1?\d of 100 rows of 2026-01-01 did not come back", text)
    # One for one and within the tolerance it is still no other row that was expected.
    cause, text = verdict(before, table({0: rows(0, 100, first=1)}), rules)
    assert cause == "other_ids"
    assert "as many rows of 2026-01-01 came back as were expected, but other ones" in text
    # A reindexer that gives new ids is said to do so; then only numbers are left to judge by.
    assert verdict(before, after, replace(rules, stable_ids=False))[0] == "ok"


@pytest.mark.parametrize("more", [0, 1, 2, 10, 40])
@pytest.mark.parametrize("rules", [replace(RULES, band={"scorecard": Band(0.7, 2.0)}), REINDEX])
def test_more_new_rows_than_lost_ones_do_not_hide_them(more: int, rules: Rules) -> None:
    meant = rows(0, 10)
    before = table({0: rows(0, 200)}, meant)
    back = [*([] if rules.cleanup else meant), *rows(0, 170, first=30), *rows(7, 20 + more)]
    cause, text = verdict(before, table({0: back}, meant), rules)
    assert cause == "lost_rows"
    assert "at least" in text
    assert verdict(before, table({0: [*back, *rows(0, 20, first=10)]}, meant), rules)[0] == "ok"


def test_a_row_that_was_meant_to_go_twice_hides_no_lost_one() -> None:
    meant = rows(0, 1)
    before = table({0: [*rows(0, 10), *meant]}, meant)
    assert (before.days[day(0)].rows, before.days[day(0)].ids, before.days[day(0)].meant) == (11, 10, 2)
    # Nine were to come back; by rows it would be eight.
    new_ids = replace(NO_TOLERANCE, stable_ids=False)
    assert verdict(before, table({0: rows(0, 9, first=1)}, meant), new_ids)[0] == "ok"
    cause, text = verdict(before, table({0: rows(0, 8, first=2)}, meant), new_ids)
    assert cause == "lost_rows"
    assert "1 of 9 rows of 2026-01-01 did not come back" in text


def test_counts_of_an_earlier_release_have_no_buckets_and_are_judged_by_numbers() -> None:
    before = table({0: rows(0, 100)})
    old = {d: n.model_copy(update={"buckets": ()}) for d, n in before.days.items()}
    after = table({0: rows(0, 100, first=20)})
    assert verdict(before.model_copy(update={"days": old}), after)[0] == "other_ids"
    later = {d: n.model_copy(update={"buckets": ()}) for d, n in after.days.items()}
    assert verdict(before, after.model_copy(update={"days": later}))[0] == "other_ids"
    assert verdict(before.model_copy(update={"days": old}), table({0: rows(0, 80)}))[0] == "lost_rows"


def test_new_rows_of_one_day_do_not_hide_other_ids_of_another() -> None:
    wide = replace(RULES, band={"scorecard": Band(0.7, 1.1)})
    before = table({0: rows(0, 100), 1: rows(1, 100)})
    assert verdict(before, table({0: rows(0, 100, first=1), 1: rows(1, 107)}), wide)[0] == "other_ids"
    cause, text = verdict(before, table({0: rows(0, 100), 1: rows(1, 107)}), wide)
    assert (cause, text[-29:]) == ("ok", "0 short, 7 more than expected")


def test_in_mode_reindex_ids_are_compared_without_a_predicate_too() -> None:
    before, after = table({0: rows(0, 100)}, None), table({0: rows(0, 100, first=1)}, None)
    assert verdict(before, after, REINDEX)[0] == "other_ids"
    # In a cleanup without a predicate nobody knows which ids were meant to go.
    assert verdict(before, after, RULES)[0] == "ok"


@pytest.mark.parametrize(("meant", "count"), [((), 100), (None, 100), ((), 1), (None, 1), (None, 5)])
def test_nothing_came_back(meant: tuple[str, ...] | None, count: int) -> None:
    cause, text = verdict(table({0: rows(0, count)}, meant), table({}, meant))
    assert cause == "nothing_came_back"
    assert f"no row came back, {count} were there before" in text


def test_nothing_came_back_is_right_when_all_of_it_was_meant_to_go() -> None:
    going = rows(0, 7)
    assert verdict(table({0: going}, going), table({}, going)) == (
        "ok",
        "acme_voice.scorecard: 7 before, 7 meant to go, 0 after, 0 short",
    )
    assert verdict(table({0: going}, going), table({}, going), REINDEX)[0] == "nothing_came_back"


@pytest.mark.parametrize("meant", [(), None])
@pytest.mark.parametrize("count", [40, 9, 5, 2])
def test_nine_of_ten_days_reduced_to_one_row_each(meant: tuple[str, ...] | None, count: int) -> None:
    before = table(every_day(10, count), meant)
    after = table({n: rows(n, 1 if n else count) for n in range(10)}, meant)
    assert verdict(before, after)[0] == "lost_rows"


def test_two_rows_of_which_one_was_meant_to_go() -> None:
    two, one = rows(0, 2), rows(0, 1)
    assert verdict(table({0: two}, two[1:]), table({0: one}, two[1:]))[0] == "ok"
    # The other one has gone: as many as expected are there, but the wrong one.
    assert verdict(table({0: two}, two[1:]), table({0: two[1:]}, two[1:]))[0] == "lost_rows"
    # Without a predicate a handful of rows is judged by whether any came back.
    assert verdict(table({0: two}, None), table({0: one}, None))[0] == "ok"
    assert verdict(table({0: two}), table({0: one}))[0] == "lost_rows"


@pytest.mark.parametrize(("left", "expected"), [(70, "ok"), (69, "lost_rows"), (100, "ok"), (101, "too_many_rows")])
def test_without_a_predicate_each_day_must_be_within_the_band(left: int, expected: str) -> None:
    # A second day that is whole does not make up for the first one.
    before, after = table({0: rows(0, 100), 1: rows(1, 900)}, None), table({0: rows(0, left), 1: rows(1, 900)}, None)
    assert verdict(before, after)[0] == expected


def test_thirty_percent_fewer_of_one_day_is_seen_although_the_window_is_large() -> None:
    before = table(every_day(31, 100), None)
    after = table({n: rows(n, 69 if n == 7 else 100) for n in range(31)}, None)
    cause, text = verdict(before, after)
    assert cause == "lost_rows"
    assert text == "acme_voice.scorecard: 69 rows of 2026-01-08 < 70% of 100 before"


def test_small_days_are_judged_together_without_a_predicate() -> None:
    before = table(every_day(6, 5), None)
    enough = table({n: rows(n, 4 if n < 3 else 3) for n in range(6)}, None)
    assert verdict(before, enough)[0] == "ok"
    cause, text = verdict(before, table({n: rows(n, 4 if n < 2 else 3) for n in range(6)}, None))
    assert (cause, text[:58]) == ("lost_rows", "acme_voice.scorecard: 20 rows of the 6 days with less than")


@pytest.mark.parametrize(("left", "expected"), [(4, "ok"), (3, "lost_rows")])
def test_small_days_of_together_as_many_rows_as_one_large_one_are_judged_by_the_band(left: int, expected: str) -> None:
    before, after = table(every_day(2, 5), None), table({0: rows(0, 3), 1: rows(1, left)}, None)
    assert verdict(before, after)[0] == expected


@pytest.mark.parametrize(
    ("share", "number", "lost", "expected"),
    [
        (0.01, 0, 1, "ok"),
        (0.01, 0, 2, "lost_rows"),
        (0.0, 0, 1, "lost_rows"),
        (0.0, 3, 3, "ok"),
        (0.0, 3, 4, "lost_rows"),
        (0.29, 0, 29, "ok"),
    ],
)
def test_a_day_may_miss_the_larger_of_share_and_rows(share: float, number: int, lost: int, expected: str) -> None:
    rules = replace(RULES, share=share, rows=number)
    for kind in (rules, replace(rules, cleanup=False)):
        assert verdict(table({0: rows(0, 100)}), table({0: rows(0, 100 - lost)}), kind)[0] == expected


def test_what_each_day_may_miss_is_not_what_the_window_may_miss() -> None:
    rules = replace(RULES, share=0.0, rows=2)
    before = table(every_day(5, 100))
    one_each = table({n: rows(n, 99) for n in range(5)})
    cause, text = verdict(before, one_each, rules)
    assert (cause, text) == ("lost_rows", "acme_voice.scorecard: 5 of 500 rows of the window did not come back")


def test_a_whole_day_is_missed_within_any_tolerance() -> None:
    rules = replace(RULES, rows=10)
    before = table({0: rows(0, 1_000), 1: rows(1, 3)})
    assert "3 of 3 rows of 2026-01-02 did not come back" in verdict(before, table({0: rows(0, 1_000)}), rules)[1]


def test_rows_that_moved_to_another_day_are_not_missing() -> None:
    before = table({0: rows(0, 100), 1: rows(1, 100)})
    after = table({0: rows(0, 60), 1: rows(1, 100) + rows(0, 40, first=60)})
    found, (one,) = judge([before], [after], NO_TOLERANCE)
    assert found.text == ("acme_voice.scorecard: 200 before, 0 meant to go, 200 after, 0 short, 40 on another day")
    assert (one.moved, one.short, one.over, one.exact) == (40, 0, 0, True)
    # Other rows than those that are missing do not count as moved.
    strange = table({0: rows(0, 60), 1: rows(1, 140)})
    assert verdict(before, strange, NO_TOLERANCE)[0] == "lost_rows"


@pytest.mark.parametrize("rules", [RULES, REINDEX])
@pytest.mark.parametrize("meant", [(), None])
def test_rows_that_are_there_on_two_days(meant: tuple[str, ...] | None, rules: Rules) -> None:
    """Each day for itself has every id once."""
    before = table({0: rows(0, 100), 1: rows(1, 100)}, meant)
    after = table({0: rows(0, 100), 1: rows(1, 98) + rows(0, 2)}, meant)
    lax = replace(rules, share=0.1)
    found, (one,) = judge([before], [after], lax, {before.name: 198})
    assert found.cause == "doubled_rows"
    assert found.text == "acme_voice.scorecard: 2 of 200 rows are there on another day, too (the same id)"
    assert one.doubled == 2
    assert judge([before], [after], lax)[0].cause != "doubled_rows", "only all days together tell"
    # Both kinds beside each other are told apart.
    after = table({0: [*rows(0, 100), *rows(0, 3)], 1: rows(1, 98) + rows(0, 2)}, meant)
    found, (one,) = judge([before], [after], lax, {before.name: 198})
    assert re.search(r": 3 of 103 rows of 2026-01-01 are there twice .*; .*: 2 of 203 rows are there on", found.text)
    assert one.doubled == 5


def test_rows_that_are_meant_to_go_and_are_there_again() -> None:
    going = rows(0, 10)
    before = table({0: rows(0, 100)}, going)
    cause, text = verdict(before, before)
    assert cause == "meant_came_back"
    assert "10 rows that are meant to go are there again" in text
    assert verdict(before, before, REINDEX)[0] == "ok"
    # They do not fill the gap of rows that are lost.
    assert verdict(before, table({0: rows(0, 90)}, going))[0] == "lost_rows"


def test_a_predicate_that_is_known_on_one_side_only_accounts_for_nothing() -> None:
    going = rows(0, 10)
    before = table({0: rows(0, 100)}, going)
    # 10 are lost and the 10 that were meant to go are there again: 90, as expected.
    after = table({0: rows(0, 90)}, None)
    found, (one,) = judge([before], [after], RULES)
    assert (found.state, one.meant, one.exact) == ("ok", None, False)
    assert "not accounted for" in found.text
    assert judge([before], [table({0: rows(0, 60)}, None)], RULES)[0].cause == "lost_rows"
    assert judge([table({0: rows(0, 100)}, None)], [table({0: rows(0, 60)}, going)], RULES)[0].cause == "lost_rows"


@given(st.integers(0, 300), st.sampled_from([(), None]))
def test_mode_reindex_never_has_an_upper_end(more: int, meant: tuple[str, ...] | None) -> None:
    before, after = table({0: rows(0, 100)}, meant), table({0: rows(0, 100 + more), 1: rows(1, more)}, meant)
    assert verdict(before, after, REINDEX)[0] == "ok"
    assert verdict(table({}, meant), after, REINDEX)[0] == "ok"


def test_days_that_an_earlier_cleanup_has_deleted_expect_what_it_left_to_come_back() -> None:
    """A run of mode reindex pays what a cleanup owes: the rows that were meant to go stay away, and only there."""
    going = {*rows(0, 10), *rows(1, 10)}
    before = table({0: rows(0, 100), 1: rows(1, 100)}, going)
    rules = replace(NO_TOLERANCE, cleanup=False, owed={before.name: frozenset({day(0)})})
    kept_of_owed = table({0: rows(0, 90, first=10), 1: rows(1, 100)}, going)
    found, (one,) = judge([before], [kept_of_owed], rules)
    assert (found.state, one.meant, one.short, one.exact) == ("ok", 10, 0, True)
    assert judge([before], [kept_of_owed], replace(rules, owed={}))[0].cause == "lost_rows"
    of_other_day = table({0: rows(0, 90, first=10), 1: rows(1, 90, first=10)}, going)
    assert judge([before], [of_other_day], rules)[0].cause == "lost_rows"
    # Without a predicate the band judges.
    unknown = table({0: rows(0, 100)}, None)
    assert verdict(unknown, table({0: rows(0, 75)}, None), rules)[0] == "ok"
    assert verdict(unknown, table({0: rows(0, 69)}, None), rules)[0] == "lost_rows"
    assert verdict(unknown, table({0: rows(0, 75)}, None), replace(rules, owed={}))[0] == "lost_rows"


@pytest.mark.parametrize("rules", [RULES, REINDEX])
@pytest.mark.parametrize("meant", [(), None])
def test_a_table_that_was_empty_may_hold_anything(rules: Rules, meant: tuple[str, ...] | None) -> None:
    assert verdict(table({}, meant), table({0: rows(0, 5)}, meant), rules)[0] == "ok"
    found, (one,) = judge([table({}, meant)], [table({}, meant)], rules)
    assert (found.state, one.meant, one.exact) == ("ok", 0, True)


def test_what_was_doubled_before_and_is_whole_now_is_fine() -> None:
    before = table({0: rows(0, 100) + rows(0, 30)})
    found, (one,) = judge([before], [table({0: rows(0, 100)})], NO_TOLERANCE)
    assert (found.state, one.removed, one.short, one.exact) == ("ok", 30, 0, True)
    assert verdict(before, table({0: rows(0, 99)}), NO_TOLERANCE)[0] == "lost_rows"


def test_more_meant_rows_than_ids_expect_nothing_and_not_less() -> None:
    going = rows(0, 2)
    before = table({0: going + going}, going)
    found, (one,) = judge([before], [table({}, going)], NO_TOLERANCE)
    assert (found.state, one.over, one.exact) == ("ok", 0, True)


def test_cut_windows_are_judged_by_the_numbers_of_the_first_delete() -> None:
    first = table(every_day(4, 50))
    now = table({0: rows(0, 50), 3: rows(3, 50)})
    inside = TableDays(database=first.database, table=first.table, days={day(1): first.days[day(1)]})
    (before,) = without([now], {first.name: inside})
    assert before.days == {day(0): first.days[day(0)], day(1): first.days[day(1)], day(3): first.days[day(3)]}
    # The day that never came back is seen, although it is empty now.
    assert "50 of 50 rows of 2026-01-02 did not come back" in verdict(before, now)[1]
    assert without([now], {}) == (now,)


def test_a_table_that_is_owed_and_not_counted_is_not_forgotten() -> None:
    owed = table({0: rows(0, 5)}, name=("acme_voice", "score"))
    now = table({0: rows(0, 5)})
    before = without([now], {owed.name: owed})
    assert before == (now, owed)
    with pytest.raises(KeyError):
        judge(before, [now], RULES)


def test_a_table_that_was_not_counted_afterwards_is_unknown() -> None:
    with pytest.raises(KeyError):
        balance([table({0: rows(0, 1)})], [], RULES)


def test_every_table_is_judged_and_the_worst_cause_speaks() -> None:
    score = ("acme_voice", "score")
    before = [table({0: rows(0, 100)}), table({0: rows(0, 100)}, name=score)]
    after = [table({0: rows(0, 50)}), table({0: rows(0, 100) + rows(0, 1)}, name=score)]
    found, tables = judge(before, list(reversed(after)), RULES)
    assert (found.cause, len(found.reasons)) == ("doubled_rows", 1)
    assert [t.name for t in tables] == [score, ("acme_voice", "scorecard")]
    assert judge(before, [table({0: rows(0, 100)}), table({}, name=score)], RULES)[0].cause == "lost_rows"


def test_the_days_that_lack_most_are_told_in_full_and_the_others_by_their_date() -> None:
    # Day n lacks n + 1 rows of 40; the last five lack most, the first none.
    before = table({n: rows(n, 40) for n in range(12)})
    after = table({n: rows(n, 40 - n) for n in range(12)})
    found, _ = judge([before], [after], RULES)
    whole, *days, others = found.reasons
    assert whole.endswith("66 of 480 rows of the window did not come back")
    assert [re.sub(r".*scorecard: (\d+ of 40 rows of [\d-]+) .*", r"\1", line) for line in days] == [
        f"{n} of 40 rows of {day(n)}" for n in range(7, 12)
    ]
    assert others.endswith(f"rows of {', '.join(day(n) for n in range(1, 7))} did not come back either")


def test_many_sentences_are_counted() -> None:
    doubled = {n: rows(n, 5) + rows(n, 1) for n in range(31)}
    found, _ = judge([table(every_day(31, 5))], [table(doubled)], RULES)
    assert len(found.reasons) == SHOWN + 1
    assert found.reasons[-1] == "and 11 more"


DAYS = st.dictionaries(st.integers(0, 6), st.integers(1, 60), min_size=1, max_size=5)


@st.composite
def truths(draw: st.DrawFn) -> tuple[dict[int, list[str]], set[str], random.Random]:
    """Rows by day, those of them that are meant to go, and a source of chance."""
    days = {number: rows(number, count) for number, count in draw(DAYS).items()}
    chance = draw(st.randoms(use_true_random=False))
    every = [r for listed in days.values() for r in listed]
    return days, set(chance.sample(every, len(every) // 10)), chance


def kept(days: Mapping[int, list[str]], gone: Iterable[str]) -> dict[int, list[str]]:
    without_them = set(gone)
    return {n: [r for r in listed if r not in without_them] for n, listed in days.items()}


@given(truths(), st.booleans())
def test_all_that_is_not_meant_to_go_comes_back(truth: tuple[dict[int, list[str]], set[str], random.Random],
                                                cleanup: bool) -> None:  # fmt: skip
    days, meant, _ = truth
    after = kept(days, meant) if cleanup else days
    found, (one,) = judge([table(days, meant)], [table(after, meant)], replace(NO_TOLERANCE, cleanup=cleanup))
    assert (found.state, one.short, one.exact) == ("ok", 0, True)


@given(truths(), st.integers(1, 5), st.booleans())
def test_every_lost_row_is_missed(
    truth: tuple[dict[int, list[str]], set[str], random.Random], lost: int, cleanup: bool
) -> None:
    days, meant, chance = truth
    back = kept(days, meant) if cleanup else days
    gone = set(chance.sample(sorted(r for listed in back.values() for r in listed),
                             min(lost, sum(map(len, back.values())))))  # fmt: skip
    rules = replace(NO_TOLERANCE, cleanup=cleanup)
    found, (one,) = judge([table(days, meant)], [table(kept(back, gone), meant)], rules)
    assert found.state == ("failed" if gone else "ok")
    assert one.short == len(gone)
    # As many others beside them do not help, on the same day or on another one.
    where = chance.choice(sorted(days))
    filled = kept(back, gone)
    filled[where] = filled[where] + [f"new-{n}" for n in range(len(gone))]
    assert judge([table(days, meant)], [table(filled, meant)], rules)[0].state == ("failed" if gone else "ok")


@given(truths())
def test_rows_that_only_change_places_are_all_there(
    truth: tuple[dict[int, list[str]], set[str], random.Random],
) -> None:
    days, meant, chance = truth
    every = sorted(r for listed in kept(days, meant).values() for r in listed)
    moved: dict[int, list[str]] = {n: [] for n in range(7)}
    for row in every:
        moved[chance.randrange(7)].append(row)
    found, (one,) = judge([table(days, meant)], [table(moved, meant)], NO_TOLERANCE)
    assert (found.state, one.short, one.over, one.exact) == ("ok", 0, 0, True)


@given(truths(), truths(), st.sampled_from([RULES, REINDEX, NO_TOLERANCE]), st.booleans(), st.booleans())
def test_the_books_always_add_up(
    one: tuple[dict[int, list[str]], set[str], random.Random],
    two: tuple[dict[int, list[str]], set[str], random.Random],
    rules: Rules,
    known_before: bool,
    known_after: bool,
) -> None:
    before = table(one[0], one[1] if known_before else None)
    after = table(two[0], one[1] if known_after else None)
    found, (line,) = judge([before], [after], rules)
    assert found.state in ("ok", "failed")
    assert found.state == "ok" or found.cause in CAUSES
    assert line.removed == line.before - line.after
    assert sum(d.before for d in line.days.values()) == line.before
    assert sum(d.after for d in line.days.values()) == line.after
    for name, d in line.days.items():
        number = (date.fromisoformat(name) - START).days
        lost = {*one[0].get(number, ())} - {*two[0].get(number, ())}
        assert d.short <= len(lost) or d.short <= max(0, d.before - d.after)
    if known_before and known_after:
        # before = came back + meant to go + missing; after = came back + new (no id is doubled here).
        back = after.rows - sum(n.meant or 0 for n in after.days.values()) if rules.cleanup else after.rows
        assert line.before - (line.meant or 0) - line.short + line.over == back


def test_fingerprints_are_sums_of_64_bits() -> None:
    assert HASHES == 2**64
    low, high = table({0: rows(0, 1)}), table({0: rows(0, 1)})
    wrapped = {d: n.model_copy(update={"fingerprint": n.fingerprint + HASHES}) for d, n in high.days.items()}
    assert balance([low], [high.model_copy(update={"days": wrapped})], RULES)[0].exact
