"""What is known about a cluster's Kubernetes: the CronJob whose template becomes the Job, and how long it may take."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from include.scorecard_backfill.config.fields import (
    ConnId,
    ExtraEnv,
    Frozen,
    KubeName,
    OutageSeconds,
    PollSeconds,
    Seconds,
)


class KubernetesConfig(Frozen):
    """The CronJob whose template becomes the reindex Job, and how long its stages may take."""

    conn_id: ConnId = Field(default="", description="Airflow connection; empty = kubernetes_<cluster, - as _>.")
    context: str = Field(default="", max_length=200, description="Context of the kubeconfig; empty = <cluster>_dev.")
    namespace: KubeName = Field(default="cresta-cron", description="Namespace of the CronJob and of the Jobs.")
    cronjob: KubeName = Field(
        default="cron-batch-reindex-conversations", description="CronJob whose jobTemplate is used."
    )
    container: Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$")] = Field(
        default="",
        description="Container of the template with the reindex program; empty = the one that the annotation"
        " kubectl.kubernetes.io/default-container of its pods names, else its first one.",
    )
    ttl_seconds_after_finished: int = Field(
        default=604_800,
        ge=3_600,
        le=2_592_000,
        description="How long a finished Job stays to be read (7 days).",
    )
    startup_timeout_seconds: Seconds = Field(default=600, description="From the Job's start to a running pod.")
    pull_error_grace_seconds: Annotated[int, Field(ge=0, le=3_600)] = Field(
        default=120, description="ImagePullBackOff and the like may last this long."
    )
    deadline_seconds: Seconds = Field(
        default=3_600, description="From the Job's start to its condition; it only starts the workflows."
    )
    # Such a time is another system's, and the rows of the window are gone while it passes.
    queue_timeout_seconds: Seconds = Field(
        default=86_400, description="A quota or a queue that suspends Jobs may hold one back for this long."
    )
    poll_seconds: PollSeconds = Field(
        default=10, description="Longest interval of looking at the Job: a fifth of it at first."
    )
    outage_seconds: OutageSeconds = Field(default=600, description="The API may be unreachable for this long.")
    extra_env: ExtraEnv = Field(
        default={}, description="More environment of the Job, for example REINDEX_MODE: process. No secrets."
    )
    active_scheduled_job: Literal["wait", "refuse"] = Field(
        default="wait",
        description="If a Job of the CronJob's own schedule is running: wait for it, or refuse the window.",
    )
