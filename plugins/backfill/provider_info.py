"""What Airflow asks a provider package for. Found through plugins/scorecard_backfill_provider-*.dist-info."""

from __future__ import annotations

from typing import Any


def provider_info() -> dict[str, Any]:
    """Return the connection type that this package adds, in the form of Airflow's provider info schema."""
    return {
        "package-name": "scorecard-backfill-provider",
        "name": "Scorecard backfill",
        "description": "Connection type of Temporal, used by the scorecard backfill DAGs.",
        "connection-types": [
            {"hook-class-name": "backfill.hooks.temporal.TemporalHook", "connection-type": "temporal"},
        ],
    }
