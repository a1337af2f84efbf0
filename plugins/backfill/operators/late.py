"""A scheduled run that begins long after its slot does nothing: the second half of what `backfill.timetable` says."""

from __future__ import annotations

from typing import Any

from backfill.kit.refusal import Refusal
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.planning.schedule import late_start


def refuse_late_start(run: Any, config: ClusterConfig) -> None:
    """Refuse a scheduled run that began later after its slot than `schedule.grace_seconds`.

    The timetable makes no run for an old slot, but the scheduler may have kept the slot's date while the DAG was paused
    and the DAG processor down, or the run waited behind another one. A run that a person cleared is that person's wish.

    Args:
        run: Airflow's `dag_run` of the task's context.
        config: the cluster of the DAG.

    Raises:
        Refusal: it is late, with slot, delay and what to do.
    """
    run_type = str(getattr(run.run_type, "value", run.run_type))
    if run_type != "scheduled" or run.clear_number or run.start_date is None:
        return
    reason = late_start(slot=run.run_after, started=run.start_date, grace=config.schedule.grace)
    if reason:
        raise Refusal(reason)
