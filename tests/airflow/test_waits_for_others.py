"""Waits for others look by look: room in a quota, the gate of the cluster's health, states and open workflows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from backfill.groups import PASSES
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.hooks.kubernetes import KubeCallError
from backfill.kit import xcoms
from backfill.kit.look import Failed, Look, Wait, Wake
from backfill.kit.poll import SharedPoll
from backfill.settings import cluster_config
from backfill.slots import stage_ids
from backfill.triggers import admit, quiet, room, workflows
from backfill.triggers.admit import AdmitTrigger
from backfill.triggers.quiet import QuietTrigger
from backfill.triggers.room import RoomTrigger
from backfill.triggers.workflows import shared_open_ids
from include.scorecard_backfill.job import JobError
from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.records import Failure, GoEvent
from include.scorecard_backfill.verdicts.base import failed, ok, wait
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.health import FREE_DISK, RUNNING_WORKFLOWS, Reading
from tests.kit.waits import KEY, NAME, cluster, configure, placed, window

__all__ = ["cluster"]

Json = dict[str, Any]

HOSTS = (Host("node-1-1", 1), Host("node-2-1", 2))


def failure(found: Look) -> Failure:
    """The failure of a look."""
    assert isinstance(found, Failed), found
    return found.failure


def text(found: Look) -> str:
    """The reason of a wait."""
    assert isinstance(found, Wait), found
    return found.text


def refused(status: int | None, detail: str = "no") -> KubeCallError:
    """What the API says to a dry run."""
    return KubeCallError(f"cannot create: {detail}", status, "Reason", detail)


FULL = refused(403, "exceeded quota: jobs")
ASKED: Json = {"key": KEY, "cluster": NAME, "run_id": "r", "customer_id": "acme", "start": "2026-01-01",
               "end": "2026-02-01", "attempt": 1, "ttl_seconds": 3600, "deadline_seconds": 60}  # fmt: skip


def in_room(answer: Any, since: float = 0.0, **patched: Any) -> Look:
    """A look for room for a Job."""
    asked: list[Any] = []

    class Api:
        def __init__(self, config: Any) -> None:
            assert config.name == NAME

        async def cronjob(self) -> Json:
            return {"cron": True}

        async def create_job(self, manifest: Any, *, dry_run: bool) -> Any:
            asked.append((manifest, dry_run))
            if answer:
                raise answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "KubernetesJobs", Api)
        patch.setattr(room, "build_job", patched.get("build", lambda cron, request: (cron, request.customer_id)))
        trigger = placed(RoomTrigger(cluster=NAME, key=KEY, request=ASKED, since=since), "windows.reindex")
        trigger.args, trigger.config = trigger.model.model_validate(trigger.given), cluster_config(NAME)
        found: Look = asyncio.run(trigger.look())
    assert asked in ([(({"cron": True}, "acme"), True)], [])
    return found


@pytest.mark.parametrize("answer", [None, refused(409, "it exists")])
def test_a_job_that_would_be_taken_or_is_there_has_room(cluster: str, answer: Any) -> None:
    found = in_room(answer)
    assert isinstance(found, Wake)
    assert (found.event, found.why) == (GoEvent(key=KEY, why="there is room for the Job"), "there is room for the Job")


def test_a_full_quota_is_waited_for_as_long_as_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: str
) -> None:
    configure(tmp_path, monkeypatch, kubernetes={"queue_timeout_seconds": 100})
    now = datetime(2026, 3, 2, tzinfo=UTC)
    monkeypatch.setattr(room, "datetime", SimpleNamespace(now=lambda tz: now))
    waits = in_room(FULL, since=now.timestamp() - 100)
    assert text(waits) == "the namespace's quota has no room for the Job: exceeded quota: jobs"
    found = failure(in_room(FULL, since=now.timestamp() - 100.5))
    assert found.cause == "quota_exceeded"
    assert found.reason == ("no room for longer than 100 s (kubernetes.queue_timeout_seconds): exceeded quota: jobs")


def test_a_job_that_no_time_mends_is_refused(cluster: str) -> None:
    assert failure(in_room(refused(403))).cause == "access_denied"
    found = failure(in_room(refused(422, "bad")))
    assert (found.cause, found.reason, found.stage) == ("job_refused", "cannot create: bad", "reindex")

    def build(*_: Any) -> Any:
        raise JobError("no container")

    found = failure(in_room(None, build=build))
    assert (found.cause, found.reason) == ("job_refused", "no container")
    with pytest.raises(KubeCallError):
        in_room(refused(503))


def asked_once(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[Json]:
    """Airflow's states of tasks, and what it is asked for them."""
    asked: list[Json] = []

    def states(**fields: Any) -> Any:
        asked.append(fields)
        return answer

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(states))
    return asked


