"""A CronJob's manifest turned into the reindex Job of one window (plain dicts in the API's JSON form)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from include.scorecard_backfill import jobtemplate, names
from include.scorecard_backfill.jobtemplate.rules import ENV_CLEAN_UP, ENV_CUSTOMERS, ENV_END, ENV_START, WINDOW_ENV
from include.scorecard_backfill.ownership import ANNOTATION_OWNER

ANNOTATION_CONTAINER = "scorecard-backfill/container"
"""Name of the container with the reindex program; webhooks add others, before and behind it."""

INSTANTIATE_ANNOTATION = "cronjob.kubernetes.io/instantiate"
"""Set to ``manual`` by ``kubectl create job --from``; people and dashboards look for it."""


_LEFT_OUT = frozenset({"selector", "manualSelector", "podFailurePolicy"})
_CONTROLLER_LABELS = frozenset(
    f"{prefix}{name}" for prefix in ("", "batch.kubernetes.io/") for name in ("controller-uid", "job-name")
)
"""Set by the Job controller; those of another Job, from an exported manifest, would make the API refuse ours."""


class JobError(ValueError):
    """The Job cannot be made as asked; the message says which value of which object is wrong."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What the Job of one window and attempt is made of.

    ``start`` and ``end`` are ISO days in UTC, end exclusive. ``attempt`` counts from 1.
    ``ttl_seconds`` is how long the finished Job stays readable; ``deadline_seconds`` ends a Job that hangs.
    ``container`` names the template's container with the reindex program ('' = its first one), ``owner`` who makes the
    Job (``ownership.Owner.text``).
    """

    key: str
    cluster: str
    run_id: str
    customer_id: str
    start: str
    end: str
    attempt: int
    ttl_seconds: int
    deadline_seconds: int
    extra_env: Mapping[str, str] = field(default_factory=dict)
    container: str = ""
    owner: str = ""

    @property
    def name(self) -> str:
        """The deterministic name: the same window and attempt always give the same."""
        return names.job_name(key=self.key, customer_id=self.customer_id, start=self.start, attempt=self.attempt)

    @property
    def labels(self) -> dict[str, str]:
        """Labels by which the Job is found again."""
        return {
            names.LABEL_WINDOW: self.key,
            names.LABEL_ATTEMPT: str(self.attempt),
            names.LABEL_CLUSTER: names.label_value(self.cluster),
            names.LABEL_CUSTOMER: names.label_value(self.customer_id),
            names.LABEL_RUN: names.label_value(self.run_id),
        }


def window_selector(key: str) -> str:
    """Return the label selector of every Job of a window, whatever the attempt."""
    return f"{names.LABEL_WINDOW}={key}"


def cluster_selector(cluster: str) -> str:
    """Return the label selector of every Job that was made for a cluster."""
    return f"{names.LABEL_CLUSTER}={names.label_value(cluster)}"


def build_job(cronjob: Mapping[str, Any], request: JobRequest) -> dict[str, Any]:
    """Return the Job manifest: one pod, once, with the window's environment, name and labels.

    What of the CronJob's jobTemplate is kept, set or refused says the table in ``jobtemplate.fields``
    (docs/job-template.md). No ownerReference is set: the CronJob's history limits must not delete the Job before it
    was read. ``request.owner`` stands in the Job from its first moment.

    Raises:
        JobError: the template cannot serve (every field that is in the way, with its path), or the customer id would
            widen the Job to other customers.
    """
    _check_customer(request.customer_id)
    cron_name = (cronjob.get("metadata") or {}).get("name", "?")
    template = (cronjob.get("spec") or {}).get("jobTemplate")
    if not template or not template.get("spec"):
        raise JobError(f"CronJob {cron_name}: spec.jobTemplate.spec is missing; a Job cannot be made from it")
    if found := jobtemplate.problems(template, request.container):
        raise JobError(f"CronJob {cron_name}: " + "; ".join(found))
    meta = template.get("metadata") or {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": request.name,
            "labels": {**(meta.get("labels") or {}), **request.labels},
            "annotations": {
                **(meta.get("annotations") or {}),
                INSTANTIATE_ANNOTATION: "manual",
                ANNOTATION_CONTAINER: jobtemplate.program_container(template, request.container),
                **({ANNOTATION_OWNER: request.owner} if request.owner else {}),
            },
        },
        "spec": _job_spec(template["spec"], request),
    }


def _job_spec(given: Mapping[str, Any], request: JobRequest) -> dict[str, Any]:
    spec = {name: copy.deepcopy(value) for name, value in given.items() if name not in _LEFT_OUT}
    spec.update(
        completions=1,
        parallelism=1,
        backoffLimit=0,
        ttlSecondsAfterFinished=request.ttl_seconds,
        activeDeadlineSeconds=request.deadline_seconds,
    )
    pod = spec["template"]
    pod["metadata"] = _pod_metadata(pod.get("metadata") or {}, request)
    pod["spec"]["restartPolicy"] = "Never"
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        container["env"] = _env(container.get("env") or [], request)
    return spec


def _pod_metadata(given: Mapping[str, Any], request: JobRequest) -> dict[str, Any]:
    labels = {name: value for name, value in (given.get("labels") or {}).items() if name not in _CONTROLLER_LABELS}
    kept = {name: copy.deepcopy(given[name]) for name in ("annotations", "finalizers") if given.get(name)}
    return {"labels": {**labels, **request.labels}, **kept}


def _check_customer(customer_id: str) -> None:
    if not customer_id.strip() or "," in customer_id or customer_id != customer_id.strip():
        raise JobError(
            f"customer id {customer_id!r} cannot be sent in {ENV_CUSTOMERS}: an empty value means every customer and"
            " a comma means several; give one id"
        )


def _env(existing: list[Mapping[str, Any]], request: JobRequest) -> list[dict[str, Any]]:
    """Return a container's variables: the window's first, so that $(...) of the others finds them."""
    window = {
        ENV_START: f"{request.start}T00:00:00Z",
        ENV_END: f"{request.end}T00:00:00Z",
        ENV_CUSTOMERS: request.customer_id,
        # Also where the template does not name it: envFrom or the image's own environment may.
        ENV_CLEAN_UP: "false",
    }
    extra = {name: value for name, value in request.extra_env.items() if name not in {*WINDOW_ENV, ENV_CLEAN_UP}}
    kept = [copy.deepcopy(dict(item)) for item in existing if item.get("name") not in {*window, *extra}]
    return [
        *({"name": name, "value": _literal(value)} for name, value in window.items()),
        *kept,
        *({"name": name, "value": value} for name, value in extra.items()),
    ]


def _literal(value: str) -> str:
    """Return a value that Kubernetes hands on as it is: it would replace $(NAME), and take $$ for one dollar."""
    return value.replace("$", "$$") if "$(" in value or "$$" in value else value


def container_of(job: Mapping[str, Any]) -> str:
    """Return the name of the container with the reindex program: what the Job says itself, else its first one.

    A webhook may have put a container of its own before it, so that its place says nothing.
    """
    named = ((job.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION_CONTAINER)
    listed = jobtemplate.containers_of({"spec": job.get("spec") or {}})
    return str(named or (listed[0] if listed else ""))


def changed_window(job: Mapping[str, Any], request: JobRequest) -> list[str]:
    """Return what admission has made of our container's window, one sentence for each variable; [] = it is intact.

    ``job`` is what the API answered: a webhook may add containers and variables to a Job, but never another window.
    """
    name = container_of(job)
    containers = ((job.get("spec") or {}).get("template") or {}).get("spec", {}).get("containers") or []
    ours = next((item for item in containers if item.get("name") == name), None)
    if ours is None:
        return [f"container {name} is not in the Job any more"]
    wanted = {item["name"]: item["value"] for item in _env([], request) if item["name"] in {*WINDOW_ENV, ENV_CLEAN_UP}}
    found = {
        variable: [i.get("value") for i in ours.get("env") or [] if i.get("name") == variable] for variable in wanted
    }
    return [
        f"container {name}: {variable} is {found[variable]}, not {value!r}"
        for variable, value in wanted.items()
        if found[variable] != [value]
    ]


def suspended(cronjob: Mapping[str, Any]) -> bool:
    """Return True when the CronJob itself is suspended; Jobs made from its template run all the same."""
    return bool((cronjob.get("spec") or {}).get("suspend"))
