"""Undo for each cluster that keeps snapshots: put back the rows of a run that did not come back.

It looks at the snapshots of one run's windows, shows how many rows are missing, asks, and inserts exactly these. Rows
that were reindexed are not touched. Rows that were meant to go (`clickhouse.meant_to_go` of the cluster's file) stay
away unless the form asks for them.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, get_parsing_context

from backfill.kit.debts import cluster_asset
from backfill.operators.undo import UndoApproval, UndoOperator, UndoPlanOperator
from backfill.settings import UNDO_DAG_ID_PREFIX, load_for
from include.scorecard_backfill.config import ClusterConfig


def build_dag(config: ClusterConfig) -> DAG:
    """Return the undo DAG of one cluster."""
    with DAG(
        dag_id=f"{UNDO_DAG_ID_PREFIX}{config.name}",
        description=f"Put back rows of {config.name} that did not come back after a cleanup",
        doc_md=__doc__,
        schedule=None,
        max_active_runs=1,
        params={
            "run_id": Param("", type="string", title="Run id", description="Of the cleanup's run."),
            "customers": Param([], type=["null", "array"], title="Customers", description="One in each line."),
            "all_customers": Param(False, type="boolean", title="All customers of that run"),
            "meant": Param(
                False,
                type="boolean",
                title="Also the rows that were meant to go",
                description="Undoes the cleanup itself; otherwise only what should have come back is put back.",
            ),
        },
        default_args={
            "owner": config.owner,
            "retries": 3,
            "retry_delay": timedelta(seconds=config.retry_delay_seconds),
        },
        tags=[*config.tags, config.name, "undo"],
    ) as dag:
        look = UndoPlanOperator(task_id="look", cluster=config.name)
        approve = UndoApproval(
            task_id="approve",
            cluster=config.name,
            subject=f"Put rows back on {config.name}?",
            body="{{ ti.xcom_pull(task_ids='look', key='markdown') }}",
            fail_on_reject=True,
        )
        restore = UndoOperator(task_id="restore", cluster=config.name, inlets=[cluster_asset(config.name)])
        look >> approve >> restore
    return dag


wanted = get_parsing_context().dag_id

for item in load_for(wanted, UNDO_DAG_ID_PREFIX):
    if not isinstance(item, ClusterConfig) or not item.enabled or not item.snapshot.enabled:
        continue
    if wanted in (None, f"{UNDO_DAG_ID_PREFIX}{item.name}"):
        build_dag(item)
