"""Which whole partitions a range of UTC days is made of, for the partition keys whose ids can be computed."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date

from include.scorecard_backfill.planning.windows import DateRange

# Functions of the time column that a partition key may consist of; any other key is deleted by mutation.
_MONTHLY: dict[str, Callable[[date], str]] = {
    "toYYYYMM": lambda day: f"{day:%Y%m}",
    "toStartOfMonth": lambda day: f"{day:%Y%m}01",
}
_DAILY: dict[str, Callable[[date], str]] = {
    "toYYYYMMDD": lambda day: f"{day:%Y%m%d}",
    "toDate": lambda day: f"{day:%Y%m%d}",
}


def covered_partitions(partition_key: str, time_column: str, days: DateRange) -> tuple[str, ...] | None:
    """Return the ids of the partitions that ``days`` consists of, oldest first; None when it does not consist of any.

    None also for a key that is not one supported function of ``time_column`` alone. Whether the server computes the key
    in UTC is not known here: the rows of each partition must be looked at before it is dropped.

    >>> covered_partitions("toYYYYMM(scorecard_time)", "scorecard_time", DateRange.parse("2026-01-01", "2026-03-01"))
    ('202601', '202602')
    >>> covered_partitions("toYYYYMM(scorecard_time)", "scorecard_time", DateRange.parse("2026-01-01", "2026-01-31"))
    """
    found = re.fullmatch(r"\(?\s*(\w+)\(\s*`?([^`()]+?)`?\s*\)\s*\)?", partition_key.strip())
    if found is None or found.group(2) != time_column:
        return None
    function = found.group(1)
    if function in _DAILY:
        return tuple(_DAILY[function](day) for day in days.dates())
    if function in _MONTHLY and days.start.day == 1 and days.end.day == 1:
        return tuple(_MONTHLY[function](day) for day in days.dates() if day.day == 1)
    return None
