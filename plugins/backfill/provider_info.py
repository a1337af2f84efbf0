"""What Airflow asks a provider package for.

Found through the installed package's entry point, or through plugins/scorecard_backfill-*.dist-info where the folders
are mounted. Airflow stops if its name is not that of the distribution, so both have the same (docs/adr/0021).
"""

from __future__ import annotations

from typing import Any


def provider_info() -> dict[str, Any]:
    """Return the connection type that this package adds, in the form of Airflow's provider info schema."""
    return {
        "package-name": "scorecard-backfill",
        "name": "Scorecard backfill",
        "description": "Connection type of Temporal, used by the scorecard backfill DAGs.",
        "connection-types": [
            {"hook-class-name": "backfill.hooks.temporal.TemporalHook", "connection-type": "temporal"},
        ],
    }
