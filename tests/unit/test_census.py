"""A census decides nothing that it has not proven: who answered, which replicas agree, what the shards add up to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.sql.census import BUCKETS
from include.scorecard_backfill.sql.pins import PINNED, pins
from include.scorecard_backfill.verdicts.census import IncompleteError, Tally, host_days, read_census
from include.scorecard_backfill.verdicts.counts import Host

HOSTS = (Host("a1", 1), Host("a2", 1), Host("b1", 2))
TABLE = ("acme_voice", "scorecard")
SOME = tuple(range(BUCKETS))
DAYS = st.dictionaries(st.sampled_from(["2026-01-01", "2026-01-02", "2026-01-03"]), st.integers(1, 50))


def answers(a: dict[str, int], b: dict[str, int], *, meant: int = 0, doubled: int = 0) -> list[dict[str, Any]]:
    """What a cluster of two shards answers: every host its days, and once the sum."""
    summed = {day: a.get(day, 0) + b.get(day, 0) for day in {*a, *b}}
    whole = [(day, [rows, 1, rows - doubled, meant, 7, *SOME]) for day, rows in summed.items()]
    whole.append(("", [sum(summed.values()), 1, sum(summed.values()) - doubled, meant * len(summed), 7, *SOME]))
    per_host = {"a1": a, "a2": a, "b1": b}
    listed = [{"leg": 0, "host": h, "days": [(d, [n]) for d, n in days.items()]} for h, days in per_host.items()]
    return [*listed, {"leg": 1, "host": "", "days": whole}]


@given(DAYS, DAYS)
def test_shards_that_add_up_are_settled(a: dict[str, int], b: dict[str, int]) -> None:
    census = read_census(answers(a, b, meant=1), [TABLE], HOSTS, meant=[True])
    assert census.unsettled == ""
    assert {day: n.rows for day, n in census.days[TABLE].items()} == {d: a.get(d, 0) + b.get(d, 0) for d in {*a, *b}}
    assert census.total[TABLE].rows == sum(a.values()) + sum(b.values())
    assert all(numbers.meant == 1 for numbers in census.days[TABLE].values())
    assert list(census.days[TABLE]) == sorted(census.days[TABLE])


@given(DAYS, DAYS, st.integers(0, 3))
def test_a_row_that_is_missing_is_never_zero(a: dict[str, int], b: dict[str, int], dropped: int) -> None:
    found = answers(a, b)
    del found[dropped]
    with pytest.raises(IncompleteError):
        read_census(found, [TABLE], HOSTS, meant=[False])


def twice() -> list[dict[str, Any]]:
    return [*answers({}, {}), answers({}, {})[0]]


def stranger() -> list[dict[str, Any]]:
    return [*answers({}, {}), {"leg": 0, "host": "c1", "days": []}]


def second_table() -> list[dict[str, Any]]:
    return [*answers({}, {}), {"leg": 3, "host": "", "days": []}]


@pytest.mark.parametrize(
    ("found", "said"), [(twice, "answered twice"), (stranger, "from c1"), (second_table, "2 counts over all shards")]
)
def test_a_row_that_nobody_asked_for_is_an_error(found: Any, said: str) -> None:
    with pytest.raises(IncompleteError, match=said):
        read_census(found(), [TABLE], HOSTS, meant=[False])


def test_hosts_that_did_not_count_are_named() -> None:
    with pytest.raises(IncompleteError, match=r"^no count from a2, b1: unknown is not zero$"):
        host_days([{"leg": 0, "host": "a1", "days": []}], 1, HOSTS)


def test_no_hosts_is_unknown() -> None:
    with pytest.raises(IncompleteError, match="no host"):
        host_days([], 1, [])


def broken() -> Iterator[tuple[list[dict[str, Any]], str]]:
    """Answers that disagree, and what must be named."""
    replica = answers({"2026-01-01": 5}, {"2026-01-02": 2})
    replica[1]["days"] = [("2026-01-01", [4])]
    yield replica, "replicas of acme_voice.scorecard differ: a1 has 5 rows of 2026-01-01, a2 has 4"
    moved = answers({"2026-01-01": 5}, {})
    moved[1]["days"] = [("2026-01-02", [5])]
    yield moved, "a1 has 5 rows of 2026-01-01, a2 has 0"
    short = answers({"2026-01-01": 5}, {"2026-01-01": 3})
    short[3]["days"] = [("2026-01-01", [5, 1, 5, 0, 7, *SOME]), ("", [5, 1, 5, 0, 7, *SOME])]
    yield short, "the shards' rows of 2026-01-01 add up to 8, together they count 5"
    without_total = answers({"2026-01-01": 5}, {})
    without_total[3]["days"] = [("2026-01-01", [5, 1, 5, 0, 7, *SOME])]
    yield without_total, "the days add up to 5 rows, not to the total of 0"


@pytest.mark.parametrize(("found", "said"), list(broken()))
def test_what_disagrees_is_unsettled_and_named(found: list[dict[str, Any]], said: str) -> None:
    assert said in read_census(found, [TABLE], HOSTS, meant=[False]).unsettled


def test_rows_on_two_shards_are_doubled() -> None:
    census = read_census(answers({"2026-01-01": 5}, {"2026-01-01": 5}, doubled=5), [TABLE], HOSTS, meant=[False])
    assert census.unsettled == ""
    assert census.days[TABLE]["2026-01-01"] == Tally(10, 1, 5, None, 7, SOME)
    assert census.total[TABLE].doubled == 5


def test_rewritten_and_old_are_split() -> None:
    found = answers({"2026-01-01": 5}, {})
    found[3]["days"] = [
        ("2026-01-01", [5, 3, 5, 2, 9, 4, 2, 4, 1, 8, 1, 1, 1, 1, 1, *SOME]),
        ("", [5, 3, 5, 2, 9, 4, 2, 4, 1, 8, 1, 1, 1, 1, 1, *SOME]),
    ]
    census = read_census(found, [TABLE], HOSTS, meant=[True])
    assert census.rewritten[TABLE] == {"2026-01-01": Tally(4, 2, 4, 1, 8)}
    assert census.old[TABLE] == {"2026-01-01": Tally(1, 1, 1, 1, 1)}
    assert census.tables[TABLE].old_total == Tally(1, 1, 1, 1, 1)


def test_pins_are_sent_also_when_this_host_has_them() -> None:
    send, problems = pins({"limit": ("0", False), "read_overflow_mode": ("break", False)})
    assert (send, problems) == ({"limit": "0", "read_overflow_mode": "throw"}, [])


def test_a_pin_that_may_not_be_set_is_named_unless_it_is_right() -> None:
    send, problems = pins({"limit": ("100", True), "offset": ("0", True)})
    assert send == {}
    assert problems == ["limit is '100' and must be '0'"]


def test_every_overflow_mode_throws() -> None:
    assert {value for name, value in PINNED.items() if "overflow_mode" in name} == {"throw"}
