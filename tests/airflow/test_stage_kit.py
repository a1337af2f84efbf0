"""Small parts that every stage rests on: reading what others left, the count before, who ended a task, an undo."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from backfill import taken
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit import counting, promises, xcoms
from backfill.kit.counting import counted_once
from backfill.kit.debts import DebtBook
from backfill.kit.stages import StageError
from backfill.kit.store import COUNTED, FAILED, RunStore, WindowStore
from backfill.operators import undo, wait_mutations
from backfill.operators.admit import AdmitOperator
from backfill.operators.open import OpenOperator
from backfill.operators.undo import UndoPlanOperator
from backfill.operators.wait_mutations import WaitMutationsOperator
from backfill.settings import cluster_config
from include.scorecard_backfill.params.undo import UndoParams
from include.scorecard_backfill.planning.terms import digest, terms_of, windows_digest
from include.scorecard_backfill.records import Counted, Failure, JobEvent, MissingRows, Numbers, ResendEvent, TableDays
from include.scorecard_backfill.verdicts.census import Census, TableCensus, Tally
from tests.kit.store import AssetState
from tests.kit.waits import COUNTED as COUNT
from tests.kit.waits import (
    KEY,
    NAME,
    VERIFIED,
    TaskInstance,
    assets,
    cluster,
    configure,
    context,
    deleted,
    window,
)

__all__ = ["assets", "cluster"]

Json = dict[str, Any]


@dataclass
class Asked(TaskInstance):
    """Keeps which indexes are asked for: without them Airflow answers for all map indexes."""

    indexes: list[Any] = field(default_factory=list)

    def xcom_pull(self, task_ids: str, key: str = "return_value", map_indexes: Any = "all", **more: Any) -> Any:
        """Pull."""
        self.indexes.append(map_indexes)
        return super().xcom_pull(task_ids, key, map_indexes, **more)


def test_what_is_pulled_names_its_index() -> None:
    left: Any = {
        ("plan", "refused"): "no", ("plan", "run"): {"max_parallel": 3},
        ("windows.verify", "return_value"): {0: None, 2: VERIFIED.to_json()},
    }  # fmt: skip
    ti = Asked("windows.delete", left, map_index=2)
    assert (xcoms.text(ti, "plan", "refused"), xcoms.text(ti, "plan", "notes")) == ("no", "")
    assert xcoms.pull(ti, "plan", "run") == {"max_parallel": 3}
    assert xcoms.record(ti, "windows.verify") == VERIFIED
    found = xcoms.chosen(ti)
    assert found is not None
    assert found.max_parallel == 3
    assert ti.indexes == [-1, -1, -1, 2, -1]


@pytest.mark.parametrize("operator", [
    AdmitOperator(task_id="admit", cluster="demo", group="windows"),
    OpenOperator(task_id="open_2", cluster="demo", group="windows_2"),
])  # fmt: skip
def test_a_wait_that_can_do_nothing_refuses_what_it_is_asked_to_do(operator: Any) -> None:
    event = JobEvent(key=KEY, job_name="j", attempt=1, made_at=1.0, outcome="complete")
    with pytest.raises(AirflowFailException) as refused:
        operator.resume(context(operator.task_id), event=event.to_json())
    assert str(refused.value) == f"{operator.task_id}: an event of kind 'job_event' is not known here"


DAY = "2026-01-05"


def census(rows: int, unsettled: str = "") -> Census:
    """A count of the window's one table."""
    tally = Tally(rows, rows // 2, rows, 3, 9, (1, 2))
    return Census(unsettled, {("acme_voice", "scorecard"): TableCensus({DAY: tally}, tally)})


class Hook:
    """Answers counts one after the other; the last one stays."""

    def __init__(self, *counts: Census, spooled: tuple[list[str], ...] = ()) -> None:
        self.counts = list(counts)
        self.spooled = list(spooled)
        self.asked = 0

    def server_time(self) -> Any:
        """Return the servers' time."""
        return counting_time

    def topology(self) -> str:
        """Return the hosts."""
        return "hosts"

    def drain_spool(self, of: Any, hosts: str) -> list[str]:
        """Return what waits."""
        assert (of.key, hosts) == (KEY, "hosts")
        return self.spooled.pop(0) if self.spooled else []

    def census(self, parts: Any, hosts: str) -> Census:
        """Count."""
        assert (parts, hosts) == (list(window().slices()), "hosts")
        self.asked += 1
        return self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]


class _Time:
    def timestamp(self) -> float:
        return 1_770_000_000.0


