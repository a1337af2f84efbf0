"""How far a run is and how long it will still take."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median

from include.scorecard_backfill.overview.facts import NO_TASK, RunFacts, WindowFacts
from include.scorecard_backfill.overview.model import Counts, Figures, Span, WindowRow
from include.scorecard_backfill.overview.rows import leaves
from include.scorecard_backfill.planning.plan import CONVERSATIONS_PER_MINUTE
from include.scorecard_backfill.plural import number_of


def counts_of(rows: Sequence[WindowRow]) -> Counts:
    """Return the planned windows by state."""
    found = Counter[str](row.state for row in rows if not row.part_of)
    return Counts(planned=found.total(), **found)


def figures_of(facts: RunFacts, rows: Sequence[WindowRow], now: datetime, *, going: bool) -> Figures:
    """Return percent, rows removed, conversations and the time left. ``now`` is aware."""
    counts = counts_of(rows)
    deciding = leaves(rows)
    total = sum(r.conversations for r in deciding)
    done = sum(r.conversations if r.state == "verified" else _written(r) for r in deciding)
    first = min((t for w in _all(facts) if (t := w.tasks.get("admit", NO_TASK).ended) and _admitted(w)), default=None)
    minutes = ((facts.ended or now) - first).total_seconds() / 60 if first else 0.0
    pace = round(done / minutes, 1) if done and minutes > 0 else None
    left, note = _left(facts, deciding, now, pace) if going else (None, "")
    return Figures(
        percent=100 * counts.verified // counts.planned if counts.planned else 0,
        removed=removed_of(rows),
        conversations=total,
        conversations_done=done,
        per_minute=pace,
        left=left,
        left_note=note,
    )


def removed_of(rows: Sequence[WindowRow]) -> dict[str, int]:
    """Return per table the rows that verified windows of the plan have lost."""
    total: dict[str, int] = defaultdict(int)
    for row in rows:
        if row.state == "verified" and not row.part_of:
            for table, n in row.tables.items():
                total[table] += n.removed or 0
    return dict(sorted(total.items()))


def _all(facts: RunFacts) -> list[WindowFacts]:
    return [window for windows in facts.passes for window in windows]


def _admitted(window: WindowFacts) -> bool:
    return window.tasks.get("admit", NO_TASK).state == "success"


def _written(row: WindowRow) -> int:
    return row.conversations * (row.percent or 0) // 100 if row.state == "working" else 0


def _left(facts: RunFacts, deciding: Sequence[WindowRow], now: datetime, pace: float | None) -> tuple[Span | None, str]:
    """Return the range and on what it rests.

    The shortest: all slots busy to the end, or the longest customer's chain, whichever is longer; the longest: one
    after the other. Both by the speed that was learned of each customer, else by the measured one of production, plus
    what windows of this run took besides their workflows. The pace of this run so far widens the range.
    """
    rest = [r for r in deciding if r.state in ("working", "waiting")]
    if not rest:
        return None, "nothing is left to be done"
    extra = _extra_minutes(facts)
    chains: dict[str, float] = defaultdict(float)
    for row in rest:
        speed = facts.learned[row.customer].per_minute if row.customer in facts.learned else 0.0
        chains[row.customer] += (row.conversations - _written(row)) / (speed or CONVERSATIONS_PER_MINUTE) + extra
    spread = sum(chains.values()) / facts.limits.max_parallel
    longest = max(chains.values()) / facts.limits.per_customer
    low, high = max(longest, spread), longest + spread
    known = sum(1 for c in chains if c in facts.learned and facts.learned[c].per_minute)
    basis = f"speed known of {known} of {number_of(len(chains), 'customer')},"
    basis += f" {number_of(facts.limits.max_parallel, 'window')} at once"
    if pace:
        by_pace = sum(r.conversations - _written(r) for r in rest) / pace
        low, high = min(low, by_pace), max(high, by_pace)
        basis += f", {pace:,.0f} conversations per minute so far"
    if facts.override is not None and facts.override.pause:
        basis = f"from the moment at which it is resumed; {basis}"
    elif facts.approval is not None and facts.approval.asked_at and not facts.approval.answer:
        basis = f"from the moment at which it is approved; {basis}"
    low_minutes, high_minutes = max(1, round(low)), max(1, round(high))
    return (
        Span(
            low_minutes=low_minutes,
            high_minutes=high_minutes,
            from_moment=now + timedelta(minutes=low_minutes),
            to_moment=now + timedelta(minutes=high_minutes),
        ),
        basis,
    )


def _extra_minutes(facts: RunFacts) -> float:
    """Return the median minutes that verified windows took besides their workflows (deletes, Jobs, verification)."""
    found = []
    for window in _all(facts):
        begun, ended = window.tasks.get("admit", NO_TASK).ended, window.tasks.get("verify", NO_TASK).ended
        result = window.results.get("wait_workflows")
        if begun and ended and ended > begun and result is not None and result.status == "completed":
            found.append(max(0.0, (ended - begun).total_seconds() / 60 - result.minutes))
    return median(found) if found else 0.0
