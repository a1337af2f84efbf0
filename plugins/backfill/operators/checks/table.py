"""Every connection, right and version of a cluster, as lines of a table: works, look, broken, and what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook
from airflow.sdk import BaseHook, BaseOperator
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.hooks.kubernetes import checked_extra
from backfill.hooks.temporal import TemporalHook
from backfill.kit.refusal import Refusal
from backfill.notify.channels import channel_problems
from backfill.operators.preflight import checks, guarded
from backfill.settings import cluster_config
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.verdicts.remedies import Line, markdown, remedy_of, skew_line

SKEW_SECONDS = 5.0
"""Rows are told from older ones by ClickHouse's own time, Jobs and workflows by theirs; seconds do not matter there."""


def check_cluster(config: ClusterConfig) -> list[Line]:
    """Look at everything that a run of the cluster needs, harmlessly; nothing is written anywhere."""
    lines: list[Line] = []
    for check in checks():
        problems: list[str] = []
        notes: list[str] = []
        guarded(check, config, problems, notes)
        system = check.__name__.strip("_")
        lines += [Line(config.name, system, "broken", _short(one), remedy_of(one)) for one in problems]
        lines += [Line(config.name, system, "look", _short(one)) for one in notes]
        if not problems:
            lines.append(Line(config.name, system, "works", f"{getattr(config, system).conn_id}: every check passes"))
            # Only of what answers: a second sentence about the same trouble helps nobody.
            lines += _facts(system, config)
    named = config.notify.channels
    broken = channel_problems(config) if named else []
    lines += [Line(config.name, "notify", "broken", one.removeprefix("notify: "), remedy_of(one)) for one in broken]
    if named and not broken:
        text = f"{len(named)} channels have what they need; nothing was sent"
        lines.append(Line(config.name, "notify", "works", text))
    return lines


def _short(sentence: str) -> str:
    """Return a sentence without the system's name, which has a column of its own."""
    for check in checks():
        sentence = sentence.removeprefix(f"{check.__name__.strip('_')}: ")
    return sentence


def _facts(system: str, config: ClusterConfig) -> list[Line]:
    """Return version and clock of one system. What cannot be had is said, and is no reason to stop."""
    look: Callable[[ClusterConfig], list[Line]] = {
        "clickhouse": _clickhouse_facts, "kubernetes": _kubernetes_facts, "temporal": _temporal_facts
    }[system]  # fmt: skip
    try:
        return look(config)
    except Exception as error:
        return [Line(config.name, system, "look", f"version and clock are not known: {type(error).__name__}: {error}")]


def _clickhouse_facts(config: ClusterConfig) -> list[Line]:
    hook = BackfillClickHouse(config)
    (row,) = hook.rows("SELECT version() AS version")
    began = time.time()
    there = hook.server_time().timestamp()
    ahead = there - (began + time.time()) / 2
    version = Line(config.name, "clickhouse", "works", f"version {row['version']}")
    return [version, skew_line(config.name, "clickhouse", ahead, SKEW_SECONDS)]


def _kubernetes_facts(config: ClusterConfig) -> list[Line]:
    conn_id = config.kubernetes.conn_id
    extra = checked_extra(conn_id, BaseHook.get_connection(conn_id).extra_dejson)
    version, date = asyncio.run(_kubernetes_version(config, extra))
    # Its date has whole seconds only: half a second is the best guess of the rest.
    ahead = (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds() + 0.5
    line = Line(config.name, "kubernetes", "works", f"version {version}")
    return [line, skew_line(config.name, "kubernetes", ahead, SKEW_SECONDS)]


async def _kubernetes_version(config: ClusterConfig, extra: dict[str, Any]) -> tuple[str, str]:
    hook = AsyncKubernetesHook(
        conn_id=config.kubernetes.conn_id, cluster_context=config.kubernetes.context, connection_extras=extra
    )
    async with hook.get_conn() as api:
        data, _, headers = await api.call_api(
            "/version",
            "GET",
            response_types_map={200: "object"},
            auth_settings=["BearerToken"],
            _request_timeout=(10, 30),
        )
    return str(data.get("gitVersion", "not said")), headers["Date"]


def _temporal_facts(config: ClusterConfig) -> list[Line]:
    version = asyncio.run(_temporal_version(config))
    # Its frontend tells no time.
    return [Line(config.name, "temporal", "works", f"version {version}; its clock cannot be asked")]


async def _temporal_version(config: ClusterConfig) -> str:
    connection = BaseHook.get_connection(config.temporal.conn_id)
    client = await TemporalHook(config.temporal.conn_id, connection).connect(config.temporal.namespace)
    return (await client.workflow_service.get_system_info(GetSystemInfoRequest())).server_version


class CheckOperator(BaseOperator):
    """Checks one cluster and hands its lines on; red if something is broken."""

    template_fields = ("cluster",)

    def __init__(self, *, cluster: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def execute(self, context: Any) -> list[list[str]]:
        """Return the lines. Raises Refusal after logging the table, if something is broken."""
        lines = check_cluster(cluster_config(self.cluster))
        self.log.info("connections of %s\n%s", self.cluster, markdown(lines))
        rows = [[one.cluster, one.system, one.state, one.text, one.remedy] for one in lines]
        broken = [one for one in lines if one.state == "broken"]
        if broken:
            context["ti"].xcom_push(key="lines", value=rows)
            told = "\n- ".join(f"{one.system}: {one.text} {one.remedy}" for one in broken)
            raise Refusal(f"{self.cluster}: {len(broken)} broken\n- {told}")
        return rows
