"""May this window make its Job now? The same question from a worker and from the triggerer, by the same facts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from backfill.hooks.kubernetes import KubernetesJobs
from backfill.hooks.temporal import Workflows
from backfill.slots import Place, limits_now, override_now, works
from backfill.triggers.workflows import open_of_window
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.job import cluster_selector, window_selector
from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.planning.overrides import OverrideError
from include.scorecard_backfill.records import Window
from include.scorecard_backfill.verdicts.admission import judge_job
from include.scorecard_backfill.verdicts.base import Verdict, failed, ok, wait
from include.scorecard_backfill.verdicts.jobs import may_run, of_other_plans, scheduled_jobs


@dataclass(frozen=True, slots=True)
class Eyes:
    """How the facts are asked for; a trigger shares its answers with the other windows of its process."""

    jobs: KubernetesJobs
    workflows: Callable[[], Awaitable[Workflows]]
    open_ids: Callable[[], Awaitable[Collection[str]]]
    states: Callable[[], Awaitable[Mapping[str, str | None]]]
    override: Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Ask:
    """About which window, and among which: ``places`` are all windows of the run in the order of their passes.

    ``since``: epoch seconds from which on workflows of the window count as an earlier attempt's, 0: there was none.
    """

    window: Window
    places: Sequence[Place]
    run: Chosen
    since: float = 0.0


async def may_make_job(config: ClusterConfig, eyes: Eyes, ask: Ask) -> Verdict:
    """Return ok, a wait with its reason, or a failure when the cluster's file says not to wait.

    In the order in which things hold a window back: pods of an earlier attempt (a deleted Job is gone at once, its pods
    have their grace period, in which they may start workflows), its open workflows, the CronJob's own Job (which
    reindexes the same rows), the customer's Jobs of another plan (an earlier run's, or this one's before it was planned
    anew), and the slots: windows that come back after a clear were admitted long ago.
    """
    if ask.since:
        ending = may_run(await eyes.jobs.pods(window_selector(ask.window.key)))
        if ending:
            return wait(f"pods of an earlier attempt have not ended: {', '.join(ending[:3])}")
        running = await open_of_window(await eyes.workflows(), ask.window, ask.since)
        if running:
            return wait(f"{len(running)} workflows of an earlier attempt are open: {', '.join(running[:3])}")
    busy = scheduled_jobs(await eyes.jobs.jobs(), config.kubernetes.cronjob)
    if busy and config.kubernetes.active_scheduled_job == "refuse":
        return failed(
            "scheduled_job_running",
            f"the CronJob's own Job {', '.join(busy)} is running; this one would run beside it"
            " (kubernetes.active_scheduled_job: refuse)",
        )
    if busy:
        return wait(f"the CronJob's own Job {', '.join(busy)} is running")
    return await _slot(config, eyes, ask)


async def _slot(config: ClusterConfig, eyes: Eyes, ask: Ask) -> Verdict:
    index = next((i for i, place in enumerate(ask.places) if place.window.key == ask.window.key), None)
    if index is None:
        return failed("configuration", f"window {ask.window.label} ({ask.window.key}) is not in the plan of this run")
    try:
        override = override_now(await eyes.override())
    except OverrideError as error:
        return wait(f"the cluster's override cannot be used: {error}")
    if override and override.pause:
        return wait(f"paused {override.text}")
    jobs = await eyes.jobs.jobs(cluster_selector(config.name))
    if others := of_other_plans(jobs, ask.window.customer_id, {place.window.key for place in ask.places}):
        return wait(f"Jobs of another plan of {ask.window.customer_id} are running: {', '.join(others[:3])}")
    found = works(ask.places, await eyes.states(), jobs, await eyes.open_ids(), config)
    verdict = judge_job(index, found, limits_now(config, ask.run, override).max_parallel)
    return verdict if verdict.state != "ok" else ok("nothing runs beside it, a slot is free")
