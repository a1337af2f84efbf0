"""What is known about a cluster: frozen pydantic models with a default, a bound and a description everywhere.

The defaults are the values of production; a cluster's YAML file names only what differs (`config_load` reads
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

from include.scorecard_backfill.config_clickhouse import (
    ClickHouseConfig,
    DeleteConfig,
    MustBeZero,
    VerifyBand,
)
from include.scorecard_backfill.config_fields import (
    MAX_FAILURES_LIMIT,
    Bytes,
    ClusterName,
    ConnId,
    Count,
    Cron,
    ExtraEnv,
    Frozen,
    KubeName,
    OutageSeconds,
    Parallel,
    PerCustomer,
    PollSeconds,
    RunMode,
    Seconds,
    Text,
    Zone,
)
from include.scorecard_backfill.windows import WindowMode

__all__ = [
    "AdmissionConfig",
    "AdmissionProfile",
    "ClickHouseConfig",
    "ClusterConfig",
    "DeleteConfig",
    "HealthConfig",
    "Hysteresis",
    "KubernetesConfig",
    "Limits",
    "MustBeZero",
    "RunMode",
    "ScheduleConfig",
    "SnapshotConfig",
    "TemporalConfig",
    "VerifyBand",
    "WindowsConfig",
]

SATURDAY = 5
"""`datetime.weekday()` of Saturday; Sunday is 6."""


class KubernetesConfig(Frozen):
    """The CronJob whose template becomes the reindex Job, and how long its stages may take."""

    conn_id: ConnId = Field(default="", description="Airflow connection; empty = kubernetes_<cluster, - as _>.")
    context: str = Field(default="", max_length=200, description="Context of the kubeconfig; empty = <cluster>_dev.")
    namespace: KubeName = Field(default="cresta-cron", description="Namespace of the CronJob and of the Jobs.")
    cronjob: KubeName = Field(
        default="cron-batch-reindex-conversations", description="CronJob whose jobTemplate is used."
    )
    ttl_seconds_after_finished: int = Field(
        default=604_800,
        ge=3_600,
        le=2_592_000,
        description="How long a finished Job stays to be read (7 days).",
    )
    startup_timeout_seconds: Seconds = Field(default=600, description="From Job to running pod.")
    pull_error_grace_seconds: Annotated[int, Field(ge=0, le=3_600)] = Field(
        default=120, description="ImagePullBackOff and the like may last this long."
    )
    deadline_seconds: Seconds = Field(
        default=3_600, description="From Job to its condition; it only starts the workflows."
    )
    poll_seconds: PollSeconds = Field(default=10, description="Interval of looking at the Job.")
    outage_seconds: OutageSeconds = Field(default=600, description="The API may be unreachable for this long.")
    # Airflow fails a task whose trigger fires before the executor's own event was handled.
    first_poll_after_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        default=20, description="The waiting trigger does not fire before this."
    )
    extra_env: ExtraEnv = Field(
        default={}, description="More environment of the Job, for example REINDEX_MODE: process. No secrets."
    )
    active_scheduled_job: Literal["wait", "refuse"] = Field(
        default="wait",
        description="If a Job of the CronJob's own schedule is running: wait for it, or refuse the window.",
    )


class TemporalConfig(Frozen):
    """The workflows that a reindex Job starts."""

    conn_id: ConnId = Field(default="", description="Airflow connection; empty = temporal_<cluster, - as _>.")
    namespace: Text = Field(default="ingestion", description="Temporal namespace.")
    workflow_type: Text = Field(default="ReindexConversations", description="Type of the workflows.")
    workflow_id_prefix: Text = Field(
        default="reindexconversations", description="Ids are <prefix>-<customer>-<profile>-<uuid>."
    )
    poll_seconds: PollSeconds = Field(default=30, description="Interval of one list query per cluster.")
    # 5 days of a large customer took 2 to 6 hours.
    deadline_seconds: Seconds = Field(default=43_200, description="All workflows of a window closed within this.")
    outage_seconds: OutageSeconds = Field(default=600, description="Temporal may be unreachable for this long.")


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


class WindowsConfig(Frozen):
    """Size of windows when the run does not say."""

    mode: WindowMode = Field(default="auto", description="auto = by volume; or month, 10d, 5d, 1d.")
    # 400-460K in 5 days and 640K in 10 days finished; 1.3M failed by heartbeat time-out.
    target_conversations: int = Field(
        default=400_000, ge=1, le=10_000_000, description="Conversations of an auto window."
    )
    # 5 days of a large customer took 2 to 6 hours.
    window_minutes: int = Field(
        default=360, ge=1, le=10_080, description="Minutes of reindexing of an auto window, once its speed is known."
    )
    cut_at_months: bool = Field(default=True, description="Auto windows end at months, so that partitions stay whole.")


class ScheduleConfig(Frozen):
    """The run that nobody starts: the previous calendar month, all customers."""

    cron: Cron | None = Field(
        default="0 6 2 * *", description="Five cron fields in the cluster's zone; null = no schedule."
    )
    mode: RunMode = Field(default="reindex", description="What a scheduled run does.")
    allow_scheduled_cleanup: bool = Field(default=False, description="Must be true for mode cleanup: it deletes rows.")
    require_approval: bool = Field(default=True, description="A scheduled cleanup asks a person before it deletes.")

    @model_validator(mode="after")
    def _deletes_only_on_purpose(self) -> ScheduleConfig:
        if self.mode == "cleanup" and not self.allow_scheduled_cleanup:
            raise ValueError("mode cleanup deletes rows on a schedule; add allow_scheduled_cleanup: true if meant")
        return self


class SnapshotConfig(Frozen):
    """Copy of a window's rows before they are deleted, to name what did not come back and to put it back."""

    enabled: bool = Field(default=False, description="Take one.")
    keep_days: int = Field(default=14, ge=1, le=365, description="Days after which it may be removed.")


