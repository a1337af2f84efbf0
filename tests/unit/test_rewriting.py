"""Mode reindex: rows that are as old as before were not written again, but for those that stay by design."""

from __future__ import annotations

from typing import Any

import pytest

from include.scorecard_backfill.proof import Band, Rules
from include.scorecard_backfill.records import Proof, TableDays, Verified
from include.scorecard_backfill.report import Outcome, build_report
from include.scorecard_backfill.rewriting import Rewriting, Rewritten, judge_rewriting
from include.scorecard_backfill.verdicts.census import Tally
from tests.kit import build

RULES = Rules(cleanup=False, share=0.1, rows=0, band={"scorecard": Band(0.5, None)}, small_rows=20)
DATABASE, NAME = build.TABLE


def tally(rows: int, meant: int | None = 0) -> Tally:
    return Tally(rows=rows, ids=rows, meant=meant)


def judged(
    old: dict[int, Tally],
    new: dict[int, Tally],
    *,
    before: TableDays | None = None,
    rules: Rules = RULES,
    told: bool = True,
    idle: bool = False,
) -> Rewriting:
    """The verdict about one table, by days."""
    found = Rewritten({build.day(n): t for n, t in new.items()}, {build.day(n): t for n, t in old.items()})
    was = before or build.table({n: range(100) for n in {*old, *new}})
    return judge_rewriting(
        [was], {build.TABLE: found}, rules, told={NAME} if told else (), idle={DATABASE} if idle else ()
    )


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ({0: tally(100)}, {}, "100 of 100 rows of 2026-01-01 were not written again"),
        ({0: tally(11)}, {0: tally(89)}, "11 of 100 rows of 2026-01-01"),
        ({0: tally(1)}, {1: tally(99)}, "1 of 1 rows of 2026-01-01"),
        ({0: tally(30, 18)}, {0: tally(70)}, "12 of 82 rows"),
        # Appeals that were written again are no rows that had to be.
        ({0: tally(11)}, {0: tally(100, 11)}, "11 of 100 rows of 2026-01-01"),
    ],
)
def test_rows_that_are_as_old_as_before_were_not_written_again(old: Any, new: Any, text: str) -> None:
    found = judged(old, new)
    assert (found.verdict.state, found.verdict.cause) == ("failed", "not_reindexed")
    assert text in found.verdict.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {}),
        ({}, {0: tally(100)}),
        ({0: tally(20, 20)}, {0: tally(80)}),
        ({0: tally(20, 20)}, {}),
        ({0: tally(10)}, {0: tally(90)}),
    ],
    ids=["no rows", "all", "all but those meant to go", "only such rows", "within the tolerance"],
)
def test_a_window_whose_rows_were_written_again_or_that_has_none_is_proven(old: Any, new: Any) -> None:
    assert (judged(old, new).verdict.state, judged(old, new).doubts) == ("ok", ())


@pytest.mark.parametrize(("days", "more"), [(20, ""), (21, "and 1 more")])
def test_many_days_are_counted_and_not_all_named(days: int, more: str) -> None:
    reasons = judged({n: tally(100) for n in range(days)}, {}).verdict.reasons
    assert len([r for r in reasons if "were not written again" in r]) == 20
    assert [r for r in reasons if "more" in r] == ([more] if more else [])


def test_a_tolerance_of_each_day_does_not_add_up_beyond_the_windows() -> None:
    rules = Rules(cleanup=False, share=0.0, rows=5, band={}, small_rows=20)
    assert judged({0: tally(5)}, {0: tally(95), 1: tally(100)}, rules=rules).verdict.state == "ok"
    # A day of which nothing was written again is never within it.
    assert "3 of 3 rows of 2026-01-01" in judged({0: tally(3)}, {1: tally(100)}, rules=rules).verdict.text
    found = judged({0: tally(5), 1: tally(5)}, {0: tally(95), 1: tally(95)}, rules=rules)
    assert "10 of 200 rows of the window were not written again" in found.verdict.text


def test_without_a_written_column_it_is_said_that_nothing_is_proven() -> None:
    found = judged({0: tally(100)}, {}, told=False)
    assert found.verdict.state == "ok"
    assert found.doubts == ("scorecard: the cluster's file names no written_columns for it",)
    assert judged({}, {}, told=False).doubts == ()


def test_a_profile_of_which_the_reindexer_says_that_it_had_no_work_is_not_red_and_not_proven() -> None:
    found = judged({0: tally(100)}, {}, idle=True)
    assert (found.verdict.state, found.doubts) == (
        "ok", (f"{DATABASE}: the reindexer had no work for its profile",),
    )  # fmt: skip
    assert judged({}, {0: tally(1)}, idle=True).doubts == ()


@pytest.mark.parametrize(
    ("old", "new", "state", "doubts"),
    [
        (60, 40, "failed", 0),
        (100, 0, "failed", 0),
        (50, 50, "ok", 1),
        (0, 100, "ok", 0),
        (20, 0, "failed", 0),
        # Of a handful of rows all may be such as stay.
        (19, 0, "ok", 1),
    ],
)
def test_without_a_predicate_a_share_must_be_written_again(old: int, new: int, state: str, doubts: int) -> None:
    found = judged({0: tally(old, None)} if old else {}, {0: tally(new, None)} if new else {})
    assert (found.verdict.state, len(found.doubts)) == (state, doubts)


def test_under_new_ids_as_many_rows_must_be_new_as_there_were() -> None:
    rules = Rules(cleanup=False, share=0.0, rows=0, band={}, small_rows=20, stable_ids=False)
    before = build.table({0: range(10)}, meant=range(2))
    assert judged({0: tally(10, 2)}, {0: tally(8)}, before=before, rules=rules).verdict.state == "ok"
    found = judged({0: tally(10, 2)}, {0: tally(7)}, before=before, rules=rules)
    assert "1 of 8 rows of 2026-01-01" in found.verdict.text
    found = judged({0: tally(10, 2)}, {0: tally(9, 2)}, before=before, rules=rules)
    assert "1 of 8 rows of 2026-01-01" in found.verdict.text
    assert "8 of 8 rows" in judged({0: tally(10, 2)}, {}, before=before, rules=rules).verdict.text


def test_what_was_not_counted_is_unknown_and_not_written_again() -> None:
    with pytest.raises(KeyError):
        judge_rewriting([build.table({0: "ab"})], {}, RULES, told={NAME}, idle=())


def test_the_report_says_of_how_many_windows_it_is_not_proven() -> None:
    windows = [build.window(start) for start in (0, 10, 20)]
    proofs = [("a",), ("a", "b"), ()]
    verified = [
        Verified(key=w.key, status="verified",
                 proof=Proof(tables=(), hosts=(), statements=0, workflows=1, accounted=True, unwritten=doubts))
        for w, doubts in zip(windows, proofs, strict=True)
    ]  # fmt: skip
    report = build_report(Outcome(windows=windows, verified=verified))
    assert (report.complete, report.unwritten) == (True, ("a (2 windows)", "b (1 window)"))
