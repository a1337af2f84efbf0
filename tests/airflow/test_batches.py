"""Batches of a plan in Airflow: what opens them, what waits with them, and that whoever counts windows knows all."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import TaskSkippedEvent, TriggerEvent

from backfill.groups import BATCHES, PASSES, pass_of
from backfill.kit.results import planned, results_of
from backfill.operators.open import OpenOperator
from backfill.operators.replan import ReplanOperator
from backfill.operators.undo import UndoPlanOperator
from backfill.settings import cluster_config
from backfill.slots import Place
from backfill.triggers import admit
from backfill.triggers.admit import AdmitTrigger
from backfill.triggers.open import OpenTrigger
from include.scorecard_backfill.params.undo import UndoParams
from include.scorecard_backfill.records import FailEvent, Failure, GoEvent, Window
from include.scorecard_backfill.verdicts.health import Gate
from tests.airflow.test_operators_plan import JANUARY, planner, stock, task
from tests.kit.store import AssetState
from tests.kit.waits import (
    COUNTED,
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
    window,
)

__all__ = ["assets", "cluster", "left", "stock"]

Json = dict[str, Any]
States = dict[str, str | None]


def days_of(customer: str, count: int) -> list[Window]:
    """Windows of single days."""
    first = date(2026, 1, 1)
    return [
        window(key=f"{customer}-{n}", customer_id=customer, start=first + timedelta(n), end=first + timedelta(n + 1))
        for n in range(count)
    ]


# Plan order, and the batch of each.
PLAN = [*days_of("acme", 3), *days_of("globex", 3)]
NUMBERS = [0, 1, 2, 0, 1, 2]
BEGIN: States = {"open_windows_2": "deferred", "open_windows_3": None, "windows.admit_0": "deferred",
                 "windows.admit_1": "deferred"}  # fmt: skip


@pytest.fixture
def states(left: Left, monkeypatch: pytest.MonkeyPatch) -> States:
    """Airflow's states of a run of six windows in three batches of two; a test changes them."""
    left["plan", "return_value"] = [PLAN[0].to_json(), PLAN[3].to_json()]
    left["plan", "planned"] = [w.to_json() for w in PLAN]
    left["plan", "batches"] = NUMBERS
    left["plan", "run"] = {"max_parallel": 2, "sources": {"max_parallel": "form"}, "max_failures": 2}
    found = dict(BEGIN)

    def task_states(task_ids: list[str], **_: Any) -> Json:
        wanted = {name: s for name, s in found.items() if name in task_ids or name.rsplit("_", 1)[0] in task_ids}
        return {"manual__1": wanted}

    async def calm(_self: Any) -> Gate:
        return Gate({})

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", task_states)
    monkeypatch.setattr(admit, "override_text", lambda cluster: None)
    monkeypatch.setattr(AdmitTrigger, "_gate", calm)
    return found


def done(states: States, group: str, *indexes: int) -> None:
    """Have windows verified."""
    for index in indexes:
        for stage in ("admit", "delete", "wait_mutations", "reindex", "wait_workflows", "verify"):
            states[f"{group}.{stage}_{index}"] = "success"


async def opened(group: str = "windows_2") -> TriggerEvent:
    """Run an opener to its end."""
    return await only_event(placed(OpenTrigger(cluster=NAME, group=group), f"open_{group}", -1))


async def look(trigger: AdmitTrigger, task_id: str, index: int) -> Any:
    """Let a trigger look once."""
    made = placed(trigger, task_id, index)
    made.args = made.model(**made.given)
    made.config = cluster_config(NAME)
    await made._find_window()
    await made.prepare()
    return await made.look()


async def test_a_batch_is_opened_when_few_open_windows_wait_and_not_before(cluster: str, states: States) -> None:
    waits = await look(OpenTrigger(cluster=NAME, group="windows_2"), "open_windows_2", -1)
    assert waits.text == "2 windows before it wait; it is opened when fewer than 2 (max_parallel) do"
    states["windows.admit_0"] = "success"
    event = await opened()
    assert GoEvent.from_json(event.payload).why == "1 windows before it wait, fewer than 2 (max_parallel)"


async def test_a_plan_that_ends_before_a_batch_skips_it(cluster: str, left: Left, states: States) -> None:
    assert isinstance(await opened("windows_4"), TaskSkippedEvent)


