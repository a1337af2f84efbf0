"""What is said of rows that are lost, owed or put back, whole: by it a person decides what becomes of data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from include.scorecard_backfill.debts import of_windows, owed_of, unpayable
from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.proof import Band, Rules, balance, judge
from include.scorecard_backfill.putback import Places, PutBackError, columns_to_put_back
from include.scorecard_backfill.records import TableDays
from include.scorecard_backfill.records.proof import DayBalance
from include.scorecard_backfill.rewriting import Rewritten, judge_rewriting
from include.scorecard_backfill.spoiled import OpenDebts, Spoiled, read_debt
from include.scorecard_backfill.verdicts.census import Tally
from tests.kit.build import SINCE, TABLE, database, day, debt, table, window

RULES = Rules(cleanup=True, share=0.0, rows=0, band={"scorecard": Band(0.7, 1.1)}, small_rows=10)
REINDEX = replace(RULES, cleanup=False)
NAME = "acme_voice.scorecard"


def rows(number: int, count: int, first: int = 0) -> list[str]:
    return [f"d{number}-{n}" for n in range(first, first + count)]


def said(before: TableDays, after: TableDays, rules: Rules = RULES) -> tuple[str, tuple[str, ...]]:
    found, _ = judge([before], [after], rules)
    return found.cause or found.state, found.reasons


# -- the balance ----------------------------------------------------------------------------------------------------

GOING = rows(0, 10)


@pytest.mark.parametrize(
    ("before", "after", "rules", "cause", "sentences"),
    [
        (
            table({0: rows(0, 100), 1: rows(1, 5)}), table({0: rows(0, 100) + rows(0, 3), 1: rows(1, 5) + rows(1, 1)}),
            RULES, "doubled_rows",
            [f"{NAME}: 3 of 103 rows of 2026-01-01 are there twice (the same id on two shards, or under two keys)",
             f"{NAME}: 1 of 6 rows of 2026-01-02 are there twice (the same id on two shards, or under two keys)"],
        ),
        (table({0: rows(0, 7)}), table({}), RULES, "nothing_came_back",
         [f"{NAME}: no row came back, 7 were there before"]),
        (
            table({0: rows(0, 100)}, GOING), table({0: rows(0, 88, first=12)}, GOING), RULES, "lost_rows",
            [f"{NAME}: 2 of 90 rows of the window did not come back",
             f"{NAME}: 2 of 90 rows of 2026-01-01 did not come back (100 before, 10 of them meant to go, 88 after)"],
        ),
        (
            table({0: rows(0, 100), 1: rows(1, 1)}), table({0: rows(0, 100)}), replace(RULES, rows=5), "lost_rows",
            [f"{NAME}: 1 of 1 rows of 2026-01-02 did not come back (1 before, 0 of them meant to go, 0 after)"],
        ),
        (table({0: rows(0, 100)}, GOING), table({0: rows(0, 100)}, GOING), RULES, "meant_came_back",
         [f"{NAME}: 10 rows that are meant to go are there again: the reindexer still writes them"]),
        (table({0: rows(0, 100)}), table({0: rows(0, 111)}), RULES, "too_many_rows",
         [f"{NAME}: 111 rows > 110% of 100 before"]),
        (
            table({0: rows(0, 100)}, None), table({0: rows(0, 69)}, None), RULES, "lost_rows",
            [f"{NAME}: 69 rows of 2026-01-01 < 70% of 100 before"],
        ),
        (
            table({0: rows(0, 9), 1: rows(1, 8), 2: rows(2, 200)}, None),
            table({0: rows(0, 4), 1: rows(1, 7), 2: rows(2, 200)}, None), RULES, "lost_rows",
            [f"{NAME}: 11 rows of the 2 days with less than 10 rows each came back, 17 were there (not accounted for:"
             " no predicate says which were meant to go)"],
        ),
        (
            table({0: rows(0, 100)}), table({0: rows(0, 100, first=1)}), replace(RULES, rows=5), "other_ids",
            [f"{NAME}: as many rows of 2026-01-01 came back as were expected, but other ones (their ids differ)"],
        ),
    ],
)  # fmt: skip
def test_each_line_that_does_not_balance_has_its_sentence(
    before: TableDays, after: TableDays, rules: Rules, cause: str, sentences: list[str]
) -> None:
    assert said(before, after, rules) == (cause, tuple(sentences))


def test_a_number_that_is_proven_while_the_true_one_may_be_larger_is_said_to_be_at_least_that() -> None:
    before, after = table({0: rows(0, 200), 1: rows(1, 50)}), table({0: rows(0, 170, first=30), 1: rows(1, 49)})
    new = table({0: [*rows(0, 170, first=30), *rows(7, 25)], 1: rows(1, 49)})
    assert said(before, after)[1][0] == f"{NAME}: 31 of 250 rows of the window did not come back"
    found = said(before, new)[1]
    assert found[0].startswith(f"{NAME}: at least ")
    assert found[1].startswith(f"{NAME}: at least ")
    # The other day has no new ones.
    assert (
        found[2] == f"{NAME}: 1 of 50 rows of 2026-01-02 did not come back (50 before, 0 of them meant to go, 49 after)"
    )


@pytest.mark.parametrize(
    ("before", "after", "rules", "sentence"),
    [
        (table({0: rows(0, 5)}, None), table({0: rows(0, 5)}, None), RULES,
         f"{NAME}: 5 before, not accounted for, 5 after, 0 short"),
        (table({0: rows(0, 100)}), table({0: rows(0, 105)}), RULES,
         f"{NAME}: 100 before, 0 meant to go, 105 after, 0 short, 5 more than expected"),
        (table({0: rows(0, 100)}), table({0: rows(0, 60), 1: rows(0, 40, first=60)}), RULES,
         f"{NAME}: 100 before, 0 meant to go, 100 after, 0 short, 40 on another day"),
        (table({0: rows(0, 100)}), table({0: rows(0, 98)}), replace(RULES, rows=2),
         f"{NAME}: 100 before, 0 meant to go, 98 after, 2 short"),
        (table({0: rows(0, 100)}, GOING), table({0: rows(0, 100)}, GOING), REINDEX,
         f"{NAME}: 100 before, 0 meant to go, 100 after, 0 short"),
    ],
)  # fmt: skip
def test_what_is_said_of_books_that_balance(before: TableDays, after: TableDays, rules: Rules, sentence: str) -> None:
    assert said(before, after, rules) == ("ok", (sentence,))


def test_exactly_twenty_sentences_are_shown_whole_and_of_more_the_rest_is_counted() -> None:
    def doubled(days: int) -> tuple[str, ...]:
        every = {n: rows(n, 10) for n in range(days)}
        return said(table(every), table({n: [*listed, listed[0]] for n, listed in every.items()}))[1]

    assert len(doubled(20)) == 20
    assert doubled(20)[-1].startswith(f"{NAME}: 1 of 11 rows of 2026-01-20")
    assert doubled(21)[-1] == "and 1 more"
    assert (len(doubled(21)), doubled(26)[-1]) == (21, "and 6 more")


def test_the_balance_of_a_day_and_of_the_table_to_the_row() -> None:
    before = table({0: rows(0, 100) + rows(0, 2), 1: rows(1, 10)}, [*GOING, *rows(1, 1)])
    after = table({0: rows(0, 85, first=15) + rows(5, 3), 2: rows(2, 4)}, [*GOING, *rows(1, 1)])
    (one,) = balance([before], [after], RULES)
    assert (one.database, one.table, one.name) == (*TABLE, TABLE)
    assert (one.before, one.after, one.removed, one.meant, one.doubled) == (112, 92, 20, 13, 0)
    assert (one.moved, one.exact) == (0, False)
    assert list(one.days) == [day(0), day(1), day(2)]
    # Ten ids and two doubled rows are meant to go of the first day; of 90 that stay 5 are lost and 3 are new.
    assert one.days[day(0)] == DayBalance(before=102, meant=12, after=88, doubled=0, short=5, over=3)
    assert one.days[day(1)] == DayBalance(before=10, meant=1, after=0, doubled=0, short=9, over=0)
    assert one.days[day(2)] == DayBalance(before=0, meant=0, after=4, doubled=0, short=0, over=4)
    assert (one.short, one.over) == (14, 7)


# -- written again --------------------------------------------------------------------------------------------------


def rewriting(old: Mapping[int, Tally], new: Mapping[int, Tally], rules: Rules = REINDEX, **more: Any) -> Any:
    found = Rewritten({day(n): t for n, t in new.items()}, {day(n): t for n, t in old.items()})
    was = table({n: range(100) for n in {*old, *new}})
    asked = {"told": {TABLE[1]}, "idle": ()} | more
    return judge_rewriting([was], {TABLE: found}, rules, **asked)


def test_what_is_said_of_rows_that_were_not_written_again() -> None:
    some, none = Tally(rows=30, ids=30, meant=0), Tally(rows=30, ids=30, meant=None)
    found = rewriting({0: some}, {0: Tally(rows=70, ids=70, meant=0)})
    assert found.verdict.reasons == (f"{NAME}: 30 of 100 rows of 2026-01-01 were not written again",)
    wide = replace(REINDEX, rows=30)
    found = rewriting({0: some, 1: some}, dict.fromkeys(range(2), Tally(rows=70, ids=70, meant=0)), wide)
    assert found.verdict.reasons == (f"{NAME}: 60 of 200 rows of the window were not written again",)
    found = rewriting({0: none}, {0: Tally(rows=69, ids=69)})
    assert found.verdict.reasons == (f"{NAME}: 69 of 99 rows were written again, which is less than 70%",)
    found = rewriting({0: none}, {0: Tally(rows=70, ids=70)})
    assert (found.verdict.reasons, found.doubts) == (
        ("written again",),
        ("scorecard: no predicate says which rows stay as they are (clickhouse.meant_to_go)",),
    )
    assert rewriting({0: some}, {}, told=()).doubts == (
        "scorecard: the cluster's file names no written_columns for it",
    )
    assert rewriting({0: some}, {}, idle={TABLE[0]}).doubts == (
        "acme_voice: the reindexer had no work for its profile",
    )


# -- putting a snapshot back ----------------------------------------------------------------------------------------

HOSTS = ("node-1", "node-2")
PLACES = Places("acme_voice", "copy", "scorecard", "scorecard_d", ("id", "at"))
OLD = {"id": ("String", ""), "at": ("DateTime", ""), "points": ("UInt32", ""), "more": ("UInt32", "DEFAULT")}


def listed(copy: Any, local: Any, twin: Any = None, other: Any = None, hosts: Iterable[str] = HOSTS) -> list[Any]:
    """Columns as the hosts show them; ``other`` is the table on node-2."""
    found = {"copy": copy, "scorecard": local, "scorecard_d": local if twin is None else twin}
    return [
        {"host": host, "table": name,
         "columns": [[n, *c] for n, c in (other if other and (host, name) == ("node-2", "scorecard")
                                          else columns).items()]}
        for host in hosts for name, columns in found.items()
    ]  # fmt: skip


def lacking(*names: str) -> dict[str, tuple[str, str]]:
    return {name: column for name, column in OLD.items() if name not in names}


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (listed(OLD, lacking("id", "at")),
         "acme_voice.scorecard has no column 'at', 'id' any more, by which its rows are known"),
        (
            listed(OLD, lacking("points", "more") | {"b": ("UInt8", ""), "a": ("UInt8", "")}),
            "acme_voice.scorecard has lost 'more', 'points' since the snapshot was taken and has 'a', 'b' instead:"
            " whether they were renamed is not known. Copy by hand what belongs where, from acme_voice.copy",
        ),
        (
            listed(OLD, OLD | {"points": ("UInt8", ""), "more": ("Int32", "")}),
            "acme_voice.scorecard has other types since the snapshot was taken (more: UInt32 in the snapshot, Int32 in"
            " the table; points: UInt32 in the snapshot, UInt8 in the table): values may be changed by an INSERT. Copy"
            " by hand, from acme_voice.copy",
        ),
        (
            listed(OLD, OLD, lacking("points", "more")),
            "acme_voice.scorecard_d does not have 'more', 'points' as acme_voice.scorecard does, so an INSERT through"
            " it would lose the values. Give it the columns of its local table, then clear this task",
        ),
        (
            listed(OLD, OLD, OLD | {"points": ("UInt32", "MATERIALIZED")}),
            "acme_voice.scorecard_d does not have 'points' as acme_voice.scorecard does, so an INSERT through it would"
            " lose the values. Give it the columns of its local table, then clear this task",
        ),
        (
            listed(OLD, OLD, other=lacking("points", "more") | {"new": ("UInt8", "")}),
            "acme_voice.scorecard has 'more', 'new', 'points' not alike on node-1 and node-2: make the hosts equal"
            " first",
        ),
        (listed(OLD, OLD, hosts=["node-1"]), "the columns of acme_voice.copy on node-2 are not known"),
        ([], "the columns of acme_voice.copy on node-1, node-2 are not known"),
        ([row for row in listed(OLD, OLD) if row["table"] != "scorecard_d"],
         "the columns of acme_voice.scorecard_d on node-1, node-2 are not known"),
    ],
)  # fmt: skip
def test_why_a_snapshot_is_not_put_back(found: list[Any], text: str) -> None:
    with pytest.raises(PutBackError) as refused:
        columns_to_put_back(found, PLACES, HOSTS)
    assert str(refused.value) == text


def test_the_twin_need_not_be_on_every_host_and_computed_columns_are_nobodys_loss() -> None:
    everywhere = ("at", "id", "more", "points")
    on_one = [row for row in listed(OLD, OLD) if (row["host"], row["table"]) != ("node-2", "scorecard_d")]
    assert columns_to_put_back(on_one, PLACES, HOSTS) == everywhere
    # A column that is new and computed took the place of nothing.
    new = {kind.lower(): ("UInt8", kind) for kind in ("MATERIALIZED", "ALIAS", "EPHEMERAL")}
    assert columns_to_put_back(listed(OLD, lacking("points") | new), PLACES, HOSTS) == ("at", "id", "more")
    ephemeral = OLD | {"points": ("UInt32", "EPHEMERAL")}
    assert columns_to_put_back(listed(OLD, ephemeral), PLACES, HOSTS) == ("at", "id", "more")


@pytest.mark.parametrize(
    ("mine", "theirs", "takes"),
    [
        ("String", "String", True), ("LowCardinality(String)", "String", True),
        ("String", "LowCardinality(String)", True),
        ("Nullable(String)", "String", True), ("LowCardinality(Nullable(String))", "LowCardinality(String)", True),
        ("String", "Nullable(String)", False), ("UInt64", "UInt32", False), ("Nullable(UInt64)", "UInt32", False),
        ("Array(LowCardinality(String))", "Array(LowCardinality(String))", True),
    ],
)  # fmt: skip
def test_a_column_takes_values_of_its_own_type_or_of_one_that_lacks_only_null(
    mine: str, theirs: str, takes: bool
) -> None:
    found = listed(OLD | {"points": (theirs, "")}, OLD | {"points": (mine, "")})
    if takes:
        assert "points" in columns_to_put_back(found, PLACES, HOSTS)
    else:
        with pytest.raises(PutBackError, match="points: "):
            columns_to_put_back(found, PLACES, HOSTS)


# -- debts ----------------------------------------------------------------------------------------------------------

OWED = debt(window(0, 10), table({0: rows(0, 1_200)}), table({1: "ab"}, name=("acme_voice", "score")))


def test_what_is_said_of_a_debt() -> None:
    assert OWED.text == (
        "acme 2026-01-01..2026-01-11: deleted, not yet proven to be back since 2026-02-03 04:05 UTC (run run1): 1,200"
        " rows of acme_voice.scorecard, 2 rows of acme_voice.score"
    )
    assert OWED.model_copy(update={"swept": True}).text.startswith(
        "acme 2026-01-01..2026-01-11: swept, not yet verified since 2026-02-03 04:05 UTC"
    )
    two = OWED.model_copy(update={"databases": (database(), database(profile="chat"))})
    assert unpayable([two], ["acme_voice"]) == [
        "acme 2026-01-01..2026-01-11 is owed, and its database acme_chat is not on the cluster any more. If it will"
        f" never come back, write the debt off: `python -m backfill write-off {OWED.window} --reason …`"
        f" (docs/runbook.md)"
    ]
    assert len(unpayable([two, OWED], [])) == 3


def test_the_debts_of_windows_are_those_of_any_of_their_days_and_of_their_customer() -> None:
    others = [debt(window(10, 5)), debt(window(0, 10, "globex"))]
    assert of_windows([window(9, 1)], [OWED, *others]) == [OWED]
    assert of_windows([window(5, 10), window(40, 1)], [*others, OWED]) == [others[0], OWED]
    assert of_windows([window(9, 5, "globex")], [OWED, *others]) == [others[1]]
    assert of_windows([], [OWED]) == of_windows([window(0, 10)], []) == []


def test_a_debt_that_names_no_run_is_owed_by_the_run_that_takes_it_over() -> None:
    later = debt(window(0, 10), table({1: "x"}), run_id="run9", since=SINCE + timedelta(days=1), digest="later")
    first = debt(window(0, 10), table({0: "x"}), run_id="", digest="first")
    for both in ([first, later], [later, first]):
        taken = owed_of(window(0, 5, run_id="run2"), "run2", both)
        assert taken is not None
        assert (taken.run_id, taken.since, taken.digest) == ("run2", SINCE, "first")
        assert (taken.cluster, taken.customer_id, taken.databases) == ("demo", "acme", (database(),))


def test_what_is_said_of_a_debt_that_cannot_be_read() -> None:
    days = DateRange(OWED.start, OWED.end)
    known, unknown = Spoiled("k", "why", "acme", days), Spoiled("k", "why")
    assert (known.label, unknown.label) == ("acme 2026-01-01..2026-01-11", "customer and days not known")
    assert known.text == "the debt of window k (acme 2026-01-01..2026-01-11) cannot be read: why"
    assert unknown.remedy == (
        "Look at these days on the cluster. If nothing of them is missing, or it will never come back, write the debt"
        " off: `python -m backfill write-off k --reason …` (docs/runbook.md). If a later release has written it, plan"
        " with that one."
    )
    assert OpenDebts((OWED,), (known, Spoiled("z", "why"))).owing == [OWED.window, "k", "z"]
    stored = OWED.to_json()
    assert read_debt("another", stored) == Spoiled("another", f"it is one of window {OWED.window}", "acme", days)
    assert read_debt("k", stored | {"v": 99}) == Spoiled("k", "its version is 99, this release reads 1")
    # A record of another kind says nothing of customer and days, whatever it holds.
    other = read_debt(OWED.window, stored | {"kind": "window"})
    assert isinstance(other, Spoiled)
    assert (other.customer_id, other.days) == ("", None)
    long = read_debt("k", "{" + "x" * 400)
    assert isinstance(long, Spoiled)
    assert len(long.why) <= 300
    bad = {**stored, "before": [{**stored["before"][0], "days": {"soon": {"rows": 1}}}]}
    assert read_debt(OWED.window, bad) == Spoiled(OWED.window, "'soon' is not a day", "acme", days)
