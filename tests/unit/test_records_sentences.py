"""What is said of a record that cannot be read, and what the history shows of a run, field by field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from include.scorecard_backfill.months import is_complete
from include.scorecard_backfill.overview.facts import DebtFact
from include.scorecard_backfill.overview.history import (
    CustomerLine,
    DebtLine,
    PastCustomer,
    PastReport,
    PastRun,
    RunLine,
    history_of,
    past_report,
)
from include.scorecard_backfill.overview.missed import Missed
from include.scorecard_backfill.overview.owed import OwedLine, owed_line
from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.records import RecordError, Window, plain
from include.scorecard_backfill.records.events import read_event
from include.scorecard_backfill.records.kept import KeptStep, MadeJob, window_of
from include.scorecard_backfill.records.results import read
from include.scorecard_backfill.spoiled import read_debt
from tests.kit.build import debt, table, window
from tests.unit.overview_fixtures import at

Json = dict[str, Any]
STORED = window().to_json()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "window: a record is wanted, NoneType is there"),
        ([1], "window: a record is wanted, list is there"),
        ({}, "window: a record of this kind is wanted, one of kind None is there"),
        ({"kind": "debt", "v": 1}, "window: a record of this kind is wanted, one of kind 'debt' is there"),
        (STORED | {"v": 2}, "window: version 2 of the record cannot be read (this release reads 1); finish the run with"
                            " the release that began it, or start a new run"),
        (STORED | {"mode": "odd"}, "window: mode: Input should be 'cleanup' or 'reindex'"),
        (STORED | {"databases": [{"profile_id": "p"}]},
         "window: databases.0.name: Field required; databases.0.tables: Field required"),
    ],
)  # fmt: skip
def test_why_a_value_is_not_the_record_that_is_wanted(value: object, said: str) -> None:
    with pytest.raises(RecordError) as refused:
        Window.from_json(value)
    assert str(refused.value) == said


def test_three_wrong_fields_of_a_record_are_named() -> None:
    with pytest.raises(RecordError) as refused:
        Window.from_json({"kind": "window", "v": 1})
    assert str(refused.value) == "window: key: Field required; cluster: Field required; customer_id: Field required"
    nested = debt(window(), table({0: "a"})).to_json()
    nested["before"][0]["days"]["2026-01-01"]["rows"] = -1
    found = read_debt(nested["window"], nested)
    assert found.text.endswith(
        "cannot be read: debt: before.0.days.2026-01-01.rows: Input should be greater than or equal to 0"
    )


def test_text_may_be_encoded_twice_and_nothing_is_nothing() -> None:
    assert plain(json.dumps(json.dumps({"a": 1}))) == {"a": 1}
    assert [plain(value) for value in ("", "None", None, '""', '"None"', 3)] == [None, None, None, None, None, 3]
    with pytest.raises(RecordError) as refused:
        plain("{" + "x" * 100)
    assert str(refused.value).startswith(f"'{'{' + 'x' * 79}' is not JSON: ")


def test_a_record_of_an_unknown_kind_is_named_by_its_begin() -> None:
    assert read(None) is read("") is None
    assert read(STORED) == window()
    value: object
    for value in ([1], {"kind": "odd"}, {"kind": ["window"]}, {"v": 1}):
        with pytest.raises(RecordError) as refused:
            read(value)
        assert str(refused.value) == f"a record is wanted, {str(value)!r} is there"
    with pytest.raises(RecordError) as refused:
        read({"kind": "x" * 200})
    assert str(refused.value) == f"a record is wanted, {str({'kind': 'x' * 200})[:80]!r} is there"
    for value in (None, [1], {"kind": "window"}, {"kind": None}):
        with pytest.raises(RecordError) as refused:
            read_event(value)
        assert str(refused.value) == f"an event is wanted, {str(value)!r} came"
    with pytest.raises(RecordError) as refused:
        read_event({"kind": "x" * 300})
    assert str(refused.value) == f"an event is wanted, {str({'kind': 'x' * 300})[:200]!r} came"


def test_what_is_kept_names_its_window_and_only_what_was_set() -> None:
    assert [window_of(kept) for kept in ({"key": "k"}, {"key": None}, {}, None, "key", ["key"])] == ["k", *[""] * 5]
    assert KeptStep(state="sent").to_json() == {"state": "sent"}
    nothing: Json | None
    for nothing in (None, {}):
        assert KeptStep.from_json(nothing) == KeptStep()
    assert MadeJob.from_json({"attempt": 2, "made_at": 1.5}) == MadeJob(attempt=2, made_at=1.5)


def test_a_stored_debt_is_a_line_of_the_list() -> None:
    owed = debt(window(), table({0: "abc"}))
    line = owed_line(owed.window, json.dumps(owed.to_json()))
    assert line == OwedLine(key=owed.window, label=owed.label, text=owed.text, digest=line.digest if line else "")
    spoiled = owed_line("k", "{")
    assert spoiled is not None
    found = read_debt("k", "{")
    assert (spoiled.key, spoiled.label, spoiled.text) == ("k", found.label, found.text)
    assert spoiled.remedy.startswith("Look at these days on the cluster.")
    assert len(spoiled.digest) == 16


@pytest.mark.parametrize(("report", "whole"), [({"complete": True}, True), ({"complete": False}, False), ({}, False)])
def test_a_run_is_complete_when_its_report_says_so(report: Json, whole: bool) -> None:
    assert is_complete(report) is whole


# -- the history ----------------------------------------------------------------------------------------------------

CHOSEN = Chosen.read({"mode": "cleanup", "start_date": "2026-01-01", "end_date": "2026-02-01"})
DAYS = ("2026-01-01", "2026-02-01")


def test_each_field_of_a_report_of_the_past() -> None:
    found = past_report({
        "planned": 3, "complete": True, "total": {"score": {"removed": 5}, "card": {}},
        "customers": [
            {"customer_id": "acme", "verified": 1, "windows": 2, "tables": {"score": {"removed": 5, "before": 9}}},
            {"customer_id": "globex", "verified": 4},
            {"customer_id": 7, "verified": None, "windows": None, "tables": None},
        ],
    })  # fmt: skip
    assert found == PastReport(
        planned=3, complete=True, removed={"card": 0, "score": 5},
        customers=(
            PastCustomer("acme", 1, 2, {"score": 5}), PastCustomer("globex", 4, 4, {}), PastCustomer("7", 0, 0, {}),
        ),
    )  # fmt: skip
    names = ("planned", "complete", "customers", "total")
    assert past_report({}) == past_report(dict.fromkeys(names)) == PastReport()
    assert (PastReport().planned, PastReport().complete) == (0, False)


def test_each_field_of_a_run_of_the_past() -> None:
    report = PastReport(
        2, True, (PastCustomer("acme", 2, 2, {"score": 5}), PastCustomer("globex", 0, 1, {})), {"score": 5}
    )
    done = PastRun("r2", "success", at(0), at(90), "joe", CHOSEN, report)
    bare = PastRun("r1", "failed")
    missed = Missed(slot=at(0), days=DAYS, what="w", mode="reindex", whom="all customers")
    debts = [
        DebtFact("k1", "b", "s", "e", None), DebtFact("k2", "c", "s", "e", at(9), "r0", swept=True),
        DebtFact("k3", "a", "s", "e", at(9)), DebtFact("k4", "d", "s", "e", at(5)),
    ]  # fmt: skip
    view = history_of("dag", "east", [done, bare], debts, at(99), missed=missed, paused=True)
    assert (view.dag_id, view.cluster, view.made_at, view.missed, view.paused) == ("dag", "east", at(99), missed, True)
    assert view.runs == (
        RunLine(run_id="r2", mode="cleanup", days=DAYS, customers=2, removed={"score": 5}, started=at(0), ended=at(90),
                minutes=90.0, verdict="complete", asked_by="joe"),
        RunLine(run_id="r1", mode="", days=None, customers=0, removed={}, started=None, ended=None, minutes=None,
                verdict="refused", asked_by=""),
    )  # fmt: skip
    assert view.customers == (
        CustomerLine(customer="acme", mode="cleanup", ended=at(90), days=DAYS, removed={"score": 5}, verified=2,
                     windows=2, run_id="r2"),
    )  # fmt: skip
    assert view.debts == (
        DebtLine(customer="d", start="s", end="e", since=at(5), run_id="", swept=False),
        DebtLine(customer="a", start="s", end="e", since=at(9), run_id="", swept=False),
        DebtLine(customer="c", start="s", end="e", since=at(9), run_id="r0", swept=True),
        DebtLine(customer="b", start="s", end="e", since=None, run_id="", swept=False),
    )
    plain_view = history_of("dag", "east", [PastRun("r", "running", at(0), None, run=Chosen.read({}))], [], at(1))
    assert (plain_view.missed, plain_view.paused) == (None, False)
    assert (plain_view.runs[0].minutes, plain_view.runs[0].mode, plain_view.runs[0].days) == (None, "", None)


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (PastRun("r", "queued", run=CHOSEN, answer="Reject"), "rejected"),
        (PastRun("r", "queued", run=CHOSEN), "running"),
        (PastRun("r", "success", run=CHOSEN), "nothing to do"),
        (PastRun("r", "success", run=CHOSEN, report=PastReport(2, False)), "incomplete"),
        (PastRun("r", "failed", run=CHOSEN, report=PastReport(2, True)), "complete"),
        (PastRun("r", "success"), "refused"),
        (PastRun("r", "success", run=CHOSEN, asking=True), "nothing to do"),
    ],
)
def test_the_word_for_how_a_run_stands(run: PastRun, verdict: str) -> None:
    assert history_of("d", "c", [run], [], at(1)).runs[0].verdict == verdict
