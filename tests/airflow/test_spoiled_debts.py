"""A cluster's book of debts of which something cannot be read: said, never taken for nothing, and with a way out."""

from __future__ import annotations

from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowFailException

from backfill.kit import xcoms
from backfill.kit.debts import INDEX, DebtBook, DebtIndexError, key_of
from backfill.kit.promises import promise
from backfill.operators import plan as module
from backfill.operators.plan import PlanOperator
from include.scorecard_backfill.debts import Debt
from include.scorecard_backfill.params.form import params_schema
from include.scorecard_backfill.planning import plan
from tests.kit.build import debt as owed
from tests.kit.store import AssetState
from tests.kit.waits import BEFORE, COUNTED, NAME, assets, cluster, context, window

__all__ = ["assets", "cluster"]

Json = dict[str, Any]

OLD = window(key="00000000000000aa")
SPOILED = owed(OLD, BEFORE, cluster=NAME).to_json() | {"since": "never"}


@pytest.fixture
def book(assets: AssetState, monkeypatch: pytest.MonkeyPatch) -> DebtBook:
    """A book with one debt, of acme in January, that cannot be read; and a cluster of two customers."""

    def inventory(hook: Any, days: Any) -> Any:
        customers = ("acme", "globex")
        volumes = tuple(plan.Volume(f"{c}_voice", "scorecard", c, "voice", days.start, 9, 3) for c in customers)
        tables = {f"{c}_voice": ("scorecard",) for c in customers}
        return plan.Inventory(tables, {f"{c}_voice": ((c, "voice"),) for c in customers}, volumes), {}

    monkeypatch.setattr(module, "read_inventory", inventory)
    monkeypatch.setattr(Variable, "get", lambda key, default=None: default)
    assets.set(INDEX, [OLD.key])
    assets.set(key_of(OLD.key), SPOILED)
    return DebtBook(NAME)


def planned(start: date, end: date, **form: Any) -> tuple[list[Json], Json]:
    """The windows of a plan of acme in these days, and its task."""
    defaults = {name: schema["default"] for name, schema in params_schema().items()}
    asked = {"mode": "cleanup", "customers": ["acme"], "window": "month", "start_date": str(start),
             "end_date": str(end)} | form  # fmt: skip
    run = SimpleNamespace(run_id="manual__1", run_type="manual", conf=asked, triggering_user_name="",
                          run_after=datetime(2026, 5, 2, tzinfo=UTC))  # fmt: skip
    task = context("plan", dag_run=run, params=defaults | asked)
    return PlanOperator(task_id="plan", cluster=NAME, max_windows=9).execute(task), task


JANUARY = (date(2026, 1, 1), date(2026, 2, 1))
FEBRUARY = (date(2026, 2, 1), date(2026, 3, 1))


@pytest.mark.parametrize("form", [{}, {"customers": [], "all_customers": True}, {"mode": "reindex"}])
def test_a_plan_that_may_owe_it_is_refused_with_the_way_out(form: Json, cluster: str, book: DebtBook) -> None:
    with pytest.raises(AirflowFailException, match=r"what is owed is not known") as refused:
        planned(*JANUARY, **form)
    assert f"the debt of window {OLD.key} (acme 2026-01-01..2026-02-01) cannot be read" in str(refused.value)
    assert f"python -m backfill write-off {OLD.key} " in str(refused.value)


@pytest.mark.parametrize(
    ("days", "form"),
    [
        (JANUARY, {"customers": ["globex"]}),
        (FEBRUARY, {}),
        (JANUARY, {"dry_run": True}),
    ],
)
def test_every_other_plan_is_made_and_names_it(days: Any, form: Json, cluster: str, book: DebtBook) -> None:
    _, task = planned(*days, **form)
    assert [note for note in task["ti"].xcoms["plan", xcoms.NOTES] if note.startswith("owed, NOT in this plan")]
    assert OLD.key in book.indexed()


def test_it_stays_in_the_book_until_its_window_is_verified(cluster: str, book: DebtBook) -> None:
    found = book.prune([])
    assert ([s.window for s in found.spoiled], found.readable, book.indexed()) == ([OLD.key], (), [OLD.key])


def test_a_window_writes_its_own_debt_anew_before_it_deletes(cluster: str, book: DebtBook) -> None:
    promise(context("windows.delete"), OLD, COUNTED)
    again = book.debt(OLD.key)
    assert isinstance(again, Debt)
    assert (again.before, again.run_id) == (COUNTED.before, "manual__1")


@pytest.mark.parametrize("index", ["", {}, [7], "[]"])
def test_an_index_that_cannot_be_read_is_no_empty_one(
    index: object, cluster: str, book: DebtBook, assets: AssetState
) -> None:
    assets.set(INDEX, index)
    for call in (book.open, book.prune, lambda: book.announce(["k"])):
        with pytest.raises(DebtIndexError, match="python -m backfill write-off debts "):
            call()
    with pytest.raises(AirflowFailException, match="the plan is refused, nothing was deleted: the index of the debts"):
        planned(*JANUARY)
