"""What is known about a cluster: one frozen model per section, and the reading of the YAML files."""

from __future__ import annotations

from include.scorecard_backfill.config.admission import (
    AdmissionConfig,
    AdmissionProfile,
    HealthConfig,
    Hysteresis,
    Limits,
)
from include.scorecard_backfill.config.clickhouse import ClickHouseConfig, DeleteConfig, MustBeZero, VerifyBand
from include.scorecard_backfill.config.cluster import ClusterConfig
from include.scorecard_backfill.config.fields import RunMode
from include.scorecard_backfill.config.kubernetes import KubernetesConfig
from include.scorecard_backfill.config.notify import NotifyConfig
from include.scorecard_backfill.config.schedule import ScheduleConfig
from include.scorecard_backfill.config.temporal import TemporalConfig
from include.scorecard_backfill.config.waits import WaitsConfig
from include.scorecard_backfill.config.windows import SnapshotConfig, WindowsConfig

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
    "NotifyConfig",
    "RunMode",
    "ScheduleConfig",
    "SnapshotConfig",
    "TemporalConfig",
    "VerifyBand",
    "WaitsConfig",
    "WindowsConfig",
]