async def test_a_plan_of_one_batch_skips_all_others(cluster: str, left: Left, states: States) -> None:
    # Of this release or of one before it: it has no numbers.
    del left["plan", "batches"]
    assert isinstance(await opened(), TaskSkippedEvent)


@pytest.mark.parametrize("plan", ["being made again", "with a hole"])
async def test_what_is_not_known_skips_no_batch(cluster: str, left: Left, states: States, plan: str) -> None:
    if plan == "with a hole":
        left["plan", "batches"] = [0, 2, 2, 0, 2, 2]
    else:
        del left["plan", "batches"], left["plan", "return_value"]
    assert FailEvent.from_json((await opened()).payload).failure.cause == "configuration"


FAILED: tuple[States, States] = (
    {"windows.admit_0": "success", "windows.delete_0": "failed", "windows.verify_0": "upstream_failed"},
    {"windows.admit_1": "success", "windows.delete_1": "failed", "windows.verify_1": "upstream_failed"},
)


async def test_a_failed_window_does_not_hold_the_next_batch(cluster: str, states: States) -> None:
    states |= FAILED[0]
    assert GoEvent.from_json((await opened()).payload)


async def test_what_the_breaker_forbids_is_not_opened(cluster: str, states: States) -> None:
    states |= FAILED[0] | FAILED[1]
    # A worker ends it for good: Airflow would repeat what a trigger reports.
    failure = FailEvent.from_json((await opened()).payload).failure
    assert failure.cause == "breaker"
    assert "2 windows failed, the limit is 2; clear the failed ones, then this task" in failure.reason


async def test_open_windows_are_admitted_in_the_order_of_the_plan_over_all_batches(
    cluster: str, states: States
) -> None:
    done(states, "windows", 0)
    states |= {"open_windows_2": "success", "windows_2.admit_0": "deferred", "windows_2.admit_1": "deferred"}
    # The second day of acme, in the second batch, comes before the first one of globex, in the first.
    second = await look(AdmitTrigger(cluster=NAME, group="windows_2"), "windows_2.admit", 0)
    assert second.why == "slot 1 of 2"
    other = await look(AdmitTrigger(cluster=NAME, group="windows"), "windows.admit", 1)
    assert other.why == "slot 2 of 2"
    # globex 2026-01-02 is the window of the fifth place of the plan.
    held = await look(AdmitTrigger(cluster=NAME, group="windows_2"), "windows_2.admit", 1)
    assert held.text == "another window of globex comes first (1 at a time)"


@pytest.mark.parametrize(("opener", "slot"), [("deferred", 2), ("running", 2), ("failed", 1), ("removed", 1)])
async def test_a_closed_windows_slot_is_kept_for_it_unless_its_batch_will_not_be_opened(
    cluster: str, states: States, opener: str, slot: int
) -> None:
    done(states, "windows", 0)
    states["open_windows_2"] = opener
    if opener == "removed":
        # Of a batch that the cluster's file does not have any more Airflow knows no task.
        del states["open_windows_2"]
    states["open_windows_3"] = "upstream_failed" if slot == 1 else None
    found = await look(AdmitTrigger(cluster=NAME, group="windows"), "windows.admit", 1)
    assert found.why == f"slot {slot} of 2"


def of_plan(**xcoms: Any) -> Json:
    """The task of an opener whose plan has left this."""
    found: dict[tuple[str, str], Any] = {
        ("plan", "return_value"): [PLAN[0].to_json(), PLAN[3].to_json()],
        ("plan", "planned"): [w.to_json() for w in PLAN],
        ("plan", "batches"): NUMBERS,
    }
    made = context("open_windows_2", found | {("plan", key): value for key, value in xcoms.items()})
    made["ti"].map_index = -1
    return made


def opener() -> OpenOperator:
    return OpenOperator(task_id="open_windows_2", cluster=NAME, group="windows_2")


def test_an_opener_returns_the_windows_of_its_batch(cluster: str) -> None:
    event = json.loads(json.dumps(GoEvent(key="", why="few wait").to_json()))
    assert opener().resume(of_plan(), event) == [PLAN[1].to_json(), PLAN[4].to_json()]


