"""The same work as a stock DAG: what Airflow's and the providers' documentation shows, put together and nothing more.

For each window: delete, a sensor for the mutations, KubernetesJobOperator, a sensor for the workflows, a count. Sensors
poke, which is their default mode. Windows of a customer follow each other; `max_active_tasks` limits the rest.
The windows are read from the file that BENCH_WINDOWS names, as stock DAGs read their configuration.
"""

from __future__ import annotations

import asyncio
import json
import os
from datetime import timedelta
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from airflow.providers.clickhousedb.hooks.clickhouse import ClickHouseHook
from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import DAG, TaskGroup
from temporalio.client import Client

TABLES = ("scorecard", "score")
POKE_SECONDS = float(os.environ.get("BENCH_POKE_SECONDS", "1"))
CONNECTION = "clickhouse_sandbox_east"


def predicate(window: dict[str, Any]) -> str:
    """Return the WHERE of a window."""
    start, end = (f"toDateTime64('{window[side]} 00:00:00', 3, 'UTC')" for side in ("start", "end"))
    return f"scorecard_time >= {start} AND scorecard_time < {end}"


def no_mutations(database: str) -> bool:
    """Return True once no mutation of the customer's database is unfinished on any node."""
    sql = (
        "SELECT count() FROM clusterAllReplicas('conversations', system.mutations)"
        f" WHERE database = '{database}' AND NOT is_done"
    )
    return int(ClickHouseHook(clickhouse_conn_id=CONNECTION).get_first(sql)[0]) == 0


def no_workflows(customer: str) -> bool:
    """Return True once workflows of the customer are there and none is open."""

    async def ask() -> bool:
        client = await Client.connect(os.environ["BENCH_TEMPORAL"], namespace="ingestion")
        query = f"WorkflowId STARTS_WITH 'reindexconversations-{customer}-'"
        found = (await client.count_workflows(query)).count
        is_open = (await client.count_workflows(f"{query} AND ExecutionStatus = 'Running'")).count
        return found > 0 and is_open == 0

    return asyncio.run(ask())


def count(database: str, where: str) -> int:
    """Return the rows of a window."""
    hook = ClickHouseHook(clickhouse_conn_id=CONNECTION)
    return int(hook.get_first(f"SELECT count() FROM {database}.scorecard_d FINAL WHERE {where}")[0])


def one_window(window: dict[str, Any]) -> TaskGroup:
    """Return the tasks of a window."""
    customer, database = window["customer_id"], f"{window['customer_id']}_voice"
    with TaskGroup(f"{customer}__{window['start']}") as group:
        delete = SQLExecuteQueryOperator(
            task_id="delete",
            conn_id=CONNECTION,
            sql=[
                f"ALTER TABLE {database}.{table} ON CLUSTER conversations DELETE WHERE {predicate(window)}"
                for table in TABLES
            ],
        )
        mutations = PythonSensor(
            task_id="wait_mutations",
            python_callable=no_mutations,
            op_args=[database],
            poke_interval=POKE_SECONDS,
            timeout=3600,
        )
        reindex = KubernetesJobOperator(
            task_id="reindex",
            kubernetes_conn_id="kubernetes_sandbox_east",
            namespace="cresta-cron",
            name=f"reindex-{customer}-{window['start']}",
            image="registry.invalid/cron-batch-reindex-conversations:sandbox",
            env_vars={
                "REINDEX_START_TIME": f"{window['start']}T00:00:00Z",
                "REINDEX_END_TIME": f"{window['end']}T00:00:00Z",
                "RUN_ONLY_FOR_CUSTOMER_IDS": customer,
            },
            backoff_limit=0,
            wait_until_job_complete=True,
            job_poll_interval=POKE_SECONDS,
        )
        workflows = PythonSensor(
            task_id="wait_workflows",
            python_callable=no_workflows,
            op_args=[customer],
            poke_interval=POKE_SECONDS,
            timeout=3600,
        )
        verify = PythonOperator(task_id="verify", python_callable=count, op_args=[database, predicate(window)])
        delete >> mutations >> reindex >> workflows >> verify
    return group


with DAG(
    dag_id="stock_backfill",
    schedule=None,
    max_active_tasks=int(os.environ.get("BENCH_AT_ONCE", "10")),
    default_args={"retries": 2, "retry_delay": timedelta(seconds=3)},
    is_paused_upon_creation=True,
):
    listed = json.loads(Path(os.environ["BENCH_WINDOWS"]).read_text())
    for _, mine in groupby(listed, key=lambda window: window["customer_id"]):
        for before, after in pairwise([None, *map(one_window, mine)]):
            if before is not None and after is not None:
                before >> after
