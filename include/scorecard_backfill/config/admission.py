"""How many windows of a cluster go at once, and when none may start."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from include.scorecard_backfill.config.fields import (
    MAX_FAILURES_LIMIT,
    Bytes,
    Count,
    Frozen,
    Parallel,
    PerCustomer,
    PollSeconds,
)


class AdmissionProfile(Frozen):
    """Limits of some days of the week; null = the cluster's own limit."""

    max_parallel: Parallel | None = Field(default=None, description="Windows in flight.")
    windows_per_customer: PerCustomer | None = Field(default=None, description="Windows of one customer in flight.")


class Hysteresis(Frozen):
    """A limit that stops above one value and goes on only below another, so that it does not flutter."""

    stop_above: Count = Field(description="No window is admitted once the value is above this.")
    resume_below: Count = Field(description="After a stop: admitted again once the value is below this.")

    @model_validator(mode="after")
    def _ordered(self) -> Hysteresis:
        if not 1 <= self.resume_below <= self.stop_above:
            raise ValueError(f"resume_below {self.resume_below} must be 1 to stop_above ({self.stop_above})")
        return self


class HealthConfig(Frozen):
    """When the cluster is too busy for another window. Each value is the worst host's; null = off."""

    unfinished_mutations: Hysteresis | None = Field(
        default=Hysteresis(stop_above=100, resume_below=50),
        description="Unfinished mutations, own and foreign.",
    )
    # PostHog waits above 100; ClickHouse itself delays inserts above 1000 (parts_to_delay_insert).
    active_parts: Hysteresis | None = Field(
        default=Hysteresis(stop_above=300, resume_below=200),
        description="Active parts of the fullest partition.",
    )
    replication_queue: Hysteresis | None = Field(
        default=Hysteresis(stop_above=500, resume_below=200), description="Entries of the replication queue."
    )
    # 60 at once stressed the database until operations cancelled them.
    running_workflows: Hysteresis | None = Field(
        default=Hysteresis(stop_above=40, resume_below=30), description="Open reindex workflows, anyone's."
    )
    # A mutation rewrites parts beside the old ones: room for two partitions of 50 GB.
    min_free_disk_bytes: Bytes = Field(
        default=100_000_000_000,
        description="Free bytes that the fullest host must have; 0 = not looked at.",
    )


class AdmissionConfig(Frozen):
    """How many windows go at once, and when a run stops by itself."""

    max_parallel: Parallel = Field(default=10, description="Windows of the cluster in flight.")
    windows_per_customer: PerCustomer = Field(default=1, description="Windows of one customer in flight.")
    weekday: AdmissionProfile = Field(
        default=AdmissionProfile(), description="Limits of Monday to Friday, in the zone."
    )
    weekend: AdmissionProfile = Field(
        default=AdmissionProfile(), description="Limits of Saturday and Sunday, in the zone."
    )
    global_max_parallel: Annotated[int, Field(ge=1, le=1_000)] | None = Field(
        default=None, description="Windows of all clusters in flight; null = no common limit."
    )
    max_failures: int = Field(
        default=10,
        ge=1,
        le=MAX_FAILURES_LIMIT,
        description="No new window once this many have failed for good.",
    )
    # GitLab stops above 50 % of at least 50 jobs; ours are fewer and larger.
    max_failure_share: float = Field(default=0.5, gt=0, le=1, description="No new window once this share has failed.")
    min_windows_for_share: int = Field(
        default=10, ge=1, le=1_000, description="Finished windows before the share counts."
    )
    poll_seconds: PollSeconds = Field(default=10, description="Interval of asking for admission.")
    health: HealthConfig = Field(default=HealthConfig(), description="When the cluster is too busy.")


class Limits(Frozen):
    """Limits in force at a moment."""

    max_parallel: Parallel = Field(description="Windows of the cluster in flight.")
    windows_per_customer: PerCustomer = Field(description="Windows of one customer in flight.")
