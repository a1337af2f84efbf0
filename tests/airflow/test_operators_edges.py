"""Operators at their edges: how an error is told, what a resend goes on with, what a plan and a report show."""

from __future__ import annotations

from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from clickhouse_connect.driver.exceptions import DatabaseError
from kubernetes_asyncio.config import ConfigException
from temporalio.service import RPCError, RPCStatusCode

from backfill.hooks import internal_jobs
from backfill.hooks.clickhouse import NativePortError, PinnedSettingError, TopologyError
from backfill.hooks.kubernetes import KubeCallError
from backfill.hooks.temporal import RefusedError
from backfill.kit import answers, xcoms
from backfill.kit.store import FAILED, WindowStore
from backfill.operators import undo, wait_mutations
from backfill.operators.plan import PlanOperator, asked_by, splitter
from backfill.operators.preflight import guarded
from backfill.operators.undo import UndoOperator, UndoPlanOperator
from backfill.operators.wait_mutations import WaitMutationsOperator
from backfill.reindexing.gate import Ask, Eyes, may_make_job
from backfill.settings import cluster_config
from backfill.slots import Place, works
from backfill.triggers.admit import AdmitTrigger
from include.scorecard_backfill import names
from include.scorecard_backfill.job import JobError, cluster_selector
from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.planning import learned
from include.scorecard_backfill.planning.frozen import FrozenPlan
from include.scorecard_backfill.planning.terms import digest
from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.putback import PutBackError
from include.scorecard_backfill.records import Counted, FailEvent, Failure, GoEvent, MissingRows, ResendEvent
from include.scorecard_backfill.verdicts.admission import Work
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
    placed,
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
    return given["deleted"]


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


