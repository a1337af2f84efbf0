"""Types of the fields of a cluster's configuration: patterns, bounds and the checks that need code."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from include.scorecard_backfill.planning.schedule import cron_problem

Order = Literal["delete_first", "reindex_first"]
"""Whether a window's rows go before they are written again, or only those that were not written again, afterwards."""

RunMode = Literal["cleanup", "reindex"]
"""cleanup = delete and reindex; reindex = write again only, nothing is deleted."""

MAX_PARALLEL_LIMIT = 200
"""Upper bound of windows in flight per cluster; 60 workflows at once already stressed the database."""

MAX_FAILURES_LIMIT = 1_000
"""Upper bound of failed windows before a run stops; a run has at most 1,024 (Airflow's max_map_length)."""

BATCH_COUNT = 20
"""Batches of a run at most: each is a task group of the DAG, which is made before there is a plan."""

MAX_CUSTOMER_CHARACTERS = 200

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


def is_zone(value: object) -> bool:
    """True if the value names an IANA time zone."""
    try:
        return isinstance(value, str) and bool(known_zone(value))
    except ValueError:
        return False


def readable_cron(value: str) -> str:
    """The value, if it is a cron line of five fields that fires; ValueError otherwise.

    Airflow reads the line again; here a bad one is refused with file and field, before it breaks a DAG.

    >>> readable_cron("0 6 2 * *")
    '0 6 2 * *'
    """
    problem = cron_problem(value)
    if problem:
        raise ValueError(problem)
    return value


def customer_id_reason(customer: str) -> str:
    """Why a text cannot be a customer id in a list that people write, with what to do; "" if it can."""
    if not customer.strip():
        return "is blank; remove the empty line"
    if "," in customer:
        return "holds a comma; write one id in each place of the list"
    if customer != customer.strip():
        return f"has blanks around it; write {customer.strip()!r}"
    if not customer.isprintable():
        return "holds a control character; write the id as it is in the database"
    if len(customer) > MAX_CUSTOMER_CHARACTERS:
        return f"is longer than {MAX_CUSTOMER_CHARACTERS} characters; write one customer id"
    return ""


def free_env(value: dict[str, str]) -> dict[str, str]:
    """The value, if it sets none of RESERVED_ENV; ValueError otherwise."""
    taken = sorted(RESERVED_ENV.intersection(value))
    if taken:
        raise ValueError(f"sets {', '.join(taken)}, which only the window itself may set; remove it")
    return value


ClusterName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
ConnId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,200}$")]
Cron = Annotated[str, AfterValidator(readable_cron)]
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
