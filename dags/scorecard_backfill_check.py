"""Check every connection, right and version of every cluster; nothing is written or deleted anywhere.

Trigger it after a change of connections, rights or cluster files, and before the first run on a new cluster. Each
cluster is a task; its log has the table: what works, what does not, and what to do. A red task is a cluster whose
run would stop.
"""

from __future__ import annotations

from airflow.sdk import DAG, get_parsing_context

from backfill.operators.checks.table import CheckOperator
from backfill.settings import load_all
from include.scorecard_backfill.config import ClusterConfig

DAG_ID = "scorecard_backfill_check"

if get_parsing_context().dag_id in (None, DAG_ID):
    with DAG(
        dag_id=DAG_ID,
        description="Check connections, rights, versions and clocks of every cluster",
        doc_md=__doc__,
        schedule=None,
        catchup=False,
        max_active_runs=1,
        tags=["scorecard-backfill"],
        is_paused_upon_creation=False,
    ):
        names = [item.name for item in load_all() if isinstance(item, ClusterConfig) and item.enabled]
        CheckOperator.partial(
            task_id="check", map_index_template="{{ task.cluster }}", max_active_tis_per_dag=4
        ).expand(cluster=names)
