"""A slot of the schedule that started nothing, and whether somebody has made up for it by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.fields import Frozen
from include.scorecard_backfill.params import ParamsError, RunParams, effective
from include.scorecard_backfill.planning.schedule import MissedSlot, missed_slot
from include.scorecard_backfill.planning.windows import DateRange


class Missed(Frozen):
    """A missed slot as a person is told of it.

    ``slot`` (UTC) names it: the button starts exactly this one. ``days``: first day of its month, and the day after its
    last one. ``what``: sentences. ``whom``: customers.
    """

    slot: datetime
    days: tuple[str, str]
    what: str
    mode: str
    whom: str


@dataclass(frozen=True, slots=True)
class ByHand:
    """A run that no schedule started: Airflow's type, when it was due (aware) and what was sent with it."""

    run_type: str
    run_after: datetime
    conf: Mapping[str, Any]


def slot_missed_by(
    config: ClusterConfig, *, now: datetime, last: datetime | None, since: datetime | None
) -> MissedSlot | None:
    """Return the last slot of a cluster's schedule if it started nothing, as :func:`missed_slot` says."""
    when = config.schedule
    return missed_slot(when.cron, when.zone, now=now, last=last, since=since, grace=when.grace)


def made_up(config: ClusterConfig, days: DateRange, runs: Iterable[ByHand]) -> bool:
    """Return True when one of the runs does what the schedule would have done for these days, or more."""
    return any(_does(config, days, run) for run in runs)


def _does(config: ClusterConfig, days: DateRange, run: ByHand) -> bool:
    when = config.schedule
    try:
        found = effective(
            RunParams.read(run.conf), run_type=run.run_type, run_after=run.run_after, cluster=config, given=run.conf
        )
    except ParamsError:
        return False
    whole = found.start_date <= days.start and days.end <= found.end_date
    everybody = found.all_customers or (not when.all_customers and set(when.customers) <= set(found.customers))
    # A cleanup reindexes, too.
    return whole and everybody and not found.dry_run and found.mode in (when.mode, "cleanup")


def missed_view(config: ClusterConfig, missed: MissedSlot) -> Missed:
    """Return what a person is told."""
    when = config.schedule
    return Missed(
        slot=missed.slot,
        days=(missed.days.start.isoformat(), missed.days.end.isoformat()),
        what=missed.sentence(when.zone),
        mode=when.mode,
        whom="all customers" if when.all_customers else ", ".join(when.customers),
    )