def test_an_opener_refuses_a_plan_that_was_made_anew_and_a_failed_wait(cluster: str) -> None:
    event = GoEvent(key="", why="few wait").to_json()
    with pytest.raises(AirflowFailException, match="clear plan with everything after it"):
        opener().resume(of_plan(batches=None), event)
    failure = Failure(key="", stage="admit", cause="breaker", reason="2 windows failed")
    with pytest.raises(AirflowFailException, match="breaker: 2 windows failed"):
        opener().resume(of_plan(), FailEvent(failure=failure).to_json())


def test_a_worker_knows_the_windows_of_every_batch_in_the_order_of_the_plan(cluster: str) -> None:
    made = of_plan()
    first, *parts = planned(made)
    assert [place.window for place in first] == PLAN
    assert [(place.group, place.index) for place in first] == [
        ("windows", 0), ("windows_2", 0), ("windows_3", 0), ("windows", 1), ("windows_2", 1), ("windows_3", 1),
    ]  # fmt: skip
    assert parts == [[], []]
    # A call for each group that has windows, and for no other.
    made["ti"].pulls.clear()
    assert results_of(made, first, "verify") == []
    assert made["ti"].pulls == [(f"{one.group}.verify", "return_value") for one in BATCHES[:3]]


def test_a_dry_run_and_a_plan_of_one_batch_have_what_the_plan_returns(cluster: str) -> None:
    assert planned(of_plan(batches=None, return_value=[]))[0] == []
    assert planned(of_plan(batches=None))[0] == [Place("windows", 0, PLAN[0]), Place("windows", 1, PLAN[3])]


def test_a_plan_returns_its_first_batch_and_keeps_the_batches_when_it_is_cleared(
    tmp_path: Path, assets: AssetState, stock: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, windows={"batch_size": 1})
    made = task(mode="cleanup", customers=["acme", "globex"], **JANUARY)
    assert [w["customer_id"] for w in planner().execute(made)] == ["acme"]
    assert made["ti"].xcoms["plan", "batches"] == [0, 1]
    assert len(made["ti"].xcoms["plan", "planned"]) == 2
    # Another size in the file moves no window of a run that has its plan: its openers have listed theirs.
    configure(tmp_path, monkeypatch, windows={"batch_size": 2})
    assert [w["customer_id"] for w in planner().execute(made)] == ["acme"]
    assert made["ti"].xcoms["plan", "batches"] == [0, 1]
    dry = task(mode="cleanup", customers=["acme", "globex"], dry_run=True, **JANUARY)
    configure(tmp_path, monkeypatch, windows={"batch_size": 1})
    assert planner().execute(dry) == []
    assert ("plan", "batches") not in dry["ti"].xcoms


def test_groups_of_one_pass_share_its_queue() -> None:
    assert pass_of("windows_7") is pass_of("windows") is BATCHES
    assert [one.group for one in pass_of("single_days")] == ["single_days"]
    with pytest.raises(LookupError, match="'windows_21' is none of windows, windows_2"):
        pass_of("windows_21")
    assert {one.cut_by for one in BATCHES} == {"replan"}
    assert [groups[0].source for groups in PASSES] == ["plan", "replan", "replan_days"]


def test_what_was_too_big_in_any_batch_is_cut_and_undo_finds_every_window(
    cluster: str, assets: AssetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = of_plan()
    whole = PLAN[4].model_copy(update={"end": PLAN[4].start + timedelta(20)})
    made["ti"].xcoms["plan", "planned"][4] = whole.to_json()
    counted = COUNTED.model_copy(update={"key": whole.key})
    made["ti"].xcoms["windows_2.delete", "return_value"] = {
        1: deleted(key=whole.key, window=whole, counted=counted).to_json()
    }
    failure = Failure(key=whole.key, stage="wait_workflows", cause="heartbeat_timeout", reason="too big")
    made["ti"].xcoms["windows_2.wait_workflows", "return_value"] = {1: failure.to_json()}
    parts = ReplanOperator(task_id="replan", cluster=NAME, group="windows", max_windows=100).execute(made)
    assert {part["part_of"] for part in parts} == {whole.key}

    made["ti"].xcoms["replan", "return_value"] = parts
    monkeypatch.setattr(made["ti"].__class__, "get_dr_count", lambda *_, **__: 0, raising=False)
    params = UndoParams.read({"run_id": "manual__1", "all_customers": True})
    chosen = UndoPlanOperator(task_id="look", cluster=NAME)._chosen(made["ti"], params)
    assert [w.key for w in chosen] == [*(w.key for w in PLAN), *(part["key"] for part in parts)]
