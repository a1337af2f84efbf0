"""What is known about a cluster: frozen pydantic models with a default, a bound and a description everywhere.

The defaults are the values of production; a cluster's YAML file names only what differs (`load` reads
it). Units are in the names: `_seconds`, `_days`, `_bytes`. No secret belongs here: passwords and tokens live
in the Airflow connections that are named here. Values are not converted (the text "10" is no number). Dicts
are not to be changed by their readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, Strict, model_validator

from include.scorecard_backfill.config.admission import (
    AdmissionConfig,
    Limits,
)
from include.scorecard_backfill.config.clickhouse import (
    ClickHouseConfig,
)
from include.scorecard_backfill.config.fields import (
    ClusterName,
    Frozen,
    Order,
    Seconds,
    Text,
    Zone,
    is_zone,
)
from include.scorecard_backfill.config.kubernetes import KubernetesConfig
from include.scorecard_backfill.config.links import LinksConfig
from include.scorecard_backfill.config.notify import NotifyConfig
from include.scorecard_backfill.config.schedule import ScheduleConfig
from include.scorecard_backfill.config.temporal import TemporalConfig
from include.scorecard_backfill.config.waits import WaitsConfig
from include.scorecard_backfill.config.windows import SnapshotConfig, WindowsConfig

SATURDAY = 5
"""`datetime.weekday()` of Saturday; Sunday is 6."""


class ClusterConfig(Frozen):
    """Everything about one cluster. Connection ids and the kube context follow from the name if not given."""

    name: ClusterName = Field(description="Name of the cluster, and of its file without .yaml.")
    enabled: bool = Field(default=True, description="False = no DAG is made.")
    # Retries are for killed workers and lost connections; what a retry cannot mend fails at once.
    retry_delay_seconds: Seconds = Field(
        default=30, description="Before Airflow repeats a task; doubled each time, to eight times this at most."
    )
    owner: Text = Field(default="data-platform", description="Owner shown by Airflow.")
    tags: Annotated[tuple[Text, ...], Strict(False)] = Field(
        default=("scorecard-backfill",), max_length=20, description="Tags shown by Airflow."
    )
    timezone: Zone = Field(
        default="UTC", description="IANA zone of 'previous month', of weekends, and of the schedule."
    )
    clickhouse: ClickHouseConfig = Field(default=ClickHouseConfig(), description="Where rows are deleted and counted.")
    kubernetes: KubernetesConfig = Field(default=KubernetesConfig(), description="Where the reindex Job runs.")
    temporal: TemporalConfig = Field(default=TemporalConfig(), description="Where its workflows run.")
    waits: WaitsConfig = Field(default=WaitsConfig(), description="How patient the waits are.")
    admission: AdmissionConfig = Field(default=AdmissionConfig(), description="How many windows go at once.")
    windows: WindowsConfig = Field(default=WindowsConfig(), description="How large windows are.")
    schedule: ScheduleConfig = Field(default=ScheduleConfig(), description="The monthly run.")
    orders: Annotated[tuple[Order, ...], Strict(False)] = Field(
        default=("delete_first",),
        min_length=1,
        max_length=2,
        description="delete_first, reindex_first, or both; the first one is the form's default.",
    )
    links: LinksConfig = Field(default=LinksConfig(), description="Addresses of other systems' pages.")
    notify: NotifyConfig = Field(default=NotifyConfig(), description="Whom runs tell what.")
    approve: Literal["plan", "sweep", "both"] = Field(
        default="plan",
        description="What a person approves in order reindex_first: the plan, each sweep with its numbers, or both.",
    )
    snapshot: SnapshotConfig = Field(default=SnapshotConfig(), description="Copy of the rows before a delete.")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_name(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
            return data
        name = data["name"]
        filled = dict(data)
        for section in ("clickhouse", "kubernetes", "temporal"):
            defaults = {"conn_id": f"{section}_{name.replace('-', '_')}"}
            if section == "kubernetes":
                defaults["context"] = f"{name}_dev"
            filled[section] = _with_defaults(filled.get(section, {}), defaults)
        if is_zone(data.get("timezone")):
            filled["schedule"] = _with_defaults(filled.get("schedule", {}), {"timezone": data["timezone"]})
        return filled

    @property
    def zone(self) -> ZoneInfo:
        """The zone of `timezone`."""
        return ZoneInfo(self.timezone)

    def limits_at(self, moment: datetime) -> Limits:
        """The limits in force at `moment` (aware): those of its weekday or weekend, else the usual ones.

        Raises:
            ValueError: `moment` carries no time zone.
        """
        if moment.utcoffset() is None:
            raise ValueError(f"moment {moment.isoformat()} has no time zone; give an aware datetime")
        weekend = moment.astimezone(self.zone).weekday() >= SATURDAY
        profile = self.admission.weekend if weekend else self.admission.weekday
        return Limits(
            max_parallel=profile.max_parallel or self.admission.max_parallel,
            windows_per_customer=profile.windows_per_customer or self.admission.windows_per_customer,
        )


def _with_defaults(section: Any, defaults: Mapping[str, str]) -> Any:
    """Fill the fields that are missing or empty, in a dict of the YAML or in a model made by a program."""
    if isinstance(section, Mapping):
        return {**section, **{key: value for key, value in defaults.items() if section.get(key, "") == ""}}
    if isinstance(section, Frozen):
        given = section.model_dump(exclude_unset=True)
        return type(section).model_validate(_with_defaults(given, defaults))
    return section