counting_time = _Time()


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Count before, without pauses."""
    monkeypatch.setattr(counting, "SETTLE_SECONDS", 0)

    def run(hook: Hook, task: Json) -> Counted:
        return counted_once(task, window(), hook, logging.getLogger(__name__))  # type: ignore[arg-type]

    return run


def test_the_count_before_is_made_once_when_replicas_agree(count: Any) -> None:
    hook = Hook(census(5, "two replicas differ"), census(7), spooled=(["node-1-1 has 3 files"],))
    task = context("windows.delete")
    numbers = Numbers(rows=7, conversations=3, ids=7, meant=3, fingerprint=9, buckets=(1, 2))
    table = TableDays(database="acme_voice", table="scorecard", days={DAY: numbers})
    found = count(hook, task)
    assert found == Counted(key=KEY, now=(table,), before=(table,), server_time=1_770_000_000.0)
    # While rows were on their way nothing was counted.
    assert hook.asked == 2
    assert Counted.from_json(WindowStore(task, window()).get(COUNTED)) == found
    assert count(Hook(census(1)), task) == found


def test_replicas_that_do_not_agree_delete_nothing(count: Any) -> None:
    hook, task = Hook(census(5, "two replicas differ")), context("windows.delete")
    with pytest.raises(StageError) as error:
        count(hook, task)
    assert str(error.value) == (
        f"{window().label}: two replicas differ; the count before is not known, nothing was deleted"
    )
    assert hook.asked == counting.SETTLE_TRIES
    assert WindowStore(task, window()).get(COUNTED) is None


def test_what_is_held_back_to_the_end_is_named_place_by_place(count: Any) -> None:
    hook = Hook(census(1), spooled=(["one has 3 files", "two has 4"],) * counting.SETTLE_TRIES)
    with pytest.raises(StageError, match=r": one has 3 files; two has 4; the count before is not known"):
        count(hook, context("windows.delete"))
    assert (hook.asked, hook.spooled) == (0, [])


@pytest.mark.parametrize("state", ["failed", "success", "skipped", "running", "deferred", None])
@pytest.mark.parametrize("map_index", [-1, 3])
def test_a_person_has_ended_a_try_whose_state_says_so(
    monkeypatch: pytest.MonkeyPatch, state: str | None, map_index: int
) -> None:
    asked: list[Json] = []
    name = "windows.reindex" if map_index < 0 else "windows.reindex_3"

    def states(**fields: Any) -> Any:
        asked.append(fields)
        return {"manual__1": {name: state, "windows.reindex_4": "failed"}, "another": {name: "failed"}}

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(states))
    ti = TaskInstance("windows.reindex", map_index=map_index)
    log = logging.getLogger(__name__)
    ended = state in ("failed", "success", "skipped")
    assert taken.person_ended_worker_task(ti, log) is ended
    assert asyncio.run(taken.person_ended_deferred_task(ti, log)) is ended
    assert asked == [{"dag_id": ti.dag_id, "task_ids": ["windows.reindex"], "run_ids": ["manual__1"]}] * 2


def test_where_airflow_does_not_answer_nobody_has_ended_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def states(**_: Any) -> Any:
        raise ConnectionError("away")

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(states))
    ti, log = TaskInstance("windows.reindex"), logging.getLogger(__name__)
    caplog.set_level("INFO")
    assert taken.person_ended_worker_task(ti, log) is False
    assert asyncio.run(taken.person_ended_deferred_task(ti, log)) is False
    assert asyncio.run(taken.person_ended_deferred_task(None, log)) is False
    assert "asking for the task's state: ConnectionError: away" in caplog.text
    assert "the task's state is not known (ConnectionError): its Job is left alone" in caplog.text


def missing(table: str, count: int, meant: int) -> MissingRows:
    """Rows of a copy that are not there any more."""
    return MissingRows(database="acme_voice", table=table, count=count, meant=meant, ids=())


@pytest.mark.parametrize(
    ("meant", "rows"),
    [
        (False, ["1,200 | 30", "0 | 5", "**0** | **5**", "**1,200** | **30**"]),
        (True, ["1,230 | 0", "5 | 0", "**5** | **0**", "**1,230** | **0**"]),
    ],
)
def test_an_undo_shows_what_would_be_put_back_and_what_stays_away(
    cluster: str, monkeypatch: pytest.MonkeyPatch, meant: bool, rows: list[str]
) -> None:
    found = (missing("scorecard", 1_200, 30), missing("score", 0, 5))

    class Copies:
        def __init__(self, hook: Any, hosts: Any) -> None:
            assert hosts == "hosts"

        def existing(self) -> set[str]:
            return {"a copy"}

        def refusals(self, of: Any, snapshots: Any) -> list[str]:
            return []

        def missing(self, of: Any, snapshots: Any) -> Any:
            assert snapshots == {"a copy"}
            return found if of.key == KEY else (missing("score", 0, 0),)

    other = window(key="another", customer_id="globex")
    monkeypatch.setattr(undo, "Snapshots", Copies)
    monkeypatch.setattr(BackfillClickHouse, "topology", lambda self: "hosts")
    task = context("look", params=UndoParams(run_id="r", customers=("acme",), all_customers=False, meant=meant))
    monkeypatch.setattr(UndoParams, "read", classmethod(lambda cls, given: given))
    monkeypatch.setattr(UndoPlanOperator, "_chosen", lambda self, ti, params: [window(), other])
    assert UndoPlanOperator(task_id="look", cluster=NAME).execute(task) == [window().to_json()]
    lines = task["ti"].xcoms["look", "markdown"].splitlines()
    assert lines[2:] == [
        f"| {window().label} | acme_voice.scorecard | {rows[0]} |",
        f"| {window().label} | acme_voice.score | {rows[1]} |",
        f"| {other.label} | acme_voice.score | 0 | 0 |",
        f"| **all** | score | {rows[2]} |",
        f"| **all** | scorecard | {rows[3]} |",
    ]


def test_a_delete_is_not_sent_again_on_other_terms(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_mutations, "approval", lambda *_: ("changed", "max_parallel: 2 is 3"))
    operator = WaitMutationsOperator(task_id="wait_mutations", cluster=NAME, group="windows")
    task = context("windows.wait_mutations")
    event = ResendEvent(deleted=deleted(), generation=4).to_json()
    with pytest.raises(AirflowFailException, match="approval_changed: max_parallel: 2 is 3"):
        operator.resume(task, event=event)
    kept = Failure.from_json(WindowStore(task, window()).get(FAILED))
    # About the generation before: that of this event was never sent.
    assert (kept.key, kept.stage, kept.cause, kept.generation) == (KEY, "wait_mutations", "approval_changed", 3)
    assert kept.what_to_do


def approved(config: Any, **fields: Any) -> Json:
    """The terms of a plan of this one window."""
    base: Json = {"mode": "cleanup", "order": "delete_first", "windows": windows_digest([window()]), "max_parallel": 2}
    return dict(terms_of(config, **base | fields))


def test_what_was_approved_is_compared_with_what_would_be_done_now(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = approved(cluster_config(NAME))
    task = context("windows.delete", {("plan", "terms"): terms, ("approve", "terms"): terms})
    assert promises.approval(task, NAME) == ("same", "")
    assert promises.approved_digest(task) == digest(terms)
    task["ti"].xcoms["approve", "terms"] = approved(cluster_config(NAME), max_parallel=3)
    state, differs = promises.approval(task, NAME)
    assert (state, differs) == ("changed", "windows at once: approved was '3', now it is '2'")
    task["ti"].xcoms["approve", "terms"] = terms
    # The cluster's file as it is now, not as it was when the plan was made.
    configure(tmp_path, monkeypatch, clickhouse={"cluster": "another"})
    assert promises.approval(task, NAME)[0] == "changed"


@pytest.mark.parametrize("lacking", ["plan", "approve"])
def test_without_terms_of_an_approval_nothing_is_approved(cluster: str, lacking: str) -> None:
    terms = approved(cluster_config(NAME))
    task = context("windows.delete", {(name, "terms"): terms for name in {"plan", "approve"} - {lacking}})
    assert promises.approval(task, NAME) == (
        "changed", "no terms of an approval are there: clear plan, with everything behind it",
    )  # fmt: skip
    assert promises.approved_digest(task) == ("" if lacking == "approve" else digest(terms))


@pytest.mark.parametrize("swept", [None, True])
def test_a_window_owes_what_it_deletes_from_before_its_first_delete_on(
    cluster: str, assets: AssetState, monkeypatch: pytest.MonkeyPatch, swept: bool | None
) -> None:
    book, terms = DebtBook(NAME), approved(cluster_config(NAME))
    task = context("windows.delete", {("approve", "terms"): terms})
    promises.promise(task, window(), COUNT, **{} if swept is None else {"swept": swept})
    (owed,) = book.open().readable
    assert (owed.window, owed.cluster, owed.customer_id, owed.databases) == (KEY, NAME, "acme", window().databases)
    assert (owed.start, owed.end, owed.before, owed.order) == (
        window().start, window().end, COUNT.before, "delete_first",
    )  # fmt: skip
    assert (owed.run_id, owed.digest, owed.swept) == ("manual__1", digest(terms), bool(swept))
    assert owed.since.utcoffset() == timedelta(0)
    # One that it has taken over keeps its first run and its time; so does a repetition.
    book.write(owed.model_copy(update={"run_id": "an earlier run", "since": datetime(2026, 1, 1, tzinfo=UTC)}))
    promises.promise(task, window(), COUNT)
    (again,) = book.open().readable
    assert (again.run_id, again.since) == ("an earlier run", datetime(2026, 1, 1, tzinfo=UTC))


def test_what_a_run_keeps_has_a_default() -> None:
    store = RunStore(context("plan"))
    assert (store.get("nothing"), store.get("nothing", 7)) == (None, 7)
    store.set("something", 3)
    assert store.get("something", 7) == 3
