"""A window whose days another run has taken over: a clear deletes nothing of what that run has had written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from airflow.triggers.base import TaskFailedEvent, TaskSuccessEvent

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit.debts import DebtBook
from backfill.kit.store import GENERATION, WindowStore
from backfill.operators import wait_mutations
from backfill.operators.delete import DeleteOperator
from backfill.operators.wait_mutations import WaitMutationsOperator
from backfill.triggers.mutations import MutationsTrigger
from include.scorecard_backfill.debts import Debt, hand_over
from include.scorecard_backfill.records import Failure, ResendEvent
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.mutations import Mutation
from tests.kit.build import debt
from tests.kit.store import AssetState
from tests.kit.waits import (
    BEFORE,
    KEY,
    NAME,
    WINDOW,
    Left,
    assets,
    cluster,
    configure,
    context,
    deferral,
    deleted,
    left,
    only_event,
    placed,
    window,
)

__all__ = ["assets", "cluster", "left"]

HOST = Host("node-1-1", 1)
OTHER = window(key="fedcba9876543210")
WRITTEN = {"clickhouse": {"written_columns": {"scorecard": {"column": "updated_at"}}}}


def owing(*, taken_over: bool) -> DebtBook:
    """The debt of the window is open, or another run has taken it over and has paid it."""
    book = DebtBook(NAME)
    owed = debt(WINDOW, BEFORE)
    book.announce([KEY])
    book.write(owed)
    if taken_over:
        book.hand_over(hand_over([OTHER], "run2", [owed]))
        asyncio.run(book.apay(OTHER.key))
    return book


def mutation() -> Mutation:
    """The window's DELETE, which was killed."""
    command = f"DELETE WHERE 'backfill:{KEY}:1' != ''"
    return Mutation("node-1-1", "acme_voice", "scorecard", "1", command, 1_770_000_000, False, 1, "", True)


@pytest.fixture
def _killed(cluster: str, left: Left, assets: AssetState, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everywhere, and the wait has failed by it."""
    monkeypatch.setattr(BackfillClickHouse, "topology", lambda self: (HOST,))
    monkeypatch.setattr(BackfillClickHouse, "mutations", lambda self: [mutation()])
    left["windows.delete", "return_value"] = deleted()
    left["windows.wait_mutations", "return_value"] = Failure(
        key=KEY, stage="wait_mutations", cause="killed", reason="r", generation=1
    )


def event() -> Any:
    """What the cleared wait ends with."""
    return asyncio.run(only_event(placed(MutationsTrigger(cluster=NAME, group="windows"), "windows.wait_mutations")))


def failure(found: Any) -> Failure:
    """The failure that an event hands over."""
    assert not isinstance(found, (TaskFailedEvent, TaskSuccessEvent))
    return Failure.from_json(found.payload["failure"])


@pytest.mark.usefixtures("_killed")
def test_a_clear_repeats_a_delete_whose_rows_are_still_owed() -> None:
    owing(taken_over=False)
    assert event().payload["kind"] == "resend_event"


@pytest.mark.usefixtures("_killed")
def test_what_another_run_has_had_written_is_not_deleted(left: Left) -> None:
    owing(taken_over=True)
    found = failure(event())
    assert found.cause == "would_delete_new_rows"
    # Cleared once more it says the same.
    left["windows.wait_mutations", "return_value"] = found
    assert failure(event()).cause == "would_delete_new_rows"


@pytest.mark.usefixtures("_killed")
def test_where_old_rows_can_be_told_only_these_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(tmp_path, monkeypatch, **WRITTEN)
    book = owing(taken_over=True)
    assert event().payload["kind"] == "resend_event"

    sent: list[Any] = []

    class Sender:
        """Sends nothing."""

        def __init__(self, *_: Any) -> None:
            pass

        def send(self, _: Any, order: Any) -> tuple[Any, ...]:
            # The debt is there before a statement leaves.
            assert isinstance(book.debt(KEY), Debt)
            sent.append(order)
            return ()

    monkeypatch.setattr(wait_mutations, "DeleteSender", Sender)
    monkeypatch.setattr(wait_mutations, "approval", lambda *_: ("same", ""))
    operator = WaitMutationsOperator(task_id="wait_mutations", cluster=NAME, group="windows")
    operator.__dict__["task_id"] = "windows.wait_mutations"
    deferral(operator.act, context("windows.wait_mutations"), ResendEvent(deleted=deleted(), generation=2))
    assert [(one.generation, one.bound) for one in sent] == [(2, deleted().counted.server_time)]  # type: ignore[union-attr]
    assert book.open().owing == [KEY]


@pytest.mark.parametrize(
    ("generation", "taken_over", "written"), [(0, True, False), (1, True, True), (1, False, False)]
)
def test_a_clear_of_delete_knows_it_too(
    generation: int, taken_over: bool, written: bool, cluster: str, assets: AssetState
) -> None:
    owing(taken_over=taken_over)
    operator = DeleteOperator(task_id="delete", cluster=NAME, window=WINDOW.to_json())
    operator.__dict__["task_id"] = "windows.delete"
    task = context("windows.delete")
    WindowStore(task, WINDOW).set(GENERATION, generation)
    assert operator._facts(task, WINDOW, (BEFORE,), "ok").written is written
