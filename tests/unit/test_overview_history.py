"""The runs of a DAG and each customer's last one, against hand-made truth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.scorecard_backfill.overview.facts import DebtFact
from include.scorecard_backfill.overview.history import PastReport, PastRun, history_of, past_report
from include.scorecard_backfill.params.chosen import Chosen
from tests.unit.overview_fixtures import at

RUN = Chosen.read({"mode": "cleanup", "start_date": "2026-01-01", "end_date": "2026-02-01"})


def report(*customers: tuple[str, int, int, int]) -> PastReport:
    """A report of (customer, verified, windows, scorecards removed)."""
    listed = [
        {"customer_id": c, "verified": v, "windows": w, "tables": {"scorecard": {"removed": r}} if v else {}}
        for c, v, w, r in customers
    ]
    done, planned = sum(v for _, v, _, _ in customers), sum(w for _, _, w, _ in customers)
    return past_report({"planned": planned, "verified": done, "complete": done == planned, "customers": listed,
                        "total": {"scorecard": {"removed": sum(r for *_, r in customers)}}})  # fmt: skip


def test_a_customer_is_shown_with_its_newest_run_that_verified_something() -> None:
    runs = [
        PastRun("c", "failed", at(200), at(230), "joe", RUN, report(("acme", 0, 2, 0), ("hooli", 1, 2, 7))),
        PastRun("b", "success", at(100), at(160), "joe", RUN, report(("acme", 2, 2, 20))),
        PastRun("a", "success", at(0), at(50), "joe", RUN, report(("acme", 2, 2, 99), ("hooli", 2, 2, 9))),
    ]
    view = history_of("d", "east", runs, [DebtFact("k", "acme", "2026-01-01", "2026-01-11", at(210), "c")], at(300))
    shown = [(c.customer, c.run_id, c.ended, c.verified, c.windows, c.removed) for c in view.customers]
    assert shown == [("acme", "b", at(160), 2, 2, {"scorecard": 20}), ("hooli", "c", at(230), 1, 2, {"scorecard": 7})]
    lines = [(r.run_id, r.verdict, r.minutes, r.customers, r.removed) for r in view.runs]
    assert lines == [
        ("c", "incomplete", 30.0, 2, {"scorecard": 7}),
        ("b", "complete", 60.0, 1, {"scorecard": 20}),
        ("a", "complete", 50.0, 2, {"scorecard": 108}),
    ]
    assert [(d.customer, d.since, d.run_id) for d in view.debts] == [("acme", at(210), "c")]


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (PastRun("r", "running", run=RUN), "running"),
        (PastRun("r", "running", run=RUN, asking=True), "waiting for approval"),
        (PastRun("r", "failed", run=RUN, answer="Reject"), "rejected"),
        (PastRun("r", "failed"), "refused"),
        (PastRun("r", "success", run=replace(RUN, dry_run=True)), "dry run"),
        (PastRun("r", "success", run=RUN, report=PastReport()), "nothing to do"),
        (PastRun("r", "failed", run=RUN), "incomplete"),
    ],
)
def test_the_verdict_of_a_run_is_never_better_than_what_is_known(run: PastRun, verdict: str) -> None:
    assert history_of("d", "east", [run], [], at(1)).runs[0].verdict == verdict
