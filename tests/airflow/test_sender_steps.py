"""Which steps a window's delete consists of: whole partitions where they may go, rows otherwise, and their bound."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backfill.deleting.sender import DeleteSender, Order, _joined
from include.scorecard_backfill import life
from include.scorecard_backfill.planning.deletes import Step
from include.scorecard_backfill.records import Database, Numbers, Sent, TableDays
from include.scorecard_backfill.sql import Names
from include.scorecard_backfill.verdicts.counts import Host
from tests.kit.waits import NAME, cluster, configure, window

__all__ = ["cluster"]

DAYS = {"2026-01-05": 60, "2026-01-07": 0, "2026-01-09": 50}
MONTHLY = "toYYYYMM(scorecard_time)"
WHOLE = {"node-1": [("202601", 110, 0)], "node-2": []}


def order(*, drop: bool = True, bound: float | None = None, days: dict[str, int] | None = None) -> Order:
    rows = {day: Numbers(rows=n) for day, n in (DAYS if days is None else days).items()}
    table = TableDays(database="acme_voice", table="scorecard", days=rows)
    return Order(window(), (table,), 1, bound, drop, life.Facts())


def steps(
    wanted: Order,
    *,
    before: Step | None = None,
    state: str = "taken",
    refused: tuple[str, ...] = (),
    held: Any = None,
    keys: Any = (MONTHLY,),
    drop_partition: bool = True,
    most: int = 1_000,
) -> tuple[list[Step], list[str]]:
    """The steps of an order, and what the servers were asked for them."""
    asked: list[str] = []

    def answer(name: str, value: Any) -> Any:
        def given(*_: Any, **__: Any) -> Any:
            asked.append(name)
            return value

        return given

    limits = SimpleNamespace(drop_partition=drop_partition, max_rows_per_mutation=most, max_partition_bytes=10**9)
    hook = SimpleNamespace(
        config=SimpleNamespace(cluster="conversations", delete=limits),
        names=Names("scorecard_time", "customer_id", "profile_id", "conversation_id"),
        partition_keys=answer("keys", list(keys)),
        held_partitions=answer("held", WHOLE if held is None else held),
        rows=answer("sizes", []),
    )
    deleter: Any = SimpleNamespace(
        hook=hook,
        hosts=[Host("node-1", 1), Host("node-2", 2)],
        drop_was_refused=lambda table, part: table in refused,
        dropped=lambda *_: before,
        sent_state=lambda _: state,
    )
    operator: Any = SimpleNamespace(log=logging.getLogger(__name__))
    return DeleteSender(operator, NAME, "delete")._steps(deleter, wanted), asked


def kinds(found: list[Step]) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(step.kind, step.chunk, step.partitions) for step in found]


def test_a_window_of_whole_partitions_is_dropped(cluster: str) -> None:
    found, asked = steps(order())
    assert kinds(found) == [("drop", 0, ("202601",))]
    assert asked == ["keys", "held", "sizes"]


@pytest.mark.parametrize(
    "told",
    [
        {"drop_partition": False},
        {"refused": ("scorecard",)},
        {"keys": ()},
        {"keys": (MONTHLY, "toYYYYMMDD(scorecard_time)")},
        {"held": {"node-1": [("202601", 110, 3)], "node-2": []}},
        {"held": {"node-1": [("202601", 110, 0)]}},
        {"held": {"node-1": [], "node-2": []}},
    ],
    ids=str,
)
def test_where_that_may_not_be_rows_are_deleted(told: dict[str, Any], cluster: str) -> None:
    found, _ = steps(order(), **told)
    assert kinds(found) == [("delete", 0, ())]
    assert found[0].condition == ""


def test_a_table_whose_partitions_are_refused_does_not_keep_another_from_being_dropped(cluster: str) -> None:
    both = (Database(name="acme_voice", profile_id="voice", tables=("score", "scorecard")),)
    rows = {day: Numbers(rows=n) for day, n in DAYS.items()}
    tables = tuple(TableDays(database="acme_voice", table=name, days=rows) for name in ("score", "scorecard"))
    wanted = Order(window(databases=both), tables, 1, None, True, life.Facts())
    found, _ = steps(wanted, refused=("score",))
    assert [(step.table, step.kind) for step in found] == [("scorecard", "drop"), ("score", "delete")]


def test_a_later_generation_and_a_bounded_delete_never_ask_for_partitions(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert steps(order(drop=False)) == (steps(order(), drop_partition=False)[0], [])
    written = {"written_columns": {"scorecard": {"column": "updated_at"}}, "clock_skew_seconds": 60}
    configure(tmp_path, monkeypatch, clickhouse=written)
    (step,), asked = steps(order(bound=1_770_000_060.0))
    assert asked == []
    assert step.condition == "`updated_at` < toDateTime64('2026-02-02 02:40:00', 3, 'UTC')"


def test_partitions_that_were_dropped_before_are_not_looked_up_anew(cluster: str) -> None:
    ((table, part),) = list(window().slices())
    before = Step(table, part, kind="drop", partitions=("202512",))
    assert steps(order(), before=before) == ([before], [])


def test_what_was_dropped_before_the_reindex_is_not_deleted_again_after_it(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, clickhouse={"written_columns": {"scorecard": {"column": "updated_at"}}})
    ((table, part),) = list(window().slices())
    before = Step(table, part, kind="drop", partitions=("202601",))
    assert steps(order(bound=1_770_000_060.0), before=before) == ([before], [])
    # Where nobody knows whether the drop was taken, a DELETE that is bounded can do no harm.
    found, asked = steps(order(bound=1_770_000_060.0), before=before, state="maybe")
    assert (kinds(found), asked) == ([("delete", 0, ())], [])
    assert steps(order(), before=before, state="maybe") == ([before], [])


def test_what_is_large_goes_by_days_with_rows_and_once_more_as_a_whole(cluster: str) -> None:
    found, _ = steps(order(), drop_partition=False, most=109)
    assert [(step.chunk, str(step.part.start), str(step.part.end)) for step in found] == [
        (1, "2026-01-05", "2026-01-06"), (2, "2026-01-09", "2026-01-10"), (0, "2026-01-01", "2026-02-01"),
    ]  # fmt: skip
    assert kinds(steps(order(), drop_partition=False, most=110)[0]) == [("delete", 0, ())]


def test_without_rows_there_is_nothing_to_do_and_nothing_to_ask(cluster: str) -> None:
    assert steps(order(days={"2026-01-05": 0}), drop_partition=False) == ([], [])
    assert steps(order(days={})) == ([], [])


def test_the_next_generation_drops_nothing_and_no_failure_is_about_it() -> None:
    again = Order(window(), (), 1, None, drop=True, facts=life.Facts(left="delete")).again(2)
    assert (again.generation, again.drop, again.facts.left) == (2, False, "")


def test_several_steps_of_a_table_are_one_record() -> None:
    first = Sent(database="d", table="t", at=5.0, accepted=("node-1", "node-2"))
    last = Sent(database="d", table="t", at=9.0, accepted=("node-1",))
    assert _joined(None, first) == first
    # Who has taken the last step has taken those before it.
    assert _joined(first, last) == last.model_copy(update={"at": 5.0})
