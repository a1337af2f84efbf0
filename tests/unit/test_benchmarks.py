"""The benchmarks' own rules: the least time for the work, what contenders get, the document of the results."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from benchmarks.__main__ import PAGE, RESULTS, merged
from benchmarks.counters import RUN_CALL
from benchmarks.page import TITLES, page, ratio
from benchmarks.reasons import GOALS, judged
from benchmarks.workload import GIANTS, Size, Work, drawn, fault_rules, in_order, lower_bound, planned
from sandbox.data.generate import day_ms
from sandbox.reindexer.faults import Limits, Request, decide, parse_faults

SIZE = Size(giants=2, days=3, others=2, giant_seconds=60.0)


def work(customer: str, seconds: float, start: str = "2026-01-01") -> Work:
    return Work(customer, start, "2026-01-02", seconds)


def test_nothing_is_faster_than_the_longest_chain_or_than_all_work_by_windows_at_once() -> None:
    chain = [work("acme", 30), work("acme", 30, "2026-01-05"), work("globex", 10)]
    assert lower_bound(chain, 10) == 60
    assert lower_bound([work(f"c{number}", 10) for number in range(20)], 4) == 50
    assert lower_bound([], 10) == 0


def test_work_in_its_order_holds_both_limits() -> None:
    chain = [work("acme", 10), work("acme", 10), work("globex", 5), work("hooli", 30)]
    # acme and globex begin; hooli at 5, acme's second at 10.
    assert in_order(chain, 2) == 35
    assert in_order(chain, 1) == 55
    # Three at once: all begin, acme's second at 10.
    assert in_order(chain, 3) == 30
    assert in_order([], 3) == 0


def test_a_giant_goes_by_days_and_everybody_else_in_one_window() -> None:
    works = planned(SIZE)
    assert [w.customer_id for w in works].count("acme") == 3
    assert [(w.start, w.end) for w in works if w.customer_id == "customer00"] == [("2026-01-01", "2026-01-04")]
    assert {w.seconds for w in works if w.customer_id == "acme"} == {60.0}
    # A window of anybody else took two to six hours where the giant's day took 7,380 seconds.
    assert all(58 < w.seconds < 176 for w in works if w.customer_id not in GIANTS)


def test_who_takes_long_has_many_conversations_but_not_exactly_so_many() -> None:
    size = Size(giants=2, days=3, others=28, giant_seconds=120.0)
    rates, works = size.rates(seed=1), planned(size)
    assert (rates["acme"], rates["globex"]) == (1_500, 929)
    a_day = 1_500 / 31
    # What the customer's window would take at the giant's pace, by what it takes.
    by_pace = [rates[w.customer_id] * 3 / 31 / a_day * 120 / w.seconds for w in works if w.customer_id not in GIANTS]
    assert len(by_pace) == 28
    assert all(0.69 < pace < 1.41 for pace in by_pace)
    assert max(by_pace) > 1.2 > 0.8 > min(by_pace)


def test_the_whole_month_ends_with_the_month() -> None:
    assert Size(1, 31, 0, 60.0).end == "2026-02-01"
    assert Size(1, 30, 0, 60.0).end == "2026-01-31"


def test_every_contender_gets_the_same_seconds() -> None:
    windows = [{"customer_id": w.customer_id, "start": w.start, "end": w.end} for w in planned(SIZE)]
    assert drawn(windows, SIZE, seed=1) == planned(SIZE)
    assert drawn(windows[::-1], SIZE, seed=1) == planned(SIZE)[::-1]


def test_the_reindexer_takes_each_windows_own_seconds() -> None:
    faults = parse_faults(json.dumps(fault_rules(planned(SIZE))))
    for one in planned(SIZE):
        first, end = (day_ms(date.fromisoformat(text)) for text in (one.start, one.end))
        told = decide(Request(one.customer_id, "voice", first, end, 50), faults, {}, Limits())
        assert (told.seconds_per_batch, told.failure) == (one.seconds, "")


def test_a_worker_start_is_told_from_other_calls() -> None:
    line = "[info] request finished method=PATCH path=/execution/task-instances/{}/run query= status_code={}"
    ti = "01930d4f-8a5c-7c3e-9a43-0123456789ab"
    assert RUN_CALL.search(line.format(ti, 200))
    assert not RUN_CALL.search(line.format(ti, 409))
    assert not RUN_CALL.search(line.format(ti, 200).replace("/run", "/state"))


LOOKS = {
    "looks": [
        {"windows": 50, "instances": 304, "cpu_seconds": 0.25, "statements": 1_003},
        {"windows": 1_000, "instances": 6_004, "cpu_seconds": 5.5, "statements": 20_003},
    ],
    "fewer_stages": [{"stages": 5, "windows": 50, "cpu_seconds": 0.2}],
    "batches": {"stages": 6, "windows": 50, "batches": 20, "cpu_seconds": 0.3, "statements": 2_006},
    "share_of_a_core": [{"windows": 50, "0.5": 0.333, "5.0": 0.048}],
}


def results(**parts: Any) -> dict[str, Any]:
    return {"machine": {"cores": 2}, "parts": {n: {"at": "2026-01-01", "found": f} for n, f in parts.items()}}


def test_what_was_not_measured_is_said() -> None:
    text = page(results())
    assert text.count("\nNot measured.\n") == len(TITLES)
    assert text.count("| not measured |") == len(GOALS)


def test_a_figure_that_is_missed_comes_with_its_reason() -> None:
    found = results(scheduling=LOOKS)
    (goal,) = [goal for goal in GOALS if goal.part == "scheduling"]
    assert judged(goal, found["parts"]) == 2.0
    (line,) = [line for line in page(found).splitlines() if goal.text in line]
    assert "| missed |" in line
    assert goal.reason in line


def test_the_looks_are_shown_beside_the_first() -> None:
    text = page(results(scheduling=LOOKS))
    assert "| 1,000 | 6,004 | 5.5 | 20,003 | 5.5 | 1.10x |" in text
    assert "| 5 stages | 0.2 | 0.80x |" in text
    assert "| 6 stages, 50 windows open, the rest in 19 closed batches | 0.3 | 1.20x |" in text
    assert "| 50 | 33% | 5% |" in text


@pytest.mark.parametrize(("value", "base", "shown"), [(3.0, 2.0, "1.50x"), (None, 2.0, "-"), (3.0, 0.0, "-")])
def test_ratios(value: float | None, base: float | None, shown: str) -> None:
    assert ratio(value, base) == shown


def test_contenders_of_the_same_size_are_kept_and_of_another_are_not() -> None:
    before = {"size": {"days": 5}, "ours": 1, "old": 2}
    assert merged("replay", before, {"size": {"days": 5}, "ours": 3}) == {"size": {"days": 5}, "ours": 3, "old": 2}
    assert merged("replay", before, {"size": {"days": 9}, "ours": 3}) == {"size": {"days": 9}, "ours": 3}
    assert merged("waiting", {"windows": [1]}, {"windows": []}) == {"windows": []}


def test_the_document_is_made_from_the_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(json.loads(RESULTS.read_text(encoding="utf-8")))
