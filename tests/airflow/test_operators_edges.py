"""Operators at their edges: how an error is told, what a resend goes on with, what a plan and a report show."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from clickhouse_connect.driver.exceptions import DatabaseError
from kubernetes_asyncio.config import ConfigException
from temporalio.service import RPCError, RPCStatusCode

from backfill.hooks.clickhouse import NativePortError, PinnedSettingError, TopologyError
from backfill.hooks.kubernetes import KubeCallError
from backfill.hooks.temporal import RefusedError
from backfill.kit import xcoms
from backfill.operators import wait_mutations
from backfill.operators.plan import PlanOperator, asked_by
from backfill.operators.preflight import guarded
from backfill.operators.wait_mutations import WaitMutationsOperator
from backfill.settings import cluster_config
from include.scorecard_backfill.job import JobError
from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.planning.frozen import FrozenPlan
from include.scorecard_backfill.planning.terms import digest
from include.scorecard_backfill.records import Counted, GoEvent, ResendEvent
from tests.kit.store import AssetState
from tests.kit.waits import (
    KEY,
    NAME,
    TaskInstance,
    assets,
    cluster,
    context,
    deferral,
    deleted,
    window,
)

__all__ = ["assets", "cluster"]

Json = dict[str, Any]

CONN = f"connection 'clickhouse_{NAME}'"
NAMES_ITSELF = [NativePortError, PinnedSettingError, TopologyError, JobError, RefusedError]
NAMED = [
    DatabaseError("code 60"), RPCError("away", RPCStatusCode.UNAVAILABLE, b""), OSError("no route"), ValueError("bad"),
    AirflowException("no"), ConfigException("no context"),
]  # fmt: skip


def guard(error: BaseException) -> list[str]:
    """The problems of a check of ClickHouse that has found one and then raises this."""

    def clickhouse(config: Any, problems: list[str], notes: list[str]) -> None:
        problems.append("found before")
        notes.append("a note")
        raise error

    problems: list[str] = []
    notes: list[str] = []
    guarded(clickhouse, cluster_config(NAME), problems, notes)
    assert notes == ["a note"]
    first, *rest = problems
    assert first == "found before"
    return rest


@pytest.mark.parametrize("kind", NAMES_ITSELF)
def test_an_error_that_says_what_is_wrong_is_told_as_it_is(cluster: str, kind: Any) -> None:
    assert guard(kind("this is wrong")) == ["clickhouse: this is wrong"]


@pytest.mark.parametrize("error", NAMED, ids=lambda error: type(error).__name__)
def test_an_error_of_a_client_is_told_with_its_connection_and_kind(cluster: str, error: Exception) -> None:
    assert guard(error) == [f"clickhouse: {CONN}: {type(error).__name__}: {error}"]


@pytest.mark.parametrize(("status", "shown"), [(503, "503"), (404, "404"), (None, "")])
def test_an_error_of_the_kubernetes_api_is_told_with_its_status(cluster: str, status: int | None, shown: str) -> None:
    error = KubeCallError("cannot list jobs", status, "Reason", "detail")
    assert guard(error) == [f"clickhouse: {CONN}: {shown} KubeCallError: cannot list jobs"]


def test_an_error_of_ours_is_not_told_as_one_of_a_connection(cluster: str) -> None:
    with pytest.raises(KeyError):
        guard(KeyError("x"))


async def test_a_trigger_pulls_from_its_own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Json] = []

    async def get(**fields: Any) -> Any:
        asked.append(fields)
        return {"max_parallel": 3} if fields["key"] == "run" else None

    monkeypatch.setattr(BaseXCom, "aget_one", get)
    ti = TaskInstance("windows.verify", map_index=4)
    assert (await xcoms.achosen(ti)).max_parallel == 3
    assert await xcoms.arecord(ti, "windows.delete") is None
    run = {"dag_id": ti.dag_id, "run_id": "manual__1"}
    assert asked == [
        {"key": "run", "task_id": "plan", "map_index": -1, **run},
        {"key": "return_value", "task_id": "windows.delete", "map_index": 4, **run},
    ]


@pytest.mark.parametrize(
    ("run", "who"),
    [
        (SimpleNamespace(), ""),
        (SimpleNamespace(triggering_user_name=None), ""),
        (SimpleNamespace(triggering_user_name="jane"), "jane"),
    ],
)
def test_who_has_asked_for_a_run_is_told_where_airflow_knows_it(run: Any, who: str) -> None:
    assert asked_by({"dag_run": run}) == who


def test_a_plan_shows_its_terms_its_statements_and_its_notes(cluster: str) -> None:
    terms = {"mode": "cleanup", "windows": "0123"}
    run = {"mode": "cleanup", "order": "delete_first", "max_parallel": 3, "sources": {}, "destructive": True}
    frozen = FrozenPlan(windows=[window()], run=run, terms=terms, notes=["a note for people"], batches=())
    task = context("plan")
    task["dag_run"].triggering_user_name = "jane"
    PlanOperator(task_id="plan", cluster=NAME, max_windows=9)._show(task, cluster_config(NAME), frozen)
    left = task["ti"].xcoms
    text = left["plan", "markdown"]
    for shown in ("a note for people", digest(terms), "jane", "ALTER TABLE", window().label.split()[0]):
        assert shown in text, shown
    assert left["plan", "notes"] == ["a note for people"]
    assert left["plan", "terms"] == terms
    assert left["plan", "customers"] == ["acme"]
    assert left["plan", "planned"] == [window().to_json()]
    assert Chosen.read(left["plan", "run"]).max_parallel == 3


@pytest.fixture
def orders(cluster: str, assets: AssetState, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What wait_mutations has sent again."""
    found: list[Any] = []

    class Sender:
        def __init__(self, operator: Any, name: str, stage: str) -> None:
            assert (name, stage) == (NAME, "wait_mutations")

        def send(self, task: Any, order: Any) -> Any:
            found.append(order)
            return deleted().sent

    monkeypatch.setattr(wait_mutations, "DeleteSender", Sender)
    monkeypatch.setattr(wait_mutations, "approval", lambda *_: ("same", ""))
    return found


