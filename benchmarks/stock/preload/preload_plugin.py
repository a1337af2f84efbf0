"""The preload alone, for the stock DAG: what its file imports is in memory before a worker forks."""

from __future__ import annotations

from importlib import import_module

from airflow.plugins_manager import AirflowPlugin

for name in (
    "airflow.providers.clickhousedb.hooks.clickhouse",
    "airflow.providers.cncf.kubernetes.operators.job",
    "airflow.providers.common.sql.operators.sql",
    "airflow.providers.standard.operators.python",
    "airflow.providers.standard.sensors.python",
    "temporalio.client",
):
    import_module(name)


class Preload(AirflowPlugin):
    """Registers nothing."""

    name = "preload"