def result(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The result of a coroutine."""
    return asyncio.run(work())


def test_the_states_of_a_run_are_those_of_tasks_that_may_make_jobs(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = placed(QuietTrigger(cluster=NAME, key=KEY, window=window().to_json()), "windows.reindex")
    asked = asked_once(monkeypatch, {"manual__1": {"windows.reindex_0": "running"}, "another": {"x": "y"}})
    assert result(trigger._states) == {"windows.reindex_0": "running"}
    assert asked == [{"dag_id": trigger.ti.dag_id, "task_ids": stage_ids(), "run_ids": ["manual__1"]}]
    asked_once(monkeypatch, {})
    assert result(trigger._states) == {}


def test_what_is_asked_before_a_job_is_about_the_very_window(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    async def may(config: Any, eyes: Any, ask: Any) -> Any:
        asked.append((config.name, ask))
        return ok("a slot is free") if len(asked) > 2 else (wait("busy"), failed("configuration", "no"))[len(asked) - 1]

    async def chosen(ti: Any) -> Any:
        return Chosen.read({"max_parallel": 3})

    async def places(ti: Any, groups: Any) -> Any:
        return [f"places of {groups[0].group}"]

    monkeypatch.setattr(quiet, "may_make_job", may)
    monkeypatch.setattr(xcoms, "achosen", chosen)
    monkeypatch.setattr(quiet, "places_of", places)
    trigger = placed(QuietTrigger(cluster=NAME, key=KEY, window=window().to_json(), since=7.5), "windows.reindex")
    trigger.args, trigger.config = trigger.model.model_validate(trigger.given), cluster_config(NAME)

    async def looks() -> list[Look]:
        return [await trigger.look() for _ in range(3)]

    waits, fails, goes = result(looks)
    assert text(waits) == "busy"
    assert (failure(fails).cause, failure(fails).reason) == ("configuration", "no")
    assert isinstance(goes, Wake)
    assert (goes.event, goes.why) == (GoEvent(key=KEY, why="a slot is free"), "a slot is free")
    name, ask = asked[0]
    assert (name, ask.window, ask.since, ask.run.max_parallel) == (NAME, window(), 7.5, 3)
    assert ask.places == [f"places of {groups[0].group}" for groups in PASSES]


def test_a_client_of_temporal_is_made_once_for_all_that_wait(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Hook:
        def __init__(self, conn_id: str, connection: Any) -> None:
            made.append((conn_id, connection))

        async def connect(self, namespace: str) -> Any:
            made.append(namespace)
            return SimpleNamespace(data_converter=SimpleNamespace(payload_codec=None), namespace=namespace)

    monkeypatch.setattr(workflows, "TemporalHook", Hook)

    async def connection(conn_id: str) -> str:
        return f"connection {conn_id}"

    async def both() -> Any:
        config = cluster_config(NAME)
        one: Any = SimpleNamespace(args=SimpleNamespace(cluster=NAME), config=config, connection=connection)
        return await workflows.shared_workflows(one), await workflows.shared_workflows(one)

    first, second = result(both)
    temporal = cluster_config(NAME).temporal
    assert first is second
    assert (first.config, first.client.namespace) == (temporal, temporal.namespace)
    assert made == [(temporal.conn_id, f"connection {temporal.conn_id}"), temporal.namespace]


def test_open_workflows_are_listed_once_for_all_that_wait(cluster: str) -> None:
    asked: list[str] = []

    class Workflows:
        def open_query(self) -> str:
            return "open ones"

        async def list_ids(self, query: str) -> list[str]:
            asked.append(query)
            return ["w-1", "w-2", "w-1"]

    async def both() -> Sequence[frozenset[str]]:
        trigger: Any = SimpleNamespace(args=SimpleNamespace(cluster=NAME))
        other: Any = SimpleNamespace(args=SimpleNamespace(cluster="other"))
        first = await shared_open_ids(trigger, Workflows(), 60.0)  # type: ignore[arg-type]
        again = await shared_open_ids(trigger, Workflows(), 60.0)  # type: ignore[arg-type]
        return first, again, await shared_open_ids(other, Workflows(), 60.0)  # type: ignore[arg-type]

    assert result(both) == (frozenset({"w-1", "w-2"}),) * 3
    assert asked == ["open ones"] * 2


def test_the_gate_remembers_what_closed_it_until_it_is_well_below(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = {"stop_above": 10, "resume_below": 5}
    limits = {name: dict(limit) for name in ("unfinished_mutations", RUNNING_WORKFLOWS)}
    configure(tmp_path, monkeypatch, admission={"health": limits})
    poll = SharedPoll()
    monkeypatch.setattr(poll, "get", lambda key, load, max_age: load())
    monkeypatch.setattr(admit, "shared_poll", lambda: poll)
    unfinished, open_ones = [0], [0]

    async def ids(trigger: Any, workflows: Any, max_age: float) -> list[str]:
        assert workflows == "client"
        return [""] * open_ones[0]

    async def client(trigger: Any) -> str:
        return "client"

    def health(self: Any, hosts: Any) -> Any:
        assert hosts == HOSTS
        others = {name: Reading(0) for name in ("active_parts", "replication_queue")}
        return others | {"unfinished_mutations": Reading(unfinished[0], "node-2-1"), FREE_DISK: Reading(10**13)}

    async def hosts(self: Any) -> Any:
        return HOSTS

    monkeypatch.setattr(admit, "shared_open_ids", ids)
    monkeypatch.setattr(admit, "shared_workflows", client)
    monkeypatch.setattr(BackfillClickHouse, "health", health)
    monkeypatch.setattr(AdmitTrigger, "hosts", hosts)

    def gate(now: int, workflows: int) -> list[str]:
        unfinished[0], open_ones[0] = now, workflows
        trigger = placed(AdmitTrigger(cluster=NAME, group="windows"), "windows.admit")
        trigger.args, trigger.config = SimpleNamespace(cluster=NAME), cluster_config(NAME)
        return sorted(result(trigger._gate).closed)

    assert gate(10, 10) == []
    assert gate(11, 0) == ["unfinished_mutations"]
    assert gate(7, 11) == [RUNNING_WORKFLOWS, "unfinished_mutations"]
    assert gate(4, 7) == [RUNNING_WORKFLOWS]
    assert gate(7, 4) == []
