"""What a plan says beside its windows, whole: sizes, overrides, terms, a slot that started nothing."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.overview.missed import ByHand, Missed, made_up, missed_view, slot_missed_by
from include.scorecard_backfill.planning.batches import batch_numbers, in_batches
from include.scorecard_backfill.planning.deletes import Step, droppable
from include.scorecard_backfill.planning.learned import Customer, Outcome, learn, parse_learned, target_of
from include.scorecard_backfill.planning.overrides import OverrideError, in_force
from include.scorecard_backfill.planning.schedule import MissedSlot
from include.scorecard_backfill.planning.terms import asked_at, differences, digest, terms_again, terms_of, windows_of
from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.sql import Slice
from tests.kit.build import window

JANUARY = DateRange.parse("2026-01-01", "2026-02-01")

# -- batches, sizes, overrides, partitions --------------------------------------------------------------------------


def test_batches_are_of_one_size_and_hold_every_window() -> None:
    windows = [window(n, 1, f"c{n}") for n in range(10)]

    def numbers(size: int, most: int) -> tuple[int, ...]:
        return batch_numbers(windows, size=size, most=most, max_parallel=2, per_customer=1)

    assert numbers(10, 4) == numbers(3, 1) == ()
    assert numbers(9, 4) == (0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
    assert numbers(3, 4) == (0, 0, 0, 1, 1, 1, 2, 2, 2, 3)
    assert numbers(1, 4) == (0, 0, 0, 1, 1, 1, 2, 2, 2, 3)
    assert in_batches("abc", (1, 0, 1)) == [(1, 0, "a"), (0, 0, "b"), (1, 1, "c")]
    assert in_batches("ab", ()) == [(0, 0, "a"), (0, 1, "b")]
    with pytest.raises(ValueError, match=r"^2 windows are in batches, and the plan has 3$"):
        in_batches("abc", (0, 1))
    with pytest.raises(ValueError, match=r"^batch -1 of a window is none of 0 to \d+$"):
        in_batches("a", (-1,))


def test_the_expected_order_lets_a_customer_begin_when_its_window_before_has_ended() -> None:
    big = window(0, 1, "big", conversations=9_000)
    listed = [
        big,
        window(1, 1, "big", conversations=100),
        *(window(n, 1, "small", conversations=100) for n in range(4)),
    ]
    # Two at once: the big one runs, the small customer's windows go one after another; then the second big one.
    assert batch_numbers(listed, size=3, most=9, max_parallel=2, per_customer=1) == (0, 1, 0, 0, 1, 1)
    # Without any volume each takes the same time, and the plan's own order holds.
    even = [w.model_copy(update={"conversations": 0}) for w in listed]
    assert batch_numbers(even, size=3, most=9, max_parallel=2, per_customer=1) == (0, 0, 0, 1, 1, 1)
    assert batch_numbers(even, size=3, most=9, max_parallel=9, per_customer=9) == (0, 0, 0, 1, 1, 1)


def test_what_is_learned_of_a_window() -> None:
    old = {"a": Customer(per_minute=100.0, too_big=500, done=50)}

    def after(size: int, minutes: float = 0.0, cause: str = "") -> Customer:
        return learn(old, [Outcome("a", size, minutes, cause)])["a"]

    assert after(400, cause="heartbeat_timeout") == Customer(100.0, 400, 50)
    assert after(600, cause="heartbeat_timeout") == Customer(100.0, 500, 50)
    assert after(400, 4.0) == Customer(100.0, 500, 400)
    assert after(500, 1.0) == Customer(260.0, 0, 500)
    assert after(400, 4.0, "canceled") == old["a"]
    assert after(0, 4.0) == after(-1) == old["a"]
    assert learn({}, [Outcome("b", 1_234, 10.0)]) == {"b": Customer(123.4, 0, 1_234)}
    assert old == {"a": Customer(100.0, 500, 50)}


def test_why_a_customers_windows_are_smaller() -> None:
    assert target_of(None, 10, 60) == target_of(Customer(), 10, 60) == (10, "")
    assert target_of(Customer(too_big=1_000), 1_000, 60) == (500, "a window of 1,000 conversations was too big")
    assert target_of(Customer(too_big=1_000), 500, 60) == (500, "")
    assert target_of(Customer(too_big=1), 500, 60) == (1, "a window of 1 conversations was too big")
    slow = "1,000 conversations per minute, 10 minutes a window"
    assert target_of(Customer(per_minute=1_000.0), 100_000, 10) == (9_500, slow)
    assert target_of(Customer(per_minute=1_000.0, too_big=30_000), 100_000, 10) == (9_500, slow)
    assert target_of(Customer(per_minute=1_000.0), 9_500, 10) == (9_500, "")
    assert target_of(Customer(per_minute=0.001), 100, 10) == (1, "0 conversations per minute, 10 minutes a window")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "learned sizes: list instead of an object of customers"),
        ('{"a": {"done": -1}}', "learned sizes: a: done: '-1' is not such a number"),
        ('{"a": {"too_big": 1.5}}', "learned sizes: a: too_big: '1.5' is not such a number"),
        ('{"a": {"per_minute": true}}', "learned sizes: a: per_minute: 'True' is not such a number"),
        ('{"a": {"done": 1000000000000001}}', "learned sizes: a: done: '1000000000000001' is not such a number"),
    ],
)
def test_what_is_wrong_with_learned_sizes(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^learned sizes: ") as refused_:
        parse_learned(text)
    assert str(refused_.value) == said
    assert parse_learned('{"a": {"done": 1000000000000000, "per_minute": 1}}') == {"a": Customer(1, 0, 10**15)}
    assert parse_learned(None) == parse_learned("") == {}
    with pytest.raises(ValueError, match=r"^learned sizes: .*speed"):
        parse_learned('{"a": {"speed": 1}}')


NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"until": "2026-01-11T00:00:00Z"},
         'author: field required; write it like {"author": "jane", "until": "2026-01-31T18:00:00Z", "pause": true}'),
        ([], 'value: input should be a valid dictionary or instance of override; write it like {"author": "jane",'
             ' "until": "2026-01-31T18:00:00Z", "pause": true}'),
        ({"author": "j", "until": "2026-01-24T12:00:01Z"},
         "until: 2026-01-24T12:00:01+00:00 is more than 14 days ahead; choose an earlier end, or change the cluster's"
         " file"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_override(given: Any, said: str) -> None:
    with pytest.raises(OverrideError) as refused_:
        in_force(json.dumps(given), NOW)
    assert str(refused_.value) == said


def test_an_override_lasts_to_the_second_and_up_to_fourteen_days() -> None:
    fits = in_force(json.dumps({"author": "j", "until": "2026-01-24T12:00:00Z"}), NOW)
    assert fits is not None
    assert fits.text == "by j until 2026-01-24T12:00+00:00"
    assert in_force(json.dumps({"author": "j", "until": "2026-01-10T12:00:00Z"}), NOW) is None
    assert in_force(json.dumps({"author": "j", "until": "2026-01-10T12:00:01Z"}), NOW) is not None
    with pytest.raises(OverrideError, match=r"^is not JSON \(.+\)$"):
        in_force("{", NOW)


def test_why_partitions_are_not_dropped() -> None:
    def why(held: Any, sizes: Any = (), wanted: Any = ("1",), hosts: Any = ("a", "b")) -> str:
        return droppable(held, sizes, wanted, hosts, 1_000)

    clean: dict[str, list[tuple[str, int, int]]] = {"a": [("1", 5, 0)], "b": []}
    assert why(clean) == ""
    assert why({}, hosts=()) == "what the partitions hold is known of 0 of 0 hosts"
    assert why({"a": []}) == "what the partitions hold is known of 1 of 2 hosts"
    assert why({**clean, "b": [("1", 5, 2)]}) == "partition 1 on b holds 2 rows outside of the window"
    assert why({**clean, "b": [("2", 5, 0)]}) == (
        "5 rows of the window lie in partition 2 on b (a key in another zone)"
    )
    large = [{"partition_id": "2", "host": "a", "bytes": "9999"}, {"partition_id": "1", "host": "b", "bytes": "1001"}]
    assert why(clean, large) == "partition 1 on b has 1,001 bytes > 1,000"
    assert why(clean, [{"partition_id": "1", "host": "b", "bytes": 1_000}]) == ""


def test_a_step_of_a_delete_says_what_it_is() -> None:
    part = Slice("d", "acme", "voice", date(2026, 1, 1), date(2026, 1, 2))
    assert Step("t", part).label == "d.t DELETE"
    assert Step("t", part, chunk=3).label == "d.t DELETE 2026-01-01..2026-01-02"
    assert Step("t", part, kind="drop", partitions=("1", "2")).label == "d.t partitions 1, 2"


# -- terms ----------------------------------------------------------------------------------------------------------


def test_the_terms_of_an_approval_in_words() -> None:
    config = ClusterConfig.model_validate({
        "name": "demo",
        "clickhouse": {"meant_to_go": {"scorecard": {"column": "kind", "equals": "appeal"}}},
        "kubernetes": {"context": "c", "namespace": "n", "cronjob": "j"},
    })  # fmt: skip
    found = dict(terms_of(config, mode="cleanup", order="delete_first", windows="w", max_parallel=3))
    assert json.loads(found.pop("meant to go"))["scorecard"]["equals"] == "appeal"
    assert json.loads(found.pop("old rows")) == {"columns": {}, "skew": config.clickhouse.clock_skew_seconds}
    statement = found.pop("statement")
    assert statement.startswith("ALTER TABLE `<database>`.`<table>` ON CLUSTER 'conversations' DELETE WHERE ")
    assert "'<customer>'" in statement
    assert "'<profile>'" in statement
    assert "2000-01-02" in statement
    assert found == {
        "windows": "w", "mode": "cleanup", "order": "delete_first", "a person is asked at": "plan",
        "ClickHouse cluster": "conversations", "tables": ", ".join(config.clickhouse.tables), "may not remain": "[]",
        "rows are copied first": "no",
        "partitions are dropped": "yes" if config.clickhouse.delete.drop_partition else "no",
        "rows of one DELETE": str(config.clickhouse.delete.max_rows_per_mutation),
        "own unfinished mutations": str(config.clickhouse.delete.max_own_unfinished_mutations),
        "windows at once": "3", "reindex Job": "c n j",
    }  # fmt: skip


def test_terms_are_the_same_in_whatever_order_the_file_names_its_tables() -> None:
    rules = {"scorecard": {"column": "kind", "equals": "x"}, "score": {"column": "kind", "equals": "x"}}
    columns = {"scorecard": {"column": "a"}, "score": {"column": "b"}}
    made = [
        terms_of(
            ClusterConfig.model_validate({
                "name": "demo",
                "clickhouse": {"meant_to_go": dict(order(rules)), "written_columns": dict(order(columns))},
            }),
            mode="cleanup", order="reindex_first", windows="w", max_parallel=1,
        )
        for order in (lambda found: list(found.items()), lambda found: list(found.items())[::-1])
    ]  # fmt: skip
    assert made[0] == made[1]


def test_the_terms_of_a_plan_by_the_clusters_file_of_now() -> None:
    config = ClusterConfig.model_validate({"name": "demo"})
    for mode, order in (("cleanup", "delete_first"), ("reindex", "reindex_first")):
        planned = terms_of(config, mode=mode, order=order, windows="w", max_parallel=7)  # type: ignore[arg-type]
        assert terms_again(config, planned) == planned
        assert digest(dict(reversed(list(planned.items())))) == digest(planned)
    changed = ClusterConfig.model_validate({"name": "demo", "clickhouse": {"delete": {"drop_partition": False}},
                                            "snapshot": {"enabled": True}})  # fmt: skip
    assert differences(planned, terms_again(changed, planned)) == [
        "rows are copied first: approved was 'no', now it is 'yes'",
        "partitions are dropped: approved was 'yes', now it is 'no'",
    ]
    assert (windows_of(planned), asked_at(planned)) == ("w", config.approve)
    assert differences({"a": "1", "b": "2"}, {"b": "2", "c": "3"}) == [
        "a: approved was '1', now it is 'nothing'", "c: approved was 'nothing', now it is '3'",
    ]  # fmt: skip
    assert digest({"a": "1"}) != digest({"a": "2"})


# -- a slot that started nothing ------------------------------------------------------------------------------------


def scheduled(**schedule: Any) -> ClusterConfig:
    return ClusterConfig.model_validate({"name": "demo", "schedule": {"cron": "0 6 2 * *", **schedule}})


SLOT = datetime(2026, 2, 2, 6, tzinfo=UTC)


def test_a_slot_is_missed_when_the_grace_is_over_and_no_run_was_made_for_it() -> None:
    config = scheduled(grace_seconds=600)
    before = SLOT - timedelta(days=40)
    late = SLOT + timedelta(seconds=601)
    missed = slot_missed_by(config, now=late, last=None, since=before)
    assert missed == MissedSlot(SLOT, JANUARY, datetime(2026, 3, 2, 6, tzinfo=UTC))
    assert slot_missed_by(config, now=late, last=before, since=None) == missed
    assert slot_missed_by(config, now=late, last=SLOT, since=before) is None
    assert slot_missed_by(config, now=SLOT + timedelta(seconds=599), last=None, since=SLOT - timedelta(days=9)) is None
    assert slot_missed_by(scheduled(cron=None), now=late, last=None, since=before) is None
    assert missed is not None
    assert missed_view(config, missed) == Missed(
        slot=SLOT, days=("2026-01-01", "2026-02-01"), what=missed.sentence(ZoneInfo("UTC")), mode="reindex",
        whom="all customers",
    )  # fmt: skip
    named = scheduled(all_customers=False, customers=["acme", "globex"], timezone="Europe/London")
    view = missed_view(named, missed)
    assert (view.whom, view.what) == ("acme, globex", missed.sentence(ZoneInfo("Europe/London")))


def test_a_slot_is_that_of_the_schedules_own_zone() -> None:
    missed = slot_missed_by(
        scheduled(timezone="Asia/Tokyo"), now=SLOT + timedelta(hours=1), last=None, since=SLOT - timedelta(days=9)
    )
    assert missed is not None
    assert missed.slot == datetime(2026, 2, 1, 21, tzinfo=UTC)


def by_hand(**conf: Any) -> ByHand:
    form = {"customers": [], "all_customers": True, "mode": "reindex", "start_date": "2026-01-01",
            "end_date": "2026-02-01", "dry_run": False}  # fmt: skip
    return ByHand("manual", SLOT + timedelta(days=1), form | conf)


@pytest.mark.parametrize(
    ("conf", "does"),
    [
        ({}, True),
        ({"mode": "cleanup"}, True),
        ({"start_date": "2025-12-01", "end_date": "2026-02-02"}, True),
        ({"start_date": "2026-01-02"}, False),
        ({"end_date": "2026-01-31"}, False),
        ({"dry_run": True}, False),
        ({"all_customers": False, "customers": ["acme"]}, False),
        ({"mode": "odd"}, False),
    ],
)
def test_a_run_by_hand_makes_up_for_a_slot_when_it_does_all_of_it(conf: dict[str, Any], does: bool) -> None:
    assert made_up(scheduled(), JANUARY, [by_hand(**conf)]) is does
    assert made_up(scheduled(), JANUARY, [by_hand(dry_run=True), by_hand(**conf)]) is does


def test_of_named_customers_all_must_be_done_and_a_cleanup_is_no_reindex() -> None:
    some = scheduled(all_customers=False, customers=["acme", "globex"])
    few = {"all_customers": False, "customers": ["acme"]}
    more = {"all_customers": False, "customers": ["hooli", "globex", "acme"]}
    assert [made_up(some, JANUARY, [by_hand(**conf)]) for conf in (few, more, {})] == [False, True, True]
    cleanup = scheduled(mode="cleanup", allow_scheduled_cleanup=True)
    assert [made_up(cleanup, JANUARY, [by_hand(mode=mode)]) for mode in ("cleanup", "reindex")] == [True, False]
    assert made_up(some, JANUARY, []) is False
