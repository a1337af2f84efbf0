"""Limits in force, and which windows of a run really work: live Jobs and open workflows beside Airflow's states."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from airflow.sdk import Variable

from backfill.groups import GROUPS
from backfill.settings import OVERRIDE_VARIABLE
from include.scorecard_backfill import names
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.foreign import ForeignJson
from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.planning.overrides import Override, in_force
from include.scorecard_backfill.records import Window
from include.scorecard_backfill.verdicts.admission import Limits, Work
from include.scorecard_backfill.verdicts.jobs import job_outcome
from include.scorecard_backfill.verdicts.workflows import belongs_to

MAKES_JOBS = ("reindex", "wait_workflows", "verify")
"""Stages that may make a Job: the first one, and the ones that do so when they are cleared after a failure."""

LIVE = frozenset({"running", "queued", "scheduled", "deferred", "up_for_retry", "up_for_reschedule", "restarting"})


def override_text(cluster: str) -> str | None:
    """Return the text of a cluster's override variable, None when there is none. Blocks."""
    text: str | None = Variable.get(OVERRIDE_VARIABLE.format(cluster=cluster), default=None)
    return text


def override_now(text: str | None) -> Override | None:
    """Return the override in force now. Raises OverrideError when it cannot be used."""
    return in_force(text, datetime.now(UTC))


def limits_now(config: ClusterConfig, run: Chosen, override: Override | None) -> Limits:
    """Return the limits of a run at this moment: override, else the run's form, else the cluster's profile of today."""
    admission = config.admission
    now = config.limits_at(datetime.now(UTC))
    limits = Limits(
        max_parallel=now.max_parallel if run.asked_parallel is None else run.asked_parallel,
        per_customer=now.windows_per_customer,
        max_failures=run.max_failures or admission.max_failures,
        max_failure_share=admission.max_failure_share,
        min_windows_for_share=admission.min_windows_for_share,
    )
    if override is None:
        return limits
    return replace(
        limits,
        max_parallel=override.max_parallel or limits.max_parallel,
        per_customer=override.windows_per_customer or limits.per_customer,
    )


def stage_ids() -> list[str]:
    """Return the task ids of the stages that may make a Job, in every pass."""
    return [f"{group}.{stage}" for group in GROUPS for stage in MAKES_JOBS]


@dataclass(frozen=True, slots=True)
class Place:
    """A window of a run and where its task instances are: task group and map index."""

    group: str
    index: int
    window: Window


def works(
    places: Sequence[Place],
    states: Mapping[str, str | None],
    jobs: Sequence[ForeignJson],
    open_ids: Collection[str],
    config: ClusterConfig,
) -> list[Work]:
    """Return each window's work. ``states`` are Airflow's by ``group.stage_index``, ``jobs`` those of the cluster."""
    live = {
        ((job["metadata"].get("labels") or {}).get(names.LABEL_WINDOW)) for job in jobs if not job_outcome(job).final
    }
    prefix = config.temporal.workflow_id_prefix
    result = []
    for place in places:
        window = place.window
        stages = {s: states.get(f"{place.group}.{s}_{place.index}") for s in MAKES_JOBS}
        busy = any(state in LIVE for state in stages.values())
        behind_job = any(stages[s] in LIVE for s in MAKES_JOBS[1:]) or window.key in live
        is_open = behind_job and any(
            belongs_to(i, prefix=prefix, customer_id=window.customer_id, profiles=window.profiles) for i in open_ids
        )
        working = window.key in live or is_open
        result.append(Work(window.label, working, busy and not working))
    return result
