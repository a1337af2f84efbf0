"""Verified months as asset events. `report` leaves them when it is green, `tidy` when it is not.

Airflow takes no event of a task that fails, and a clear of what has failed runs the report again but not `tidy`, which
has ended well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backfill.kit.debts import cluster_asset, verified_alias
from include.scorecard_backfill.months import verified_months


def announce(context: Mapping[str, Any], cluster: str, report: Mapping[str, Any], log: Any) -> None:
    """Leave an event for each customer and month that the run has verified; the task must have the alias as outlet."""
    event = context["outlet_events"][verified_alias(cluster)]
    for entry in verified_months(report):
        event.add(cluster_asset(cluster), extra={**entry.model_dump(), "run_id": context["dag_run"].run_id})
        log.info("verified: %s %s, %s of %s days", entry.customer, entry.month, entry.days, entry.of)
