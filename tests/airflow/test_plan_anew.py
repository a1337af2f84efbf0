"""A plan that is made anew in the same run: nothing of the earlier plan's windows is taken for the new ones'."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowFailException

from backfill.kit import counting
from backfill.kit.counting import counted_once
from backfill.kit.debts import DebtBook
from backfill.kit.stages import fail, failed_before, result_of
from backfill.kit.store import COUNTED, FAILED, FROZEN, GENERATION, RunStore, WindowStore
from backfill.operators import plan as module
from backfill.operators.plan import PlanOperator
from backfill.operators.replan import ReplanOperator
from backfill.operators.wait_mutations import RESENDING, WaitMutationsOperator
from backfill.reindexing.gate import Ask, Eyes, may_make_job
from backfill.settings import cluster_config
from backfill.slots import Place
from backfill.triggers.workflows import WorkflowsTrigger
from include.scorecard_backfill import debts as owing
from include.scorecard_backfill import names
from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.params.form import params_schema
from include.scorecard_backfill.planning import plan
from include.scorecard_backfill.planning.replan import cut
from include.scorecard_backfill.records import FailEvent, Failure, GoEvent, Window
from tests.kit.build import debt as owed
from tests.kit.store import AssetState
from tests.kit.waits import (
    COUNTED as COUNT,
)
from tests.kit.waits import (
    NAME,
    Left,
    assets,
    cluster,
    configure,
    context,
    deleted,
    left,
    only_event,
    placed,
    reindexed,
    window,
)

__all__ = ["assets", "cluster", "left"]

Json = dict[str, Any]

DAYS: Json = {"start_date": "2026-01-01", "end_date": "2026-02-01", "window": "month"}
FAILURE = Failure(key="another", stage="delete", cause="killed", reason="r")


def earlier(**fields: Any) -> Window:
    """A window with the key that earlier releases have made for it."""
    base = window(**fields)
    key = names.window_key(cluster=NAME, run_id="manual__1", customer_id=base.customer_id, start=str(base.start),
                           end=str(base.end))  # fmt: skip
    return base.model_copy(update={"key": key})


@pytest.fixture
def stock(assets: AssetState, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of one customer."""

    def inventory(hook: Any, days: Any) -> Any:
        volumes = (plan.Volume("acme_voice", "scorecard", "acme", "voice", date(2026, 1, 5), 90, 30),)
        return plan.Inventory({"acme_voice": ("scorecard",)}, {"acme_voice": (("acme", "voice"),)}, volumes), {}

    monkeypatch.setattr(module, "read_inventory", inventory)
    monkeypatch.setattr(Variable, "get", lambda key, default=None: default)


def task(**fields: Any) -> Json:
    """What Airflow gives to `plan`."""
    form = {name: schema["default"] for name, schema in params_schema().items()}
    asked = {"mode": "cleanup", "customers": ["acme"], **DAYS}
    run = SimpleNamespace(run_id="manual__1", run_type="manual", conf=asked, triggering_user_name="",
                          run_after=datetime(2026, 3, 2, tzinfo=UTC))  # fmt: skip
    return context("plan", dag_run=run, params=form | asked, **fields)


def planned(asked: Json) -> list[Window]:
    """The windows of a plan."""
    return [Window.from_json(w) for w in PlanOperator(task_id="plan", cluster=NAME, max_windows=99).execute(asked)]


