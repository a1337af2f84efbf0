"""Which workflows has a window's Job started?

Two sources name them, the Job's log and the server's list; neither is complete by itself: a log may be cut off or
unreadable, a list lags behind and shows what others have started, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from include.scorecard_backfill.verdicts.base import Verdict, failed, ok, wait

_UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"

MAX_INSTANT = 40
"""Characters of the longest RFC 3339 instant that is looked at."""


@dataclass(frozen=True, slots=True)
class Ids:
    """How the workflow ids of one window are made: ``<prefix>-<customer>-<profile>-<uuid>``."""

    prefix: str
    customer_id: str
    profiles: tuple[str, ...]

    def profile_of(self, workflow_id: str) -> str:
        """Return the window's profile that an id names, '' for ids of others.

        The whole id decides: a prefix alone would also take ``acme-sandbox`` for ``acme``.

        >>> ids = Ids("reindex", "acme", ("voice",))
        >>> ids.profile_of("reindex-acme-voice-0b7f2a34-0000-4000-8000-000000000001")
        'voice'
        >>> ids.profile_of("reindex-acme-sandbox-voice-0b7f2a34-0000-4000-8000-000000000001")
        ''
        """
        for profile in self.profiles:
            start = f"{self.prefix}-{self.customer_id}-{profile}-"
            if workflow_id.startswith(start) and re.fullmatch(_UUID, workflow_id[len(start) :]):
                return profile
        return ""

    def lacking(self, workflow_ids: Iterable[str]) -> list[str]:
        """Return the profiles without a workflow, in order.

        An id of another form altogether (the log's word, from a reindexer that makes its ids in another way) stands
        for one profile, nobody knows which.
        """
        listed = list(dict.fromkeys(workflow_ids))
        named = {self.profile_of(i) for i in listed}
        strangers = sum(not i.startswith(f"{self.prefix}-") for i in listed)
        return [p for p in self.profiles if p not in named][strangers:]


@dataclass(frozen=True, slots=True)
class Expected:
    """``ids``: what is known of so far, each id once. ``verdict``: ok when no further one is to be expected."""

    ids: tuple[str, ...]
    verdict: Verdict


def expected(by_log: Sequence[str], by_query: Sequence[str], ids: Ids, *, waited: float, settle: float) -> Expected:
    """Decide whether all workflows of a window are known. The Job has completed; it starts nothing any more.

    ``by_log``: ids that the Job's log names. ``by_query``: ids of this customer and these profiles that the server
    lists as started since the Job was made and that no other window is known to have started. ``waited``: seconds
    since the Job's end; ``settle``: seconds after which the server's list shows everything.

    1. Both sources together have a workflow for each profile: these are all.
    2. A profile has none yet: the list lags behind, so wait until ``settle``.
    3. Then a profile may be without work, and only both sources can say so together: the log names at least one
       workflow, and the list shows exactly those of the log. So the log was read, it was read to its end, and nothing
       else was started.
    4. Anything else is unknown (an empty log, or one that the list contradicts), and unknown is never ok: failed.
    """
    known = tuple(dict.fromkeys((*by_log, *by_query)))
    lacking = ids.lacking(known)
    sources = f"the Job's log names {len(set(by_log))}, the query finds {len(set(by_query))}"
    if not lacking:
        return Expected(known, ok(f"{len(known)} workflows: {sources}"))
    profiles = f"profile{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}"
    if waited < settle:
        left = f"waiting {settle:.0f} s for more, {max(0.0, waited):.0f} s have passed"
        return Expected(known, wait(f"no workflow for {profiles} yet: {sources}; {left}"))
    in_log = {i for i in by_log if ids.profile_of(i)}
    if in_log and in_log == set(by_query):
        return Expected(known, ok(f"{profiles} had no work: {sources}, the same"))
    found = f"no workflow for {profiles}: {sources}, nothing more appeared within {settle:.0f} s"
    return Expected(known, failed("too_few_workflows", found))


def about_window(values: Iterable[object], start: date, end: date) -> bool | None:
    """Return whether a workflow's input, memo or attributes name the UTC days from ``start`` to ``end`` (exclusive).

    None when they do not say: fewer than two UTC midnights are in them. A workflow of other days is not this window's,
    also when customer and profile are the same.
    """
    midnights = set(_midnights(values))
    wanted = {datetime.combine(day, time(), UTC) for day in (start, end)}
    if wanted <= midnights:
        return True
    return False if len(midnights) > 1 else None


def _midnights(values: Iterable[object]) -> Iterator[datetime]:
    left = list(values)
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            left.extend(value.values())
        elif isinstance(value, list | tuple):
            left.extend(value)
        elif isinstance(value, str) and "T" in value and len(value) <= MAX_INSTANT:
            try:
                moment = datetime.fromisoformat(value)
                moment = moment.astimezone(UTC) if moment.tzinfo else datetime.max
            except (ValueError, OverflowError):
                continue
            if moment.timetz() == time(tzinfo=UTC):
                yield moment
