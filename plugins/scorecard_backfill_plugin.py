"""The plugin that Airflow loads before it forks workers; it imports the package's heavy modules on purpose.

A worker task runs in a fork of the process that loaded the plugins. Without the imports here every task would import
the Kubernetes, Temporal and ClickHouse clients by itself: with twenty mapped tasks on two cores that took up to 32 s
for each and the run did not end in time; with them it took less than half a second. The same holds for what Airflow
itself loads only when a DAG file names it (tests/airflow/test_costs.py looks for what is missing here).
"""

from __future__ import annotations

import airflow.providers.standard.decorators.python
import airflow.providers.standard.operators.empty
import airflow.sdk.bases.sensor
import airflow.sdk.definitions.decorators  # noqa: F401
from airflow.plugins_manager import AirflowPlugin

import backfill.operators.admit
import backfill.operators.approve
import backfill.operators.checks.table
import backfill.operators.delete
import backfill.operators.open
import backfill.operators.plan
import backfill.operators.preflight
import backfill.operators.reindex
import backfill.operators.replan
import backfill.operators.report
import backfill.operators.tidy
import backfill.operators.undo
import backfill.operators.verify
import backfill.operators.wait_mutations
import backfill.operators.wait_workflows  # noqa: F401  (imported to be in memory before the fork)
from backfill import listener
from backfill.api.plugin import OnDemand, react_apps
from backfill.links import task_links
from backfill.timetable import ForwardCronTimetable


class ScorecardBackfillPlugin(AirflowPlugin):
    """The operator's page, the timetable that DAG processor and scheduler must find, and what writes a run's note."""

    name = "scorecard_backfill"
    timetables = [ForwardCronTimetable]  # noqa: RUF012  (as Airflow declares it)
    listeners = [listener]  # noqa: RUF012  (as Airflow declares it)
    operator_extra_links = task_links()
    # Built when the API server asks for it; no other process does.
    fastapi_apps = OnDemand()
    react_apps = react_apps()
