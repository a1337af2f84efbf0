"""The run that nobody starts."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field, Strict, field_validator, model_validator

from include.scorecard_backfill.config.fields import Cron, Frozen, RunMode, Text, Zone, customer_id_reason
from include.scorecard_backfill.planning.schedule import schedule_problem
from include.scorecard_backfill.planning.windows import DateRange


class ScheduleConfig(Frozen):
    """When a run starts by itself, and for whom: it takes the previous calendar month in the zone of the schedule."""

    cron: Cron | None = Field(
        default="0 6 2 * *", description="Five cron fields on the wall clock of the zone; null = no schedule."
    )
    timezone: Zone = Field(default="UTC", description="IANA zone of the schedule; missing = that of the cluster.")
    mode: RunMode = Field(default="reindex", description="What a scheduled run does.")
    all_customers: bool = Field(default=True, description="Every customer of the cluster.")
    customers: Annotated[tuple[Text, ...], Strict(False)] = Field(
        default=(), max_length=1_000, description="Customer ids, with all_customers: false."
    )
    allow_scheduled_cleanup: bool = Field(default=False, description="Must be true for mode cleanup: it deletes rows.")
    require_approval: bool = Field(default=True, description="A scheduled cleanup asks a person before it deletes.")
    # The scheduler makes a run seconds after its slot, and some minutes after it when it was just started again.
    grace_seconds: int = Field(
        default=300,
        ge=60,
        le=86_400,
        description="How late after its slot a run may start; later it does not start at all, and that is shown.",
    )

    @field_validator("customers")
    @classmethod
    def _usable_ids(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for customer in value:
            reason = customer_id_reason(customer)
            if reason:
                raise ValueError(f"{customer!r} {reason}")
        if len(set(value)) < len(value):
            twice = next(customer for customer in value if value.count(customer) > 1)
            raise ValueError(f"{twice!r} is named twice; name it once")
        return value

    @model_validator(mode="after")
    def _can_work(self) -> ScheduleConfig:
        if self.mode == "cleanup" and not self.allow_scheduled_cleanup:
            raise ValueError("mode cleanup deletes rows on a schedule; add allow_scheduled_cleanup: true if meant")
        if self.customers and self.all_customers:
            raise ValueError("customers are named and all_customers is true; add all_customers: false, or name nobody")
        if self.cron is not None and not self.customers and not self.all_customers:
            raise ValueError("nobody is chosen; name customers, set all_customers: true, or cron: null for no schedule")
        problem = "" if self.cron is None else schedule_problem(self.cron, self.zone)
        if problem:
            raise ValueError(f"cron {self.cron!r} {problem}")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The zone of `timezone`."""
        return ZoneInfo(self.timezone)

    def conf_for(self, days: DateRange) -> dict[str, object]:
        """The form of a run by hand that does what the schedule would have done for `days`; JSON-able.

        A person starts it, so the form's own question before deleting stays.
        """
        return {
            "customers": list(self.customers),
            "all_customers": self.all_customers,
            "mode": self.mode,
            "start_date": days.start.isoformat(),
            "end_date": days.end.isoformat(),
        }

    @property
    def grace(self) -> timedelta:
        """`grace_seconds` as a duration."""
        return timedelta(seconds=self.grace_seconds)
