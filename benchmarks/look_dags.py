"""DAGs of the product's shape with one to six stages in a window; what a stage does is of no concern to the scheduler.

Read by benchmarks/look_child.py only.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TriggerRule, chain, task, task_group

BATCHES = 20
"""Groups of the DAG that has its windows in batches: the most that a cluster's file may ask for."""


def look_dag(stages: int) -> DAG:
    """Return a DAG with so many stages in each window."""
    with DAG(dag_id=f"look_{stages}", schedule=None) as dag:
        preflight, approve = EmptyOperator(task_id="preflight"), EmptyOperator(task_id="approve")

        @task
        def plan() -> list[Any]:
            return []

        @task_group
        def windows(window: Any) -> None:
            chain(*(EmptyOperator(task_id=f"stage_{number}") for number in range(stages)))

        planned = plan()
        mapped = windows.expand(window=planned)
        report = EmptyOperator(task_id="report", trigger_rule=TriggerRule.ALL_DONE)
        preflight >> planned >> approve >> mapped >> report
    return dag


def batched_dag(stages: int, batches: int) -> DAG:
    """Return a DAG whose windows are in groups that are opened one after another; of a closed one nothing is made."""
    with DAG(dag_id=f"look_{stages}_in_{batches}", schedule=None) as dag:
        preflight, approve = EmptyOperator(task_id="preflight"), EmptyOperator(task_id="approve")

        @task
        def plan() -> list[Any]:
            return []

        report = EmptyOperator(task_id="report", trigger_rule=TriggerRule.ALL_DONE)
        planned = plan()
        preflight >> planned >> approve
        before: Any = approve
        for batch in range(batches):

            @task_group(group_id=f"windows_{batch}" if batch else "windows")
            def windows(window: Any) -> None:
                chain(*(EmptyOperator(task_id=f"stage_{number}") for number in range(stages)))

            if batch:
                listed = plan.override(task_id=f"open_{batch}")()
                before >> listed
                before = listed
                windows.expand(window=listed) >> report
            else:
                approve >> windows.expand(window=planned) >> report
    return dag


for number in (1, 2, 5, 6):
    look_dag(number)
batched_dag(6, BATCHES)
