"""How patient the waits are, whatever they wait for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from include.scorecard_backfill.config.fields import Frozen, OutageSeconds


class WaitsConfig(Frozen):
    """Patience of the waits that has nothing to do with one of the servers."""

    outage_seconds: OutageSeconds = Field(
        default=600, description="ClickHouse or Airflow's API may be unreachable for this long before a wait fails."
    )
    # Airflow fails a task that is put back to a worker before the executor's own event was handled.
    first_poll_after_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        default=20,
        description="A trigger to which a worker deferred does not fail its task, or put it back to a worker, before"
        " this; a success may end it at once. Keep it well above Airflow's [workers] min_heartbeat_interval (5 s): for"
        " that long the worker's process may linger.",
    )
