"""What the Job of a window needs: rights, a template that runs once, and an API server that takes the Job."""

from __future__ import annotations

import asyncio

from backfill.hooks.kubernetes import KubeCallError, KubernetesJobs, is_transient
from include.scorecard_backfill import jobtemplate
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.foreign import ForeignJson
from include.scorecard_backfill.job import JobError, JobRequest, build_job, changed_window, container_of, suspended
from include.scorecard_backfill.verdicts.podreasons import create_refusal

RIGHTS = (
    ("get", "batch", "cronjobs", ""),
    ("list", "batch", "jobs", ""),
    ("get", "batch", "jobs", ""),
    ("create", "batch", "jobs", ""),
    ("patch", "batch", "jobs", ""),
    ("delete", "batch", "jobs", ""),
    ("list", "", "pods", ""),
    ("get", "", "pods", "log"),
)
"""(verb, API group, resource, subresource) that the stages use."""

EVENTS = ("list", "", "events", "")
"""Without this right a Job that cannot start is told without the reason that its events give."""


def kubernetes(config: ClusterConfig, problems: list[str], notes: list[str]) -> None:
    """Add what is missing to ``problems``, and what a person should know to ``notes``.

    Raises:
        JobError: the CronJob's template cannot serve; every field that is in the way is named by its path.
        KubeCallError: a call was refused or not answered.
    """
    asyncio.run(_check(KubernetesJobs.for_worker(config), config, problems, notes))


async def _check(client: KubernetesJobs, config: ClusterConfig, problems: list[str], notes: list[str]) -> None:
    denied = [
        f"kubernetes: this account may not {verb} {resource}{'/' + sub if sub else ''} in namespace"
        f" {config.kubernetes.namespace} (context {config.kubernetes.context}): ask for the role"
        for verb, group, resource, sub in RIGHTS
        if not await client.allowed(verb, group, resource, sub)
    ]
    problems += denied
    if denied:
        return
    if not await client.allowed(*EVENTS):
        notes.append("kubernetes: events may not be listed: why a pod is not made will not be told")
    cronjob = await client.cronjob()
    name = config.kubernetes.cronjob
    if suspended(cronjob):
        notes.append(f"CronJob {name} is suspended; Jobs made from its template run all the same")
    request = _sample_request(config)
    manifest = build_job(cronjob, request)
    template = cronjob["spec"]["jobTemplate"]
    notes += [f"CronJob {name}: {said}" for said in jobtemplate.changes(template)]
    if len(listed := jobtemplate.containers_of(template)) > 1:
        notes.append(
            f"CronJob {name}: of its containers {', '.join(listed)} the program is taken to be in"
            f" {container_of(manifest)} (kubernetes.container says otherwise)"
        )
    await _dry_run(client, manifest, request, problems, notes)


async def _dry_run(
    client: KubernetesJobs, manifest: ForeignJson, request: JobRequest, problems: list[str], notes: list[str]
) -> None:
    """Have the API server answer as it would: admission, quota and webhooks judge the Job, and nothing is stored."""
    try:
        answer = await client.create_job(manifest, dry_run=True)
    except KubeCallError as error:
        if is_transient(error):
            raise
        meaning = create_refusal(error.status, error.reason, error.detail)
        if meaning == "quota":
            notes.append(f"kubernetes: the namespace's quota has no room for a Job now: {error.detail}; Jobs will wait")
            return
        raise JobError(f"the API server does not take the Job of a window (dry run): {error}") from None
    problems += [
        f"kubernetes: an admission webhook changes the Job: {said}" for said in changed_window(answer, request)
    ]
    spec = answer.get("spec") or {}
    changed = jobtemplate.undone(manifest, answer, poll_seconds=client.config.poll_seconds)
    problems += [f"kubernetes: an admission webhook {said} from it" for said in changed]
    notes += [f"kubernetes: an admission webhook {said}" for said in jobtemplate.remarks(manifest, answer)]
    added = [c["name"] for c in spec["template"]["spec"]["containers"]]
    sent = [c["name"] for c in manifest["spec"]["template"]["spec"]["containers"]]
    if others := [container for container in added if container not in sent]:
        notes.append(
            f"kubernetes: admission adds {', '.join(others)} to the pods; one that does not end by itself keeps the Job"
            f" alive after {container_of(manifest)} until its deadline"
        )
    if spec.get("suspend") and not manifest["spec"].get("suspend"):
        notes.append("kubernetes: admission suspends the Job: it waits for its turn in a queue")


def _sample_request(config: ClusterConfig) -> JobRequest:
    limits = config.kubernetes
    return JobRequest(
        key="0" * 16,
        cluster=config.name,
        run_id="preflight",
        customer_id="preflight",
        start="2026-01-01",
        end="2026-01-02",
        attempt=1,
        ttl_seconds=limits.ttl_seconds_after_finished,
        deadline_seconds=limits.deadline_seconds,
        extra_env=limits.extra_env,
        container=limits.container,
    )
