"""A CronJob's manifest turned into the reindex Job of one window (plain dicts in the API's JSON form)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from include.scorecard_backfill import names

ENV_START = "REINDEX_START_TIME"
ENV_END = "REINDEX_END_TIME"
ENV_CUSTOMERS = "RUN_ONLY_FOR_CUSTOMER_IDS"
WINDOW_ENV = frozenset({ENV_START, ENV_END, ENV_CUSTOMERS})

INSTANTIATE_ANNOTATION = "cronjob.kubernetes.io/instantiate"
"""Set to ``manual`` by ``kubectl create job --from``; people and dashboards look for it."""


class JobError(ValueError):
    """The Job cannot be made as asked; the message says which value of which object is wrong."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What the Job of one window and attempt is made of.

    ``start`` and ``end`` are ISO days in UTC, end exclusive. ``attempt`` counts from 1.
    ``ttl_seconds`` is how long the finished Job stays readable; ``deadline_seconds`` ends a Job that hangs.
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
    """Return the Job manifest: the CronJob's jobTemplate with the window's environment, name and labels.

    backoffLimit is 0 (a second pod would insert beside the first one's workflows), no ownerReference is set (the
    CronJob's history limits must not delete the Job before it was read), and parallelism stays the template's.
    Raises JobError when the template cannot serve: no container, parallelism below 1, a Jinja expression left in it,
    or a customer id that would widen the Job to other customers.
    """
    _check_customer(request.customer_id)
    cron_name = (cronjob.get("metadata") or {}).get("name", "?")
    template = (cronjob.get("spec") or {}).get("jobTemplate")
    if not template or not template.get("spec"):
        raise JobError(f"CronJob {cron_name}: spec.jobTemplate.spec is missing; a Job cannot be made from it")
    spec = copy.deepcopy(dict(template["spec"]))
    _check_template(cron_name, spec)
    meta = template.get("metadata") or {}
    spec.pop("selector", None)
    spec.pop("manualSelector", None)
    spec.update(
        backoffLimit=0,
        suspend=False,
        ttlSecondsAfterFinished=request.ttl_seconds,
        activeDeadlineSeconds=request.deadline_seconds,
    )
    pod = spec["template"]
    pod["metadata"] = {**(pod.get("metadata") or {})}
    pod["metadata"]["labels"] = {**(pod["metadata"].get("labels") or {}), **request.labels}
    for container in pod["spec"]["containers"]:
        container["env"] = _merged_env(container.get("env") or [], _window_env(request))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": request.name,
            "labels": {**(meta.get("labels") or {}), **request.labels},
            "annotations": {**(meta.get("annotations") or {}), INSTANTIATE_ANNOTATION: "manual"},
        },
        "spec": spec,
    }


def _check_customer(customer_id: str) -> None:
    if not customer_id.strip() or "," in customer_id or customer_id != customer_id.strip():
        raise JobError(
            f"customer id {customer_id!r} cannot be sent in {ENV_CUSTOMERS}: an empty value means every customer and"
            " a comma means several; give one id"
        )


def _check_template(cron_name: str, spec: Mapping[str, Any]) -> None:
    containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or []
    if not containers:
        raise JobError(f"CronJob {cron_name}: jobTemplate has no container")
    parallelism = spec.get("parallelism", 1)
    if parallelism is not None and parallelism < 1:
        raise JobError(
            f"CronJob {cron_name}: jobTemplate parallelism is {parallelism}; the Job would never start a pod"
        )
    for container in containers:
        for item in container.get("env") or []:
            if "{{" in str(item.get("value", "")):
                raise JobError(
                    f"CronJob {cron_name}: environment {item.get('name')} still holds a template expression"
                    f" ({item['value']!r}); it would reach the container as it is"
                )


def _window_env(request: JobRequest) -> dict[str, str]:
    return {
        **request.extra_env,
        ENV_START: f"{request.start}T00:00:00Z",
        ENV_END: f"{request.end}T00:00:00Z",
        ENV_CUSTOMERS: request.customer_id,
    }


def _merged_env(existing: list[Mapping[str, Any]], ours: Mapping[str, str]) -> list[dict[str, Any]]:
    kept = [dict(item) for item in existing if item.get("name") not in ours]
    return kept + [{"name": name, "value": value} for name, value in ours.items()]


def suspended(cronjob: Mapping[str, Any]) -> bool:
    """Return True when the CronJob itself is suspended; Jobs made from its template run all the same."""
    return bool((cronjob.get("spec") or {}).get("suspend"))
