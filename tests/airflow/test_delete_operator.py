"""The delete stage as a whole: what it counts, refuses and copies before it sends, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from backfill.deleting.sweep import Survey, begin, begun
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit.debts import DebtBook
from backfill.kit.stages import StageError
from backfill.kit.store import COUNTED, FAILED, GENERATION, SNAPSHOTS, WindowStore
from backfill.operators import delete as module
from backfill.operators.delete import DeleteOperator
from backfill.snapshots import SnapshotError
from include.scorecard_backfill.debts import Debt
from include.scorecard_backfill.records import Counted, Deleted, FailEvent, Failure, GoEvent, Numbers, Sent, TableDays
from tests.kit.store import AssetState
from tests.kit.waits import BEFORE, KEY, NAME, assets, cluster, configure, context, reindexed, window

__all__ = ["assets", "cluster"]

Json = dict[str, Any]

SENT = (Sent(database="acme_voice", table="scorecard", at=3.0, accepted=("node-1-1",)),)
COUNT = Counted(key=KEY, now=(BEFORE,), before=(BEFORE,), server_time=1_770_000_000.0)
NONE = TableDays(database="acme_voice", table="scorecard", days={"2026-01-05": Numbers(rows=0)})
FEWER = TableDays(database="acme_voice", table="scorecard", days={"2026-01-05": Numbers(rows=3)})
WRITTEN = {"clickhouse": {"written_columns": {"scorecard": {"column": "updated_at"}}}}
SWEPT = window(order="reindex_first")


class Stage:
    """The operator, what it was told, and what it has sent."""

    def __init__(self, of: Any = None) -> None:
        self.window = of or window()
        self.operator = DeleteOperator(task_id="delete", cluster=NAME, window=self.window.to_json())
        self.operator.__dict__["task_id"] = "windows.delete"
        self.context = context("windows.delete")
        self.store = WindowStore(self.context, self.window)
        self.store.set(COUNTED, COUNT.to_json())
        self.orders: list[Any] = []
        self.calls: list[Any] = []
        self.approval = ("same", "")
        self.balance: Any = "ok"
        self.old: tuple[TableDays, ...] = (BEFORE,)

    def run(self) -> Deleted:
        """Run it to its end."""
        return Deleted.from_json(self.operator.execute(self.context))

    def fails(self) -> Failure:
        """The failure that it ends with."""
        with pytest.raises(AirflowFailException):
            self.operator.execute(self.context)
        return Failure.from_json(self.store.get(FAILED))


@pytest.fixture
def made(cluster: str, assets: AssetState, monkeypatch: pytest.MonkeyPatch) -> list[Stage]:
    """The stage that the replaced parts belong to; a test puts it in."""
    stages: list[Stage] = []

    class Sender:
        def __init__(self, operator: Any, name: str, stage: str) -> None:
            assert (operator, name, stage) == (stages[0].operator, NAME, "delete")

        def send(self, task: Any, order: Any) -> Any:
            assert task is stages[0].context
            stages[0].orders.append(order)
            # The debt is there before a statement leaves.
            assert isinstance(DebtBook(NAME).debt(KEY), Debt)
            return SENT

    class Asking:
        def __init__(self, operator: Any, name: str) -> None:
            assert (operator, name) == (stages[0].operator, NAME)

        def __getattr__(self, name: str) -> Any:
            return lambda *args: stages[0].calls.append((name, *args))

    class Copies:
        def __init__(self, hook: Any, hosts: Any) -> None:
            assert hosts == "hosts"

        def take(self, *args: Any) -> tuple[str, ...]:
            stages[0].calls.append(("take", *args))
            return ("acme_voice.copy",)

    def surveyed(hook: Any, of: Any, counted: Any) -> Survey:
        assert isinstance(hook, BackfillClickHouse)
        assert (of, counted) == (stages[0].window, COUNT)
        return Survey(stages[0].old, (), (), stages[0].balance, ("7 rows are not there again",), {})

    monkeypatch.setattr(BackfillClickHouse, "topology", lambda self: "hosts")
    monkeypatch.setattr(module, "DeleteSender", Sender)
    monkeypatch.setattr(module, "SweepApproval", Asking)
    monkeypatch.setattr(module, "Snapshots", Copies)
    monkeypatch.setattr(module, "survey", surveyed)
    monkeypatch.setattr(module, "approval", lambda task, name: stages[0].approval)
    monkeypatch.setattr(module, "approved_digest", lambda task: "d1g" if task is stages[0].context else "")
    return stages


def stage(made: list[Stage], of: Any = None) -> Stage:
    """The stage of a window."""
    made[:] = [Stage(of)]
    return made[0]


def test_what_was_counted_is_deleted_once_and_told_to_the_later_stages(made: list[Stage]) -> None:
    one = stage(made)
    assert one.run() == Deleted(
        key=KEY, window=window(), status="deleted", counted=COUNT, sent=SENT, generation=1, digest="d1g"
    )
    (order,) = one.orders
    assert (order.window, order.rows, order.generation, order.bound, order.drop) == (
        window(), (BEFORE,), 1, None, True,
    )  # fmt: skip
    facts = order.facts
    assert (facts.order, facts.destructive, facts.approval, facts.rows_before) == ("delete_first", True, "same", True)
    assert (facts.written, facts.bounded, facts.balance, facts.others) == (False, False, "ok", "quiet")
    assert (facts.left, facts.generation) == ("", 0)
    assert one.store.get(GENERATION) == 1
    owed = DebtBook(NAME).debt(KEY)
    assert isinstance(owed, Debt)
    assert (owed.swept, owed.before, owed.run_id) == (False, (BEFORE,), "manual__1")


def test_a_mode_that_deletes_nothing_counts_alone(made: list[Stage]) -> None:
    one = stage(made, window(mode="reindex"))
    assert one.run() == Deleted(key=KEY, window=one.window, status="counted", counted=COUNT)
    assert (one.orders, one.calls, DebtBook(NAME).debt(KEY)) == ([], [], None)


def test_where_no_row_is_there_nothing_is_sent_and_nothing_owed(made: list[Stage]) -> None:
    one = stage(made)
    empty = COUNT.model_copy(update={"now": (NONE,)})
    one.store.set(COUNTED, empty.to_json())
    assert one.run() == Deleted(key=KEY, window=window(), status="nothing", counted=empty, digest="d1g")
    assert (one.orders, one.store.get(GENERATION), DebtBook(NAME).debt(KEY)) == ([], None, None)
    # Once a statement may have left, it is looked for, whatever is counted.
    one.store.set(GENERATION, 1)
    assert one.run().status == "deleted"


@pytest.mark.parametrize(("task_id", "of"), [("delete", SWEPT), ("sweep", window())])
def test_of_two_tasks_that_delete_only_that_of_the_windows_order_does_it(
    made: list[Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task_id: str, of: Any
) -> None:
    configure(tmp_path, monkeypatch, orders=["delete_first", "reindex_first"], **WRITTEN)
    one = stage(made, of)
    one.operator.__dict__["task_id"] = f"windows.{task_id}"
    assert one.run() == Deleted(key=KEY, window=of, status="nothing")
    assert (one.orders, one.calls) == ([], [])


def test_another_plan_than_the_approved_one_deletes_nothing(made: list[Stage]) -> None:
    one = stage(made)
    one.approval = ("changed", "max_parallel: 2 is 3")
    failure = one.fails()
    assert (failure.stage, failure.cause, failure.reason) == ("delete", "approval_changed", "max_parallel: 2 is 3")
    assert (failure.key, failure.generation) == (KEY, 0)
    assert failure.what_to_do
    assert (one.orders, DebtBook(NAME).debt(KEY)) == ([], None)


@pytest.fixture
def swept(made: list[Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The stage of a window that was reindexed before it is swept."""
    configure(tmp_path, monkeypatch, orders=["delete_first", "reindex_first"], **WRITTEN)
    one = stage(made, SWEPT)
    one.operator.__dict__["task_id"] = one.context["ti"].task_id = "windows.sweep"
    one.store.set(COUNTED, None)
    record = reindexed(1, "w-1", window=SWEPT, counted=COUNT).to_json()
    one.context["ti"].xcoms["windows.reindex", "return_value"] = {0: record}
    return one