class Limits(Frozen):
    """Limits in force at a moment."""

    max_parallel: Parallel = Field(description="Windows of the cluster in flight.")
    windows_per_customer: PerCustomer = Field(description="Windows of one customer in flight.")


class ClusterConfig(Frozen):
    """Everything about one cluster. Connection ids and the kube context follow from the name if not given."""

    name: ClusterName = Field(description="Name of the cluster, and of its file without .yaml.")
    enabled: bool = Field(default=True, description="False = no DAG is made.")
    # Retries are for killed workers and lost connections; what a retry cannot mend fails at once.
    retry_delay_seconds: Seconds = Field(default=30, description="Before Airflow repeats a task, doubled each time.")
    owner: Text = Field(default="data-platform", description="Owner shown by Airflow.")
    tags: Annotated[tuple[Text, ...], Strict(False)] = Field(
        default=("scorecard-backfill",), max_length=20, description="Tags shown by Airflow."
    )
    timezone: Zone = Field(default="UTC", description="IANA zone of the schedule, of 'previous month' and of weekends.")
    clickhouse: ClickHouseConfig = Field(default=ClickHouseConfig(), description="Where rows are deleted and counted.")
    kubernetes: KubernetesConfig = Field(default=KubernetesConfig(), description="Where the reindex Job runs.")
    temporal: TemporalConfig = Field(default=TemporalConfig(), description="Where its workflows run.")
    admission: AdmissionConfig = Field(default=AdmissionConfig(), description="How many windows go at once.")
    windows: WindowsConfig = Field(default=WindowsConfig(), description="How large windows are.")
    schedule: ScheduleConfig = Field(default=ScheduleConfig(), description="The monthly run.")
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
        empty = {key: value for key, value in defaults.items() if getattr(section, key) == ""}
        return section.model_copy(update=empty)
    return section
