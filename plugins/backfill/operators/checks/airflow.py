"""Settings of Airflow itself under which a stage would forget, or a triggerer stand still."""

from __future__ import annotations

from airflow.sdk.configuration import conf

FORGETS = (
    "airflow: [state_store] clear_on_success is True: Airflow would forget what a stage has kept as soon as it"
    " succeeds, so that a cleared task would not know that its DELETE was sent, nor what was there before. Set it to"
    " False (AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS=False) for the API servers, schedulers, triggerers and workers,"
    " restart them, and start a new run"
)

SELECTED = 8
"""The `max_trigger_to_select_per_loop` of docs/deploy/settings.md, which has the reason."""

MANY_WINDOWS = 100
"""So many log lines of starting triggers fit between the triggerer's processes while none is read (kit/saying.py)."""


def airflow_problems() -> list[str]:
    """Return what must be set in another way, as this worker's configuration has it."""
    return [FORGETS] if conf.getboolean("state_store", "clear_on_success", fallback=False) else []


def airflow_notes(windows: int) -> list[str]:
    """Return what a plan of so many windows makes worth saying of this worker's configuration."""
    selected = conf.getint("triggerer", "max_trigger_to_select_per_loop", fallback=50)
    if windows <= MANY_WINDOWS or selected <= SELECTED:
        return []
    return [
        f"{windows} windows, and [triggerer] max_trigger_to_select_per_loop is {selected}: so many that begin to wait"
        f" at once may stop busy triggerers for good; set it to {SELECTED} for them (docs/deploy/settings.md)"
    ]