def test_a_sweep_takes_what_was_not_written_again_of_before_the_job(swept: Stage) -> None:
    swept.old = (FEWER,)
    found = swept.run()
    (order,) = swept.orders
    assert (order.rows, order.bound, order.drop) == ((FEWER,), COUNT.server_time, False)
    assert (order.facts.order, order.facts.written, order.facts.bounded) == ("reindex_first", False, True)
    assert (found.status, found.bound, found.counted) == ("deleted", COUNT.server_time, COUNT)
    ((call, task, of, surveyed),) = swept.calls
    assert (call, task, of, surveyed.old) == ("ask", swept.context, SWEPT, (FEWER,))
    assert begun(swept.context, SWEPT) == (FEWER,)
    owed = DebtBook(NAME).debt(KEY)
    assert isinstance(owed, Debt)
    assert owed.swept is True


def test_a_sweep_that_has_begun_goes_on_with_the_rows_that_it_began_with(swept: Stage) -> None:
    begin(swept.context, SWEPT, (BEFORE,))
    swept.old = (FEWER,)
    swept.run()
    assert swept.orders[0].rows == (BEFORE,)
    assert begun(swept.context, SWEPT) == (BEFORE,)


def test_a_sweep_without_old_rows_asks_nobody(swept: Stage) -> None:
    swept.old = (NONE,)
    assert swept.run().status == "nothing"
    assert (swept.calls, swept.orders) == ([], [])


