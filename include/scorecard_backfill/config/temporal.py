"""What is known about a cluster's Temporal: the workflows that a reindex Job starts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from include.scorecard_backfill.config.fields import ConnId, Frozen, OutageSeconds, PollSeconds, Seconds, Text

Moments = Annotated[float, Field(ge=0, le=3_600)]
"""Seconds, at most an hour."""


class TemporalConfig(Frozen):
    """The workflows that a reindex Job starts."""

    conn_id: ConnId = Field(default="", description="Airflow connection; empty = temporal_<cluster, - as _>.")
    namespace: Text = Field(default="ingestion", description="Temporal namespace.")
    workflow_type: Text = Field(default="ReindexConversations", description="Type of the workflows.")
    workflow_id_prefix: Text = Field(
        default="reindexconversations", description="Ids are <prefix>-<customer>-<profile>-<uuid>."
    )
    poll_seconds: PollSeconds = Field(
        default=30, description="Longest interval of one list query per cluster: a fifth of it at first."
    )
    # Visibility lags by seconds; a minute more than that is nothing beside hours of reindexing.
    settle_seconds: Moments = Field(
        default=120, description="After a Job's end the list of workflows shows everything within this."
    )
    clock_skew_seconds: Moments = Field(
        default=60, description="How far the clocks of Kubernetes and Temporal may be apart."
    )
    # 5 days of a large customer took 2 to 6 hours.
    deadline_seconds: Seconds = Field(default=43_200, description="All workflows of a window closed within this.")
    internal_jobs_conn_id: ConnId = Field(
        default="", description="Airflow connection to the InternalJobService, a second opinion; empty = not asked."
    )
    outage_seconds: OutageSeconds = Field(default=600, description="Temporal may be unreachable for this long.")
