"""The timetable of the clusters' DAGs: a slot starts its run in time or not at all.

Airflow 3.3.2's own `CronTriggerTimetable` starts an old slot when a DAG is unpaused (read in
`airflow/timetables/trigger.py`, compared in `tests/airflow/test_timetable.py`):

- a DAG that has run before gets the last slot that it missed, however old it is;
- a DAG that never ran gets the last slot if it is not older than a tenth of the period: three days for a monthly line.
  `run_immediately=False` says the contrary and changes nothing, since only `True` and a duration are looked at.

Here the run would be Jobs for every customer at once. So a slot older than the grace (`schedule.grace_seconds`) is
left out, and the page says that it was missed. The grace cannot be nothing: between a slot and the scheduler's next
loop the DAG processor may compute the next slot anew. Unpausing *within the grace* after a slot does start that slot.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk.timezone import coerce_datetime, utcnow
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from airflow.timetables.trigger import CronTriggerTimetable


class ForwardCronTimetable(CronTriggerTimetable):
    """A cron line on the wall clock of a zone; slots older than a grace are never made up for.

    Args:
        cron: five cron fields.
        timezone: IANA zone.
        grace: how late after its slot the run may still be made.
    """

    def __init__(self, cron: str, *, timezone: str, grace: timedelta) -> None:
        super().__init__(cron, timezone=timezone)
        self._grace = grace

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the first slot that is within the grace and after the last run; None after the DAG's end.

        `restriction.catchup` is not looked at: nothing is ever caught up.
        """
        candidates = [self._align_to_next(coerce_datetime(utcnow() - self._grace))]
        if last_automated_data_interval is not None:
            candidates.append(self._get_next(last_automated_data_interval.end))
        if restriction.earliest is not None:
            candidates.append(self._align_to_next(restriction.earliest))
        slot = max(candidates)
        if restriction.latest is not None and restriction.latest < slot:
            return None
        return DagRunInfo.interval(slot, slot)

    def serialize(self) -> dict[str, Any]:
        """Return what the scheduler needs to make the same timetable, JSON-able."""
        return {**super().serialize(), "grace_seconds": self._grace.total_seconds()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        """Return the timetable of `serialize`'s answer."""
        return cls(data["expression"], timezone=data["timezone"], grace=timedelta(seconds=data["grace_seconds"]))