def test_a_sweep_whose_balance_is_wrong_deletes_nothing(swept: Stage) -> None:
    swept.balance = "wrong"
    failure = swept.fails()
    assert (failure.cause, failure.reason) == ("not_rewritten", "nothing was deleted; 7 rows are not there again")
    assert (swept.orders, swept.calls) == ([], [])


@pytest.mark.parametrize("left", [None, reindexed(1, "w-1", window=SWEPT), Failure(
    key=KEY, stage="reindex", cause="job_failed", reason="r")])  # fmt: skip
def test_a_sweep_without_the_count_of_before_the_job_is_refused(swept: Stage, left: Any) -> None:
    swept.context["ti"].xcoms["windows.reindex", "return_value"] = {0: left.to_json() if left else None}
    with pytest.raises(StageError, match="the reindex stage has left no count before: clear it, and this with it"):
        swept.run()


def failed(**fields: Any) -> Failure:
    """How an earlier try has ended for good."""
    base = Failure(key=KEY, stage="delete", cause="killed", reason="r", generation=1)
    return base.model_copy(update=fields)


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        (failed(), "delete"),
        (failed(cause="would_delete_new_rows"), "never"),
        # About a generation that is not the newest any more: it says nothing.
        (failed(generation=2), ""),
        (None, ""),
    ],
)
def test_a_clear_is_told_from_a_repetition_by_the_failure_that_was_kept(
    made: list[Stage], kept: Failure | None, left: str
) -> None:
    one = stage(made)
    DebtBook(NAME).announce([KEY])
    one.store.set(GENERATION, 1)
    if kept:
        one.store.set(FAILED, kept.to_json())
    one.run()
    (order,) = one.orders
    assert (order.facts.left, order.facts.generation, order.generation, order.drop) == (left, 1, 1, True)
    one.store.set(GENERATION, 2)
    one.run()
    assert (one.orders[1].generation, one.orders[1].drop) == (2, False)


