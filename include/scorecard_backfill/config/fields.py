"""Types of the fields of a cluster's configuration: patterns, bounds and the checks that need code."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

RunMode = Literal["cleanup", "reindex"]
"""cleanup = delete and reindex; reindex = write again only, nothing is deleted."""

MAX_PARALLEL_LIMIT = 200
"""Upper bound of windows in flight per cluster; 60 workflows at once already stressed the database."""

MAX_FAILURES_LIMIT = 1_000
"""Upper bound of failed windows before a run stops; a run has at most 1,024 (Airflow's max_map_length)."""

RESERVED_ENV = frozenset(
    {
        "REINDEX_START_TIME",
        "REINDEX_END_TIME",
        "RUN_ONLY_FOR_CUSTOMER_IDS",
        # Would delete inside the Job, past the plan that a person has approved.
        "REINDEX_SCORECARDS_CLEAN_UP_BEFORE_WRITE",
    }
)
"""Variables of the Job that may not stand in `kubernetes.extra_env`: they belong to the window."""

_CRON_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_CRON_ITEM = re.compile(r"(?:\*|(?P<first>[0-9]{1,2})(?:-(?P<last>[0-9]{1,2}))?)(?:/[1-9][0-9]?)?")


class Frozen(BaseModel):
    """Base of every record: unknown keys are errors, nothing is converted, nothing changes afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def known_zone(value: str) -> str:
    """The value, if it names an IANA time zone; ValueError otherwise."""
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("is no IANA time zone; write for example America/New_York or UTC") from error
    return value


def five_cron_fields(value: str) -> str:
    """The value, if it is a crontab line of five numeric fields; ValueError otherwise.

    Airflow reads the line again; here a bad one is refused with file and field, before it breaks a DAG.

    >>> five_cron_fields("0 6 2 * *")
    '0 6 2 * *'
    """
    fields = value.split()
    if len(fields) != len(_CRON_FIELDS):
        raise ValueError(f"has {len(fields)} fields, not the 5 of minute hour day month weekday (0 6 2 * *)")
    for text, (name, low, high) in zip(fields, _CRON_FIELDS, strict=True):
        for item in text.split(","):
            match = _CRON_ITEM.fullmatch(item)
            if match is None:
                raise ValueError(f"{name} {item!r} is not *, a number or a range such as 1-5, with or without /step")
            numbers = [int(number) for number in match.group("first", "last") if number is not None]
            if any(not low <= number <= high for number in numbers) or numbers != sorted(numbers):
                raise ValueError(f"{name} {item!r} is not within {low}-{high}")
    return value


def free_env(value: dict[str, str]) -> dict[str, str]:
    """The value, if it sets none of RESERVED_ENV; ValueError otherwise."""
    taken = sorted(RESERVED_ENV.intersection(value))
    if taken:
        raise ValueError(f"sets {', '.join(taken)}, which only the window itself may set; remove it")
    return value


ClusterName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
ConnId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,200}$")]
Cron = Annotated[str, AfterValidator(five_cron_fields)]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
ExtraEnv = Annotated[dict[EnvName, str], AfterValidator(free_env)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
KubeName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Zone = Annotated[str, AfterValidator(known_zone)]

Bytes = Annotated[int, Field(ge=0, le=10**16)]
Count = Annotated[int, Field(ge=0, le=10_000_000)]
OutageSeconds = Annotated[int, Field(ge=600, le=86_400)]
"""An outage shorter than 10 minutes may never fail a window."""
Parallel = Annotated[int, Field(ge=1, le=MAX_PARALLEL_LIMIT)]
PerCustomer = Annotated[int, Field(ge=1, le=31)]
PollSeconds = Annotated[float, Field(ge=0.2, le=600)]
Polls = Annotated[int, Field(ge=1, le=100)]
Ratio = Annotated[float, Field(ge=0, le=10)]
Seconds = Annotated[int, Field(ge=1, le=604_800)]
"""At most 7 days."""
