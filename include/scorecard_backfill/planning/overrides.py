"""A person's word while a run is going: pause, other limits. It has an author and an expiry, or it is not taken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pydantic import AwareDatetime, Field, ValidationError

from include.scorecard_backfill.config.fields import Frozen, Parallel, PerCustomer, Text
from include.scorecard_backfill.jsontext import from_text

MAX_AGE = timedelta(days=14)
"""Longest time that an override may be in force: what is meant for longer belongs in the cluster's file."""


class OverrideError(ValueError):
    """The text of an override cannot be used."""


class Override(Frozen):
    """What replaces the cluster's limits until ``until``."""

    author: Text = Field(description="Who asks for it.")
    until: AwareDatetime = Field(strict=False, description="When it ends, with zone, at most 14 days ahead.")
    reason: str = Field(default="", max_length=500, description="Why, for the log.")
    pause: bool = Field(default=False, description="True = no further window is admitted.")
    max_parallel: Parallel | None = Field(default=None, description="Windows in flight; null = as usual.")
    windows_per_customer: PerCustomer | None = Field(default=None, description="Of one customer; null = as usual.")

    @property
    def text(self) -> str:
        """Who, until when and why, for a sentence."""
        why = f": {self.reason}" if self.reason else ""
        return f"by {self.author} until {self.until.astimezone(UTC).isoformat(timespec='minutes')}{why}"


def in_force(text: str | None, now: datetime) -> Override | None:
    """Return the override that a variable's JSON text holds, None when there is none or it has expired.

    ``now`` is aware. Raises OverrideError with field, value and what would be right: whoever wrote it wanted
    something, so the caller must hold back and not go on as if nothing had been said.
    """
    if text is None or not text.strip():
        return None
    try:
        override = Override.model_validate(from_text(text))
    except ValidationError as error:
        parts = [f"{'.'.join(str(p) for p in e['loc']) or 'value'}: {e['msg'].lower()}" for e in error.errors()]
        example = '{"author": "jane", "until": "2026-01-31T18:00:00Z", "pause": true}'
        raise OverrideError(f"{'; '.join(parts)}; write it like {example}") from None
    except ValueError as error:
        raise OverrideError(f"is not JSON ({error})") from None
    if override.until <= now:
        return None
    if override.until - now > MAX_AGE:
        raise OverrideError(
            f"until: {override.until.isoformat()} is more than {MAX_AGE.days} days ahead; choose an earlier end, or"
            " change the cluster's file"
        )
    return override