def test_a_plan_that_is_made_anew_has_other_keys_and_the_same_plan_keeps_its_own(
    cluster: str, stock: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = task()
    (first,) = planned(asked)
    assert planned(asked) == [first]
    configure(tmp_path, monkeypatch, clickhouse={"delete": {"max_rows_per_mutation": 7}})
    (second,) = planned(asked)
    assert (second.label, second.databases) == (first.label, first.databases)
    assert second.key != first.key


def test_a_run_of_the_id_of_a_deleted_one_has_keys_of_its_own(cluster: str, stock: None) -> None:
    assert planned(task())[0].key != planned(task())[0].key


def test_a_plan_is_not_made_anew_while_a_part_of_its_window_owes(
    cluster: str, stock: None, assets: AssetState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = task()
    (first,) = planned(asked)
    part = cut(first, COUNT.model_copy(update={"key": first.key}), "manual__1")[0]
    book = DebtBook(NAME)
    book.hand_over(owing.Handover((owed(part, *part.before, cluster=NAME),), (first.key,)))
    configure(tmp_path, monkeypatch, clickhouse={"delete": {"max_rows_per_mutation": 7}})
    with pytest.raises(AirflowFailException) as refused:
        planned(asked)
    first_line, second_line = str(refused.value).split("\n")
    assert first_line.startswith("approval_changed: ")
    assert second_line == (
        f"Rows of this run's windows are deleted already ({part.label}), so it is not planned anew. Undo the change in"
        " the cluster's file and clear what failed, or start a new run: its plan takes in what this one owes."
    )


def test_a_count_of_another_window_at_the_same_place_is_not_this_ones(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook: Any = SimpleNamespace(server_time=lambda: datetime.fromtimestamp(7, UTC), topology=list)
    monkeypatch.setattr(counting, "_settled", lambda *_: ())
    at, log = context("windows.delete"), logging.getLogger(__name__)
    WindowStore(at, window(key="another")).set(COUNTED, COUNT.to_json())
    counted = counted_once(at, window(), hook, log)
    assert (counted.key, counted.now, counted.server_time) == (window().key, (), 7.0)
    assert counted_once(at, window(), hook, log) == counted


def test_a_stage_remembers_each_window_for_itself() -> None:
    at = context("windows.delete")
    mine, others = WindowStore(at, window()), WindowStore(at, window(key="another"))
    others.set(GENERATION, 3)
    assert mine.get(GENERATION) is None
    mine.set(GENERATION, 1)
    assert (mine.get(GENERATION), others.get(GENERATION)) == (1, 3)
    with pytest.raises(AirflowFailException):
        fail(at, FAILURE)
    assert failed_before(at, window()) is None
    assert failed_before(at, window(key="another")) == FAILURE


def test_values_of_an_earlier_release_are_read_for_the_windows_that_it_has_planned() -> None:
    at = context("windows.delete")
    RunStore(at).set(GENERATION, 2)
    RunStore(at).set(COUNTED, COUNT.to_json())
    RunStore(at).set(FAILED, FAILURE.model_copy(update={"key": earlier().key}).to_json())
    old, new = WindowStore(at, earlier()), WindowStore(at, window())
    assert (old.get(GENERATION), new.get(GENERATION, 0)) == (2, 0)
    # A record that names its window says itself whose it is.
    assert old.get(COUNTED) is None
    assert old.get(FAILED)["cause"] == "killed"
    old.set(GENERATION, 4)
    assert (old.get(GENERATION), RunStore(at).get(GENERATION)) == (4, 2)


def test_what_a_stage_left_for_another_window_is_no_result_of_this_one(cluster: str) -> None:
    xcoms: Any = {("windows.reindex", "return_value"): {0: reindexed(1).to_json()}}
    at = context("windows.delete", xcoms)
    assert result_of(at, "reindex", window()) == reindexed(1)
    assert result_of(at, "reindex", window(key="another")) is None


async def test_a_wait_takes_no_result_of_another_window(cluster: str, left: Left) -> None:
    left["windows.reindex", "return_value"] = reindexed(1, "w-1", key="another")
    event = await only_event(placed(WorkflowsTrigger(cluster=NAME, group="windows"), "windows.wait_workflows"))
    failure = FailEvent.from_json(event.payload).failure
    assert "the reindex stage left no result: clear it (reindex) and this task with it" in failure.reason


def test_parts_of_another_plans_windows_are_not_listed(cluster: str) -> None:
    parts = cut(window(key="another"), COUNT.model_copy(update={"key": "another"}), "manual__1")
    at = context("replan", {("plan", "return_value"): [window().to_json()]})
    RunStore(at).set(FROZEN, [part.to_json() for part in parts])
    assert ReplanOperator(task_id="replan", cluster=NAME, group="windows", max_windows=99).execute(at) == []
    assert at["ti"].xcoms["replan", "cut"] == []


@pytest.mark.parametrize("name", [RESENDING, f"{RESENDING}@{window().key}"])
def test_a_delete_that_is_being_sent_again_is_found_for_its_window_only(name: str, cluster: str) -> None:
    made = WaitMutationsOperator(task_id="wait_mutations", cluster=NAME, group="windows")
    at = context("windows.wait_mutations")
    RunStore(at).set(name, deleted(key="another").to_json())
    with pytest.raises(AirflowFailException, match="no DELETE of window 0123456789abcdef is being sent again"):
        made.resume(at, event=GoEvent(key=window().key, why="room").to_json())


def job(name: str, key: str, customer: str, condition: str = "") -> Json:
    """A Job of a window."""
    labels = {names.LABEL_WINDOW: key, names.LABEL_CUSTOMER: names.label_value(customer)}
    conditions = [{"type": condition, "status": "True"}] if condition else []
    return {"metadata": {"name": name, "labels": labels}, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (job("old", "another", "acme"), "wait"),
        (job("old", "another", "acme", "Complete"), "ok"),
        (job("old", "another", "globex"), "ok"),
        (job("sibling", "sibling", "acme"), "ok"),
    ],
)
async def test_no_job_is_made_beside_one_of_another_plan_of_the_customer(found: Json, state: str, cluster: str) -> None:
    class Jobs:
        async def jobs(self, selector: str = "") -> list[Json]:
            return [found]

    async def nothing() -> Any:
        return None

    async def states() -> Mapping[str, str | None]:
        return {}

    async def open_ids() -> list[str]:
        return []

    config: Any = cluster_config(NAME)
    eyes = Eyes(Jobs(), nothing, open_ids, states, nothing)  # type: ignore[arg-type]
    places = [Place("windows", 0, window()), Place("windows", 1, window(key="sibling"))]
    verdict = await may_make_job(config, eyes, Ask(window(), places, Chosen.read({"max_parallel": 4})))
    assert verdict.state == state, verdict.text
    if state == "wait":
        assert verdict.text == "Jobs of another plan of acme are running: old"
