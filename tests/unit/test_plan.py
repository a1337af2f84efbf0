"""The plan: every chosen day of every customer once, in a fixed order, refused as a whole when anything is doubtful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.names import sanitize_database_name
from include.scorecard_backfill.planning.plan import (
    MANY_WINDOWS,
    Inventory,
    PlanError,
    Request,
    Volume,
    build_plan,
    size_notes,
)
from include.scorecard_backfill.planning.windows import DateRange, covers_exactly, split_by_volume, split_fixed
from include.scorecard_backfill.records import Database, Window
from tests.kit import build
from tests.kit.build import debt, table

JANUARY = DateRange.parse("2026-01-01", "2026-02-01")
IDS = st.text("abcXY019-_.", min_size=1, max_size=10)


def by_volume(customer: str, whole: DateRange, per_day: Mapping[date, int]) -> Sequence[DateRange]:
    return split_by_volume(whole, per_day, 100, cut_at_months=True)


def whole(customer: str, whole: DateRange, per_day: Mapping[date, int]) -> Sequence[DateRange]:
    return [whole]


def in_tens(customer: str, whole: DateRange, per_day: Mapping[date, int]) -> Sequence[DateRange]:
    return split_fixed(whole, "10d")


def stock(owners: Mapping[str, Sequence[str]], volumes: Sequence[Volume] = ()) -> Inventory:
    """Customers with their profiles, each pair in the database that the rule gives it."""
    pairs = {sanitize_database_name(c, p): ((c, p),) for c, profiles in owners.items() for p in profiles}
    return Inventory(dict.fromkeys(pairs, ("score", "scorecard")), pairs, tuple(volumes))


def volume(customer: str, day: str, conversations: int, **changes: Any) -> Volume:
    base = Volume(f"{customer}_voice", "scorecard", customer, "voice", date.fromisoformat(day), 10, conversations)
    return replace(base, **changes)


def request(*customers: str, **changes: Any) -> Request:
    base = Request(
        cluster="demo",
        run_id="manual__1",
        mode="cleanup",
        range=JANUARY,
        customers=customers,
        all_customers=not customers,
        split=in_tens,
        max_windows=1_000,
    )
    return replace(base, **changes)


def test_all_customers_does_not_mean_those_that_are_left_out() -> None:
    owners = {"acme": ["voice"], "globex": ["voice"]}
    plan = build_plan(request(left_out=frozenset({"globex"})), stock(owners))
    assert {w.customer_id for w in plan.windows} == {"acme"}
    named = build_plan(request("globex", left_out=frozenset({"globex"})), stock(owners))
    assert {w.customer_id for w in named.windows} == {"globex"}


def problems(wanted: Request, inventory: Inventory, table_problems: Mapping[str, Sequence[str]] | None = None) -> str:
    with pytest.raises(PlanError) as caught:
        build_plan(wanted, inventory, table_problems)
    assert str(caught.value).startswith("the plan is refused, nothing was deleted:\n- ")
    return "\n".join(caught.value.problems)


def days_of(windows: Sequence[Window]) -> list[DateRange]:
    return [window.range for window in windows]


@st.composite
def inventories(draw: st.DrawFn) -> tuple[Inventory, DateRange]:
    """Customers whose databases do not collide, with volumes inside and outside of a range."""
    owners: dict[str, list[str]] = {}
    taken: set[str] = set()
    for customer, profile in draw(st.lists(st.tuples(IDS, IDS), min_size=1, max_size=6, unique=True)):
        if sanitize_database_name(customer, profile) not in taken:
            taken.add(sanitize_database_name(customer, profile))
            owners.setdefault(customer, []).append(profile)
    start = draw(st.dates(date(2023, 11, 1), date(2028, 3, 1)))
    whole = DateRange(start, start + timedelta(days=draw(st.integers(1, 70))))
    pairs = [(c, p) for c, profiles in owners.items() for p in profiles]
    some = draw(st.lists(st.tuples(st.sampled_from(pairs), st.integers(-3, 73), st.integers(0, 150)), max_size=12))
    listed = [
        Volume(sanitize_database_name(*pair), table, *pair, start + timedelta(days=day), 3 * n, n)
        for pair, day, n in some
        for table in ("score", "scorecard")
    ]
    return stock(owners, listed), whole


SPLITS = st.sampled_from((by_volume, in_tens, lambda c, whole, days: split_fixed(whole, "month")))


@given(inventories(), SPLITS)
def test_every_customer_has_every_day_exactly_once(given_stock: tuple[Inventory, DateRange], split: Any) -> None:
    inventory, whole = given_stock
    plan = build_plan(request(range=whole, split=split), inventory)
    owners = {customer for pairs in inventory.pairs.values() for customer, _ in pairs}
    assert {window.customer_id for window in plan.windows} == owners
    for customer in owners:
        mine = [window for window in plan.windows if window.customer_id == customer]
        assert covers_exactly(whole, days_of(mine))
        assert days_of(mine) == sorted(days_of(mine))
    for window in plan.windows:
        owned = {database for database, pairs in inventory.pairs.items() if pairs[0][0] == window.customer_id}
        assert {database.name for database in window.databases} == owned
        assert (window.cluster, window.mode, window.order, window.before) == ("demo", "cleanup", "delete_first", ())


@given(inventories(), SPLITS)
def test_estimates_of_the_windows_add_up_to_the_range(given_stock: tuple[Inventory, DateRange], split: Any) -> None:
    inventory, whole = given_stock
    windows = build_plan(request(range=whole, split=split), inventory).windows
    inside = [v for v in inventory.volumes if whole.start <= v.day < whole.end]
    for customer in {window.customer_id for window in windows}:
        mine = [window for window in windows if window.customer_id == customer]
        own = [v for v in inside if v.customer_id == customer]
        assert sum(w.conversations for w in mine) == sum(v.conversations for v in own if v.table == "scorecard")
        for name in ("score", "scorecard"):
            assert sum(w.rows.get(name, 0) for w in mine) == sum(v.rows for v in own if v.table == name)


@given(inventories(), SPLITS, st.randoms(use_true_random=False))
def test_the_same_request_gives_the_same_plan_in_whatever_order_rows_come(
    given_stock: tuple[Inventory, DateRange], split: Any, rng: Any
) -> None:
    inventory, whole = given_stock
    plan = build_plan(request(range=whole, split=split), inventory)
    volumes, names = list(inventory.volumes), list(inventory.pairs)
    rng.shuffle(volumes)
    rng.shuffle(names)
    shuffled = Inventory(
        {name: inventory.tables[name] for name in names},
        {name: inventory.pairs[name] for name in names},
        tuple(volumes),
    )
    assert build_plan(request(range=whole, split=split), shuffled) == plan


@given(inventories())
def test_keys_are_unique_in_a_plan_and_new_in_another_run(given_stock: tuple[Inventory, DateRange]) -> None:
    inventory, whole = given_stock
    keys = [window.key for window in build_plan(request(range=whole), inventory).windows]
    assert len(set(keys)) == len(keys)
    other = [window.key for window in build_plan(request(range=whole, run_id="manual__2"), inventory).windows]
    assert not set(keys) & set(other)


def test_the_order_of_the_run_is_that_of_its_windows() -> None:
    windows = build_plan(request(order="reindex_first", mode="reindex"), stock({"acme": ["voice"]})).windows
    assert {(w.order, w.mode) for w in windows} == {("reindex_first", "reindex")}


def test_the_biggest_customer_comes_first_then_by_name_and_day() -> None:
    inventory = stock(
        {"umbrella": ["voice"], "acme": ["voice"], "globex": ["voice"]}, [volume("globex", "2026-01-20", 50)]
    )
    windows = build_plan(request(), inventory).windows
    assert list(dict.fromkeys(w.customer_id for w in windows)) == ["globex", "acme", "umbrella"]
    assert [str(w.start) for w in windows[:4]] == ["2026-01-01", "2026-01-11", "2026-01-21", "2026-01-31"]
    assert [w.conversations for w in windows[:4]] == [0, 50, 0, 0]


def test_customers_that_are_named_and_no_other_are_planned() -> None:
    inventory = stock({"acme": ["voice"], "acme-sandbox": ["voice"], "globex": ["voice", "chat"]})
    windows = build_plan(request("acme", "globex", "acme"), inventory).windows
    assert {w.customer_id for w in windows} == {"acme", "globex"}
    assert len(windows) == 8
    assert [d.name for d in windows[-1].databases] == ["globex_chat", "globex_voice"]


def test_an_empty_choice_is_nobody() -> None:
    assert build_plan(request(all_customers=False), stock({"acme": ["voice"]})).windows == ()


def test_unknown_customers_are_refused_with_a_hint() -> None:
    inventory = stock({"acme": ["voice"], "globex": ["voice"]})
    text = problems(request("acmee", "zzz", "acme"), inventory)
    assert "'acmee' has no database with rows on cluster demo" in text
    assert "did you mean acme?" in text
    assert "known: acme, globex" in text
    assert "known: none" in problems(request("acme"), Inventory({}, {}))


@pytest.mark.parametrize("word", ["all", "ALL ", "*", "Everybody"])
def test_a_word_for_everybody_is_told_about_the_switch(word: str) -> None:
    text = problems(request(word), stock({"acme": ["voice"], "ball": ["voice"]}))
    assert f"customers: {word!r} has no database" in text
    assert "leave customers empty and set all_customers to true" in text


def test_a_customer_whose_id_is_such_a_word_can_be_chosen() -> None:
    plan = build_plan(request("all"), stock({"all": ["voice"]}))
    assert {w.customer_id for w in plan.windows} == {"all"}


def test_nobody_at_all_is_no_plan_for_everybody() -> None:
    everybody = request(all_customers=True)
    said = problems(everybody, Inventory({}, {}))
    assert said.startswith("all_customers: no database of cluster demo shows a row of 'scorecard'")
    # Somebody who was left out is a person's wish.
    assert build_plan(replace(everybody, left_out=frozenset(["acme"])), stock({"acme": ["voice"]})).windows == ()


def test_a_collision_of_the_sanitiser_is_refused_for_whoever_is_in_it() -> None:
    inventory = replace(
        stock({"globex": ["voice"]}),
        pairs={"acme_eu_voice": (("acme.eu", "voice"), ("acme_eu", "voice")), "globex_voice": (("globex", "voice"),)},
    )
    for customer in ("acme.eu", "acme_eu"):
        text = problems(request(customer), inventory)
        assert "'acme_eu_voice' holds rows of acme.eu/voice, acme_eu/voice" in text
    assert "acme_eu_voice" in problems(request(), inventory)
    assert {w.customer_id for w in build_plan(request("globex"), inventory).windows} == {"globex"}


def test_rows_in_a_database_of_another_name_are_refused() -> None:
    inventory = Inventory({"hooli_voice": ("scorecard",)}, {"hooli_voice": (("acme", "voice"),)})
    assert "holds rows of acme/voice, which belong in 'acme_voice'" in problems(request("acme"), inventory)


def test_a_missing_required_table_is_refused() -> None:
    inventory = replace(stock({"acme": ["voice"]}), tables={"acme_voice": ("score",)})
    assert "'acme_voice' lacks the tables ['scorecard']" in problems(request("acme"), inventory)


def test_problems_of_tables_refuse_who_is_touched_by_them() -> None:
    inventory = stock({"acme": ["voice"], "globex": ["voice"]})
    broken = {"acme_voice": ["table acme_voice.score is missing on ch-1"]}
    assert "missing on ch-1" in problems(request("acme"), inventory, broken)
    assert "missing on ch-1" in problems(request(), inventory, broken)
    assert build_plan(request("globex"), inventory, broken).windows


def test_a_profile_whose_owner_cannot_be_read_is_not_left_out_without_a_word() -> None:
    inventory = stock({"acme": ["voice"], "globex": ["voice"]})
    broken = {"acme_chat": ["table acme_chat.scorecard is missing on ch-1"]}
    assert "missing on ch-1 (so it is not known whose database 'acme_chat' is)" in problems(
        request("acme"), inventory, broken
    )
    assert "ch-1" in problems(request(), inventory, broken)
    assert build_plan(request("globex"), inventory, broken).windows


def test_all_problems_come_at_once() -> None:
    inventory = Inventory({}, {"hooli_voice": (("acme", "voice"),)})
    assert len(problems(request("acme", "nobody"), inventory, {"hooli_voice": ["broken"]}).splitlines()) == 4


def test_a_plan_that_does_not_fit_is_refused_with_the_number() -> None:
    inventory = stock({"acme": ["voice"], "globex": ["voice"]})
    assert len(build_plan(request(max_windows=8), inventory).windows) == 8
    assert "8 windows > 7 ([core] max_map_length, [triggerer] capacity)" in problems(request(max_windows=7), inventory)


def test_a_plan_that_slows_airflow_down_says_so() -> None:
    (window,) = build_plan(request(split=whole), stock({"acme": ["voice"]})).windows
    assert size_notes([window] * MANY_WINDOWS) == []
    (note,) = size_notes([window] * (MANY_WINDOWS + 1))
    assert note.startswith("301 windows in one run: ")


def test_a_leap_day_is_planned() -> None:
    windows = build_plan(
        request("acme", range=DateRange.parse("2024-02-01", "2024-03-01"), split=by_volume),
        stock({"acme": ["voice"]}, [volume("acme", "2024-02-28", 100), volume("acme", "2024-02-29", 100)]),
    ).windows
    assert [(str(w.start), str(w.end), w.conversations) for w in windows] == [
        ("2024-02-01", "2024-02-29", 100),
        ("2024-02-29", "2024-03-01", 100),
    ]


def test_volumes_of_another_table_and_customer_do_not_count() -> None:
    inventory = stock(
        {"acme": ["voice"], "globex": ["voice"]},
        [
            volume("acme", "2026-01-05", 7),
            volume("acme", "2026-01-05", 9, table="score"),
            volume("globex", "2026-01-05", 50),
        ],
    )
    first = build_plan(request("acme"), inventory).windows[0]
    assert (first.conversations, first.rows) == (7, {"score": 10, "scorecard": 10})
    other = build_plan(request("acme", volume_table="score"), inventory).windows[0]
    assert other.conversations == 9


@pytest.mark.parametrize("customer", ["a,b", " acme", "acme ", "", "  ", "a\x07b", "x" * 201])
def test_ids_that_the_job_could_not_take_are_refused_before_anything_is_deleted(customer: str) -> None:
    """Also when only all_customers finds them."""
    inventory = Inventory({"one": ("scorecard",)}, {"one": ((customer, "voice"),)})
    for wanted in (request(), request(customer)):
        text = problems(wanted, inventory)
        assert f"customers: {customer!r} " in text
        assert "its windows could not be reindexed" in text
    usable = stock({"acme": ["voice"]})
    beside = Inventory({**inventory.tables, **usable.tables}, {**inventory.pairs, **usable.pairs})
    assert {w.customer_id for w in build_plan(request("acme"), beside).windows} == {"acme"}


def owed(customer: str = "acme", start: int = 0, days: int = 10, **changes: Any) -> Any:
    """A debt of an earlier run: 5 rows of each day."""
    of = build.window(start, days, customer, "run0")
    rows = {n: [f"{customer}-{n}-{i}" for i in range(5)] for n in range(start, start + days)}
    return debt(of, table(rows, name=(build.database(customer).name, "scorecard"))).model_copy(update=changes)


def test_owed_days_are_planned_with_the_rows_that_they_had() -> None:
    inventory = stock({"acme": ["voice"]}, [volume("acme", "2026-01-05", 3)])
    windows = build_plan(request("acme", debts=(owed(start=5),)), inventory).windows
    assert [w.before != () for w in windows] == [True, True, False, False]
    assert [t.rows for w in windows for t in w.before] == [25, 25]
    # Their size is that of what they had, not of the little that is left.
    assert [w.conversations for w in windows] == [3 + 5 * 5, 5 * 5, 0, 0]


def test_a_customer_of_whom_no_row_is_left_is_found_by_what_is_owed() -> None:
    inventory = stock({"globex": ["voice"]})
    for wanted in (request(), request("acme")):
        windows = build_plan(replace(wanted, debts=(owed(),)), inventory).windows
        mine = [w for w in windows if w.customer_id == "acme"]
        assert covers_exactly(JANUARY, days_of(mine))
        assert {d for w in mine for d in w.databases} == {build.database("acme")}
        assert sum(t.rows for w in mine for t in w.before) == 50
    assert "'acme' has no database" in problems(request("acme"), inventory)


def test_a_profile_of_which_no_row_is_left_is_not_left_out() -> None:
    chat = Database(name="acme_chat", profile_id="chat", tables=("scorecard",))
    windows = build_plan(request("acme", debts=(owed(databases=(chat,)),)), stock({"acme": ["voice"]})).windows
    assert {d.name for w in windows for d in w.databases} == {"acme_chat", "acme_voice"}


def test_a_customer_of_whom_only_another_table_has_rows_is_not_left_out() -> None:
    left = volume("acme", "2026-01-05", 0, table="score")
    both = {"globex_voice": ("score", "scorecard"), "acme_voice": ("score", "scorecard")}
    found = replace(stock({"globex": ["voice"]}, [left]), tables=both)
    plan = build_plan(request(split=whole), found)
    assert [(w.customer_id, w.rows) for w in plan.windows] == [("acme", {"score": 10}), ("globex", {})]
    assert [d.name for d in build_plan(request("acme", split=whole), found).windows[0].databases] == ["acme_voice"]
    # Whose they are is asked as of any other row.
    strange = replace(left, customer_id="initech")
    text = problems(request(), replace(found, volumes=(strange,)))
    assert "database 'acme_voice' holds rows of initech/voice, which belong in 'initech_voice'" in text
    # Of a database whose owner is known nothing is added.
    beside = replace(left, database="globex_voice")
    assert [w.customer_id for w in build_plan(request(split=whole), replace(found, volumes=(beside,))).windows] == [
        "globex"
    ]


def test_debts_of_other_days_and_customers_bring_nobody_in() -> None:
    inventory = stock({"acme": ["voice"]})
    later = owed("globex", start=40)
    assert {w.customer_id for w in build_plan(request(debts=(later,)), inventory).windows} == {"acme"}
    named = build_plan(request("acme", debts=(owed("globex"),)), inventory).windows
    assert {(w.customer_id, w.before) for w in named} == {("acme", ())}


def test_tables_that_are_there_now_count_and_not_those_of_the_debt() -> None:
    old = Database(name="acme_voice", profile_id="voice", tables=("scorecard", "dropped"))
    windows = build_plan(request("acme", debts=(owed(databases=(old,)),)), stock({"acme": ["voice"]})).windows
    assert {d.tables for w in windows for d in w.databases} == {("score", "scorecard")}
