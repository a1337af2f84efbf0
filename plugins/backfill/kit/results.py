"""What the mapped stages of a run have left, for the tasks that look at all of them at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from backfill.groups import BATCHES, PASSES, Group, placed
from backfill.kit import xcoms
from backfill.slots import Place
from include.scorecard_backfill.records import Counted, Deleted, Record, Reindexed, Window, plain, read


def results(context: Mapping[str, Any], group: str, task: str, count: int) -> list[Record]:
    """Return what the instances of a task left; each record carries its key, positions mean nothing.

    ``task`` is its id within the group. All come by one call to the API server; with indexes named, Airflow makes one
    call for each.
    """
    if not count:
        return []
    found = plain(context["ti"].xcom_pull(task_ids=f"{group}.{task}", key=xcoms.RESULT))
    listed = found if isinstance(found, list) else [found] if found else []
    return [record for item in listed if (record := read(item)) is not None]


def places_of(context: Mapping[str, Any], groups: Sequence[Group]) -> list[Place]:
    """Return the windows of a pass in the order of its list, [] when it was not reached; also those not yet opened."""
    ti, source = context["ti"], groups[0].source
    numbers = xcoms.pull(ti, source, xcoms.BATCHES) if groups == BATCHES else None
    listed = xcoms.pull(ti, source, xcoms.PLANNED if numbers else xcoms.RESULT) or []
    return [Place(group, index, Window.from_json(item)) for group, index, item in placed(groups, listed, numbers or ())]


def planned(context: Mapping[str, Any]) -> list[list[Place]]:
    """Return the windows of each pass, in the order of PASSES."""
    return [places_of(context, groups) for groups in PASSES]


def results_of(context: Mapping[str, Any], places: Sequence[Place], task: str) -> list[Record]:
    """Return what the instances of a task of a pass left, by one call for each group that has windows."""
    counts = Counter(place.group for place in places)
    return [record for group, count in counts.items() for record in results(context, group, task, count)]


def counted_of(context: Mapping[str, Any], places: Sequence[Place]) -> dict[str, Counted]:
    """Return the counts before by window key, from whichever stage has made them in the order of the run."""
    found: dict[str, Counted] = {}
    for stage in ("delete", "reindex"):
        for record in results_of(context, places, stage):
            if isinstance(record, (Deleted, Reindexed)) and record.counted is not None:
                found[record.key] = record.counted
    return found
