"""What an undo has put back, kept beside the debts: a window that had deleted it must not call it reindexed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import date
from typing import Any

from backfill.kit.debts import asset_state
from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.records import Window

PUT_BACK = "put-back"
"""List of customer, first day, day after the last one and epoch seconds of the newest undo of these days."""


def remember_put_back(cluster: str, windows: Iterable[Window]) -> None:
    """Keep that rows of these windows are being put back, before the first of them is."""
    store = asset_state(cluster)
    kept = {tuple(place): at for *place, at in store.get(PUT_BACK, default=[])}
    now = time.time()
    kept |= {(w.customer_id, w.start.isoformat(), w.end.isoformat()): now for w in windows}
    store.set(PUT_BACK, [[*place, at] for place, at in sorted(kept.items())])


async def put_back_between(cluster: str, window: Window, start: float, end: float) -> bool:
    """Return True when the newest undo of any day of a window lies between two moments (epoch seconds); in triggers."""
    found: Any = await asset_state(cluster).aget(PUT_BACK, default=[])
    return any(
        customer == window.customer_id
        and start < at < end
        and window.range.overlaps(DateRange(date.fromisoformat(first), date.fromisoformat(after)))
        for customer, first, after, at in found
    )
