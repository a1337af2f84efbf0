"""As many DAGs of as many tasks as ours, of operators that do nothing: what Airflow itself costs at least.

Read by benchmarks/parse_child.py only.
"""

from __future__ import annotations

import os

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, chain

TASKS = 25

for number in range(int(os.environ["BENCH_DAGS"])):
    with DAG(dag_id=f"plain_{number}", schedule=None):
        chain(*(EmptyOperator(task_id=f"task_{task}") for task in range(TASKS)))
