"""What is known about a cluster: one frozen model per section, and the reading of the YAML files."""

from __future__ import annotations

from include.scorecard_backfill.config.cluster import (
    AdmissionConfig,
    AdmissionProfile,
    ClickHouseConfig,
    ClusterConfig,
    DeleteConfig,
    HealthConfig,
    Hysteresis,
    KubernetesConfig,
    Limits,
    MustBeZero,
    NotifyConfig,
    RunMode,
    ScheduleConfig,
    SnapshotConfig,
    TemporalConfig,
    VerifyBand,
    WaitsConfig,
    WindowsConfig,
)

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