def test_rows_that_an_attempt_may_have_written_are_not_taken_where_old_ones_can_be_told(
    made: list[Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stage(made)
    one.context["ti"].xcoms["windows.reindex", "return_value"] = {0: reindexed(1).to_json()}
    assert (one.run().bound, one.orders[0].facts.written, one.orders[0].facts.bounded) == (None, True, False)
    configure(tmp_path, monkeypatch, **WRITTEN)
    assert (one.run().bound, one.orders[1].facts.bounded) == (COUNT.server_time, True)


def test_the_rows_are_copied_once_before_the_first_delete(
    made: list[Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, snapshot={"enabled": True, "keep_days": 9})
    one = stage(made)
    other = TableDays(database="acme_voice", table="score", days=NONE.days)
    one.store.set(COUNTED, COUNT.model_copy(update={"now": (BEFORE, other)}).to_json())
    assert one.run().snapshots == ("acme_voice.copy",)
    assert one.calls == [("take", window(), [("acme_voice", "scorecard")], 9)]
    assert one.store.get(SNAPSHOTS) == ["acme_voice.copy"]
    # Later the rows are gone.
    one.store.set(SNAPSHOTS, ["acme_voice.first"])
    assert one.run().snapshots == ("acme_voice.first",)
    assert len(one.calls) == 1


def test_a_copy_that_is_not_whole_sends_nothing(
    made: list[Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise SnapshotError("1 of 2 hosts have it")

    configure(tmp_path, monkeypatch, snapshot={"enabled": True})
    one = stage(made)
    monkeypatch.setattr(module, "Snapshots", lambda hook, hosts: SimpleNamespace(take=refuse))
    with pytest.raises(StageError, match="1 of 2 hosts have it"):
        one.run()
    assert (one.orders, one.store.get(SNAPSHOTS), DebtBook(NAME).debt(KEY)) == ([], None, None)


def test_without_copies_none_is_taken(made: list[Stage]) -> None:
    one = stage(made)
    assert (one.run().snapshots, one.calls) == ((), [])


def test_a_worker_that_is_woken_goes_on_and_a_failed_wait_ends_the_stage(
    made: list[Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stage(made)
    event = GoEvent(key=KEY, why="the next step may be sent").to_json()
    assert Deleted.from_json(one.operator.resume(one.context, event=event)).status == "deleted"

    stood: list[Any] = []

    def stood_still(task: Any, hook: Any, log: Any, failure: Failure) -> Failure:
        assert isinstance(hook, BackfillClickHouse)
        stood.append((task, log, failure))
        return failure.model_copy(update={"reason": "killed by this run"})

    monkeypatch.setattr(module, "stood_still", stood_still)
    stalled = failed(cause="stalled")
    with pytest.raises(AirflowFailException, match="killed by this run"):
        one.operator.resume(one.context, event=FailEvent(failure=stalled).to_json())
    assert stood == [(one.context, one.operator.log, stalled)]


@pytest.mark.parametrize(("method", "call"), [("answered", "take"), ("looked_back", "looked_back")])
def test_what_a_person_has_said_is_taken_before_it_goes_on(made: list[Stage], method: str, call: str) -> None:
    one = stage(made)
    found = Deleted.from_json(getattr(one.operator, method)(one.context, {"chosen_options": ["Approve"]}))
    assert (found.status, one.calls) == ("deleted", [(call, one.context, {"chosen_options": ["Approve"]})])


def test_a_count_that_nobody_has_made_yet_is_made(made: list[Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    one = stage(made)
    asked: list[Any] = []

    def counted(task: Any, of: Any, hook: Any, log: Any) -> Counted:
        asked.append((task, of, log))
        assert isinstance(hook, BackfillClickHouse)
        return COUNT

    monkeypatch.setattr(module, "counted_once", counted)
    assert one.run().counted == COUNT
    assert asked == [(one.context, window(), one.operator.log)]
