"""The table of a cluster's connections: what works, what to look at, what is broken and what a person does about it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from backfill.operators import preflight
from backfill.operators.checks import table as module
from backfill.operators.checks import temporal as temporal_checks
from backfill.operators.checks.table import CheckOperator, check_cluster
from backfill.settings import cluster_config
from include.scorecard_backfill.verdicts.remedies import Line
from tests.kit.waits import NAME, cluster, configure, context

__all__ = ["cluster"]

Json = dict[str, Any]

NOW = datetime(2026, 3, 2, 6, 0, 0, tzinfo=UTC)


class Systems:
    """What the three checks say, and what the systems themselves tell of version and time."""

    def __init__(self) -> None:
        self.said: dict[str, tuple[list[str], list[str]]] = {}
        self.ahead = {"clickhouse": 0.0, "kubernetes": 0}
        self.broken: set[str] = set()
        self.asked: list[Any] = []

    def check(self, name: str) -> Any:
        """The check of one system, named like it."""

        def run(config: Any, problems: list[str], notes: list[str]) -> None:
            assert config.name == NAME
            new_problems, new_notes = self.said.get(name, ([], []))
            problems += new_problems
            notes += new_notes

        run.__name__ = name
        return run


@pytest.fixture
def systems(cluster: str, monkeypatch: pytest.MonkeyPatch) -> Systems:
    """Three systems that work."""
    made = Systems()
    found = tuple(made.check(name) for name in ("clickhouse", "kubernetes", "temporal"))
    monkeypatch.setattr(module, "checks", lambda: found)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            assert tz is UTC
            return NOW

    monkeypatch.setattr(module, "datetime", Clock)
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: NOW.timestamp()))

    class ClickHouse:
        def __init__(self, config: Any) -> None:
            assert config.name == NAME

        def rows(self, statement: str) -> list[Json]:
            made.asked.append(statement)
            if "clickhouse" in made.broken:
                raise ConnectionError("reset")
            return [{"version": "25.8.1"}]

        def server_time(self) -> datetime:
            return datetime.fromtimestamp(NOW.timestamp() + made.ahead["clickhouse"], UTC)

    class Api:
        async def call_api(self, path: str, method: str, **options: Any) -> Any:
            made.asked.append((path, method, options))
            date = datetime.fromtimestamp(NOW.timestamp() + made.ahead["kubernetes"], UTC)
            version = {} if "version" in made.broken else {"gitVersion": "v1.34.2"}
            return version, 200, {"Date": format_datetime(date, usegmt=True)}

    class Kubernetes:
        def __init__(self, **given: Any) -> None:
            made.asked.append(given)

        @asynccontextmanager
        async def get_conn(self) -> Any:
            yield Api()

    class Temporal:
        def __init__(self, conn_id: str, connection: Any) -> None:
            made.asked.append((conn_id, connection.conn_id))

        async def connect(self, namespace: str) -> Any:
            made.asked.append(namespace)

            async def info(request: Any) -> Any:
                made.asked.append(type(request).__name__)
                return SimpleNamespace(server_version="1.31.0")

            return SimpleNamespace(workflow_service=SimpleNamespace(get_system_info=info))

    monkeypatch.setattr(module, "BackfillClickHouse", ClickHouse)
    monkeypatch.setattr(module, "AsyncKubernetesHook", Kubernetes)
    monkeypatch.setattr(module, "TemporalHook", Temporal)
    return made


def lines() -> list[Line]:
    """The table."""
    return check_cluster(cluster_config(NAME))


def works(system: str, text: str) -> Line:
    """A line about what works."""
    return Line(NAME, system, "works", text)


def of(system: str) -> list[Line]:
    """The lines of one system."""
    return [line for line in lines() if line.system == system]


def test_everything_that_works_is_told_with_version_and_clock(systems: Systems) -> None:
    systems.ahead["clickhouse"] = 1.5
    assert lines() == [
        works("clickhouse", f"clickhouse_{NAME}: every check passes"),
        works("clickhouse", "version 25.8.1"),
        works("clickhouse", "clock 1.5 s ahead of this machine's"),
        works("kubernetes", f"kubernetes_{NAME}: every check passes"),
        works("kubernetes", "version v1.34.2"),
        works("kubernetes", "clock 0.5 s ahead of this machine's"),
        works("temporal", f"temporal_{NAME}: every check passes"),
        works("temporal", "version 1.31.0; its clock cannot be asked"),
    ]
    statement, given, call, temporal, namespace, request = systems.asked
    assert statement == "SELECT version() AS version"
    assert (given["conn_id"], given["cluster_context"]) == (f"kubernetes_{NAME}", NAME)
    assert "kube_config" in given["connection_extras"]
    assert call == (
        "/version", "GET",
        {"response_types_map": {200: "object"}, "auth_settings": ["BearerToken"], "_request_timeout": (10, 30)},
    )  # fmt: skip
    assert temporal == (f"temporal_{NAME}", f"temporal_{NAME}")
    assert namespace == cluster_config(NAME).temporal.namespace
    assert request == "GetSystemInfoRequest"


@pytest.mark.parametrize(
    ("system", "ahead", "state"),
    [
        ("clickhouse", 5.0, "works"),
        ("clickhouse", 6.0, "broken"),
        ("clickhouse", -6.0, "broken"),
        ("kubernetes", 4, "works"),
        ("kubernetes", 5, "broken"),
        ("kubernetes", -6, "broken"),
    ],
)
def test_a_clock_that_is_far_off_is_broken(systems: Systems, system: str, ahead: float, state: str) -> None:
    systems.ahead[system] = ahead
    clock = of(system)[-1]
    assert clock.state == state
    shown = abs(ahead + (0.5 if system == "kubernetes" else 0))
    assert clock.text.startswith(f"clock {shown:.1f} s {'behind' if ahead < 0 else 'ahead of'} this machine's")


def test_problems_have_a_remedy_and_no_second_sentence(systems: Systems) -> None:
    systems.said["kubernetes"] = (
        ["kubernetes: this account may not create jobs in namespace cron", "CronJob x is not there"],
        ["kubernetes: events may not be listed"],
    )
    assert of("kubernetes") == [
        Line(NAME, "kubernetes", "broken", "this account may not create jobs in namespace cron",
             "Bind the Role (deploy/kubernetes/role.yaml) to this identity."),
        Line(NAME, "kubernetes", "broken", "CronJob x is not there", "See the text."),
        Line(NAME, "kubernetes", "look", "events may not be listed"),
    ]  # fmt: skip


def test_notes_alone_are_beside_what_works(systems: Systems) -> None:
    systems.said["temporal"] = ([], ["temporal: workflows cannot be counted"])
    assert [(line.state, line.text) for line in of("temporal")] == [
        ("look", "workflows cannot be counted"),
        ("works", f"temporal_{NAME}: every check passes"),
        ("works", "version 1.31.0; its clock cannot be asked"),
    ]


def test_a_version_that_cannot_be_had_is_no_reason_to_stop(systems: Systems) -> None:
    systems.broken = {"clickhouse", "version"}
    assert of("clickhouse")[-1] == Line(
        NAME, "clickhouse", "look", "version and clock are not known: ConnectionError: reset"
    )
    assert of("kubernetes")[1] == works("kubernetes", "version not said")
    assert of("temporal")[0].state == "works"


def test_a_connection_that_is_not_there_is_broken(systems: Systems, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"AIRFLOW_CONN_TEMPORAL_{NAME.upper()}")
    (line,) = of("temporal")
    assert (line.state, line.remedy) == ("broken", "Create the connection (docs/deploy/connections.md).")
    assert line.text.startswith(f"connection 'temporal_{NAME}' is not defined in Airflow")


WEBHOOK = {"notify": {"channels": [{"kind": "webhook", "conn_id": "hook_acme"}]}}


def test_channels_are_told_only_where_the_file_names_some(
    systems: Systems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(module, "channel_problems", lambda config: list(said))
    assert of("notify") == []
    configure(tmp_path, monkeypatch, **WEBHOOK)
    assert of("notify") == [works("notify", "1 channels have what they need; nothing was sent")]
    said += ["notify: connection 'hook_acme' is not defined in Airflow", "another"]
    assert of("notify") == [
        Line(NAME, "notify", "broken", "connection 'hook_acme' is not defined in Airflow",
             "Create the connection (docs/deploy/connections.md)."),
        Line(NAME, "notify", "broken", "another", "See the text."),
    ]  # fmt: skip


def test_the_task_hands_its_lines_on_and_is_red_when_something_is_broken(systems: Systems) -> None:
    task = context("check")
    rows = CheckOperator(task_id="check", cluster=NAME).execute(task)
    assert rows[1] == [NAME, "clickhouse", "works", "version 25.8.1", ""]
    assert task["ti"].xcoms == {}
    systems.said["temporal"] = (["temporal: it is away"], ["temporal: a note"])
    systems.said["clickhouse"] = (["clickhouse: no rights"], [])
    with pytest.raises(AirflowFailException) as red:
        CheckOperator(task_id="check", cluster=NAME).execute(task)
    assert str(red.value) == (
        f"{NAME}: 2 broken\n- clickhouse: no rights See the text.\n- temporal: it is away See the text."
    )
    left = task["ti"].xcoms["check", "lines"]
    assert [NAME, "temporal", "look", "a note", ""] in left
    assert len(left) == 6


def test_each_system_has_a_check_that_is_named_like_its_section() -> None:
    assert [check.__name__ for check in preflight.checks()] == ["clickhouse", "kubernetes", "temporal"]


def test_preflight_asks_temporal_by_its_own_module(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(temporal_checks, "check", lambda *args: asked.append(args))
    problems: list[str] = []
    notes: list[str] = []
    preflight.temporal(cluster_config(NAME), problems, notes)
    ((config, first, second),) = asked
    assert config.name == NAME
    assert first is problems
    assert second is notes
