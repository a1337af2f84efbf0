"""Figures through Airflow's own metrics: names, values and tags, and never an exception."""

from __future__ import annotations

from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from backfill import metrics
from backfill.kit.look import Done, Wait, wait
from backfill.notify.watch import Watch
from backfill.settings import cluster_config
from backfill.slots import Place
from backfill.triggers import admit
from backfill.triggers.admit import AdmitTrigger
from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.records import TableBalance, Verified
from tests.kit.waits import NAME, PROOF, cluster, window

__all__ = ["cluster"]


class Backend:
    """Keeps what Airflow's metrics are told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, Any, dict[str, str]]] = []

    def gauge(self, name: str, value: float, **more: Any) -> None:
        """Keep a gauge."""
        self.seen.append(("gauge", name, value, more["tags"]))

    def incr(self, name: str, count: int, **more: Any) -> None:
        """Keep a count."""
        self.seen.append(("incr", name, count, more["tags"]))

    def timing(self, name: str, value: Any, **more: Any) -> None:
        """Keep a duration."""
        self.seen.append(("timing", name, value, more["tags"]))


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Airflow's metrics, set up as a process of Airflow does it."""
    made = Backend()
    monkeypatch.setattr("airflow.sdk.observability.metrics.stats_utils.get_stats_factory", lambda: lambda: made)
    monkeypatch.setattr(metrics, "_ready_in", 0)
    return made


def test_a_stage_leaves_its_seconds_and_a_verified_window_its_removed_rows(cluster: str, backend: Backend) -> None:
    balance = TableBalance(database="acme_voice", table="scorecard", before=100, meant=10, after=90, removed=10,
                           short=0, over=0, doubled=0, moved=0, exact=True)  # fmt: skip
    proof = PROOF.model_copy(update={"tables": (balance,)})
    Watch(cluster_config(NAME), None, "verify", "acme", window()).ended(
        Done(Verified(key="0" * 16, status="verified", proof=proof), "the books balance")
    )

    (seconds, removed) = backend.seen
    assert (seconds[0], seconds[1], seconds[3]) == (
        "timing", metrics.SECONDS, {"cluster": NAME, "stage": "verify", "result": "done"},
    )  # fmt: skip
    assert isinstance(seconds[2], timedelta)
    assert removed == ("incr", metrics.REMOVED, 10, {"cluster": NAME, "table": "scorecard"})


def test_waits_are_counted_by_their_reason_and_leave_when_they_end(cluster: str, backend: Backend) -> None:
    first, second = (Watch(cluster_config(NAME), place(n), "admit", "acme", window()) for n in (1, 2))
    first.waits(wait("slots", word="queue"))
    first.waits(wait("slots, differently", word="queue"))
    second.waits(wait("slots", word="queue"))
    second.waits(wait("paused", word="paused"))
    first.ended(None)
    second.ended(None)

    assert [(value, tags["reason"]) for _, name, value, tags in backend.seen if name == metrics.WAITING] == [
        (1, "queue"), (2, "queue"), (1, "queue"), (1, "paused"), (0, "queue"), (0, "paused"),
    ]  # fmt: skip


def place(index: int) -> Any:
    class Instance:
        dag_id, run_id, task_id, map_index = f"scorecard_backfill__{NAME}", "manual__1", "windows.admit", index

    return Instance()


def test_windows_by_state(backend: Backend) -> None:
    metrics.windows_by_state("east", {"waiting": 3, "failed": 0})

    assert backend.seen == [
        ("gauge", metrics.WINDOWS, 3, {"cluster": "east", "state": "waiting"}),
        ("gauge", metrics.WINDOWS, 0, {"cluster": "east", "state": "failed"}),
    ]


def test_a_worker_stage_is_timed_by_how_it_ended_and_its_error_goes_on(backend: Backend) -> None:
    with metrics.measured("east", "delete"):
        pass
    with pytest.raises(RuntimeError), metrics.measured("east", "delete"):
        raise RuntimeError("no")

    assert [tags["result"] for _, _, _, tags in backend.seen] == ["done", "failed"]


def test_a_broken_backend_is_nobodys_trouble(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **more: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(backend, "gauge", broken)
    metrics.windows_by_state("east", {"waiting": 3})


async def test_admission_says_how_many_windows_are_in_each_state_and_why_one_waits(
    cluster: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = AdmitTrigger(cluster=NAME, group="windows")
    trigger.config = cluster_config(NAME)
    trigger.args = trigger.model(cluster=NAME, group="windows")
    trigger.task_instance = SimpleNamespace(  # type: ignore[assignment]
        dag_id=f"scorecard_backfill__{NAME}", run_id="metrics", task_id="windows.admit", map_index=1
    )
    trigger._index, trigger._verified = 1, False

    async def places(self: Any) -> list[Place]:
        later = window(key="1" * 16, start=date(2026, 2, 1), end=date(2026, 3, 1))
        return [Place("windows", 0, window()), Place("windows", 1, later)]

    async def states(self: Any) -> dict[str, Any]:
        return {"windows.admit_0": "success", "windows.delete_0": "running", "windows.admit_1": "deferred"}

    async def nothing(*args: Any) -> Any:
        return Chosen()

    monkeypatch.setattr(AdmitTrigger, "places", places)
    monkeypatch.setattr(AdmitTrigger, "_load_states", states)
    monkeypatch.setattr(AdmitTrigger, "_run", nothing)
    monkeypatch.setattr(admit, "shared_override", lambda *args: no_override())
    look = await trigger.look()

    assert isinstance(look, Wait)
    assert (look.word, look.text) == ("queue", "another window of acme comes first (1 at a time)")
    assert {tags["state"]: value for _, name, value, tags in backend.seen if name == metrics.WINDOWS} == {
        "waiting": 1, "running": 1, "verified": 0, "failed": 0,
    }  # fmt: skip


async def no_override() -> None:
    return None
