"""What data a sandbox cluster holds: customers, profiles, rates and dates. Pure records."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

FIRST_DAY = date(2025, 12, 1)
"""First UTC day of the presets: one month before the month that the demo cleans (2026-01)."""

END_DAY = date(2026, 3, 1)
"""Exclusive end of the presets: one month after the month that the demo cleans."""

_NOT_KEPT = re.compile(r"[^A-Za-z0-9_]")


class SpecError(ValueError):
    """A data spec that cannot be generated; the text names the field and the value."""


@dataclass(frozen=True, slots=True)
class ProfileSpec:
    """One customer and profile.

    per_month: conversations per calendar month (>= 0); a partial month gets its share, rounded up.
    with_scorecard_score: whether the database also has the table `scorecard_score`.
    """

    customer_id: str
    profile_id: str
    per_month: int
    with_scorecard_score: bool = False

    @property
    def database(self) -> str:
        """Name of the ClickHouse database of this customer and profile."""
        return database_name(self.customer_id, self.profile_id)


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """All data of one cluster; the same spec always gives the same records.

    first_day inclusive, end_day exclusive (UTC days). Shares are 0..1 of the scorecards.
    stragglers: scorecards per profile and month whose conversation starts before the month or is missing
    in the source store (so a reindex of the month does not bring them back).
    """

    name: str
    seed: int
    profiles: tuple[ProfileSpec, ...]
    first_day: date = FIRST_DAY
    end_day: date = END_DAY
    appeal_share: float = 0.1
    duplicate_share: float = 0.02
    stragglers: int = 0

    def __post_init__(self) -> None:
        if self.end_day <= self.first_day:
            raise SpecError(f"end_day {self.end_day} must be after first_day {self.first_day} (end is exclusive)")
        if self.stragglers < 0:
            raise SpecError(f"stragglers is {self.stragglers}, must be 0 or more")
        for field in ("appeal_share", "duplicate_share"):
            if not 0 <= getattr(self, field) <= 1:
                raise SpecError(f"{field} is {getattr(self, field)}, must be between 0 and 1")
        pairs = [(p.customer_id, p.profile_id) for p in self.profiles]
        if len(set(pairs)) != len(pairs):
            raise SpecError(f"profiles of {self.name!r} name a customer and profile twice: {sorted(pairs)}")
        for profile in self.profiles:
            if profile.per_month < 0:
                raise SpecError(f"per_month of {profile.customer_id!r} is {profile.per_month}, must be 0 or more")


def database_name(customer_id: str, profile_id: str) -> str:
    """The sanitised database name: each character that is not a letter, digit or `_` becomes `_`.

    >>> database_name("globex.eu", "voice-1")
    'globex_eu_voice_1'
    """
    return _NOT_KEPT.sub("_", f"{customer_id}_{profile_id}")


_PRESETS: dict[str, tuple[ProfileSpec, ...]] = {
    "sandbox-east": (
        ProfileSpec("acme", "voice", 120, with_scorecard_score=True),
        ProfileSpec("acme", "chat", 80),
        ProfileSpec("acme-sandbox", "voice", 60),
        ProfileSpec("globex.eu", "voice-1", 100),
        ProfileSpec("initech", "voice", 90, with_scorecard_score=True),
        ProfileSpec("hooli", "chat", 140),
        ProfileSpec("stark-industries", "voice", 160),
        ProfileSpec("wayne", "voice", 200),
        ProfileSpec("umbrella", "voice", 3000),
    ),
    "sandbox-west": (
        ProfileSpec("cyberdyne", "voice", 3000),
        ProfileSpec("soylent", "voice:es-mx", 110, with_scorecard_score=True),
        ProfileSpec("tyrell", "chat", 70),
    ),
}

PRESETS = tuple(_PRESETS)
"""Names of the sandbox clusters that `preset_spec` knows."""


def preset_spec(name: str, seed: int, scale: float = 1.0, stragglers: int = 0) -> ClusterSpec:
    """The spec of a sandbox cluster. scale multiplies the conversations per month (> 0, at least 2 remain).

    Raises SpecError for an unknown name or a scale that is not positive.
    """
    if name not in _PRESETS:
        raise SpecError(f"cluster {name!r} has no preset; known: {', '.join(_PRESETS)} (or pass --customer)")
    if scale <= 0:
        raise SpecError(f"scale is {scale}, must be above 0")
    profiles = tuple(
        ProfileSpec(p.customer_id, p.profile_id, max(2, round(p.per_month * scale)), p.with_scorecard_score)
        for p in _PRESETS[name]
    )
    return ClusterSpec(name=name, seed=seed, profiles=profiles, stragglers=stragglers)


def rates_spec(
    name: str,
    rates: Mapping[str, int],
    *,
    seed: int = 1,
    first_day: date = date(2026, 1, 1),
    end_day: date = date(2026, 2, 1),
    profile_id: str = "voice",
    stragglers: int = 0,
) -> ClusterSpec:
    """A spec for tests: one profile per customer, `rates` = conversations per calendar month.

    A key `customer/profile` names another profile than `profile_id`.
    """
    profiles = []
    for key, per_month in rates.items():
        customer, _, profile = key.partition("/")
        profiles.append(ProfileSpec(customer, profile or profile_id, per_month))
    return ClusterSpec(
        name=name,
        seed=seed,
        profiles=tuple(profiles),
        first_day=first_day,
        end_day=end_day,
        stragglers=stragglers,
    )
