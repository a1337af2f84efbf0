"""How long a wait sleeps between two looks: short at first, longer for long work. Pure."""

from __future__ import annotations

FIRST_SHARE = 5
"""The first pauses are this part of the longest one, so that short work does not wait for a look at long work."""

FIRST_SECONDS = (1.0, 30.0)
"""Bounds of the first pauses: at most a look a second, and no end is seen more than 30 s (or a tenth) late."""

SHARE_OF_THE_WAIT = 0.1
"""A pause is this part of what was waited so far: an end is seen late by a tenth of the work's time at most."""


def pause(waited: float, longest: float) -> float:
    """Return the seconds until the next look.

    ``waited`` are the seconds since the first look, ``longest`` is the configured interval (seconds), which no pause
    exceeds.
    """
    shortest, latest = FIRST_SECONDS
    first = min(max(longest / FIRST_SHARE, shortest), latest)
    return min(longest, max(first, waited * SHARE_OF_THE_WAIT))
