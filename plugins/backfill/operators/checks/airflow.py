"""Settings of Airflow itself under which what a stage must not forget would be forgotten."""

from __future__ import annotations

from airflow.sdk.configuration import conf

FORGETS = (
    "airflow: [state_store] clear_on_success is True: Airflow would forget what a stage has kept as soon as it"
    " succeeds, so that a cleared task would not know that its DELETE was sent, nor what was there before. Set it to"
    " False (AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS=False) for the API servers, schedulers, triggerers and workers,"
    " restart them, and start a new run"
)


def airflow_problems() -> list[str]:
    """Return what must be set in another way, as this worker's configuration has it."""
    return [FORGETS] if conf.getboolean("state_store", "clear_on_success", fallback=False) else []
