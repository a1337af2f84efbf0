"""What the mapped stages of a run have left, for the tasks that look at all of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backfill.groups import PASSES, Pass
from backfill.kit import xcoms
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


def windows_of(context: Mapping[str, Any], one: Pass) -> list[Window]:
    """Return the windows of a pass, [] when it was not reached."""
    return [Window.from_json(item) for item in xcoms.pull(context["ti"], one.source) or []]


def planned(context: Mapping[str, Any]) -> list[list[Window]]:
    """Return the windows of each pass, in the order of PASSES."""
    return [windows_of(context, one) for one in PASSES]


def counted_of(context: Mapping[str, Any], group: str, count: int) -> dict[str, Counted]:
    """Return the counts before by window key, from whichever stage has made them in the order of the run."""
    found: dict[str, Counted] = {}
    for stage in ("delete", "reindex"):
        for record in results(context, group, stage, count):
            if isinstance(record, (Deleted, Reindexed)) and record.counted is not None:
                found[record.key] = record.counted
    return found