def resend(task: Json, event: Any) -> Json:
    """What the wait is told after the DELETE was sent again."""
    operator = WaitMutationsOperator(task_id="wait_mutations", cluster=NAME, group="windows")
    operator.__dict__["task_id"] = "windows.wait_mutations"
    found = deferral(operator.resume, task, event=event.to_json())
    assert found.method_name == "resume"
    given: Json = found.trigger.given
    assert (given["cluster"], given["group"]) == (NAME, "windows")
    return given["deleted"]  # type: ignore[no-any-return]


def test_a_delete_is_sent_again_under_the_next_generation_and_gone_on_with(orders: list[Any]) -> None:
    task = context("windows.wait_mutations")
    given = resend(task, ResendEvent(deleted=deleted(), generation=2))
    assert (given["generation"], len(given["sent"])) == (2, 1)
    # Woken again on the way, it goes on with what it was sending.
    assert resend(task, GoEvent(key=KEY, why="the next step may be sent"))["generation"] == 2
    assert [(order.window, order.generation, order.drop, order.bound) for order in orders] == [
        (window(), 2, False, None)
    ] * 2
    assert [order.resent for order in orders] == [deleted(generation=2, sent=())] * 2
    assert {order.facts.balance for order in orders} == {"ok"}
    with pytest.raises(AirflowFailException, match="no DELETE of window another is being sent again"):
        resend(task, GoEvent(key="another", why="the next step may be sent"))


def test_a_resend_takes_only_what_was_there_at_the_bound_of_the_first_one(orders: list[Any]) -> None:
    task = context("windows.wait_mutations")
    counted = Counted(key=KEY, now=(), before=(), server_time=7.0)
    assert resend(task, ResendEvent(deleted=deleted(bound=5.0, counted=counted), generation=2))["bound"] == 5.0
    assert (orders[0].bound, orders[0].facts.bounded, orders[0].rows) == (5.0, True, ())