def test_a_wait_that_failed_on_the_way_keeps_what_it_was_sending_again(
    orders: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = context("windows.wait_mutations")
    resend(task, ResendEvent(deleted=deleted(), generation=2))
    monkeypatch.setattr(wait_mutations, "stood_still", lambda task, hook, log, failure: failure)
    failed = Failure(key=KEY, stage="delete", cause="killed", reason="r", generation=2)
    operator = WaitMutationsOperator(task_id="wait_mutations", cluster=NAME, group="windows")
    with pytest.raises(AirflowFailException, match="killed: r"):
        operator.resume(task, event=FailEvent(failure=failed).to_json())
    kept = Failure.from_json(WindowStore(task, window()).get(FAILED))
    # The next clear goes on with that one, not with the DELETE before it.
    assert kept.deleted == deleted(generation=2, sent=())


def test_windows_that_are_smaller_than_asked_for_are_noted(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def target_of(*args: Any) -> Any:
        asked.append(args)
        return (1_500, "it had a deadlock") if args[0] == "known of acme" else (4_000, "")

    monkeypatch.setattr(learned, "target_of", target_of)
    notes: list[str] = []
    known: Any = {"acme": "known of acme"}
    config = cluster_config(NAME)
    split = splitter(config, "auto", known, notes)
    days = DateRange(date(2026, 1, 1), date(2026, 1, 3))
    for customer in ("acme", "globex"):
        assert list(split(customer, days, {})) == [days]
    assert notes == ["acme: windows of at most 1,500 conversations, because it had a deadlock"]
    limits = config.windows.target_conversations, config.windows.window_minutes
    assert asked == [("known of acme", *limits), (None, *limits)]
    # Who asks for windows of a length gets them.
    assert list(splitter(config, "1d", known, notes)("acme", days, {})) == [
        DateRange(date(2026, 1, day), date(2026, 1, day + 1)) for day in (1, 2)
    ]
    assert len(notes) == 1


def test_an_undo_after_which_rows_are_missing_is_red(
    cluster: str, assets: AssetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = MissingRows(database="acme_voice", table="scorecard", count=2, meant=5, ids=("a",))
    snapshots = Mock(existing=Mock(return_value={"a copy"}), missing=Mock(return_value=(lost,)))
    monkeypatch.setattr(undo, "refuse_beside_a_run", lambda *_: None)
    monkeypatch.setattr(undo, "BackfillClickHouse", Mock())
    monkeypatch.setattr(undo, "Snapshots", lambda *_: snapshots)
    task = context("restore", {("look", "return_value"): [window().to_json()]})
    with pytest.raises(AirflowFailException) as red:
        UndoOperator(task_id="restore", cluster=NAME).execute(task)
    assert str(red.value) == f"rows are still missing: {window().label}: acme_voice.scorecard: 2"
    snapshots.restore.assert_called_once_with(window(), {"a copy"}, meant=False)


def test_an_undo_says_which_window_cannot_be_put_back(
    cluster: str, assets: AssetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = Mock(restore=Mock(side_effect=PutBackError("a host is away")))
    monkeypatch.setattr(undo, "refuse_beside_a_run", lambda *_: None)
    monkeypatch.setattr(undo, "BackfillClickHouse", Mock())
    monkeypatch.setattr(undo, "Snapshots", lambda *_: snapshots)
    with pytest.raises(AirflowFailException) as red:
        UndoOperator(task_id="restore", cluster=NAME).execute(
            context("restore", {("look", "return_value"): [window().to_json()]})
        )
    assert str(red.value) == f"{window().label} is not put back: a host is away"


def test_an_undo_of_a_run_without_a_plan_says_so(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo, "refuse_beside_a_run", lambda *_: None)
    params = {"run_id": " r-1 ", "customers": ["acme"], "all_customers": False}
    with pytest.raises(AirflowFailException) as red:
        UndoPlanOperator(task_id="look", cluster=NAME).execute(context("look", params=params))
    assert str(red.value) == f"run_id: 'r-1' of scorecard_backfill__{NAME} has no plan; nothing was changed"


def test_an_answer_counts_once_airflow_has_received_it() -> None:
    jane = SimpleNamespace(id=7, name="jane")
    at = datetime(2026, 3, 2, tzinfo=UTC)
    found = SimpleNamespace(chosen_options=["Approve"], response_received=True, responded_by_user=jane, responded_at=at)
    assert answers._event_of(found) == {
        "chosen_options": ["Approve"], "params_input": {}, "responded_at": at,
        "responded_by_user": {"id": "7", "name": "jane"},
    }  # fmt: skip
    without: tuple[Json, ...] = ({"response_received": False}, {"chosen_options": []}, {"chosen_options": None})
    for lacking in without:
        assert answers._event_of(SimpleNamespace(**vars(found) | lacking)) == {}
    assert answers._event_of(None) == {}


def running_job(name: str, key: str, customer: str = "acme", condition: str = "") -> Json:
    """A Job of a window."""
    labels = {names.LABEL_WINDOW: key, names.LABEL_CUSTOMER: names.label_value(customer)}
    conditions = [{"type": condition, "status": "True"}] if condition else []
    return {"metadata": {"name": name, "labels": labels}, "status": {"conditions": conditions}}


WORKFLOW = "reindexconversations-acme-voice-00000000-0000-0000-0000-000000000001"


@pytest.mark.parametrize(
    ("states", "jobs", "open_ids", "works_now", "is_busy"),
    [
        ({}, [], [], False, False),
        ({}, [running_job("j", KEY)], [], True, False),
        ({}, [running_job("j", KEY, condition="Complete")], [], False, False),
        ({}, [running_job("j", "another")], [], False, False),
        ({"windows.reindex_3": "queued"}, [], [WORKFLOW], False, True),
        ({"windows.wait_workflows_3": "deferred"}, [], [WORKFLOW], True, False),
        ({"windows.verify_3": "deferred"}, [], [], False, True),
        ({"windows.verify_3": "success"}, [], [WORKFLOW], False, False),
        ({"windows.wait_workflows_2": "deferred"}, [], [WORKFLOW], False, False),
    ],
)
def test_a_window_works_by_what_the_servers_show(
    cluster: str, states: Json, jobs: list[Json], open_ids: list[str], works_now: bool, is_busy: bool
) -> None:
    place = Place("windows", 3, window())
    assert works([place], states, jobs, open_ids, cluster_config(NAME)) == [Work(window().label, works_now, is_busy)]


async def test_a_job_waits_for_those_of_another_plan_and_only_the_clusters_own_count(cluster: str) -> None:
    selectors: list[str] = []

    class Jobs:
        async def jobs(self, selector: str = "") -> list[Json]:
            selectors.append(selector)
            return [running_job(f"old-{n}", f"another {n}") for n in range(5)]

    async def nothing() -> Any:
        return None

    places = [Place("windows", 0, window())]
    eyes = Eyes(Jobs(), nothing, nothing, nothing, nothing)  # type: ignore[arg-type]
    verdict = await may_make_job(cluster_config(NAME), eyes, Ask(window(), places, Chosen.read({"max_parallel": 4})))
    assert (verdict.state, verdict.text) == (
        "wait", "Jobs of another plan of acme are running: old-0, old-1, old-2",
    )  # fmt: skip
    # The CronJob's own Jobs have no label of ours; ours have the cluster's.
    assert selectors == ["", cluster_selector(NAME)]


async def test_a_run_without_states_has_none(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_: list[Any] = [{}, {"manual__1": {"windows.admit_0": "success"}, "another": {}}]
    monkeypatch.setattr(
        RuntimeTaskInstance, "get_task_states", staticmethod(lambda **asked: answers_.pop(0))
    )  # fmt: skip
    trigger: Any = placed(AdmitTrigger(cluster=NAME, group="windows"), "windows.admit")
    trigger.args, trigger.config = trigger.model.model_validate(trigger.given), cluster_config(NAME)
    assert await trigger._load_states() == {}
    assert await trigger._load_states() == {"windows.admit_0": "success"}


@pytest.mark.parametrize("lacking", ["host", "port"])
def test_a_second_opinion_needs_an_address(lacking: str) -> None:
    given: Json = {"conn_id": "jobs", "host": "jobs.acme", "port": 443, "password": "t", "extra_dejson": {"tls": True}}
    assert internal_jobs.address_of(SimpleNamespace(**given)).target == "jobs.acme:443"
    with pytest.raises(internal_jobs.InternalJobsError) as error:
        internal_jobs.address_of(SimpleNamespace(**given | {lacking: None}))
    assert str(error.value) == "connection 'jobs' needs a host and a port of the InternalJobService"
